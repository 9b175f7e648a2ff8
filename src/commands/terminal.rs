//! A bot on a terminal: job control as a shell does it.
//!
//! The bot has a process group of its own, and the kernel stops whoever reads a terminal from the background. So
//! the bot's group is the foreground while it runs, Ctrl-C reaches the bot alone, and Ctrl-Z stops both of us.

use std::convert::Infallible;
use std::io::stdin;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, waitid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::sleep;
use tracing::warn;

use super::bot::Group;
use crate::error::{Code, Error, Result};

/// How long a stop of our own takes to take effect, at most; a process that nobody could continue is not stopped.
const SETTLE: Duration = Duration::from_millis(100);

/// Our terminal, lent to a bot; dropped, it is ours again.
#[derive(Debug)]
pub struct Terminal {
    bot: Pid,
    own: Pid,
    children: unix::Signal,
    continued: unix::Signal,
}

impl Terminal {
    /// Lends the terminal that stdin is to a bot's group, if we are the foreground there; none: stdin is not the
    /// terminal that controls us.
    pub fn lend(bot: Group) -> Result<Option<Self>> {
        if tcgetpgrp(stdin()).is_err() {
            return Ok(None);
        }
        let handler = |kind| {
            signal(kind)
                .map_err(|error| Error::new(Code::Internal, "signals cannot be handled").because(error))
        };
        let terminal = Self {
            bot: bot.id(),
            own: getpgrp(),
            children: handler(SignalKind::child())?,
            continued: handler(SignalKind::from_raw(Signal::CONT.as_raw()))?,
        };
        terminal.give();
        Ok(Some(terminal))
    }

    /// Stops with the bot, and goes on with it.
    pub async fn follow(&mut self) -> Infallible {
        loop {
            if let Some(by) = self.stopped_by() {
                self.stop_too(by).await;
            }
            tokio::select! {
                _ = self.children.recv() => {}
                _ = self.continued.recv() => self.resume(),
            }
        }
    }

    async fn stop_too(&self, by: Signal) {
        if by != Signal::TSTP && is_foreground(self.bot) {
            // It reached for the terminal right before it had it.
            return self.resume();
        }
        self.take();
        Group::new(self.own).signal(Signal::TSTP);
        sleep(SETTLE).await;
        // Continued as the foreground, or not stopped at all because no shell is there to continue us.
        if by == Signal::TSTP || is_foreground(self.own) {
            self.resume();
        }
    }

    /// The terminal's signal that stopped the bot since the last look; SIGSTOP is somebody else's business.
    fn stopped_by(&self) -> Option<Signal> {
        let status = waitid(WaitId::Pid(self.bot), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
        let by = status.ok()??.stopping_signal()?;
        [Signal::TSTP, Signal::TTIN, Signal::TTOU].into_iter().find(|signal| signal.as_raw() == by)
    }

    /// The bot goes on, as the foreground if we are.
    fn resume(&self) {
        self.give();
        Group::new(self.bot).signal(Signal::CONT);
    }

    fn give(&self) {
        if is_foreground(self.own) {
            set_foreground(self.bot);
        }
    }

    fn take(&self) {
        // A shell may have taken it already.
        if is_foreground(self.bot) {
            set_foreground(self.own);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take();
    }
}

fn is_foreground(group: Pid) -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == group)
}

fn set_foreground(group: Pid) {
    // Who does it from the background is stopped by SIGTTOU, unless it is blocked.
    let blocked = SigSet::from_iter([Blocked::SIGTTOU]);
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    if let Err(error) = tcsetpgrp(stdin(), group) {
        warn!(%error, "the terminal cannot be handed on");
    }
    if let Ok(before) = before {
        // It was the mask a moment ago.
        let _ = before.thread_set_mask();
    }
}
