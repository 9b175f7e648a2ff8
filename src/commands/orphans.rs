//! What a bot leaves behind: its helpers become our children, are reaped when they end, and are ended with it.

use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::error::{Code, Error, Result};

/// How long helpers may take to be gone once they are killed.
const GONE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// From now on whoever loses its parent below us becomes our child: as PID 1 of a container we get them anyway.
pub(super) fn adopt() -> Result<()> {
    let failed = |error| Error::new(Code::Internal, "orphans cannot be adopted").because(error);
    set_child_subreaper(true).map_err(failed)
}

/// Reaps while one bot runs.
#[derive(Debug)]
pub(super) struct Reaping {
    bot: Pid,
    task: JoinHandle<()>,
}

impl Reaping {
    /// Reaps what ends beside the bot, which somebody else waits for.
    pub fn beside(bot: rustix::process::Pid) -> Result<Self> {
        let failed =
            |error| Error::new(Code::Internal, "the end of children cannot be noticed").because(error);
        let bot = Pid::from_raw(bot.as_raw_nonzero().get());
        let mut ended = signal(SignalKind::child()).map_err(failed)?;
        let task = tokio::spawn(async move {
            while ended.recv().await.is_some() {
                reap(Some(bot));
            }
        });
        Ok(Self { bot, task })
    }

    /// Ends what the bot left running, also what has left its process group: nothing may write to the tree any more.
    pub async fn end_all(self) {
        self.task.abort();
        let until = Instant::now() + GONE;
        loop {
            reap(None);
            let left = children();
            if left.is_empty() {
                return;
            }
            if Instant::now() >= until {
                warn!(count = left.len(), "processes that the bot left behind do not end");
                return;
            }
            for child in left.into_iter().filter(|child| *child != self.bot) {
                debug!(pid = child.as_raw(), "ending what the bot left behind");
                // Gone in the meantime, or never ours to end.
                let _ = kill(child, Signal::SIGKILL);
            }
            sleep(LOOK).await;
        }
    }
}

/// Reaps all children that ended but the bot.
fn reap(bot: Option<Pid>) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, look) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if Some(pid) != bot => {
                // The look left it there.
                let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            }
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// Our children by `/proc`: those that are left after the bot's end.
fn children() -> Vec<Pid> {
    let us = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state ppid …"; a name may hold anything but ends with the last parenthesis.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        after.split(' ').nth(1) == Some(us.as_str())
    })
    .map(Pid::from_raw)
    .collect()
}
