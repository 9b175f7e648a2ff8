use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::Value;

mod leasing;
mod taking;

use super::*;
use crate::host::Real;
use crate::store::{Fault, Faulty, Kind, Memory, Op, Policy, Retry, Way, rules};

fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

fn claimant(holder: &str) -> Claimant {
    let content_type = "application/json".to_owned();
    Claimant { holder: holder.to_owned(), content_type, now: Timestamp::UNIX_EPOCH }
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(Arc::new(Real)))
}

fn temporaries(memory: &Memory) -> Vec<String> {
    memory.keys(".history/u/s/.claim-")
}

fn holder_of(memory: &Memory, epoch: u32) -> String {
    let body = memory.content(&format!(".history/u/s/{epoch:08}.claim")).expect("a claim");
    serde_json::from_slice::<Value>(&body).unwrap()["holder"].as_str().unwrap().to_owned()
}

/// Calls take turns at random: each waits a few ticks of the paused clock.
fn shuffled(memory: &Arc<Memory>) -> Arc<Faulty<Arc<Memory>>> {
    let delay = |_: &crate::store::Call<'_>| Fault::Delay(Duration::from_millis(rand::random_range(0..20)));
    Arc::new(Faulty::new(Arc::clone(memory), delay))
}

#[tokio::test(start_paused = true)]
async fn of_sixteen_claimers_exactly_one_wins_each_epoch() {
    let memory = memory();
    let store = shuffled(&memory);
    for epoch in 1..=20 {
        let names: Vec<String> = (0..16).map(|n| format!("holder-{n}")).collect();
        let claims = names.iter().map(|name| {
            let store = &store;
            async move { claim(store, &key(), epoch, &claimant(name)).await.unwrap() }
        });
        let claims = join_all(claims).await;
        let winners: Vec<usize> = (0..16).filter(|n| claims[*n] == Claim::Won).collect();
        assert_eq!(winners.len(), 1, "{claims:?}");
        let winner = &names[winners[0]];
        assert_eq!(holder_of(&memory, epoch), *winner);
        let taken = Claim::Taken { by: Some(winner.clone()) };
        assert_eq!(claims.iter().filter(|claim| **claim == taken).count(), 15);
        assert_eq!(temporaries(&memory), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_moved_onto_its_name_and_never_uploaded_there() {
    let memory = memory();
    claim(&memory, &key(), 7, &claimant("a")).await.unwrap();
    let ways: Vec<Way> = memory.log().into_iter().map(|upload| upload.way).collect();
    assert_eq!(ways, [Way::Create, Way::Rename]);
    assert_eq!(memory.keys(""), [".history/u/s/00000007.claim"]);
    assert_eq!(memory.rewritten(""), std::collections::BTreeSet::default());
}

#[tokio::test(start_paused = true)]
async fn a_move_that_won_and_whose_answer_was_lost_is_won() {
    let memory = memory();
    let faulty = Faulty::new(Arc::clone(&memory), rules::first(1, Op::Rename, Fault::After(Kind::Transient)));
    // The retry finds no source any more.
    let store = Retry::seeded(faulty, Policy::default(), 1);
    assert_eq!(claim(&store, &key(), 1, &claimant("a")).await.unwrap(), Claim::Won);
    assert_eq!(holder_of(&memory, 1), "a");
}

#[tokio::test(start_paused = true)]
async fn an_unclear_move_over_anothers_claim_is_lost() {
    let memory = memory();
    claim(&memory, &key(), 1, &claimant("other")).await.unwrap();
    for fault in
        [Fault::Before(Kind::Transient), Fault::After(Kind::Transient), Fault::Before(Kind::NotFound)]
    {
        let store = Faulty::new(Arc::clone(&memory), rules::every(Op::Rename, fault));
        let claim = claim(&store, &key(), 1, &claimant("a")).await.unwrap();
        assert_eq!(claim, Claim::Taken { by: Some("other".to_owned()) });
        assert_eq!(temporaries(&memory), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_whose_claim_stays_unclear_is_nobodys() {
    let memory = memory();
    let store = Faulty::new(Arc::clone(&memory), rules::every(Op::Rename, Fault::Before(Kind::Transient)));
    let claim = claim(&store, &key(), 1, &claimant("a")).await.unwrap();
    assert_eq!(claim, Claim::Taken { by: None });
    assert_eq!(memory.keys(""), Vec::<String>::new(), "and its move cannot land any more");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_ours_to_read_is_not_won() {
    let memory = memory();
    memory.plant(".history/u/s/00000001.claim", "no JSON at all", Timestamp::UNIX_EPOCH);
    let claim = claim(&memory, &key(), 1, &claimant("a")).await.unwrap();
    assert_eq!(claim, Claim::Taken { by: None });
}

#[tokio::test(start_paused = true)]
async fn a_refused_claim_is_an_error_and_leaves_nothing() {
    let memory = memory();
    for op in [Op::Put, Op::Rename] {
        let store = Faulty::new(Arc::clone(&memory), rules::every(op, Fault::Before(Kind::Denied)));
        let error = claim(&store, &key(), 1, &claimant("a")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Denied);
        assert_eq!(memory.keys(""), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_was_lost_goes_on() {
    let memory = memory();
    let faulty = Faulty::new(Arc::clone(&memory), rules::first(1, Op::Put, Fault::After(Kind::Transient)));
    let store = Retry::seeded(faulty, Policy::default(), 1);
    assert_eq!(claim(&store, &key(), 1, &claimant("a")).await.unwrap(), Claim::Won);
}

fn ask(above: u32) -> Ask {
    Ask { key: key(), holder: "a".to_owned(), above }
}

#[tokio::test]
async fn the_storage_lessor_grants_the_next_epoch_and_never_waits() {
    let how = How { ttl: Duration::from_secs(30), ask: true, all_or_none: false };
    let granted = StorageLessor.acquire(&[ask(41)], how).await.unwrap();
    assert_eq!(granted, [Outcome::Granted { epoch: 42, head: None }]);
    for last in [99_999_999, u32::MAX] {
        assert_eq!(StorageLessor.acquire(&[ask(last)], how).await.unwrap_err().code(), Code::Damaged);
    }
    let grant = Grant { key: key(), holder: "a".to_owned(), epoch: 42, head: None };
    let renewed = StorageLessor.renew(&[grant], how.ttl).await.unwrap();
    assert_eq!(renewed, BTreeMap::from([(key(), Renewed::Held)]));
}
