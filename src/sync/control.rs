//! What other commands may ask of the process that holds a root.

use std::time::Duration;

use async_trait::async_trait;

use super::report::{HistoryReport, MarkReport, StatusReport, SyncReport};
use crate::error::Error;
use crate::session::SessionKey;

/// The process that holds a root, asked by another command: the supervisor itself, or the control socket's client.
#[async_trait]
pub trait Control: Send + Sync {
    /// All sessions at this moment.
    async fn status(&self) -> Result<StatusReport, Error>;

    /// A full scan and, where something changed, a commit; of one session or of all.
    /// Answers once it is acknowledged, or fails after `deadline`.
    async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error>;

    /// Pins the head and marks the session as logged out: it restores as a new one.
    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error>;

    /// Commits the identity that is on disk although the guard holds it.
    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error>;

    /// The points of one session's history.
    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error>;
}
