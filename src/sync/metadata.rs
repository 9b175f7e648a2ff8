//! The row that people and apps read of a session: what we know goes there, behind the commits and never in their way.
//!
//! The table may be older than we are: our facts lie under `session_data.sidecar`, and `is_active` and `status` change
//! only where a session begins or ends. No decision of ours rests on a row, but for what `--select active` leaves out.

mod noter;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::env::Env;
use super::report::{BotFacts, BotStatus, SessionState, SessionStatus};
use crate::error::Error;
use crate::history::Id;
use crate::session::SessionKey;
use crate::tree::Summary;
pub use noter::Noter;
pub use table::PostgrestNotes;

/// What the end of a process waits for its rows at most.
const LAST: Duration = Duration::from_secs(3);

/// Where the rows lie.
#[async_trait]
pub trait Notes: Send + Sync + Debug {
    /// Writes rows, at most [`AT_ONCE`](crate::supabase::AT_ONCE); those that were not written, or not all of it, and why.
    ///
    /// # Errors
    /// [`Code::Unreachable`](crate::error::Code::Unreachable): again soon. All others stay until somebody changes the project.
    async fn note(&self, rows: &[Row]) -> Result<Vec<(SessionKey, String)>, Error>;

    /// The sessions that have a row, and none that calls them active (or says nothing of it).
    ///
    /// # Errors
    /// As those of [`note`](Self::note).
    async fn inactive(&self) -> Result<BTreeSet<SessionKey>, Error>;

    /// The rows of a user, with whatever columns the table has.
    ///
    /// # Errors
    /// As those of [`note`](Self::note).
    async fn rows(&self, user: &str) -> Result<Vec<serde_json::Value>, Error>;
}

/// What is known of one session. What is unknown leaves the row's value as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The newest acknowledged commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Files of its tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes of its tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_at: Option<Timestamp>,
    /// How many paths are kept at its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The account's phone number, digits only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Where the session stands in the process that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// Whether its bot is to be connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<bool>,
}

impl Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the phone.
        f.debug_struct("Facts").field("head", &self.head).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Facts {
    /// Of a session that this process owns; none of any other: its row is its owner's.
    fn of(status: &SessionStatus) -> Option<Self> {
        let ours = matches!(status.state, SessionState::Ready | SessionState::Held | SessionState::Stopped);
        let head = status.head.clone().filter(|_| ours)?;
        Some(Self {
            head: Some(head),
            files: Some(status.files),
            bytes: Some(status.bytes),
            last_sync_at: status.last_commit_at,
            held: Some(status.held.len() as u64),
            phone: status.identity.as_ref().and_then(|identity| identity.account.clone()),
            state: Some(status.state),
            desired: None,
        })
    }
}

/// What changes a row besides facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A session that had no tree has one.
    Began,
    /// A logout, a delete.
    Ended,
}

/// A row as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    user: String,
    session: String,
    /// Merged into `session_data.sidecar`.
    pub sidecar: Facts,
    /// One of the old service's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BotStatus>,
    /// `is_active`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// `session_name`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `is_default`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
    /// Whether a row is made where there is none: not for what is empty or at its end.
    pub create: bool,
}

impl Row {
    /// Where the engine speaks of an end, the bot's last word is older.
    fn new(key: &SessionKey, mut sidecar: Facts, bot: BotFacts, turn: Option<Turn>) -> Self {
        let ended = turn == Some(Turn::Ended);
        sidecar.desired = bot.desired;
        sidecar.phone = bot.phone.or(sidecar.phone);
        Self {
            user: key.user().to_owned(),
            session: key.session().to_owned(),
            status: if ended { Some(BotStatus::LoggedOut) } else { bot.status },
            active: turn.map(|turn| turn == Turn::Began),
            // Somebody who connects a session wants to see it before it has files.
            create: !ended && (sidecar.files.is_some_and(|files| files > 0) || bot.desired == Some(true)),
            name: bot.name,
            default: bot.is_default,
            sidecar,
        }
    }
}

/// What the parts of a session say; without a table nothing is done with it.
impl Env {
    /// The session stands so.
    pub fn note(&self, key: &SessionKey, status: &SessionStatus) {
        if let Some(noter) = &self.noter {
            noter.stands(key, status);
        }
    }

    /// Sends what was not sent yet: for a few seconds, after which nothing is noted any more.
    pub async fn last_notes(&self) {
        if let Some(noter) = &self.noter {
            noter.finish(Instant::now() + LAST).await;
        }
    }
}

/// A commit that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Noted {
    /// Its id.
    pub head: Id,
    /// Its tree.
    pub tree: Summary,
    /// When.
    pub at: Timestamp,
    /// There was no tree before it.
    pub first: bool,
}
