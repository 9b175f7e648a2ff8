//! Starts while storage does not answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use session_sidecar::emulator::Faults;
use tokio::task::spawn_blocking;

use crate::support::world::{Running, World, eventually, files, finished};

impl World {
    /// A root of many with one session on disk, and another that only the bucket knows.
    async fn two_sessions(&self) -> PathBuf {
        let root = self.root("many");
        for (at, session) in [(&root, "here"), (&self.root("elsewhere"), "there")] {
            let dir = at.join("u1").join(session);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("note.json"), format!("\"{session}\"")).unwrap();
            let synced = finished(self.bare("sync", at)).await;
            assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));
        }
        assert!(!root.join("u1/there").exists());
        root
    }

    fn break_down(&self) {
        self.supabase.set_faults("down".parse().unwrap());
    }

    fn come_back(&self) {
        self.supabase.set_faults(Faults::default());
    }

    fn asked(&self) -> u64 {
        self.supabase.requests().values().sum()
    }

    /// A command that meets the outage.
    async fn begun(&self, mut command: Command) -> Running {
        let before = self.asked();
        let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("it has asked in vain", async || self.asked() >= before + 3).await;
        running
    }
}

async fn code(mut running: Running) -> Option<i32> {
    spawn_blocking(move || running.0.wait().unwrap().code()).await.unwrap()
}

fn is_restored(root: &Path) -> bool {
    std::fs::read_to_string(root.join("u1/there/note.json")).is_ok_and(|text| text == "\"there\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_is_not_borne_is_found_by_one_request() {
    let world = World::new().await;
    world.break_down();
    let root = world.root("root");
    let output = world.run("restore", &root, &["--outage-wait", "0s"]).await;
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.asked(), 1);
    let mut many = world.bare("restore", &root);
    many.args(["--outage-wait", "0s"]);
    assert_eq!(finished(many).await.status.code(), Some(4));
    assert_eq!(world.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nobody_listens_is_an_outage() {
    let world = World::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = world.command("run", &world.root("root"));
    command
        .args(["--probe-listen", "off", "--outage-wait", "1s"])
        .env("SUPABASE_URL", format!("http://{free}"));
    assert_eq!(finished(command).await.status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_for_sessions_that_only_the_bucket_knows() {
    let world = World::new().await;
    let root = world.two_sessions().await;
    world.break_down();
    let restore = world.begun(world.bare("restore", &root)).await;
    world.come_back();
    assert_eq!(code(restore).await, Some(0));
    assert!(is_restored(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_cannot_know_all_sessions_fails_and_changes_nothing() {
    let world = World::new().await;
    let root = world.two_sessions().await;
    let tree = files(&root);
    world.break_down();
    for command in ["restore", "run"] {
        let mut command = world.bare(command, &root);
        command.args(["--outage-wait", "1s"]).env("SIDECAR_PROBE_LISTEN", "off").env("POD_UID", "another");
        let output = finished(command).await;
        assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(files(&root) == tree);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_waits_for_sessions_that_only_the_bucket_knows() {
    let world = World::new().await;
    let root = world.two_sessions().await;
    world.break_down();
    let mut exec = world.bare("exec", &root);
    exec.args(["--outage-wait", "0s", "--", "cat"]).arg(root.join("u1/there/note.json"));
    let exec = world.begun(exec).await;
    world.come_back();
    assert_eq!(code(exec).await, Some(0), "what the bot reads is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_living_bot_the_others_are_restored_once_storage_is_back() {
    let world = World::new().await;
    let root = world.two_sessions().await;
    let run = |more: &[&str]| {
        let mut run = world.bare("run", &root);
        run.args(["--probe-listen", "off"]).args(more).env("POD_UID", "1");
        run
    };
    // Its bot was started; then the sidecar alone died.
    let first = Running(run(&["--select", "u1/here"]).stderr(Stdio::null()).spawn().unwrap());
    let ready = async |session: &str| {
        let mut status = world.bare("status", &root);
        status.arg("--json");
        let output = finished(status).await;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let all = status["sessions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["session"] == format!("u1/{session}"))
    };
    eventually("the bot may start", async || ready("here").await.is_some_and(|one| one["ready"] == true))
        .await;
    drop(first);
    world.break_down();
    let again = world.begun(run(&[])).await;
    eventually("it goes on", async || ready("here").await.is_some_and(|one| one["state"] == "not_owned"))
        .await;
    world.come_back();
    eventually("the other is restored", async || is_restored(&root)).await;
    eventually("both are owned", async || {
        let (here, there) = (ready("here").await, ready("there").await);
        [here, there].into_iter().all(|one| one.is_some_and(|one| one["state"] == "ready"))
    })
    .await;
    assert_eq!(again.stop().await, 0);
}
