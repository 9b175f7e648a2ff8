use proptest::prelude::*;

use super::*;

const ID: &str = "00000003-00000041-9f3c01ab";
const NEXT: &str = "00000003-00000042-1b20c7d9";

fn ids() -> impl Strategy<Value = Id> {
    // Small numbers as well, so that neighbours and equal epochs are common.
    let number = || prop_oneof![0..4_u32, 0..=MAX];
    let nonce = prop_oneof![0..4_u32, any::<u32>()];
    (number(), number(), nonce).prop_map(|(epoch, seq, nonce)| Id { epoch, seq, nonce })
}

fn commit_names() -> impl Strategy<Value = CommitName> {
    let part = (2..=MAX_PARTS).prop_flat_map(|of| (1..=of).prop_map(move |number| Part { number, of }));
    let fields =
        (ids(), proptest::option::of(ids()), any::<bool>(), proptest::option::of(part), any::<bool>());
    fields.prop_map(|(id, parent, base, part, encrypted)| {
        let parent = parent.filter(|parent| *parent < id);
        CommitName { id, parent, base: base || parent.is_none(), part, encrypted }
    })
}

fn names() -> impl Strategy<Value = Name> {
    prop_oneof![
        commit_names().prop_map(Name::Commit),
        (0..=MAX).prop_map(Name::Claim),
        "[a-f0-9-]{1,36}".prop_map(Name::Temporary),
        (ids(), "[a-z][a-z0-9-]{0,39}").prop_map(|(id, reason)| Name::Pin { id, reason }),
        (ids(), any::<u32>()).prop_map(|(id, seconds)| Name::Time { id, seconds }),
    ]
}

proptest! {
    #[test]
    fn a_printed_name_is_read_as_it_was(name in names()) {
        prop_assert_eq!(Name::parse(&name.to_string()), Some(name));
    }

    #[test]
    fn whatever_is_read_prints_as_it_was(text in "[0-9a-f.-]{8}-[0-9]{8}-[0-9a-f]{8}(\\.base)?(\\.p00[0-2]-of-00[0-3])?\\.tar\\.zst(\\.age)?") {
        if let Some(name) = Name::parse(&text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn names_sort_as_their_ids(a in commit_names(), b in commit_names()) {
        prop_assert_eq!(a.id.cmp(&b.id), a.id.to_string().cmp(&b.id.to_string()));
        if a.id != b.id {
            prop_assert_eq!(a.id.cmp(&b.id), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn any_text_is_a_name_or_not_but_no_panic(text in ".{0,80}") {
        let _ = Name::parse(&text);
    }
}

#[test]
fn the_names_of_the_design_are_read() {
    let (id, next): (Id, Id) = (ID.parse().unwrap(), NEXT.parse().unwrap());
    let plain = CommitName { id, parent: None, base: true, part: None, encrypted: false };
    assert_eq!(Name::parse(&format!("{ID}.base.tar.zst")), Some(Name::Commit(plain)));
    let delta = CommitName { id: next, parent: Some(id), base: false, ..plain };
    assert_eq!(Name::parse(&format!("{NEXT}.from.{ID}.tar.zst")), Some(Name::Commit(delta)));
    let part = delta.with_part(Some(Part { number: 1, of: 2 }));
    assert_eq!(Name::parse(&format!("{NEXT}.from.{ID}.p001-of-002.tar.zst")), Some(Name::Commit(part)));
    let base = CommitName { base: true, encrypted: true, ..delta };
    assert_eq!(Name::parse(&format!("{NEXT}.base.from.{ID}.tar.zst.age")), Some(Name::Commit(base)));
    assert_eq!(Name::parse("00000004.claim"), Some(Name::Claim(4)));
    assert_eq!(Name::parse(&format!("{ID}.pin.identity")), Some(Name::Pin { id, reason: "identity".into() }));
    let time = Name::Time { id, seconds: 1_790_000_000 };
    assert_eq!(Name::parse(&format!("{ID}.at.1790000000")), Some(time));
    assert_eq!(Name::parse(".claim-5f2c"), Some(Name::Temporary("5f2c".into())));
}

#[test]
fn what_no_version_writes_is_no_name() {
    for text in [
        String::new(),
        "creds.json".into(),
        "100000004.claim".into(),
        "4.claim".into(),
        "+0000004.claim".into(),
        ".claim-".into(),
        ".claim-a/b".into(),
        format!("{ID}.tar.zst"),
        format!("{ID}.base.tar"),
        format!("{ID}.pin."),
        format!("{ID}.at.179000000"),
        format!("{ID}.at.9999999999"),
        format!("{ID}.pin.Identity"),
        format!("{ID}.base.tar.zst.gz"),
        "000000003-00000041-9f3c01ab.base.tar.zst".into(),
        "00000003-00000041-9F3C01AB.base.tar.zst".into(),
        "00000003-+0000041-9f3c01ab.base.tar.zst".into(),
        format!("{ID}.base.p001-of-001.tar.zst"),
        format!("{ID}.base.p000-of-002.tar.zst"),
        format!("{ID}.base.p003-of-002.tar.zst"),
        format!("{ID}.base.p1-of-2.tar.zst"),
    ] {
        assert_eq!(Name::parse(&text), None, "{text}");
    }
}

#[test]
fn a_parent_that_is_not_older_is_no_name() {
    assert_eq!(Name::parse(&format!("{ID}.from.{ID}.tar.zst")), None);
    assert_eq!(Name::parse(&format!("{ID}.base.from.{NEXT}.tar.zst")), None);
}

#[test]
fn an_epoch_of_nine_digits_is_refused() {
    assert_eq!(Id::new(MAX + 1, 1, 0), None);
    assert_eq!(Id::new(1, MAX + 1, 0), None);
    assert!(Id::new(MAX, MAX, u32::MAX).is_some());
    assert!("100000000-00000001-00000000".parse::<Id>().is_err());
}

#[test]
fn claims_and_pins_stand_where_the_design_says() {
    let mut names = [
        ".claim-5f2c".to_owned(),
        format!("{ID}.base.tar.zst"),
        format!("{ID}.pin.identity"),
        "00000003.claim".into(),
        "00000004-00000001-00000000.base.tar.zst".into(),
        "00000004.claim".into(),
    ];
    let expected = names.clone();
    names.sort();
    assert_eq!(names, expected);
}
