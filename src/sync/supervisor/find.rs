//! Sessions that only the bucket knows, asked for beside those on disk: an outage must not hide them.

use std::sync::{Arc, PoisonError, Weak};

use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::life::backoff;
use super::{Selection, Supervisor, select};
use crate::error::{Code, Error};
use crate::sync::env::Env;

/// Whether the sessions that only the bucket knows are known.
#[derive(Debug)]
pub(super) enum Listing {
    /// Nothing was said yet.
    Asked,
    /// All are begun, or they are not asked for.
    Known,
    /// Nothing answers. The list is asked for on and on.
    Unreachable {
        /// `--outage-wait` is over, and the command does not wait for ever.
        over: Option<Error>,
    },
    /// Something else is wrong, and stays so.
    Failed(Error),
}

/// Asks until there is an answer, and begins the sessions in it.
pub(super) async fn find(supervisor: Weak<Supervisor>, env: Arc<Env>, selection: Selection, in_use: bool) {
    let give_up_at = Instant::now() + env.policy.outage_wait;
    let mut backoff = backoff();
    loop {
        let found = select::in_bucket(&env, &selection, give_up_at).await;
        let Some(supervisor) = supervisor.upgrade() else { return };
        match found {
            Ok(keys) => {
                for key in keys {
                    supervisor.begin(key, in_use);
                }
                return supervisor.note(Listing::Known);
            }
            Err(error) if error.code() == Code::Unreachable => {
                warn!(%error, "trying again");
                let over = Instant::now() >= give_up_at && !env.policy.start.command.owns_its_bot();
                supervisor.note(Listing::Unreachable { over: over.then_some(error) });
            }
            Err(error) => {
                error!(%error, "sessions that are only in the bucket are not kept");
                return supervisor.note(Listing::Failed(error));
            }
        }
        drop(supervisor);
        sleep_until(backoff.next_try(give_up_at)).await;
    }
}

impl Supervisor {
    fn note(&self, listing: Listing) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = listing;
        self.judge();
    }

    /// Why the start is over: the list failed, or an outage was borne for long enough and no session lies here whose
    /// own start would say so.
    pub(super) fn take_list_error(&self) -> Option<Error> {
        let none = self.lock().is_empty();
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let over = match &*listing {
            Listing::Failed(_) => true,
            Listing::Unreachable { over } => over.is_some() && none,
            Listing::Asked | Listing::Known => false,
        };
        if !over {
            return None;
        }
        match std::mem::replace(&mut *listing, Listing::Asked) {
            Listing::Failed(error) | Listing::Unreachable { over: Some(error) } => Some(error),
            _ => None,
        }
    }
}
