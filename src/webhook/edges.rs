//! Each condition once, however often it is looked at; never a storm.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::conditions::{Condition, Ripe, Seen};
use super::event::{Event, Kind};

/// What is still so is told again after this.
const REMINDER: SignedDuration = SignedDuration::from_hours(24);
/// What happens again and again is told at most so often.
const AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// So many events are told one by one within a window; the rest is one summary.
const MOST: usize = 20;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Edges {
    known: BTreeMap<(Option<String>, Kind), Known>,
    cap: Cap,
}

#[derive(Debug)]
struct Known {
    since: Timestamp,
    told: Option<Timestamp>,
    count: u64,
}

/// What a look leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub events: Vec<Event>,
    /// When to look again although nothing changed.
    pub next: Option<Timestamp>,
}

impl Edges {
    /// What is to be told now. With `last`, nothing is waited for: no later look will come.
    pub(super) fn look(&mut self, now: Timestamp, seen: &Seen, last: bool) -> Look {
        let mut look = Look::default();
        let mut there = BTreeSet::new();
        for condition in &seen.conditions {
            if let Ripe::At(due) = condition.ripe
                && due > now
                && !last
            {
                // What was told of it before is over: this is younger.
                look.next = earliest(look.next, due);
                continue;
            }
            let key = (condition.session.clone(), condition.kind);
            let known = self.known.entry(key.clone()).or_insert(Known { since: now, told: None, count: 0 });
            there.insert(key);
            match step(known, condition.ripe, now, last) {
                Step::Tell { reminder } => {
                    known.told = Some(now);
                    look.next = earliest(look.next, after(now, REMINDER));
                    look.events.push(event(condition, now, reminder));
                }
                Step::Wait(until) => look.next = earliest(look.next, until),
            }
        }
        for (session, kind) in self.over(&there) {
            let told = self.known.remove(&(session.clone(), kind)).is_some_and(|known| known.told.is_some());
            // One that was taken, or deleted, is not durable for being gone.
            if told
                && kind == Kind::NotDurable
                && session.as_ref().is_some_and(|session| seen.well.contains(session))
            {
                let message = "All changes are stored again.";
                let durable = Event { session, ..Event::of_process(Kind::Durable, now, message) };
                look.events.push(durable);
            }
        }
        look.events = self.cap.admit(now, look.events, last);
        if let Some(due) = self.cap.due() {
            look.next = earliest(look.next, due);
        }
        look
    }

    fn over(&self, there: &BTreeSet<(Option<String>, Kind)>) -> Vec<(Option<String>, Kind)> {
        self.known.keys().filter(|key| !there.contains(*key)).cloned().collect()
    }
}

enum Step {
    Tell { reminder: bool },
    Wait(Timestamp),
}

fn step(known: &mut Known, ripe: Ripe, now: Timestamp, last: bool) -> Step {
    let due = match ripe {
        Ripe::After(wait) => {
            after(known.since, SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX))
        }
        Ripe::At(at) => at,
        Ripe::Grown(count) if count <= known.count => {
            known.count = count;
            return Step::Wait(Timestamp::MAX);
        }
        Ripe::Grown(count) => {
            let due = known.told.map_or(now, |told| after(told, AGAIN));
            if due > now && !last {
                return Step::Wait(due);
            }
            known.count = count;
            return Step::Tell { reminder: false };
        }
    };
    match known.told {
        None if due <= now || last => Step::Tell { reminder: false },
        None => Step::Wait(due),
        Some(told) if due <= now && after(told, REMINDER) <= now => Step::Tell { reminder: true },
        Some(told) => Step::Wait(after(told, REMINDER).max(due)),
    }
}

fn after(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

fn event(condition: &Condition, at: Timestamp, reminder: bool) -> Event {
    Event {
        session: condition.session.clone(),
        code: condition.code.clone(),
        reminder,
        ..Event::of_process(condition.kind, at, &condition.message)
    }
}

fn earliest(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    if other == Timestamp::MAX { one } else { Some(one.map_or(other, |one| one.min(other))) }
}

/// A hundred sessions that lose their storage are a few lines, not a hundred.
#[derive(Debug, Default)]
struct Cap {
    since: Option<Timestamp>,
    told: usize,
    suppressed: BTreeMap<Kind, u64>,
}

impl Cap {
    fn due(&self) -> Option<Timestamp> {
        self.since.filter(|_| !self.suppressed.is_empty())?.saturating_add(WINDOW).ok()
    }

    fn admit(&mut self, now: Timestamp, events: Vec<Event>, last: bool) -> Vec<Event> {
        let mut admitted = Vec::new();
        let over = self.since.is_some_and(|since| since.saturating_add(WINDOW).is_ok_and(|end| end <= now));
        if over {
            admitted.extend(self.summary(now));
            (self.since, self.told) = (None, 0);
        }
        for event in events {
            self.since.get_or_insert(now);
            if self.told < MOST {
                self.told += 1;
                admitted.push(event);
            } else {
                *self.suppressed.entry(event.kind).or_default() += 1;
            }
        }
        if last {
            admitted.extend(self.summary(now));
        }
        admitted
    }

    fn summary(&mut self, now: Timestamp) -> Option<Event> {
        let suppressed = std::mem::take(&mut self.suppressed);
        let message = "More happened than is told one by one; `session-sidecar status` shows all sessions.";
        (!suppressed.is_empty())
            .then(|| Event { suppressed, ..Event::of_process(Kind::Suppressed, now, message) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn start() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn later(seconds: i64) -> Timestamp {
        start() + SignedDuration::from_secs(seconds)
    }

    fn condition(session: &str, kind: Kind, ripe: Ripe) -> Condition {
        let (code, message) = (None, "a sentence".to_owned());
        Condition { kind, session: Some(session.to_owned()), code, message, ripe }
    }

    fn seen(conditions: &[Condition]) -> Seen {
        let well = BTreeSet::from(["u/s".to_owned()]);
        Seen { conditions: conditions.to_vec(), well, restless: false }
    }

    fn told(look: &Look) -> Vec<(Kind, bool)> {
        look.events.iter().map(|event| (event.kind, event.reminder)).collect()
    }

    #[test]
    fn what_is_held_is_told_once_and_again_only_after_a_day() {
        let mut edges = Edges::default();
        let held = seen(&[condition("u/s", Kind::Held, Ripe::After(Duration::from_secs(5)))]);
        let first = edges.look(start(), &held, false);
        assert_eq!((told(&first), first.next), (vec![], Some(later(5))));
        assert_eq!(told(&edges.look(later(5), &held, false)), [(Kind::Held, false)]);
        let quiet = edges.look(later(3600), &held, false);
        assert_eq!((told(&quiet), quiet.next), (vec![], Some(later(5 + 86_400))));
        assert_eq!(told(&edges.look(later(5 + 86_400), &held, false)), [(Kind::Held, true)]);
        assert_eq!(told(&edges.look(later(90_000), &seen(&[]), false)), []);
        edges.look(later(90_001), &held, false);
        assert_eq!(
            told(&edges.look(later(90_006), &held, false)),
            [(Kind::Held, false)],
            "another occurrence"
        );
    }

    #[test]
    fn what_is_mended_before_anybody_could_act_is_not_told() {
        let mut edges = Edges::default();
        let held = seen(&[condition("u/s", Kind::Held, Ripe::After(Duration::from_secs(5)))]);
        edges.look(start(), &held, false);
        assert_eq!(told(&edges.look(later(3), &seen(&[]), false)), []);
        assert_eq!(told(&edges.look(later(10), &held, false)), []);
    }

    #[test]
    fn what_is_not_durable_is_told_once_and_then_that_it_is_again() {
        let mut edges = Edges::default();
        let since = |due| seen(&[condition("u/s", Kind::NotDurable, Ripe::At(later(due)))]);
        let first = edges.look(start(), &since(300), false);
        assert_eq!((told(&first), first.next), (vec![], Some(later(300))));
        assert_eq!(told(&edges.look(later(300), &since(300), false)), [(Kind::NotDurable, false)]);
        assert_eq!(told(&edges.look(later(400), &since(300), false)), []);
        // Stored, and something younger waits.
        assert_eq!(told(&edges.look(later(410), &since(705), false)), [(Kind::Durable, false)]);
        assert_eq!(told(&edges.look(later(420), &seen(&[]), false)), []);
        edges.look(later(430), &since(440), false);
        assert_eq!(told(&edges.look(later(440), &since(440), false)), [(Kind::NotDurable, false)]);
        assert_eq!(told(&edges.look(later(450), &seen(&[]), false)), [(Kind::Durable, false)]);
    }

    #[test]
    fn a_session_that_was_taken_is_not_called_durable() {
        let mut edges = Edges::default();
        let since = seen(&[condition("u/other", Kind::NotDurable, Ripe::At(start()))]);
        assert_eq!(told(&edges.look(start(), &since, false)), [(Kind::NotDurable, false)]);
        assert_eq!(told(&edges.look(later(1), &seen(&[]), false)), []);
    }

    #[test]
    fn what_happens_again_and_again_is_told_once_an_hour() {
        let mut edges = Edges::default();
        let refused = |count| seen(&[condition("u/s", Kind::HandoverRefused, Ripe::Grown(count))]);
        assert_eq!(told(&edges.look(start(), &refused(1), false)), [(Kind::HandoverRefused, false)]);
        assert_eq!(told(&edges.look(later(10), &refused(1), false)), []);
        let again = edges.look(later(20), &refused(5), false);
        assert_eq!((told(&again), again.next), (vec![], Some(later(3600))));
        assert_eq!(told(&edges.look(later(3600), &refused(5), false)), [(Kind::HandoverRefused, false)]);
    }

    #[test]
    fn nothing_is_waited_for_at_the_end() {
        let mut edges = Edges::default();
        let held = seen(&[condition("u/s", Kind::Held, Ripe::After(Duration::from_secs(5)))]);
        assert_eq!(told(&edges.look(start(), &held, true)), [(Kind::Held, false)]);
        assert_eq!(told(&edges.look(later(1), &held, true)), [], "it was told");
    }

    #[test]
    fn a_storm_is_a_few_events_and_one_summary() {
        let mut edges = Edges::default();
        let all: Vec<_> = (0..100)
            .map(|n| condition(&format!("u/{n}"), Kind::Taken, Ripe::After(Duration::ZERO)))
            .collect();
        let look = edges.look(start(), &seen(&all), false);
        assert_eq!((look.events.len(), look.next), (MOST, Some(later(600))));
        let summary = edges.look(later(600), &seen(&all), false);
        assert_eq!(told(&summary), [(Kind::Suppressed, false)]);
        assert_eq!(summary.events[0].suppressed, BTreeMap::from([(Kind::Taken, 80)]));
    }
}
