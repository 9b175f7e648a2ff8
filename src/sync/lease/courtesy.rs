//! When a holder gives way to who asks: never so soon that two of them only hand the session to and fro.

use std::time::Duration;

use tokio::time::Instant;

/// Who gets a session back within this time of giving way holds it longer.
const SOON: Duration = Duration::from_mins(5);
/// The longest minimum.
const LONGEST: Duration = Duration::from_mins(30);

/// The minimum hold of one bot.
#[derive(Debug, Clone, Copy)]
pub struct Courtesy {
    configured: Duration,
    minimum: Duration,
    since: Instant,
    gave_way: Option<Instant>,
}

impl Courtesy {
    /// Of a bot that starts now.
    #[must_use]
    pub fn new(min_hold: Duration, now: Instant) -> Self {
        Self { configured: min_hold, minimum: min_hold, since: now, gave_way: None }
    }

    /// From when on a wish counts.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.since + self.minimum
    }

    /// It could not give way: asked again later.
    pub fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// It gave way.
    pub fn gave_way(&mut self, now: Instant) {
        self.gave_way = Some(now);
    }

    /// It serves again: an asker that did not come up doubles what it has to wait the next time.
    pub fn serves_again(&mut self, now: Instant) {
        let soon = self.gave_way.is_some_and(|gave_way| now - gave_way <= SOON);
        self.minimum = if soon {
            (self.minimum * 2).clamp(self.configured, LONGEST.max(self.configured))
        } else {
            self.configured
        };
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn who_gets_it_back_soon_holds_it_twice_as_long_up_to_half_an_hour() {
        let mut now = Instant::now();
        let mut courtesy = Courtesy::new(MINUTE, now);
        assert_eq!(courtesy.until(), now + MINUTE);
        let mut holds = Vec::new();
        for _ in 0..7 {
            now = courtesy.until();
            courtesy.gave_way(now);
            now += MINUTE / 2;
            courtesy.serves_again(now);
            holds.push((courtesy.until() - now).as_secs() / 60);
        }
        assert_eq!(holds, [2, 4, 8, 16, 30, 30, 30]);
        courtesy.gave_way(now);
        now += SOON * 2;
        courtesy.serves_again(now);
        assert_eq!(courtesy.until(), now + MINUTE, "whoever had it that long did come up");
    }
}
