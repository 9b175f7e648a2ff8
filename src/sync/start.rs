//! The start table of DESIGN.md ("Disk"): what a start does with a session.
//!
//! One pure function, from [`Facts`] to a [`Decision`]. The caller gathers the facts, asks [`decide`],
//! applies the action, and asks again after [`Action::Recover`], [`Action::FinishRestoring`] and
//! [`Action::KeepAsking`]. Nothing is set aside at the decision: that happens at publish, after the
//! acknowledged seal.

mod facts;
#[cfg(test)]
mod tests;

pub use facts::{
    Chain, Command, Facts, Identity, KnownAbove, Mirror, Options, Remote, Restoring, Side, State, Tree,
};

use crate::error::{Code, Error};
use crate::session::SessionKey;

/// A line of the table; its number is for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// 1: a publish was cut off.
    PublishMarker,
    /// 2: a restore was published but not recorded.
    Restoring,
    /// 3: a bot may live, and the head is ours or cannot be asked for.
    SameLifeOurs,
    /// 4: a bot may live, and another took over.
    SameLifeAnothers,
    /// 5: storage or database unreachable.
    Unreachable,
    /// 6: a known head is above every listed id.
    HeadMissing,
    /// 7: nothing here, only a mirror there.
    FromMirror,
    /// 8: nothing here, nothing there.
    New,
    /// 9: ended elsewhere by a logout or delete.
    Ended,
    /// 9b: a tree here, nothing there.
    Adopt,
    /// 10: a tree here, another in the mirror.
    MirrorDiffers,
    /// 11: nothing here, commits there.
    Restore,
    /// 12: the identity was lost here, not there.
    IdentityLost,
    /// 13: the head is ours.
    Ours,
    /// 14: another went on with the session.
    Overtaken,
    /// 15: no state, but the same tree.
    SameTree,
    /// 16: no state, and they differ.
    Conflict,
}

impl Line {
    /// As the table counts: `1` to `16`, and `9b`.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::PublishMarker => "1",
            Self::Restoring => "2",
            Self::SameLifeOurs => "3",
            Self::SameLifeAnothers => "4",
            Self::Unreachable => "5",
            Self::HeadMissing => "6",
            Self::FromMirror => "7",
            Self::New => "8",
            Self::Ended => "9",
            Self::Adopt => "9b",
            Self::MirrorDiffers => "10",
            Self::Restore => "11",
            Self::IdentityLost => "12",
            Self::Ours => "13",
            Self::Overtaken => "14",
            Self::SameTree => "15",
            Self::Conflict => "16",
        }
    }
}

/// What to do, and which line says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The line that matched.
    pub line: Line,
    /// What it asks for.
    pub action: Action,
}

/// What a start does with a session.
///
/// Where the tree counts as empty but files lie there (line 2), every action that puts a tree in place
/// sets them aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Finish or undo the publish that was cut off, then gather the facts again.
    Recover,
    /// Write the restored commit into the state as its head, without the mark, then decide again
    /// (on [`Facts::finish_restoring`] or on new facts).
    FinishRestoring,
    /// Touch nothing and end with this error.
    Exit(Refusal),
    /// Not ready; ask storage and database again, then decide on what they say.
    KeepAsking,
    /// Start from the tree as it is, not owned; commit what differs as soon as a grant can be had.
    StartNotOwned,
    /// Start from the tree as it is; commit what differs; what is unfit stays held.
    KeepLocal,
    /// The same, but first what would be held is replaced from the head, whole groups.
    KeepHealHeld,
    /// Start from the tree as it is; the chain is damaged, so the seal is a base of it; alarm.
    KeepRebase,
    /// The seal is an empty delta: the tree is the head's.
    AdoptEqual,
    /// The seal is a base of what is there.
    Adopt {
        /// The mirror becomes a commit of its own before, and is pinned.
        mirror_first: bool,
    },
    /// Pin the listed head if there is one; the seal is a base of the local tree, above every known id.
    ConflictLocal,
    /// A new session; nothing lies there.
    New,
    /// What lies there is set aside, then a new session.
    SetAsideNew,
    /// Restore the head; what lies there is set aside.
    Restore,
    /// The same, counted against this head: it heals a lost identity.
    RestoreHealed,
    /// The same, because a person said so; the local tree is kept in set-aside.
    ConflictRemote,
    /// Restore the mirror, with an alarm that gives its age; what lies there is set aside.
    RestoreMirror,
}

impl Action {
    /// Whether it puts another tree, or none, where one lies or a bot may be about to write one.
    #[must_use]
    pub fn replaces_tree(self) -> bool {
        matches!(
            self,
            Self::SetAsideNew
                | Self::Restore
                | Self::RestoreHealed
                | Self::ConflictRemote
                | Self::RestoreMirror
                | Self::KeepHealHeld
        )
    }
}

/// Why a start ends, and what a person can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Gives the exit code.
    pub code: Code,
    /// One line: what is wrong, and the flags and commands that help.
    pub text: &'static str,
}

impl Refusal {
    const fn new(code: Code, text: &'static str) -> Self {
        Self { code, text }
    }

    /// As the error of a session. `detail` is what only the caller knows: both summaries, the ids, the holder.
    #[must_use]
    pub fn error(self, key: &SessionKey, detail: Option<&str>) -> Error {
        let detail = detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
        Error::new(self.code, format!("session {key}: {}{detail}", self.text))
    }
}

/// The table: the first line that matches wins.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    let (line, action) = first_match(facts);
    Decision { line, action: spare_the_tree_in_use(facts, action) }
}

fn first_match(facts: &Facts) -> (Line, Action) {
    if facts.marker {
        return (Line::PublishMarker, Action::Recover);
    }
    if matches!(facts.restoring, Restoring::Published { .. }) {
        return (Line::Restoring, Action::FinishRestoring);
    }
    let files_lie_there = facts.tree != Tree::Empty;
    let f = facts.normalised();
    let options = f.options;

    if f.same_life && matches!(f.remote, Remote::Unreachable { .. }) {
        return (Line::SameLifeOurs, Action::StartNotOwned);
    }
    if f.same_life && f.head_is_ours() {
        return (Line::SameLifeOurs, keep_in_use(&f));
    }
    if f.same_life && f.head_is_anothers() {
        let refusal = if f.state == State::None { APPEARED } else { TAKEN };
        return (Line::SameLifeAnothers, Action::Exit(refusal));
    }
    let chain = match f.remote {
        Remote::Unreachable { wait_over } => return (Line::Unreachable, outage(&f, wait_over)),
        Remote::Commits(chain) => Some(chain),
        Remote::Nothing | Remote::Marked | Remote::Emptied => None,
    };
    if f.known_above != KnownAbove::No {
        return (Line::HeadMissing, head_missing(&f));
    }

    let Some(chain) = chain else {
        return match (f.tree, f.mirror) {
            (Tree::Empty, Mirror::None) if options.require_existing => (Line::New, Action::Exit(NO_SESSION)),
            (Tree::Empty, Mirror::None) if files_lie_there => (Line::New, Action::SetAsideNew),
            (Tree::Empty, Mirror::None) => (Line::New, Action::New),
            (Tree::Empty, _) => (Line::FromMirror, Action::RestoreMirror),
            (Tree::Present(_), _) if ended_elsewhere(&f) => (Line::Ended, Action::SetAsideNew),
            (Tree::Present(_), Mirror::None | Mirror::Equal) => {
                (Line::Adopt, Action::Adopt { mirror_first: false })
            }
            (Tree::Present(_), _) => (Line::MirrorDiffers, mirror_differs(&f)),
        };
    };

    if f.tree == Tree::Empty {
        return (Line::Restore, restore(chain, Action::Restore));
    }
    if !f.is_paired() && chain != Chain::Unpaired {
        return (Line::IdentityLost, identity_lost(&f, chain));
    }
    match f.state {
        State::IsHead | State::PendingIsHead if chain == Chain::Damaged => (Line::Ours, Action::KeepRebase),
        State::IsHead | State::PendingIsHead => (Line::Ours, Action::KeepHealHeld),
        State::Other => (Line::Overtaken, restore(chain, Action::Restore)),
        State::None if !f.digest_equal => (Line::Conflict, conflict(&f, chain)),
        State::None if chain == Chain::Damaged => (Line::SameTree, Action::KeepRebase),
        State::None => (Line::SameTree, Action::AdoptEqual),
    }
}

/// P7: a tree that a bot may be using is never replaced or moved, whatever line matched.
fn spare_the_tree_in_use(facts: &Facts, action: Action) -> Action {
    match action {
        Action::KeepHealHeld if facts.in_use() => Action::KeepLocal,
        replacing if replacing.replaces_tree() && facts.in_use() => Action::Exit(IN_USE),
        other => other,
    }
}

/// Line 3. P4: a damaged head may have an identity that the local tree lost.
fn keep_in_use(f: &Facts) -> Action {
    match f.remote {
        Remote::Commits(Chain::Damaged) if f.is_paired() => Action::KeepRebase,
        Remote::Commits(Chain::Damaged) => Action::Exit(DAMAGED),
        _ => Action::KeepLocal,
    }
}

/// Line 5. A short outage must not start a bot on an old tree: `use-local` counts once the wait is over.
fn outage(f: &Facts, wait_over: bool) -> Action {
    if !wait_over {
        return Action::KeepAsking;
    }
    if f.options.use_local && f.state != State::None && f.is_paired() {
        return Action::StartNotOwned;
    }
    if f.options.command.owns_its_bot() { Action::KeepAsking } else { Action::Exit(UNREACHABLE) }
}

/// Line 6. P4: a person's word for the local tree does not reach a tree that lost its identity.
fn head_missing(f: &Facts) -> Action {
    let nothing_to_lose = f.remote_is_none() || f.remote == Remote::Commits(Chain::Unpaired);
    match f.tree {
        Tree::Empty => Action::Exit(HEAD_MISSING_EMPTY),
        Tree::Present(_) if !f.is_paired() && !nothing_to_lose => Action::Exit(HEAD_MISSING_EMPTY),
        Tree::Present(_) if f.options.on_conflict == Some(Side::Local) => Action::ConflictLocal,
        Tree::Present(_) => Action::Exit(HEAD_MISSING),
    }
}

/// Line 9: a mark that this tree's own state does not have as its head.
fn ended_elsewhere(f: &Facts) -> bool {
    f.remote == Remote::Marked && matches!(f.state, State::PendingIsHead | State::Other)
}

/// Line 10. P4: a paired mirror is not adopted over by a tree without an identity.
fn mirror_differs(f: &Facts) -> Action {
    let may_win = f.is_paired() || f.mirror == Mirror::Unpaired;
    match (f.mirror, f.options.on_conflict) {
        (Mirror::SameIdentity, _) if f.is_paired() => Action::Adopt { mirror_first: true },
        (_, Some(Side::Local)) if may_win => Action::Adopt { mirror_first: true },
        (_, Some(Side::Remote)) => Action::RestoreMirror,
        _ if may_win => Action::Exit(MIRROR_DIFFERS),
        _ => Action::Exit(MIRROR_PAIRED),
    }
}

/// Line 12. P4: heals a truncated `creds.json`, but not for ever: something writes it.
fn identity_lost(f: &Facts, chain: Chain) -> Action {
    const TRIES: u32 = 2;
    if f.heals >= TRIES && chain != Chain::Damaged {
        return Action::Exit(IDENTITY_LOST);
    }
    restore(chain, Action::RestoreHealed)
}

/// Line 16.
fn conflict(f: &Facts, chain: Chain) -> Action {
    match f.options.on_conflict {
        None => Action::Exit(CONFLICT),
        Some(Side::Local) => Action::ConflictLocal,
        Some(Side::Remote) => restore(chain, Action::ConflictRemote),
    }
}

/// P1: what cannot be read whole is not restored.
fn restore(chain: Chain, action: Action) -> Action {
    if chain == Chain::Damaged { Action::Exit(DAMAGED) } else { action }
}

const TAKEN: Refusal = Refusal::new(
    Code::LeaseLost,
    "another process took the session over while the bot here may still run: nothing was touched. \
     Stop the bot here, or restart the whole pod so that `restore` runs before it",
);
const APPEARED: Refusal = Refusal::new(
    Code::Held,
    "a tree that was never restored here may be in use by a bot, and the session has a history: nothing was \
     touched. Stop the bot here and run `restore`, which takes the history or asks which one counts",
);
const UNREACHABLE: Refusal = Refusal::new(
    Code::Unreachable,
    "Supabase did not answer within --outage-wait. Check the URL and the project's status; \
     --on-unreachable use-local starts a tree that has state and a paired identity without owning it",
);
const HEAD_MISSING: Refusal = Refusal::new(
    Code::HeadMissing,
    "a commit is known that is newer than everything in the bucket: the history was cut back or lost. \
     `history` shows what is left; --on-conflict local goes on with the local tree as a base above both",
);
const HEAD_MISSING_EMPTY: Refusal = Refusal::new(
    Code::HeadMissing,
    "a commit is known that is newer than everything in the bucket, and there is no local tree that could take \
     its place. `history` shows what is left and `restore --at ID` goes back to it; `delete` starts anew",
);
const NO_SESSION: Refusal = Refusal::new(
    Code::NoSession,
    "there is no such session, neither here nor in the bucket, and --require-existing is set. \
     Check the ids and the bucket, or leave the flag out to start a new one",
);
const MIRROR_DIFFERS: Refusal = Refusal::new(
    Code::Conflict,
    "the local tree and the files in the bucket differ, are not known to be of one account, and have no history. \
     --on-conflict local keeps the local tree, --on-conflict remote takes the bucket's; the other one is kept aside",
);
const MIRROR_PAIRED: Refusal = Refusal::new(
    Code::Conflict,
    "the local tree has no paired identity, the files in the bucket have. \
     --on-conflict remote takes the bucket's and sets the local tree aside",
);
const IDENTITY_LOST: Refusal = Refusal::new(
    Code::Held,
    "the identity was lost here for the third time within an hour although it was restored twice: something \
     writes it. `logout` ends the session, `accept-identity` takes what is on disk",
);
const CONFLICT: Refusal = Refusal::new(
    Code::Conflict,
    "the local tree and the newest commit differ, and nothing tells which is newer. \
     --on-conflict local keeps the local tree, --on-conflict remote restores the commit; the loser is kept",
);
const DAMAGED: Refusal = Refusal::new(
    Code::Damaged,
    "the newest commit cannot be rebuilt: an object of its chain is damaged or missing. \
     `verify` names the newest point that is whole, `restore --at ID` goes back to it",
);
const IN_USE: Refusal = Refusal::new(
    Code::LeaseLost,
    "the local tree would have to be replaced, and a bot may be using it. \
     Stop the bot and run `restore` first",
);
