//! The mirror: one plain object per file, written behind every commit and never waited for.
//!
//! The engine tells a [`Mirror`] what it committed; a [`Worker`] brings the bucket after, at its own pace. History
//! is the truth: whatever fails here delays nothing and loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::mirror_key::Skip;
use super::mirror_plan::{Backlog, LARGE, Listed, PutOrder};
use super::report::MirrorStatus;
use crate::session::SessionKey;
use crate::store::{self, Bounds, Bucket, SharedStore, StoreError};
use crate::tree::{Content, Hash, Table};

mod calls;
#[cfg(test)]
mod tests;

pub use calls::clear;
use calls::{Outcome, REMOVALS, committed, put_one};
pub(super) use calls::{list_all, md5_hex};

const CONCURRENCY: usize = 8;
/// Objects a wave: between two waves the newest commit is looked at.
const WAVE: usize = 64;
const COMPARE_EVERY: Duration = Duration::from_hours(1);
const AFTER_ERRORS: Bounds = Bounds { base: Duration::from_secs(15), cap: Duration::from_mins(5) };

/// Where the mirror gets committed bytes from.
#[async_trait]
pub trait Source: Send + Sync {
    /// The content of a file as it was committed; none when what is on disk is something else by now.
    async fn content(&self, path: &str, sha256: Hash) -> Option<Content>;
}

/// The engine's end.
#[derive(Debug, Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Notify,
    progress: Mutex<Progress>,
}

/// What was told since the worker last looked: coalesced here, so that a slow bucket costs no memory.
#[derive(Debug, Default)]
struct Inbox {
    newest: Option<(String, Arc<Table>)>,
    changed: BTreeSet<String>,
    reconciled: bool,
    hurried: bool,
}

#[derive(Debug, Default)]
struct Progress {
    pending: usize,
    since: Option<Instant>,
    skipped: usize,
    error: Option<String>,
}

impl Mirror {
    /// A mirror of a session, and the worker that keeps it; the bucket tells what it takes.
    pub fn new(
        store: SharedStore,
        session: SessionKey,
        bucket: Bucket,
        source: Arc<dyn Source>,
    ) -> (Self, Worker) {
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            store,
            source,
            backlog: Backlog::new(session.clone(), bucket),
            session,
            head: None,
            known: BTreeMap::new(),
            schedule: Schedule::default(),
            warned: BTreeSet::new(),
            shared: Arc::clone(&shared),
        };
        (Self { shared }, worker)
    }

    /// A commit was acknowledged: the head's id, its whole table, and the paths that it put, patched or removed. The
    /// first call, with any or no paths, starts the comparison with the bucket.
    pub fn committed(&self, head: String, table: Arc<Table>, changed: impl IntoIterator<Item = String>) {
        let mut inbox = lock(&self.shared.inbox);
        inbox.newest = Some((head, table));
        inbox.changed.extend(changed);
        drop(inbox);
        self.shared.wake.notify_one();
    }

    /// The engine has compared the whole disk with the head: large files may go.
    pub fn reconciled(&self) {
        lock(&self.shared.inbox).reconciled = true;
        self.shared.wake.notify_one();
    }

    /// The process ends: what is owed is written without regard to the pace.
    pub fn hurry(&self) {
        lock(&self.shared.inbox).hurried = true;
        self.shared.wake.notify_one();
    }

    /// For `status` and metrics. (P8)
    #[must_use]
    pub fn status(&self) -> MirrorStatus {
        let told = lock(&self.shared.inbox).changed.len();
        let progress = lock(&self.shared.progress);
        MirrorStatus {
            enabled: true,
            pending: (progress.pending + told) as u64,
            lag_seconds: progress.since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            skipped: progress.skipped as u64,
        }
    }

    /// Why the mirror does not come after at the moment; none while it does.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        lock(&self.shared.progress).error.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the lock")
}

/// The end that talks to the bucket.
pub struct Worker {
    store: SharedStore,
    source: Arc<dyn Source>,
    session: SessionKey,
    backlog: Backlog,
    head: Option<String>,
    /// MD5 by SHA-256 of what the table holds.
    known: BTreeMap<Hash, String>,
    schedule: Schedule,
    warned: BTreeSet<Skip>,
    shared: Arc<Shared>,
}

/// When to compare next, and what went wrong before.
#[derive(Debug, Default)]
struct Schedule {
    /// None: at once.
    compare_at: Option<Instant>,
    /// After an error nothing is sent before the comparison: what the bucket has is not known.
    unsure: bool,
    /// The last wait of a row of errors; a whole wave that succeeds ends it.
    wait: Option<Duration>,
}

impl Worker {
    /// Works until it is cancelled, and then stops at once, also in the middle of an upload.
    pub async fn run(mut self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        loop {
            self.look();
            let step = self.step().await;
            self.tell(step.as_ref().err());
            match step {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Does one thing that is due; false: nothing was.
    async fn step(&mut self) -> Result<bool, StoreError> {
        let now = Instant::now();
        if self.head.is_none() {
            return Ok(false);
        }
        if self.schedule.compare_at.is_none_or(|at| at <= now) {
            self.compare().await?;
            return Ok(true);
        }
        if self.schedule.unsure {
            return Ok(false);
        }
        let puts = self.backlog.puts_due(now, WAVE);
        if !puts.is_empty() {
            self.put(puts).await?;
            self.schedule.wait = None;
            return Ok(true);
        }
        let removals = self.backlog.removals_due(now, REMOVALS);
        if !removals.is_empty() {
            self.remove(removals).await?;
            return Ok(true);
        }
        self.schedule.wait = None;
        Ok(false)
    }

    /// Takes over what the engine told.
    fn look(&mut self) {
        let inbox = mem::take(&mut *lock(&self.shared.inbox));
        if let Some((head, table)) = inbox.newest {
            self.head = Some(head);
            self.backlog.committed(Instant::now(), table, inbox.changed);
        }
        if inbox.reconciled {
            self.backlog.reconciled();
        }
        if inbox.hurried {
            self.backlog.hurry();
        }
    }

    async fn wait(&self) {
        let due = if self.schedule.unsure { None } else { self.backlog.next_due() };
        let next = due.into_iter().chain(self.schedule.compare_at).min();
        let sleep = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = self.shared.wake.notified() => {}
        }
    }

    fn failed(&mut self, error: &StoreError) {
        let wait = store::backoff(AFTER_ERRORS, self.schedule.wait, rand::random());
        if self.schedule.wait.is_none() {
            let text = shown(error);
            tracing::warn!(session = %self.session, error = text, "the mirror falls behind; history is not affected");
        }
        self.schedule = Schedule { compare_at: Some(Instant::now() + wait), unsure: true, wait: Some(wait) };
    }

    fn tell(&mut self, error: Option<&StoreError>) {
        for (reason, files) in self.count_skipped() {
            if self.warned.insert(reason) {
                tracing::warn!(
                    session = %self.session,
                    files,
                    "files {} are not mirrored; history has them",
                    reason.as_str()
                );
            }
        }
        let (pending, since) = self.backlog.pending();
        let mut progress = lock(&self.shared.progress);
        progress.pending = pending;
        progress.since = since;
        progress.skipped = self.backlog.skipped().len();
        match error {
            Some(error) => progress.error = Some(shown(error)),
            None if self.schedule.wait.is_none() => progress.error = None,
            None => {}
        }
    }

    fn count_skipped(&self) -> BTreeMap<Skip, usize> {
        let mut count = BTreeMap::new();
        for reason in self.backlog.skipped().values() {
            *count.entry(*reason).or_default() += 1;
        }
        count
    }

    /// The whole mirror against the head's table: at start, hourly, after errors.
    async fn compare(&mut self) -> Result<(), StoreError> {
        let listing = list_all(&*self.store, &self.session.mirror_prefix()).await?;
        let listed: Listed = listing.objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        let undecided = self.backlog.undecided(&listed, &self.known);
        let mut digests = stream::iter(undecided)
            .map(|(path, meta)| {
                let source = Arc::clone(&self.source);
                async move {
                    let content = committed(&*source, &path, meta.sha256).await?;
                    Some((meta.sha256, md5_hex(&content)))
                }
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(digest) = digests.next().await {
            self.known.extend(digest);
        }
        drop(digests);
        self.backlog.compared(Instant::now(), &listed, &self.known);
        self.forget_old_digests();
        self.schedule.compare_at = Some(Instant::now() + COMPARE_EVERY);
        self.schedule.unsure = false;
        Ok(())
    }

    fn forget_old_digests(&mut self) {
        let used: BTreeSet<Hash> = self.backlog.table().files.values().map(|meta| meta.sha256).collect();
        self.known.retain(|sha256, _| used.contains(sha256));
    }

    async fn put(&mut self, orders: Vec<PutOrder>) -> Result<(), StoreError> {
        // A body is in memory while it is sent: large ones one after another.
        let (small, large) = orders.into_iter().partition(|order| order.meta.size <= LARGE);
        self.put_at_once(small, CONCURRENCY).await?;
        self.put_at_once(large, 1).await
    }

    async fn put_at_once(&mut self, orders: Vec<PutOrder>, concurrency: usize) -> Result<(), StoreError> {
        let now = Instant::now();
        for order in &orders {
            self.backlog.touch(now, &order.key);
        }
        let head = self.head.clone().unwrap_or_default();
        let mut puts = stream::iter(orders)
            .map(|order| {
                let (store, source, head) = (Arc::clone(&self.store), Arc::clone(&self.source), head.clone());
                async move {
                    let outcome = put_one(&*store, &*source, &order, &head).await;
                    (order, outcome)
                }
            })
            .buffer_unordered(concurrency);
        while let Some((order, outcome)) = puts.next().await {
            match outcome {
                Outcome::Written { md5 } => {
                    self.known.insert(order.meta.sha256, md5);
                    self.backlog.written(&order.path, order.meta.sha256);
                }
                Outcome::Unavailable => self.backlog.unavailable(Instant::now(), &order.path),
                Outcome::Refused(skip) => self.backlog.refuse(&order.path, order.meta.sha256, skip),
                Outcome::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn remove(&mut self, keys: Vec<String>) -> Result<(), StoreError> {
        let now = Instant::now();
        // What is not among the answer's names was gone before.
        self.store.remove(&keys).await?;
        for key in &keys {
            self.backlog.touch(now, key);
            self.backlog.removed(key);
        }
        Ok(())
    }
}

/// Without the key: file names hold phone numbers.
fn shown(error: &StoreError) -> String {
    format!("{} ({}): {}", error.op, error.kind.as_str(), error.message)
}
