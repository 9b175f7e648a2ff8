//! What a process counts about its sessions, for metrics: how often, how many bytes, how long.
//!
//! One handle, passed to where the events happen; nothing in the program looks at it to decide. What can be read off the
//! sessions as they stand (their [status](super::report::SessionStatus)) is not counted here.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::error::Code;
use crate::history::Kind;

/// Counters by one label with few values.
pub type ByWord = Family<[(&'static str, &'static str); 1], Counter>;

/// Seconds of a commit: from a delta of one file on a good line to a base of a large tree on a bad one.
const COMMIT_BUCKETS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds of a restore.
const RESTORE_BUCKETS: [f64; 9] = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What a process counted so far. Its parts are shared by whoever clones them.
#[derive(Debug)]
pub struct Counters {
    /// Acknowledged commits, by `kind`.
    pub commits: ByWord,
    /// Their bytes in the bucket, by `kind`.
    pub commit_bytes: ByWord,
    /// How long each took, from packing to acknowledged.
    pub commit_seconds: Histogram,
    /// Commits that storage confirmed after the right to commit was lost.
    pub not_owned: Counter,
    /// How long restores took, from the grant to the published tree.
    pub restore_seconds: Histogram,
    /// Failures of commits and starts, by `code`.
    pub errors: ByWord,
    /// Alarms of the guards of identity and against mass deletion.
    pub identity_alarms: Counter,
    /// Another process asked for a session whose bot is not ours to stop.
    pub handovers_refused: Counter,
    /// Sessions that were given to another process that asked.
    pub handovers: Counter,
    /// Losses of events, after which everything is looked at.
    pub watch_overflows: Counter,
    /// Calls of the lease functions, by `op` and `outcome`.
    pub lease_requests: Family<[(&'static str, &'static str); 2], Counter>,
}

impl Default for Counters {
    fn default() -> Self {
        let counters = Self {
            commits: ByWord::default(),
            commit_bytes: ByWord::default(),
            commit_seconds: Histogram::new(COMMIT_BUCKETS),
            not_owned: Counter::default(),
            restore_seconds: Histogram::new(RESTORE_BUCKETS),
            errors: ByWord::default(),
            identity_alarms: Counter::default(),
            handovers_refused: Counter::default(),
            handovers: Counter::default(),
            watch_overflows: Counter::default(),
            lease_requests: Family::default(),
        };
        // A rate needs the nought that it begins at.
        for kind in [Kind::Base, Kind::Delta] {
            drop(counters.commits.get_or_create(&[("kind", word(kind))]));
            drop(counters.commit_bytes.get_or_create(&[("kind", word(kind))]));
        }
        for code in Code::ALL {
            drop(counters.errors.get_or_create(&[("code", code.as_str())]));
        }
        counters
    }
}

impl Counters {
    /// A commit was acknowledged.
    pub fn committed(&self, kind: Kind, bytes: u64, took: Duration) {
        let label = [("kind", word(kind))];
        self.commits.get_or_create(&label).inc();
        self.commit_bytes.get_or_create(&label).inc_by(bytes);
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A commit or a start failed.
    pub fn failed(&self, code: Code) {
        self.errors.get_or_create(&[("code", code.as_str())]).inc();
    }

    /// The lease functions were called.
    pub fn lease_call(&self, op: &'static str, outcome: Result<(), Code>) {
        let outcome = outcome.map_or_else(Code::as_str, |()| "ok");
        self.lease_requests.get_or_create(&[("op", op), ("outcome", outcome)]).inc();
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Base => "base",
        Kind::Delta => "delta",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_by_kind_and_both_kinds_are_there_from_the_beginning() {
        let counters = Counters::default();
        let count = |kind| counters.commits.get(&[("kind", kind)]).unwrap().get();
        assert_eq!((count("base"), count("delta")), (0, 0));
        counters.committed(Kind::Delta, 100, Duration::from_millis(20));
        counters.committed(Kind::Delta, 50, Duration::from_millis(20));
        assert_eq!((count("base"), count("delta")), (0, 2));
        assert_eq!(counters.commit_bytes.get(&[("kind", "delta")]).unwrap().get(), 150);
    }

    #[test]
    fn a_failure_is_counted_under_the_word_that_a_user_sees() {
        let counters = Counters::default();
        counters.failed(Code::Unreachable);
        counters.lease_call("renew", Err(Code::Unauthorized));
        assert_eq!(counters.errors.get(&[("code", "unreachable")]).unwrap().get(), 1);
        let call = [("op", "renew"), ("outcome", "unauthorized")];
        assert_eq!(counters.lease_requests.get(&call).unwrap().get(), 1);
    }
}
