//! Counts calls, bytes and errors, for metrics, benches and tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Bucket, Info, Kind, Listing, Op, Page, Put, Sink, Store, StoreError};

/// Counts what passes through.
#[derive(Debug)]
pub struct Metered<S> {
    inner: S,
    metrics: Metrics,
}

/// The counters of a [`Metered`], readable while it works.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Snapshot>>);

/// What was counted so far, by call.
pub type Snapshot = BTreeMap<Op, Counts>;

/// The figures of one kind of call. A call that is dropped on its way counts as started only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls begun.
    pub started: u64,
    /// Calls that succeeded.
    pub ok: u64,
    /// Calls that failed, by meaning.
    pub errors: BTreeMap<Kind, u64>,
    /// Bytes of bodies sent, also those of failed calls.
    pub sent: u64,
    /// Bytes of bodies received, also those of downloads that broke off.
    pub received: u64,
    /// Time that the ended calls took, in sum.
    pub time: Duration,
}

impl Metrics {
    /// The counters as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().expect("counting does not panic").clone()
    }

    /// Calls begun, of all kinds.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.snapshot().values().map(|counts| counts.started).sum()
    }

    fn count(&self, op: Op, change: impl FnOnce(&mut Counts)) {
        change(self.0.lock().expect("counting does not panic").entry(op).or_default());
    }
}

impl<S> Metered<S> {
    /// Counts the calls to `inner`, from nought.
    pub fn new(inner: S) -> Self {
        Self { inner, metrics: Metrics::default() }
    }

    /// A handle to the counters that outlives this store's disappearance behind a `dyn Store`.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    async fn measure<T>(
        &self,
        op: Op,
        sent: u64,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.metrics.count(op, |counts| {
            counts.started += 1;
            counts.sent += sent;
        });
        let begun = Instant::now();
        let result = call.await;
        self.metrics.count(op, |counts| {
            counts.time += begun.elapsed();
            match &result {
                Ok(_) => counts.ok += 1,
                Err(error) => *counts.errors.entry(error.kind).or_default() += 1,
            }
        });
        result
    }
}

/// Counts what goes on to the sink.
struct Counting<'a> {
    inner: &'a mut dyn Sink,
    metrics: &'a Metrics,
}

impl Sink for Counting<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.inner.restart()
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.metrics.count(Op::Get, |counts| counts.received += chunk.len() as u64);
        self.inner.write(chunk)
    }
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        self.measure(Op::Bucket, 0, self.inner.bucket()).await
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        let sent = body.len() as u64;
        self.measure(Op::Put, sent, self.inner.put(key, body, how)).await
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        let mut counting = Counting { inner: sink, metrics: &self.metrics };
        self.measure(Op::Get, 0, self.inner.get(key, &mut counting)).await
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        self.measure(Op::Info, 0, self.inner.info(key)).await
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        self.measure(Op::List, 0, self.inner.list(page)).await
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        self.measure(Op::Remove, 0, self.inner.remove(keys)).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.measure(Op::Rename, 0, self.inner.rename(from, to)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Memory, read};

    #[tokio::test]
    async fn calls_bytes_and_errors_are_counted_by_call_and_meaning() {
        let metered = Metered::new(Memory::new(Arc::new(crate::host::Real)));
        let metrics = metered.metrics();
        metered.put("a", Bytes::from_static(b"12345"), &Put::default()).await.unwrap();
        metered.put("a", Bytes::from_static(b"1234567"), &Put::default()).await.unwrap_err();
        read(&metered, "a").await.unwrap();
        read(&metered, "b").await.unwrap_err();
        let snapshot = metrics.snapshot();
        let put = &snapshot[&Op::Put];
        assert_eq!((put.started, put.ok, put.sent), (2, 1, 12));
        assert_eq!(put.errors, BTreeMap::from([(Kind::AlreadyExists, 1)]));
        let get = &snapshot[&Op::Get];
        assert_eq!((get.started, get.ok, get.received), (2, 1, 5));
        assert_eq!(get.errors, BTreeMap::from([(Kind::NotFound, 1)]));
        assert_eq!(metrics.started(), 4);
    }
}
