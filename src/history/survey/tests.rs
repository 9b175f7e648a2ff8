use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::history::testing::{id, key, memory, object, time};
use crate::store::{Bucket, Fault, Faulty, Info, Memory, Put, Sink, rules};

fn delta(epoch: u32, seq: u32, parent: Id) -> String {
    format!("{}.from.{parent}.tar.zst", id(epoch, seq))
}

fn of(names: &[String]) -> Survey {
    let objects: Vec<Object> = names.iter().map(|name| object(name, 0)).collect();
    Survey::of(&key(), &objects)
}

fn plant(memory: &Memory, name: &str) {
    memory.plant(&format!("{}{name}", key().history_prefix()), "x", time(0));
}

/// A base and so many deltas.
fn plant_chain(memory: &Memory, epoch: u32, first: u32, deltas: u32) {
    plant(memory, &format!("{}.base.tar.zst", id(epoch, first)));
    for seq in first + 1..=first + deltas {
        plant(memory, &delta(epoch, seq, id(epoch, seq - 1)));
    }
}

#[test]
fn a_head_is_the_newest_commit_and_its_chain_ends_at_a_base() {
    let survey = of(&[
        format!("{}.base.tar.zst", id(1, 1)),
        delta(1, 2, id(1, 1)),
        format!("{}.base.from.{}.tar.zst", id(1, 3), id(1, 2)),
        delta(2, 1, id(1, 3)),
        "00000002.claim".into(),
        format!("{}.pin.identity", id(1, 2)),
        ".claim-abc".into(),
        "notes.txt".into(),
    ]);
    assert_eq!(survey.head(), Some(id(2, 1)));
    assert_eq!(survey.chain(id(2, 1)).unwrap(), [id(1, 3), id(2, 1)]);
    assert_eq!(survey.chain(id(1, 2)).unwrap(), [id(1, 1), id(1, 2)]);
    assert_eq!(survey.in_epoch(1).count(), 3);
    assert_eq!((survey.pins.len(), survey.temporaries.len(), survey.unknown), (1, 1, 1));
    assert_eq!(survey.newest_epoch(), 2);
}

#[test]
fn a_missing_link_is_named() {
    let survey = of(&[format!("{}.base.tar.zst", id(1, 1)), delta(1, 3, id(1, 2))]);
    let error = survey.chain(id(1, 3)).unwrap_err();
    assert!(matches!(error, HistoryError::Missing { id: missing } if missing == id(1, 2)), "{error}");
    assert!(matches!(survey.chain(id(9, 9)), Err(HistoryError::Missing { .. })));
}

#[test]
fn a_commit_with_a_missing_part_does_not_exist() {
    let part =
        |number: u32, of: u32| format!("{}.from.{}.p{number:03}-of-{of:03}.tar.zst", id(2, 2), id(1, 1));
    let base = format!("{}.base.tar.zst", id(1, 1));
    let survey = of(&[base.clone(), part(2, 2)]);
    assert_eq!(survey.head(), Some(id(1, 1)));
    assert_eq!(survey.incomplete.len(), 1);
    assert_eq!(survey.newest_epoch(), 2, "whoever wrote the part had that epoch");
    assert_eq!(survey.in_epoch(2).collect::<Vec<_>>(), [id(2, 2)]);
    let survey = of(&[base.clone(), part(2, 2), part(1, 2)]);
    assert_eq!(survey.head(), Some(id(2, 2)));
    let keys: Vec<&str> = survey.commits[&id(2, 2)].objects.iter().map(|object| &*object.key).collect();
    assert!(keys[0].contains("p001") && keys[1].contains("p002"), "{keys:?}");
    // Parts of two ways to split are not one commit.
    let survey = of(&[base, part(1, 2), part(2, 3), part(3, 3)]);
    assert_eq!(survey.head(), Some(id(1, 1)));
    assert_eq!(survey.incomplete.len(), 3);
}

#[test]
fn an_id_that_two_objects_claim_cannot_be_believed() {
    let survey = of(&[
        format!("{}.base.tar.zst", id(1, 1)),
        format!("{}.base.tar.zst", id(1, 2)),
        delta(1, 2, id(1, 1)),
    ]);
    assert_eq!(survey.head(), Some(id(1, 2)));
    assert!(matches!(survey.chain(id(1, 2)), Err(HistoryError::Damaged { .. })));
    assert_eq!(survey.commits[&id(1, 2)].objects.len(), 2);
}

#[test]
fn claims_count_for_the_newest_epoch() {
    let survey = of(&[format!("{}.base.tar.zst", id(1, 1)), "00000007.claim".into()]);
    assert_eq!(survey.newest_epoch(), 7);
    assert_eq!(Survey::default().newest_epoch(), 0);
}

#[tokio::test]
async fn a_list_of_nothing_has_no_head() {
    let (memory, _) = memory();
    let survey = survey(&memory, &key(), Depth::Chain, None).await.unwrap();
    assert!(survey.complete);
    assert_eq!(survey.head(), None);
}

#[tokio::test]
async fn a_chain_that_meets_its_base_on_the_first_page_needs_one_call() {
    let (memory, _) = memory();
    plant_chain(&memory, 1, 1, 1500);
    plant_chain(&memory, 2, 1, 3);
    let chain = survey(&memory, &key(), Depth::Chain, Some(id(2, 4))).await.unwrap();
    assert_eq!(memory.calls(Op::List), 1);
    assert!(!chain.complete);
    assert_eq!(chain.chain(id(2, 4)).unwrap().len(), 4);
    let all = survey(&memory, &key(), Depth::All, None).await.unwrap();
    assert!(all.complete);
    assert_eq!(all.commits.len(), 1505);
}

#[tokio::test]
async fn a_long_chain_is_followed_over_pages() {
    let (memory, _) = memory();
    plant_chain(&memory, 1, 1, 700);
    plant_chain(&memory, 2, 1, 1200);
    let survey = survey(&memory, &key(), Depth::Chain, None).await.unwrap();
    assert_eq!(memory.calls(Op::List), 2);
    assert_eq!(survey.chain(id(2, 1201)).unwrap().len(), 1201);
}

#[tokio::test]
async fn a_list_that_begins_below_what_we_know_is_read_to_its_end() {
    let (memory, _) = memory();
    plant_chain(&memory, 1, 1, 1500);
    plant_chain(&memory, 2, 1, 3);
    let survey = survey(&memory, &key(), Depth::Chain, Some(id(3, 1))).await.unwrap();
    assert!(survey.complete);
    assert_eq!(survey.commits.len(), 1505);
}

/// A server that does not know `sortBy`.
fn ascending(memory: Arc<Memory>) -> impl Store {
    Faulty::new(memory, rules::every(Op::List, Fault::Ascending))
}

#[tokio::test]
async fn a_server_that_lists_ascending_all_the_same_is_read_to_its_end() {
    let (memory, _) = memory();
    plant_chain(&memory, 1, 1, 1500);
    plant_chain(&memory, 2, 1, 3);
    let store = ascending(memory);
    let chain = survey(&store, &key(), Depth::Chain, None).await.unwrap();
    assert!(chain.complete);
    assert_eq!(chain.head(), Some(id(2, 4)));
}

#[tokio::test]
async fn the_short_list_is_not_believed_when_it_ascends() {
    use crate::history::standing::{Standing, short_list};
    let (memory, _) = memory();
    plant_chain(&memory, 1, 1, 10);
    let store = ascending(Arc::clone(&memory));
    let none = std::collections::BTreeSet::new();
    assert_eq!(short_list(&store, &key(), id(1, 11), &none).await.unwrap(), Standing::Acknowledged);
    plant(&memory, "00000002.claim");
    assert_eq!(short_list(&store, &key(), id(1, 11), &none).await.unwrap(), Standing::Taken { epoch: 2 });
}

/// A server whose cursor does not move.
#[derive(Debug)]
struct Stuck;

#[async_trait]
impl Store for Stuck {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        Ok(Bucket::default())
    }
    async fn put(&self, _: &str, _: bytes::Bytes, _: &Put) -> Result<(), StoreError> {
        Ok(())
    }
    async fn get(&self, _: &str, _: &mut dyn Sink) -> Result<(), StoreError> {
        Ok(())
    }
    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        Err(StoreError::new(Kind::NotFound, "info", "not found").at(key))
    }
    async fn list(&self, _: &Page) -> Result<Listing, StoreError> {
        Ok(Listing { next: Some("again".into()), ..Listing::default() })
    }
    async fn remove(&self, _: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
    async fn rename(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_cursor_that_does_not_move_is_an_error_and_no_loop() {
    let error = survey(&Stuck, &key(), Depth::All, None).await.unwrap_err();
    assert!(matches!(error, HistoryError::Store(StoreError { kind: Kind::Protocol, .. })), "{error}");
}

#[test]
fn an_encrypted_commit_counts_and_its_plaintext_lies_beside_it() {
    let (plain, sealed) = (format!("{}.base.tar.zst", id(1, 1)), format!("{}.base.tar.zst.age", id(1, 1)));
    let parts = |names: &[String]| of(names).commits.remove(&id(1, 1)).unwrap();
    for names in [[plain.clone(), sealed.clone()], [sealed.clone(), plain.clone()]] {
        let listed = parts(&names);
        assert!(listed.name.encrypted && !listed.ambiguous);
        assert!(listed.objects[0].key.ends_with(".tar.zst.age") && listed.plain[0].key.ends_with(".tar.zst"));
        assert_eq!(of(&names).count(), (1, 1));
    }
    // A copy that was cut off is none yet; two of them are one too many.
    let part = |number: u16, of: u16| format!("{}.base.p00{number}-of-00{of}.tar.zst.age", id(1, 1));
    assert!(!parts(&[plain.clone(), part(1, 2)]).name.encrypted);
    assert!(parts(&[plain, part(1, 2), part(2, 2), sealed]).ambiguous);
}

#[test]
fn a_commit_that_was_encrypted_later_is_as_old_as_it_says_and_never_younger() {
    let name = format!("{}.base.tar.zst.age", id(1, 1));
    let age = |note: i64| {
        let note = format!("{}.at.{}", id(1, 1), time(note).as_second());
        let objects = [object(&name, 500), object(&note, 500)];
        Survey::of(&key(), &objects).commits[&id(1, 1)].created_at()
    };
    assert_eq!((age(100), age(900)), (Some(time(100)), Some(time(500))));
}
