//! Bots on the real Baileys (npm, installed by `tests/run.sh`): the session goes from hand to hand, and its library finds
//! in the one exactly what it wrote in the other.

use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use session_sidecar::tree::Hash;

use crate::support::world::{Files, Running, World, eventually};

/// Hashes by file name, as the library reads the files.
type Hashes = BTreeMap<String, String>;

/// What `tests/tools.sh` installs.
fn tool(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    assert!(path.exists(), "{} is missing: tests/run.sh --install-only", path.display());
    path
}

/// Node, with the libraries' code compiled once for all of its starts.
fn node(command: &mut Command, world: &World) {
    command.env("NODE_COMPILE_CACHE", world.dir.path().join("compiled"));
    command.arg("--").arg(tool("node/bin/node"));
}

/// `exec` around a bot that writes through Baileys' store.
struct Pod {
    running: Running,
    root: PathBuf,
    log: Log,
}

impl Pod {
    fn start(world: &World, name: &str) -> Self {
        let (root, log) = (world.root(name), world.dir.path().join(format!("{name}.log")));
        std::fs::create_dir_all(&root).unwrap();
        let mut command = world.command("exec", &root);
        command.args(["--lease-ttl", "2s", "--min-hold", "0s"]);
        command.args(["--quiet-window", "50ms", "--max-wait", "300ms"]);
        command.args(["--mirror", "off", "--metadata", "off", "--listen", "off"]).current_dir(&root);
        node(&mut command, world);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/baileys/writer.mjs"));
        command.arg(tool("baileys-bot"));
        let running =
            Running(command.stdout(File::create(&log).unwrap()).stderr(Stdio::null()).spawn().unwrap());
        Self { running, root, log: Log(log) }
    }
}

/// What a pod's bots said, life after life.
struct Log(PathBuf);

impl Log {
    /// A last line that is not whole yet is left out.
    fn said(&self) -> Vec<Value> {
        let text = read_to_string(&self.0).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last line of a kind.
    fn last(&self, word: &str) -> Value {
        self.said().into_iter().rfind(|line| line.get(word).is_some()).unwrap()
    }

    /// The bot's `lives`-th life began, and has topped its pre-keys up.
    async fn lives(&self, lives: usize) {
        eventually(&format!("life {lives} by {}", self.0.display()), async || {
            let said = self.said();
            let ups: Vec<usize> = (0..said.len()).filter(|n| said[*n].get("up").is_some()).collect();
            ups.len() == lives && said[ups[lives - 1]..].iter().any(|line| line["done"][0] == "creds.json")
        })
        .await;
    }

    /// What the library found when the bot's last life began.
    fn found(&self) -> Hashes {
        serde_json::from_value(self.last("up")["files"].clone()).unwrap()
    }

    /// What the bot had when it last ended.
    fn left(&self) -> Hashes {
        serde_json::from_value(self.last("end")["end"].clone()).unwrap()
    }
}

fn same(found: &Hashes, left: &Hashes) {
    let differ: Vec<_> =
        left.keys().chain(found.keys()).filter(|name| found.get(*name) != left.get(*name)).collect();
    assert!(differ.is_empty(), "not as they were left: {differ:?}");
    assert!(left.len() > 50 && left.contains_key("creds.json"), "{left:?}");
}

fn hashes(files: &Files) -> Hashes {
    files.iter().map(|(name, (_, bytes))| (name.clone(), Hash::of(bytes).to_string())).collect()
}

/// The number of a pre-key's file.
fn pre_key(name: &str) -> Option<u64> {
    name.strip_prefix("pre-key-")?.strip_suffix(".json")?.parse().ok()
}

/// Every version that a file had by the log, oldest first; None: it was removed.
fn versions(said: &[Value], name: &str) -> Vec<Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found = said.iter().filter_map(|line| line.get("files")).map(|files| files.get(name).and_then(text));
    let tried = said.iter().filter_map(|line| line.get("try")?.get(name)).map(text);
    found.chain(tried).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn baileys_finds_what_it_wrote_after_every_handover_and_nothing_torn_after_a_lost_node() {
    let world = World::new().await;
    let old = Pod::start(&world, "old");
    old.log.lives(1).await;
    // Asked, it hands over; left alone again, it takes the session back.
    for round in 1..=2 {
        let new = Pod::start(&world, &format!("new{round}"));
        new.log.lives(1).await;
        same(&new.log.found(), &old.log.left());
        assert_eq!(new.running.stop().await, 0);
        old.log.lives(round + 1).await;
        same(&old.log.found(), &new.log.left());
    }
    let lost = Pod::start(&world, "lost");
    lost.log.lives(1).await;
    same(&lost.log.found(), &old.log.left());

    // Its node dies with all that is on it, while its bot is at work.
    let up = lost.log.last("up");
    let began = up["next"].as_u64().unwrap();
    let mut acknowledged = Files::new();
    eventually("top-ups are committed", async || {
        acknowledged = world.head().await;
        let creds: Value = serde_json::from_slice(&acknowledged["creds.json"].1).unwrap();
        creds["nextPreKeyId"].as_u64().unwrap() >= began + 10
    })
    .await;
    drop(lost.running);
    let bot = Pid::from_raw(i32::try_from(up["up"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(bot, Signal::KILL).unwrap();
    eventually("its bot is gone", async || test_kill_process(bot).is_err()).await;
    std::fs::remove_dir_all(&lost.root).unwrap();
    old.log.lives(4).await;

    let (said, found, acknowledged) = (lost.log.said(), old.log.found(), hashes(&acknowledged));
    assert!(found.len() > 50 && acknowledged.len() > 50, "{found:?}");
    for name in found.keys().chain(acknowledged.keys()) {
        // As it was when it was acknowledged, or newer; never anything else.
        let versions = versions(&said, name);
        let place = |hash: Option<&String>| versions.iter().rposition(|version| version.as_ref() == hash);
        let (now, then) = (place(found.get(name)), place(acknowledged.get(name)));
        assert!(now.is_some() && then.is_some(), "{name} was never as it was found");
        assert!(now >= then, "{name} went back: {now:?} of {versions:?}, acknowledged {then:?}");
    }
    // Credentials and pre-keys of one moment: none is ahead of the credentials, none is missing that was not used.
    let next = old.log.last("up")["next"].as_u64().unwrap();
    assert!(next >= began + 10, "{next}");
    let keys: Vec<u64> = found.keys().filter_map(|name| pre_key(name)).collect();
    assert!(keys.iter().all(|key| *key < next), "{next}: {keys:?}");
    let used = |key: u64| versions(&said, &format!("pre-key-{key}.json")).last() == Some(&None);
    let missing: Vec<u64> = (1..next).filter(|key| !keys.contains(key) && !used(*key)).collect();
    assert!(missing.is_empty(), "{next}: {missing:?}");
    assert_eq!(old.running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_bot_ends_in_order_and_leaves_a_whole_session() {
    let world = World::new().await;
    let (root, home, said) =
        (world.root("root"), world.dir.path().join("bot"), world.dir.path().join("said"));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/baileys-bot");
    std::fs::create_dir_all(&home).unwrap();
    for file in ["bot.js", "package.json"] {
        std::fs::copy(example.join(file), home.join(file)).unwrap();
    }
    std::os::unix::fs::symlink(tool("baileys-bot/node_modules"), home.join("node_modules")).unwrap();
    std::fs::create_dir_all(&root).unwrap();
    let mut command = world.command("exec", &root);
    command.args(["--mirror", "off", "--listen", "off"]).current_dir(&home);
    // Nobody answers there.
    command.env("SIDECAR_ROOT", &root).env("WHATSAPP_URL", "ws://127.0.0.1:9/");
    node(&mut command, &world);
    let bot = command.arg("bot.js").stdout(File::create(&said).unwrap()).stderr(Stdio::null());
    let bot = Running(bot.spawn().unwrap());
    eventually("it connects again", async || {
        read_to_string(&said).unwrap().matches("connecting").count() > 1
    })
    .await;
    // As platforms do that signal every process of a container.
    bot.terminate();
    assert_eq!(bot.stop().await, 0);
    let head = world.head().await;
    let creds: Value = serde_json::from_slice(&head["creds.json"].1).unwrap();
    assert!(creds["noiseKey"]["private"].is_object(), "{creds}");
}
