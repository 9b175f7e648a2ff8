//! Letting another process have the sessions, and noticing that it has them.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::info;

use super::Supervisor;
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::engine::Order;
use crate::sync::lease::Standing;
use crate::sync::report::SessionState;

/// What an engine may take to say that its time is over.
const SLACK: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Waits until another process asks for a session, which counts from `from` on, and makes sure that it still does.
    pub async fn wanted(&self, from: Instant) {
        let leases = &self.env.leases;
        let mut changes = leases.changes();
        let wanted = || leases.any(|standing| standing == Standing::Wanted);
        loop {
            if wanted() {
                sleep_until(from).await;
                // Whoever asked may have given up since. A wish is forgotten after 20 s.
                leases.renew().await;
                if wanted() {
                    return;
                }
            }
            changes.mark_unchanged();
            if !wanted() && changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a lease ran out: the database does not answer.
    pub async fn lease_ran_out(&self) {
        let leases = &self.env.leases;
        let mut changes = leases.changes();
        while !leases.any(|standing| standing == Standing::RanOut) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until another process took a session over.
    pub async fn taken(&self) {
        let mut health = self.health();
        let taken = |supervisor: &Self| {
            supervisor.lock().values().any(|session| session.status.borrow().state == SessionState::Taken)
        };
        while !taken(self) {
            if health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Lets other processes have all sessions, whose bot was stopped: everything is flushed before any of them is
    /// given away. From then on they are waited for quietly, until [`ready`](Self::ready) says that they are back.
    ///
    /// # Errors
    /// What could not be stored. Then those that were not given away yet are kept: the bot may go on only if
    /// [`health`](Self::health) says that all are ready.
    pub async fn give_way(&self, deadline: Instant) -> Result<(), Error> {
        self.give_keys_away(deadline, |_| true).await
    }

    /// The same, of some sessions.
    pub(super) async fn give_keys_away(
        &self,
        deadline: Instant,
        which: impl Fn(&SessionKey) -> bool,
    ) -> Result<(), Error> {
        let given = async {
            let sessions: Vec<_> = self
                .lock()
                .iter()
                // The others are no bot's.
                .filter(|(key, session)| which(key) && session.status.borrow().ready)
                .map(|(key, session)| (key.clone(), session.orders.clone(), session.status.clone()))
                .collect();
            for (key, ..) in &sessions {
                self.ask(key, Order::Sync).await?;
            }
            let mut answers = Vec::new();
            for (key, orders, status) in sessions {
                let epoch = status.borrow().epoch;
                let (reply, answer) = oneshot::channel();
                // A session that ended is nobody's to give.
                if orders.send(Order::GiveWay { deadline, reply }).await.is_ok() {
                    answers.push((key, status, epoch, answer));
                }
            }
            for (key, mut status, epoch, answer) in answers {
                let gone = |_| Error::new(Code::LeaseLost, format!("session {key} is not ours any more"));
                answer.await.map_err(gone)??;
                // Its end is its task's end, too.
                let _ = status.wait_for(|status| !status.ready || status.epoch != epoch).await;
            }
            Ok(())
        };
        let late = || {
            Err(Error::new(
                Code::NotFlushed,
                "not everything could be stored in time, so the session is kept",
            ))
        };
        // An engine gives up at the deadline by itself, and says so.
        let result = timeout_at(deadline + SLACK, given).await.unwrap_or_else(|_| late());
        self.judge();
        if result.is_ok() {
            info!("everything is stored; another process may have the session");
        }
        result
    }
}
