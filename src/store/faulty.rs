//! For tests: a store that loses answers, hangs, answers late, stale or not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::sleep;

use super::{Bucket, Info, Kind, Listing, Op, Order, Page, Put, Sink, Store, StoreError, read};

/// A call as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Which call.
    pub op: Op,
    /// The object; of a rename the target, of a list the prefix, of a removal the first key; else empty.
    pub key: &'a str,
    /// Its number among all calls, from 1.
    pub number: u64,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it passes.
    Pass,
    /// It fails without having had an effect.
    Before(Kind),
    /// It has its effect, and fails: an unclear answer.
    After(Kind),
    /// It never ends and has no effect; whoever drops it has crashed before it was sent.
    HangBefore,
    /// It has its effect and never ends; whoever drops it has crashed before the answer came.
    HangAfter,
    /// It passes after a while.
    Delay(Duration),
    /// An upload times out ([`Kind::Transient`]) and lands later, whatever lies there by then; other calls
    /// pass.
    Late(Late),
    /// A read gives what an overwrite through this store replaced, where there is such; other calls pass.
    Stale,
    /// A list ascends whatever was asked for; other calls pass.
    Ascending,
    /// A list is empty, as with a missing right; other calls pass.
    Empty,
}

/// When a late upload lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// When [`Faulty::land`] is called; perhaps never.
    Called,
    /// By itself after a while.
    In(Duration),
}

type Rule = dyn Fn(&Call<'_>) -> Fault + Send + Sync;

/// Does to each call what a rule says.
pub struct Faulty<S> {
    inner: Arc<S>,
    rule: Mutex<Arc<Rule>>,
    calls: AtomicU64,
    late: Mutex<Vec<(String, Bytes, Put)>>,
    replaced: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl<S: Store + 'static> Faulty<S> {
    /// Asks `rule` about each call; [`rules`] has the usual ones.
    pub fn new(inner: S, rule: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(inner),
            rule: Mutex::new(Arc::new(rule)),
            calls: AtomicU64::new(0),
            late: Mutex::default(),
            replaced: Mutex::default(),
        }
    }

    /// Changes the rule for the calls that follow.
    pub fn set(&self, rule: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) {
        *lock(&self.rule) = Arc::new(rule);
    }

    /// How many calls arrived.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The keys of uploads that have not landed yet.
    pub fn late(&self) -> Vec<String> {
        lock(&self.late).iter().map(|(key, ..)| key.clone()).collect()
    }

    /// Lets all late uploads land, over whatever lies there: the check was made when they began.
    ///
    /// # Errors
    /// What the store below says to the first that it refuses; the others are tried all the same.
    pub async fn land(&self) -> Result<(), StoreError> {
        let late = std::mem::take(&mut *lock(&self.late));
        let mut result = Ok(());
        for (key, body, how) in late {
            result = result.and(self.inner.put(&key, body, &how).await);
        }
        result
    }

    fn judge(&self, op: Op, key: &str) -> Fault {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let rule = Arc::clone(&lock(&self.rule));
        rule(&Call { op, key, number })
    }

    async fn apply<T: Send>(
        &self,
        fault: Fault,
        op: Op,
        key: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fail = |kind: Kind| StoreError::new(kind, op.as_str(), "a fault was injected").at(key);
        match fault {
            Fault::Before(kind) => Err(fail(kind)),
            Fault::After(kind) => call.await.and_then(|_| Err(fail(kind))),
            Fault::HangBefore => pending().await,
            Fault::HangAfter => {
                call.await.ok();
                pending().await
            }
            Fault::Delay(time) => {
                sleep(time).await;
                call.await
            }
            Fault::Pass | Fault::Late(_) | Fault::Stale | Fault::Ascending | Fault::Empty => call.await,
        }
    }

    async fn upload_late(&self, key: &str, body: Bytes, how: &Put, when: Late) -> Result<(), StoreError> {
        if !how.overwrite && self.inner.info(key).await.is_ok() {
            return Err(StoreError::new(Kind::AlreadyExists, "put", "The resource already exists").at(key));
        }
        let how = Put { overwrite: true, ..how.clone() };
        match when {
            Late::Called => lock(&self.late).push((key.to_owned(), body, how)),
            Late::In(time) => {
                let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
                tokio::spawn(async move {
                    sleep(time).await;
                    inner.put(&key, body, &how).await.ok();
                });
            }
        }
        Err(StoreError::new(Kind::Transient, "put", "timed out (a fault was injected)").at(key))
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the lock")
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Store + 'static> Store for Faulty<S> {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let fault = self.judge(Op::Bucket, "");
        self.apply(fault, Op::Bucket, "", self.inner.bucket()).await
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        let fault = self.judge(Op::Put, key);
        if let Fault::Late(when) = fault {
            return self.upload_late(key, body, how, when).await;
        }
        let before = if how.overwrite { read(&*self.inner, key).await.ok() } else { None };
        let put = async {
            self.inner.put(key, body, how).await?;
            if let Some(before) = before {
                lock(&self.replaced).insert(key.to_owned(), before);
            }
            Ok(())
        };
        self.apply(fault, Op::Put, key, put).await
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        let fault = self.judge(Op::Get, key);
        let stale = if fault == Fault::Stale { lock(&self.replaced).get(key).cloned() } else { None };
        let get = async {
            match stale {
                Some(old) => sink
                    .restart()
                    .and_then(|()| sink.write(&old))
                    .map_err(|error| StoreError::sink(&error).at(key)),
                None => self.inner.get(key, sink).await,
            }
        };
        self.apply(fault, Op::Get, key, get).await
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        let fault = self.judge(Op::Info, key);
        self.apply(fault, Op::Info, key, self.inner.info(key)).await
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        let fault = self.judge(Op::List, &page.prefix);
        let mut page = page.clone();
        if fault == Fault::Ascending {
            page.order = Order::Ascending;
        }
        let empty = fault == Fault::Empty;
        let list = async {
            let listing = self.inner.list(&page).await?;
            Ok(if empty { Listing { date: listing.date, ..Listing::default() } } else { listing })
        };
        self.apply(fault, Op::List, &page.prefix, list).await
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let first = keys.first().map_or("", String::as_str);
        let fault = self.judge(Op::Remove, first);
        self.apply(fault, Op::Remove, first, self.inner.remove(keys)).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let fault = self.judge(Op::Rename, to);
        self.apply(fault, Op::Rename, to, self.inner.rename(from, to)).await
    }
}

/// The usual rules.
pub mod rules {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rand::rngs::SmallRng;
    use rand::seq::IndexedRandom;
    use rand::{RngExt as _, SeedableRng};

    use super::{Call, Fault, Op};

    /// Lets everything pass.
    #[must_use]
    pub fn none(_: &Call<'_>) -> Fault {
        Fault::Pass
    }

    /// Strikes every call of this kind.
    pub fn every(op: Op, fault: Fault) -> impl Fn(&Call<'_>) -> Fault + Send + Sync {
        move |call| if call.op == op { fault.clone() } else { Fault::Pass }
    }

    /// Strikes the `n`-th of all calls, from 1: run a scenario once for each to have a fault everywhere.
    pub fn nth(n: u64, fault: Fault) -> impl Fn(&Call<'_>) -> Fault + Send + Sync {
        move |call| if call.number == n { fault.clone() } else { Fault::Pass }
    }

    /// Strikes the first `n` calls of this kind.
    pub fn first(n: u64, op: Op, fault: Fault) -> impl Fn(&Call<'_>) -> Fault + Send + Sync {
        let seen = AtomicU64::new(0);
        move |call| {
            if call.op == op && seen.fetch_add(1, Ordering::SeqCst) < n { fault.clone() } else { Fault::Pass }
        }
    }

    /// Strikes with this probability (0 to 1) and one of these faults; the same seed and the same calls, the
    /// same faults.
    pub fn seeded(
        seed: u64,
        probability: f64,
        faults: Vec<Fault>,
    ) -> impl Fn(&Call<'_>) -> Fault + Send + Sync {
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        move |_| {
            let mut random = super::lock(&random);
            if !random.random_bool(probability) {
                return Fault::Pass;
            }
            faults.choose(&mut *random).cloned().unwrap_or(Fault::Pass)
        }
    }
}

#[cfg(test)]
mod tests;
