//! The guard: a paired identity is never replaced by an unpaired, empty or unreadable one, and a replaced one
//! stays pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Creds, Identity};
use crate::tree::Hash;

/// How a paired identity was lost on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Its file, or its row in a database, is gone.
    Vanished,
    /// Its file is empty, truncated or cannot be read.
    Unreadable,
    /// Its file holds an identity that is not paired.
    Unpaired,
    /// The database of WhatsApp Web is gone, or the browser made it anew.
    Anew,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vanished => {
                "creds.json (or the database, or what the browser knew) of the paired account is gone"
            }
            Self::Unreadable => {
                "creds.json (or the database) of the paired account is empty, truncated or unreadable"
            }
            Self::Unpaired => "creds.json (or the database) was made anew and is not paired",
            Self::Anew => {
                "the IndexedDB or Local Storage of WhatsApp Web is gone, or the browser made it anew (an older \
                 Chromium does so to a profile of a newer one)"
            }
        })
    }
}

/// What a commit of the tree on disk would do to its identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityVerdict {
    /// Nothing that needs care.
    Same,
    /// The first paired identity of this tree; to be committed soon.
    FirstPairing,
    /// Somebody rolled the tree back: pin the head, commit, alarm.
    RolledBack {
        /// `nextPreKeyId` of the head and of the disk.
        pre_keys: (u64, u64),
    },
    /// Some paired identities are gone and others stay: pin the head, commit.
    Shrunk,
    /// Another paired identity: pin the head, commit a base of what is on disk, removals included. As long as
    /// the group of the new identity waits, all waits: the old keys must not lose their files to it.
    NewPairing,
    /// The last paired identity of the tree would be lost: nothing of the session is committed until it is
    /// paired again, or a person calls `accept-identity` or `logout`.
    Hold {
        /// What happened to it.
        why: Loss,
    },
}

impl IdentityVerdict {
    /// Whether the head is pinned before this commit.
    #[must_use]
    pub fn pins(&self) -> bool {
        matches!(self, Self::RolledBack { .. } | Self::Shrunk | Self::NewPairing)
    }

    /// Whether the commit is a base of what is on disk.
    #[must_use]
    pub fn wants_base(&self) -> bool {
        *self == Self::NewPairing
    }

    /// What people must be told, if anything.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        match self {
            Self::Hold { why } => Some(format!(
                "{why}: nothing is committed until it is paired again; `accept-identity` or `logout` decides"
            )),
            Self::RolledBack { pre_keys: (head, disk) } => Some(format!(
                "the tree was rolled back: nextPreKeyId is {disk}, was {head}; the newer state is pinned"
            )),
            _ => None,
        }
    }
}

/// The verdict on a tree, and the directories in it that must stay at the head's version whatever the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// On the tree.
    pub verdict: IdentityVerdict,
    /// Files whose paired identity was replaced by something that is none.
    pub held: BTreeMap<String, Loss>,
}

impl Judgement {
    /// The same for a tree that lost databases of WhatsApp Web or not. A new account begins with new ones, and an account
    /// that has none in history has none to lose. // P4
    #[must_use]
    pub fn with_lost_databases(self, lost: bool) -> Self {
        match self.verdict {
            IdentityVerdict::Same | IdentityVerdict::Shrunk | IdentityVerdict::RolledBack { .. } if lost => {
                Self { verdict: IdentityVerdict::Hold { why: Loss::Anew }, ..self }
            }
            _ => self,
        }
    }
}

/// Compares the identities of the head with those on disk, both by the file that holds them. // P4
///
/// A file that is merely being written should be given as the head's.
#[must_use]
pub fn identity_guard(head: &BTreeMap<String, Creds>, disk: &BTreeMap<String, Creds>) -> Judgement {
    let on_disk: BTreeSet<Hash> = disk.values().flat_map(|creds| creds.identity.paired()).collect();
    let mut lost_here = BTreeMap::new();
    let (mut vanished, mut kept, mut rolled) = (BTreeSet::new(), BTreeSet::new(), None);
    let mut replaced = false;
    for (path, old) in head {
        let new = disk.get(path).unwrap_or(&Creds::ABSENT);
        if old.identity.is_paired() && old.identity == new.identity {
            rolled = rolled.or(rolled_back(old, new));
        }
        // What moved to another file is not lost.
        let (stay, gone): (BTreeSet<Hash>, BTreeSet<Hash>) =
            old.identity.paired().partition(|identity| on_disk.contains(identity));
        // Others of the same database may stay: it shrinks.
        let some_stay = new.identity.paired().any(|identity| stay.contains(&identity));
        kept.extend(stay);
        if gone.is_empty() {
            continue;
        }
        match new.identity {
            Identity::Paired(_) if some_stay => vanished.extend(gone),
            Identity::Paired(_) => replaced = true,
            Identity::Absent => vanished.extend(gone),
            Identity::Unreadable => drop(lost_here.insert(path.clone(), Loss::Unreadable)),
            Identity::Unpaired => drop(lost_here.insert(path.clone(), Loss::Unpaired)),
        }
    }
    let had_any = head.values().any(|creds| creds.identity.is_paired());
    let lost = lost_here.values().copied().next().or((!vanished.is_empty()).then_some(Loss::Vanished));
    let verdict = match lost {
        Some(why) if on_disk.is_empty() => IdentityVerdict::Hold { why },
        _ if replaced => IdentityVerdict::NewPairing,
        // What vanished while the only paired identity on disk is a new one was replaced by it.
        Some(Loss::Vanished) if kept.is_empty() => IdentityVerdict::NewPairing,
        _ if !vanished.is_empty() => IdentityVerdict::Shrunk,
        _ => match rolled {
            Some(pre_keys) => IdentityVerdict::RolledBack { pre_keys },
            None if !had_any && !on_disk.is_empty() => IdentityVerdict::FirstPairing,
            None => IdentityVerdict::Same,
        },
    };
    Judgement { verdict, held: lost_here }
}

fn rolled_back(head: &Creds, disk: &Creds) -> Option<(u64, u64)> {
    head.next_pre_key_id.zip(disk.next_pre_key_id).filter(|(head, disk)| disk < head)
}
