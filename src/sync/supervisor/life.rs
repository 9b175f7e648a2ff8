//! The life of one session in this process: opened, perhaps again and again, then its engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

use crate::error::{Code, Error};
use crate::history::{Progress, Silent};
use crate::session::SessionKey;
use crate::sync::backoff::Backoff;
use crate::sync::engine::{Ended, Engine, Order, Parts};
use crate::sync::env::{Env, Fencing};
use crate::sync::inbox::Inbox;
use crate::sync::lease::Wait;
use crate::sync::mirror::Mirror;
use crate::sync::mirroring::Mirroring;
use crate::sync::open::{Attempt, Opened, Owned, open};
use crate::sync::report::{SessionState, SessionStatus};
use crate::telemetry;

/// Opens a session and leaves it.
pub(super) async fn open_once(
    env: &Arc<Env>,
    key: &SessionKey,
    give_up_at: Instant,
    progress: &dyn Progress,
) -> Result<SessionStatus, Error> {
    let mut backoff = backoff();
    loop {
        let ending = CancellationToken::new();
        let attempt = Attempt { give_up_at, in_use: false, wait: env.wait(), ending: &ending, progress };
        match open(env, key, attempt).instrument(telemetry::session_span(key)).await? {
            Opened::Owned(owned) => return Ok(status_of(key, &owned)),
            Opened::NotOwned => {
                return Ok(SessionStatus {
                    state: SessionState::NotOwned,
                    ready: true,
                    ..SessionStatus::blank(key)
                });
            }
            Opened::Unreachable(error) => {
                warn!(%error, "storage does not answer; asking again");
                sleep_until(backoff.next_try(give_up_at)).await;
            }
        }
    }
}

fn status_of(key: &SessionKey, owned: &Owned) -> SessionStatus {
    SessionStatus {
        state: SessionState::Ready,
        head: owned.journal.acknowledged().map(|id| id.to_string()),
        epoch: Some(owned.journal.epoch()),
        ready: !owned.unfit,
        last_commit_at: owned.committed.at,
        files: owned.committed.table.files.len() as u64,
        bytes: owned.committed.table.bytes(),
        alarms: owned.alarm.iter().cloned().collect(),
        ..SessionStatus::blank(key)
    }
}

/// How often a start that takes long is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Between two tries of a start.
pub(super) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(500), Duration::from_secs(15))
}

/// What one session lives on.
pub(super) struct Life {
    pub env: Arc<Env>,
    pub key: SessionKey,
    pub inbox: Arc<Inbox>,
    /// The mirror, while there is one: for whoever asks how far it is.
    pub mirror: Arc<Mutex<Option<Mirror>>>,
    pub fence: Arc<dyn Fencing>,
    pub status: watch::Sender<SessionStatus>,
    /// Its directory came into being below a running root: its bot is at work already.
    pub appeared: bool,
    /// The process is on its way out: nothing is waited for any more.
    pub ending: CancellationToken,
}

impl Life {
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<Ended, Error> {
        let span = telemetry::session_span(&self.key);
        async move {
            let mut gave_way = false;
            loop {
                let owned = match self.open(&mut orders, gave_way).await {
                    Ok(Ok(owned)) => owned,
                    Ok(Err(ended)) => return Ok(ended),
                    Err(error) => return Err(self.failed(error).await),
                };
                self.status.send_replace(status_of(&self.key, &owned));
                let ended = self.engine(*owned).await?.run(&mut orders).await;
                if !matches!(ended, Ended::GaveWay) {
                    return Ok(ended);
                }
                self.status.send_modify(|status| {
                    (status.state, status.ready, status.epoch) = (SessionState::Queued, false, None);
                });
                self.env.leases.release(std::slice::from_ref(&self.key)).await;
                info!("given away; the session is taken up again if it falls free");
                (gave_way, self.appeared) = (true, false);
            }
        }
        .instrument(span)
        .await
    }

    /// What is not kept is not held either.
    async fn failed(&self, error: Error) -> Error {
        self.env.leases.release(std::slice::from_ref(&self.key)).await;
        // A root that is one session ends with this error, which the command prints.
        if self.env.layout.depth() > 0 {
            error!(%error, "this session is not kept");
        }
        self.status.send_modify(|status| {
            status.state = if matches!(error.code(), Code::LeaseLost | Code::LeaseHeld) {
                SessionState::Taken
            } else {
                SessionState::Held
            };
            status.error = Some(error.code().as_str().to_owned());
            status.alarms = vec![error.to_string()];
        });
        self.env.counters.failed(error.code());
        error
    }

    /// Until the session is ours. Inner error: it was told to end first.
    ///
    /// Who gave way waits for the lease for ever, and does not ask for it: two that ask would only take turns.
    async fn open(
        &self,
        orders: &mut mpsc::Receiver<Order>,
        gave_way: bool,
    ) -> Result<Result<Box<Owned>, Ended>, Error> {
        let ended = || Ok(Err(Ended::Flushed { held: 0, release: true }));
        let wait = if gave_way { Wait { ask: false, until: None, contend: true } } else { self.env.wait() };
        let mut give_up_at = Instant::now() + self.env.policy.outage_wait;
        let mut backoff = backoff();
        let mut in_use = self.appeared;
        let never = CancellationToken::new();
        loop {
            if gave_way {
                give_up_at = Instant::now() + self.env.policy.outage_wait;
            }
            // What a bot has written already is to be stored, also at the very end.
            let ending = if in_use { &never } else { &self.ending };
            let attempt = Attempt { give_up_at, in_use, wait, ending, progress: &Silent };
            let opened = match self.watched(open(&self.env, &self.key, attempt)).await {
                Err(error) if error.code() == Code::LeaseHeld && self.ending.is_cancelled() => {
                    return ended();
                }
                opened => opened?,
            };
            let error = match opened {
                Opened::Owned(owned) => return Ok(Ok(owned)),
                Opened::NotOwned => {
                    in_use = true;
                    self.status.send_modify(|status| {
                        status.state = SessionState::NotOwned;
                        status.ready = true;
                    });
                    Error::new(Code::Unreachable, "the tree is in use and nothing of it can be committed yet")
                }
                Opened::Unreachable(error) => {
                    self.status.send_modify(|status| {
                        status.state = SessionState::Waiting;
                        status.error = Some(error.code().as_str().to_owned());
                    });
                    self.env.counters.failed(error.code());
                    error
                }
            };
            warn!(%error, "storage does not answer; asking again");
            let until = backoff.next_try(give_up_at);
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    order = orders.recv() => match order {
                        None | Some(Order::Finish { .. }) if in_use => {
                            let text = format!("session {}: storage did not answer, so nothing could be stored; the changes are on this disk", self.key);
                            return Err(Error::new(Code::NotFlushed, text));
                        }
                        None | Some(Order::Finish { .. }) => return ended(),
                        Some(order) => order.refuse(Error::new(Code::Unreachable, "storage does not answer yet")),
                    }
                }
            }
        }
    }

    /// Says meanwhile whether another process is waited for. // P8
    async fn watched<T>(&self, opening: impl Future<Output = T>) -> T {
        let mut opening = std::pin::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                () = sleep(LOOK) => {
                    let queued = self.env.leases.is_queued(&self.key);
                    self.status.send_if_modified(|status| {
                        let state = match status.state {
                            SessionState::Starting if queued => SessionState::Queued,
                            SessionState::Queued if !queued => SessionState::Starting,
                            state => state,
                        };
                        std::mem::replace(&mut status.state, state) != state
                    });
                }
            }
        }
    }

    async fn engine(&self, owned: Owned) -> Result<Engine, Error> {
        let Owned { journal, committed, weight, logged_out, filter, alarm, unfit } = owned;
        let mirror = if self.env.policy.mirror {
            let mirroring = Mirroring::start(&self.env, &self.key, &self.env.terms().await?.bucket);
            if let Some(head) = journal.acknowledged() {
                mirroring.committed(head.to_string(), Arc::clone(&committed.table), []);
            }
            Some(mirroring)
        } else {
            None
        };
        *self.mirror.lock().unwrap_or_else(PoisonError::into_inner) = mirror.as_ref().map(Mirroring::mirror);
        // What changed while nobody watched.
        self.inbox.rescan();
        Ok(Engine::new(Parts {
            env: Arc::clone(&self.env),
            key: self.key.clone(),
            filter,
            inbox: Arc::clone(&self.inbox),
            fence: Arc::clone(&self.fence),
            journal,
            committed,
            weight,
            logged_out,
            start_alarm: alarm,
            unfit,
            status: self.status.clone(),
            lease: self.env.leases.watch(&self.key),
            mirror,
        }))
    }
}

#[cfg(test)]
mod beside_a_bot;
#[cfg(test)]
mod late_events;
#[cfg(test)]
mod long_history;
