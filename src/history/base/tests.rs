use super::*;
use crate::history::testing::{id, key, object, time};

fn weight(base: u64, deltas: u32, delta_bytes: u64) -> ChainWeight {
    ChainWeight { deltas, delta_bytes, ..ChainWeight::based(base, Instant::now()) }
}

/// Why the next commit is a base, right after that weight was taken.
fn why(base: u64, deltas: u32, delta_bytes: u64) -> Option<Why> {
    weight(base, deltas, delta_bytes).needs_base(Instant::now())
}

#[test]
fn a_chain_whose_deltas_outweigh_its_base_needs_a_new_one() {
    assert_eq!(why(2_000_000, 9, 2_000_000), None);
    assert_eq!(why(2_000_000, 9, 2_000_001), Some(Why::Heavy));
    assert_eq!(why(1000, 9, 1 << 20), None, "a small base may carry a mebibyte");
    assert_eq!(why(1000, 9, (1 << 20) + 1), Some(Why::Heavy));
}

#[test]
fn a_chain_ends_after_256_deltas_and_on_a_large_base_after_1024() {
    assert_eq!(why(8_000_000, 255, 0), None);
    assert_eq!(why(8_000_000, 256, 0), Some(Why::Long));
    assert_eq!(why(8_000_001, 1023, 0), None);
    assert_eq!(why(8_000_001, 1024, 0), Some(Why::Long));
}

#[test]
fn a_base_serves_for_a_day_by_the_servers_clock_wherever_it_began() {
    let now = Instant::now();
    let listed = |age: i64, date: Option<i64>| {
        let survey = Survey::of(&key(), &[object(&format!("{}.base.tar.zst", id(1, 1)), -age)]);
        ChainWeight::of(&Survey { date: date.map(time), ..survey }, id(1, 1), now)
    };
    let hour = Duration::from_hours(1);
    let young = listed(3600, Some(0));
    assert_eq!(young.needs_base(now + 23 * hour - Duration::from_secs(1)), None);
    assert_eq!(young.needs_base(now + 23 * hour), Some(Why::Daily));
    assert_eq!(listed(86_400, Some(0)).needs_base(now), Some(Why::Daily));
    assert_eq!(listed(-5, Some(0)), ChainWeight::based(100, now), "clocks of one server need not agree");
    let ageless = listed(86_400, None);
    assert_eq!(ageless.needs_base(now + 99 * hour), None, "what has no age does not force a base a commit");
}

#[test]
fn a_missing_link_forces_a_base_at_once() {
    let survey = Survey::of(&key(), &[object(&format!("{}.from.{}.tar.zst", id(1, 2), id(1, 1)), 0)]);
    assert_eq!(
        ChainWeight::of(&survey, id(1, 2), Instant::now()).needs_base(Instant::now()),
        Some(Why::Broken)
    );
}

#[test]
fn a_listed_chain_weighs_what_its_objects_do() {
    let mut survey = Survey::of(
        &key(),
        &[
            object(&format!("{}.base.p001-of-002.tar.zst", id(1, 1)), 5),
            object(&format!("{}.base.p002-of-002.tar.zst", id(1, 1)), 7),
            object(&format!("{}.from.{}.tar.zst", id(1, 2), id(1, 1)), 9),
        ],
    );
    survey.date = Some(time(7));
    let now = Instant::now();
    let mut expected = ChainWeight::based(200, now);
    expected.grow(100);
    assert_eq!(ChainWeight::of(&survey, id(1, 2), now), expected);
}
