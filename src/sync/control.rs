//! What other commands may ask of the process that holds a root.

use std::time::Duration;

use async_trait::async_trait;

use super::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionStatus,
    StatusReport, SyncReport,
};
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

    /// The sessions of a user, wherever they are known: here, in the bucket, in the table; newest first. A table that
    /// cannot be asked hides none.
    async fn sessions(&self, _user: &str) -> Result<Vec<SessionEntry>, Error> {
        Err(unbuilt())
    }

    /// Makes a session one of this process, restored where it has a history and begun where it has none, and waits
    /// until its bot may start; at once where it may already.
    async fn open(&self, _key: &SessionKey) -> Result<SessionStatus, Error> {
        Err(unbuilt())
    }

    /// Goes to a point of the past, an id or a time, or takes the newest again. The bot is stopped first where it is
    /// ours to stop.
    ///
    /// # Errors
    /// [`Code::Conflict`](crate::error::Code::Conflict) where the bot is not ours to stop.
    async fn restore(&self, _key: &SessionKey, _at: Option<String>) -> Result<RestoreReport, Error> {
        Err(unbuilt())
    }

    /// Deletes a session, as [`deletion::delete`](super::deletion::delete). The bot is stopped first where it is ours
    /// to stop.
    ///
    /// # Errors
    /// [`Code::Conflict`](crate::error::Code::Conflict) where it is not.
    async fn delete(&self, _key: &SessionKey, _purge: bool) -> Result<DeleteReport, Error> {
        Err(unbuilt())
    }

    /// What a bot says of a session, for the table. Never waits for the database.
    async fn note(&self, _key: &SessionKey, _facts: BotFacts) -> Result<(), Error> {
        Err(unbuilt())
    }
}

fn unbuilt() -> Error {
    Error::new(crate::error::Code::Internal, "under construction")
}
