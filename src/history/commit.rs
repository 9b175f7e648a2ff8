//! `commit.json`, the first entry of a commit's archive, and what makes it believable.

mod patch;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HistoryError;
use super::name::{CommitName, Id};
use crate::session::SessionKey;
use crate::tree::table::check_path;
use crate::tree::{Entry, Meta, Summary};

pub use patch::Patch;

/// The format that this version reads and writes.
pub const FORMAT: u32 = 1;

/// What turns one consistent tree into the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// [`FORMAT`].
    pub format: u32,
    /// The user id.
    pub user: String,
    /// The session id.
    pub session: String,
    /// Its own id.
    pub id: Id,
    /// The commit before it; none only in a first base.
    pub parent: Option<Id>,
    /// Whether it has the whole tree.
    pub kind: Kind,
    /// The writer's clock; for people only, no promise rests on it.
    pub created_at: Timestamp,
    /// Who wrote it.
    pub writer: Writer,
    /// What it does beside changing files.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Fingerprints of the recipients that it was encrypted for: a writer with others begins with a base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// Files that are new or changed; their bytes are in the archive. In a base: all files.
    pub put: Vec<Entry>,
    /// Files of which only some blocks changed; these are in the archive. Empty in a base.
    #[serde(default)]
    pub patch: Vec<Patch>,
    /// Files that are gone. Empty in a base.
    #[serde(default)]
    pub remove: Vec<String>,
    /// All empty directories of the tree after the commit.
    #[serde(default)]
    pub empty_dirs: Vec<String>,
    /// The tree after the commit.
    pub tree: Summary,
}

/// Whether a commit has the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The whole tree.
    Base,
    /// What changed since the parent.
    Delta,
}

/// What a commit does beside changing files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// The account was logged out: restores as a new session.
    Logout,
    /// The session was deleted: restores as a new session.
    Delete,
    /// A person went back to an older tree.
    Rewind,
}

impl Mark {
    /// The word in `commit.json`, and the reason of the pin on what was the head before it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Delete => "delete",
            Self::Rewind => "rewind",
        }
    }
}

/// Who wrote a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The holder id of the process.
    pub holder: String,
    /// The version of this program.
    pub version: String,
    /// What `--label` said, the bot's version as a rule.
    #[serde(default)]
    pub label: Option<String>,
}

impl Commit {
    /// Reads `commit.json`, as hostile: the format first, so that a newer one is named and not called damaged.
    pub fn from_json(id: Id, json: &[u8]) -> Result<Self, HistoryError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let damaged = |error: serde_json::Error| HistoryError::damaged(id, format!("commit.json: {error}"));
        let head: Head = serde_json::from_slice(json).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(HistoryError::Refused(format!(
                "commit {id} has format {}, this version reads {FORMAT}: upgrade session-sidecar",
                head.format
            )));
        }
        serde_json::from_slice(json).map_err(damaged)
    }

    /// As it stands in the archive.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("ids, strings and numbers always serialise")
    }

    /// The name of its object, when it is one object and not encrypted.
    #[must_use]
    pub fn name(&self) -> CommitName {
        let base = self.kind == Kind::Base;
        CommitName { id: self.id, parent: self.parent, base, part: None, encrypted: false }
    }

    /// Checks it against the name and place it was found at, and against itself: every path stays below the
    /// session's directory and is named once. Reader and writer both call it.
    pub fn check(&self, name: &CommitName, key: &SessionKey) -> Result<(), HistoryError> {
        let expected = CommitName { part: None, encrypted: false, ..*name };
        if self.name() != expected {
            return Err(HistoryError::damaged(
                name.id,
                format!("commit.json says it is {}, its name {expected}", self.name()),
            ));
        }
        if self.user != key.user() || self.session != key.session() {
            return Err(HistoryError::damaged(name.id, "commit.json belongs to another session"));
        }
        self.check_content().map_err(|what| HistoryError::damaged(name.id, what))
    }

    fn check_content(&self) -> Result<(), String> {
        if self.kind == Kind::Base && !self.remove.is_empty() {
            return Err("a base that removes files".into());
        }
        if self.kind == Kind::Base && !self.patch.is_empty() {
            return Err("a base that patches files".into());
        }
        let mut seen = BTreeSet::new();
        let patched = self.patch.iter().map(|patch| &patch.entry);
        for Entry { path, meta: Meta { mode, .. } } in self.put.iter().chain(patched) {
            if *mode > 0o777 {
                return Err(format!("mode {mode:o} of {}", path.escape_debug()));
            }
            check_once(path, &mut seen)?;
        }
        for patch in &self.patch {
            patch
                .check()
                .map_err(|what| format!("the patch of {} {what}", patch.entry.path.escape_debug()))?;
        }
        for path in &self.remove {
            check_once(path, &mut seen)?;
        }
        // A set of its own: a file may become a directory of the same name in one commit.
        let mut directories = BTreeSet::new();
        for path in &self.empty_dirs {
            check_once(path, &mut directories)?;
        }
        Ok(())
    }
}

fn check_once<'a>(path: &'a str, seen: &mut BTreeSet<&'a str>) -> Result<(), String> {
    check_path(path).map_err(|why| format!("the path {} {why}", path.escape_debug()))?;
    if seen.insert(path) { Ok(()) } else { Err(format!("{} is named twice", path.escape_debug())) }
}

#[cfg(test)]
mod tests;
