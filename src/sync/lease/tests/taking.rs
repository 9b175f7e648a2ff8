//! From a list to a session that is ours.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;
use crate::history::{Depth, survey};
use crate::store::{Call, Store};

async fn take(
    store: &dyn Store,
    lessor: &Arc<impl Lessor + 'static>,
    key: &SessionKey,
    known: u32,
    claimant: &Claimant,
) -> Result<Held, LeaseError> {
    let before = survey(store, key, Depth::Chain, None).await?;
    let leases = Leases::new(Arc::clone(lessor) as _, Duration::from_secs(30), false);
    let wait = Wait { ask: true, until: Some(Instant::now()), contend: true };
    super::super::take(store, &leases, &Taking { key, before: &before, known, claimant, wait }).await
}

async fn take_it(store: &dyn Store, holder: &str) -> Result<Held, LeaseError> {
    take(store, &Arc::new(StorageLessor), &key(), 0, &claimant(holder)).await
}

fn commit(memory: &Memory, name: &str) {
    memory.plant(&format!(".history/u/s/{name}"), "x", Timestamp::UNIX_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_is_taken_with_its_first_epoch() {
    let memory = memory();
    let held = take_it(&memory, "a").await.unwrap();
    assert_eq!((held.epoch, held.survey.head()), (1, None));
    assert_eq!(memory.keys(""), [".history/u/s/00000001.claim"]);
}

#[tokio::test(start_paused = true)]
async fn the_epoch_is_above_the_list_and_above_the_state() {
    let memory = memory();
    commit(&memory, "00000003-00000041-9f3c01ab.base.tar.zst");
    assert_eq!(take_it(&memory, "a").await.unwrap().epoch, 4);
    assert_eq!(take_it(&memory, "b").await.unwrap().epoch, 5, "a claim counts like a commit");
    let held = take(&memory, &Arc::new(StorageLessor), &key(), 70, &claimant("c")).await.unwrap();
    assert_eq!(held.epoch, 71);
    assert_eq!(held.survey.head().map(|id| id.to_string()).as_deref(), Some("00000003-00000041-9f3c01ab"));
}

/// What the list before the claim did not show is in the one that counts.
#[tokio::test(start_paused = true)]
async fn the_list_after_the_claim_is_the_one_that_decides() {
    let memory = memory();
    commit(&memory, "00000001-00000001-00000001.base.tar.zst");
    let late = Arc::clone(&memory);
    let store = Faulty::new(Arc::clone(&memory), move |call: &Call<'_>| {
        if call.op == Op::Rename {
            commit(&late, "00000001-00000002-00000002.from.00000001-00000001-00000001.tar.zst");
        }
        Fault::Pass
    });
    let held = take_it(&store, "a").await.unwrap();
    assert_eq!(held.epoch, 2);
    assert_eq!(held.survey.head().map(|id| id.seq), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_higher_claim_or_a_foreign_commit_of_our_epoch_means_to_claim_again() {
    for name in ["00000002.claim", "00000001-00000001-00000001.base.tar.zst"] {
        let memory = memory();
        let other = Arc::clone(&memory);
        let store = Faulty::new(Arc::clone(&memory), move |call: &Call<'_>| {
            // After list, upload and move: the list that decides.
            if call.op == Op::List && call.number == 4 {
                commit(&other, name);
            }
            Fault::Pass
        });
        let held = take_it(&store, "a").await.unwrap();
        assert!(held.epoch > 1, "{name}: {held:?}");
        assert_eq!(held.survey.newest_epoch(), held.epoch);
    }
}

#[tokio::test(start_paused = true)]
async fn of_sixteen_takers_at_once_no_two_hold_one_epoch_and_the_newest_holds() {
    for _ in 0..20 {
        let memory = memory();
        let store = shuffled(&memory);
        let names: Vec<String> = (0..16).map(|n| format!("holder-{n}")).collect();
        let takes = names.iter().map(|name| take_it(&*store, name));
        let results = join_all(takes).await;
        let held: Vec<(usize, &Held)> =
            results.iter().enumerate().filter_map(|(n, result)| Some((n, result.as_ref().ok()?))).collect();
        let epochs: BTreeSet<u32> = held.iter().map(|(_, held)| held.epoch).collect();
        assert_eq!(epochs.len(), held.len(), "{epochs:?}");
        for (n, held) in &held {
            assert_eq!(holder_of(&memory, held.epoch), names[*n]);
            assert_eq!(held.survey.newest_epoch(), held.epoch);
        }
        // No temporary is left, so every key is a claim.
        let newest = memory.keys("").len();
        assert_eq!(epochs.last().copied(), u32::try_from(newest).ok(), "the newest claim is held");
        assert_eq!(temporaries(&memory), Vec::<String>::new());
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.code(), Code::LeaseLost);
        }
    }
}

/// Unclear answers everywhere: whoever believes to hold an epoch is named in its claim.
#[tokio::test(start_paused = true)]
async fn with_unclear_answers_still_no_two_hold_one_epoch() {
    let faults = vec![
        Fault::After(Kind::Transient),
        Fault::Before(Kind::Transient),
        Fault::Delay(Duration::from_millis(7)),
    ];
    let mut holders = 0;
    for seed in 0..40 {
        let memory = memory();
        let store = Faulty::new(Arc::clone(&memory), rules::seeded(seed, 0.3, faults.clone()));
        let store = Retry::seeded(store, Policy { tries: 2, ..Policy::default() }, seed);
        let names: Vec<String> = (0..6).map(|n| format!("holder-{n}")).collect();
        let results = join_all(names.iter().map(|name| take_it(&store, name))).await;
        let mut epochs = BTreeSet::new();
        for (name, held) in names.iter().zip(results).filter_map(|(name, held)| Some((name, held.ok()?))) {
            assert!(epochs.insert(held.epoch), "seed {seed}: epoch {} is held twice", held.epoch);
            assert_eq!(holder_of(&memory, held.epoch), *name, "seed {seed}");
            holders += 1;
        }
        assert_eq!(memory.rewritten(""), BTreeSet::new(), "seed {seed}");
    }
    assert!(holders >= 40, "only {holders} in all");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lacks_our_own_claim_is_not_believed() {
    let memory = memory();
    commit(&memory, "00000003-00000041-9f3c01ab.base.tar.zst");
    let store = Faulty::new(Arc::clone(&memory), rules::every(Op::List, Fault::Empty));
    let error = take_it(&store, "a").await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthorized, "{error}");
}

/// A key that may write and not list: the first start wins its claim, the second reads the claim of the first.
#[tokio::test(start_paused = true)]
async fn a_claim_that_a_second_list_lacks_too_ends_the_try() {
    let memory = memory();
    let store = Faulty::new(Arc::clone(&memory), rules::every(Op::List, Fault::Empty));
    for start in 1..=2 {
        let before = memory.calls(Op::List);
        let lessor = Arc::new(Scripted::default());
        let error = take(&store, &lessor, &key(), 0, &claimant("a")).await.unwrap_err();
        assert!(matches!(error, LeaseError::Blind), "{error}");
        assert_eq!(memory.calls(Op::List) - before, 3, "one before the claim, two after it");
        assert_eq!((lessor.asked.lock().unwrap().len(), &**lessor.released.lock().unwrap()), (1, &[1][..]));
        assert_eq!(memory.keys(""), [".history/u/s/00000001.claim"], "start {start}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_shows_the_claim_at_the_second_look_is_believed() {
    let memory = memory();
    // Before the claim, and once after it.
    let store = Faulty::new(Arc::clone(&memory), rules::first(2, Op::List, Fault::Empty));
    assert_eq!(take_it(&store, "a").await.unwrap().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_no_start_led_to_is_refused() {
    let memory = memory();
    commit(&memory, "00000003-00000041-9f3c01ab.base.tar.zst");
    commit(&memory, "01000004.claim");
    let error = take_it(&memory, "a").await.unwrap_err();
    assert!(matches!(error, LeaseError::Hostile { epoch: 1_000_004, above: 3 }), "{error}");
    assert_eq!(error.code().exit(), 6);
    memory.erase(".history/u/s/01000004.claim");
    commit(&memory, "01000003.claim");
    assert_eq!(take_it(&memory, "a").await.unwrap().epoch, 1_000_004);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_as_one() {
    for op in [Op::List, Op::Put] {
        let store = Faulty::new(memory(), rules::every(op, Fault::Before(Kind::Transient)));
        assert_eq!(take_it(&store, "a").await.unwrap_err().code(), Code::Unreachable, "{op:?}");
    }
}

fn granted(epoch: u32) -> Outcome {
    Outcome::Granted { epoch, head: None }
}

/// A lessor that says what it is told to, and remembers what it was given back.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<Vec<Outcome>>,
    asked: Mutex<Vec<u32>>,
    released: Mutex<Vec<u32>>,
}

#[async_trait]
impl Lessor for Scripted {
    async fn acquire(&self, asks: &[Ask], _: How) -> Result<Vec<Outcome>, Error> {
        let above = asks[0].above;
        self.asked.lock().unwrap().push(above);
        Ok(vec![self.answers.lock().unwrap().pop().unwrap_or_else(|| granted(above + 1))])
    }

    async fn renew(&self, _: &[Grant], _: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        Ok(BTreeMap::new())
    }

    async fn release(&self, held: &[Grant]) -> Result<(), Error> {
        self.released.lock().unwrap().extend(held.iter().map(|grant| grant.epoch));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_claims_nothing() {
    let memory = memory();
    let refused = Outcome::Refused(Refused { holder: Some("other".to_owned()), expires_in: None });
    let lessor = Arc::new(Scripted { answers: Mutex::new(vec![refused]), ..Scripted::default() });
    let error = take(&memory, &lessor, &key(), 0, &claimant("a")).await.unwrap_err();
    assert_eq!(error.code(), Code::LeaseHeld);
    assert_eq!(Error::from(error).code().exit(), 7);
    assert_eq!(memory.keys(""), Vec::<String>::new());
}

/// The row went back, or lies: the bucket decides.
#[tokio::test(start_paused = true)]
async fn a_grant_that_is_not_above_the_bucket_is_refused() {
    let memory = memory();
    commit(&memory, "00000005.claim");
    for epoch in [3, 5] {
        let answers = Mutex::new(vec![granted(epoch)]);
        let lessor = Arc::new(Scripted { answers, ..Scripted::default() });
        let error = take(&memory, &lessor, &key(), 0, &claimant("a")).await.unwrap_err();
        assert!(matches!(error, LeaseError::NotAbove { above: 5, .. }), "{error}");
    }
    let answers = Mutex::new(vec![granted(1_000_006)]);
    let lessor = Arc::new(Scripted { answers, ..Scripted::default() });
    let error = take(&memory, &lessor, &key(), 0, &claimant("a")).await.unwrap_err();
    assert!(matches!(error, LeaseError::Hostile { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_granted_epoch_that_is_taken_in_the_bucket_is_asked_for_again_above_it_and_at_last_given_back() {
    let memory = memory();
    let other = Arc::clone(&memory);
    // Whatever is moved, somebody else was faster.
    let store = Faulty::new(Arc::clone(&memory), move |call: &Call<'_>| {
        if call.op == Op::Rename {
            let body = "{\"holder\":\"other\",\"uuid\":\"x\",\"at\":\"2026-01-01T00:00:00Z\"}";
            other.plant(call.key, body, Timestamp::UNIX_EPOCH);
        }
        Fault::Pass
    });
    let lessor = Arc::new(Scripted::default());
    let error = take(&store, &lessor, &key(), 0, &claimant("a")).await.unwrap_err();
    assert!(matches!(&error, LeaseError::Lost { by: Some(by) } if by == "other"), "{error}");
    assert_eq!(*lessor.asked.lock().unwrap(), (0..8).collect::<Vec<u32>>());
    assert_eq!(*lessor.released.lock().unwrap(), [8]);
}
