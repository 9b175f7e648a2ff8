//! From the list after the claim to a running bot.

use session_sidecar::history::Standing;
use session_sidecar::sync::lease::is_ours;
use session_sidecar::sync::start::{Action, Line, Restoring, decide};

use crate::commit::New;
use crate::rules::Config;
use crate::start::plan;
use crate::state::{Goal, Holder, Ix, Local, Mark, Phase, Plan, State, bit, seen};

impl Config {
    /// Restore 3: the list after the claim, and the start table on it.
    pub fn decide(&self, s: &State, p: usize) -> Option<State> {
        let pod = &s.pods[p];
        let epoch = pod.proc.epoch;
        let mut n = s.clone();
        let list = s.survey();
        if self.rules.is_ours && !is_ours(&list, epoch) {
            n.pods[p].proc.phase = self.ask(list.newest_epoch().max(epoch));
            return Some(n);
        }
        let head = list.head().map(|id| s.at(id));
        let head = if self.rules.list_after_claim { head } else { pod.proc.listed };
        if pod.proc.goal != Goal::Run {
            let ended = head.is_none_or(|head| s.commit(head).mark == Mark::Delete);
            match head {
                Some(head) if !ended || pod.proc.goal == Goal::Rewind => {
                    // The bot is stopped.
                    n.pods[p].disk.local = pod.disk.local.map(|local| Local { ready: None, ..local });
                    n.pods[p].proc.phase = Phase::Marking { head };
                }
                _ => self.give_back(&mut n, p),
            }
            return Some(n);
        }
        let mut facts = self.facts(s, p, head);
        let unpublished = facts.restoring == Restoring::Unpublished;
        let mut decision = decide(&facts);
        if decision.action == Action::FinishRestoring {
            let local = n.pods[p].disk.local.as_mut()?;
            if self.rules.restored_head {
                local.head = local.restoring;
            }
            local.restoring = None;
            facts = facts.finish_restoring();
            decision = decide(&facts);
        }
        let Some(plan) = plan(decision.action) else {
            let clean = pod.disk.local.is_some_and(|local| local.head.is_none() && local.restoring.is_some());
            n.seen |= match decision.line {
                Line::HeadMissing => seen::FALSE_ALARM,
                Line::Conflict if clean => seen::FALSE_CONFLICT,
                _ => 0,
            };
            self.end(&mut n, p);
            return Some(n);
        };
        if plan == Plan::Restore && !unpublished {
            n.seen |= Self::set_aside(s, p, head?);
        }
        if decision.action.replaces_tree() {
            let local = n.pods[p].disk.local.as_mut()?;
            local.ready = None;
        }
        n.pods[p].proc.phase = Phase::Decided { plan, head };
        Some(n)
    }

    /// Whether this restore throws away writes although nobody else was granted the session since a bot got ready on
    /// this very disk.
    fn set_aside(s: &State, p: usize, head: Ix) -> u16 {
        let (disk, head) = (&s.pods[p].disk, s.commit(head));
        let since = &s.claimed_by[disk.owned as usize + 1..];
        let alone = disk.owned > 0 && since.iter().all(|by| by.is_none_or(|by| by == p));
        let lost = disk.tree & !head.tree & !head.banned;
        if alone && lost != 0 && head.mark == Mark::None { seen::SET_ASIDE } else { 0 }
    }

    /// Restore 4 to 7: fetch, stage, `restoring`, and the seal sent. Also again, after an attempt that was given up.
    pub fn seal(&self, s: &State, p: usize) -> Option<State> {
        let proc = &s.pods[p].proc;
        let (plan, head) = match proc.phase {
            Phase::Decided { plan, head } if self.rules.seal_first => (plan, head),
            Phase::Sealing { plan } if proc.waiting.is_none() => (plan, proc.base),
            _ => return None,
        };
        let mut n = s.clone();
        if plan == Plan::Restore && !s.whole(head?) {
            n.pods[p].proc.phase = Phase::Claimed;
            return Some(n);
        }
        n.pods[p].proc.phase = Phase::Sealing { plan };
        n.pods[p].proc.base = head;
        let ended = head.is_some_and(|head| s.commit(head).mark == Mark::Delete) && self.rules.mark_stays;
        let (base, mark, tree) = match plan {
            Plan::Restore => (false, Mark::None, s.commit(head?).tree),
            Plan::Keep => (false, Mark::None, s.pods[p].disk.tree),
            Plan::Adopt => (true, Mark::None, s.pods[p].disk.tree),
            Plan::New => (true, if ended { Mark::Delete } else { Mark::None }, 0),
        };
        self.send(&mut n, p, New { parent: head, base, mark, tree })?;
        if plan == Plan::Restore && self.rules.restoring {
            n.pods[p].disk.local.as_mut()?.restoring = head;
        }
        Some(n)
    }

    /// Restore 8: exchange the session directory.
    pub fn publish(&self, s: &State, p: usize) -> Option<State> {
        let proc = &s.pods[p].proc;
        let (plan, from) = match proc.phase {
            Phase::Sealed => (Plan::Restore, proc.base?),
            // Without the rule to seal first: straight after the decision.
            Phase::Decided { plan: plan @ (Plan::Restore | Plan::Keep), head } if !self.rules.seal_first => {
                (plan, head?)
            }
            _ => return None,
        };
        let mut n = s.clone();
        let pod = &mut n.pods[p];
        pod.proc.base = Some(from);
        pod.proc.phase = Phase::Published;
        if plan == Plan::Restore {
            pod.disk.tree = s.commit(from).tree;
            pod.disk.owned = 0;
            if self.faults.power_cuts > 0 {
                pod.disk.durable = pod.disk.tree;
            }
            if pod.bot {
                n.seen |= seen::IN_USE;
            }
        }
        Some(n)
    }

    /// Restore 9 and 10: the state has the head, the short list once more, the bot starts.
    pub fn ready(&self, s: &State, p: usize) -> Option<State> {
        let pod = &s.pods[p];
        let from = pod.proc.base?;
        let mut n = s.clone();
        let here = Holder { pod: p, life: pod.life };
        let local = n.pods[p].disk.local.as_mut()?;
        local.head = Some(from);
        local.pending = s.above(local.pending, from);
        local.restoring = None;
        local.ready = Some(here);
        let standing = match self.rules.seal_first {
            true => self.standing(s, p, from),
            // There is no commit of ours to look for.
            false if s.claims >> (pod.proc.epoch + 1) != 0 => Standing::Taken { epoch: self.epochs },
            false => Standing::Acknowledged,
        };
        match standing {
            Standing::Taken { .. } if self.rules.ready_check => {
                self.end(&mut n, p);
                return Some(n);
            }
            Standing::Unclear if self.rules.ready_check => return None,
            _ => {}
        }
        if !pod.bot {
            n.seen |= Self::start_of_bot(s, p, from);
        }
        let pod = &mut n.pods[p];
        pod.disk.owned = pod.proc.epoch;
        pod.bot = true;
        pod.proc.phase = Phase::Ready;
        Some(n)
    }

    /// What is wrong with a bot's start on this commit.
    fn start_of_bot(s: &State, p: usize, from: Ix) -> u16 {
        let (pod, base) = (&s.pods[p], s.commit(from));
        let missed = s.all().filter(|(ix, commit)| commit.acked && base.line & bit(*ix) == 0);
        let mut flags = missed.fold(0, |flags, (_, commit)| {
            flags | if commit.id.epoch > pod.proc.epoch { seen::START_TAKEN } else { seen::START_OLD }
        });
        if base.tree & !pod.disk.tree != 0 {
            flags |= seen::REVERTED;
        }
        if pod.disk.tree & base.banned != 0 {
            flags |= seen::UNDONE;
        }
        flags
    }
}
