//! The leases of one process: waits for grants and renews them, one call for all its sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::queue::Pauses;
use super::{Ask, Grant, How, LeaseError, Lessor, Outcome, Refused, Renewed};
use crate::error::{Code, Error};
use crate::history::Id;
use crate::session::SessionKey;
use crate::supabase::AT_ONCE;
use crate::telemetry::Masked;

/// Calls that arrive within this time are made as one.
const GATHER: Duration = Duration::from_millis(20);
/// Between the end of a lease that nobody renews and the answer that it is free.
const SLACK: Duration = Duration::from_secs(2);

/// How a grant is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Whether the holder is asked to give way. Quiet waiters and tools do not ask.
    pub ask: bool,
    /// When to give up; none: never.
    pub until: Option<Instant>,
    /// Whether the session is claimed again when another process claims it at the same time.
    pub contend: bool,
}

impl Wait {
    /// Where a bot may be at work already: only what nobody renews is waited for, the lease of a process that died. A session
    /// that another process wins is left to it, because its commits would end this start anyway, with both bots at work
    /// until then. // P5
    #[must_use]
    pub fn beside_a_bot(self, ttl: Duration) -> Self {
        let ran_out = Instant::now() + ttl + SLACK;
        Self { until: self.until.map(|until| until.min(ran_out)), contend: false, ..self }
    }
}

/// A grant that is to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Its epoch.
    pub epoch: u32,
    /// The newest acknowledged commit that the row remembers.
    pub head: Option<Id>,
}

/// How a held session stands with the lessor. Only the bucket decides; this says whom to make room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Held.
    Held,
    /// Held, and another process asks for it.
    Wanted,
    /// It could not be renewed in time. Whoever asks gets it; until then commits go on.
    RanOut,
    /// Another was granted it.
    Taken {
        /// Its epoch.
        epoch: u32,
    },
}

struct Waiter {
    ask: Ask,
    wait: Wait,
    pauses: Pauses,
    due: Instant,
    refused: Refused,
    reply: oneshot::Sender<Result<Granted, LeaseError>>,
}

impl Waiter {
    fn gives_up(&self, now: Instant) -> bool {
        self.wait.until.is_some_and(|until| until <= now)
    }

    fn wakes(&self) -> Instant {
        self.wait.until.map_or(self.due, |until| until.min(self.due))
    }
}

struct Tenancy {
    grant: Grant,
    /// When the last renewal that worked was sent.
    renewed: Instant,
    standing: watch::Sender<Standing>,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Waiter>,
    /// Those of them that were refused once.
    queued: BTreeSet<SessionKey>,
    held: BTreeMap<SessionKey, Tenancy>,
    asking: bool,
    renewing: bool,
    /// The database did not answer the last renewal.
    away: bool,
}

/// The leases of one process.
pub struct Leases {
    lessor: Arc<dyn Lessor>,
    ttl: Duration,
    all_or_none: bool,
    inner: Mutex<Inner>,
    joined: Notify,
    changed: watch::Sender<()>,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leases({:?}, {:?})", self.lessor, self.ttl)
    }
}

impl Leases {
    /// Nothing is asked for yet. Leases last `ttl` and are renewed every third of it. `all_or_none`: one bot needs
    /// all sessions of this process.
    #[must_use]
    pub fn new(lessor: Arc<dyn Lessor>, ttl: Duration, all_or_none: bool) -> Arc<Self> {
        Arc::new(Self {
            lessor,
            ttl,
            all_or_none,
            inner: Mutex::default(),
            joined: Notify::new(),
            changed: watch::Sender::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a grant. A grant that nobody waits for any more is given back.
    ///
    /// # Errors
    /// [`LeaseError::Refused`] when the wait is over; whatever the lessor says.
    pub async fn acquire(self: &Arc<Self>, ask: Ask, wait: Wait) -> Result<Granted, LeaseError> {
        let (reply, answer) = oneshot::channel();
        let key = ask.key.clone();
        let due = Instant::now() + GATHER;
        let waiter = Waiter { ask, wait, pauses: Pauses::default(), due, refused: Refused::default(), reply };
        let idle = {
            let mut inner = self.lock();
            inner.waiting.push(waiter);
            !std::mem::replace(&mut inner.asking, true)
        };
        if idle {
            tokio::spawn(Arc::clone(self).ask_on());
        } else {
            self.joined.notify_one();
        }
        let gone = || LeaseError::Lessor(Error::new(Code::Internal, "the task that asks for leases died"));
        let answer = answer.await;
        self.lock().queued.remove(&key);
        answer.map_err(|_| gone())?
    }

    /// Asks until nobody waits any more.
    async fn ask_on(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            let wakes = {
                let mut inner = self.lock();
                inner.waiting.retain(|waiter| !waiter.reply.is_closed());
                let Some(wakes) = inner.waiting.iter().map(Waiter::wakes).min() else {
                    inner.asking = false;
                    return;
                };
                wakes
            };
            if wakes > now {
                tokio::select! {
                    () = sleep_until(wakes) => {}
                    () = self.joined.notified() => {}
                }
                continue;
            }
            // Whoever is due takes the others along: one call for all.
            let mut waiting = std::mem::take(&mut self.lock().waiting);
            let quiet: Vec<Waiter> = waiting.extract_if(.., |waiter| !waiter.wait.ask).collect();
            for (ask, mut group) in [(true, waiting), (false, quiet)] {
                while !group.is_empty() {
                    let rest = group.split_off(group.len().min(AT_ONCE));
                    self.ask_once(group, ask).await;
                    group = rest;
                }
            }
        }
    }

    async fn ask_once(self: &Arc<Self>, waiters: Vec<Waiter>, ask: bool) {
        let asks: Vec<Ask> = waiters.iter().map(|waiter| waiter.ask.clone()).collect();
        let how = How { ttl: self.ttl, ask, all_or_none: self.all_or_none };
        let sent = Instant::now();
        let outcomes = match self.lessor.acquire(&asks, how).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                for waiter in waiters {
                    let error = Error::new(error.code(), error.to_string());
                    // Whoever waited may have gone.
                    let _ = waiter.reply.send(Err(LeaseError::Lessor(error)));
                }
                return;
            }
        };
        for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
            self.settle(waiter, outcome, sent).await;
        }
    }

    async fn settle(self: &Arc<Self>, mut waiter: Waiter, outcome: Outcome, sent: Instant) {
        let key = waiter.ask.key.clone();
        match outcome {
            Outcome::Granted { epoch, head } => {
                let grant = Grant { key: key.clone(), holder: waiter.ask.holder.clone(), epoch, head };
                self.hold(grant, sent);
                if waiter.reply.send(Ok(Granted { epoch, head })).is_err() {
                    self.release(&[key]).await;
                }
            }
            Outcome::Hostile { known } => {
                let error = LeaseError::Hostile { epoch: waiter.ask.above, above: known };
                let _ = waiter.reply.send(Err(error));
            }
            Outcome::Refused(refused) if waiter.gives_up(Instant::now()) => {
                let _ = waiter.reply.send(Err(LeaseError::Refused(refused)));
            }
            Outcome::Refused(refused) => {
                if waiter.refused.holder != refused.holder {
                    info!(
                        session = %Masked(&key.to_string()),
                        holder = refused.holder.as_deref(),
                        asked = waiter.wait.ask,
                        "another process has the session; waiting for it"
                    );
                }
                waiter.due = Instant::now() + waiter.pauses.next(&refused, rand::random());
                waiter.refused = refused;
                let mut inner = self.lock();
                inner.queued.insert(key);
                inner.waiting.push(waiter);
            }
        }
    }

    fn hold(self: &Arc<Self>, grant: Grant, renewed: Instant) {
        let idle = {
            let mut inner = self.lock();
            let tenancy = Tenancy { grant, renewed, standing: watch::Sender::new(Standing::Held) };
            inner.held.insert(tenancy.grant.key.clone(), tenancy);
            !std::mem::replace(&mut inner.renewing, true)
        };
        self.changed.send_replace(());
        if idle {
            let (leases, pause) = (Arc::downgrade(self), self.ttl / 3);
            tokio::spawn(async move {
                loop {
                    sleep(pause).await;
                    let Some(leases) = leases.upgrade() else { return };
                    {
                        let mut inner = leases.lock();
                        if inner.held.is_empty() {
                            inner.renewing = false;
                            return;
                        }
                    }
                    leases.renew().await;
                }
            });
        }
    }

    /// Renews all that is held, now.
    pub async fn renew(&self) {
        let grants: Vec<Grant> = self.lock().held.values().map(|tenancy| tenancy.grant.clone()).collect();
        let sent = Instant::now();
        let calls: Vec<_> = grants.chunks(AT_ONCE).map(|chunk| self.lessor.renew(chunk, self.ttl)).collect();
        let mut trouble = None;
        for answer in join_all(calls).await {
            match answer {
                Ok(renewed) => self.note(&renewed, sent),
                Err(error) => trouble = Some(error),
            }
        }
        self.note_trouble(trouble);
        self.changed.send_replace(());
    }

    fn note(&self, renewed: &BTreeMap<SessionKey, Renewed>, sent: Instant) {
        for tenancy in self.lock().held.values_mut() {
            let Some(renewed) = renewed.get(&tenancy.grant.key) else { continue };
            // Granted anew while the call was under way.
            if tenancy.renewed > sent {
                continue;
            }
            let standing = match *renewed {
                Renewed::Held => Standing::Held,
                Renewed::Wanted => Standing::Wanted,
                Renewed::Taken { epoch } => Standing::Taken { epoch },
            };
            if !matches!(standing, Standing::Taken { .. }) {
                tenancy.renewed = sent;
            }
            set(&tenancy.standing, standing);
        }
    }

    fn note_trouble(&self, trouble: Option<Error>) {
        let mut inner = self.lock();
        let was_away = std::mem::replace(&mut inner.away, trouble.is_some());
        match trouble {
            Some(error) if !was_away => {
                warn!(%error, "leases cannot be renewed; commits go on as long as nobody takes the sessions over");
            }
            None if was_away => info!("leases are renewed again"),
            other => debug!(error = other.map(tracing::field::display), "renewed"),
        }
        let now = Instant::now();
        for tenancy in inner.held.values().filter(|tenancy| now - tenancy.renewed >= self.ttl) {
            if matches!(*tenancy.standing.borrow(), Standing::Held | Standing::Wanted) {
                set(&tenancy.standing, Standing::RanOut);
            }
        }
    }

    /// How long a lease lasts that is not renewed.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The newest acknowledged commit of a session: the row is told with the next renewal.
    pub fn note_head(&self, key: &SessionKey, head: Id) {
        if let Some(tenancy) = self.lock().held.get_mut(key) {
            tenancy.grant.head = Some(head);
        }
    }

    /// Whether a session is waited for that another process has.
    #[must_use]
    pub fn is_queued(&self, key: &SessionKey) -> bool {
        self.lock().queued.contains(key)
    }

    /// How a held session stands, now and from now on; none: it is not held.
    #[must_use]
    pub fn watch(&self, key: &SessionKey) -> Option<watch::Receiver<Standing>> {
        self.lock().held.get(key).map(|tenancy| tenancy.standing.subscribe())
    }

    /// Tells of every change of what is held.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether any held session stands so.
    pub fn any(&self, is: impl Fn(Standing) -> bool) -> bool {
        self.lock().held.values().any(|tenancy| is(*tenancy.standing.borrow()))
    }

    /// What this process holds.
    #[must_use]
    pub fn held(&self) -> Vec<SessionKey> {
        self.lock().held.keys().cloned().collect()
    }

    /// Gives sessions back. What the database is not told runs out by itself.
    pub async fn release(&self, keys: &[SessionKey]) {
        for chunk in self.part_with(keys).chunks(AT_ONCE) {
            self.told(self.lessor.release(chunk).await);
        }
    }

    /// Leaves sessions to the next process of this same holder, for `ttl`: nobody else gets them until then.
    pub async fn hand_off(&self, keys: &[SessionKey], ttl: Duration) {
        for chunk in self.part_with(keys).chunks(AT_ONCE) {
            self.told(self.lessor.renew(chunk, ttl).await.map(drop));
        }
    }

    fn part_with(&self, keys: &[SessionKey]) -> Vec<Grant> {
        let grants = {
            let mut inner = self.lock();
            keys.iter().filter_map(|key| inner.held.remove(key)).map(|tenancy| tenancy.grant).collect()
        };
        self.changed.send_replace(());
        grants
    }

    fn told(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            let ttl = humantime::format_duration(self.ttl);
            warn!(%error, "the database could not be told of the end of a lease; others wait for up to {ttl}");
        }
    }
}

fn set(sender: &watch::Sender<Standing>, standing: Standing) {
    sender.send_if_modified(|old| std::mem::replace(old, standing) != standing);
}
