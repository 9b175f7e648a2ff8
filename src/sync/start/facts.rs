//! What a start looks at, as plain values: no I/O made them, none is needed to read them.

use crate::tree::identity;

/// All that the start table decides on, for one session.
///
/// The facts about the bucket are those of the list *after* the grant (`Restore` 3 in DESIGN.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// A publish was cut off: its marker is there.
    pub marker: bool,
    /// What the state says of a restore that was not finished.
    pub restoring: Restoring,
    /// The session was made ready in this life of the pod, so a bot may live. Believed of `run` and `watch` only.
    pub same_life: bool,
    /// The local tree.
    pub tree: Tree,
    /// The local state, as it stands to the listed head.
    pub state: State,
    /// What is listed.
    pub remote: Remote,
    /// Whether a head is known that is above every listed id.
    pub known_above: KnownAbove,
    /// The mirror. Counts only where history is empty.
    pub mirror: Mirror,
    /// The local tree's digest is the listed head's.
    pub digest_equal: bool,
    /// How often line 12 healed this tree from this very head within the last hour.
    pub heals: u32,
    /// What was configured.
    pub options: Options,
}

/// The state's `restoring ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoring {
    /// There is none.
    No,
    /// The tree's digest is that commit's, and it is listed: the publish had happened.
    Published {
        /// How the state stands to the listed head once that commit is its head.
        then: State,
    },
    /// Anything else, also while nothing can be listed: what lies there is the tree from before the restore.
    Unpublished,
}

/// The local tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// No regular file that the filters include.
    Empty,
    /// Some files, with this identity.
    Present(Identity),
}

/// What a tree says of whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Linked to an account.
    Paired,
    /// Keys, but not linked (a QR code was never scanned).
    Unpaired,
    /// There is something, and it cannot be read: truncated, not JSON, a damaged database.
    Unreadable,
    /// No file that would hold one.
    Absent,
}

impl From<&identity::Identity> for Identity {
    fn from(found: &identity::Identity) -> Self {
        match found {
            identity::Identity::Paired(_) => Self::Paired,
            identity::Identity::Unpaired => Self::Unpaired,
            identity::Identity::Unreadable => Self::Unreadable,
            identity::Identity::Absent => Self::Absent,
        }
    }
}

/// The local state as it stands to the listed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No state: no file, another project's, or neither a head nor a pending id that is the listed head.
    None,
    /// The listed head is the state's head.
    IsHead,
    /// The listed head is one of the state's pending ids: an attempt of ours that landed.
    PendingIsHead,
    /// The state has a head, and what is listed is another's or nothing, or cannot be listed.
    Other,
}

/// What the bucket holds of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// Storage or database do not answer.
    Unreachable {
        /// They have not for all of `--outage-wait`.
        wait_over: bool,
    },
    /// Nothing listed, and its absence may be believed.
    Nothing,
    /// The head is marked `logout` or `delete`.
    Marked,
    /// The head's tree is empty.
    Emptied,
    /// The head has a tree.
    Commits(Chain),
}

/// The chain of a head with a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// No link is missing; the tree's identity is paired.
    Paired,
    /// No link is missing; the tree has no paired identity.
    Unpaired,
    /// A link is missing or damaged: what its identity is cannot be told.
    Damaged,
}

/// Whether a head is known that is above every listed id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownAbove {
    /// No.
    No,
    /// The state's head is.
    ByState,
    /// The lease row's head is.
    ByRow,
}

/// The mirror next to an empty history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    /// Not there, or off.
    None,
    /// There, and the local tree is the same.
    Equal,
    /// Differs, both with the same paired identity.
    SameIdentity,
    /// Differs, and is paired with another identity (or the local tree has none).
    OtherIdentity,
    /// Differs, and has no paired identity itself.
    Unpaired,
}

/// What the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which command starts.
    pub command: Command,
    /// `--on-conflict`.
    pub on_conflict: Option<Side>,
    /// `--on-unreachable use-local`.
    pub use_local: bool,
    /// `--require-existing`.
    pub require_existing: bool,
}

/// The commands that start a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The init container.
    Restore,
    /// The classic sidecar: starts beside its bot.
    Watch,
    /// The native sidecar.
    Run,
    /// The parent of a bot.
    Exec,
    /// With the bundled runner; also `dev`.
    Serve,
}

impl Command {
    /// `restore`, `exec` and `serve` start before their bot: theirs is never the same pod life.
    #[must_use]
    pub fn may_start_again_beside_a_bot(self) -> bool {
        matches!(self, Self::Run | Self::Watch)
    }

    /// `serve` and `exec` stop and start their bot themselves. So they can wait for an outage to end, not ready.
    #[must_use]
    pub fn owns_its_bot(self) -> bool {
        matches!(self, Self::Exec | Self::Serve)
    }
}

/// Who wins a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree on this disk.
    Local,
    /// What the bucket has.
    Remote,
}

impl Facts {
    /// The facts once [`Action::FinishRestoring`](super::Action::FinishRestoring) was applied, for going on
    /// from the top: the restored commit is the state's head, the mark is gone.
    #[must_use]
    pub fn finish_restoring(self) -> Self {
        let Restoring::Published { then } = self.restoring else {
            return self;
        };
        // That commit is listed, so the state's head is above nothing any more.
        let known_above = match self.known_above {
            KnownAbove::ByState => KnownAbove::No,
            other => other,
        };
        Self { restoring: Restoring::No, state: then, known_above, ..self }
    }

    /// The inputs as lines 3 to 16 read them.
    pub(super) fn normalised(self) -> Self {
        let unpublished = self.restoring == Restoring::Unpublished;
        Self {
            // Line 2: what lies there was to be replaced, perhaps by a rewind: it must not win over it. (P2)
            // Beside a living bot nothing was: it is the tree of an account that was logged out. (P7)
            tree: if unpublished && !self.in_same_life() { Tree::Empty } else { self.tree },
            same_life: self.in_same_life(),
            // "The mirror as a source (history empty, no head ever known)": after a logout or delete it is
            // what was just ended.
            mirror: if self.remote == Remote::Nothing { self.mirror } else { Mirror::None },
            ..self
        }
    }

    /// Whether the bot of an earlier start of this command may live.
    fn in_same_life(&self) -> bool {
        self.same_life && self.options.command.may_start_again_beside_a_bot()
    }

    /// Whether a bot may be using the tree right now. (P7)
    pub(super) fn in_use(&self) -> bool {
        self.options.command == Command::Watch || self.in_same_life()
    }

    /// The listed head is the state's head or one of its pending ids.
    pub(super) fn head_is_ours(&self) -> bool {
        self.has_head() && matches!(self.state, State::IsHead | State::PendingIsHead)
    }

    /// There is a listed head, and it is not ours.
    pub(super) fn head_is_anothers(&self) -> bool {
        self.has_head() && !self.head_is_ours()
    }

    fn has_head(&self) -> bool {
        matches!(self.remote, Remote::Marked | Remote::Emptied | Remote::Commits(_))
    }

    /// What the table calls *none*.
    pub(super) fn remote_is_none(&self) -> bool {
        matches!(self.remote, Remote::Nothing | Remote::Marked | Remote::Emptied)
    }

    pub(super) fn is_paired(&self) -> bool {
        self.tree == Tree::Present(Identity::Paired)
    }
}
