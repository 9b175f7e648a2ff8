//! How far long work has come, on a terminal.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::history::{Progress, Silent};
use crate::telemetry;

const TICK: Duration = Duration::from_millis(120);
const FETCH: &str = "{spinner} {msg} {bar:30} {bytes}/{total_bytes} {eta}";
const PLAIN: &str = "{spinner} {msg} {pos}";

/// A listener for a restore, export or verification: a bar where somebody watches.
#[must_use]
pub fn listener(out: Output, what: &str) -> Box<dyn Progress> {
    if out.wants_progress() { Box::new(Bar::new(what)) } else { Box::new(Silent) }
}

/// One bar for all sessions that are fetched: bytes first, then files.
struct Bar {
    line: ProgressBar,
    planned: AtomicU64,
    files: AtomicU64,
}

impl Bar {
    fn new(what: &str) -> Self {
        let bar = telemetry::bars().add(ProgressBar::no_length().with_message(what.to_owned()));
        bar.set_style(ProgressStyle::with_template(PLAIN).expect("a constant that the tests try"));
        bar.enable_steady_tick(TICK);
        Self { line: bar, planned: AtomicU64::new(0), files: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar").field("position", &self.line.position()).finish_non_exhaustive()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
        telemetry::bars().remove(&self.line);
    }
}

impl Progress for Bar {
    fn planned(&self, _: u64, bytes: u64) {
        let total = self.planned.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.line.set_style(ProgressStyle::with_template(FETCH).expect("a constant that the tests try"));
        self.line.set_length(total);
    }

    fn received(&self, bytes: i64) {
        if bytes >= 0 {
            self.line.inc(bytes.unsigned_abs());
        } else {
            self.line.dec(bytes.unsigned_abs());
        }
    }

    fn extracted(&self) {
        let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        // Thousands of small files: the terminal is slower than the disk.
        if files.is_multiple_of(64) {
            self.line.set_message(format!("{files} files written"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_follows_a_download_that_begins_again() {
        let bar = Bar::new("fetching");
        bar.planned(2, 100);
        bar.planned(1, 50);
        bar.received(70);
        bar.received(-70);
        bar.received(150);
        assert_eq!((bar.line.length(), bar.line.position()), (Some(150), 150));
        for _ in 0..64 {
            bar.extracted();
        }
        assert_eq!(bar.line.message(), "64 files written");
    }
}
