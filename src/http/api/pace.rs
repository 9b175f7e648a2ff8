//! How often one caller may call.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::super::auth::Caller;

/// Calls of one credential: a page that asks each second, with some tabs, never meets it.
const CALLS: Quota =
    Quota::per_second(NonZeroU32::new(20).unwrap()).allow_burst(NonZeroU32::new(60).unwrap());
/// Bad credentials from one address.
const FAILURES: Quota =
    Quota::per_second(NonZeroU32::new(1).unwrap()).allow_burst(NonZeroU32::new(20).unwrap());
/// After so many checks what has been quiet is forgotten.
const SWEEP: u32 = 4096;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Whoever holds a credential.
    Caller(Caller),
    /// Where there is no credential: an address.
    Peer(IpAddr),
}

/// The address that failures are counted by. One customer of a provider has a whole network of IPv6.
pub fn peer(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        Some(v4) => v4,
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Counts calls by key.
pub struct Pace<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    checks: AtomicU32,
}

impl Pace<Payer> {
    /// Of calls.
    pub fn of_calls() -> Self {
        Self::with_clock(CALLS, DefaultClock::default())
    }
}

impl Pace<IpAddr> {
    /// Of bad credentials.
    pub fn of_failures() -> Self {
        Self::with_clock(FAILURES, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Pace<K, C> {
    fn with_clock(quota: Quota, clock: C) -> Self {
        let limiter = RateLimiter::dashmap_with_clock(quota, clock.clone());
        Self { limiter, clock, checks: AtomicU32::new(0) }
    }

    /// Counts one.
    ///
    /// # Errors
    /// In how many seconds the next one may come.
    pub fn count(&self, key: &K) -> Result<(), u64> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|until| {
            let wait: Duration = until.earliest_possible().duration_since(self.clock.now()).into();
            wait.as_secs() + 1
        })
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_page_that_asks_each_second_passes_and_a_flood_waits_a_moment() {
        let clock = FakeRelativeClock::default();
        let pace = Pace::with_clock(CALLS, clock.clone());
        let me = Payer::Caller(Caller::User("u1".to_owned()));
        for _ in 0..300 {
            for _ in 0..10 {
                assert_eq!(pace.count(&me), Ok(()));
            }
            clock.advance(Duration::from_secs(1));
        }
        let flood: Vec<_> = (0..100).map(|_| pace.count(&me)).collect();
        assert_eq!(flood.iter().filter(|one| one.is_ok()).count(), 60);
        assert_eq!(flood[99], Err(1));
        assert_eq!(pace.count(&Payer::Caller(Caller::Operator)), Ok(()), "each pays alone");
        clock.advance(Duration::from_secs(1));
        assert_eq!((0..30).filter(|_| pace.count(&me).is_ok()).count(), 20);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let at = |text: &str| peer(Some(text.parse().unwrap()));
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
