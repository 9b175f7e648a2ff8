//! From a list to a session that is ours: list, grant, claim, and the list that decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Ask, Claim, Claimant, Leases, Refused, Wait, claim};
use crate::error::{Code, Error};
use crate::history::{Depth, HistoryError, Id, Survey, survey};
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
    /// The newest acknowledged commit that the lease row remembers.
    pub known_head: Option<Id>,
}

/// Why a session is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another has it, and did not give way while we waited.
    #[error("{}: run one replica (`strategy: Recreate`), or wait longer (--lease-wait)", who(.0))]
    Refused(Refused),
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
            Self::Refused(_) => Code::LeaseHeld,
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

/// Who has it, for people.
fn who(refused: &Refused) -> String {
    let holder = refused.holder.as_ref().map_or("another process that asked first".to_owned(), |holder| {
        format!("another process (holder {holder})")
    });
    match refused.expires_in {
        Some(left) => format!("{holder} has it; its lease ends in {} s unless it is renewed", left.as_secs()),
        None => format!("{holder} has it"),
    }
}

/// A session that is to be taken.
#[derive(Debug)]
pub struct Taking<'a> {
    /// Which.
    pub key: &'a SessionKey,
    /// The list before the grant.
    pub before: &'a Survey,
    /// The highest epoch that the local state remembers.
    pub known: u32,
    /// Who takes it.
    pub claimant: &'a Claimant,
    /// How long a grant is waited for.
    pub wait: Wait,
}

/// Takes a session: `Restore` 2 and 3 of DESIGN.md. // P5
///
/// # Errors
/// [`LeaseError`]; after any of them nothing is held, though a claim of ours may lie in the bucket.
pub async fn take(store: &dyn Store, leases: &Arc<Leases>, taking: &Taking<'_>) -> Result<Held, LeaseError> {
    let held = claim_and_list(store, leases, taking).await;
    if held.is_err() {
        leases.release(std::slice::from_ref(taking.key)).await;
    }
    held
}

async fn claim_and_list(
    store: &dyn Store,
    leases: &Arc<Leases>,
    taking: &Taking<'_>,
) -> Result<Held, LeaseError> {
    let Taking { key, before, known, claimant, wait: wait_for_it } = *taking;
    let reached = before.head().map_or(0, |head| head.epoch).max(known);
    let mut above = before.newest_epoch().max(known);
    refuse_leap(above, reached)?;
    let mut wait = None;
    let mut winner = None;
    for _ in 0..TRIES {
        if let Some(wait) = wait {
            sleep(wait).await;
        }
        wait = Some(backoff(WAIT, wait, rand::random()));
        let ask = Ask { key: key.clone(), holder: claimant.holder.clone(), above };
        let granted = leases.acquire(ask, wait_for_it).await?;
        let epoch = granted.epoch;
        if epoch <= above {
            return Err(LeaseError::NotAbove { epoch, above });
        }
        refuse_leap(epoch, above)?;
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
        let list = list_with(store, key, epoch).await?.ok_or(LeaseError::Blind)?;
        if won && is_ours(&list, epoch) {
            return Ok(Held { epoch, survey: list, known_head: granted.head });
        }
        if !wait_for_it.contend {
            break;
        }
        above = epoch.max(list.newest_epoch());
        refuse_leap(above, epoch)?;
    }
    Err(LeaseError::Lost { by: winner })
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
