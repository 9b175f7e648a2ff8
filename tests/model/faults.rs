//! Crashes, disks that go back or appear twice, a database that forgets.

use crate::rules::{Config, Kind};
use crate::state::{Disk, Phase, Pod, State};

/// How a pod starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Boot {
    Kept,
    Lost,
    PowerCut,
    RolledBack,
}

impl Config {
    /// The process dies; its lock is free, its bot lives on only beside `run`.
    pub fn crash(&self, s: &State, p: usize) -> Option<State> {
        let mut n = s.clone();
        n.left.crashes = s.left.crashes.checked_sub(1)?;
        self.end(&mut n, p);
        Some(n)
    }

    /// The pod starts anew: another boot or `POD_UID`, no bot.
    pub fn reboot(&self, s: &State, p: usize, boot: Boot) -> Option<State> {
        let pod = &s.pods[p];
        let idle = pod.proc.phase == Phase::Down && !pod.bot;
        let stuck = self.pods[p] == Kind::Run && pod.disk.local.is_some();
        if idle && !stuck && boot != Boot::RolledBack {
            return None;
        }
        let mut n = s.clone();
        let disk = match boot {
            Boot::Kept => {
                n.left.reboots = s.left.reboots.checked_sub(1)?;
                pod.disk
            }
            Boot::Lost => {
                n.left.losses = s.left.losses.checked_sub(1)?;
                Disk::default()
            }
            Boot::PowerCut => {
                n.left.power_cuts = s.left.power_cuts.checked_sub(1)?;
                Disk { tree: pod.disk.durable, ..pod.disk }
            }
            Boot::RolledBack => {
                let (of, disk) = n.copy.take()?;
                (of == p).then_some(Disk { owned: 0, ..disk })?
            }
        };
        n.pods[p] = Pod { disk, life: pod.life + 1, ..Pod::default() };
        Some(n)
    }

    /// Somebody copies the disk, to put it back later.
    pub fn copy(s: &State, p: usize) -> Option<State> {
        let disk = s.pods[p].disk;
        disk.local?;
        let mut n = s.clone();
        n.left.rollbacks = s.left.rollbacks.checked_sub(1)?;
        n.copy = Some((p, disk));
        Some(n)
    }

    /// Somebody starts another pod on a copy of the disk.
    pub fn clone_disk(s: &State, p: usize, to: usize) -> Option<State> {
        let idle = s.pods[to].proc.phase == Phase::Down && !s.pods[to].bot;
        if p == to || !idle || s.pods[p].disk.local.is_none() {
            return None;
        }
        let mut n = s.clone();
        n.left.clones = s.left.clones.checked_sub(1)?;
        n.pods[to].disk = Disk { owned: 0, ..s.pods[p].disk };
        Some(n)
    }

    /// The lease row goes back to before its last grant.
    pub fn row_back(s: &State) -> Option<State> {
        let mut n = s.clone();
        n.left.row_rollbacks = s.left.row_rollbacks.checked_sub(1)?;
        if s.row == s.row_before {
            return None;
        }
        n.row = std::mem::take(&mut n.row_before);
        Some(n)
    }
}
