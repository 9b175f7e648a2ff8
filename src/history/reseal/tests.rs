use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;

use super::*;
use crate::history::chain::fetch as fetch_chain;
use crate::history::commit::Kind as CommitKind;
use crate::history::keys::Keys;
use crate::history::retention;
use crate::history::survey::{Depth, survey};
use crate::history::testing::{Author, Clock, id, key, keys, memory};
use crate::store::{Fault, Faulty, Memory, Op};

const HOW: Terms<'static> = Terms { content_type: "application/zstd", size_limit: Some(700) };

/// Two plaintext bases with a delta each, the older a day before, and an encrypted base above.
async fn turned_on() -> (Arc<Memory>, Clock, Author) {
    let (memory, clock) = memory();
    let mut author = Author::new();
    for version in 0..4 {
        let kind = if version % 2 == 0 { CommitKind::Base } else { CommitKind::Delta };
        author.put("creds.json", format!("{{\"v\":{version}}}").as_bytes()).commit(&memory, kind).await;
        clock.forward(SignedDuration::from_hours(12));
    }
    author.keys = keys();
    author.put("creds.json", b"{\"v\":4}").commit(&memory, CommitKind::Base).await;
    (memory, clock, author)
}

fn policy() -> retention::Policy {
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    retention::Policy { epoch: 1, history_keep: days(7), pin_keep: days(30) }
}

async fn planned(memory: &Memory, keys: &Keys) -> (Survey, Plan) {
    let survey = survey(memory, &key(), Depth::All, None).await.unwrap();
    let keep = retention::plan(&survey, survey.date.unwrap(), &policy()).keep;
    let plan = plan(&Access::new(memory, keys), &survey, &keep, 1);
    (survey, plan)
}

/// All that is planned, through a store that may fail.
async fn run(store: &dyn crate::store::Store, memory: &Memory, keys: &Keys) -> Result<(), HistoryError> {
    let (survey, plan) = planned(memory, keys).await;
    let scratch = tempfile::tempdir().unwrap();
    for id in &plan.reseal {
        reseal(Access::new(store, keys), &key(), &survey, *id, scratch.path(), HOW).await?;
    }
    remove(store, &plan.delete).await.map(drop)
}

async fn content(memory: &Memory, keys: &Keys, at: Id) -> Result<String, HistoryError> {
    let survey = survey(memory, &key(), Depth::All, None).await?;
    let scratch = tempfile::tempdir().unwrap();
    let access = Access::new(memory, keys);
    let chain = fetch_chain(access, &key(), &survey, at, scratch.path(), &Silent).await?;
    let read = chain.read(&BTreeSet::from(["creds.json".to_owned()]))?;
    Ok(String::from_utf8(read["creds.json"].bytes().unwrap().to_vec()).unwrap())
}

fn plaintext(memory: &Memory) -> Vec<String> {
    memory.keys(&key().history_prefix()).into_iter().filter(|name| name.ends_with(".tar.zst")).collect()
}

#[tokio::test]
async fn what_is_kept_is_encrypted_under_its_id_and_keeps_its_age_and_all_else_goes() {
    let (memory, _, author) = turned_on().await;
    crate::history::pin::pin(&memory, &key(), id(1, 2), "identity").await.unwrap();
    let before = survey(&memory, &key(), Depth::All, None).await.unwrap();
    let (_, plan) = planned(&memory, &author.keys).await;
    assert_eq!(plan.reseal, [id(1, 3), id(1, 2), id(1, 1)], "newest first");
    assert_eq!((plan.delete.len(), plan.strangers.len()), (1, 0), "the delta that nothing needs goes");
    run(&memory, &memory, &author.keys).await.unwrap();
    assert_eq!(plaintext(&memory), Vec::<String>::new());
    let (after, plan) = planned(&memory, &author.keys).await;
    assert!(plan.is_done());
    for (seq, version) in [(1, 0), (2, 1), (3, 2), (5, 4)] {
        assert_eq!(content(&memory, &author.keys, id(1, seq)).await.unwrap(), format!("{{\"v\":{version}}}"));
        let age = |survey: &Survey| survey.commits[&id(1, seq)].created_at().map(jiff::Timestamp::as_second);
        assert_eq!(age(&after), age(&before), "--at and retention go by it");
    }
    assert_eq!(after.count().1, 0);
}

#[tokio::test]
async fn cut_off_at_any_call_the_next_run_ends_the_work_and_every_point_can_be_read_meanwhile() {
    for step in 0..100 {
        let (calls, lands) = (step / 2, step % 2 == 1);
        let (memory, _, author) = turned_on().await;
        crate::history::pin::pin(&memory, &key(), id(1, 2), "identity").await.unwrap();
        // The process dies at a call, which had its effect or not; all after it are never sent.
        let cut = Faulty::new(Arc::clone(&memory), move |call| match call.number {
            number if number <= calls => Fault::Pass,
            number if number == calls + 1 && lands => Fault::After(Kind::Transient),
            _ => Fault::Before(Kind::Transient),
        });
        let done = run(&cut, &memory, &author.keys).await;
        for (seq, version) in [(2, 1), (5, 4)] {
            let read = content(&memory, &author.keys, id(1, seq)).await.unwrap();
            assert_eq!(read, format!("{{\"v\":{version}}}"), "after {calls} calls");
        }
        run(&memory, &memory, &author.keys).await.unwrap();
        assert_eq!(plaintext(&memory), Vec::<String>::new(), "after {calls} calls");
        assert_eq!(content(&memory, &author.keys, id(1, 2)).await.unwrap(), "{\"v\":1}");
        if done.is_ok() {
            assert!(memory.calls(Op::Remove) > 0);
            return;
        }
    }
    panic!("it is never done");
}

#[tokio::test]
async fn plaintext_that_came_later_is_not_made_to_look_like_ours() {
    let (memory, _, author) = turned_on().await;
    let mut enemy = Author { keys: Keys::off(), seq: 5, ..author.clone() };
    let forged = enemy.put("creds.json", b"{\"forged\":1}").commit(&memory, CommitKind::Base).await;
    let mut ours = Author { seq: 6, ..author.clone() };
    ours.put("creds.json", b"{\"v\":6}").commit(&memory, CommitKind::Base).await;
    crate::history::pin::pin(&memory, &key(), forged, "identity").await.unwrap();
    let (_, plan) = planned(&memory, &author.keys).await;
    assert_eq!(plan.strangers, [forged]);
    assert!(!plan.reseal.contains(&forged));
    run(&memory, &memory, &author.keys).await.unwrap();
    assert_eq!(plaintext(&memory).len(), 1, "it is pinned, and a person decides");
    assert!(matches!(
        content(&memory, &author.keys, forged).await,
        Err(HistoryError::Plaintext { id }) if id == forged
    ));
}

#[tokio::test]
async fn nothing_is_touched_before_the_head_is_encrypted() {
    let (memory, _) = memory();
    let mut author = Author::new();
    author.put("creds.json", b"{}").commit(&memory, CommitKind::Base).await;
    assert_eq!(planned(&memory, &keys()).await.1, Plan::default());
    assert_eq!(planned(&memory, &Keys::off()).await.1, Plan::default());
}

#[tokio::test]
async fn an_encrypted_copy_that_is_another_keeps_the_plaintext() {
    let (memory, _, author) = turned_on().await;
    let mut other = Author { keys: author.keys.clone(), ..Author::new() };
    let forged = other.put("creds.json", b"{\"forged\":1}").freeze(CommitKind::Base);
    let (name, body) = &forged.objects[0];
    memory.plant(
        &format!("{}{name}", key().history_prefix()),
        body.to_vec(),
        crate::history::testing::time(0),
    );
    let scratch = tempfile::tempdir().unwrap();
    let (survey, plan) = planned(&memory, &author.keys).await;
    let forged = *plan.reseal.iter().find(|at| **at == id(1, 1)).unwrap();
    let access = Access::new(&memory, &author.keys);
    let error = reseal(access, &key(), &survey, forged, scratch.path(), HOW).await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(plaintext(&memory).iter().any(|name| name.contains(&id(1, 1).to_string())));
}

#[test]
fn parts_of_another_run_are_neither_completed_nor_replaced() {
    let name = CommitName { id: id(1, 2), base: true, parent: None, part: None, encrypted: true };
    let bytes = Bytes::from(vec![7; 10_000_000]);
    let parts = |used: &[u16], luck| {
        let used = used.iter().copied().collect();
        let objects = split_anew(name, &bytes, Some(3_000_000), &used, luck).unwrap();
        assert_eq!(objects.iter().flat_map(|(_, part)| part.to_vec()).collect::<Vec<_>>(), bytes);
        assert!(objects.iter().all(|(_, part)| part.len() <= 3_000_000));
        objects.len()
    };
    assert_eq!([0, 1, 60].map(|luck| parts(&[], luck)), [4, 5, 64], "each run most likely has its own names");
    assert_eq!(parts(&[4, 5], 0), 6);
    let whole = split_anew(name, &bytes, None, &BTreeSet::from([1]), 9).unwrap();
    assert_eq!(whole.len(), 1);
}
