//! Bounds how many calls are under way at once.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Bucket, Info, Listing, Page, Put, Sink, Store, StoreError};

/// At most so many calls at once; the others wait their turn, first come, first served.
#[derive(Debug)]
pub struct Limit<S> {
    inner: S,
    permits: Semaphore,
}

impl<S> Limit<S> {
    /// At most `concurrency` calls at once (at least one).
    pub fn new(inner: S, concurrency: usize) -> Self {
        Self { inner, permits: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)) }
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }
}

#[async_trait]
impl<S: Store> Store for Limit<S> {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let _permit = self.permit().await;
        self.inner.bucket().await
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        self.inner.put(key, body, how).await
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        self.inner.get(key, sink).await
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        let _permit = self.permit().await;
        self.inner.info(key).await
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        let _permit = self.permit().await;
        self.inner.list(page).await
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let _permit = self.permit().await;
        self.inner.remove(keys).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let _permit = self.permit().await;
        self.inner.rename(from, to).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Fault, Faulty, Memory, Op, read};

    #[tokio::test(start_paused = true)]
    async fn a_call_over_the_limit_waits_until_one_has_ended() {
        let memory = Arc::new(Memory::new(Arc::new(crate::host::Real)));
        memory.plant("k", "v", jiff::Timestamp::UNIX_EPOCH);
        let slow = Faulty::new(Arc::clone(&memory), |_| Fault::Delay(std::time::Duration::from_secs(10)));
        let limit = Limit::new(slow, 2);
        let started = tokio::time::Instant::now();
        let (a, b, c) = tokio::join!(read(&limit, "k"), read(&limit, "k"), read(&limit, "k"));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(started.elapsed().as_secs(), 20, "two at once, then the third");
        assert_eq!(memory.calls(Op::Get), 3);
    }
}
