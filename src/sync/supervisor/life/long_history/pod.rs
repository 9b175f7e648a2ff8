//! Pods that come and go beside one bucket, on clocks that the test sets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::super::{Life, open_once};
use crate::error::Error;
use crate::history::{Id, Silent, retention};
use crate::host::{Host, Step};
use crate::session::{Layout, SessionKey};
use crate::store::{Memory, SharedStore};
use crate::sync::engine::{Ended, Order};
use crate::sync::env::{Env, Fencing, Policy, Project};
use crate::sync::inbox::{Inbox, Pace};
use crate::sync::lease::StorageLessor;
use crate::sync::report::SessionStatus;
use crate::sync::rootdir::RootDir;
use crate::sync::start::{Command, Options};
use crate::tree::Filter;

pub const HISTORY_KEEP: SignedDuration = SignedDuration::from_hours(7 * 24);
pub const PIN_KEEP: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

/// Goes with the paused time, from a moment of its own.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    at: Timestamp,
}

impl Clock {
    /// A day begins.
    pub fn new(skew: SignedDuration) -> Self {
        Self { began: Instant::now(), at: "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + skew }
    }
}

impl Host for Clock {
    fn now(&self) -> Timestamp {
        self.at + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }

    fn step(&self, _: Step) -> std::io::Result<()> {
        Ok(())
    }

    fn synced(&self, _: &std::path::Path) {}
}

/// Events are marked as the test writes: a fence has nothing to wait for.
#[derive(Debug)]
struct Seen;

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

/// A bucket on the right time, and machines whose clocks are off by `skew`.
pub struct World {
    pub memory: Arc<Memory>,
    pub server: Arc<Clock>,
    client: Arc<Clock>,
    dir: tempfile::TempDir,
    pods: u32,
}

impl World {
    pub fn new(skew: SignedDuration) -> Self {
        let server = Arc::new(Clock::new(SignedDuration::ZERO));
        Self {
            memory: Arc::new(Memory::new(Arc::clone(&server) as _)),
            server,
            client: Arc::new(Clock::new(skew)),
            dir: memory_backed(),
            pods: 0,
        }
    }

    /// A pod with an empty disk.
    fn env(&mut self, command: Command, label: Option<&str>) -> (PathBuf, Arc<Env>) {
        self.pods += 1;
        let path = self.dir.path().join(self.pods.to_string());
        let root = RootDir::open(&path, Arc::clone(&self.client) as _).unwrap();
        let place = root.place(Some(format!("pod-{}", self.pods))).unwrap();
        let env = Env {
            store: Arc::clone(&self.memory) as SharedStore,
            known_terms: OnceCell::new(),
            host: Arc::clone(&self.client) as _,
            root: Arc::new(root),
            layout: Layout::Single(key()),
            lessor: Arc::new(StorageLessor),
            project: Project { url: "http://project".into(), bucket: "bucket".into() },
            place,
            policy: policy(command, label),
        };
        (path, Arc::new(env))
    }

    /// Restores to an empty disk, as an init container does: what lies there then.
    pub async fn restore(&mut self) -> Files {
        let (root, env) = self.env(Command::Restore, None);
        open_once(&env, &key(), Instant::now(), &Silent).await.unwrap();
        files(&root)
    }

    /// Starts a sidecar beside an empty disk and waits until its bot may start.
    pub async fn pod(&mut self, label: Option<&str>) -> Pod {
        let (root, env) = self.env(Command::Run, label);
        let inbox = Arc::new(Inbox::default());
        let (orders, received) = mpsc::channel(1);
        let (status, mut seen) = watch::channel(SessionStatus::blank(&key()));
        let life = Life {
            env,
            key: key(),
            inbox: Arc::clone(&inbox),
            fence: Arc::new(Seen),
            status,
            outage_wait: Duration::from_mins(4),
            appeared: false,
        };
        let task = tokio::spawn(life.run(received));
        seen.wait_for(|status| status.ready).await.unwrap();
        Pod { root, inbox, orders, status: seen, task }
    }
}

/// A sidecar at work.
pub struct Pod {
    pub root: PathBuf,
    inbox: Arc<Inbox>,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<SessionStatus>,
    task: JoinHandle<Result<Ended, Error>>,
}

impl Pod {
    pub fn head(&self) -> Id {
        self.status.borrow().head.as_deref().expect("a head").parse().unwrap()
    }

    /// Writes a file and waits for its commit.
    pub async fn write(&mut self, path: &str, bytes: &[u8]) -> Id {
        let before = self.head().to_string();
        std::fs::write(self.root.join(path), bytes).unwrap();
        self.inbox.touch(path);
        let committed = self.status.wait_for(|status| status.head.as_ref() != Some(&before));
        timeout(Duration::from_mins(1), committed).await.expect("it is committed").unwrap();
        self.head()
    }

    /// The last flush.
    pub async fn finish(self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        self.orders.send(Order::Finish { deadline, linger: false }).await.unwrap();
        assert!(matches!(self.task.await.unwrap(), Ok(Ended::Flushed { held: 0 })));
    }
}

fn policy(command: Command, label: Option<&str>) -> Policy {
    Policy {
        pace: Pace { quiet: Duration::from_millis(500), max_wait: Duration::from_secs(5) },
        reconcile: Duration::from_hours(1),
        outage_wait: Duration::from_mins(4),
        filter: Filter::new(None, &[], &[]).unwrap(),
        owner: None,
        allow_mass_delete: false,
        mirror: false,
        retention: retention::Policy { epoch: 0, history_keep: HISTORY_KEEP, pin_keep: PIN_KEEP },
        start: Options { command, on_conflict: None, use_local: false, require_existing: false },
        label: label.map(str::to_owned),
    }
}

/// What lies in a flat root.
pub fn files(root: &std::path::Path) -> Files {
    let entries = std::fs::read_dir(root).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Thousands of commits are thousands of `fsync`s: where there is a file system in memory they cost nothing.
fn memory_backed() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
