//! What a start that cannot go on leaves alone, and what a damaged bucket does to a tree that is whole.

use std::path::PathBuf;

use crate::support::world::{Running, World, eventually, files, finished};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_leaves_the_session_to_its_owner() {
    let world = World::new().await;
    let owner = world.tree("owner");
    let running = Running::start(&world, &owner, &["--quiet-window", "50ms"]).await;
    let conflicting = world.tree("conflicting");
    std::fs::write(conflicting.join("session-other.json"), "{}").unwrap();
    let empty = world.root("empty");
    std::fs::create_dir(&empty).unwrap();
    let nowhere = ["--at", "00000009-00000009-00000009"];
    for (wanted, command, root, more) in [
        (3, "restore", &conflicting, &[][..]),
        (7, "watch", &empty, &["--probe-listen", "off"]),
        (3, "sync", &empty, &[]),
        (2, "restore", &empty, &nowhere),
    ] {
        let output = world.run(command, root, more).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(wanted), "{command}: {stderr}");
    }
    std::fs::write(owner.join("session-owner.json"), "{}").unwrap();
    world.ok("sync", &owner, &[]).await;
    assert!(world.head().await == files(&owner));
    assert_eq!(running.stop().await, 0);
}

/// The objects of history, newest last.
fn objects(world: &World) -> Vec<PathBuf> {
    let uploads = world.supabase.uploads();
    let commits = uploads.iter().filter(|upload| upload.key.ends_with(".tar.zst"));
    let mut keys: Vec<&String> = commits.map(|upload| &upload.key).collect();
    keys.sort();
    keys.iter().map(|key| world.supabase.object_path("whatsapp-sessions", key).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_of_ours_outlives_any_damage_of_its_history() {
    for same_pod in [true, false] {
        let world = World::new().await;
        let root = world.tree("root");
        world.ok("sync", &root, &[]).await;
        let base =
            objects(&world).into_iter().find(|path| path.to_string_lossy().contains(".base.")).unwrap();
        let mut bytes = std::fs::read(&base).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        std::fs::write(&base, bytes).unwrap();

        let empty = world.root("empty");
        let output = world.run("restore", &empty, &[]).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert!(stderr.contains("session u1/s1") && stderr.contains("point of its chain"), "{stderr}");
        assert!(!empty.exists() || files(&empty).is_empty());

        // Beside a bot that may live, and before one.
        if same_pod {
            let running = Running::start(&world, &root, &["--quiet-window", "50ms"]).await;
            eventually("a base is committed", async || {
                world.run("verify", &empty, &[]).await.status.success()
            })
            .await;
            assert_eq!(running.stop().await, 0);
        } else {
            let mut command = world.command("exec", &root);
            command.args(["--", "true"]);
            assert!(finished(command).await.status.success());
        }
        assert!(world.head().await == files(&root));
    }
}
