use proptest::prelude::*;

use super::*;
use crate::history::name::Name;
use crate::history::testing::{id, key, object, time};

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Midnight in UTC, so that slots begin here.
const MIDNIGHT: i64 = DAY_S - 1_790_000_000 % DAY_S;

fn policy(epoch: u32) -> Policy {
    Policy {
        epoch,
        history_keep: SignedDuration::from_hours(7 * 24),
        pin_keep: SignedDuration::from_hours(30 * 24),
    }
}

fn base(at: Id) -> String {
    format!("{at}.base.tar.zst")
}

fn delta(at: Id, parent: Id) -> String {
    format!("{at}.from.{parent}.tar.zst")
}

fn survey(objects: &[Object]) -> Survey {
    Survey { complete: true, ..Survey::of(&key(), objects) }
}

/// Names that go.
fn deleted(objects: &[Object], now: i64, policy: &Policy) -> Vec<String> {
    let plan = plan(&survey(objects), time(now), policy);
    plan.delete.iter().map(|name| name.strip_prefix(&key().history_prefix()).unwrap().to_owned()).collect()
}

/// A head that is a base of its own, so that what else is listed stands for itself; two, as two are kept.
fn heads(now: i64) -> Vec<Object> {
    vec![object(&base(id(9, 1)), now), object(&base(id(9, 2)), now)]
}

fn with_heads(objects: &[(String, i64)], now: i64) -> Vec<Object> {
    let objects = objects.iter().map(|(name, at)| object(name, *at));
    objects.chain(heads(now)).collect()
}

#[test]
fn a_chain_of_the_head_stays_however_old_it_is() {
    let mut objects = vec![object(&base(id(1, 1)), 0)];
    objects.extend((2..50).map(|seq| object(&delta(id(1, seq), id(1, seq - 1)), i64::from(seq))));
    assert_eq!(deleted(&objects, 400 * DAY_S, &policy(1)), [""; 0]);
}

#[test]
fn everything_of_the_last_hour_stays_with_what_it_needs() {
    let now = 10 * DAY_S;
    let objects = with_heads(
        &[
            (base(id(1, 1)), 0),
            (delta(id(1, 2), id(1, 1)), 1),
            (delta(id(1, 3), id(1, 2)), now - HOUR_S),
            (delta(id(1, 4), id(1, 3)), 3),
        ],
        now,
    );
    assert_eq!(deleted(&objects, now, &policy(9)), [delta(id(1, 4), id(1, 3))]);
    assert_eq!(deleted(&objects, now + 1, &policy(9)).len(), 1, "a second of slack");
    assert_eq!(deleted(&objects, now + 2, &policy(9)).len(), 4);
    assert_eq!(
        deleted(&objects, now - 10 * DAY_S, &policy(9)).len(),
        0,
        "our clock behind: everything is young"
    );
}

#[test]
fn bases_thin_out_to_one_in_six_hours_and_then_to_one_a_day() {
    // A base every hour for ten days; the two at the end are the newest.
    let first = MIDNIGHT;
    let hourly = (1..=10 * 24_u32).map(|seq| object(&base(id(1, seq)), first + i64::from(seq - 1) * HOUR_S));
    let objects: Vec<Object> = hourly.collect();
    let now = first + 239 * HOUR_S + 60;
    let plan = plan(&survey(&objects), time(now), &policy(1));
    let kept: Vec<i64> = plan.keep.iter().map(|id| i64::from(id.seq) - 1).collect();
    // The last hour of each day of the last 7, of each quarter of the last, the two newest.
    let days: Vec<i64> =
        (3..10).map(|day| day * 24 - 1).filter(|hour| now - first - hour * HOUR_S <= 7 * DAY_S).collect();
    let expected: BTreeSet<i64> = days.into_iter().chain([221, 227, 233, 239, 238]).collect();
    assert_eq!(kept, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(plan.delete.len() + kept.len(), objects.len());
    assert_eq!(plan.newest_base, Some(id(1, 240)));
}

#[test]
fn thinning_again_and_again_keeps_a_base_of_every_day() {
    // Hourly bases, hourly retention: slots that moved along with now would lose the days one by one.
    let mut objects: Vec<Object> = Vec::new();
    let mut now = MIDNIGHT;
    for hour in 0..24 * 9_u32 {
        now = MIDNIGHT + i64::from(hour) * HOUR_S;
        objects.push(object(&base(id(1, 1 + hour)), now));
        let gone: BTreeSet<String> =
            plan(&survey(&objects), time(now), &policy(1)).delete.into_iter().collect();
        objects.retain(|object| !gone.contains(&object.key));
    }
    let days: BTreeSet<i64> =
        objects.iter().map(|object| object.created_at.unwrap().as_second().div_euclid(DAY_S)).collect();
    assert!(days.len() >= 8, "{days:?}");
    assert!(objects.len() <= 8 + 5 + 3, "{}", objects.len());
    assert!(now > MIDNIGHT);
}

#[test]
fn the_two_newest_bases_stay_and_a_stray_one_does_not_push_them_out() {
    let now = 100 * DAY_S;
    let objects = [
        object(&base(id(1, 1)), 0),
        object(&delta(id(1, 2), id(1, 1)), 1),
        object(&format!("{}.base.from.{}.tar.zst", id(1, 3), id(1, 2)), 2),
        object(&format!("{}.base.from.{}.tar.zst", id(1, 4), id(1, 3)), 3),
        // Uploads of the old epoch that landed after the seal.
        object(&base(id(1, 5)), 4),
        object(&base(id(1, 6)), 5),
        object(&delta(id(2, 1), id(1, 4)), 6),
    ];
    let gone = deleted(&objects, now, &policy(2));
    assert_eq!(gone, [base(id(1, 1)), delta(id(1, 2), id(1, 1))]);
}

#[test]
fn orphans_incomplete_parts_and_old_claims_go() {
    let now = 10 * DAY_S;
    let part = format!("{}.from.{}.p001-of-002.tar.zst", id(1, 8), id(1, 7));
    let young = format!("{}.from.{}.p001-of-002.tar.zst", id(9, 3), id(9, 2));
    let objects = with_heads(
        &[
            (delta(id(1, 3), id(1, 2)), 3),
            (part.clone(), 5),
            (young.clone(), now - 60),
            ("00000001.claim".into(), 0),
            ("00000009.claim".into(), now),
            (".claim-old".into(), 0),
            (".claim-new".into(), now - 60),
            ("notes.txt".into(), 0),
        ],
        now,
    );
    let gone = deleted(&objects, now, &policy(9));
    assert_eq!(gone, [delta(id(1, 3), id(1, 2)), part, "00000001.claim".into(), ".claim-old".into()]);
}

#[test]
fn our_own_claim_stays_also_when_it_is_not_the_newest() {
    let now = 10 * DAY_S;
    let objects = with_heads(
        &[("00000008.claim".into(), 0), ("00000009.claim".into(), 0), ("00000007.claim".into(), 0)],
        now,
    );
    assert_eq!(deleted(&objects, now, &policy(8)), ["00000007.claim"]);
}

#[test]
fn nothing_of_a_higher_epoch_goes_nor_what_it_needs() {
    let now = 10 * DAY_S;
    let objects = with_heads(
        &[
            (base(id(1, 1)), 0),
            (delta(id(7, 1), id(1, 1)), 1),
            (format!("{}.from.{}.p001-of-002.tar.zst", id(7, 2), id(7, 1)), 1),
            (base(id(2, 1)), 1),
        ],
        now,
    );
    assert_eq!(deleted(&objects, now, &policy(6)), [base(id(2, 1))]);
}

#[test]
fn pins_keep_what_they_need_until_they_end_and_identity_pins_by_number() {
    let now = 100 * DAY_S;
    let pin = |seq: u32, reason: &str| format!("{}.pin.{reason}", id(1, seq));
    let mut objects = vec![
        (base(id(1, 1)), 0),
        (delta(id(1, 2), id(1, 1)), 0),
        (pin(2, "identity"), 0),
        (base(id(1, 3)), 0),
        (pin(3, "label"), now - 30 * DAY_S),
        (base(id(1, 4)), 0),
        (pin(4, "label"), now - 31 * DAY_S),
    ];
    let gone = deleted(&with_heads(&objects, now), now, &policy(9));
    assert_eq!(gone, [base(id(1, 4)), pin(4, "label")]);
    // Ten newer identity pins end the oldest.
    for seq in 10..20 {
        objects.push((base(id(1, seq)), 0));
        objects.push((pin(seq, "identity"), 0));
    }
    let gone = deleted(&with_heads(&objects, now), now, &policy(9));
    let expected =
        [base(id(1, 1)), delta(id(1, 2), id(1, 1)), base(id(1, 4)), pin(2, "identity"), pin(4, "label")];
    assert_eq!(gone, expected);
    // Pins on commits that are not there push nothing out.
    objects.truncate(7);
    objects.extend((10..20).map(|seq| (pin(seq, "identity"), 0)));
    let gone = deleted(&with_heads(&objects, now), now, &policy(9));
    assert!(!gone.contains(&base(id(1, 1))), "{gone:?}");
}

#[test]
fn what_has_no_age_stays_with_what_it_needs() {
    let now = 100 * DAY_S;
    let mut objects =
        with_heads(&[(base(id(1, 1)), 0), (delta(id(1, 2), id(1, 1)), 0), (".claim-x".into(), 0)], now);
    objects[1].created_at = None;
    objects[2].created_at = None;
    assert_eq!(deleted(&objects, now, &policy(9)), [""; 0]);
}

#[test]
fn a_list_that_was_not_read_to_its_end_deletes_nothing() {
    let objects = with_heads(&[(base(id(1, 1)), 0)], 100 * DAY_S);
    let partial = Survey { complete: false, ..survey(&objects) };
    let plan = plan(&partial, time(100 * DAY_S), &policy(9));
    assert_eq!(plan.delete, [""; 0]);
    assert_eq!(plan.keep.len(), 3);
}

#[test]
fn a_deleted_session_leaves_its_tombstone_and_what_pins_need() {
    let now = 10 * DAY_S;
    let objects = with_heads(
        &[
            (base(id(1, 1)), 0),
            (delta(id(1, 2), id(1, 1)), now),
            (format!("{}.pin.delete", id(1, 2)), now),
            (delta(id(1, 3), id(1, 2)), now),
            (format!("{}.from.{}.p001-of-002.tar.zst", id(1, 4), id(1, 3)), now),
            (".claim-new".into(), now),
        ],
        now,
    );
    let survey = survey(&objects);
    let kept = erasure(&survey, time(now), 9, false);
    assert_eq!(kept.keep.iter().copied().collect::<Vec<_>>(), [id(1, 1), id(1, 2), id(9, 2)]);
    assert_eq!(kept.delete.len(), 3, "{:?}", kept.delete);
    let purged = erasure(&survey, time(now), 9, true);
    assert_eq!(purged.keep.iter().copied().collect::<Vec<_>>(), [id(9, 2)]);
    assert_eq!(purged.delete.len(), 6, "{:?}", purged.delete);
    assert!(erasure(&survey, time(now), 0, true).delete.is_empty());
}

/// What happens to a history between two cleanings.
#[derive(Debug, Clone)]
enum Event {
    Delta,
    Base,
    /// A new epoch, sealed on the head or on a fork some commits back.
    Seal,
    /// An older epoch's upload lands late, built on some older commit.
    Late {
        back: usize,
        base: bool,
    },
    Part,
    Pin {
        back: usize,
        identity: bool,
    },
    NoAge,
    Wait(i64),
    Clean,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Delta),
        2 => Just(Event::Base),
        1 => Just(Event::Seal),
        1 => (0..12_usize, any::<bool>()).prop_map(|(back, base)| Event::Late { back, base }),
        1 => Just(Event::Part),
        2 => (0..12_usize, any::<bool>()).prop_map(|(back, identity)| Event::Pin { back, identity }),
        1 => Just(Event::NoAge),
        4 => prop_oneof![1..600_i64, HOUR_S..DAY_S, DAY_S..20 * DAY_S].prop_map(Event::Wait),
        2 => Just(Event::Clean),
    ];
    proptest::collection::vec(event, 1..80)
}

/// A history that grows and is cleaned.
#[derive(Default)]
struct World {
    objects: Vec<Object>,
    written: Vec<Id>,
    head: Option<Id>,
    epoch: u32,
    seq: u32,
    now: i64,
    ageless: bool,
}

impl World {
    fn add(&mut self, name: &str) {
        let mut object = object(name, self.now);
        if std::mem::take(&mut self.ageless) {
            object.created_at = None;
        }
        // A name is there once.
        if self.objects.iter().all(|other| other.key != object.key) {
            self.objects.push(object);
        }
    }

    fn write(&mut self, parent: Option<Id>, epoch: u32, base: bool) -> Id {
        self.seq += 1;
        let id = id(epoch, self.seq);
        let name = match parent {
            Some(parent) if base => format!("{id}.base.from.{parent}.tar.zst"),
            Some(parent) => delta(id, parent),
            None => super::tests::base(id),
        };
        self.add(&name);
        self.written.push(id);
        id
    }

    fn back(&self, back: usize) -> Option<Id> {
        self.written.iter().rev().nth(back).copied()
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Delta | Event::Base => {
                let base = matches!(event, Event::Base) || self.head.is_none();
                self.head = Some(self.write(self.head, self.epoch, base));
            }
            Event::Seal => {
                self.epoch += 1;
                self.add(&format!("{:08}.claim", self.epoch));
                self.head = Some(self.write(self.head, self.epoch, self.head.is_none()));
            }
            Event::Late { back, base } => {
                let parent = self.back(*back).filter(|parent| parent.epoch < self.epoch);
                if let Some(parent) = parent {
                    self.write(Some(parent), parent.epoch, *base);
                }
            }
            Event::Part => {
                self.seq += 1;
                let id = id(self.epoch, self.seq);
                let parent = self.head.unwrap_or(Id { epoch: 0, seq: 0, nonce: 0 });
                self.add(&format!("{id}.from.{parent}.p001-of-002.tar.zst"));
            }
            Event::Pin { back, identity } => {
                if let Some(id) = self.back(*back) {
                    self.add(&format!("{id}.pin.{}", if *identity { "identity" } else { "label" }));
                }
            }
            Event::NoAge => self.ageless = true,
            Event::Wait(seconds) => self.now += seconds,
            Event::Clean => {}
        }
    }

    fn chain_is_whole(survey: &Survey, id: Id) -> bool {
        survey.chain(id).is_ok()
    }

    /// Cleans under an epoch and checks all that P6 promises.
    fn clean(&mut self, epoch: u32) -> Result<(), TestCaseError> {
        let before = survey(&self.objects);
        let plan = plan(&before, time(self.now), &policy(epoch));
        let gone: BTreeSet<&str> = plan.delete.iter().map(String::as_str).collect();
        prop_assert_eq!(gone.len(), plan.delete.len(), "nothing is named twice");
        self.objects.retain(|object| !gone.contains(object.key.as_str()));
        let after = survey(&self.objects);

        let prefix = key().history_prefix();
        for name in gone.iter().map(|key| Name::parse(key.strip_prefix(&prefix).unwrap()).unwrap()) {
            prop_assert!(name.epoch().is_none_or(|of| of <= epoch), "{name} is of a higher epoch");
            prop_assert!(name != Name::Claim(epoch), "our own claim");
        }
        prop_assert_eq!(after.head(), before.head());
        prop_assert_eq!(after.newest_epoch(), before.newest_epoch());
        let recent = before.commits.iter().filter(|(_, listed)| {
            listed.created_at().is_none_or(|at| time(self.now).duration_since(at) <= HOUR)
        });
        let mut identity: Vec<Id> = before
            .pins
            .iter()
            .filter(|pin| pin.reason == IDENTITY && before.commits.contains_key(&pin.id))
            .map(|pin| pin.id)
            .collect();
        identity.sort();
        let pinned = before.pins.iter().filter(|pin| {
            let age = pin.object.created_at.map(|at| time(self.now).duration_since(at));
            age.is_none_or(|age| age <= policy(epoch).pin_keep)
        });
        let kept = before
            .head()
            .into_iter()
            .chain(bases(&before).rev().take(2).map(|(id, _)| *id))
            .chain(recent.map(|(id, _)| *id))
            .chain(pinned.map(|pin| pin.id))
            .chain(identity.into_iter().rev().take(10))
            .chain(before.commits.keys().copied().filter(|id| id.epoch > epoch));
        for id in kept {
            // A pin may have been written on a commit that is long gone.
            if Self::chain_is_whole(&before, id) {
                prop_assert!(Self::chain_is_whole(&after, id), "{id} cannot be restored any more");
            }
        }
        prop_assert!(self.head.is_none_or(|head| Self::chain_is_whole(&after, head)), "the head");
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_a_kept_point_needs_is_never_deleted(events in events(), lower in any::<bool>()) {
        let mut world = World { epoch: 1, ..World::default() };
        world.add("00000001.claim");
        for event in &events {
            world.step(event);
            if matches!(event, Event::Clean) {
                // Also by one who lost the session without knowing it.
                let epoch = if lower { world.epoch - 1 } else { world.epoch };
                world.clean(epoch)?;
            }
        }
        world.now += 365 * DAY_S;
        world.clean(world.epoch)?;
        let survey = survey(&world.objects);
        prop_assert!(world.head.is_none_or(|head| World::chain_is_whole(&survey, head)));
    }
}

#[test]
fn the_note_of_an_age_goes_with_its_commit_and_counts_for_its_slot() {
    let now = 20 * DAY_S;
    let note = |seq: u32, at: i64| format!("{}.at.{}", id(1, seq), time(at).as_second());
    let sealed = |seq: u32| format!("{}.age", base(id(1, seq)));
    // All were encrypted two hours ago: of two days within a week, one too old, and one that is not there yet.
    let at = now - 2 * HOUR_S;
    let objects = with_heads(
        &[
            (sealed(1), at),
            (note(1, 1), at),
            (sealed(2), at),
            (note(2, now - 3 * DAY_S), at),
            (sealed(3), at),
            (note(3, now - 2 * DAY_S), at),
            (note(4, 5), now - 60),
        ],
        now,
    );
    assert_eq!(deleted(&objects, now, &policy(9)), [sealed(1), note(1, 1)]);
}
