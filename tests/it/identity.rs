//! The identity of an account: never lost to a ruined one, replaced only as a whole, ended on purpose.

use serde_json::{Value, json};

use crate::support::world::{Running, World, eventually, files, refused};

/// What bots and power cuts leave of a good `creds.json`: empty, truncated, made anew, waiting for a pairing code.
fn ruined(good: &[u8]) -> [Vec<u8>; 4] {
    let mut unpaired: Value = serde_json::from_slice(good).unwrap();
    unpaired.as_object_mut().unwrap().remove("account");
    unpaired.as_object_mut().unwrap().remove("me");
    let mut id_alone = unpaired.clone();
    id_alone["me"] = json!({ "id": "5511900000002:1@s.whatsapp.net" });
    [Vec::new(), good[..500].to_vec(), unpaired.to_string().into(), id_alone.to_string().into()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruined_creds_json_never_replaces_the_good_one() {
    let world = World::new().await;
    let root = world.tree("root");
    let good = std::fs::read(root.join("creds.json")).unwrap();
    let running = Running::start(&world, &root, &[]).await;
    for bad in ruined(&good) {
        std::fs::write(root.join("creds.json"), bad).unwrap();
        let output = world.run("sync", &root, &[]).await;
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.status(&root).await["state"], "held");
        assert_eq!(world.head().await["creds.json"].1, good);
    }
    assert_eq!(running.stop().await, 3);
    world.ok("restore", &root, &[]).await;
    assert_eq!(std::fs::read(root.join("creds.json")).unwrap(), good, "the start heals it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_beside_a_bot_that_may_live_puts_nothing_back_and_lets_no_other_bot_start() {
    let world = World::new().await;
    let root = world.tree("root");
    let good = std::fs::read(root.join("creds.json")).unwrap();
    assert_eq!(Running::start(&world, &root, &[]).await.stop().await, 0);
    std::fs::write(root.join("creds.json"), "").unwrap();
    let again = || {
        let mut command = world.command("run", &root);
        command.args(["--probe-listen", "off", "--quiet-window", "50ms"]);
        Running::spawn(command)
    };
    let held = async || {
        eventually("it is held", async || world.status(&root).await["state"] == "held").await;
        assert_eq!(world.status(&root).await["ready"], false);
        assert_eq!(std::fs::read(root.join("creds.json")).unwrap(), b"", "a bot may be at work");
    };
    let running = again();
    held().await;
    assert_eq!(running.stop().await, 3);
    assert_eq!(world.run("sync", &root, &[]).await.status.code(), Some(3));
    let running = again();
    held().await;
    // It mends it itself, or is linked again.
    std::fs::write(root.join("creds.json"), &good).unwrap();
    eventually("a bot may start", async || world.status(&root).await["ready"] == true).await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_heals_every_kind_of_ruined_creds_json() {
    let world = World::new().await;
    let source = world.tree("source");
    world.sync(&source).await;
    let tree = files(&source);
    let good = tree["creds.json"].1.clone();
    let ruined = ruined(&good).into_iter().map(Some).chain([None]);
    for (number, bad) in ruined.enumerate() {
        let root = world.root(&format!("root{number}"));
        world.ok("restore", &root, &[]).await;
        match bad {
            None => std::fs::remove_file(root.join("creds.json")).unwrap(),
            Some(bytes) => std::fs::write(root.join("creds.json"), bytes).unwrap(),
        }
        // Before a bot, as an init container: a `run` after it may find one alive.
        world.ok("restore", &root, &[]).await;
        assert!(files(&root) == tree, "ruin {number} is healed");
        assert!(world.head().await == tree, "ruin {number} is not in the head");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_heal_of_one_head_within_an_hour_is_a_decision_for_a_person() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let tree = files(&root);
    for _ in 0..2 {
        std::fs::write(root.join("creds.json"), "").unwrap();
        world.ok("restore", &root, &[]).await;
        assert!(files(&root) == tree);
    }
    std::fs::write(root.join("creds.json"), "").unwrap();
    let why = refused(world.command("restore", &root), 3).await;
    assert!(why.contains("`logout`") && why.contains("`accept-identity`"), "{why}");
    assert_eq!(std::fs::read(root.join("creds.json")).unwrap(), b"");
    assert!(world.head().await == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pairing_is_one_base_and_the_old_one_is_pinned_and_can_be_restored() {
    let world = World::new().await;
    let root = world.tree("root");
    let old = files(&root);
    let running = Running::start(&world, &root, &[]).await;
    let before = world.history_uploads();
    // As Baileys pairs anew: fresh keys first, their creds.json last.
    for name in old.keys().filter(|name| name.starts_with("pre-key-") || name.starts_with("session-")) {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    let pre_key = &old["pre-key-812.json"].1;
    for id in 1..=30 {
        std::fs::write(root.join(format!("pre-key-{id}.json")), pre_key).unwrap();
    }
    let mut creds: Value = serde_json::from_slice(&old["creds.json"].1).unwrap();
    creds["registrationId"] = json!(4711);
    creds["me"]["id"] = json!("5511900000003:7@s.whatsapp.net");
    creds["nextPreKeyId"] = json!(31);
    creds["firstUnuploadedPreKeyId"] = json!(31);
    std::fs::write(root.join("creds.json"), creds.to_string()).unwrap();
    let new = files(&root);
    eventually("the head is the tree", async || world.head().await == new).await;
    assert_eq!(world.history_uploads(), before + 1, "removals come with the identity that asked for them");
    assert_eq!(world.json("history", &root).await["points"][0]["base"], true);
    let pinned = world.pinned(&root, "identity").await.unwrap();
    assert!(world.point(&pinned).await == old);
    assert_eq!(running.stop().await, 0);
    world.ok("restore", &root, &["--at", &pinned]).await;
    assert!(files(&root) == old);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_identity_is_committed_and_the_one_before_it_is_pinned() {
    let world = World::new().await;
    let root = world.tree("root");
    let old = files(&root);
    let running = Running::start(&world, &root, &[]).await;
    std::fs::write(root.join("creds.json"), &ruined(&old["creds.json"].1)[2]).unwrap();
    eventually("it is held", async || world.status(&root).await["state"] == "held").await;
    assert!(world.head().await == old);
    world.ok("accept-identity", &root, &[]).await;
    assert_eq!(world.status(&root).await["state"], "ready");
    assert!(world.head().await == files(&root));
    let pinned = world.pinned(&root, "identity").await.unwrap();
    assert!(world.point(&pinned).await == old);
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_out_session_restores_as_a_new_one_also_on_the_same_disk() {
    let world = World::new().await;
    let root = world.tree("root");
    let tree = files(&root);
    world.sync(&root).await;
    world.ok("logout", &root, &[]).await;
    world.ok("restore", &root, &[]).await;
    assert!(files(&root).is_empty());
    let pinned = world.pinned(&root, "logout").await.unwrap();
    world.ok("restore", &root, &["--at", &pinned]).await;
    assert_eq!(files(&root), tree, "and a person can go back");
}
