//! Which sessions a start is for: below the root, and in the bucket.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::life::backoff;
use crate::error::{Code, Error};
use crate::history::HistoryError;
use crate::session::SessionKey;
use crate::store;
use crate::sync::discover;
use crate::sync::env::Env;
use crate::telemetry::Masked;
use crate::tree::Dir;

/// How long a start waits for the table.
const TABLE: Duration = Duration::from_secs(10);

/// Which sessions a start restores.
#[derive(Debug, Clone, Default)]
pub enum Selection {
    /// All that there are, here and in the bucket.
    #[default]
    All,
    /// The same, but for those in the bucket that the table of sessions calls inactive.
    Active,
    /// Only those that lie below the root.
    LocalOnly,
    /// These, and those that lie below the root.
    Only(BTreeSet<SessionKey>),
}

/// The sessions that are known without asking.
pub(super) fn known(env: &Env, selection: &Selection) -> Result<BTreeSet<SessionKey>, Error> {
    let mut keys = local(env)?;
    if let Selection::Only(only) = selection {
        keys.extend(only.iter().cloned());
    }
    Ok(keys)
}

/// Whether a start is also for sessions that only the bucket knows.
pub(super) fn asks_bucket(env: &Env, selection: &Selection) -> bool {
    matches!(selection, Selection::All | Selection::Active) && env.layout.depth() > 0
}

/// The sessions that the bucket knows.
///
/// # Errors
/// [`Code::Unreachable`] among others; then not later than `give_up_at`.
pub(super) async fn in_bucket(
    env: &Env,
    selection: &Selection,
    give_up_at: Instant,
) -> Result<BTreeSet<SessionKey>, Error> {
    let list = async {
        env.terms().await?;
        let found = discover::remote(&*env.store, &env.layout).await;
        found.map_err(|error| HistoryError::from(error).into())
    };
    let found = store::give_up_at(give_up_at, list).await.map_err(|error: Error| match error.code() {
        Code::Unreachable => {
            Error::new(Code::Unreachable, format!("the sessions in the bucket cannot be listed: {error}"))
        }
        _ => error,
    })?;
    Ok(match selection {
        Selection::Active => active(env, found).await,
        _ => found,
    })
}

/// Without those that the table calls inactive. What it says nothing of is active, and all is while it cannot be asked:
/// a table never hides a session for want of an answer.
async fn active(env: &Env, mut found: BTreeSet<SessionKey>) -> BTreeSet<SessionKey> {
    let Some(noter) = &env.noter else {
        warn!("--select active without a table (--metadata off): all sessions are restored");
        return found;
    };
    let mut backoff = backoff();
    let until = Instant::now() + TABLE;
    loop {
        let error = match timeout_at(until, noter.notes().inactive()).await {
            Ok(Ok(inactive)) => {
                let before = found.len();
                found.retain(|key| !inactive.contains(key));
                info!(active = found.len(), left_out = before - found.len(), "sessions by the table");
                return found;
            }
            Ok(Err(error)) => error,
            Err(_) => Error::new(Code::Unreachable, "no answer in time"),
        };
        if error.code() != Code::Unreachable || Instant::now() >= until {
            warn!(%error, "the table cannot be asked which sessions are active: all are restored");
            return found;
        }
        sleep_until(backoff.next_try(until)).await;
    }
}

/// All sessions, for a command that opens each once. An outage means what line 5 of the start table says, also for
/// sessions that only the bucket knows.
pub(super) async fn all(
    env: &Env,
    selection: &Selection,
    give_up_at: Instant,
) -> Result<BTreeSet<SessionKey>, Error> {
    let mut keys = known(env, selection)?;
    let mut backoff = backoff();
    while asks_bucket(env, selection) {
        match in_bucket(env, selection, give_up_at).await {
            Ok(found) => {
                keys.extend(found);
                break;
            }
            Err(error) if error.code() == Code::Unreachable && Instant::now() < give_up_at => {
                warn!(%error, "trying again");
                sleep_until(backoff.next_try(give_up_at)).await;
            }
            Err(error)
                if error.code() == Code::Unreachable && env.policy.start.use_local && !keys.is_empty() =>
            {
                error!(%error, "sessions that are not on this disk are left out");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

pub(super) fn below(env: &Env) -> Result<discover::Local, Error> {
    let root = Dir::open(env.root.root()).map_err(|error| Error::io("the root cannot be opened", error))?;
    discover::local(&root, &env.layout).map_err(|error| Error::io("the root cannot be read", error))
}

/// The sessions below the root. What lies outside of all of them is warned of, once a start.
fn local(env: &Env) -> Result<BTreeSet<SessionKey>, Error> {
    let found = below(env)?;
    if !found.strays.is_empty() {
        let some: Vec<String> = found.strays.iter().take(3).map(|path| Masked(path).to_string()).collect();
        warn!(
            count = found.strays.len(),
            some = some.join(", "),
            "paths outside every session are not stored: sessions lie at USER/SESSION below the root (see --session, --user)"
        );
    }
    Ok(found.sessions)
}
