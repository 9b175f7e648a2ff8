//! A pod: a machine, a bot, and the lives of the sidecar beside it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinHandle;

use super::bot::Bot;
use super::machine::{Clock, Machine};
use crate::error::Error;
use crate::history::retention;
use crate::session::{Layout, SessionKey};
use crate::store::{self, Call, Fault, Faulty, Kind, Late, Memory, Op, Retry, SharedStore};
use crate::sync::engine::{Ended, Order};
use crate::sync::env::{Env, Fencing, Policy, Project};
use crate::sync::inbox::{Inbox, Pace};
use crate::sync::lease::StorageLessor;
use crate::sync::report::SessionStatus;
use crate::sync::rootdir::RootDir;
use crate::sync::start::{Command, Options};
use crate::sync::state::Place;
use crate::sync::supervisor::life::Life;
use crate::tree::Filter;

pub fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

/// Events of a bot are marked as it writes: a fence has nothing to wait for.
#[derive(Debug)]
struct Open;

#[async_trait]
impl Fencing for Open {
    async fn pass(&self) -> bool {
        true
    }

    fn polling(&self) -> bool {
        false
    }

    fn missed(&self, _: &str) {}
}

/// The network between a pod and the bucket.
#[derive(Debug)]
pub struct Weather {
    random: Mutex<SmallRng>,
    /// Of a thousand calls.
    faults: AtomicU32,
}

impl Weather {
    pub fn new(seed: u64) -> Self {
        Self { random: Mutex::new(SmallRng::seed_from_u64(seed)), faults: AtomicU32::new(0) }
    }

    pub fn set(&self, faults: u32) {
        self.faults.store(faults, Ordering::Relaxed);
    }

    fn strikes(&self, call: &Call<'_>) -> Fault {
        let mut random = self.random.lock().unwrap();
        if !random.random_bool(f64::from(self.faults.load(Ordering::Relaxed)) / 1000.0) {
            return Fault::Delay(Duration::from_millis(random.random_range(1..20)));
        }
        match random.random_range(0..6) {
            0 if call.op == Op::Put => Fault::Late(Late::Called),
            1 if call.op == Op::Put => {
                Fault::Late(Late::In(Duration::from_secs(random.random_range(1..900))))
            }
            2 => Fault::After(Kind::Transient),
            3 => Fault::Stale,
            4 => Fault::Delay(Duration::from_secs(random.random_range(1..60))),
            _ => Fault::Before(Kind::Transient),
        }
    }
}

/// The sidecar at work.
#[derive(Debug)]
pub struct Running {
    pub orders: mpsc::Sender<Order>,
    pub status: watch::Receiver<SessionStatus>,
    pub inbox: Arc<Inbox>,
    pub task: JoinHandle<Result<Ended, Error>>,
    machine: Arc<Machine>,
    weather: Arc<Weather>,
}

impl Running {
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// What all pods share.
#[derive(Debug)]
pub struct Site {
    pub memory: Arc<Memory>,
    pub layout: Layout,
    pub mirror: bool,
}

/// Where a pod's sidecar runs, and with what.
#[derive(Debug)]
pub struct Pod {
    pub root: PathBuf,
    pub uid: u64,
    pub boot: u64,
    pub machine: Arc<Machine>,
    pub bot: Option<Bot>,
    pub running: Option<Running>,
    /// Networks of all its lives: an upload may land long after the life that sent it.
    pub networks: Vec<Arc<Faulty<Arc<Memory>>>>,
}

impl Pod {
    pub fn new(clock: Clock, root: PathBuf, uid: u64, boot: u64) -> Self {
        let machine = Arc::new(Machine::new(clock, root.clone()));
        Self { root, uid, boot, machine, bot: None, running: None, networks: Vec::new() }
    }

    pub fn dir(&self, site: &Site) -> PathBuf {
        site.layout.dir(&self.root, &key())
    }

    /// What a process of this pod works with.
    pub fn env(&mut self, site: &Site, seed: u64) -> Result<(Arc<Env>, Arc<Weather>), Error> {
        let machine = Arc::clone(&self.machine);
        let root = RootDir::open(&self.root, Arc::clone(&machine) as _)?;
        let place =
            Place { boot_id: self.boot.to_string(), ..root.place(Some(format!("pod-{}", self.uid)))? };
        let weather = Arc::new(Weather::new(seed));
        let (rule, doomed) = (Arc::clone(&weather), Arc::clone(&machine));
        let strikes = move |call: &Call<'_>| doomed.call().unwrap_or_else(|| rule.strikes(call));
        let network = Arc::new(Faulty::new(Arc::clone(&site.memory), strikes));
        self.networks.push(Arc::clone(&network));
        let policy = store::Policy { tries: 4, budget: Duration::from_secs(30), ..store::Policy::default() };
        let store: SharedStore = Arc::new(Retry::seeded(network, policy, seed));
        let env = Arc::new(Env {
            store,
            known_terms: OnceCell::new(),
            host: Arc::clone(&machine) as _,
            root: Arc::new(root),
            layout: site.layout.clone(),
            lessor: Arc::new(StorageLessor),
            project: Project { url: "http://project".into(), bucket: "bucket".into() },
            place,
            policy: policy_of(site.mirror),
        });
        Ok((env, weather))
    }

    /// Starts the sidecar, as `run` does.
    pub fn start(&mut self, site: &Site, luck: u64) -> Result<(), Error> {
        let (env, weather) = self.env(site, luck)?;
        let inbox = Arc::new(Inbox::default());
        let (orders, received) = mpsc::channel(16);
        let (status, seen) = watch::channel(SessionStatus::blank(&key()));
        let life = Life {
            env,
            key: key(),
            inbox: Arc::clone(&inbox),
            fence: Arc::new(Open),
            status,
            outage_wait: Duration::from_mins(4),
            appeared: false,
        };
        let task = tokio::spawn(life.run(received));
        let machine = Arc::clone(&self.machine);
        self.running = Some(Running { orders, status: seen, inbox, task, machine, weather });
        Ok(())
    }

    /// What the bot touched.
    pub fn touched(&self, paths: impl IntoIterator<Item = String>) {
        let Some(running) = &self.running else { return };
        for path in paths {
            running.inbox.touch(&path);
        }
    }
}

fn policy_of(mirror: bool) -> Policy {
    Policy {
        pace: Pace { quiet: Duration::from_millis(500), max_wait: Duration::from_secs(5) },
        reconcile: Duration::from_mins(5),
        outage_wait: Duration::from_mins(4),
        filter: Filter::new(None, &[], &[]).unwrap(),
        owner: None,
        allow_mass_delete: false,
        mirror,
        retention: retention::Policy {
            epoch: 0,
            history_keep: SignedDuration::from_hours(24 * 7),
            pin_keep: SignedDuration::from_hours(24 * 30),
        },
        start: Options {
            command: Command::Run,
            on_conflict: None,
            use_local: false,
            require_existing: false,
        },
        label: None,
    }
}
