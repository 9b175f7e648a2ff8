//! Counts the calls to a lessor, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Ask, Grant, How, Lessor, Outcome, Renewed};
use crate::error::Error;
use crate::session::SessionKey;
use crate::sync::counters::Counters;

/// A lessor whose calls are counted.
#[derive(Debug)]
pub struct Counted<L> {
    inner: L,
    counters: Arc<Counters>,
}

impl<L> Counted<L> {
    /// Counts the calls to `inner`.
    pub fn new(inner: L, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }

    fn count<T>(&self, op: &'static str, result: Result<T, Error>) -> Result<T, Error> {
        self.counters.lease_call(op, result.as_ref().map(drop).map_err(Error::code));
        result
    }
}

#[async_trait]
impl<L: Lessor> Lessor for Counted<L> {
    async fn acquire(&self, asks: &[Ask], how: How) -> Result<Vec<Outcome>, Error> {
        let result = self.inner.acquire(asks, how).await;
        self.count("acquire", result)
    }

    async fn renew(&self, held: &[Grant], ttl: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        let result = self.inner.renew(held, ttl).await;
        self.count("renew", result)
    }

    async fn release(&self, held: &[Grant]) -> Result<(), Error> {
        let result = self.inner.release(held).await;
        self.count("release", result)
    }
}
