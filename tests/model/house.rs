//! Retention, and what people do to a history: rewind, delete, undelete.

use session_sidecar::history::Standing;

use crate::commit::New;
use crate::rules::Config;
use crate::state::{Goal, Ix, Ixs, Local, Mark, Phase, Place, State, bit};

impl Config {
    /// `restore --at`, `undelete`, `delete`: pin the head, then a marked commit on it.
    pub fn mark(&self, s: &State, p: usize, target: Option<Ix>) -> Option<State> {
        let proc = &s.pods[p].proc;
        let Phase::Marking { head } = proc.phase else { return None };
        if proc.waiting.is_some() || (proc.goal == Goal::Delete) != target.is_none() {
            return None;
        }
        let (mark, tree) = match target.map(|target| (target, s.commit(target))) {
            None => (Mark::Delete, 0),
            Some((target, commit)) => {
                let other = commit.tree != s.commit(head).tree && commit.tree != 0;
                if !other || s.commit(head).line & bit(target) == 0 || !s.whole(target) {
                    return None;
                }
                (Mark::Rewind, commit.tree)
            }
        };
        let mut n = s.clone();
        n.commits[usize::from(head)].pinned = s.commit(head).place == Place::Stored;
        self.send(&mut n, p, New { parent: Some(head), base: true, mark, tree })?;
        Some(n)
    }

    /// After the tombstone: the local tree and the history go, pins stay.
    pub fn erase(s: &State, p: usize) -> State {
        let proc = s.pods[p].proc;
        let mut n = s.clone();
        delete(&mut n, s.erased(proc.epoch));
        let disk = &mut n.pods[p].disk;
        (disk.tree, disk.durable, disk.owned) = (0, 0, 0);
        disk.local = disk.local.map(|local| Local { head: proc.base, restoring: None, ..local });
        n.pods[p].proc.phase = Phase::Draining;
        n
    }

    /// After a new base of its own, under a right proven now: choose what to delete.
    pub fn plan_retention(&self, s: &State, p: usize) -> Option<State> {
        let proc = &s.pods[p].proc;
        let mut n = s.clone();
        n.left.retentions = s.left.retentions.checked_sub(1)?;
        let base = proc.base?;
        let line = s.commit(base).line;
        let based = s.all().any(|(ix, c)| c.base && c.id.epoch == proc.epoch && line & bit(ix) != 0);
        if !based || (self.rules.proof && self.standing(s, p, base) != Standing::Acknowledged) {
            return None;
        }
        n.pods[p].proc.doomed = s.doomed(&self.rules, proc.epoch);
        Some(n)
    }

    /// Delete what was chosen, perhaps much later.
    pub fn retain(s: &State, p: usize) -> State {
        let mut n = s.clone();
        let doomed = std::mem::take(&mut n.pods[p].proc.doomed);
        delete(&mut n, doomed.commits);
        n.claims &= !doomed.claims;
        n
    }
}

/// Delete the objects; those not there are left out.
fn delete(n: &mut State, ixs: Ixs) {
    for (ix, commit) in (0..).zip(&mut n.commits) {
        if ixs & bit(ix) != 0 && commit.place == Place::Stored {
            commit.place = Place::Deleted;
        }
    }
}
