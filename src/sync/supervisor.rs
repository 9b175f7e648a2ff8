//! The process above its sessions: opens them, routes events to them, and ends them in order.

mod alone;
mod calls;
mod find;
mod handover;
mod life;
mod on_demand;
mod outcome;
mod route;
mod select;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::engine::{Ended, Order, Parting};
use super::env::{Env, Fencing};
use super::health::{Health, Why};
use super::inbox::Inbox;
use super::lease::courtesy::Courtesy;
use super::mirror::Mirror;
use super::report::{SessionState, SessionStatus};
use crate::error::{Code, Error};
use crate::history::Progress;
use crate::session::SessionKey;
use crate::tree::watch::Watch;
pub use alone::alone;
use find::{Listing, find};
use life::Life;
pub use outcome::Outcome;
use outcome::{died, worse};
use route::{Gate, Router};
pub use select::Selection;
use select::below;

/// How often the watch, the state directory and the root are looked after.
const TEND: Duration = Duration::from_secs(5);
/// What giving leases back may take: they run out by themselves, too.
const RELEASE: Duration = Duration::from_secs(5);
/// How long `restore` keeps the sessions for the `watch` of its own pod.
const HAND_OFF: Duration = Duration::from_mins(10);
/// Sessions that start at once.
const STARTS: usize = 8;

/// A session of this process.
#[derive(Debug)]
struct Session {
    ending: CancellationToken,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<SessionStatus>,
    inbox: Arc<Inbox>,
    mirror: Arc<Mutex<Option<Mirror>>>,
    /// Its bot was at work before it was opened.
    appeared: bool,
    task: Option<JoinHandle<Result<Ended, Error>>>,
}

/// A session that is told to end.
type Running = (SessionKey, mpsc::Sender<Order>, JoinHandle<Result<Ended, Error>>);

/// The process above its sessions.
pub struct Supervisor {
    me: Weak<Self>,
    env: Arc<Env>,
    watch: Arc<Watch>,
    router: Arc<Router>,
    sessions: Mutex<BTreeMap<SessionKey, Session>>,
    /// Sessions that a call is ending or replacing: not begun meanwhile, whatever appears.
    busy: Mutex<BTreeSet<SessionKey>>,
    /// Since when each session is held, for those that are given away one by one.
    courtesies: Mutex<BTreeMap<SessionKey, Courtesy>>,
    health: watch::Sender<Health>,
    /// Told whenever a session says something new.
    changed: watch::Sender<()>,
    listing: Mutex<Listing>,
    /// What looks after the sessions; ended before they are.
    tasks: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supervisor")
    }
}

/// Opens all sessions once and leaves them: the init container.
pub async fn restore(
    env: &Arc<Env>,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<Vec<SessionStatus>, Error> {
    let give_up_at = Instant::now() + env.policy.outage_wait;
    let opened = stream::iter(select::all(env, selection, give_up_at).await?)
        .map(|key| async move {
            let opened = life::open_once(env, &key, give_up_at, progress).await;
            opened.inspect(|status| env.note(&key, status))
        })
        .buffer_unordered(STARTS)
        .collect::<Vec<_>>()
        .await;
    let mut statuses = Vec::new();
    let mut worst = None;
    for result in opened {
        match result {
            Ok(status) => statuses.push(status),
            Err(error) => worst = Some(worse(worst, error)),
        }
    }
    statuses.sort_by(|a, b| a.session.cmp(&b.session));
    let held = env.leases.held();
    // Only this pod's own `watch` has the same holder id.
    match &env.place.pod_uid {
        Some(_) => env.leases.hand_off(&held, HAND_OFF).await,
        None => env.leases.release(&held).await,
    }
    worst.map_or(Ok(statuses), Err)
}

impl Supervisor {
    /// Watches the root and starts its sessions.
    ///
    /// With `in_use`, no tree is replaced whatever the start table says: a bot may be at work on it.
    pub fn start(env: Arc<Env>, selection: &Selection, in_use: bool) -> Result<Arc<Self>, Error> {
        let (filter, counters) = (env.policy.filter.clone(), Arc::clone(&env.counters));
        let router = Arc::new(Router::new(env.layout.clone(), filter, counters));
        let watch = Watch::start_beside(env.watched(), env.root.root(), Arc::clone(&router) as _);
        let watch = Arc::new(watch.map_err(|error| Error::io("the root cannot be watched", error))?);
        let asks = select::asks_bucket(&env, selection);
        let supervisor = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            env,
            watch,
            router,
            sessions: Mutex::default(),
            busy: Mutex::default(),
            courtesies: Mutex::default(),
            health: watch::Sender::new(Health::default()),
            changed: watch::Sender::new(()),
            listing: Mutex::new(if asks { Listing::Asked } else { Listing::Known }),
            tasks: Mutex::default(),
        });
        for key in select::known(&supervisor.env, selection)? {
            supervisor.begin(key, in_use);
        }
        let mut tasks = JoinSet::new();
        if asks {
            tasks.spawn(find(
                Arc::downgrade(&supervisor),
                Arc::clone(&supervisor.env),
                selection.clone(),
                in_use,
            ));
        }
        let tended = Arc::downgrade(&supervisor);
        let news = Arc::clone(&supervisor.router);
        tasks.spawn(async move {
            let mut ticks = interval(TEND);
            loop {
                let tick = tokio::select! {
                    _ = ticks.tick() => true,
                    () = news.appeared() => false,
                };
                let Some(supervisor) = tended.upgrade() else { return };
                if tick {
                    supervisor.tend();
                }
                supervisor.meet();
            }
        });
        *supervisor.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        supervisor.judge();
        Ok(supervisor)
    }

    /// Begins a session, unless it was already.
    fn begin(&self, key: SessionKey, appeared: bool) {
        let mut sessions = self.lock();
        if sessions.contains_key(&key) || self.is_busy(&key) {
            return;
        }
        let inbox = Arc::new(Inbox::default());
        self.router.add(key.clone(), Arc::clone(&inbox));
        let (orders, received) = mpsc::channel(16);
        let (status, seen) = watch::channel(SessionStatus::blank(&key));
        let fence: Arc<dyn Fencing> = Arc::new(Gate::new(Arc::clone(&self.watch)));
        let ending = CancellationToken::new();
        let mirror = Arc::default();
        let life = Life {
            env: Arc::clone(&self.env),
            key: key.clone(),
            inbox: Arc::clone(&inbox),
            mirror: Arc::clone(&mirror),
            fence,
            status,
            appeared,
            ending: ending.clone(),
        };
        let task = tokio::spawn(life.run(received));
        let mut changed = seen.clone();
        let (judge, noted) = (Weak::clone(&self.me), key.clone());
        tokio::spawn(async move {
            // Ends with the session: the sender is gone then.
            let mut ready = false;
            loop {
                let ended = changed.changed().await.is_err();
                let Some(supervisor) = judge.upgrade() else { return };
                supervisor.judge();
                let status = changed.borrow_and_update().clone();
                if status.ready && !std::mem::replace(&mut ready, status.ready) {
                    supervisor.serves(&noted);
                }
                ready = status.ready;
                supervisor.env.note(&noted, &status);
                supervisor.changed.send_replace(());
                if ended {
                    return;
                }
            }
        });
        sessions
            .insert(key, Session { ending, orders, status: seen, inbox, mirror, appeared, task: Some(task) });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the probes are told, from where the sessions stand.
    fn judge(&self) {
        let sessions = self.lock();
        let states: Vec<(SessionState, bool)> = sessions
            .values()
            .map(|session| {
                let status = session.status.borrow();
                (status.state, status.ready)
            })
            .collect();
        drop(sessions);
        let list = match &*self.listing.lock().unwrap_or_else(PoisonError::into_inner) {
            Listing::Known => None,
            Listing::Asked => Some(Why::Starting),
            Listing::Unreachable { .. } => Some(Why::Unreachable),
            Listing::Failed(_) => Some(Why::Held),
        };
        let why = |state: SessionState| match state {
            SessionState::Starting => Some(Why::Starting),
            SessionState::Waiting | SessionState::NotOwned => Some(Why::Unreachable),
            SessionState::Queued => Some(Why::LeaseHeld),
            SessionState::Restoring => Some(Why::Restoring),
            SessionState::Held => Some(Why::Held),
            SessionState::Taken => Some(Why::Taken),
            SessionState::Ready | SessionState::Stopped => None,
        };
        let settled = |state: SessionState, ready: bool| {
            ready || matches!(state, SessionState::Held | SessionState::Taken)
        };
        // A bot that may run while storage is away, and one that does, does not wait for what is only there.
        let goes_on = states.iter().any(|(state, _)| *state == SessionState::NotOwned);
        let mut health = Health {
            alive: true,
            ready: states.iter().all(|(state, ready)| settled(*state, *ready))
                && (states.is_empty() || states.iter().any(|(_, ready)| *ready)),
            lease_lost: states.iter().any(|(state, _)| *state == SessionState::Taken),
            why: states.iter().filter_map(|(state, _)| why(*state)).chain(list).collect(),
        };
        self.health.send_if_modified(|old| {
            health.ready &= list.is_none() || goes_on || old.ready;
            let changed = *old != health;
            *old = health;
            changed
        });
    }

    /// Tells of every change of a session's status.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What the probes look at.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Waits until every session's bot may start, or its start has failed.
    ///
    /// # Errors
    /// The worst failure, if no session is ready, or if the root is one session.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut health = self.health();
        loop {
            if let Some(error) = self.take_list_error() {
                return Err(error);
            }
            let _ = timeout(Duration::from_secs(1), health.changed()).await;
            if self.env.layout.depth() == 0 || !health.borrow().ready {
                let failed: Vec<SessionKey> = {
                    let sessions = self.lock();
                    let over = |session: &Session| session.task.as_ref().is_some_and(JoinHandle::is_finished);
                    let all = !sessions.is_empty() && sessions.values().all(over);
                    if all { sessions.keys().cloned().collect() } else { Vec::new() }
                };
                if !failed.is_empty() {
                    return match self.reap(failed).await.error {
                        Some(error) => Err(error),
                        None => Err(Error::new(Code::Internal, "every session ended before it was ready")),
                    };
                }
            }
            if health.borrow_and_update().ready {
                return Ok(());
            }
        }
    }

    /// Waits until no session is left: all were taken over, or failed.
    pub async fn all_over(&self) -> Error {
        loop {
            let over = {
                let sessions = self.lock();
                let over = |session: &Session| session.task.as_ref().is_none_or(JoinHandle::is_finished);
                let keys = || sessions.keys().cloned().collect::<Vec<_>>();
                (!sessions.is_empty() && sessions.values().all(over)).then(keys)
            };
            if let Some(keys) = over {
                let outcome = self.reap(keys).await;
                return outcome.error.unwrap_or_else(|| Error::new(Code::Internal, "every session ended"));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn reap(&self, keys: Vec<SessionKey>) -> Outcome {
        let mut outcome = Outcome::default();
        for key in keys {
            let task = self.lock().get_mut(&key).and_then(|session| session.task.take());
            let Some(task) = task else { continue };
            outcome.note(&key, task.await.unwrap_or_else(|error| Err(died(error))));
        }
        outcome
    }

    /// Tells every session to flush and end, and waits for it until the deadline.
    pub async fn finish(&self, deadline: Instant, parting: Parting) -> Outcome {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        // A bot may make a session and end before its event came.
        self.begin_new();
        let running: Vec<Running> = {
            let mut sessions = self.lock();
            let each = sessions.iter_mut();
            each.filter_map(|(key, session)| {
                session.ending.cancel();
                Some((key.clone(), session.orders.clone(), session.task.take()?))
            })
            .collect()
        };
        let mut outcome = Outcome::default();
        for (_, orders, _) in &running {
            // A session that has ended is reaped below.
            let _ = orders.send(Order::Finish { deadline, parting }).await;
        }
        let mut released = Vec::new();
        for (key, _, mut task) in running {
            match timeout_at(deadline, &mut task).await {
                Ok(Ok(ended)) => {
                    if matches!(ended, Ok(Ended::Flushed { release: true, .. })) {
                        released.push(key.clone());
                    }
                    outcome.note(&key, ended);
                }
                Ok(Err(error)) => outcome.note(&key, Err(died(error))),
                Err(_) => {
                    task.abort();
                    outcome.note(&key, Err(Error::new(
                        Code::NotFlushed,
                        format!("session {key}: changes could not be stored before --grace was over; they are on this disk and are committed by the next start here"),
                    )));
                }
            }
        }
        // Whoever could not flush keeps the lease: its changes are on this disk only. // P2
        let release = timeout(RELEASE, self.env.leases.release(&released));
        for (key, session) in &*self.lock() {
            self.env.note(key, &session.status.borrow());
        }
        // At once: whoever has the session next writes the row, too.
        let _ = join(release, timeout_at(deadline, self.env.last_notes())).await;
        outcome
    }

    /// Looks after the watch, the state directory and the root.
    fn tend(&self) {
        self.watch.check();
        if !self.env.root.is_intact() {
            error!("the state directory below the root was removed; it is made again");
            match self.env.root.remake() {
                Ok(()) => self.watch.renew("the state directory was removed"),
                Err(error) => error!(%error, "the state directory cannot be made again"),
            }
            self.router.rescan_all();
        }
        self.env.root.prune();
    }

    /// Begins the sessions whose directories came into being since the last look.
    fn meet(&self) {
        if self.router.take_unknown() {
            self.begin_new();
        }
    }

    fn begin_new(&self) {
        let Ok(found) = below(&self.env) else { return };
        for key in found.sessions {
            self.begin(key, true);
        }
    }
}
