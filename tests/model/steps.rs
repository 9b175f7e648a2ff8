//! [`stateright::Model`] of the protocol: what may happen next in a world.

use session_sidecar::history::Id;
use stateright::{Model, Property};

use crate::faults::Boot;
use crate::promises::promises;
use crate::rules::Config;
use crate::state::{Commit, Goal, Ix, Mark, Phase, Place, Pod, Row, State};

/// One step; the first number is the pod's, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Start(usize, Goal),
    Acquire(usize),
    Claim(usize),
    ClaimUnclear(usize, bool),
    Decide(usize),
    Mark(usize, Option<Ix>),
    Seal(usize),
    Confirm(usize),
    Publish(usize),
    Ready(usize),
    Write(usize),
    Commit(usize),
    CommitBase(usize),
    PlanRetention(usize),
    Retain(usize),
    Erase(usize),
    Drain(usize),
    Release(usize),
    Renew(usize),
    Abandon(usize),
    Crash(usize),
    ConfirmAndCrash(usize),
    Reboot(usize, Boot),
    Copy(usize),
    Clone(usize, usize),
    /// An upload (by commit) becomes visible.
    Lands(Ix),
    /// A late claim (by epoch) becomes visible.
    ClaimLands(u32),
    RowExpires,
    RowGoesBack,
    WishEnds,
}

impl Model for Config {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let first = Commit {
            id: Id { epoch: 1, seq: 1, nonce: u32::MAX },
            parent: None,
            base: true,
            mark: Mark::None,
            tree: 1,
            place: Place::Stored,
            pinned: false,
            acked: true,
            line: 1,
            banned: 0,
            author: None,
        };
        let old = !self.empty;
        let row = Row { epoch: u32::from(old), head: old.then_some(0), ..Row::default() };
        let row = if self.new_row { Row::default() } else { row };
        vec![State {
            commits: if old { vec![first] } else { vec![] },
            claims: if old { 1 << 1 } else { 0 },
            late_claims: 0,
            row,
            row_before: if self.faults.row_rollbacks > 0 { row } else { Row::default() },
            pods: vec![Pod::default(); self.pods.len()],
            written: 0,
            started: 0,
            copy: None,
            left: self.faults,
            claimed_by: [None; 8],
            seen: 0,
        }]
    }

    fn actions(&self, s: &State, steps: &mut Vec<Step>) {
        use Step as T;
        let left = &s.left;
        let some = |budget: u8, step| (budget > 0).then_some(step);
        steps.extend(s.all().filter(|(_, c)| c.place == Place::Flying).map(|(ix, _)| T::Lands(ix)));
        for (p, pod) in s.pods.iter().enumerate() {
            if pod.bot && s.written < self.writes {
                steps.push(T::Write(p));
            }
            if pod.proc.waiting.is_some() {
                steps.push(T::Confirm(p));
                steps.extend(some(left.crashes, T::ConfirmAndCrash(p)));
                steps.extend(some(left.abandons, T::Abandon(p)));
            }
            match pod.proc.phase {
                Phase::Down => {
                    steps.push(T::Start(p, Goal::Run));
                    steps.extend(some(left.rewinds, T::Start(p, Goal::Rewind)));
                    steps.extend(some(left.deletes, T::Start(p, Goal::Delete)));
                }
                Phase::Asking { .. } => steps.push(T::Acquire(p)),
                Phase::Claiming { .. } => {
                    steps.push(T::Claim(p));
                    steps.extend(some(left.unclear, T::ClaimUnclear(p, false)));
                    steps.extend(some(left.unclear, T::ClaimUnclear(p, true)));
                }
                Phase::Claimed => steps.push(T::Decide(p)),
                Phase::Decided { .. } => steps.extend([T::Seal(p), T::Publish(p)]),
                Phase::Sealing { .. } => steps.push(T::Seal(p)),
                Phase::Sealed => steps.push(T::Publish(p)),
                Phase::Published => steps.push(T::Ready(p)),
                Phase::Ready => {
                    steps.extend([T::Commit(p), T::CommitBase(p), T::Retain(p)]);
                    steps.extend(some(left.retentions, T::PlanRetention(p)));
                    steps.extend(some(left.drains, T::Drain(p)));
                }
                Phase::Draining => steps.extend([T::Commit(p), T::Retain(p), T::Release(p)]),
                Phase::Marking { .. } => {
                    steps.push(T::Mark(p, None));
                    steps.extend(s.all().map(|(ix, _)| T::Mark(p, Some(ix))));
                }
                Phase::Erasing => steps.push(T::Erase(p)),
            }
            if pod.proc.phase != Phase::Down {
                steps.push(T::Renew(p));
                steps.extend(some(left.crashes, T::Crash(p)));
            }
            steps.extend(some(left.reboots, T::Reboot(p, Boot::Kept)));
            steps.extend(some(left.losses, T::Reboot(p, Boot::Lost)));
            steps.extend(some(left.power_cuts, T::Reboot(p, Boot::PowerCut)));
            steps.extend(s.copy.is_some().then_some(T::Reboot(p, Boot::RolledBack)));
            steps.extend(some(left.rollbacks, T::Copy(p)));
            steps.extend((0..s.pods.len()).filter_map(|to| some(left.clones, T::Clone(p, to))));
        }
        let late = (0..=self.epochs).filter(|epoch| s.late_claims & 1 << epoch != 0);
        steps.extend(late.map(T::ClaimLands));
        steps.extend(some(left.row_rollbacks, T::RowGoesBack));
        steps.extend((s.row.holder.is_some() && !s.row.expired).then_some(T::RowExpires));
        steps.extend(s.row.wish.map(|_| T::WishEnds));
    }

    fn next_state(&self, s: &State, step: Step) -> Option<State> {
        use Step as T;
        let n = match step {
            T::Start(p, goal) => self.start(s, p, goal),
            T::Acquire(p) => self.acquire(s, p),
            T::Claim(p) => self.claim(s, p),
            T::ClaimUnclear(p, landed) => self.claim_unclear(s, p, landed),
            T::Decide(p) => self.decide(s, p),
            T::Mark(p, target) => self.mark(s, p, target),
            T::Seal(p) => self.seal(s, p),
            T::Confirm(p) => self.confirm(s, p, false),
            T::Publish(p) => self.publish(s, p),
            T::Ready(p) => self.ready(s, p),
            T::Write(p) => Some(Self::write(s, p)),
            T::Commit(p) => self.commit(s, p, false),
            T::CommitBase(p) => self.commit(s, p, true),
            T::PlanRetention(p) => self.plan_retention(s, p),
            T::Retain(p) => Some(Self::retain(s, p)),
            T::Erase(p) => Some(Self::erase(s, p)),
            T::Drain(p) => Self::drain(s, p),
            T::Release(p) => self.release(s, p),
            T::Renew(p) => self.renew(s, p),
            T::Abandon(p) => self.abandon(s, p),
            T::Crash(p) => self.crash(s, p),
            T::ConfirmAndCrash(p) => self.confirm(s, p, true),
            T::Reboot(p, boot) => self.reboot(s, p, boot),
            T::Copy(p) => Self::copy(s, p),
            T::Clone(p, to) => Self::clone_disk(s, p, to),
            T::Lands(ix) => Some(Self::land(s, ix)),
            T::ClaimLands(epoch) => Some(Self::claim_lands(s, epoch)),
            T::RowExpires => Some(Self::row_expires(s)),
            T::RowGoesBack => Self::row_back(s),
            T::WishEnds => Some(Self::wish_ends(s)),
        };
        n.filter(|n| n != s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises()
    }
}
