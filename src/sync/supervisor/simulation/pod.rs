//! A pod: a machine, a bot, and the lives of the sidecar beside it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::bot::Bot;
use super::machine::Machine;
use crate::error::Error;
use crate::history::Keys;
use crate::session::Layout;
use crate::store::{self, Call, Fault, Faulty, Kind, Late, Memory, Op, Retry};
use crate::sync::env::{Env, Policy};
use crate::sync::rootdir::RootDir;
use crate::sync::start::Command;
use crate::sync::state::Place;
use crate::sync::supervisor::testing::{self, Clock, Running, key};

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

/// What all pods share.
#[derive(Debug)]
pub struct Site {
    pub memory: Arc<Memory>,
    pub layout: Layout,
    pub mirror: bool,
    /// Of the lives that begin from now on.
    pub keys: Keys,
}

/// Where a pod's sidecar runs, and with what.
#[derive(Debug)]
pub struct Pod {
    pub root: PathBuf,
    pub uid: u64,
    pub boot: u64,
    pub machine: Arc<Machine>,
    /// Of its newest life.
    pub weather: Arc<Weather>,
    pub bot: Option<Bot>,
    pub running: Option<Running>,
    /// Networks of all its lives: an upload may land long after the life that sent it.
    pub networks: Vec<Arc<Faulty<Arc<Memory>>>>,
}

impl Pod {
    pub fn new(clock: Clock, root: PathBuf, uid: u64, boot: u64) -> Self {
        let machine = Arc::new(Machine::new(clock, root.clone()));
        let weather = Arc::new(Weather::new(0));
        Self { root, uid, boot, machine, weather, bot: None, running: None, networks: Vec::new() }
    }

    pub fn dir(&self, site: &Site) -> PathBuf {
        site.layout.dir(&self.root, &key())
    }

    /// What a process of this pod works with.
    pub fn env(&mut self, site: &Site, seed: u64) -> Result<Arc<Env>, Error> {
        let machine = Arc::clone(&self.machine);
        let root = RootDir::open(&self.root, Arc::clone(&machine) as _)?;
        let place =
            Place { boot_id: self.boot.to_string(), ..root.place(Some(format!("pod-{}", self.uid)))? };
        self.weather = Arc::new(Weather::new(seed));
        let (rule, doomed) = (Arc::clone(&self.weather), Arc::clone(&machine));
        let strikes = move |call: &Call<'_>| doomed.call().unwrap_or_else(|| rule.strikes(call));
        let network = Arc::new(Faulty::new(Arc::clone(&site.memory), strikes));
        self.networks.push(Arc::clone(&network));
        let retries = store::Policy { tries: 4, budget: Duration::from_secs(30), ..store::Policy::default() };
        let store = Arc::new(Retry::seeded(network, retries, seed));
        // Nobody keeps a mirror beside a history that is encrypted.
        let mirror = site.mirror && !site.keys.is_on();
        let policy = Policy { mirror, ..testing::policy(Command::Run) };
        Ok(testing::env(store, site.keys.clone(), machine, root, site.layout.clone(), place, policy))
    }

    /// Starts the sidecar, as `run` does.
    pub fn start(&mut self, site: &Site, luck: u64) -> Result<(), Error> {
        self.running = Some(Running::begin(self.env(site, luck)?));
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
