//! From events below the root to the sessions they belong to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::session::{Layout, SessionKey};
use crate::sync::counters::Counters;
use crate::sync::env::Fencing;
use crate::sync::inbox::Inbox;
use crate::tree::Filter;
use crate::tree::fence::FenceResult;
use crate::tree::watch::{Notice, Watch};

/// How long a fence may take before events count as lost.
const FENCE: Duration = Duration::from_secs(2);

/// Marks what events name.
#[derive(Debug)]
pub(super) struct Router {
    layout: Layout,
    /// Of trees that nobody has looked at yet.
    filter: Filter,
    inboxes: RwLock<BTreeMap<SessionKey, Arc<Inbox>>>,
    unknown: AtomicBool,
    news: Notify,
    degraded: Mutex<Option<String>>,
    counters: Arc<Counters>,
}

impl Router {
    pub fn new(layout: Layout, filter: Filter, counters: Arc<Counters>) -> Self {
        // The first look finds what appeared before the watch.
        Self {
            layout,
            filter,
            inboxes: RwLock::default(),
            unknown: AtomicBool::new(true),
            news: Notify::new(),
            degraded: Mutex::default(),
            counters,
        }
    }

    pub fn add(&self, key: SessionKey, inbox: Arc<Inbox>) {
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).insert(key, inbox);
    }

    pub fn remove(&self, key: &SessionKey) {
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether something appeared that belongs to no known session, since the last call.
    pub fn take_unknown(&self) -> bool {
        self.unknown.swap(false, Ordering::Relaxed)
    }

    pub fn rescan_all(&self) {
        for inbox in self.inboxes.read().unwrap_or_else(PoisonError::into_inner).values() {
            inbox.rescan();
        }
        self.meet();
    }

    /// Lets whoever waits look for sessions that appeared.
    pub fn meet(&self) {
        self.unknown.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Waits until something appeared.
    pub async fn appeared(&self) {
        self.news.notified().await;
    }

    pub fn why_degraded(&self) -> Option<String> {
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Notice for Router {
    fn touched(&self, relative: &Path) {
        let Some((key, inside)) = self.layout.locate(relative) else {
            // A directory above sessions: any of them may have come or gone.
            if relative.components().count() < self.layout.depth() {
                self.rescan_all();
            }
            return;
        };
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        match (inboxes.get(&key), inside.to_str()) {
            (Some(inbox), Some(inside)) => inbox.touch(inside),
            // A name that is not text cannot be marked; the scan that follows reports it.
            (Some(inbox), None) => inbox.rescan(),
            (None, _) => self.meet(),
        }
    }

    fn watches(&self, relative: &Path) -> bool {
        let Some((key, inside)) = self.layout.locate(relative) else { return true };
        let Some(inside) = inside.to_str().filter(|inside| !inside.is_empty()) else { return true };
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.get(&key).map_or_else(|| self.filter.enters(inside), |inbox| inbox.enters(inside))
    }

    fn rescan(&self, why: &str) {
        info!(why, "everything is looked at");
        self.counters.watch_overflows.inc();
        self.rescan_all();
    }

    fn degraded(&self, why: &str) {
        warn!(why, "changes may come without events: the trees are compared every few seconds");
        *self.degraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }
}

/// Fences of the root's watch.
#[derive(Debug)]
pub(super) struct Gate {
    watch: Arc<Watch>,
}

impl Gate {
    pub fn new(watch: Arc<Watch>) -> Self {
        Self { watch }
    }
}

#[async_trait]
impl Fencing for Gate {
    async fn pass(&self) -> bool {
        self.watch.fence().pass(FENCE).await == FenceResult::Passed
    }

    fn polling(&self) -> bool {
        self.watch.polling()
    }

    fn missed(&self, what: &str) {
        self.watch.distrust(what);
    }
}
