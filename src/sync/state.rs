//! What a disk knows of a session between two lives: `state.json`.
//!
//! No file table: at a start the tree is hashed again.

use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::history::Id;
use crate::host::{Host, Step};
use crate::tree::Hash;
use crate::tree::disk::Disk;

const FORMAT: u32 = 1;
/// For how long a heal counts against its head (line 12 of the start table).
const STRIKE_HOURS: i64 = 1;

/// Where a process works: what makes it the same one as before, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `POD_UID`, where it is told.
    pub pod_uid: Option<String>,
    /// Device of the state directory.
    pub dev: u64,
    /// Inode of the state directory.
    pub ino: u64,
}

/// The life of a pod in which a session was made ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// See [`Place::boot_id`].
    pub boot_id: String,
    /// See [`Place::pod_uid`].
    pub pod_uid: Option<String>,
}

/// A lost identity that was healed from a head.
///
/// The head is known by its tree: every start seals it under another id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heal {
    /// The digest of what was restored.
    pub tree: Hash,
    /// When.
    pub at: Timestamp,
}

/// The local state of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalState {
    format: u32,
    /// The project's URL, normalised.
    pub project: String,
    /// The bucket.
    pub bucket: String,
    /// A random id; never a pod's or host's name.
    pub holder: Uuid,
    /// Where the holder id was made: see [`LocalState::holder_here`].
    pub place: Place,
    /// The newest epoch that was granted here.
    pub epoch: u32,
    /// The newest commit that the local tree holds, acknowledged.
    pub head: Option<Id>,
    /// Every attempt that may still land above the head.
    pub pending: Vec<Id>,
    /// The commit that is being restored (or the rewind or tombstone that is being written): the tree is not
    /// yet, or perhaps not yet, that commit's.
    pub restoring: Option<Id>,
    /// When a bot may have been started on it.
    pub ready: Option<Life>,
    /// The tree's digest at the head.
    pub digest: Option<Hash>,
    /// See [`LocalState::heals`].
    #[serde(default)]
    pub healed: Vec<Heal>,
    /// The label of the last start; a start with another one pins.
    #[serde(default)]
    pub label: Option<String>,
    /// The first commit of this disk's that was encrypted: no plaintext after it is believed. None where encryption is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_since: Option<Id>,
}

impl LocalState {
    /// The state of a session that this disk knows nothing of.
    #[must_use]
    pub fn new(project: String, bucket: String, holder: Uuid, place: Place) -> Self {
        Self {
            format: FORMAT,
            project,
            bucket,
            holder,
            place,
            epoch: 0,
            head: None,
            pending: Vec::new(),
            restoring: None,
            ready: None,
            digest: None,
            healed: Vec::new(),
            label: None,
            encrypted_since: None,
        }
    }

    /// The state to go on with: what was there, with a holder id that is ours to use, or a fresh one.
    #[must_use]
    pub fn here(known: Option<Self>, project: &str, bucket: &str, place: &Place) -> Self {
        let Some(mut state) = known else {
            return Self::new(project.to_owned(), bucket.to_owned(), Uuid::new_v4(), place.clone());
        };
        // The root's lock is ours, so it was free.
        if state.holder_here(place, true).is_none() {
            state.holder = Uuid::new_v4();
            state.place = place.clone();
        }
        state
    }

    /// Reads the state of a session; none when there is none, or it is another project's or bucket's.
    ///
    /// A file that cannot be read counts as none: it is renamed, so that a person can look at it, and logged. The
    /// start table then asks history, and a person where they differ.
    pub fn load(file: &Path, project: &str, bucket: &str, host: &dyn Host) -> Result<Option<Self>> {
        let text = match std::fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other,
        };
        let state = text.and_then(|text| {
            let state: Self = serde_json::from_slice(&text)?;
            if state.format == FORMAT {
                return Ok(state);
            }
            let text = format!("its format is {}, and this version reads {FORMAT}", state.format);
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        });
        match state {
            Ok(state) if state.project == project && state.bucket == bucket => Ok(Some(state)),
            Ok(state) => {
                tracing::warn!(
                    file = %file.display(), other_project = %state.project, other_bucket = %state.bucket,
                    "the local state is of another project or bucket and does not count"
                );
                Ok(None)
            }
            Err(error) => {
                let kept = keep_unreadable(file, host)
                    .map_err(|error| Error::io("a local state that cannot be read is in the way", error))?;
                tracing::warn!(
                    %error, file = %file.display(), kept = %kept.display(),
                    "the local state cannot be read and does not count"
                );
                Ok(None)
            }
        }
    }

    /// Writes it durably, as a whole: a crash leaves the old state or this one. Blocks.
    pub fn save(&self, file: &Path, host: &dyn Host) -> Result<()> {
        let write = || {
            let (disk, name) = open(file, host)?;
            disk.replace(&name, &serde_json::to_vec_pretty(self)?)
        };
        write().map_err(|error| {
            Error::io(format!("the local state {} cannot be written", file.display()), error)
        })
    }

    /// Whether a listed head is one that this disk's tree holds: the state's own, or an attempt of ours whose
    /// answer was lost. // P2
    #[must_use]
    pub fn ours(&self, id: Id) -> bool {
        self.head == Some(id) || self.pending.contains(&id)
    }

    /// An attempt begins; to be saved before the upload. A commit that marks (rewind, tombstone) is at once what
    /// is being restored: were it only pending, a crash would take the old tree for its tree. // P2
    pub fn attempt(&mut self, id: Id, marks: bool) {
        self.pending.push(id);
        if marks {
            self.restoring = Some(id);
        }
    }

    /// A commit was stored, encrypted or not. // P4
    pub fn stored(&mut self, id: Id, encrypted: bool) {
        self.encrypted_since = encrypted.then(|| self.encrypted_since.unwrap_or(id));
    }

    /// An attempt was acknowledged. Others stay pending until a higher one is: an upload that was given up may still
    /// land above the head. // P2
    pub fn confirm(&mut self, id: Id) {
        self.head = self.head.max(Some(id));
        self.pending.retain(|pending| *pending > id);
    }

    /// The tree of a restored commit is in place: it is the head, and nothing is restored any more.
    pub fn restored(&mut self, head: Id, digest: Hash) {
        self.head = Some(head);
        self.pending.retain(|pending| *pending > head);
        self.restoring = None;
        self.digest = Some(digest);
    }

    /// The holder id, where it may be used again: on the same boot, in the same pod, in the same directory, when
    /// the lock was free. A copied disk must not speak as the one it was copied from. // P5
    #[must_use]
    pub fn holder_here(&self, here: &Place, lock_was_free: bool) -> Option<Uuid> {
        (lock_was_free && self.place == *here).then_some(self.holder)
    }

    /// Whether a bot may live that was started when the session was made ready: this start is one beside a bot (`run`,
    /// `watch`), in the life of the pod that made it ready. Without `POD_UID` any ready state counts. // P7
    #[must_use]
    pub fn same_life(&self, here: &Place, starts_beside_bot: bool) -> bool {
        let same = self.ready.as_ref().is_some_and(|ready| match &here.pod_uid {
            Some(_) => ready.boot_id == here.boot_id && ready.pod_uid == here.pod_uid,
            None => true,
        });
        starts_beside_bot && same
    }

    /// How often a lost identity was healed from a head with this tree within the last hour.
    #[must_use]
    pub fn heals(&self, tree: Hash, now: Timestamp) -> usize {
        self.healed.iter().filter(|heal| heal.tree == tree && is_recent(heal.at, now)).count()
    }

    /// Notes a heal.
    pub fn healed_from(&mut self, tree: Hash, now: Timestamp) {
        self.healed.retain(|heal| is_recent(heal.at, now));
        self.healed.push(Heal { tree, at: now });
    }
}

/// A clock that was set back must not make old heals count for long, nor new ones not at all.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).abs() < SignedDuration::from_hours(STRIKE_HOURS)
}

fn keep_unreadable(file: &Path, host: &dyn Host) -> io::Result<PathBuf> {
    let (disk, name) = open(file, host)?;
    let kept = PathBuf::from(format!("{}.unreadable-{}", name.display(), Uuid::new_v4()));
    disk.rename(&name, &kept, Step("state: keep what cannot be read"))?;
    disk.sync_dir(Path::new(""))?;
    Ok(disk.absolute(&kept))
}

/// The state's own directory, and the file's name in it.
fn open<'a>(file: &Path, host: &'a dyn Host) -> io::Result<(Disk<'a>, PathBuf)> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if !dir.is_dir() {
        let there = dir.ancestors().find(|above| above.is_dir()).ok_or(io::ErrorKind::NotFound)?;
        let missing = dir.strip_prefix(there).map_err(|_| io::ErrorKind::InvalidInput)?;
        Disk::open(there, host)?.make_dirs(missing, 0o700, None)?;
    }
    Ok((Disk::open(dir, host)?, name.into()))
}

#[cfg(test)]
mod tests;
