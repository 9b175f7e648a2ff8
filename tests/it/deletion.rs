//! `delete`, `undelete` and `delete --purge`: a session ends by a commit, and comes back by one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::Value;
use session_sidecar::emulator::BUCKET;
use session_sidecar::history::{self, Commit, Depth, Id, Keys, Kind, Survey, Writer, upload};
use session_sidecar::session::STATE_DIR;
use session_sidecar::store::{Put, Store as _};
use session_sidecar::tree::{Content, Entry, Hash, Meta, Table};

use crate::support::world::{Files, Running, SESSION, World, contents, eventually, files, finished, refused};

impl World {
    async fn survey(&self) -> Survey {
        history::survey(&self.store(), &SESSION.parse().unwrap(), Depth::All, None).await.unwrap()
    }

    async fn delete(&self, root: &Path, more: &[&str]) -> Value {
        let args = [&["--yes", "--json"], more].concat();
        serde_json::from_str(&self.ok("delete", root, &args).await).unwrap()
    }

    /// A base that a writer of an older epoch had under way when it lost the session.
    async fn upload_late(&self, id: Id) {
        let bytes = Bytes::from_static(b"{\"late\":true}");
        let meta = Meta { size: bytes.len() as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(&bytes) };
        let mut table = Table::default();
        table.files.insert("late.json".to_owned(), meta);
        let contents = BTreeMap::from([("late.json".to_owned(), Content::Bytes(bytes))]);
        let commit = Commit {
            format: 1,
            user: "u1".to_owned(),
            session: "s1".to_owned(),
            id,
            parent: None,
            kind: Kind::Base,
            created_at: "2026-11-23T21:00:00Z".parse().unwrap(),
            writer: Writer { holder: "h".to_owned(), version: "1".to_owned(), label: None },
            mark: None,
            recipients: Vec::new(),
            put: vec![Entry { path: "late.json".to_owned(), meta }],
            patch: Vec::new(),
            remove: Vec::new(),
            empty_dirs: Vec::new(),
            tree: table.summary(),
        };
        let frozen = history::freeze(commit, &contents, None, &Keys::off()).unwrap();
        let key = SESSION.parse().unwrap();
        upload::upload(&self.store(), &key, &frozen, "application/json").await.unwrap();
    }
}

fn set_aside(root: &Path) -> Vec<Files> {
    let dir = root.join(STATE_DIR).join("set-aside").join(SESSION);
    std::fs::read_dir(dir).into_iter().flatten().map(|entry| files(&entry.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_is_a_new_one_everywhere_until_it_is_undeleted() {
    let world = World::new().await;
    let (root, old, fresh) = (world.tree("root"), world.root("old"), world.root("fresh"));
    let tree = files(&root);
    world.ok("sync", &root, &[]).await;
    world.ok("restore", &old, &["--mirror", "off"]).await;
    assert!(files(&old) == tree);

    let report = world.delete(&root, &[]).await;
    assert!(report["history_removed"].as_u64() > Some(0) && report["mirror_removed"].as_u64() > Some(0));
    assert!(files(&root).is_empty() && world.mirror().is_empty());
    assert!(set_aside(&root) == [tree.clone()], "the files are kept for a week");
    let survey = world.survey().await;
    let pinned: Id = report["pinned"].as_str().unwrap().parse().unwrap();
    let mut wanted = survey.chain(pinned).unwrap();
    wanted.push(report["commit"].as_str().unwrap().parse().unwrap());
    assert_eq!(survey.commits.keys().copied().collect::<Vec<_>>(), wanted);
    assert_eq!((survey.claims.len(), survey.pins.len()), (1, 1));

    // Again: nothing is left to be removed, and what was pinned stays.
    let again = world.delete(&root, &[]).await;
    assert!(again["pinned"].is_null() && again["set_aside"].is_null() && again["mirror_removed"] == 0);
    for root in [&fresh, &root, &old] {
        world.ok("restore", root, &[]).await;
        assert!(files(root).is_empty(), "{}", root.display());
    }
    assert!(set_aside(&old) == [tree.clone()]);

    let report = world.json("undelete", &root).await;
    assert_eq!(report["restored"], pinned.to_string());
    assert_eq!(world.json("undelete", &root).await["restored"], Value::Null, "it is not deleted any more");
    for root in [&fresh, &root, &old] {
        world.ok("restore", root, &[]).await;
        assert!(files(root) == tree, "{}", root.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_upload_of_a_fenced_writer_does_not_bring_a_deleted_session_back() {
    let world = World::new().await;
    let (root, fresh) = (world.tree("root"), world.root("fresh"));
    let tree = files(&root);
    world.sync(&root).await;
    world.delete(&root, &[]).await;
    let fenced = world.survey().await.head().unwrap().epoch - 1;
    let late = Id::new(fenced, 99, 7).unwrap();
    world.upload_late(late).await;
    world.ok("restore", &fresh, &[]).await;
    assert!(files(&fresh).is_empty());
    world.delete(&root, &[]).await;
    assert!(!world.survey().await.commits.contains_key(&late), "the next deletion takes it");
    world.ok("undelete", &root, &[]).await;
    world.ok("restore", &fresh, &[]).await;
    assert!(files(&fresh) == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_leaves_a_tombstone_and_a_claim_and_looks_again() {
    let world = World::new().await;
    let root = world.tree("root");
    world.ok("sync", &root, &[]).await;
    world.delete(&root, &[]).await;
    let bare = |survey: &Survey| {
        (survey.commits.len(), survey.claims.len(), survey.pins.len(), survey.incomplete.len())
            == (1, 1, 0, 0)
    };
    world.delete(&root, &["--purge"]).await;
    assert!(bare(&world.survey().await) && world.mirror().is_empty() && set_aside(&root).is_empty());
    let error = refused(world.command("undelete", &root), 2).await;
    assert!(error.contains("for good"), "{error}");

    // Uploads that were under way then.
    let fenced = world.survey().await.head().unwrap().epoch - 1;
    world.upload_late(Id::new(fenced, 9, 9).unwrap()).await;
    let how = Put { content_type: "application/json".to_owned(), ..Put::default() };
    world.store().put(&format!("{SESSION}/creds.json"), "{}".into(), &how).await.unwrap();
    let report = world.delete(&root, &["--purge"]).await;
    assert_eq!(report["mirror_removed"], 1);
    assert!(bare(&world.survey().await) && world.mirror().is_empty());
    world.ok("restore", &root, &[]).await;
    assert!(files(&root).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_beside_a_process_or_without_a_word_or_under_a_wrong_name() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let tree = files(&root);
    let command = |name: &str, more: &[&str]| {
        let mut command = world.command(name, &root);
        command.args(more);
        command
    };
    let error = refused(command("delete", &[]), 2).await;
    assert!(error.contains("--yes"), "{error}");
    let mut wrong = world.bare("delete", &world.root("elsewhere"));
    wrong.args(["--yes", "u1/typo"]);
    refused(wrong, 3).await;
    let mut wrong = world.bare("undelete", &world.root("elsewhere"));
    wrong.arg("u1/typo");
    refused(wrong, 3).await;

    let running = Running::start(&world, &root, &[]).await;
    for refusal in [command("delete", &["--yes"]), command("undelete", &[])] {
        let error = refused(refusal, 2).await;
        assert!(error.contains("stop it and its bot"), "{error}");
    }
    assert_eq!(running.stop().await, 0);
    assert!(files(&root) == tree && world.head().await == tree);

    // Its bot may have outlived the sidecar in this pod.
    let in_pod = |mut command: Command| {
        // Without the lease that is left to the pod's own watch.
        command.env("POD_UID", "pod-1").env("SIDECAR_LEASE", "storage");
        command
    };
    finished(in_pod(command("restore", &[]))).await;
    refused(in_pod(command("delete", &["--yes"])), 7).await;
    assert!(files(&root) == tree && world.head().await == tree);
    world.delete(&root, &[]).await;
    assert!(files(&root).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_logged_out_first_is_not_undeleted_into_an_older_life() {
    let world = World::new().await;
    let root = world.tree("root");
    let tree = files(&root);
    world.sync(&root).await;
    world.delete(&root, &[]).await;
    world.ok("undelete", &root, &[]).await;
    world.ok("restore", &root, &[]).await;
    world.ok("logout", &root, &[]).await;
    assert!(world.delete(&root, &[]).await["pinned"].is_null());
    let error = refused(world.command("undelete", &root), 2).await;
    assert!(error.contains("logged out"), "{error}");
    let pinned = world.pinned(&root, "logout").await.unwrap();
    world.ok("restore", &root, &["--at", &pinned]).await;
    assert!(files(&root) == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_only_a_mirror_has_go_by_a_purge_alone() {
    let world = World::new().await;
    let root = world.root("root");
    world.post(&format!("/object/{BUCKET}/{SESSION}/creds.json"), b"{}".to_vec()).await;
    let mut command = world.command("delete", &root);
    command.arg("--yes");
    let error = refused(command, 3).await;
    assert!(error.contains("--purge") && !world.mirror().is_empty(), "{error}");
    world.delete(&root, &["--purge"]).await;
    assert!(world.mirror().is_empty());
    world.ok("restore", &root, &[]).await;
    assert!(files(&root).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_beside_an_older_holder_is_told_that_its_session_is_gone() {
    let world = World::new().await;
    let (root, elsewhere) = (world.tree("root"), world.root("elsewhere"));
    let running = Running::start(&world, &root, &["--lease", "storage"]).await;
    let tree = files(&root);
    // What it still writes there until it looks would come back.
    eventually("the mirror is the tree", async || world.mirror() == contents(&root)).await;
    world.delete(&elsewhere, &["--lease", "storage"]).await;
    std::fs::write(root.join("note.json"), "{}").unwrap();
    eventually("it is taken", async || world.status(&root).await["state"] != "ready").await;
    assert_eq!(running.ended().await, 7);
    assert!(files(&root).len() == tree.len() + 1, "and its tree is left to it");
    assert!(world.head().await.is_empty());
}
