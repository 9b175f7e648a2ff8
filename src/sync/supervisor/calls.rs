//! What other commands, and the API, may ask of the running process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Supervisor;
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::catalogue;
use crate::sync::control::Control;
use crate::sync::engine::Order;
use crate::sync::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionState,
    SessionStatus, StatusReport, SyncReport, WatchMode, WatchStatus,
};

impl Supervisor {
    pub(super) async fn ask<T>(
        &self,
        key: &SessionKey,
        order: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Order,
    ) -> Result<T, Error> {
        let session = self.lock().get(key).map(|session| {
            let queued = session.status.borrow().state == SessionState::Queued;
            (session.orders.clone(), queued)
        });
        let (orders, queued) = session
            .ok_or_else(|| Error::new(Code::NotFound, format!("session {key} is not one of this root")))?;
        if queued {
            let text = format!("session {key}: another process has it; this one waits until it falls free");
            return Err(Error::new(Code::LeaseHeld, text));
        }
        let (reply, answer) = oneshot::channel();
        let gone = || {
            Error::new(
                Code::LeaseLost,
                format!("session {key} is not watched any more: see `session-sidecar status`"),
            )
        };
        orders.send(order(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Control for Supervisor {
    async fn status(&self) -> Result<StatusReport, Error> {
        let sessions = self.statuses();
        let mode = if self.watch.polling() { WatchMode::Poll } else { WatchMode::Inotify };
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            watch: Some(WatchStatus { mode, reason: self.router.why_degraded() }),
            sessions,
        })
    }

    async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error> {
        let keys: Vec<SessionKey> = match key {
            Some(key) => vec![key],
            None => self.lock().keys().cloned().collect(),
        };
        let all = async {
            let mut sessions = Vec::new();
            for key in &keys {
                sessions.push(self.ask(key, Order::Sync).await?);
            }
            Ok(SyncReport { sessions })
        };
        timeout(deadline, all).await.unwrap_or_else(|_| {
            Err(Error::new(
                Code::NotFlushed,
                "not everything was stored in time; it is committed as soon as storage answers",
            ))
        })
    }

    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.ask(key, Order::Logout).await.map(|written| written.report(key))
    }

    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.ask(key, Order::AcceptIdentity).await.map(|written| written.report(key))
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        crate::sync::points::history(&*self.env.store, key).await
    }

    async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
        let prefix = format!("{user}/");
        let here = self.statuses().into_iter().filter(|status| status.session.starts_with(&prefix)).collect();
        catalogue::sessions(&self.env, user, here).await
    }

    async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        // Whoever opens sessions runs their bots.
        self.env.runner_speaks.store(true, Ordering::Relaxed);
        self.open_one(key).await
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        self.bot_was_stopped(key)?;
        self.restore_one(key, at).await
    }

    async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        self.bot_was_stopped(key)?;
        self.delete_one(key, purge).await
    }

    async fn give_way(&self, key: &SessionKey) -> Result<(), Error> {
        self.bot_was_stopped(key)?;
        self.give_one_away(key).await
    }

    async fn note(&self, key: &SessionKey, facts: BotFacts) -> Result<(), Error> {
        if let Some(noter) = &self.env.noter {
            noter.bot_says(key, facts);
        }
        Ok(())
    }
}
