//! What of a history may go: a pure plan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::name::Id;
use super::survey::{Listed, Survey};
use crate::store::Object;

/// `Date` has whole seconds, and the hosts of database and API need not agree to one.
const SLACK: SignedDuration = SignedDuration::from_secs(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Pins with this reason are kept by number.
pub const IDENTITY: &str = "identity";
const IDENTITY_PINS: usize = 10;
const NEWEST_BASES: usize = 2;

/// What is kept beyond what must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The epoch under which we clean; nothing of a higher one is touched, and never its own claim.
    pub epoch: u32,
    /// For how long the newest base of each day is kept.
    pub history_keep: SignedDuration,
    /// For how long a pin is kept, but for the newest identity pins.
    pub pin_keep: SignedDuration,
}

/// What to delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Full keys: commits first, oldest first.
    pub delete: Vec<String>,
    /// The commits that stay.
    pub keep: BTreeSet<Id>,
    /// The newest base: to be read back and verified once a day.
    pub newest_base: Option<Id>,
}

/// Plans a cleaning. `now` is the server's clock, [`Survey::date`]; the survey has all pages, or nothing goes. // P6
///
/// Kept: the head; everything of the last hour; the newest base of each 6 hours for a day and of each day for
/// `history_keep`; the two newest bases; pins; whatever has no age or a higher epoch; and what any of these needs.
#[must_use]
pub fn plan(survey: &Survey, now: Timestamp, policy: &Policy) -> Plan {
    let clock = Clock { now };
    let pins = kept_pins(survey, clock, policy);
    let mut roots = pinned(survey, &pins);
    roots.extend(survey.head());
    roots.extend(newest_bases(survey));
    roots.extend(spaced_bases(survey, clock, policy));
    roots.extend(survey.commits.iter().filter_map(|(id, listed)| {
        let recent = !clock.is_past(listed.created_at(), HOUR);
        (recent || id.epoch > policy.epoch).then_some(*id)
    }));
    finish(survey, clock, Limits { epoch: policy.epoch, parts: HOUR }, &roots, &pins)
}

/// Plans what `delete` removes once its tombstone is the acknowledged head: all but the head, what pins need, and
/// what is of a higher epoch; with `purge` the pins too. Young objects go as well.
#[must_use]
pub fn erasure(survey: &Survey, now: Timestamp, epoch: u32, purge: bool) -> Plan {
    let pins = if purge { BTreeSet::new() } else { survey.pins.iter().map(|pin| &*pin.object.key).collect() };
    let mut roots = pinned(survey, &pins);
    roots.extend(survey.head());
    roots.extend(survey.commits.keys().filter(|id| id.epoch > epoch));
    finish(survey, Clock { now }, Limits { epoch, parts: SignedDuration::MIN }, &roots, &pins)
}

/// What bounds a cleaning: the highest epoch it touches, and how old an incomplete commit must be.
#[derive(Clone, Copy)]
struct Limits {
    epoch: u32,
    parts: SignedDuration,
}

fn finish(
    survey: &Survey,
    clock: Clock,
    limits: Limits,
    roots: &BTreeSet<Id>,
    pins: &BTreeSet<&str>,
) -> Plan {
    let newest_base = bases(survey).next_back().map(|(id, _)| *id);
    let keep = needed(survey, roots);
    let mut plan = Plan { delete: Vec::new(), keep, newest_base };
    if !survey.complete {
        plan.keep = survey.commits.keys().copied().collect();
        return plan;
    }
    let ours = |epoch: u32| epoch <= limits.epoch;
    let newest_claim = survey.claims.keys().next_back();

    let commits = survey.commits.iter().filter(|(id, _)| ours(id.epoch) && !plan.keep.contains(id));
    let commits = commits.flat_map(|(_, listed)| listed.all_objects());
    let parts = survey
        .incomplete
        .iter()
        .filter(|(name, object)| ours(name.id.epoch) && clock.is_past(object.created_at, limits.parts));
    let claims = survey.claims.iter().filter(|(epoch, object)| {
        let needed = Some(*epoch) == newest_claim || **epoch == limits.epoch;
        ours(**epoch) && !needed && object.created_at.is_some()
    });
    let expired = survey.pins.iter().filter(|pin| ours(pin.id.epoch) && !pins.contains(&*pin.object.key));
    // Goes with its commit; of one that is not listed, it may be ahead of it.
    let times = survey.times.iter().filter(|(id, object)| {
        let gone = !survey.commits.contains_key(id) && clock.is_past(object.created_at, limits.parts);
        ours(id.epoch) && !plan.keep.contains(id) && (gone || survey.commits.contains_key(id))
    });
    let temporaries = survey.temporaries.iter().filter(|object| clock.is_past(object.created_at, HOUR));

    let objects = commits
        .chain(parts.map(|(_, object)| object))
        .chain(claims.map(|(_, object)| object))
        .chain(expired.map(|pin| &pin.object))
        .chain(times.map(|(_, object)| object))
        .chain(temporaries);
    plan.delete = objects.map(|object: &Object| object.key.clone()).collect();
    plan
}

/// Ages by the server's clock.
#[derive(Clone, Copy)]
struct Clock {
    now: Timestamp,
}

impl Clock {
    /// Whether something is certainly older than this; what has no age never is.
    fn is_past(self, created_at: Option<Timestamp>, age: SignedDuration) -> bool {
        created_at.is_some_and(|at| self.now.duration_since(at) > age.saturating_add(SLACK))
    }
}

/// The roots and all that they need: parents down to the base, as far as they are listed.
fn needed(survey: &Survey, roots: &BTreeSet<Id>) -> BTreeSet<Id> {
    let mut needed = BTreeSet::new();
    for root in roots {
        let mut at = Some(*root);
        // Where a chain was walked before, the rest of it was too.
        while let Some(listed) = at.filter(|id| !needed.contains(id)).and_then(|id| survey.commits.get(&id)) {
            needed.insert(listed.name.id);
            // Which of two objects is the true one cannot be told: the parent in the name is followed all the same.
            at = listed.name.parent.filter(|_| !listed.name.base);
        }
    }
    needed
}

fn bases(survey: &Survey) -> impl DoubleEndedIterator<Item = (&Id, &Listed)> {
    survey.commits.iter().filter(|(_, listed)| listed.name.base)
}

/// The two newest bases of all, and the two newest that the head descends from: a base that somebody's late upload
/// left behind must not push out one that is needed.
fn newest_bases(survey: &Survey) -> BTreeSet<Id> {
    let line = line(survey);
    let all = bases(survey).rev().take(NEWEST_BASES);
    let own = bases(survey).rev().filter(|(id, _)| line.contains(id)).take(NEWEST_BASES);
    all.chain(own).map(|(id, _)| *id).collect()
}

/// The head and its ancestors, through bases, as far as they are listed.
fn line(survey: &Survey) -> BTreeSet<Id> {
    let parent = |id: &Id| survey.commits.get(id).and_then(|listed| listed.name.parent);
    std::iter::successors(survey.head(), parent).filter(|id| survey.commits.contains_key(id)).collect()
}

/// The newest base of each slot of time. Slots are those of the calendar, so that what was the newest of its slot
/// stays it until it is too old: slots that moved along with now would lose bases one by one.
fn spaced_bases(survey: &Survey, clock: Clock, policy: &Policy) -> BTreeSet<Id> {
    let line = line(survey);
    let mut newest: BTreeMap<(i64, i64, bool), Id> = BTreeMap::new();
    for (id, listed) in bases(survey) {
        let Some(at) = listed.created_at() else { continue };
        for (slot, age) in [(6 * 3600, DAY), (24 * 3600, policy.history_keep)] {
            if !clock.is_past(Some(at), age) {
                let number = at.as_second().div_euclid(slot);
                newest.insert((slot, number, false), *id);
                if line.contains(id) {
                    newest.insert((slot, number, true), *id);
                }
            }
        }
    }
    newest.into_values().collect()
}

/// Keys of the pins that stay.
fn kept_pins<'a>(survey: &'a Survey, clock: Clock, policy: &Policy) -> BTreeSet<&'a str> {
    let mut identity: Vec<_> = survey
        .pins
        .iter()
        .filter(|pin| pin.reason == IDENTITY && survey.commits.contains_key(&pin.id))
        .collect();
    identity.sort_by_key(|pin| std::cmp::Reverse(pin.id));
    let young = survey.pins.iter().filter(|pin| !clock.is_past(pin.object.created_at, policy.pin_keep));
    let higher = survey.pins.iter().filter(|pin| pin.id.epoch > policy.epoch);
    let kept = identity.into_iter().take(IDENTITY_PINS).chain(young).chain(higher);
    kept.map(|pin| pin.object.key.as_str()).collect()
}

fn pinned(survey: &Survey, pins: &BTreeSet<&str>) -> BTreeSet<Id> {
    survey.pins.iter().filter(|pin| pins.contains(&*pin.object.key)).map(|pin| pin.id).collect()
}

#[cfg(test)]
mod tests;
