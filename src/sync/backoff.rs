//! How long to wait before the next try of something that failed as a whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::{Bounds, backoff};

/// Grows with every failure, with jitter, and starts over after a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    bounds: Bounds,
    last: Option<Duration>,
    failures: u32,
}

impl Backoff {
    /// From `base` to `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { bounds: Bounds { base, cap }, last: None, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = backoff(self.bounds, self.last, rand::random());
        self.last = Some(wait);
        self.failures += 1;
        wait
    }

    /// When to try again after one more failure; before a deadline not later than it.
    pub fn next_try(&mut self, deadline: Instant) -> Instant {
        let now = Instant::now();
        let next = now + self.next_wait();
        if now < deadline { next.min(deadline) } else { next }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.last = None;
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}
