use super::*;
use crate::history::testing::{id, key, object, time};

fn weight(base: u64, deltas: u32, delta_bytes: u64) -> ChainWeight {
    ChainWeight { deltas, delta_bytes, ..ChainWeight::based(base, Some(time(0))) }
}

#[test]
fn a_chain_whose_deltas_outweigh_its_base_needs_a_new_one() {
    assert_eq!(weight(2_000_000, 9, 2_000_000).needs_base(time(1)), None);
    assert_eq!(weight(2_000_000, 9, 2_000_001).needs_base(time(1)), Some(Why::Heavy));
    assert_eq!(weight(1000, 9, 1 << 20).needs_base(time(1)), None, "a small base may carry a mebibyte");
    assert_eq!(weight(1000, 9, (1 << 20) + 1).needs_base(time(1)), Some(Why::Heavy));
}

#[test]
fn a_chain_ends_after_256_deltas_and_on_a_large_base_after_1024() {
    assert_eq!(weight(8_000_000, 255, 0).needs_base(time(1)), None);
    assert_eq!(weight(8_000_000, 256, 0).needs_base(time(1)), Some(Why::Long));
    assert_eq!(weight(8_000_001, 1023, 0).needs_base(time(1)), None);
    assert_eq!(weight(8_000_001, 1024, 0).needs_base(time(1)), Some(Why::Long));
}

#[test]
fn a_base_serves_for_a_day() {
    assert_eq!(weight(1, 1, 1).needs_base(time(86_399)), None);
    assert_eq!(weight(1, 1, 1).needs_base(time(86_400)), Some(Why::Daily));
    let ageless = ChainWeight { base_at: None, ..weight(1, 1, 1) };
    assert_eq!(ageless.needs_base(time(1_000_000)), None, "what has no age does not force a base a commit");
}

#[test]
fn a_missing_link_forces_a_base_at_once() {
    let survey = Survey::of(&key(), &[object(&format!("{}.from.{}.tar.zst", id(1, 2), id(1, 1)), 0)]);
    assert_eq!(ChainWeight::of(&survey, id(1, 2)).needs_base(time(0)), Some(Why::Broken));
}

#[test]
fn a_listed_chain_weighs_what_its_objects_do() {
    let survey = Survey::of(
        &key(),
        &[
            object(&format!("{}.base.p001-of-002.tar.zst", id(1, 1)), 5),
            object(&format!("{}.base.p002-of-002.tar.zst", id(1, 1)), 7),
            object(&format!("{}.from.{}.tar.zst", id(1, 2), id(1, 1)), 9),
        ],
    );
    let mut expected = ChainWeight::based(200, Some(time(7)));
    expected.grow(100);
    assert_eq!(ChainWeight::of(&survey, id(1, 2)), expected);
}
