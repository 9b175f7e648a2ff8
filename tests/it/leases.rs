//! `--lease postgres`: who waits, who gives way, and what an outage or a lying row can do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use session_sidecar::emulator::{BUCKET, Faults};

use crate::support::world::{Running, World, eventually, files, finished, refused};

/// A bot that appends to a file of its own until it is stopped, then says how often it wrote: `{dir}/{name}.written`.
const WRITER: &str = r#"
name=$1; out=$2; n=0
trap 'echo $n > "$out/$name.written"; exit 0' TERM
: > "$out/$name.up"
while :; do n=$((n+1)); echo $n > "$name-$n.txt"; sleep 0.05; done
"#;

fn quick(mut command: Command) -> Command {
    command.args(["--lease-ttl", "2s", "--min-hold", "0s", "--quiet-window", "50ms", "--mirror", "off"]);
    command
}

/// `exec` around a writer of this name.
fn writer(world: &World, root: &Path, name: &str, more: &[&str]) -> Command {
    std::fs::create_dir_all(root).unwrap();
    let mut command = quick(world.command("exec", root));
    command
        .current_dir(root)
        .args(more)
        .args(["--", "sh", "-c", WRITER, "writer", name])
        .arg(world.dir.path());
    command
}

fn mark(world: &World, name: &str) -> PathBuf {
    world.dir.path().join(name)
}

async fn is_up(world: &World, name: &str) {
    let path = mark(world, &format!("{name}.up"));
    eventually(&format!("{name} is up"), async || path.exists()).await;
}

/// All that a writer wrote is there.
fn has_all(files: &std::collections::BTreeMap<String, (u32, Vec<u8>)>, name: &str, written: u32) {
    let missing: Vec<u32> =
        (1..=written).filter(|n| !files.contains_key(&format!("{name}-{n}.txt"))).collect();
    assert!(missing.is_empty(), "{name}: {missing:?} of {written} are missing");
}

fn written(world: &World, name: &str) -> u32 {
    std::fs::read_to_string(mark(world, &format!("{name}.written"))).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_the_functions_is_refused_with_every_way_on() {
    let world = World::new().await;
    world.supabase.set_schema(false);
    let error = refused(world.command("restore", &world.root("root")), 2).await;
    for way in ["init", "schema", "--lease storage"] {
        assert!(error.contains(way), "{error}");
    }
    let mut storage = world.command("restore", &world.root("root"));
    storage.args(["--lease", "storage"]);
    assert!(finished(storage).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_have_the_session_waits_and_ends_with_7_and_a_holder_that_cannot_give_way_says_so() {
    let world = World::new().await;
    let root = world.tree("root");
    let holder = Running::start(&world, &root, &["--lease-ttl", "2s"]).await;
    let mut other = world.command("run", &world.root("other"));
    other.args(["--lease-wait", "3s", "--probe-listen", "off"]);
    let error = refused(other, 7).await;
    assert!(error.contains("strategy: Recreate"), "{error}");
    let status = world.status(&root).await;
    assert!(status["alarms"].to_string().contains("another process asks"), "{status}");
    let mut tool = world.command("logout", &world.root("third"));
    tool.args(["--lease-wait", "10m"]);
    assert!(refused(tool, 7).await.contains("has it"), "tools neither wait nor ask");
    assert_eq!(holder.stop().await, 0);
    assert_eq!(world.head().await, files(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_to_who_asks_and_comes_back_without_losing_a_write() {
    let world = World::new().await;
    let (a, b) = (world.root("a"), world.root("b"));
    let first = Running::spawn(writer(&world, &a, "first", &[]));
    is_up(&world, "first").await;
    // Each round is two handovers.
    let rounds = std::env::var("SIDECAR_TEST_HANDOVERS").map_or(6, |count| count.parse::<u32>().unwrap() / 2);
    for round in 0..rounds {
        let name = format!("other{round}");
        let other = Running::spawn(writer(&world, &b, &name, &[]));
        is_up(&world, &name).await;
        let wrote = written(&world, "first");
        has_all(&files(&b), "first", wrote);
        let up = mark(&world, "first.up");
        std::fs::remove_file(&up).unwrap();
        assert_eq!(other.stop().await, 0);
        is_up(&world, "first").await;
        has_all(&files(&a), &name, written(&world, &name));
    }
    assert_eq!(first.stop().await, 0);
    let head = world.head().await;
    has_all(&head, "first", written(&world, "first"));
    for round in 0..rounds {
        let name = format!("other{round}");
        has_all(&head, &name, written(&world, &name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_before_its_bot_is_up_gives_the_session_back() {
    let world = World::new().await;
    let first = Running::spawn(writer(&world, &world.root("a"), "first", &[]));
    is_up(&world, "first").await;
    std::fs::remove_file(mark(&world, "first.up")).unwrap();
    // A bad deploy: its command is found and cannot live.
    let mut bad = quick(world.command("exec", &world.root("b")));
    bad.args(["--", "sh", "-c", "kill -9 $PPID"]);
    let bad = finished(bad).await;
    assert!(!bad.status.success());
    is_up(&world, "first").await;
    assert_eq!(first.stop().await, 0);
    has_all(&world.head().await, "first", written(&world, "first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_killed_is_succeeded_and_goes_on_at_once_on_its_own_disk() {
    let world = World::new().await;
    let root = world.tree("root");
    let mut holder = Running::start(&world, &root, &["--lease-ttl", "1h"]).await;
    holder.0.kill().unwrap();
    // Until it is gone, the root is its own.
    holder.0.wait().unwrap();
    let again = Running::start(&world, &root, &["--lease-ttl", "2s", "--lease-wait", "0s"]).await;
    drop(again);
    let other = Running::start(&world, &world.root("other"), &["--lease-ttl", "2s"]).await;
    assert_eq!(files(&world.root("other")), files(&root));
    assert_eq!(other.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stood_still_while_another_took_over_acknowledges_nothing_and_stops_its_bot() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::new().await;
    let (a, b) = (world.root("a"), world.root("b"));
    let asleep = Running::spawn(writer(&world, &a, "asleep", &[]));
    is_up(&world, "asleep").await;
    eventually("something is committed", async || !world.head().await.is_empty()).await;
    let pid = Pid::from_raw(i32::try_from(asleep.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let awake = Running::spawn(writer(&world, &b, "awake", &[]));
    is_up(&world, "awake").await;
    let seen = files(&b).keys().filter(|name| name.starts_with("asleep-")).count();
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(asleep.ended().await, 7);
    let wrote = written(&world, "asleep");
    assert_eq!(awake.stop().await, 0);
    let head = world.head().await;
    has_all(&head, "awake", written(&world, "awake"));
    let kept = head.keys().filter(|name| name.starts_with("asleep-")).count();
    assert_eq!(kept, seen, "of {wrote} writes none of the fenced ones is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_while_the_database_is_away_and_when_its_row_went_back_in_time() {
    let world = World::new().await;
    let root = world.tree("root");
    let holder = Running::start(&world, &root, &["--lease-ttl", "1s"]).await;
    let yesterday = world.supabase.tables();
    world.supabase.set_faults("down=database".parse::<Faults>().unwrap());
    std::fs::write(root.join("meanwhile.json"), "{}").unwrap();
    eventually("it is committed", async || world.head().await.contains_key("meanwhile.json")).await;
    eventually("it is said", async || {
        world.status(&root).await["alarms"].to_string().contains("the lease ran out")
    })
    .await;
    world.supabase.set_faults(Faults::default());
    eventually("it is renewed", async || world.status(&root).await["alarms"] == serde_json::json!([])).await;
    assert_eq!(holder.stop().await, 0);

    let other = world.root("other");
    let holder = Running::start(&world, &other, &["--lease-ttl", "1s"]).await;
    world.supabase.put_tables(yesterday).unwrap();
    std::fs::write(other.join("later.json"), "{}").unwrap();
    eventually("it is committed", async || world.head().await.contains_key("later.json")).await;
    assert_eq!(holder.stop().await, 0);
    let third = Running::start(&world, &world.root("third"), &[]).await;
    assert_eq!(files(&world.root("third")), files(&other));
    assert_eq!(third.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_database_waits_for_it_or_ends_with_4() {
    let world = World::new().await;
    world.supabase.set_faults("down=database".parse::<Faults>().unwrap());
    let mut restore = world.command("restore", &world.root("root"));
    restore.args(["--outage-wait", "0s"]);
    refused(restore, 4).await;
    let patient = Running::spawn(writer(&world, &world.root("root"), "patient", &["--outage-wait", "0s"]));
    eventually("it waits", async || world.status(&world.root("root")).await["state"] == "waiting").await;
    world.supabase.set_faults(Faults::default());
    is_up(&world, "patient").await;
    assert_eq!(patient.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_strict_lease_the_bot_does_not_outlive_it() {
    let world = World::new().await;
    let root = world.root("root");
    let strict = Running::spawn(writer(&world, &root, "strict", &["--lease-strict"]));
    is_up(&world, "strict").await;
    std::fs::remove_file(mark(&world, "strict.up")).unwrap();
    world.supabase.set_faults("down=database".parse::<Faults>().unwrap());
    eventually("the bot is stopped", async || mark(&world, "strict.written").exists()).await;
    world.supabase.set_faults(Faults::default());
    is_up(&world, "strict").await;
    assert_eq!(strict.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_leaves_its_session_to_the_watch_of_its_own_pod() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let pod = world.root("pod");
    let mut restore = world.command("restore", &pod);
    restore.env("POD_UID", "one");
    assert!(finished(restore).await.status.success());
    let mut other = world.command("restore", &world.root("other"));
    other.env("POD_UID", "two").args(["--lease-wait", "0s"]);
    assert!(refused(other, 7).await.contains("has it"));
    let mut watch = world.command("watch", &pod);
    watch.env("POD_UID", "one").args(["--probe-listen", "off", "--lease-wait", "0s"]);
    let watch = Running::spawn(watch);
    eventually("it watches", async || world.status(&pod).await["ready"] == true).await;
    assert_eq!(watch.stop().await, 0);
    // Without a pod it is given back.
    assert!(finished(world.command("restore", &world.root("third"))).await.status.success());
    world.supabase.age_lease(BUCKET, "u1", "s1", Duration::ZERO).unwrap();
    let mut fourth = world.command("restore", &world.root("fourth"));
    fourth.args(["--lease-wait", "0s"]);
    assert!(finished(fourth).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_not_ours_is_stopped_and_started_by_a_command() {
    let world = World::new().await;
    let root = world.tree("root");
    let hook = format!(
        "echo $SIDECAR_HANDOVER >> {0}; env | grep -c SUPABASE_ >> {0}; true",
        mark(&world, "hook").display()
    );
    let holder =
        Running::start(&world, &root, &["--lease-ttl", "2s", "--min-hold", "0s", "--on-handover", &hook])
            .await;
    let other = Running::start(&world, &world.root("other"), &["--lease-ttl", "2s"]).await;
    assert_eq!(world.status(&root).await["state"], "queued");
    std::fs::write(world.root("other").join("new.json"), "{}").unwrap();
    assert_eq!(other.stop().await, 0);
    eventually("it came back", async || root.join("new.json").exists()).await;
    eventually("the bot is started", async || {
        std::fs::read_to_string(mark(&world, "hook")).unwrap() == "stop\n0\nstart\n0\n"
    })
    .await;
    assert_eq!(holder.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_bot_started_outlives_it() {
    let world = World::new().await;
    let root = world.root("root");
    std::fs::create_dir_all(&root).unwrap();
    let script = "setsid sh -c 'echo $$ > grandchild.txt; while :; do echo x > busy.txt; sleep 0.02; done' & \
                  while [ ! -e busy.txt ]; do sleep 0.02; done; exit 5";
    let mut command = world.command("exec", &root);
    command.current_dir(&root).args(["--", "sh", "-c", script]);
    assert_eq!(finished(command).await.status.code(), Some(5));
    let pid = std::fs::read_to_string(root.join("grandchild.txt")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it lives, or nobody reaped it");
    assert_eq!(world.head().await, files(&root));
}
