//! What is counted of commits, and when.

use super::*;
use crate::history::Keys;
use crate::host::Real;
use crate::store::Memory;
use crate::sync::lease::{Claimant, claim};
use crate::sync::state::Place;

/// A journal of epoch 1 in a bucket of its own.
fn journal(store: &SharedStore, dir: &std::path::Path) -> Journal {
    let place = Place { boot_id: "boot".into(), pod_uid: None, dev: 1, ino: 2 };
    let mut state = LocalState::here(None, "http://project", "bucket", &place);
    state.epoch = 1;
    let parts = JournalParts {
        store: Arc::clone(store),
        keys: Keys::off(),
        host: Arc::new(Real),
        key: "u/s".parse().unwrap(),
        terms: Terms { content_type: "application/zstd".into(), bucket: Bucket::default() },
        writer: Writer { holder: "holder".into(), version: "1".into(), label: None },
        state,
        state_file: dir.join("state.json"),
        noter: None,
        counters: Arc::default(),
    };
    Journal::new(parts, None)
}

#[tokio::test]
async fn a_commit_counts_once_it_is_acknowledged_and_not_when_the_session_was_taken_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let store: SharedStore = Arc::new(Memory::new(Arc::new(Real)));
    let mut journal = journal(&store, dir.path());
    let counters = Arc::clone(&journal.counters);
    let count = |kind| counters.commits.get(&[("kind", kind)]).unwrap().get();

    journal.store(Draft::empty(None)).await.unwrap();
    assert_eq!(count("base"), 0, "stored, not owned");
    journal.acknowledge().await.unwrap();
    journal.append(Draft::seal(&Table::default())).await.unwrap();
    assert_eq!((count("base"), count("delta"), counters.not_owned.get()), (1, 1, 0));
    assert!(counters.commit_bytes.get(&[("kind", "base")]).unwrap().get() > 0);

    journal.store(Draft::seal(&Table::default())).await.unwrap();
    let other =
        Claimant { holder: "another".into(), content_type: "application/zstd".into(), now: Real.now() };
    claim(&*store, &"u/s".parse().unwrap(), 2, &other).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(journal.acknowledge().await, Err(Lost::Taken { epoch: 2 })));
    }
    assert_eq!((count("delta"), counters.not_owned.get()), (1, 1), "once, however often it is asked");
}
