//! Pods that come and go beside one bucket, on clocks that the test sets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, timeout};

use super::super::open_once;
use crate::history::{Id, Keys, Silent, retention};
use crate::session::Layout;
use crate::store::Memory;
use crate::sync::engine::{Ended, Order, Parting};
use crate::sync::env::{Env, Policy};
use crate::sync::rootdir::RootDir;
use crate::sync::start::Command;
use crate::sync::supervisor::testing::{self, Clock, Running};
use crate::testing::memory_backed;

pub use crate::sync::supervisor::testing::key;

pub const HISTORY_KEEP: SignedDuration = SignedDuration::from_hours(7 * 24);
pub const PIN_KEEP: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

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
        let policy = Policy {
            reconcile: Duration::from_hours(1),
            retention: retention::Policy { epoch: 0, history_keep: HISTORY_KEEP, pin_keep: PIN_KEEP },
            label: label.map(str::to_owned),
            ..testing::policy(command)
        };
        let (store, host) = (Arc::clone(&self.memory) as _, Arc::clone(&self.client) as _);
        (path, testing::env(store, Keys::off(), host, root, Layout::Single(key()), place, policy))
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
        let mut running = Running::begin(env);
        running.status.wait_for(|status| status.ready).await.unwrap();
        Pod { root, running }
    }
}

/// A sidecar at work.
pub struct Pod {
    pub root: PathBuf,
    running: Running,
}

impl Pod {
    pub fn head(&self) -> Id {
        self.running.status.borrow().head.as_deref().expect("a head").parse().unwrap()
    }

    /// Writes a file and waits for its commit.
    pub async fn write(&mut self, path: &str, bytes: &[u8]) -> Id {
        let before = self.head().to_string();
        std::fs::write(self.root.join(path), bytes).unwrap();
        self.running.inbox.touch(path);
        let committed = self.running.status.wait_for(|status| status.head.as_ref() != Some(&before));
        timeout(Duration::from_mins(1), committed).await.expect("it is committed").unwrap();
        self.head()
    }

    /// The last flush.
    pub async fn finish(self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        self.running.orders.send(Order::Finish { deadline, parting: Parting::Alone }).await.unwrap();
        assert!(matches!(self.running.task.await.unwrap(), Ok(Ended::Flushed { held: 0, .. })));
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
