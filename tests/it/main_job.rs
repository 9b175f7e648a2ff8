//! The main job with the real binary: commit, restore, guard, and the ends of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use session_sidecar::emulator::{self, Emulator, Options};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::fixtures;

const SESSION: &str = "u1/s1";

/// A bucket on loopback, and a directory for roots.
pub struct World {
    pub dir: tempfile::TempDir,
    pub supabase: Emulator,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().join("supabase"), ..Options::default() };
        Self { supabase: emulator::start(options).await.unwrap(), dir }
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root with the small tree in it.
    pub fn tree(&self, name: &str) -> PathBuf {
        let root = self.root(name);
        std::fs::create_dir_all(&root).unwrap();
        fixtures::unpack(fixtures::SMALL, &root);
        root
    }

    /// Of a root of many.
    pub fn bare(&self, command: &str, root: &Path) -> Command {
        let mut sidecar = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        sidecar.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        sidecar.env("SUPABASE_URL", self.supabase.url());
        sidecar.env("SUPABASE_SERVICE_ROLE_KEY", self.supabase.service_role_key());
        sidecar.arg(command).arg("--root").arg(root).stdin(Stdio::null());
        sidecar
    }

    /// The same for a root that is the session.
    pub fn command(&self, command: &str, root: &Path) -> Command {
        let mut sidecar = self.bare(command, root);
        sidecar.args(["--session", SESSION]);
        sidecar
    }

    pub async fn run(&self, command: &str, root: &Path, more: &[&str]) -> Output {
        let mut command = self.command(command, root);
        command.args(more);
        finished(command).await
    }

    pub async fn ok(&self, command: &str, root: &Path, more: &[&str]) -> String {
        let output = self.run(command, root, more).await;
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn json(&self, command: &str, root: &Path) -> Value {
        serde_json::from_str(&self.ok(command, root, &["--json"]).await).unwrap()
    }

    /// What a fresh restore would give, without taking the session over.
    pub async fn head(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let to = tempfile::tempdir_in(self.dir.path()).unwrap();
        let target = to.path().join("head");
        self.ok("export", &self.root("nowhere"), &["--to", target.to_str().unwrap()]).await;
        files(&target)
    }

    pub fn history_uploads(&self) -> usize {
        self.supabase.uploads().iter().filter(|upload| upload.key.ends_with(".tar.zst")).count()
    }
}

/// Runs to the end.
pub async fn finished(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Files by path, with mode and content; without the state directory.
pub fn files(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".session-sidecar" {
            } else if path.is_dir() {
                dirs.push(path);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                found.insert(name, (mode, std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Asks again until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A process that keeps a root; killed when the test ends early.
pub struct Running(pub Child);

impl Running {
    pub async fn start(world: &World, root: &Path, more: &[&str]) -> Self {
        let mut command = world.command("run", root);
        command.args(["--probe-listen", "off"]).args(more).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Self(command.spawn().unwrap());
        eventually("the session is ready", async || world.status(root).await["ready"] == true).await;
        running
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub async fn stop(mut self) -> i32 {
        self.terminate();
        spawn_blocking(move || self.0.wait().unwrap().code().unwrap()).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    pub async fn status(&self, root: &Path) -> Value {
        let output = self.run("status", root, &["--json"]).await;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["sessions"][0].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_tree_is_committed_and_restored_elsewhere_byte_for_byte() {
    let world = World::new().await;
    let here = world.tree("here");
    std::fs::set_permissions(here.join("creds.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
    world.ok("sync", &here, &[]).await;
    let there = world.root("there");
    world.ok("restore", &there, &[]).await;
    assert_eq!(files(&here), files(&there));
    assert_eq!(files(&there).len(), 1257);
    assert_eq!(world.history_uploads(), 2, "one base, and one seal of the restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_ten_requests_however_many_files_there_are() {
    let world = World::new().await;
    world.ok("sync", &world.tree("here"), &["--mirror", "off"]).await;
    let requests = || world.supabase.requests().values().sum::<u64>();
    let before = requests();
    world.ok("restore", &world.root("there"), &[]).await;
    // The bucket; list, claim (an upload and a move), list; the base; whether there is a mirror; the seal; the short
    // list, and once more before ready.
    assert_eq!(requests() - before, 10);
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
    let mirror = world.supabase.object_path("whatsapp-sessions", "u1/s1/creds.json").unwrap();
    let mirror = mirror.parent().unwrap().to_path_buf();
    let contents = |root: &Path| -> BTreeMap<String, Vec<u8>> {
        files(root).into_iter().map(|(name, (_, bytes))| (name, bytes)).collect()
    };
    eventually("the mirror is the tree", async || contents(&mirror) == contents(&root)).await;
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
        more.filter(|(_, count)| *count > 0).collect()
    };
    eventually("two reconciles passed", async || changed(&counts()).iter().any(|(_, count)| *count >= 2))
        .await;
    let routes = changed(&counts());
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert!(routes[0].0.contains("list-v2"), "{routes:?}");
    assert_eq!(running.stop().await, 0);
}

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
    let bot = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
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
async fn a_ruined_creds_json_never_replaces_the_good_one() {
    let world = World::new().await;
    let root = world.tree("root");
    let good = std::fs::read(root.join("creds.json")).unwrap();
    let mut unpaired: Value = serde_json::from_slice(&good).unwrap();
    unpaired.as_object_mut().unwrap().remove("account");
    unpaired.as_object_mut().unwrap().remove("me");
    let mut id_alone = unpaired.clone();
    id_alone["me"] = serde_json::json!({ "id": "5511900000002:1@s.whatsapp.net" });
    let running = Running::start(&world, &root, &[]).await;
    let (unpaired, id_alone) = (unpaired.to_string(), id_alone.to_string());
    let ruined: [&[u8]; 4] = [b"", &good[..500], unpaired.as_bytes(), id_alone.as_bytes()];
    for bad in ruined {
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
async fn another_pairing_is_committed_whole_and_the_old_one_stays_pinned() {
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &[]).await;
    let mut creds: Value = serde_json::from_slice(&std::fs::read(root.join("creds.json")).unwrap()).unwrap();
    creds["registrationId"] = serde_json::json!(4711);
    creds["me"]["id"] = serde_json::json!("5511900000003:7@s.whatsapp.net");
    std::fs::write(root.join("creds.json"), creds.to_string()).unwrap();
    eventually("the head is the tree", async || world.head().await == files(&root)).await;
    let points = world.json("history", &root).await["points"].as_array().unwrap().clone();
    assert_eq!(points[0]["base"], true);
    assert!(points.iter().any(|point| point["pins"][0] == "identity"), "{points:?}");
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_out_session_restores_as_a_new_one_also_on_the_same_disk() {
    let world = World::new().await;
    let root = world.tree("root");
    let tree = files(&root);
    world.ok("sync", &root, &[]).await;
    world.ok("logout", &root, &[]).await;
    world.ok("restore", &root, &[]).await;
    assert!(files(&root).is_empty());
    let pinned = world.json("history", &root).await["points"].as_array().unwrap().clone();
    let pinned = pinned.iter().find(|point| point["pins"][0] == "logout").unwrap()["id"].clone();
    world.ok("restore", &root, &["--at", pinned.as_str().unwrap()]).await;
    assert_eq!(files(&root), tree, "and a person can go back");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_the_session_exits_with_7_and_touches_nothing() {
    let world = World::new().await;
    let root = world.tree("root");
    let mut running = Running::start(&world, &root, &[]).await;
    world.ok("restore", &world.root("other"), &[]).await;
    std::fs::write(root.join("late.json"), "{}").unwrap();
    let code = spawn_blocking(move || running.0.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(7));
    assert!(!world.head().await.contains_key("late.json"));
    let again = world.run("run", &root, &["--probe-listen", "off"]).await;
    assert_eq!(again.status.code(), Some(7), "a bot may live here: its tree is not replaced");
    assert!(root.join("late.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills_under_faults() {
    let world = World::new().await;
    let root = world.root("root");
    world.supabase.set_faults("errors=0.05,resets=0.01,cut=0.01,late-uploads=0.01".parse().unwrap());
    let mut acknowledged = 0;
    for life in 1..=12_u64 {
        let running = Running::start(&world, &root, &["--quiet-window", "50ms", "--mirror", "off"]).await;
        std::fs::write(root.join("counter.json"), life.to_string()).unwrap();
        // Lives end at different moments of a commit.
        if life % 3 == 0 {
            let output = world.run("sync", &root, &[]).await;
            if output.status.success() {
                acknowledged = life;
            }
        } else {
            sleep(Duration::from_millis(life * 13 % 200)).await;
        }
        drop(running);
    }
    world.supabase.set_faults(emulator::Faults::default());
    assert!(acknowledged > 0, "no life got a word of acknowledgement");
    let counter: u64 =
        String::from_utf8(world.head().await["counter.json"].1.clone()).unwrap().parse().unwrap();
    assert!(counter >= acknowledged, "{counter} < {acknowledged}");
    let mut contents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for upload in world.supabase.uploads() {
        if upload.key.contains(".tar.zst") {
            contents.entry(upload.key.clone()).or_default().insert(upload.sha256.clone());
        }
    }
    assert!(contents.values().all(|contents| contents.len() == 1), "a name was uploaded with two contents");
    world.ok("restore", &root, &[]).await;
    assert_eq!(std::fs::read_dir(root.join(".session-sidecar/staging")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_one_line_the_right_exit_code_and_an_unchanged_tree() {
    let world = World::new().await;
    let root = world.tree("root");
    let tree = files(&root);
    let run = async |code: i32, change: &dyn Fn(&mut Command)| {
        let mut command = world.command("restore", &root);
        command.env("RUST_LOG", "off").args(["--outage-wait", "0s"]);
        change(&mut command);
        let output = finished(command).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
        assert!(!stderr.contains(world.supabase.service_role_key()), "a secret in an error");
    };
    run(5, &|command| {
        command.env("SUPABASE_SERVICE_ROLE_KEY", world.supabase.anon_key());
    })
    .await;
    run(5, &|command| {
        command.env("SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_x");
    })
    .await;
    run(2, &|command| {
        command.env("SUPABASE_BUCKET", "typo");
    })
    .await;
    run(4, &|command| {
        command.env("SUPABASE_URL", "http://127.0.0.1:9");
    })
    .await;
    run(2, &|command| {
        command.env("SUPABASE_URL", "postgres://x");
    })
    .await;
    assert_eq!(files(&root), tree);
    let file = world.root("file");
    std::fs::write(&file, "x").unwrap();
    let output = world.run("restore", &file, &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(files(&root), tree);
}
