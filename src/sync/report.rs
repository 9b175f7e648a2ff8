//! What the running process tells about itself: plain values that `status`, `sync` and `history` print.
//!
//! The JSON of these types is a contract (`docs/cli-json.md`): fields are added, never renamed or removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::session::SessionKey;

/// The whole process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the process that answers.
    pub version: String,
    /// Whether a process holds the root: `false` when the command looked on its own.
    pub running: bool,
    /// How changes are noticed; none when nothing watches.
    pub watch: Option<WatchStatus>,
    /// One entry a session, by key.
    pub sessions: Vec<SessionStatus>,
}

/// How changes are noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// The source of events.
    pub mode: WatchMode,
    /// Why it is not [`WatchMode::Inotify`].
    pub reason: Option<String>,
}

/// The source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchMode {
    /// The kernel tells.
    Inotify,
    /// The tree is compared again and again: no watches are left, or they miss changes.
    Poll,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// `{user}/{session}`
    pub session: String,
    /// Where it stands.
    pub state: SessionState,
    /// The id of the newest acknowledged commit; none before the first.
    pub head: Option<String>,
    /// The epoch that this process holds; none while it holds none.
    pub epoch: Option<u32>,
    /// Whether the tree is published and the bot may start.
    pub ready: bool,
    /// When the head was committed.
    pub last_commit_at: Option<Timestamp>,
    /// Files of the head's tree.
    pub files: u64,
    /// Bytes of the head's tree.
    pub bytes: u64,
    /// Paths that changed since and wait for the next commit.
    pub dirty: u64,
    /// Paths that are kept at the head's version, by path.
    pub held: Vec<HeldFile>,
    /// The identity on disk, where the format is known.
    pub identity: Option<IdentityStatus>,
    /// How often another process asked for it although the bot here is not ours to stop.
    #[serde(default)]
    pub handovers_refused: u64,
    /// Whether another process asks for it, and is due: a runner stops its connection and lets it go.
    #[serde(default)]
    pub wanted: bool,
    /// Since when something waits to be committed, also while it is on its way; none: all is stored, or held.
    #[serde(default)]
    pub oldest_change_at: Option<Timestamp>,
    /// When disk and head were last found, or made, the same.
    #[serde(default)]
    pub last_success_at: Option<Timestamp>,
    /// How it stands with the lessor; none: it is neither held nor waited for.
    #[serde(default)]
    pub lease: Option<LeaseState>,
    /// Why it is not committed or not kept, as the stable word of an error; none while all is well.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether the account was logged out, and no other one is in its place yet.
    #[serde(default)]
    pub logged_out: bool,
    /// What a person should look at, one sentence each.
    pub alarms: Vec<String>,
    /// The mirror.
    pub mirror: MirrorStatus,
}

impl SessionStatus {
    /// Of a session that nothing is known of yet.
    #[must_use]
    pub fn blank(key: &SessionKey) -> Self {
        Self {
            session: key.to_string(),
            state: SessionState::Starting,
            head: None,
            epoch: None,
            ready: false,
            last_commit_at: None,
            files: 0,
            bytes: 0,
            dirty: 0,
            held: Vec::new(),
            identity: None,
            handovers_refused: 0,
            wanted: false,
            oldest_change_at: None,
            last_success_at: None,
            lease: None,
            error: None,
            logged_out: false,
            alarms: Vec::new(),
            mirror: MirrorStatus::default(),
        }
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Nothing is decided yet.
    Starting,
    /// Storage does not answer: asked again and again.
    Waiting,
    /// Another process has it: its lease is waited for.
    Queued,
    /// The tree is being restored.
    Restoring,
    /// Owned: changes are committed.
    Ready,
    /// A tree is in use that this process may not commit yet.
    NotOwned,
    /// Nothing is committed until a person decides.
    Held,
    /// Another process took the session over.
    Taken,
    /// No process watches it.
    Stopped,
}

impl SessionState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Waiting,
        Self::Queued,
        Self::Restoring,
        Self::Ready,
        Self::NotOwned,
        Self::Held,
        Self::Taken,
        Self::Stopped,
    ];

    /// The word that `--json` and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Restoring => "restoring",
            Self::Ready => "ready",
            Self::NotOwned => "not_owned",
            Self::Held => "held",
            Self::Taken => "taken",
            Self::Stopped => "stopped",
        }
    }
}

/// How a session stands with the lessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Held.
    Held,
    /// Held, and another process asks for it.
    Wanted,
    /// It could not be renewed in time: commits go on as long as nobody takes the session over.
    RanOut,
    /// Another process was granted it.
    Lost,
    /// Another process has it: waited for.
    Waiting,
}

impl LeaseState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Held, Self::Wanted, Self::RanOut, Self::Lost, Self::Waiting];

    /// The word that `--json` and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Wanted => "wanted",
            Self::RanOut => "ran_out",
            Self::Lost => "lost",
            Self::Waiting => "waiting",
        }
    }
}

/// One path that is kept at the head's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldFile {
    /// The path below the session.
    pub path: String,
    /// Why it is not fit to commit.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// The identity of an account, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// The format: `baileys`, `whatsapp-rust`, `whatsmeow`.
    pub format: String,
    /// Whether it is linked to a phone.
    pub paired: bool,
    /// The account's own id (a JID): shown to the person who asks, never logged.
    pub account: Option<String>,
}

/// The mirror of one session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Whether there is one.
    pub enabled: bool,
    /// Objects that wait to be written or removed.
    pub pending: u64,
    /// How long the oldest of them has waited.
    pub lag_seconds: f64,
    /// Files that the bucket cannot take; history has them.
    pub skipped: u64,
}

/// What a full scan and commit did, one entry a session that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// One entry a session, by key.
    pub sessions: Vec<SessionSync>,
}

/// What a full scan and commit of one session did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSync {
    /// `{user}/{session}`
    pub session: String,
    /// The id of the newest acknowledged commit after it.
    pub commit: Option<String>,
    /// Whether that commit was made now; `false`: nothing had changed.
    pub changed: bool,
    /// Files of its tree.
    pub files: u64,
    /// Bytes of its tree.
    pub bytes: u64,
    /// Paths that are kept at the head's version.
    pub held: Vec<HeldFile>,
}

/// What changed an account's place in history: a logout, an accepted identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkReport {
    /// `{user}/{session}`
    pub session: String,
    /// The id of the commit that records it.
    pub commit: String,
    /// The id that was pinned before it; none where there was nothing to keep.
    pub pinned: Option<String>,
}

/// What a deletion removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteReport {
    /// `{user}/{session}`
    pub session: String,
    /// The id of the tombstone: all that is left of the history, but for what a pin keeps.
    pub commit: String,
    /// The id that was pinned before it, for `undelete`; none when it was deleted or logged out already, when it had no
    /// history, and with `--purge`.
    pub pinned: Option<String>,
    /// Where the local tree lies now; none when there was none, and with `--purge`.
    pub set_aside: Option<String>,
    /// Objects of the history that were removed.
    pub history_removed: u64,
    /// Objects of the mirror that were removed.
    pub mirror_removed: u64,
}

/// What an `undelete` brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeleteReport {
    /// `{user}/{session}`
    pub session: String,
    /// The id of the head, which the next start restores.
    pub commit: String,
    /// The id whose tree it has again; none: the session was not deleted, and nothing was done.
    pub restored: Option<String>,
}

/// The points of one session's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryReport {
    /// `{user}/{session}`
    pub session: String,
    /// The newest commit.
    pub head: Option<String>,
    /// All that a restore could ask for.
    pub points: Vec<Point>,
}

/// One commit as a list of the bucket shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// `{epoch}-{seq}-{nonce}`
    pub id: String,
    /// The commit it builds on.
    pub parent: Option<String>,
    /// Whether it holds the whole tree.
    pub base: bool,
    /// When it came into being, by the bucket's clock.
    pub created_at: Option<Timestamp>,
    /// Bytes in the bucket, all parts.
    pub size: u64,
    /// Whether the head builds on it: else it was cut off.
    pub in_chain: bool,
    /// The reasons of its pins.
    pub pins: Vec<String>,
}

/// What a restore of a running session did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// `{user}/{session}`
    pub session: String,
    /// The head after it; none: there is no history.
    pub commit: Option<String>,
    /// The point whose tree it is.
    pub restored: Option<String>,
    /// Files of the tree.
    pub files: u64,
    /// Bytes of the tree.
    pub bytes: u64,
}

/// One session of a user, as table, bucket and process know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// The user.
    pub user_id: String,
    /// The session.
    pub session_id: String,
    /// Whether the table calls it active; a session without a row is.
    pub is_active: bool,
    /// Whether it is meant where a call names no session.
    pub is_default: bool,
    /// Whether its bot was last told to be connected; none: nothing is known.
    pub desired: Option<bool>,
    /// When it was made, by the table.
    pub created_at: Option<Timestamp>,
    /// When it was last written, by the table or the process.
    pub last_activity: Option<Timestamp>,
    /// The row as it is, with whatever columns the table has; `null` where there is none.
    pub row: serde_json::Value,
    /// Where it stands in this process; none where it is not one of this process.
    pub here: Option<SessionStatus>,
}

/// What a bot says of its session, for the table. What is none is left as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BotFacts {
    /// The old service's word, for a column `status`.
    pub status: Option<BotStatus>,
    /// Whether it is to be connected.
    pub desired: Option<bool>,
    /// Its account's phone number, digits only; never logged.
    pub phone: Option<String>,
    /// The name that a person gave it, for a column `session_name`.
    pub name: Option<String>,
    /// Whether it is meant where a call names no session, for a column `is_default`.
    pub is_default: Option<bool>,
}

impl std::fmt::Debug for BotFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BotFacts")
            .field("status", &self.status)
            .field("desired", &self.desired)
            .finish_non_exhaustive()
    }
}

/// The words that the old service wrote into a column `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BotStatus {
    /// Logged in.
    Connected,
    /// On the way there.
    Connecting,
    /// A QR code waits to be scanned.
    QrGenerated,
    /// Told to be off.
    Disconnected,
    /// The link is gone: a new QR code is needed.
    LoggedOut,
    /// Something a person must look at.
    Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_json_use_the_same_words() {
        for state in SessionState::ALL {
            assert_eq!(serde_json::json!(state), state.as_str());
        }
        for state in LeaseState::ALL {
            assert_eq!(serde_json::json!(state), state.as_str());
        }
    }
}
