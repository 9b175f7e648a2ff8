use std::sync::Arc;

use super::*;
use crate::host::Real;
use crate::store::{Fault, Faulty, Memory, SharedStore, read, rules};

const CREATE: Put = Put { content_type: String::new(), overwrite: false, metadata: None };

fn flaky(
    rule: impl Fn(&crate::store::Call<'_>) -> Fault + Send + Sync + 'static,
) -> (Arc<Memory>, Retry<impl Store>) {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    let retry = Retry::seeded(Faulty::new(Arc::clone(&memory), rule), Policy::default(), 7);
    (memory, retry)
}

#[test]
fn a_wait_lies_between_the_base_and_three_times_the_one_before() {
    let bounds = Bounds { base: Duration::from_millis(100), cap: Duration::from_secs(2) };
    let ms =
        |previous: Option<u64>, roll| backoff(bounds, previous.map(Duration::from_millis), roll).as_millis();
    assert_eq!(ms(None, 0.0), 100);
    assert_eq!(ms(None, 1.0), 300);
    assert_eq!(ms(Some(300), 0.5), 500);
    assert_eq!(ms(Some(300), 1.0), 900);
    assert_eq!(ms(Some(1_900), 1.0), 2_000, "capped");
    assert_eq!(ms(Some(1), 1.0), 100, "a short Retry-After does not shorten the base");
}

#[tokio::test(start_paused = true)]
async fn what_may_succeed_later_is_tried_again() {
    let (memory, retry) = flaky(rules::first(3, Op::Get, Fault::Before(Kind::Transient)));
    memory.plant("k", "v", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(read(&retry, "k").await.unwrap(), b"v");
    assert_eq!(memory.calls(Op::Get), 1, "three were struck before they arrived");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_is_never_tried_again() {
    for kind in
        [Kind::NotFound, Kind::Denied, Kind::TooLarge, Kind::Unavailable, Kind::Protocol, Kind::BadKey]
    {
        let faulty = Arc::new(Faulty::new(Memory::new(Arc::new(Real)), move |_: &crate::store::Call<'_>| {
            Fault::Before(kind)
        }));
        let retry = Retry::new(Arc::clone(&faulty), Policy::default());
        assert_eq!(retry.put("k", Bytes::new(), &CREATE).await.unwrap_err().kind, kind);
        assert_eq!(faulty.calls(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tries_and_budget_end_the_waiting() {
    let faulty = Arc::new(Faulty::new(
        Memory::new(Arc::new(Real)),
        rules::every(Op::Info, Fault::Before(Kind::Transient)),
    ));
    let started = Instant::now();
    let retry = Retry::seeded(Arc::clone(&faulty), Policy::default(), 1);
    retry.info("k").await.unwrap_err();
    assert_eq!(faulty.calls(), 6);

    let policy = Policy { tries: 1_000, budget: Duration::from_secs(30), ..Policy::default() };
    let retry = Retry::seeded(Arc::clone(&faulty), policy, 1);
    let before = Instant::now();
    retry.info("k").await.unwrap_err();
    assert!(before.elapsed() <= Duration::from_secs(30), "{:?}", before.elapsed());
    assert!(before.elapsed() >= Duration::from_secs(15), "the budget is used: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_read_only_database_is_asked_slowly() {
    let (_, retry) = flaky(rules::first(1, Op::Put, Fault::Before(Kind::ReadOnly)));
    let before = Instant::now();
    retry.put("k", Bytes::new(), &CREATE).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(15), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    #[derive(Debug)]
    struct Throttling(Memory, std::sync::atomic::AtomicBool);

    #[async_trait]
    impl Store for Throttling {
        async fn bucket(&self) -> Result<Bucket, StoreError> {
            if self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
                return self.0.bucket().await;
            }
            let mut error = StoreError::new(Kind::Throttled, "bucket", "slow down");
            error.retry_after = Some(Duration::from_secs(42));
            Err(error)
        }
        async fn put(&self, _: &str, _: Bytes, _: &Put) -> Result<(), StoreError> {
            unreachable!()
        }
        async fn get(&self, _: &str, _: &mut dyn Sink) -> Result<(), StoreError> {
            unreachable!()
        }
        async fn info(&self, _: &str) -> Result<Info, StoreError> {
            unreachable!()
        }
        async fn list(&self, _: &Page) -> Result<Listing, StoreError> {
            unreachable!()
        }
        async fn remove(&self, _: &[String]) -> Result<Vec<String>, StoreError> {
            unreachable!()
        }
        async fn rename(&self, _: &str, _: &str) -> Result<(), StoreError> {
            unreachable!()
        }
    }

    let store: SharedStore = Arc::new(Throttling(Memory::new(Arc::new(Real)), false.into()));
    let before = Instant::now();
    Retry::new(store, Policy::default()).bucket().await.unwrap();
    assert_eq!(before.elapsed().as_secs(), 42);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_hangs_ends_at_its_timeout() {
    let memory = Memory::new(Arc::new(Real));
    let faulty = Faulty::new(memory, rules::first(1, Op::Bucket, Fault::HangBefore));
    let policy = Policy { try_timeout: Some(Duration::from_secs(5)), ..Policy::default() };
    let before = Instant::now();
    Retry::new(faulty, policy).bucket().await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_put_shows_as_taken() {
    let (memory, retry) = flaky(rules::first(1, Op::Put, Fault::After(Kind::Transient)));
    let error = retry.put("k", Bytes::from_static(b"v"), &CREATE).await.unwrap_err();
    assert_eq!(error.kind, Kind::AlreadyExists);
    assert_eq!(memory.content("k").unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_rename_shows_as_not_found() {
    let (memory, retry) = flaky(rules::first(1, Op::Rename, Fault::After(Kind::Transient)));
    memory.plant(".claim-1", "mine", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(retry.rename(".claim-1", "1.claim").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(memory.content("1.claim").unwrap(), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_retried_download_starts_its_sink_again() {
    let (memory, retry) = flaky(rules::first(2, Op::Get, Fault::After(Kind::Transient)));
    memory.plant("k", "value", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(read(&retry, "k").await.unwrap(), b"value");
    assert_eq!(memory.calls(Op::Get), 3);
}

/// How long a call took, and how many tries arrived, where an outage is borne for this long.
async fn borne(outage: Duration, fault: Fault) -> (Duration, u64) {
    let faulty = Arc::new(Faulty::new(Memory::new(Arc::new(Real)), rules::every(Op::Info, fault)));
    let retry = Retry::seeded(Arc::clone(&faulty), Policy::default(), 1);
    let began = Instant::now();
    let error = give_up_at(began + outage, retry.info("k")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
    (began.elapsed(), faulty.calls())
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nobody_answers_ends_when_an_outage_is_borne_no_longer() {
    let second = Duration::from_secs(1);
    let (took, tries) = borne(second, Fault::Before(Kind::Transient)).await;
    assert!(took <= second && tries > 1, "{took:?}, {tries} tries");
    assert_eq!(borne(second, Fault::HangBefore).await, (second, 1), "nor does a try outlast it");
    assert_eq!(borne(Duration::ZERO, Fault::Before(Kind::Transient)).await, (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_answered_once_is_not_cut_off() {
    let (memory, retry) = flaky(rules::first(3, Op::Get, Fault::Before(Kind::Transient)));
    memory.plant("k", "v", jiff::Timestamp::UNIX_EPOCH);
    let attempt = async {
        // An answer, though it is no.
        assert_eq!(retry.info("other").await.unwrap_err().kind, Kind::NotFound);
        read(&retry, "k").await
    };
    assert_eq!(give_up_at(Instant::now(), attempt).await.unwrap(), b"v");
}
