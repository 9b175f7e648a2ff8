//! Processes and their ends: beside a bot, around one, and after the session was lost.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::support::world::{Running, World, eventually, files, finished, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_stopped_flushed_and_its_exit_code_passed_through() {
    let world = World::new().await;
    let root = world.root("root");
    let mut command = world.command("exec", &root);
    command.args(["--", "sh", "-c", "env | grep -c ^SUPABASE_; exit 42"]);
    let output = finished(command).await;
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n", "our secrets are not the bot's");

    let marker = world.root("up");
    let script = "trap 'echo \"{\\\"last\\\":1}\" > \"$1/last.json\"; exit 0' TERM; : > \"$2\"; while :; do sleep 0.05; done";
    let mut command = world.command("exec", &root);
    command.args(["--", "sh", "-c", script, "bot"]).arg(&root).arg(&marker);
    let bot = Running::spawn(command);
    eventually("the bot is up", async || marker.exists()).await;
    assert_eq!(bot.stop().await, 0);
    assert_eq!(world.head().await["last.json"].1, b"{\"last\":1}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_bot_makes_right_before_its_end_is_kept() {
    let world = World::new().await;
    let root = world.root("many");
    let mut command = world.bare("exec", &root);
    command.env("ROOT", &root).args(["--", "sh", "-c"]);
    command.arg("mkdir -p \"$ROOT/u1/s1\" && echo '{}' > \"$ROOT/u1/s1/new.json\"");
    let output = finished(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.head().await["new.json"].1, b"{}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_quits_at_once_and_says_that_nothing_was_flushed() {
    let world = World::new().await;
    let (root, up) = (world.root("root"), world.root("up"));
    let mut command = world.command("exec", &root);
    command.args(["--grace", "20m", "--stop-timeout", "10m", "--", "sh", "-c"]);
    command.arg("trap '' TERM; : > \"$1\"; exec sleep 300").arg("bot").arg(&up);
    let mut running = Running::spawn(command);
    eventually("the bot is up", async || up.exists()).await;
    let mut code = None;
    // Two signals sent at once can arrive as one.
    eventually("it ends", async || {
        running.terminate();
        code = running.0.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    })
    .await;
    assert_eq!(code, Some(Some(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_the_session_exits_with_7_and_touches_nothing() {
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &["--lease", "storage"]).await;
    let other = world.root("other");
    let owner = Running::start(&world, &other, &["--lease", "storage"]).await;
    std::fs::write(root.join("late.json"), "{}").unwrap();
    assert_eq!(running.ended().await, 7);
    let again = world.run("run", &root, &["--probe-listen", "off", "--lease", "storage"]).await;
    assert_eq!(again.status.code(), Some(7), "a bot may live here: its tree is not replaced");
    assert!(root.join("late.json").exists());
    std::fs::write(other.join("of-the-owner.json"), "{}").unwrap();
    world.ok("sync", &other, &["--mirror", "off", "--lease", "storage"]).await;
    let head = world.head().await;
    assert!(head.contains_key("of-the-owner.json") && !head.contains_key("late.json"));
    assert_eq!(owner.stop().await, 0, "whoever may not start does not take the session from its owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_sidecar_goes_on_while_its_bot_still_writes() {
    let world = World::new().await;
    let root = world.tree("root");
    let in_pod = |command: &str, pod: &str| {
        let mut command = world.command(command, &root);
        command.env("POD_UID", pod);
        command
    };
    assert!(finished(in_pod("restore", "pod-1")).await.status.success());
    // The bot is up first.
    std::fs::write(root.join("first.json"), "{}").unwrap();
    let mut watch = in_pod("watch", "pod-1");
    watch.args(["--probe-listen", "off"]);
    let watch = Running::spawn(watch);
    eventually("the first write is kept", async || world.head().await == files(&root)).await;
    watch.terminate();
    // Both got the signal at once, and the bot takes its time.
    for n in 0..10 {
        sleep(Duration::from_millis(100)).await;
        std::fs::write(root.join("last.json"), format!("{{\"n\":{n}}}")).unwrap();
    }
    assert_eq!(watch.ended().await, 0);
    assert_eq!(world.head().await["last.json"].1, b"{\"n\":9}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_beside_a_bot_never_replaces_a_tree() {
    let world = World::new().await;
    let (root, empty) = (world.tree("root"), world.root("empty"));
    world.sync(&root).await;
    let tree = files(&root);
    let watch = async |root: &Path, code: i32| {
        let mut watch = world.command("watch", root);
        watch.args(["--probe-listen", "off"]);
        let why = refused(watch, code).await;
        assert!(why.contains("`restore`"), "{why}");
    };
    // Not restored yet: the bot would pair anew.
    watch(&empty, 7).await;
    assert!(files(&empty).is_empty());
    // Another went on with it.
    let other = world.root("other");
    world.ok("restore", &other, &[]).await;
    std::fs::write(other.join("more.json"), "{}").unwrap();
    world.sync(&other).await;
    watch(&root, 7).await;
    assert!(files(&root) == tree && world.head().await == files(&other));
}
