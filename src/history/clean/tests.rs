use jiff::SignedDuration;

use super::*;
use crate::history::commit::Kind;
use crate::history::pin::pin;
use crate::history::retention::{Policy, plan};
use crate::history::survey::{Depth, survey};
use crate::history::testing::{Author, access, id, key, memory, time};
use crate::store::Op;

#[tokio::test]
async fn a_cleaning_deletes_what_the_plan_says_and_counts_what_was_there() {
    let (memory, clock) = memory();
    let mut author = Author::new();
    author.put("creds.json", b"{}").commit(&memory, Kind::Base).await;
    let pinned = author.put("creds.json", b"[1]").commit(&memory, Kind::Delta).await;
    author.put("creds.json", b"[2]").commit(&memory, Kind::Delta).await;
    pin(&memory, &key(), pinned, "rewind").await.unwrap();
    clock.forward(SignedDuration::from_hours(20 * 24));
    for n in 0..3 {
        author.put("creds.json", format!("[{n}]").as_bytes()).commit(&memory, Kind::Base).await;
        clock.forward(SignedDuration::from_hours(2));
    }
    let listed = survey(&memory, &key(), Depth::All, None).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let policy = Policy { epoch: 1, history_keep: day, pin_keep: SignedDuration::from_hours(30 * 24) };
    let plan = plan(&listed, listed.date.unwrap(), &policy);
    assert_eq!(clean(&memory, &plan).await.unwrap(), plan.delete.len() as u64);
    assert_eq!(clean(&memory, &plan).await.unwrap(), 0, "they are gone");
    let left = survey(&memory, &key(), Depth::All, None).await.unwrap();
    assert!(!left.commits.contains_key(&id(1, 3)), "not pinned, not needed");
    assert_eq!(left.chain(pinned).unwrap(), [id(1, 1), id(1, 2)]);
    let scratch = tempfile::tempdir().unwrap();
    verify_base(access(&memory), &key(), &left, plan.newest_base.unwrap(), scratch.path()).await.unwrap();
}

#[tokio::test]
async fn deletions_go_out_in_batches() {
    let (memory, _) = memory();
    let plan = Plan { delete: (0..1201).map(|n| format!("x{n}")).collect(), ..Plan::default() };
    assert_eq!(clean(&memory, &plan).await.unwrap(), 0);
    assert_eq!(memory.calls(Op::Remove), 3);
}

#[tokio::test]
async fn a_base_that_rotted_is_found_when_it_is_read_back() {
    let (memory, _) = memory();
    let mut author = Author::new();
    let base = author.put("creds.json", b"{\"a\":1}").commit(&memory, Kind::Base).await;
    let name = memory.keys(&key().history_prefix()).remove(0);
    let mut body = memory.content(&name).unwrap().to_vec();
    let last = body.len() - 1;
    body[last] ^= 1;
    memory.plant(&name, body, time(0));
    let listed = survey(&memory, &key(), Depth::All, None).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    assert!(
        verify_base(access(&memory), &key(), &listed, base, scratch.path()).await.unwrap_err().is_damage()
    );
}
