//! Commands as a person or a cron meets them: a bot on a terminal, signals, refusals, exit codes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::support::world::{Running, World, eventually, finished};

/// Runs a shell script on a terminal of its own where these lines are typed; what appears there.
async fn on_terminal(world: &World, root: &Path, script: &str, typed: &'static str) -> String {
    let mut command = Command::new("script");
    command.env_clear().args(["-qec", &format!("sh -c '{script}'"), "/dev/null"]);
    for (name, value) in world.command("exec", root).get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("SIDECAR", env!("CARGO_BIN_EXE_session-sidecar"));
    command.env("SIDECAR_ROOT", root).env("SIDECAR_SESSION", "u1/s1").env("RUST_LOG", "warn");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let mut keyboard = running.0.stdin.take().unwrap();
    let mut screen = running.0.stdout.take().unwrap();
    let shown = spawn_blocking(move || {
        keyboard.write_all(typed.as_bytes()).unwrap();
        let mut shown = String::new();
        std::io::Read::read_to_string(&mut screen, &mut shown).unwrap();
        shown
    });
    timeout(Duration::from_mins(1), shown).await.expect("it hangs").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_reads_the_terminal_and_gives_it_back() {
    let world = World::new().await;
    let script = "$SIDECAR exec -- sh -c \"read a; echo bot:\\$a\"; read b; echo shell:$b";
    let shown = on_terminal(&world, &world.root("root"), script, "one\ntwo\n").await;
    assert!(shown.contains("bot:one") && shown.contains("shell:two"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_the_terminal_stops_stops_us_too_until_the_shell_goes_on() {
    let world = World::new().await;
    let script = "set -m; $SIDECAR exec -- sh -c \"read a; kill -TSTP \\$\\$; echo bot:\\$a\"; \
                  echo stopped:$?; fg; echo ended:$?";
    let shown = on_terminal(&world, &world.root("root"), script, "one\n").await;
    let places: Vec<_> = ["stopped:148", "bot:one", "ended:0"].map(|text| shown.find(text)).into();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_gets_the_signal_that_came() {
    let world = World::new().await;
    for (signal, code) in [(Signal::INT, 21), (Signal::TERM, 22)] {
        let (root, up) = (world.root("root"), world.root("up"));
        let mut command = world.command("exec", &root);
        let script = "trap 'exit 21' INT; trap 'exit 22' TERM; : > \"$1\"; while :; do sleep 0.05; done";
        command.args(["--", "sh", "-c", script, "bot"]).arg(&up).stderr(Stdio::null());
        let mut bot = Running(command.spawn().unwrap());
        eventually("the bot is up", async || up.exists()).await;
        kill_process(Pid::from_child(&bot.0), signal).unwrap();
        let ended = spawn_blocking(move || bot.0.wait().unwrap().code()).await.unwrap();
        assert_eq!(ended, Some(code));
        std::fs::remove_file(&up).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_cannot_start_takes_nothing_over() {
    let world = World::new().await;
    let root = world.root("root");
    let mut command = world.command("exec", &root);
    command.args(["--", "no-such-bot"]);
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("`no-such-bot`"), "{stderr}");
    assert!(world.supabase.uploads().is_empty() && !root.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_state_directory_was_removed_can_be_asked_again() {
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &[]).await;
    std::fs::remove_dir_all(root.join(".session-sidecar")).unwrap();
    eventually("it answers", async || {
        let output = world.run("status", &root, &["--json"]).await;
        serde_json::from_slice(&output.stdout).is_ok_and(|status: Value| status["running"] == true)
    })
    .await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_start_is_told_once() {
    let world = World::new().await;
    world.ok("sync", &world.tree("root"), &[]).await;
    let mut command = world.command("watch", &world.root("empty"));
    command.env("RUST_LOG", "error").args(["--probe-listen", "off"]);
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
}
