use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::host::Real;
use crate::store::{Fault, Faulty, Memory, Op, Put, rules};

fn session() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

fn memory(objects: &[(&str, &str)]) -> Arc<Memory> {
    let memory = Memory::new(Arc::new(Real));
    for (key, body) in objects {
        memory.plant(key, (*body).to_owned(), "2026-01-01T00:00:00Z".parse().unwrap());
    }
    Arc::new(memory)
}

async fn fetch(store: &dyn Store) -> (Result<Fetched, FetchError>, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = Dir::open(scratch.path()).unwrap();
    let told = AtomicU64::new(0);
    let fetched = fetch_mirror(store, &session(), &dir, &|done, total| {
        assert!(done <= total);
        told.store(done, Ordering::Relaxed);
    })
    .await;
    if let Ok(fetched) = &fetched {
        assert_eq!(told.load(Ordering::Relaxed), fetched.table.bytes());
    }
    (fetched, scratch)
}

#[tokio::test(start_paused = true)]
async fn a_mirror_of_more_than_one_page_arrives_whole() {
    let memory = memory(&[("u/s/keys/a$24b$7E.json", "odd"), ("u/s2/x", "another session's")]);
    for n in 0..1100 {
        memory.plant(&format!("u/s/pre-key-{n}.json"), format!("{n}"), Timestamp::UNIX_EPOCH);
    }
    let (fetched, scratch) = fetch(&memory).await;
    let fetched = fetched.unwrap();
    assert_eq!(fetched.table.files.len(), 1101);
    let read = |path: &str| std::fs::read(scratch.path().join(path)).unwrap();
    assert_eq!(read("keys/a$b~.json"), b"odd");
    assert_eq!(read("pre-key-1099.json"), b"1099");
    assert_eq!(fetched.table.files["pre-key-7.json"].sha256, Hash::of(b"7"));
    let mut tree = fetched.table.clone();
    tree.files.get_mut("pre-key-7.json").unwrap().mode = 0o644;
    assert!(fetched.table.same_content(&tree));
    tree.files.remove("pre-key-7.json");
    assert!(!fetched.table.same_content(&tree));
}

#[tokio::test(start_paused = true)]
async fn its_age_is_that_of_what_was_written_last_also_by_overwriting() {
    let memory = memory(&[("u/s/creds.json", "{}"), ("u/s/a", "1")]);
    let (fetched, _scratch) = fetch(&memory).await;
    let old = fetched.unwrap().age().unwrap();
    assert!(old > SignedDuration::from_hours(24 * 30), "{old}");
    let how = Put { overwrite: true, ..Put::default() };
    memory.put("u/s/creds.json", "{ }".into(), &how).await.unwrap();
    let (fetched, _scratch) = fetch(&memory).await;
    let young = fetched.unwrap().age().unwrap();
    assert!(young < SignedDuration::from_hours(1), "{young}");
}

#[tokio::test(start_paused = true)]
async fn a_placeholder_of_the_dashboard_is_no_mirror() {
    let memory = memory(&[("u/s/.emptyFolderPlaceholder", "")]);
    assert!(!is_there(&memory, &session()).await.unwrap());
    memory.plant("u/s/keys/.emptyFolderPlaceholder", "", Timestamp::UNIX_EPOCH);
    memory.plant("u/s/creds.json", "{}", Timestamp::UNIX_EPOCH);
    assert!(is_there(&memory, &session()).await.unwrap());
    let (fetched, _scratch) = fetch(&memory).await;
    assert_eq!(fetched.unwrap().table.files.keys().collect::<Vec<_>>(), ["creds.json"]);
}

#[tokio::test(start_paused = true)]
async fn hostile_names_are_refused_before_anything_is_written() {
    let hostile: [&[(&str, &str)]; 9] = [
        &[("u/s/../../x", "1")],
        &[("u/s/$2E$2E/x", "1")],
        &[("u/s/$2Fetc/x", "1")],
        &[("u/s//x", "1")],
        &[("u/s/x/", "1")],
        &[("u/s/.session-sidecar/state.json", "1")],
        &[("u/s/$00", "1")],
        &[("u/s/$FF", "1")],
        &[("u/s/a$24b", "1"), ("u/s/a$b", "2")],
    ];
    for objects in hostile {
        let memory = memory(objects);
        let (fetched, scratch) = fetch(&memory).await;
        assert!(matches!(fetched, Err(FetchError::Hostile(_))), "{objects:?}: {fetched:?}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{objects:?}");
    }
    let memory = memory(&[("u/s/a", "1"), ("u/s/a/b", "2")]);
    let (fetched, _scratch) = fetch(&memory).await;
    assert!(matches!(fetched, Err(FetchError::Hostile(_))), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_somebody_writes_is_not_taken_for_one_tree() {
    let memory = memory(&[("u/s/a", "1"), ("u/s/b", "1")]);
    let writer = Arc::clone(&memory);
    let store = Faulty::new(Arc::clone(&memory), move |call| {
        if call.op == Op::Get && call.key == "u/s/b" {
            writer.plant("u/s/a", "2", Timestamp::UNIX_EPOCH);
        }
        Fault::Pass
    });
    let (fetched, _scratch) = fetch(&store).await;
    assert!(matches!(fetched, Err(FetchError::Changed | FetchError::Mismatch)), "{fetched:?}");

    let vanishing = Arc::clone(&memory);
    let store = Faulty::new(Arc::clone(&memory), move |call| {
        if call.op == Op::Get {
            vanishing.erase("u/s/b");
        }
        Fault::Pass
    });
    let (fetched, _scratch) = fetch(&store).await;
    assert!(matches!(fetched, Err(FetchError::Changed)), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_tried_again_and_never_believed() {
    let memory = memory(&[("u/s/creds.json", "{\"old\":1}")]);
    let store = Faulty::new(Arc::clone(&memory), rules::none);
    let how = Put { overwrite: true, ..Put::default() };
    store.put("u/s/creds.json", "{\"new\":1}".into(), &how).await.unwrap();
    store.set(rules::first(2, Op::Get, Fault::Stale));
    let (fetched, scratch) = fetch(&store).await;
    assert_eq!(fetched.unwrap().table.files.len(), 1);
    assert_eq!(std::fs::read(scratch.path().join("creds.json")).unwrap(), b"{\"new\":1}");
    store.set(rules::every(Op::Get, Fault::Stale));
    let (fetched, _scratch) = fetch(&store).await;
    assert!(matches!(fetched, Err(FetchError::Mismatch)), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_the_middle_is_an_outage() {
    for n in 1..=6 {
        let memory = memory(&[("u/s/a", "1"), ("u/s/b", "1")]);
        let store = Faulty::new(memory, rules::nth(n, Fault::Before(Kind::Transient)));
        let (fetched, _scratch) = fetch(&store).await;
        match fetched {
            Err(error) => assert!(error.is_outage(), "{error}"),
            Ok(_) => assert_eq!(n, 6, "five calls: list, two reads, info, list"),
        }
    }
}

const HEAD: &[u8] = b"{\"creds\":1}";

async fn write_creds(store: &dyn Store, body: &str, mark: Option<Hash>) {
    let metadata = mark.map(|sha256| json!({ "sidecar": { "head": "x", "sha256": sha256 } }));
    let how = Put { content_type: "application/json".to_owned(), overwrite: true, metadata };
    store.put("u/s/creds.json", body.to_owned().into(), &how).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn creds_that_are_missing_or_the_heads_are_nobodys_work_and_are_not_read() {
    let memory = memory(&[]);
    assert_eq!(foreign_creds(&memory, &session(), HEAD).await.unwrap(), None);
    write_creds(&memory, "{\"creds\":1}", None).await;
    assert_eq!(foreign_creds(&memory, &session(), HEAD).await.unwrap(), None);
    assert_eq!(memory.calls(Op::Get), 0);
}

/// P4
#[tokio::test(start_paused = true)]
async fn creds_without_our_mark_or_with_a_wrong_one_are_somebody_elses() {
    let memory = memory(&[]);
    for mark in [None, Some(Hash::of(HEAD))] {
        write_creds(&memory, "{\"creds\":2}", mark).await;
        let foreign = foreign_creds(&memory, &session(), HEAD).await.unwrap().expect("foreign");
        assert_eq!(foreign.bytes, b"{\"creds\":2}");
        assert!(foreign.modified_at.is_some());
        assert!(!format!("{foreign:?}").contains("creds"));
    }
    write_creds(&memory, "{\"creds\":0}", Some(Hash::of(b"{\"creds\":0}"))).await;
    assert_eq!(foreign_creds(&memory, &session(), HEAD).await.unwrap(), None, "an older mirror of ours");
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_not_taken_for_somebodys_work() {
    let memory = memory(&[]);
    let store = Faulty::new(Arc::clone(&memory), rules::none);
    write_creds(&store, "{\"creds\":0}", None).await;
    let newer = "{\"creds\":9}";
    write_creds(&store, newer, Some(Hash::of(newer.as_bytes()))).await;
    store.set(rules::first(2, Op::Get, Fault::Stale));
    assert_eq!(foreign_creds(&store, &session(), HEAD).await.unwrap(), None);
    store.set(rules::every(Op::Get, Fault::Stale));
    let error = foreign_creds(&store, &session(), HEAD).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
}

#[tokio::test(start_paused = true)]
async fn an_older_mirror_of_ours_is_known_by_its_etag_however_stale_it_is_served() {
    let memory = memory(&[]);
    let body = "{\"creds\":0}";
    let mark = |md5: &str| {
        Some(json!({ "sidecar": { "head": "x", "sha256": Hash::of(body.as_bytes()), "md5": md5 } }))
    };
    let how = |metadata| Put { content_type: "application/json".to_owned(), overwrite: true, metadata };
    memory.put("u/s/creds.json", body.into(), &how(mark(&md5_hex(body.as_bytes())))).await.unwrap();
    assert_eq!(foreign_creds(&memory, &session(), HEAD).await.unwrap(), None);
    assert_eq!(memory.calls(Op::Get), 0, "it is not read");
    // Somebody overwrote it and our mark stayed.
    memory
        .put("u/s/creds.json", "{\"creds\":7}".into(), &how(mark(&md5_hex(body.as_bytes()))))
        .await
        .unwrap();
    assert!(foreign_creds(&memory, &session(), HEAD).await.unwrap().is_some());
}
