//! The whole world as one value: commits, claims, the lease row, pods.

use session_sidecar::history::Id;

use crate::rules::Faults;

/// A set of bot writes; each write of the bot is one bit that nobody wrote before.
pub type Tree = u8;
/// Index into [`State::commits`].
pub type Ix = u8;
/// A set of commits by index.
pub type Ixs = u16;
/// A set of epochs.
pub type Epochs = u16;

/// The set of one commit.
pub fn bit(ix: Ix) -> Ixs {
    1 << ix
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    None,
    Rewind,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Sent; may land at any later step, or never.
    Flying,
    Stored,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Against us: of two with the same epoch and seq, the one made first sorts last.
    pub id: Id,
    pub parent: Option<Ix>,
    pub base: bool,
    pub mark: Mark,
    pub tree: Tree,
    pub place: Place,
    pub pinned: bool,
    pub acked: bool,
    /// Only for promises: itself and all that it builds on, also what was deleted since.
    pub line: Ixs,
    /// Only for promises: writes that a rewind or delete in its line took out.
    pub banned: Tree,
    /// Only for promises: the pod that made it.
    pub author: Option<usize>,
}

/// A holder id; stands for a random id, so that it is equal only when it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    pub pod: usize,
    pub life: u8,
}

/// The lease row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub epoch: u32,
    pub holder: Option<Holder>,
    /// By the database's clock, which may say so at any time.
    pub expired: bool,
    /// The pod that asks the holder to give way.
    pub wish: Option<usize>,
    /// The newest head that a holder told.
    pub head: Option<Ix>,
}

/// `state.json` of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub holder: Holder,
    pub epoch: u32,
    pub head: Option<Ix>,
    /// Attempts that may still land above the head.
    pub pending: Ixs,
    pub restoring: Option<Ix>,
    /// The pod life in which the session was ready.
    pub ready: Option<Holder>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    pub tree: Tree,
    /// What of the tree survives a power cut; kept only where power cuts happen.
    pub durable: Tree,
    pub local: Option<Local>,
    /// Only for promises: the epoch under which a bot last got ready on this very disk.
    pub owned: u32,
}

/// What a start does with the tree; see [`crate::start::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// It stays; the seal is an empty delta.
    Keep,
    /// It stays; the seal is a base of it.
    Adopt,
    /// An empty one takes its place.
    New,
    /// The head's takes its place.
    Restore,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Down,
    /// Listed; asks the row for an epoch above this one.
    Asking {
        above: u32,
    },
    /// Granted by the row, or the next one; not yet claimed in the bucket.
    Claiming {
        epoch: u32,
    },
    /// Claimed; about to list again.
    Claimed,
    /// The start table chose, on this head.
    Decided {
        plan: Plan,
        head: Option<Ix>,
    },
    /// A seal is to be acknowledged.
    Sealing {
        plan: Plan,
    },
    /// Acknowledged; to be published.
    Sealed,
    /// On disk; the bot is to be started.
    Published,
    Ready,
    /// The bot is stopped; flush and release.
    Draining,
    /// A rewind or tombstone is to be written on top of `head`.
    Marking {
        head: Ix,
    },
    /// The tombstone is acknowledged; local tree and history are to be removed.
    Erasing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Goal {
    #[default]
    Run,
    /// `restore --at`; after a delete `undelete`.
    Rewind,
    Delete,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proc {
    pub phase: Phase,
    pub goal: Goal,
    pub epoch: u32,
    /// The head before the grant; kept only where the rule to list again is off.
    pub listed: Option<Ix>,
    /// The last confirmed commit.
    pub base: Option<Ix>,
    pub seq: u32,
    /// The upload whose answer is awaited.
    pub waiting: Option<Ix>,
    /// What a retention is about to delete.
    pub doomed: Doomed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Doomed {
    pub commits: Ixs,
    pub claims: Epochs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    pub disk: Disk,
    pub proc: Proc,
    pub bot: bool,
    /// Counts boots; stands for boot id and `POD_UID`.
    pub life: u8,
    /// Gave way, and waits without asking.
    pub quiet: bool,
}

/// What a step did that cannot be seen in the world after it.
pub mod seen {
    pub const ACK_AFTER_SEAL: u16 = 1;
    pub const ACK_DIVERGED: u16 = 2;
    pub const START_OLD: u16 = 4;
    pub const START_TAKEN: u16 = 8;
    pub const REVERTED: u16 = 16;
    pub const UNDONE: u16 = 32;
    pub const SET_ASIDE: u16 = 64;
    pub const IN_USE: u16 = 128;
    pub const FALSE_ALARM: u16 = 256;
    pub const FALSE_CONFLICT: u16 = 512;
    pub const LEFT_BEHIND: u16 = 1024;
    pub const PUSHED: u16 = 2048;
    pub const SNATCHED: u16 = 4096;
    /// Nothing wrong: who gave way was given the session back.
    pub const REGAINED: u16 = 8192;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub commits: Vec<Commit>,
    pub claims: Epochs,
    /// Claims that were given up and may still land.
    pub late_claims: Epochs,
    pub row: Row,
    /// The row before its last grant; kept only where rows go back.
    pub row_before: Row,
    pub pods: Vec<Pod>,
    pub written: u8,
    /// How many pods were started; the first start is pod 0's (symmetry).
    pub started: usize,
    pub copy: Option<(usize, Disk)>,
    pub left: Faults,
    /// Only for promises: to which pod each epoch went.
    pub claimed_by: [Option<usize>; 8],
    /// Only for promises: see [`seen`].
    pub seen: u16,
}

impl State {
    pub fn commit(&self, ix: Ix) -> &Commit {
        &self.commits[usize::from(ix)]
    }

    pub fn all(&self) -> impl Iterator<Item = (Ix, &Commit)> {
        (0..).zip(&self.commits)
    }

    pub fn stored(&self) -> impl Iterator<Item = (Ix, &Commit)> {
        self.all().filter(|(_, commit)| commit.place == Place::Stored)
    }

    /// Those of a set whose ids are above this commit's.
    pub fn above(&self, ixs: Ixs, ix: Ix) -> Ixs {
        let id = self.commit(ix).id;
        let higher = self.all().filter(|(_, commit)| commit.id > id);
        higher.fold(0, |set, (i, _)| set | bit(i)) & ixs
    }

    /// The newest commit. Whoever checks a promise reads the bucket by this, not by the code's own function.
    pub fn head(&self) -> Option<Ix> {
        self.stored().max_by_key(|(ix, commit)| (commit.id, *ix)).map(|(ix, _)| ix)
    }

    /// From the commit down to its base, whether it is still stored or not.
    pub fn chain(&self, ix: Ix) -> Ixs {
        let commit = self.commit(ix);
        let parent = commit.parent.filter(|_| !commit.base);
        bit(ix) | parent.map_or(0, |parent| self.chain(parent))
    }

    /// Whether all of the commit's chain can be read.
    pub fn whole(&self, ix: Ix) -> bool {
        let chain = self.chain(ix);
        self.all().all(|(i, commit)| chain & bit(i) == 0 || commit.place == Place::Stored)
    }
}
