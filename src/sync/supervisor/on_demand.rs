//! Single sessions of a running process: opened, replaced, deleted and given away while the others go on.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::outcome::died;
use super::{Session, Supervisor};
use crate::error::{Code, Error};
use crate::history::Depth;
use crate::session::SessionKey;
use crate::sync::deletion;
use crate::sync::engine::{Ended, Order, Parting};
use crate::sync::journal::taken;
use crate::sync::lease::Standing;
use crate::sync::lease::courtesy::Courtesy;
use crate::sync::mark;
use crate::sync::mirror::Mirror;
use crate::sync::points::{self, Wanted};
use crate::sync::report::{DeleteReport, LeaseState, RestoreReport, SessionState, SessionStatus};
use crate::sync::start::Command;

/// How often it is seen to whether a session that is being replaced can be opened.
const BUSY: Duration = Duration::from_millis(50);
/// What the flush of a session that is ended may take.
const FLUSH: Duration = Duration::from_mins(1);

/// A session that nobody begins meanwhile.
struct Busy<'a> {
    supervisor: &'a Supervisor,
    key: SessionKey,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.supervisor.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        // A directory that came into being meanwhile is met now.
        self.supervisor.router.meet();
    }
}

impl Supervisor {
    pub(super) fn is_busy(&self, key: &SessionKey) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn occupy(&self, key: &SessionKey) -> Result<Busy<'_>, Error> {
        if self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return Ok(Busy { supervisor: self, key: key.clone() });
        }
        let text = format!("session {key} is being restored or deleted: try again when that is done");
        Err(Error::new(Code::Conflict, text))
    }

    /// Whoever replaces a tree has stopped its bot, which only a runner can say: beside a bot of somebody else's, and
    /// around one, the tree may be in use. // P7
    pub(super) fn bot_was_stopped(&self, key: &SessionKey) -> Result<(), Error> {
        let runner = self.env.policy.start.command == Command::Serve
            || self.env.policy.start.command == Command::Run
                && self.env.runner_speaks.load(Ordering::Relaxed);
        if runner {
            return Ok(());
        }
        let text = format!("session {key}: its bot is not ours to stop, and may be using the tree");
        Err(Error::new(Code::Conflict, text))
    }

    /// All sessions of this process, by key.
    pub(super) fn statuses(&self) -> Vec<SessionStatus> {
        let now = Instant::now();
        let told = |(key, session): (&SessionKey, &Session)| {
            let status = session.status.borrow().clone();
            // What moves on while the engine says nothing new.
            let live = matches!(status.state, SessionState::Ready | SessionState::Held);
            let mirror = session.mirror.lock().unwrap_or_else(PoisonError::into_inner);
            let mirror = mirror.as_ref().filter(|_| live).map(Mirror::status);
            SessionStatus {
                wanted: self.is_wanted(key, now),
                lease: self.lease_state(key),
                oldest_change_at: self.oldest_change(session, &status, now),
                mirror: mirror.unwrap_or_else(|| status.mirror.clone()),
                ..status
            }
        };
        self.lock().iter().map(told).collect()
    }

    /// Since when something waits to be committed by this process. // P8
    fn oldest_change(&self, session: &Session, status: &SessionStatus, now: Instant) -> Option<Timestamp> {
        use SessionState as S;
        let ours = match status.state {
            // What another process has is not ours to commit, and what ended has said how.
            S::Taken | S::Queued | S::Stopped => false,
            // Before a bot may be at work, what changes is our own restore.
            S::Starting | S::Waiting | S::Restoring => session.appeared || status.ready,
            S::Ready | S::NotOwned | S::Held => true,
        };
        let age = now.saturating_duration_since(session.inbox.oldest().filter(|_| ours)?);
        self.env.host.now().checked_sub(age).ok()
    }

    fn lease_state(&self, key: &SessionKey) -> Option<LeaseState> {
        let standing = self.env.leases.watch(key).map(|standing| match *standing.borrow() {
            Standing::Held => LeaseState::Held,
            Standing::Wanted => LeaseState::Wanted,
            Standing::RanOut => LeaseState::RanOut,
            Standing::Taken { .. } => LeaseState::Lost,
        });
        standing.or_else(|| self.env.leases.is_queued(key).then_some(LeaseState::Waiting))
    }

    /// Whether another process asks for it and its time has come, or might have it already (`--lease-strict`).
    fn is_wanted(&self, key: &SessionKey, now: Instant) -> bool {
        let standing = self.env.leases.watch(key).map(|standing| *standing.borrow());
        if standing == Some(Standing::RanOut) && self.env.policy.lease_strict {
            return true;
        }
        let due = |courtesy: &Courtesy| courtesy.until() <= now;
        standing == Some(Standing::Wanted)
            && self.courtesies.lock().unwrap_or_else(PoisonError::into_inner).get(key).is_none_or(due)
    }

    fn with_courtesy(&self, key: &SessionKey, change: impl FnOnce(&mut Courtesy)) {
        let mut courtesies = self.courtesies.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Courtesy::new(self.env.policy.min_hold, Instant::now());
        change(courtesies.entry(key.clone()).or_insert_with(new));
    }

    /// A session's bot may start: again, or for the first time.
    pub(super) fn serves(&self, key: &SessionKey) {
        self.with_courtesy(key, |courtesy| courtesy.serves_again(Instant::now()));
    }

    /// Waits until this process has nothing to serve any more: the sessions cannot be listed for a reason that stays, or
    /// other processes have all that it had.
    pub async fn nothing_to_serve(&self) -> Error {
        let mut health = self.health();
        loop {
            if let Some(error) = self.take_list_error() {
                return error;
            }
            let states: Vec<SessionState> =
                self.lock().values().map(|session| session.status.borrow().state).collect();
            if !states.is_empty() && states.iter().all(|state| *state == SessionState::Taken) {
                let text = "other processes took all sessions over: run one replica, or let them hand over \
                            (--lease postgres)";
                return Error::new(Code::LeaseLost, text);
            }
            // The list has no news of its own.
            let _ = tokio::time::timeout(Duration::from_secs(1), health.changed()).await;
        }
    }

    pub(super) async fn open_one(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        if !self.env.layout.covers(key) {
            let text = format!("session {key} cannot lie below this root: see --session and --user");
            return Err(Error::new(Code::NotFound, text));
        }
        while self.is_busy(key) {
            sleep(BUSY).await;
        }
        self.forget_ended(key).await;
        self.begin(key.clone(), false);
        let status = self.lock().get(key).map(|session| session.status.clone());
        let Some(mut status) = status else {
            return Err(Error::new(Code::Conflict, format!("session {key} was just ended: try again")));
        };
        loop {
            let now = status.borrow_and_update().clone();
            if now.ready || now.state == SessionState::NotOwned {
                return Ok(now);
            }
            if status.changed().await.is_err() {
                return Err(self.forget_ended(key).await.unwrap_or_else(|| {
                    Error::new(Code::Conflict, format!("session {key} ended before it was ready: try again"))
                }));
            }
        }
    }

    /// Takes a session off the list whose task is over: it was taken, or failed. Why.
    async fn forget_ended(&self, key: &SessionKey) -> Option<Error> {
        let session = {
            let mut sessions = self.lock();
            let over = sessions.get(key)?.task.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
                || sessions.get(key)?.status.has_changed().is_err();
            if !over {
                return None;
            }
            sessions.remove(key)?
        };
        self.router.remove(key);
        match session.task?.await {
            Ok(Err(error)) => Some(error),
            Ok(Ok(Ended::Taken { epoch })) => Some(taken(key, epoch)),
            Ok(Ok(_)) => None,
            Err(error) => Some(died(error)),
        }
    }

    /// Flushes a session whose bot was stopped, and ends it here; the lease stays. // P2 P7
    async fn end(&self, key: &SessionKey) -> Result<(), Error> {
        let Some(session) = self.lock().remove(key) else { return Ok(()) };
        self.router.remove(key);
        session.ending.cancel();
        let deadline = Instant::now() + FLUSH;
        // One that has ended says so below.
        let _ = session.orders.send(Order::Finish { deadline, parting: Parting::Alone }).await;
        let Some(mut task) = session.task else { return Ok(()) };
        let ended = tokio::time::timeout_at(deadline, &mut task).await.map_err(|_| {
            task.abort();
            let text = format!("session {key}: its changes could not be stored in time: try again");
            Error::new(Code::NotFlushed, text)
        });
        match ended?.map_err(died)? {
            Ok(Ended::Taken { epoch }) => Err(taken(key, epoch)),
            // Why a session was not kept is no reason to keep it from being restored or deleted.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Nobody uses the tree: whoever called has stopped the bot. // P7
    fn bot_is_stopped(&self, key: &SessionKey) -> Result<(), Error> {
        let Some(mut state) = self.env.known(key)? else { return Ok(()) };
        state.ready = None;
        state.save(&self.env.root.state_file(key), &*self.env.host)
    }

    /// Ends a session, does something with it, and opens it again if it was open.
    async fn between_lives<T>(
        &self,
        key: &SessionKey,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let busy = self.occupy(key)?;
        let was_here = self.lock().contains_key(key);
        let result = match self.end(key).await.and_then(|()| self.bot_is_stopped(key)) {
            Ok(()) => work.await,
            Err(error) => Err(error),
        };
        drop(busy);
        if result.is_err() && was_here {
            self.begin(key.clone(), false);
        }
        result
    }

    pub(super) async fn restore_one(
        &self,
        key: &SessionKey,
        at: Option<String>,
    ) -> Result<RestoreReport, Error> {
        let wanted = at.as_deref().map_or(Ok(Wanted::Newest), str::parse)?;
        // A mistyped name is no success, and stops nobody's bot.
        points::find(&self.env.list(key, Depth::All).await?, key, wanted)?;
        let restored = self
            .between_lives(key, async {
                if wanted == Wanted::Newest {
                    return Ok(None);
                }
                let survey = self.env.list(key, Depth::All).await?;
                let target = points::find(&survey, key, wanted)?;
                let written = mark::go_back(&self.env, key, &survey, target).await?;
                info!(head = %written.commit, restored = %target, "went back");
                Ok(Some(target.to_string()))
            })
            .await?;
        let status = self.open_one(key).await?;
        Ok(RestoreReport {
            session: key.to_string(),
            restored: restored.or_else(|| status.head.clone()),
            commit: status.head,
            files: status.files,
            bytes: status.bytes,
        })
    }

    pub(super) async fn delete_one(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        self.between_lives(key, deletion::delete(&self.env, key, purge)).await
    }

    pub(super) async fn give_one_away(&self, key: &SessionKey) -> Result<(), Error> {
        let deadline = Instant::now() + self.env.policy.grace;
        let given = self.give_keys_away(deadline, |other| other == key).await;
        self.with_courtesy(key, |courtesy| match given {
            Ok(()) => courtesy.gave_way(Instant::now()),
            Err(_) => courtesy.begin(Instant::now()),
        });
        given
    }
}
