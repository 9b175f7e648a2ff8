//! The facts of the start table, gathered from the world. The table itself is the code's.
//!
//! Left out: a cut-off publish (line 1: here it is one step), an outage (5: a step that does not happen), the mirror (7,
//! 10), lost identities (12). A tree that is not empty is paired.

use session_sidecar::sync::start::{
    Action, Chain, Command, Facts, Identity, KnownAbove, Mirror, Options, Remote, Restoring,
    State as Relation, Tree,
};

use crate::rules::{Config, Kind};
use crate::state::{Ix, Mark, Place, Plan, State, bit};

impl Config {
    /// What pod `p` knows when the list shows this head.
    pub fn facts(&self, s: &State, p: usize, head: Option<Ix>) -> Facts {
        let disk = &s.pods[p].disk;
        let relation = |known: Option<Ix>| match (disk.local, head) {
            (Some(local), Some(head)) if known.or(local.head) == Some(head) => Relation::IsHead,
            (Some(local), Some(head)) if local.pending & bit(head) != 0 => Relation::PendingIsHead,
            (Some(local), _) if known.or(local.head).is_some() => Relation::Other,
            _ => Relation::None,
        };
        let restoring = match disk.local.and_then(|local| local.restoring) {
            None => Restoring::No,
            Some(ix) if s.commit(ix).place == Place::Stored && s.commit(ix).tree == disk.tree => {
                Restoring::Published { then: relation(Some(ix).filter(|_| self.rules.restored_head)) }
            }
            Some(_) => Restoring::Unpublished,
        };
        let above = |known: Option<Ix>| known.map(|ix| s.commit(ix).id) > head.map(|head| s.commit(head).id);
        let known_above = if above(s.row.head) {
            KnownAbove::ByRow
        } else if above(disk.local.and_then(|local| local.head)) {
            KnownAbove::ByState
        } else {
            KnownAbove::No
        };
        let remote = match head.map(|head| (head, s.commit(head))) {
            None => Remote::Nothing,
            Some((_, commit)) if commit.mark == Mark::Delete && self.rules.tombstone_aside => Remote::Marked,
            Some((_, commit)) if commit.tree == 0 => Remote::Emptied,
            Some((head, _)) if s.whole(head) => Remote::Commits(Chain::Paired),
            Some(_) => Remote::Commits(Chain::Damaged),
        };
        Facts {
            marker: false,
            restoring,
            same_life: self.same_life(s, p),
            tree: if disk.tree == 0 { Tree::Empty } else { Tree::Present(Identity::Paired) },
            state: relation(None),
            remote,
            known_above,
            mirror: Mirror::None,
            digest_equal: head.is_some_and(|head| s.commit(head).tree == disk.tree),
            heals: 0,
            options: Options {
                command: if self.pods[p] == Kind::Run { Command::Run } else { Command::Exec },
                on_conflict: None,
                use_local: false,
                require_existing: false,
            },
        }
    }
}

/// What a decision comes to here; none: the start ends.
pub fn plan(action: Action) -> Option<Plan> {
    match action {
        Action::Exit(_) => None,
        Action::KeepLocal | Action::KeepHealHeld | Action::AdoptEqual => Some(Plan::Keep),
        Action::KeepRebase | Action::Adopt { .. } => Some(Plan::Adopt),
        Action::New | Action::SetAsideNew => Some(Plan::New),
        Action::Restore => Some(Plan::Restore),
        other => unreachable!("{other:?} follows from nothing that is modelled"),
    }
}
