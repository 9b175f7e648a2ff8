//! Getting, keeping and losing the right to acknowledge.

use session_sidecar::history::Standing;

use crate::rules::{Config, Kind, Lease};
use crate::state::{Goal, Holder, Ix, Local, Phase, Proc, Row, State, bit, seen};

impl Config {
    fn here(s: &State, p: usize) -> Holder {
        Holder { pod: p, life: s.pods[p].life }
    }

    /// The holder id that this pod shows: the kept one where it may be used again.
    fn holder(&self, s: &State, p: usize) -> Holder {
        match s.pods[p].disk.local {
            Some(local) if !self.rules.holder_bound => local.holder,
            _ => Self::here(s, p),
        }
    }

    /// `run` starts again while its bot may live.
    pub fn same_life(&self, s: &State, p: usize) -> bool {
        let ready = s.pods[p].disk.local.and_then(|local| local.ready);
        self.pods[p] == Kind::Run && self.rules.same_life && ready == Some(Self::here(s, p))
    }

    /// What the bucket says of the right to what was confirmed.
    pub fn standing(&self, s: &State, p: usize, newest: Ix) -> Standing {
        let pending = s.pods[p].disk.local.map_or(0, |local| local.pending);
        if self.rules.short_list { s.standing(newest, pending) } else { Standing::Acknowledged }
    }

    /// The process ends, or waits as a quiet waiter: both begin again with a start.
    pub fn end(&self, s: &mut State, p: usize) {
        if self.pods[p] == Kind::Exec {
            s.pods[p].bot = false;
        }
        s.pods[p].proc = Proc::default();
    }

    /// Restore 1: the list for `above`.
    pub fn start(&self, s: &State, p: usize, goal: Goal) -> Option<State> {
        let pod = &s.pods[p];
        let alike = self.pods.windows(2).all(|pair| pair[0] == pair[1]);
        let early = alike && p > s.started;
        if pod.proc.phase != Phase::Down || early || (goal != Goal::Run && pod.bot) {
            return None;
        }
        let mut n = s.clone();
        match goal {
            Goal::Run => {}
            Goal::Rewind => n.left.rewinds = s.left.rewinds.checked_sub(1)?,
            Goal::Delete => n.left.deletes = s.left.deletes.checked_sub(1)?,
        }
        let list = s.survey();
        let above = list.newest_epoch().max(pod.disk.local.map_or(0, |local| local.epoch));
        if above >= self.epochs {
            return None;
        }
        n.started = s.started.max(p + 1);
        let listed = list.head().map(|id| s.at(id)).filter(|_| !self.rules.list_after_claim);
        n.pods[p].proc = Proc { phase: self.ask(above), goal, listed, ..Proc::default() };
        // Fewer states: where nothing depends on the time between list and grant, they are one step.
        let depends = !self.rules.list_after_claim || self.faults.row_rollbacks > 0 || self.faults.asks > 0;
        if self.lease == Lease::Storage || depends { Some(n) } else { self.acquire(&n, p) }
    }

    /// Where an epoch above this one comes from.
    pub fn ask(&self, above: u32) -> Phase {
        match self.lease {
            Lease::Postgres => Phase::Asking { above },
            Lease::Storage => Phase::Claiming { epoch: above + 1 },
        }
    }

    /// Restore 2: the row grants or refuses; who is refused may ask the holder to give way.
    pub fn acquire(&self, s: &State, p: usize) -> Option<State> {
        let Phase::Asking { above } = s.pods[p].proc.phase else { return None };
        let (pod, holder) = (&s.pods[p], self.holder(s, p));
        let mut n = s.clone();
        let held = s.row.holder.is_some_and(|by| by != holder) && !s.row.expired;
        let another = s.row.wish.is_some_and(|by| by != p);
        if held && self.rules.wait {
            // Tools and quiet waiters do not ask.
            if pod.quiet || pod.proc.goal != Goal::Run || s.row.wish.is_some() {
                return None;
            }
            n.left.asks = s.left.asks.checked_sub(1)?;
            n.row.wish = Some(p);
            return Some(n);
        }
        if pod.quiet && another {
            if self.rules.quiet {
                return None;
            }
            n.seen |= seen::SNATCHED;
        }
        let above = if self.rules.above { above } else { 0 };
        let again = s.row.holder == Some(holder) && !self.rules.new_epoch;
        let epoch = s.row.epoch.max(above) + u32::from(!again);
        if epoch > self.epochs {
            return None;
        }
        let holds = |q: &usize| {
            let other = &s.pods[*q];
            *q != p && self.holder(s, *q) == s.row.holder.unwrap_or(holder) && other.proc.epoch == s.row.epoch
        };
        if s.row.holder.is_some() && !s.row.expired && (0..s.pods.len()).any(|q| holds(&q)) {
            n.seen |= seen::PUSHED;
        }
        if self.faults.row_rollbacks > 0 {
            n.row_before = Row { expired: true, ..s.row };
        }
        n.row = Row { epoch, holder: Some(holder), expired: false, wish: None, head: s.row.head };
        n.pods[p].proc.phase = Phase::Claiming { epoch };
        Some(n)
    }

    /// The epoch is claimed in the bucket; taken means ask again.
    pub fn claim(&self, s: &State, p: usize) -> Option<State> {
        let Phase::Claiming { epoch } = s.pods[p].proc.phase else { return None };
        if epoch > self.epochs {
            return None;
        }
        let mut n = s.clone();
        if s.claims & 1 << epoch != 0 && self.rules.claim_by_move {
            n.pods[p].proc.phase = self.ask(epoch);
            return Some(n);
        }
        n.claims |= 1 << epoch;
        n.claimed_by[epoch as usize] = Some(p);
        let holder = self.holder(s, p);
        let pod = &mut n.pods[p];
        if pod.quiet {
            n.seen |= seen::REGAINED;
        }
        pod.quiet = false;
        pod.proc.phase = Phase::Claimed;
        pod.proc.epoch = epoch;
        let fresh = Local { holder, epoch, head: None, pending: 0, restoring: None, ready: None };
        pod.disk.local = Some(Local { holder, epoch, ..pod.disk.local.unwrap_or(fresh) });
        Some(n)
    }

    /// A claim answered unclearly, landed or still under way: the next epoch is tried.
    pub fn claim_unclear(&self, s: &State, p: usize, landed: bool) -> Option<State> {
        let Phase::Claiming { epoch } = s.pods[p].proc.phase else { return None };
        if epoch >= self.epochs || s.claims & 1 << epoch != 0 {
            return None;
        }
        let mut n = s.clone();
        n.left.unclear = s.left.unclear.checked_sub(1)?;
        *(if landed { &mut n.claims } else { &mut n.late_claims }) |= 1 << epoch;
        n.pods[p].proc.phase = self.ask(epoch);
        Some(n)
    }

    /// A late claim lands on a free name, or fails.
    pub fn claim_lands(s: &State, epoch: u32) -> State {
        let mut n = s.clone();
        n.late_claims &= !(1 << epoch);
        n.claims |= 1 << epoch;
        n
    }

    /// Time passes for the database, or it thinks so: no promise rests on clocks.
    pub fn row_expires(s: &State) -> State {
        let mut n = s.clone();
        n.row.expired = true;
        n
    }

    /// A wish counts for a while only.
    pub fn wish_ends(s: &State) -> State {
        let mut n = s.clone();
        n.row.wish = None;
        n
    }

    /// Held, also after it ran out if nobody took it, or when the database went back; taken; or wanted.
    pub fn renew(&self, s: &State, p: usize) -> Option<State> {
        let pod = &s.pods[p];
        let asleep = matches!(pod.proc.phase, Phase::Down | Phase::Asking { .. } | Phase::Claiming { .. });
        if self.lease == Lease::Storage || asleep {
            return None;
        }
        let (holder, epoch) = (self.holder(s, p), pod.proc.epoch);
        let mut n = s.clone();
        let mine = (s.row.epoch, s.row.holder) == (epoch, Some(holder));
        if mine || s.row.epoch < epoch {
            let head = newer(s, s.row.head, pod.proc.base);
            n.row = Row { epoch, holder: Some(holder), expired: false, head, ..s.row };
            // Only who owns its bot gives way; it stays as a quiet waiter.
            let wanted = s.row.wish.is_some_and(|by| by != p);
            if wanted && pod.proc.phase == Phase::Ready && self.pods[p] == Kind::Exec {
                n.pods[p].bot = false;
                n.pods[p].quiet = true;
                n.pods[p].proc.phase = Phase::Draining;
            }
        } else if s.row.epoch > epoch || s.row.holder.is_some() {
            self.end(&mut n, p);
        }
        Some(n)
    }

    /// SIGTERM: the bot stops, then flush and release.
    pub fn drain(s: &State, p: usize) -> Option<State> {
        let mut n = s.clone();
        n.left.drains = s.left.drains.checked_sub(1)?;
        n.pods[p].bot = false;
        n.pods[p].proc.phase = Phase::Draining;
        Some(n)
    }

    /// All is flushed: the session is given back.
    pub fn release(&self, s: &State, p: usize) -> Option<State> {
        let pod = &s.pods[p];
        let base = pod.proc.base?;
        let flushed = pod.proc.waiting.is_none() && pod.disk.tree == s.commit(base).tree;
        if self.rules.flush_first && !flushed {
            return None;
        }
        let mut n = s.clone();
        let last = s.claims >> (pod.proc.epoch + 1) == 0;
        let head = s.head().map_or(0, |head| s.commit(head).tree | s.commit(head).banned);
        if last && pod.disk.tree & !head != 0 {
            n.seen |= seen::LEFT_BEHIND;
        }
        self.give_back(&mut n, p);
        Some(n)
    }

    /// The process ends and tells the row.
    pub fn give_back(&self, n: &mut State, p: usize) {
        let (proc, holder) = (n.pods[p].proc, self.holder(n, p));
        if (n.row.epoch, n.row.holder) == (proc.epoch, Some(holder)) && self.lease == Lease::Postgres {
            let head = newer(n, n.row.head, proc.base);
            n.row = Row { holder: None, expired: false, head, ..n.row };
        }
        self.end(n, p);
    }

    /// An acknowledgement, and what is wrong with it.
    pub fn acknowledge(n: &mut State, ix: Ix) {
        let commit = *n.commit(ix);
        if n.commits.iter().any(|other| other.acked && other.id.epoch > commit.id.epoch) {
            n.seen |= seen::ACK_AFTER_SEAL;
        } else if n.all().any(|(other, c)| c.acked && commit.line & bit(other) == 0) {
            n.seen |= seen::ACK_DIVERGED;
        }
        n.commits[usize::from(ix)].acked = true;
    }
}

fn newer(s: &State, a: Option<Ix>, b: Option<Ix>) -> Option<Ix> {
    a.into_iter().chain(b).max_by_key(|ix| s.commit(*ix).id)
}
