//! Roots that hold many sessions.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::world::{Running, World, eventually, files, finished};

async fn status(world: &World, root: &Path) -> Value {
    let mut command = world.bare("status", root);
    command.arg("--json");
    serde_json::from_slice(&finished(command).await.stdout).unwrap_or_default()
}

/// `run`, once every session of the bucket is ready.
async fn run(world: &World, root: &Path, more: &[&str], sessions: usize) -> Running {
    let mut command: Command = world.bare("run", root);
    command.args(["--probe-listen", "off"]).args(more);
    let running = Running::spawn(command);
    eventually("all are ready", async || {
        let status = status(world, root).await;
        let sessions_ready = status["sessions"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|one| one["ready"] == true).count());
        sessions_ready == sessions
    })
    .await;
    running
}

fn write(root: &Path, session: &str, text: &str) {
    std::fs::create_dir_all(root.join(session)).unwrap();
    std::fs::write(root.join(session).join("a.json"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_of_a_root_are_restored_and_kept_also_those_that_appear() {
    let world = World::new().await;
    let (old, new) = (world.root("old"), world.root("new"));
    for (session, text) in [("u1/s1", "1"), ("u1/s2", "2"), ("u2/s1", "3")] {
        write(&old, session, text);
    }
    assert!(finished(world.bare("sync", &old)).await.status.success());
    let running = run(&world, &new, &[], 3).await;
    assert!(files(&new) == files(&old));
    write(&new, "u1/s1", "10");
    write(&new, "u2/s1", "30");
    write(&new, "u3/new", "4");
    for (session, text) in [("u1/s1", "10"), ("u1/s2", "2"), ("u2/s1", "30"), ("u3/new", "4")] {
        eventually(session, async || {
            let head = world.head_of(session).await;
            head.get("a.json").is_some_and(|(_, bytes)| bytes == text.as_bytes())
        })
        .await;
    }
    assert_eq!(running.stop().await, 0);

    // A user's own root.
    let own = world.root("own");
    let running = run(&world, &own, &["--user", "u1"], 2).await;
    assert_eq!(std::fs::read(own.join("s1/a.json")).unwrap(), b"10");
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 3, "s1, s2 and the state");
    write(&own, "s2", "20");
    eventually("it is kept", async || world.head_of("u1/s2").await["a.json"].1 == b"20").await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_appears_and_has_a_history_is_held_and_harms_nobody() {
    let world = World::new().await;
    let (root, elsewhere) = (world.root("root"), world.root("elsewhere"));
    write(&root, "u1/s1", "1");
    let running = run(&world, &root, &[], 1).await;
    write(&elsewhere, "u2/s1", "2");
    let owner = run(&world, &elsewhere, &["--select", "u2/s1"], 1).await;
    eventually("it is kept", async || world.head_of("u2/s1").await.contains_key("a.json")).await;
    let of_the_owner = world.head_of("u2/s1").await;

    write(&root, "u2/s1", "another's");
    eventually("it is held", async || status(&world, &root).await["sessions"][1]["state"] == "held").await;
    let alarm = status(&world, &root).await["sessions"][1]["alarms"][0].clone();
    assert!(alarm.as_str().unwrap().contains("u2/s1"), "{alarm}");
    assert!(world.head_of("u2/s1").await == of_the_owner);
    assert_eq!(std::fs::read(root.join("u2/s1/a.json")).unwrap(), b"another's");

    // Both processes go on with what is theirs.
    write(&root, "u1/s1", "10");
    write(&elsewhere, "u2/s1", "20");
    for (session, text) in [("u1/s1", "10"), ("u2/s1", "20")] {
        eventually(session, async || world.head_of(session).await["a.json"].1 == text.as_bytes()).await;
    }
    assert_eq!(owner.stop().await, 0);
    assert_eq!(running.stop().await, 3);
}
