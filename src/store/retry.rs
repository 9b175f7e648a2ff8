//! Tries again what may succeed later.

use std::cell::Cell;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, sleep, timeout};

use super::{Bucket, Info, Kind, Listing, Op, Page, Put, Sink, Store, StoreError};

/// Tries a call again while its error [is retryable](StoreError::is_retryable).
///
/// What a retry finds is passed on as it is, because only the caller knows what it means:
/// - A `put` without overwriting whose first answer was lost finds its own object: [`Kind::AlreadyExists`].
///   For names that are written once with one content that is a confirmation.
/// - A `rename` that won but whose answer was lost is [`Kind::NotFound`], one that lost is
///   [`Kind::AlreadyExists`]; after an unclear first answer neither can be told from a foreign success: read
///   the target.
/// - A `remove` names only what its last try removed.
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    policy: Policy,
    random: Mutex<SmallRng>,
}

tokio::task_local! {
    static OUTAGE: Outage;
}

/// What an attempt has met so far.
#[derive(Debug)]
pub struct Outage {
    give_up_at: Instant,
    answered: Cell<bool>,
}

impl Outage {
    /// How long an attempt to which nothing has answered may go on; none: as long as it likes.
    fn left() -> Option<Duration> {
        let left = OUTAGE.try_with(|outage| {
            (!outage.answered.get()).then(|| outage.give_up_at.saturating_duration_since(Instant::now()))
        });
        left.ok().flatten()
    }

    fn answered() {
        // Outside of an attempt nobody wants to know.
        let _ = OUTAGE.try_with(|outage| outage.answered.set(true));
    }
}

/// Bounds an attempt by how long an outage is borne: until storage has answered one of its calls, none goes on after
/// `give_up_at`. A call that begins later is tried once. What was answered once is up, and is waited for as ever.
pub fn give_up_at<F: Future>(give_up_at: Instant, attempt: F) -> TaskLocalFuture<Outage, F> {
    OUTAGE.scope(Outage { give_up_at, answered: Cell::new(false) }, attempt)
}

/// When and how often is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Tries in all, the first included.
    pub tries: u32,
    /// No wait ends, and so no try begins, later than this after the first failure.
    pub budget: Duration,
    /// Ends a single try (as [`Kind::Transient`]); none: the store has timeouts of its own, as Supabase's
    /// client has, which knows sizes and progress.
    pub try_timeout: Option<Duration>,
    /// Waits after most failures.
    pub backoff: Bounds,
    /// Waits after [`Kind::Throttled`].
    pub throttled: Bounds,
    /// Waits after [`Kind::ReadOnly`]: a full database is mended in minutes.
    pub read_only: Bounds,
}

/// The bounds of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest wait, and the scale of the first.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let bounds =
            |base, cap| Bounds { base: Duration::from_millis(base), cap: Duration::from_millis(cap) };
        Self {
            tries: 6,
            budget: Duration::from_mins(1),
            try_timeout: None,
            backoff: bounds(100, 10_000),
            throttled: bounds(1_000, 20_000),
            read_only: bounds(15_000, 60_000),
        }
    }
}

impl Policy {
    /// One try only: for probes, and where the caller tries again itself.
    #[must_use]
    pub fn once() -> Self {
        Self { tries: 1, ..Self::default() }
    }

    fn bounds(&self, kind: Kind) -> Bounds {
        match kind {
            Kind::ReadOnly => self.read_only,
            Kind::Throttled => self.throttled,
            _ => self.backoff,
        }
    }
}

/// The wait before the next try: decorrelated jitter, between the base and three times the wait before,
/// capped. `roll` is a random number from 0 to 1.
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
#[must_use]
pub fn backoff(bounds: Bounds, previous: Option<Duration>, roll: f64) -> Duration {
    let high = previous.unwrap_or(bounds.base).saturating_mul(3).max(bounds.base);
    let spread = high.saturating_sub(bounds.base).mul_f64(roll.clamp(0.0, 1.0));
    bounds.base.saturating_add(spread).min(bounds.cap)
}

impl<S> Retry<S> {
    /// Tries again as the policy says.
    pub fn new(inner: S, policy: Policy) -> Self {
        Self { inner, policy, random: Mutex::new(rand::make_rng()) }
    }

    /// The same with waits that a test can repeat.
    pub fn seeded(inner: S, policy: Policy, seed: u64) -> Self {
        Self { inner, policy, random: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }

    /// What happens after the `tried`-th failure: the wait before the next try, or none: give up.
    fn wait(
        &self,
        error: &StoreError,
        tried: u32,
        elapsed: Duration,
        previous: Option<Duration>,
    ) -> Option<Duration> {
        if !error.is_retryable() || tried >= self.policy.tries {
            return None;
        }
        let roll = self.random.lock().expect("a random number does not panic").random::<f64>();
        let wait = backoff(self.policy.bounds(error.kind), previous, roll);
        let wait = wait.max(error.retry_after.unwrap_or_default());
        let in_time = elapsed + wait <= self.policy.budget && Outage::left().is_none_or(|left| wait <= left);
        in_time.then_some(wait)
    }

    async fn within<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let left = Outage::left().filter(|left| !left.is_zero());
        let Some(limit) = self.policy.try_timeout.into_iter().chain(left).min() else { return call.await };
        timeout(limit, call).await.unwrap_or_else(|_| {
            Err(StoreError::new(Kind::Transient, op.as_str(), format!("no answer within {limit:?}")))
        })
    }
}

/// Repeats an expression that makes a call: a loop and not a closure, because the sink of `get` is lent anew
/// to each try.
macro_rules! retry {
    ($self:ident, $op:expr, $call:expr) => {{
        let mut failed_first: Option<Instant> = None;
        let mut previous = None;
        let mut tried = 0;
        loop {
            let result = $self.within($op, $call).await;
            if result.as_ref().err().is_none_or(|error| !error.is_outage()) {
                Outage::answered();
            }
            let error = match result {
                Ok(done) => break Ok(done),
                Err(error) => error,
            };
            tried += 1;
            let since = failed_first.get_or_insert_with(Instant::now).elapsed();
            let Some(wait) = $self.wait(&error, tried, since, previous) else { break Err(error) };
            tracing::debug!(op = $op.as_str(), tried, wait_ms = crate::telemetry::millis(wait), %error, "trying again");
            previous = Some(wait);
            sleep(wait).await;
        }
    }};
}

#[async_trait]
impl<S: Store> Store for Retry<S> {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        retry!(self, Op::Bucket, self.inner.bucket())
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        retry!(self, Op::Put, self.inner.put(key, body.clone(), how))
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        retry!(self, Op::Get, self.inner.get(key, &mut *sink))
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        retry!(self, Op::Info, self.inner.info(key))
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        retry!(self, Op::List, self.inner.list(page))
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        retry!(self, Op::Remove, self.inner.remove(keys))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        retry!(self, Op::Rename, self.inner.rename(from, to))
    }
}

#[cfg(test)]
mod tests;
