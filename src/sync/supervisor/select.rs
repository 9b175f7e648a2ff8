//! Which sessions a start is for: below the root, and in the bucket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::backoff::Backoff;
use crate::sync::discover;
use crate::sync::env::Env;
use crate::telemetry::Masked;
use crate::tree::Dir;

/// Which sessions a start restores.
#[derive(Debug, Clone, Default)]
pub enum Selection {
    /// All that there are, here and in the bucket.
    #[default]
    All,
    /// Only those that lie below the root.
    LocalOnly,
    /// These, and those that lie below the root.
    Only(BTreeSet<SessionKey>),
}

/// The sessions of a start. While nothing answers, those below the root are known all the same.
pub(super) async fn sessions(
    env: &Arc<Env>,
    selection: &Selection,
    outage_wait: Duration,
) -> Result<BTreeSet<SessionKey>, Error> {
    let mut keys = local(env)?;
    match selection {
        Selection::LocalOnly => return Ok(keys),
        Selection::Only(only) => {
            keys.extend(only.iter().cloned());
            return Ok(keys);
        }
        Selection::All => {}
    }
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let remote = async {
            env.terms().await?;
            discover::remote(&*env.store, &env.layout)
                .await
                .map_err(|error| crate::history::HistoryError::from(error).into())
        };
        match remote.await {
            Ok(remote) => {
                keys.extend(remote);
                return Ok(keys);
            }
            // Each start table decides what an outage means for its session.
            Err(error) if error_is_outage(&error) && !keys.is_empty() => return Ok(keys),
            Err(error)
                if error_is_outage(&error)
                    && (began.elapsed() < outage_wait || env.policy.start.command.keeps_asking()) =>
            {
                let wait = backoff.next_wait();
                warn!(%error, wait_ms = crate::telemetry::millis(wait), "the sessions cannot be listed; trying again");
                sleep(wait).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn error_is_outage(error: &Error) -> bool {
    error.code() == Code::Unreachable
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
