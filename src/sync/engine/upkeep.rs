//! What the engine does besides committing: the list of a reconcile, retention, read-back.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Alarm, Engine};
use crate::history::{self, Depth, HistoryError, Id, retention};
use crate::sync::journal::Lost;

/// Retention runs at most this often.
const RETENTION: Duration = Duration::from_hours(1);
/// The newest base is read back and verified so often.
const READ_BACK: Duration = Duration::from_hours(24);

impl Engine {
    /// The one request of a reconcile: are we still the owner, and is the chain whole? // P5 P6
    pub(super) async fn reconcile_history(&mut self) -> Result<(), Lost> {
        let Some(head) = self.journal.head() else { return Ok(()) };
        let survey = history::survey(&*self.env.store, &self.key, Depth::Chain, Some(head)).await?;
        if survey.newest_epoch() > head.epoch || survey.head() > Some(head) {
            // The rule for what that means stands in one place.
            self.journal.prove().await?;
        }
        let missing = match survey.chain(head) {
            Err(HistoryError::Missing { id } | HistoryError::Damaged { id, .. }) => Some(id),
            _ => None,
        };
        self.weight.broken = missing.is_some();
        let text = missing.map(|id| {
            format!("history: commit {id} of the chain is missing: a base of the whole tree is committed")
        });
        self.set_alarm(Alarm::History, text);
        Ok(())
    }

    /// What may wait: retention after a new base, and reading the newest base back. A failure is logged and tried again
    /// after the next base; it never holds a commit up.
    pub(super) async fn keep_house(&mut self) -> Result<(), Lost> {
        if !self.retention_due || !rested(self.last_retention, RETENTION) {
            return Ok(());
        }
        self.retention_due = false;
        self.last_retention = Some(Instant::now());
        match self.retain().await {
            Ok(()) => Ok(()),
            Err(Lost::Taken { epoch }) => Err(Lost::Taken { epoch }),
            Err(Lost::Failed(error)) => {
                warn!(%error, "old history could not be removed; it will be tried again");
                Ok(())
            }
        }
    }

    async fn retain(&mut self) -> Result<(), Lost> {
        let survey = history::survey(&*self.env.store, &self.key, Depth::All, self.journal.head()).await?;
        let Some(now) = survey.date else { return Ok(()) };
        // The list that is planned on must itself prove that we may. // P5 P6
        self.journal.prove().await?;
        let policy = retention::Policy { epoch: self.journal.epoch(), ..self.env.policy.retention };
        let plan = retention::plan(&survey, now, &policy);
        if let Some(base) = plan.newest_base.filter(|_| rested(self.last_read_back, READ_BACK)) {
            self.read_back(&survey, base).await?;
        }
        let removed = history::clean::clean(&*self.env.store, &plan).await?;
        if removed > 0 {
            info!(removed, "old history removed");
        }
        Ok(())
    }

    /// What nobody ever reads may be unreadable: the newest base is restored into nothing once a day. // P6
    async fn read_back(&mut self, survey: &history::Survey, base: Id) -> Result<(), Lost> {
        self.last_read_back = Some(Instant::now());
        let scratch = self.env.root.scratch()?;
        match history::clean::verify_base(self.access(), &self.key, survey, base, scratch.path()).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_damage() => {
                self.weight.broken = true;
                self.set_alarm(
                    Alarm::History,
                    Some(format!("history: the newest base does not verify: {error}; another is committed")),
                );
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The chain has grown by the commit that was just stored.
    pub(super) fn weigh(&mut self, base: bool) {
        let bytes = self.journal.stored_bytes();
        if base {
            self.weight = history::ChainWeight::based(bytes, Instant::now());
        } else {
            self.weight.grow(bytes);
        }
    }
}

fn rested(last: Option<Instant>, rest: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= rest)
}
