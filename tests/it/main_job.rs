//! The main job: a tree is committed, restored elsewhere, and mirrored.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::world::{Running, World, contents, eventually, files};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_tree_is_committed_and_restored_elsewhere_byte_for_byte() {
    let world = World::new().await;
    let here = world.tree("here");
    std::fs::set_permissions(here.join("creds.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
    world.sync(&here).await;
    let there = world.root("there");
    world.ok("restore", &there, &[]).await;
    assert_eq!(files(&here), files(&there));
    assert_eq!(files(&there).len(), 1257);
    assert_eq!(world.history_uploads(), 2, "one base, and one seal of the restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_opens_with_standard_tools() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let uploads = world.supabase.uploads();
    let base = uploads.iter().find(|upload| upload.key.ends_with(".base.tar.zst")).unwrap();
    let object = world.supabase.object_path(&base.bucket, &base.key).unwrap();
    let into = world.root("unpacked");
    std::fs::create_dir(&into).unwrap();
    let pipe = format!("zstd -dc '{}' | tar -x -C '{}'", object.display(), into.display());
    assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
    assert!(files(&into.join("files")) == files(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_ten_requests_however_many_files_there_are() {
    let world = World::new().await;
    world.ok("sync", &world.tree("here"), &["--mirror", "off"]).await;
    let requests = || {
        let counts = world.supabase.requests();
        counts.into_iter().partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with("rpc "))
    };
    let notes = "rpc note_session_metadata";
    let (calls, before) = requests();
    world.ok("restore", &world.root("there"), &[]).await;
    // The bucket; list, claim (an upload and a move), list; the base; whether there is a mirror; the seal; the short
    // list, and once more before ready.
    let (more_calls, after) = requests();
    assert_eq!(after.values().sum::<u64>() - before.values().sum::<u64>(), 10);
    assert_eq!(more_calls[notes] - calls[notes], 1, "and the row");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_additions_and_removals_reach_history_in_one_upload_and_then_the_mirror() {
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &["--quiet-window", "800ms"]).await;
    eventually("the first mirror is complete", async || world.status(&root).await["mirror"]["pending"] == 0)
        .await;
    let before = world.history_uploads();
    let sessions: Vec<String> =
        files(&root).into_keys().filter(|name| name.starts_with("session-")).collect();
    for (number, name) in sessions.iter().enumerate() {
        std::fs::write(root.join(name), format!("{{\"edited\":{number}}}")).unwrap();
        std::fs::write(root.join(format!("lid-mapping-new{number}.json")), "\"1\"").unwrap();
    }
    let gone: BTreeSet<String> =
        files(&root).into_keys().filter(|name| name.starts_with("tctoken-")).take(20).collect();
    for name in &gone {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    eventually("the head is the tree", async || world.head().await == files(&root)).await;
    assert_eq!(world.history_uploads(), before + 1, "a burst is one upload");
    eventually("the mirror is the tree", async || world.mirror() == contents(&root)).await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_reaches_the_mirror_with_the_next_reconcile() {
    let world = World::new().await;
    let root = world.root("root");
    let running = Running::start(&world, &root, &["--reconcile-interval", "1s"]).await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    std::fs::write(root.join("large.json"), &large).unwrap();
    eventually("the mirror has it", async || {
        let path = world.supabase.object_path("whatsapp-sessions", "u1/s1/large.json");
        path.is_some_and(|path| std::fs::read_to_string(path).is_ok_and(|mirrored| mirrored == large))
    })
    .await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sidecar_asks_for_nothing_but_the_list_of_a_reconcile() {
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &["--reconcile-interval", "1s", "--mirror", "off"]).await;
    let counts = || world.supabase.requests();
    let before = counts();
    let changed = |now: &BTreeMap<&str, u64>| -> Vec<(String, u64)> {
        let more =
            now.iter().map(|(route, count)| ((*route).to_owned(), count - before.get(route).unwrap_or(&0)));
        // The row of the start, and the lease, have their own times.
        more.filter(|(route, count)| *count > 0 && !route.starts_with("rpc ")).collect()
    };
    eventually("two reconciles passed", async || changed(&counts()).iter().any(|(_, count)| *count >= 2))
        .await;
    let routes = changed(&counts());
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert!(routes[0].0.contains("list-v2"), "{routes:?}");
    assert_eq!(running.stop().await, 0);
}
