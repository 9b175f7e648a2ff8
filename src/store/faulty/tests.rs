use super::*;
use crate::host::Real;
use crate::store::Memory;

static CREATE: Put = Put { content_type: String::new(), overwrite: false, metadata: None };
static OVERWRITE: Put = Put { content_type: String::new(), overwrite: true, metadata: None };

fn store(rule: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) -> (Arc<Memory>, Faulty<Arc<Memory>>) {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    (Arc::clone(&memory), Faulty::new(memory, rule))
}

#[tokio::test]
async fn a_late_upload_lands_over_what_came_in_between() {
    let (memory, faulty) = store(rules::first(1, Op::Put, Fault::Late(Late::Called)));
    let slow = faulty.put("k", Bytes::from_static(b"slow"), &CREATE).await.unwrap_err();
    assert_eq!(slow.kind, Kind::Transient);
    assert_eq!(memory.content("k"), None);
    faulty.put("k", Bytes::from_static(b"fast"), &CREATE).await.unwrap();
    assert_eq!(faulty.late(), ["k"]);
    faulty.land().await.unwrap();
    assert_eq!(memory.content("k").unwrap(), "slow");
    assert_eq!(memory.rewritten(""), ["k".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn a_late_upload_lands_by_itself_and_respects_what_lay_there_at_its_start() {
    let (memory, faulty) = store(rules::every(Op::Put, Fault::Late(Late::In(Duration::from_secs(9)))));
    memory.plant("taken", "first", jiff::Timestamp::UNIX_EPOCH);
    let error = faulty.put("taken", Bytes::new(), &CREATE).await.unwrap_err();
    assert_eq!(error.kind, Kind::AlreadyExists);
    faulty.put("k", Bytes::from_static(b"v"), &CREATE).await.unwrap_err();
    assert_eq!(memory.content("k"), None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(memory.content("k").unwrap(), "v");
}

#[tokio::test]
async fn a_stale_read_gives_what_was_overwritten() {
    let (_, faulty) = store(rules::every(Op::Get, Fault::Stale));
    faulty.put("k", Bytes::from_static(b"old"), &CREATE).await.unwrap();
    assert_eq!(read(&faulty, "k").await.unwrap(), b"old");
    faulty.put("k", Bytes::from_static(b"new"), &OVERWRITE).await.unwrap();
    assert_eq!(read(&faulty, "k").await.unwrap(), b"old");
    faulty.set(rules::none);
    assert_eq!(read(&faulty, "k").await.unwrap(), b"new");
}

#[tokio::test]
async fn a_server_that_knows_no_sort_order_ascends_and_says_so() {
    let (memory, faulty) = store(rules::every(Op::List, Fault::Ascending));
    for key in ["a", "b", "c"] {
        memory.plant(key, key, jiff::Timestamp::UNIX_EPOCH);
    }
    let page = Page { order: Order::Descending, limit: 2, ..Page::default() };
    let listing = faulty.list(&page).await.unwrap();
    assert_eq!(listing.order, Some(Order::Ascending));
    assert_eq!(listing.objects[0].key, "a");
    faulty.set(rules::every(Op::List, Fault::Empty));
    assert!(faulty.list(&page).await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn a_hanging_call_that_is_dropped_had_its_effect_or_not() {
    let (memory, faulty) = store(rules::nth(1, Fault::HangBefore));
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        faulty.set(rules::every(Op::Put, fault.clone()));
        let mut put = Box::pin(faulty.put("k", Bytes::from_static(b"v"), &CREATE));
        assert!(futures_util::poll!(&mut put).is_pending());
        drop(put);
        assert_eq!(memory.content("k").is_some(), fault == Fault::HangAfter);
    }
    assert_eq!(faulty.calls(), 2);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let run = |seed| {
        let rule = rules::seeded(seed, 0.5, vec![Fault::Before(Kind::Transient), Fault::Stale]);
        (1..=64).map(|number| rule(&Call { op: Op::Get, key: "k", number })).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
    assert!(run(3).contains(&Fault::Pass) && run(3).contains(&Fault::Stale));
}
