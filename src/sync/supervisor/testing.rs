//! What the tests of whole lives share: a session, clocks on the paused time, and a sidecar below the supervisor.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::life::Life;
use crate::error::Error;
use crate::history::{Keys, retention};
use crate::host::Host;
use crate::session::{Layout, SessionKey};
use crate::store::SharedStore;
use crate::sync::engine::{Ended, Order};
use crate::sync::env::{Env, Fencing, Policy, Project, Waiting};
use crate::sync::inbox::{Inbox, Pace};
use crate::sync::lease::{Leases, StorageLessor};
use crate::sync::report::SessionStatus;
use crate::sync::rootdir::RootDir;
use crate::sync::start::{Command, Options};
use crate::sync::state::Place;
use crate::tree::Filter;

pub fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

/// Goes with the paused time, from a moment of its own.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    at: Timestamp,
}

impl Clock {
    /// A day begins, on a clock that is off by so much.
    pub fn new(skew: SignedDuration) -> Self {
        Self { began: Instant::now(), at: "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + skew }
    }
}

impl Host for Clock {
    fn now(&self) -> Timestamp {
        self.at + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }
}

/// Events are marked as a test writes: a fence has nothing to wait for, and nothing comes without one.
#[derive(Debug)]
pub struct Seen;

#[async_trait]
impl Fencing for Seen {
    async fn pass(&self) -> bool {
        true
    }

    fn polling(&self) -> bool {
        false
    }

    fn missed(&self, what: &str) {
        panic!("{what}");
    }
}

/// The defaults of the command line, without the mirror.
pub fn policy(command: Command) -> Policy {
    Policy {
        pace: Pace { quiet: Duration::from_millis(500), max_wait: Duration::from_secs(5) },
        reconcile: Duration::from_mins(5),
        outage_wait: Duration::from_mins(4),
        waiting: Waiting { wait: Duration::from_mins(4), ask: true },
        gives_way: false,
        min_hold: Duration::from_mins(1),
        lease_strict: false,
        grace: Duration::from_secs(25),
        filter: Filter::new(None, &[], &[]).unwrap(),
        owner: None,
        allow_mass_delete: false,
        mirror: false,
        retention: retention::Policy {
            epoch: 0,
            history_keep: SignedDuration::from_hours(24 * 7),
            pin_keep: SignedDuration::from_hours(24 * 30),
        },
        start: Options { command, on_conflict: None, use_local: false, require_existing: false },
        label: None,
    }
}

/// What a process works with.
pub fn env(
    store: SharedStore,
    keys: Keys,
    host: Arc<dyn Host>,
    root: RootDir,
    layout: Layout,
    place: Place,
    policy: Policy,
) -> Arc<Env> {
    Arc::new(Env {
        store,
        keys,
        known_terms: OnceCell::new(),
        host,
        root: Arc::new(root),
        layout,
        leases: Leases::new(Arc::new(StorageLessor), Duration::from_secs(30), false),
        noter: None,
        project: Project { url: "http://project".into(), bucket: "bucket".into() },
        place,
        policy,
        source: None,
        runner_speaks: AtomicBool::new(false),
        counters: Arc::default(),
        traffic: crate::store::Metrics::default(),
    })
}

/// The life of a sidecar.
#[derive(Debug)]
pub struct Running {
    pub orders: mpsc::Sender<Order>,
    pub status: watch::Receiver<SessionStatus>,
    pub inbox: Arc<Inbox>,
    pub task: JoinHandle<Result<Ended, Error>>,
}

impl Running {
    pub fn begin(env: Arc<Env>) -> Self {
        Self::begin_with(env, false, Arc::new(Seen))
    }

    /// With `appeared`, a bot is at work on a tree that came into being below a running root.
    pub fn begin_with(env: Arc<Env>, appeared: bool, fence: Arc<dyn Fencing>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let (orders, received) = mpsc::channel(16);
        let (status, seen) = watch::channel(SessionStatus::blank(&key()));
        let marked = Arc::clone(&inbox);
        let ending = CancellationToken::new();
        let life =
            Life { env, key: key(), inbox: marked, mirror: Arc::default(), fence, status, appeared, ending };
        Self { orders, status: seen, inbox, task: tokio::spawn(life.run(received)) }
    }
}
