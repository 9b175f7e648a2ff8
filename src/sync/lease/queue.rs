//! How often a waiter asks again.

use std::time::Duration;

use super::Refused;

/// The first wait.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// After the moment at which a lease ends.
const AFTER_END: Duration = Duration::from_millis(100);

/// The pauses of one waiter: twice a second, backing off to 5 s; never longer than the lease that it waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// Until the next call; `jitter` in 0..1.
    pub fn next(&mut self, refused: &Refused, jitter: f64) -> Duration {
        let wait = self.next.mul_f64(0.75 + jitter / 2.0);
        self.next = (self.next * 5 / 4).min(LONGEST);
        let end = refused.expires_in.map(|end| end + AFTER_END.mul_f64(1.0 + jitter));
        end.map_or(wait, |end| wait.min(end.max(AFTER_END)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_asks_twice_a_second_and_later_every_five_seconds() {
        let mut pauses = Pauses::default();
        let waits: Vec<Duration> = (0..30).map(|_| pauses.next(&Refused::default(), 0.5)).collect();
        assert_eq!(waits[0], FIRST);
        assert_eq!(waits[29], LONGEST);
        assert!(waits.is_sorted());
    }

    #[test]
    fn nobody_sleeps_past_the_end_of_the_lease() {
        let mut pauses = Pauses { next: LONGEST };
        let refused = Refused { expires_in: Some(Duration::from_secs(1)), ..Refused::default() };
        let wait = pauses.next(&refused, 0.0);
        assert!(wait > Duration::from_secs(1) && wait < Duration::from_millis(1300), "{wait:?}");
    }
}
