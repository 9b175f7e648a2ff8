//! From a list to a session that is ours: list, grant, claim, and the list that decides.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::{Claim, Claimant, Grant, Lessor, Outcome, claim};
use crate::error::{Code, Error};
use crate::history::{Depth, HistoryError, Survey, survey};
use crate::session::SessionKey;
use crate::store::{Bounds, Store, backoff};

/// Claims at most before the session is left to those who are faster.
const TRIES: u32 = 8;
const WAIT: Bounds = Bounds { base: Duration::from_millis(50), cap: Duration::from_secs(2) };
/// Before a list that lacks what is certainly there is asked for again.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// Epochs grow by one a start. A leap says that somebody wants to use them up, or forged a name.
const LEAP: u32 = 1_000_000;

/// A session that is ours until a list shows a higher epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The claimed epoch.
    pub epoch: u32,
    /// The list after the claim: all decisions are made on it.
    pub survey: Survey,
}

/// Why a session is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The lessor says that another has it: ask again, or give up after `--lease-wait`.
    #[error(
        "it is held by {holder} until {expires}; run one replica (`strategy: Recreate`), or wait longer (--lease-wait)"
    )]
    Refused {
        /// Its holder id.
        holder: String,
        /// When it ends if it is not renewed.
        expires: Timestamp,
    },
    /// Others claim it again and again.
    #[error("others claim it at the same time (the last was {}): run one replica (`strategy: Recreate`)",
        by.as_deref().unwrap_or("unknown"))]
    Lost {
        /// The holder id of the last claim that was above ours, where it is known.
        by: Option<String>,
    },
    /// An epoch that no start can have led to.
    #[error(
        "epoch {epoch} is more than 1,000,000 above {above}: something forged a name in `.history`; remove it"
    )]
    Hostile {
        /// The epoch in the bucket or the row.
        epoch: u32,
        /// What it was compared with.
        above: u32,
    },
    /// A grant that is not above what is known.
    #[error(
        "epoch {epoch} was granted although {above} is known: the lease functions are not ours (`schema` prints them)"
    )]
    NotAbove {
        /// What was granted.
        epoch: u32,
        /// What it had to be above.
        above: u32,
    },
    /// The bucket took our claim, and does not list it.
    #[error(
        "the bucket took our claim but does not list it: the key may write but not read `.history` (`doctor` tells)"
    )]
    Blind,
    /// The lists failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The lessor failed.
    #[error("{0}")]
    Lessor(Error),
}

impl LeaseError {
    /// The stable word, and with it the exit code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { .. } => Code::LeaseHeld,
            Self::Lost { .. } => Code::LeaseLost,
            Self::Hostile { .. } => Code::Damaged,
            Self::NotAbove { .. } => Code::NotSupabase,
            Self::Blind => Code::Unauthorized,
            Self::History(error) => error.code(),
            Self::Lessor(error) => error.code(),
        }
    }
}

impl From<LeaseError> for Error {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::History(error) => error.into(),
            LeaseError::Lessor(error) => error,
            other => Self::new(other.code(), format!("the session cannot be taken: {other}")),
        }
    }
}

/// Takes a session: `Restore` 2 and 3 of DESIGN.md. `before` is the list before the grant, `known` the highest epoch that
/// the local state remembers. // P5
///
/// # Errors
/// [`LeaseError`]; after any of them nothing is held, though a claim of ours may lie in the bucket.
pub async fn take(
    store: &dyn Store,
    lessor: &dyn Lessor,
    key: &SessionKey,
    before: &Survey,
    known: u32,
    claimant: &Claimant,
) -> Result<Held, LeaseError> {
    let reached = before.head().map_or(0, |head| head.epoch).max(known);
    let mut above = before.newest_epoch().max(known);
    refuse_leap(above, reached)?;
    let mut wait = None;
    let mut winner = None;
    let mut granted = None;
    let mut ended = None;
    for _ in 0..TRIES {
        if let Some(wait) = wait {
            sleep(wait).await;
        }
        wait = Some(backoff(WAIT, wait, rand::random()));
        let epoch = match lessor.acquire(key, above).await.map_err(LeaseError::Lessor)? {
            Outcome::Granted { epoch } => epoch,
            Outcome::Refused { holder, expires } => return Err(LeaseError::Refused { holder, expires }),
        };
        if epoch <= above {
            return Err(LeaseError::NotAbove { epoch, above });
        }
        refuse_leap(epoch, above)?;
        granted = Some(epoch);
        let won = match claim(store, key, epoch, claimant).await.map_err(HistoryError::from)? {
            Claim::Won => true,
            Claim::Taken { by: Some(by) } => {
                winner = Some(by);
                false
            }
            // Nobody can say whether there is such a claim.
            Claim::Taken { by: None } => {
                above = epoch;
                continue;
            }
        };
        let Some(list) = list_with(store, key, epoch).await? else {
            ended = Some(LeaseError::Blind);
            break;
        };
        if won && is_ours(&list, epoch) {
            return Ok(Held { epoch, survey: list });
        }
        above = epoch.max(list.newest_epoch());
        refuse_leap(above, epoch)?;
    }
    if let Some(epoch) = granted {
        let grant = Grant { key: key.clone(), epoch, head: None };
        // It runs out by itself, too.
        if let Err(error) = lessor.release(&[grant]).await {
            tracing::debug!(session = %key, %error, "a lease that is of no use could not be given back");
        }
    }
    Err(ended.unwrap_or(LeaseError::Lost { by: winner }))
}

/// The list after a claim that is certainly there: ours, or one that was read at its name. None: also a second list
/// lacks it, and so may lack anything. // P5
async fn list_with(store: &dyn Store, key: &SessionKey, epoch: u32) -> Result<Option<Survey>, HistoryError> {
    let list = survey(store, key, Depth::Chain, None).await?;
    if list.newest_epoch() >= epoch {
        return Ok(Some(list));
    }
    sleep(SECOND_LOOK).await;
    let list = survey(store, key, Depth::Chain, None).await?;
    Ok((list.newest_epoch() >= epoch).then_some(list))
}

/// Whether the list after a claim leaves the session to us: nothing above our epoch, and nothing in it, because we
/// have written nothing yet. P5
#[must_use]
pub fn is_ours(list: &Survey, epoch: u32) -> bool {
    list.newest_epoch() == epoch && list.in_epoch(epoch).next().is_none()
}

fn refuse_leap(epoch: u32, above: u32) -> Result<(), LeaseError> {
    if epoch.saturating_sub(above) > LEAP { Err(LeaseError::Hostile { epoch, above }) } else { Ok(()) }
}
