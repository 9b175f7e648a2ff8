//! Two trees for one session: a person decides, and the loser is kept.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use session_sidecar::session::STATE_DIR;

use crate::support::world::{Running, SESSION, World, contents, eventually, files, finished, refused};

/// As another service uploads it.
async fn upload(world: &World, name: &str, bytes: Vec<u8>) {
    world.post(&format!("/object/whatsapp-sessions/{SESSION}/{name}"), bytes).await;
}

fn restore(world: &World, root: &Path, more: &[&str]) -> Command {
    let mut command = world.command("restore", root);
    command.args(more);
    command
}

/// Files in the trees that were set aside.
fn set_aside(root: &Path, name: &str) -> Vec<Vec<u8>> {
    let dir = root.join(STATE_DIR).join("set-aside").join(SESSION);
    let kept = std::fs::read_dir(dir).map_or(Vec::new(), Iterator::collect);
    kept.into_iter().filter_map(|kept| std::fs::read(kept.unwrap().path().join(name)).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_another_service_filled_is_restored_and_its_age_told() {
    let world = World::new().await;
    let source = world.tree("source");
    let names = ["creds.json", "pre-key-812.json", "app-state-sync-version-regular.json"];
    for name in names {
        upload(&world, name, std::fs::read(source.join(name)).unwrap()).await;
    }
    let root = world.root("root");
    let restored = finished(restore(&world, &root, &["--json"])).await;
    let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
    let alarm = restored["sessions"][0]["alarms"][0].as_str().unwrap();
    assert!(alarm.contains("mirror") && alarm.contains("0 hours old"), "{alarm}");
    let expected = contents(&source).into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
    assert_eq!(contents(&root), expected);
    assert!(world.head().await == files(&root), "and history begins with it");
    // A `run` says so for as long as it lives.
    let other = World::new().await;
    upload(&other, "creds.json", std::fs::read(source.join("creds.json")).unwrap()).await;
    let root = other.root("root");
    let running = Running::start(&other, &root, &[]).await;
    let status = other.status(&root).await;
    assert!(status["alarms"][0].as_str().unwrap().contains("hours old"), "{status}");
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_whose_creds_json_is_ruined_is_not_given_to_a_bot() {
    let world = World::new().await;
    let good = std::fs::read(world.tree("source").join("creds.json")).unwrap();
    upload(&world, "session-1.0.json", b"{}".to_vec()).await;
    upload(&world, "creds.json", good[..good.len() / 2].to_vec()).await;
    let root = world.root("root");
    let mut command = restore(&world, &root, &[]);
    command.env("RUST_LOG", "off");
    let stderr = refused(command, 3).await;
    assert!(stderr.contains("creds.json (or the database) in the mirror"), "{stderr}");
    assert!(contents(&root).is_empty() && world.history_uploads() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_creds_json_that_someone_else_wrote_is_a_conflict_and_is_kept() {
    let world = World::new().await;
    let root = world.tree("root");
    eventually("the mirror is complete", async || {
        world.ok("sync", &root, &[]).await;
        world.mirror() == contents(&root)
    })
    .await;
    let tree = files(&root);
    let mut creds: Value = serde_json::from_slice(&tree["creds.json"].1).unwrap();
    creds["accountSyncCounter"] = json!(99);
    let theirs = creds.to_string().into_bytes();
    upload(&world, "creds.json", theirs.clone()).await;

    let why = refused(restore(&world, &root, &[]), 3).await;
    assert!(why.contains("--on-conflict local"), "{why}");
    assert!(files(&root) == tree && world.head().await == tree);
    let kept = world.pinned(&root, "mirror").await.unwrap();
    assert_eq!(world.point(&kept).await["creds.json"].1, theirs);

    for (side, creds) in [("local", &tree["creds.json"].1), ("remote", &theirs)] {
        let root = world.root(side);
        let restored = finished(restore(&world, &root, &["--on-conflict", side])).await;
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        assert!(std::fs::read(root.join("creds.json")).unwrap() == *creds, "{side}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_without_state_that_differs_from_history_is_a_persons_decision() {
    let world = World::new().await;
    let committed = world.tree("committed");
    std::fs::write(committed.join("extra.json"), "{\"of\":\"history\"}").unwrap();
    world.sync(&committed).await;
    let history = files(&committed);

    let remote = world.tree("remote");
    std::fs::write(remote.join("extra.json"), "{\"of\":\"the disk\"}").unwrap();
    let tree = files(&remote);
    let why = refused(restore(&world, &remote, &[]), 3).await;
    assert!(why.contains("local: 1258 files") && why.contains("bucket: 1258 files"), "{why}");
    assert!(files(&remote) == tree && world.head().await == history);
    let decided = finished(restore(&world, &remote, &["--on-conflict", "remote"])).await;
    assert!(decided.status.success(), "{}", String::from_utf8_lossy(&decided.stderr));
    assert!(files(&remote) == history);
    assert_eq!(set_aside(&remote, "extra.json"), [b"{\"of\":\"the disk\"}"]);

    let local = world.tree("local");
    let tree = files(&local);
    let decided = finished(restore(&world, &local, &["--on-conflict", "local"])).await;
    assert!(decided.status.success(), "{}", String::from_utf8_lossy(&decided.stderr));
    assert!(files(&local) == tree && world.head().await == tree);
    let pinned = world.pinned(&local, "conflict").await.unwrap();
    assert!(world.point(&pinned).await == history);
}
