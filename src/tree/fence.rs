//! Fences: a file is made and its event awaited; then all events before it have been told.
//! (Watchman calls them cookies.)

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

/// Whether all events before a fence have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceResult {
    /// They have: [`Notice`](super::watch::Notice) was called for each.
    Passed,
    /// Not known: nothing came in time, nothing is watched, or the fence could not be made.
    TimedOut,
}

/// Fences of one root; cheap to clone, any number may be under way.
#[derive(Debug, Clone)]
pub struct Fence {
    dir: PathBuf,
    waiting: Arc<Waiting>,
}

impl Fence {
    pub(super) fn new(dir: PathBuf, waiting: Arc<Waiting>) -> Self {
        Self { dir, waiting }
    }

    /// Makes a fence and waits until the watch has come to it. Where nothing is watched it does not wait.
    pub async fn pass(&self, timeout: Duration) -> FenceResult {
        if !self.waiting.watched.load(Ordering::Acquire) {
            return FenceResult::TimedOut;
        }
        let name = OsString::from(Uuid::new_v4().to_string());
        let (told, passed) = oneshot::channel();
        self.waiting.lock().insert(name.clone(), told);
        // It goes where the file is made and back: also a file that is made too late is removed.
        let ticket = Ticket { fence: self.clone(), name };
        let made = tokio::task::spawn_blocking(move || {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(ticket.path());
            (ticket, made)
        });
        let passing = async {
            match made.await {
                Ok((_ticket, Ok(_))) => passed.await.is_ok(),
                Ok((_, Err(error))) => {
                    tracing::warn!(%error, dir = %self.dir.display(), "a fence could not be made");
                    false
                }
                Err(_) => false,
            }
        };
        match tokio::time::timeout(timeout, passing).await {
            Ok(true) => FenceResult::Passed,
            _ => FenceResult::TimedOut,
        }
    }
}

/// Cleans up, also when the wait is given up half way.
struct Ticket {
    fence: Fence,
    name: OsString,
}

impl Ticket {
    fn path(&self) -> PathBuf {
        self.fence.dir.join(&self.name)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fence.waiting.lock().remove(&self.name);
        // What is not removed here is removed at the next start.
        let _ = std::fs::remove_file(self.path());
    }
}

/// Who waits for which fence.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    senders: Mutex<HashMap<OsString, oneshot::Sender<()>>>,
    /// Whether events of the directory can come at all.
    pub(super) watched: AtomicBool,
}

impl Waiting {
    /// The event of a fence came.
    pub(super) fn passed(&self, name: &OsStr) {
        if let Some(told) = self.lock().remove(name) {
            // Whoever gave up waiting does not mind.
            let _ = told.send(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OsString, oneshot::Sender<()>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
