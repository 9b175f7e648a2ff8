use super::*;
use crate::history::chain::Silent;
use crate::history::commit::Kind;
use crate::history::survey::{Depth, survey};
use crate::history::testing::{Author, access, id, key, memory, time};
use crate::store::Memory;

/// `base 1, delta 2, base 3, delta 4, delta 5`, of one line.
async fn history(store: &Memory) {
    let mut author = Author::new();
    author.put("creds.json", b"{\"v\":1}").commit(store, Kind::Base).await;
    for (version, kind) in [(2, Kind::Delta), (3, Kind::Base), (4, Kind::Delta), (5, Kind::Delta)] {
        let content = format!("{{\"v\":{version}}}");
        author.put("creds.json", content.as_bytes()).commit(store, kind).await;
    }
}

fn spoil(memory: &Memory, seq: u32) {
    let name = memory.keys(&format!("{}{}", key().history_prefix(), id(1, seq))).remove(0);
    let mut body = memory.content(&name).unwrap().to_vec();
    let last = body.len() - 1;
    body[last] ^= 1;
    memory.plant(&name, body, time(0));
}

async fn newest(memory: &Memory) -> Option<Id> {
    let survey = survey(memory, &key(), Depth::All, None).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    newest_intact(access(memory), &key(), &survey, id(1, 5), scratch.path(), &Silent).await.unwrap()
}

#[tokio::test]
async fn a_whole_chain_is_intact_at_its_head() {
    let (memory, _) = memory();
    history(&memory).await;
    assert_eq!(newest(&memory).await, Some(id(1, 5)));
}

#[tokio::test]
async fn a_damaged_delta_leaves_the_point_before_it() {
    for (damaged, intact) in [(5, 4), (4, 3)] {
        let (memory, _) = memory();
        history(&memory).await;
        spoil(&memory, damaged);
        assert_eq!(newest(&memory).await, Some(id(1, intact)));
    }
}

#[tokio::test]
async fn a_damaged_base_leads_back_beyond_it() {
    let (memory, _) = memory();
    history(&memory).await;
    spoil(&memory, 3);
    assert_eq!(newest(&memory).await, Some(id(1, 2)));
    spoil(&memory, 2);
    assert_eq!(newest(&memory).await, Some(id(1, 1)));
    spoil(&memory, 1);
    assert_eq!(newest(&memory).await, None);
}

#[tokio::test]
async fn a_vanished_object_counts_as_damaged() {
    let (memory, _) = memory();
    history(&memory).await;
    let survey = survey(&memory, &key(), Depth::All, None).await.unwrap();
    let name = memory.keys(&format!("{}{}", key().history_prefix(), id(1, 4))).remove(0);
    memory.erase(&name);
    let scratch = tempfile::tempdir().unwrap();
    let intact =
        newest_intact(access(&memory), &key(), &survey, id(1, 5), scratch.path(), &Silent).await.unwrap();
    assert_eq!(intact, Some(id(1, 3)));
}
