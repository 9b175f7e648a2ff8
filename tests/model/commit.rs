//! Order of a commit: freeze, record, upload, confirm.

use session_sidecar::history::{Id, Standing};

use crate::rules::Config;
use crate::state::{Commit, Goal, Ix, Mark, Phase, Place, Plan, State, Tree, bit, seen};

/// What a new commit is to hold.
#[derive(Clone, Copy)]
pub struct New {
    pub parent: Option<Ix>,
    pub base: bool,
    pub mark: Mark,
    pub tree: Tree,
}

impl Config {
    /// Steps 0 to 2: what was read is durable, the pending id is recorded, the upload is under way.
    pub fn send(&self, n: &mut State, p: usize, new: New) -> Option<Ix> {
        let New { parent, base, mark, tree } = new;
        if n.commits.len() >= self.commits {
            return None;
        }
        let ix = Ix::try_from(n.commits.len()).ok()?;
        let proc = &mut n.pods[p].proc;
        proc.seq += 1;
        proc.waiting = Some(ix);
        let unique = self.rules.nonce && self.rules.fresh_id;
        let nonce = if unique { u32::MAX - u32::from(ix) } else { 0 };
        let id = Id { epoch: proc.epoch, seq: proc.seq, nonce };
        let before = parent.map(|parent| *n.commit(parent));
        let line = before.map_or(0, |commit| commit.line) | bit(ix);
        let in_line = n.all().filter(|(i, _)| line & bit(*i) != 0);
        let ever = in_line.fold(0, |ever, (_, commit)| ever | commit.tree);
        let (old, gone) = before.map_or((0, 0), |commit| (commit.tree, commit.banned));
        let banned = if mark == Mark::None { gone } else { (gone | ever) & !tree };
        if mark == Mark::None && old & !tree != 0 {
            n.seen |= seen::REVERTED;
        }
        if mark == Mark::None && tree & banned != 0 {
            n.seen |= seen::UNDONE;
        }
        let (place, author) = (Place::Flying, Some(p));
        n.commits.push(Commit {
            id,
            parent,
            base,
            mark,
            tree,
            place,
            pinned: false,
            acked: false,
            line,
            banned,
            author,
        });
        let disk = &mut n.pods[p].disk;
        if self.rules.fsync && self.faults.power_cuts > 0 {
            disk.durable = disk.tree;
        }
        let local = disk.local.as_mut()?;
        if self.rules.pending {
            local.pending = bit(ix) | if self.rules.pending_list { local.pending } else { 0 };
        }
        if mark != Mark::None && self.rules.mark_guard {
            local.restoring = Some(ix);
        }
        Some(ix)
    }

    /// The store has the whole object, whoever sent it and whatever became of the sender.
    pub fn land(s: &State, ix: Ix) -> State {
        let mut n = s.clone();
        n.commits[usize::from(ix)].place = Place::Stored;
        n
    }

    /// The sender gets the answer and looks at the bucket: acknowledged or taken. Step 4 follows, unless it dies in between.
    pub fn confirm(&self, s: &State, p: usize, dies: bool) -> Option<State> {
        let ix = s.pods[p].proc.waiting?;
        if s.commit(ix).place == Place::Flying {
            return None;
        }
        let mut n = s.clone();
        if dies {
            n.left.crashes = s.left.crashes.checked_sub(1)?;
        }
        let acked = match self.standing(s, p, ix) {
            Standing::Unclear => return None,
            Standing::Acknowledged => true,
            Standing::Taken { .. } => false,
        };
        if acked {
            Self::acknowledge(&mut n, ix);
        }
        if dies || !acked {
            self.end(&mut n, p);
            return Some(n);
        }
        let pod = &mut n.pods[p];
        pod.proc.waiting = None;
        pod.proc.base = Some(ix);
        let local = pod.disk.local.as_mut()?;
        // While something is restored, the disk holds another tree than the head.
        if local.restoring.is_none() {
            local.head = Some(ix);
            local.pending = s.above(local.pending, ix);
        }
        match pod.proc.phase {
            Phase::Sealing { plan: Plan::Restore | Plan::New } => pod.proc.phase = Phase::Sealed,
            Phase::Sealing { .. } => pod.proc.phase = Phase::Published,
            Phase::Marking { .. } if pod.proc.goal == Goal::Delete => pod.proc.phase = Phase::Erasing,
            // What was gone back to is restored by the next start.
            Phase::Marking { .. } => self.give_back(&mut n, p),
            _ => {}
        }
        Some(n)
    }

    /// No answer: the attempt is given up, its upload may still land.
    pub fn abandon(&self, s: &State, p: usize) -> Option<State> {
        let mut n = s.clone();
        n.left.abandons = s.left.abandons.checked_sub(1)?;
        let proc = &mut n.pods[p].proc;
        let given_up = proc.waiting.take();
        if matches!(proc.phase, Phase::Marking { .. }) {
            self.end(&mut n, p);
            return Some(n);
        }
        if !self.rules.fresh_id {
            proc.seq -= 1;
        }
        if !self.rules.confirmed_parent {
            proc.base = given_up;
        }
        Some(n)
    }

    /// The bot writes.
    pub fn write(s: &State, p: usize) -> State {
        let mut n = s.clone();
        n.pods[p].disk.tree |= 2 << s.written;
        n.written += 1;
        n
    }

    /// A commit of what differs; a base, as far as retention is searched, at will.
    pub fn commit(&self, s: &State, p: usize, base: bool) -> Option<State> {
        let pod = &s.pods[p];
        let (parent, tree) = (pod.proc.base?, pod.disk.tree);
        if pod.proc.waiting.is_some()
            || tree == s.commit(parent).tree
            || (base && self.faults.retentions == 0)
        {
            return None;
        }
        let mut n = s.clone();
        self.send(&mut n, p, New { parent: Some(parent), base, mark: Mark::None, tree })?;
        Some(n)
    }
}
