use super::*;
use crate::history::testing::{id, key, object};

fn judged(names: &[String], pending: &[Id]) -> Standing {
    let listing = Listing {
        objects: names.iter().map(|name| object(name, 0)).collect(),
        order: Some(Order::Descending),
        ..Listing::default()
    };
    standing(&listing, &key(), id(5, 10), &pending.iter().copied().collect())
}

fn delta(at: Id) -> String {
    format!("{at}.from.{}.tar.zst", id(1, 1))
}

fn claim(epoch: u32) -> String {
    format!("{epoch:08}.claim")
}

#[test]
fn our_claim_and_our_newest_commit_acknowledge_it() {
    assert_eq!(judged(&[claim(5), delta(id(5, 10))], &[]), Standing::Acknowledged);
    assert_eq!(judged(&[claim(5), format!("{}.pin.label", id(5, 10))], &[]), Standing::Acknowledged);
    assert_eq!(judged(&[delta(id(5, 10)), delta(id(5, 9))], &[]), Standing::Acknowledged);
}

#[test]
fn a_part_of_our_newest_commit_acknowledges_it() {
    let part = format!("{}.from.{}.p002-of-002.tar.zst", id(5, 10), id(5, 9));
    assert_eq!(judged(&[claim(5), part], &[]), Standing::Acknowledged);
}

#[test]
fn a_higher_epoch_takes_the_session_whatever_speaks_of_it() {
    for name in [
        claim(6),
        delta(id(6, 1)),
        format!("{}.pin.rewind", id(6, 1)),
        format!("{}.base.p001-of-009.tar.zst", id(6, 1)),
    ] {
        assert_eq!(judged(&[name, claim(5)], &[]), Standing::Taken { epoch: 6 });
    }
    assert_eq!(judged(&[claim(7), claim(6)], &[]), Standing::Taken { epoch: 7 });
}

#[test]
fn an_id_of_our_epoch_that_we_did_not_write_takes_the_session() {
    assert_eq!(judged(&[claim(5), delta(id(5, 11))], &[]), Standing::Taken { epoch: 5 });
    assert_eq!(
        judged(&[claim(5), delta(id(5, 11))], &[id(5, 11)]),
        Standing::Acknowledged,
        "our own late attempt"
    );
}

#[test]
fn a_list_without_our_newest_commit_proves_nothing() {
    assert_eq!(judged(&[], &[]), Standing::Unclear);
    assert_eq!(judged(&[claim(5), delta(id(5, 9))], &[]), Standing::Unclear);
    assert_eq!(judged(&[delta(id(4, 99)), claim(4)], &[]), Standing::Unclear);
    assert_eq!(judged(&["zzz".into(), "claim-1".into()], &[]), Standing::Unclear);
    assert_eq!(judged(&[claim(5), ".claim-1".into()], &[]), Standing::Unclear);
}

#[test]
fn only_bad_news_is_taken_from_a_list_whose_order_is_not_proven() {
    for order in [None, Some(Order::Ascending)] {
        let listing = |name: String| Listing { objects: vec![object(&name, 0)], order, ..Listing::default() };
        let none = BTreeSet::new();
        let ours = standing(&listing(delta(id(5, 10))), &key(), id(5, 10), &none);
        assert_eq!(ours, Standing::Unclear);
        let theirs = standing(&listing(claim(6)), &key(), id(5, 10), &none);
        assert_eq!(theirs, Standing::Taken { epoch: 6 });
    }
}
