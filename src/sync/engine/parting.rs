//! How an engine ends, or lets another process have its session.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, warn};

use super::{Alarm, Ended, Engine, Occasion};
use crate::error::{Code, Error};
use crate::sync::journal::Lost;
use crate::sync::lease::Standing;
use crate::sync::report::SessionState;

/// The classic sidecar gets its signal together with the bot: it goes on until nothing changed for so long.
const LINGER: Duration = Duration::from_secs(5);
/// The native sidecar's bot is gone by the time of its signal, if nothing changed for so long.
const GONE: Duration = Duration::from_secs(2);
/// What the mirror gets at the end: the next start brings it up to date anyway.
const MIRROR_LAST: Duration = Duration::from_secs(5);
/// Kept of the grace for the last flush itself when the bot writes on and on.
const RESERVE: Duration = Duration::from_secs(5);

/// What is known of the bot when its session's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It was stopped: nobody writes any more.
    Alone,
    /// It is gone by now, if nothing changed for 2 s; else the session is not given back.
    Presumed,
    /// It gets its signal at the same time, and may write for a while.
    Together,
}

impl Engine {
    /// The last flush. History first, then the mirror with what is left of the time.
    pub(super) async fn finish(mut self, deadline: Instant, parting: Parting) -> Ended {
        let quiet = match parting {
            Parting::Alone => Ok(true),
            Parting::Presumed => self.linger(deadline, self.last_change + GONE, GONE).await,
            Parting::Together => self.linger(deadline, Instant::now() + LINGER, LINGER).await.map(|_| true),
        };
        let release = match quiet {
            Ok(quiet) => quiet,
            Err(epoch) => return self.taken(epoch),
        };
        loop {
            let result = self.turn(Occasion::Last).await;
            let done = result.is_ok() && self.inbox.span().is_none();
            if let Some(epoch) = self.settle(result.map(drop)) {
                return self.taken(epoch);
            }
            if done {
                break;
            }
            if let Some(retry) = self.retry_at {
                sleep_until(retry.min(Instant::now() + Duration::from_secs(1))).await;
            }
        }
        if let Some(mirror) = self.mirror.take() {
            let left = deadline.saturating_duration_since(Instant::now());
            let spare = Instant::now() + left.saturating_sub(Duration::from_secs(1)).min(MIRROR_LAST);
            if timeout_at(spare, mirror.finish()).await.is_err() {
                warn!("the mirror is behind; the next start brings it up to date");
            }
        }
        self.status.send_modify(|status| status.state = SessionState::Stopped);
        Ended::Flushed { held: self.held.len() + usize::from(self.session_held.is_some()), release }
    }

    /// The full flush before another process gets the session, whose bot was stopped. After a failed one the session
    /// is not given away. // P2
    pub(super) async fn flush_until(&mut self, deadline: Instant) -> Result<(), Lost> {
        loop {
            let Ok(turn) = timeout_at(deadline, self.turn(Occasion::Last)).await else {
                self.mark_again(Occasion::Last);
                let text = format!(
                    "session {}: changes could not be stored in time, so it is not given away",
                    self.key
                );
                return Err(Error::new(Code::NotFlushed, text).into());
            };
            turn?;
            if self.inbox.span().is_none() {
                return Ok(());
            }
        }
    }

    /// No bot lives on this tree any more: the next start here may replace it.
    pub(super) fn given_away(mut self) -> Ended {
        if let Err(error) = self.journal.update_state(|state| state.ready = None) {
            warn!(%error, "it is not written down that the bot was stopped: the next start here may refuse");
        }
        if let Some(mirror) = self.mirror.take() {
            mirror.cancel();
        }
        self.env.counters.handovers.inc();
        Ended::GaveWay
    }

    /// Commits on until nothing changed for `rest`, first until `quiet`, or the grace is nearly used. Whether it fell
    /// quiet; the epoch of whoever took the session.
    async fn linger(&mut self, deadline: Instant, mut quiet: Instant, rest: Duration) -> Result<bool, u32> {
        let until = deadline - RESERVE.min(deadline.saturating_duration_since(Instant::now()) / 2);
        while Instant::now() < until.min(quiet) {
            let (wake, occasion) = self.next_turn();
            let inbox = std::sync::Arc::clone(&self.inbox);
            let result = tokio::select! {
                () = sleep_until(until.min(quiet)) => break,
                () = sleep_until(wake) => self.turn(occasion).await.map(drop),
                () = inbox.changed() => {
                    quiet = Instant::now() + rest;
                    continue;
                }
            };
            if let Some(epoch) = self.settle(result) {
                return Err(epoch);
            }
        }
        Ok(Instant::now() >= quiet)
    }

    pub(super) fn taken(mut self, epoch: u32) -> Ended {
        error!(epoch, "another process took the session over: nothing is committed or mirrored any more");
        if let Some(mirror) = self.mirror.take() {
            mirror.cancel();
        }
        self.status.send_modify(|status| status.state = SessionState::Taken);
        Ended::Taken { epoch }
    }

    /// What the lessor says: only a person is told, and whoever was overtaken stops. // P5 P8
    pub(super) fn heed(&mut self, standing: Standing) -> Result<(), Lost> {
        if standing == Standing::Wanted && !self.env.gives_way() {
            self.env.counters.handovers_refused.inc();
            self.status.send_modify(|status| status.handovers_refused += 1);
        }
        let text = match standing {
            Standing::Taken { epoch } => return Err(Lost::Taken { epoch }),
            Standing::RanOut => Some(
                "the lease ran out, for the database does not answer; changes are committed as long as nobody takes the session over",
            ),
            Standing::Wanted if !self.env.gives_way() => Some(
                "another process asks for this session, and the bot here is not ours to stop: run one replica \
                 (`strategy: Recreate`), or say how to stop it (--on-handover)",
            ),
            Standing::Held | Standing::Wanted => None,
        };
        self.set_alarm(Alarm::Lease, text.map(str::to_owned));
        Ok(())
    }
}
