//! Long lives with the real binary: random edits, many kills, starts on ruined trees, and what must never be
//! taken for a new session.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use session_sidecar::emulator::{BucketOptions, Faults};
use session_sidecar::session::STATE_DIR;
use tokio::time::sleep;

use crate::main_job::{Running, World, eventually, files, finished};

#[tokio::test(flavor = "multi_thread")]
async fn a_base_opens_with_standard_tools() {
    let world = World::new().await;
    let root = world.tree("root");
    world.ok("sync", &root, &[]).await;
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
async fn random_edits_additions_and_removals_are_all_in_the_head() {
    const SEED: u64 = 7;
    let world = World::new().await;
    let root = world.tree("root");
    let running = Running::start(&world, &root, &["--quiet-window", "50ms"]).await;
    let mut random = StdRng::seed_from_u64(SEED);
    // Pre-keys belong together with creds.json: tests of their group write them.
    let plain = |name: &String| name != "creds.json" && !name.starts_with("pre-key-");
    for number in 0..200 {
        let name = files_named(&root).into_iter().filter(plain).choose(&mut random).unwrap();
        match random.random_range(0..4) {
            0 => std::fs::remove_file(root.join(name)).unwrap(),
            1 => std::fs::write(root.join(format!("lid-mapping-{number}.json")), "\"1\"").unwrap(),
            2 => {
                // As a library that writes elsewhere and renames.
                std::fs::write(root.join("new.tmp"), format!("{{\"n\":{number}}}")).unwrap();
                std::fs::rename(root.join("new.tmp"), root.join(name)).unwrap();
            }
            _ => std::fs::write(root.join(name), format!("{{\"edited\":{number}}}")).unwrap(),
        }
        if random.random_bool(0.1) {
            sleep(Duration::from_millis(random.random_range(1..120))).await;
        }
    }
    eventually("the head is the tree", async || world.head().await == files(&root)).await;
    let mirror = world.supabase.object_path("whatsapp-sessions", "u1/s1/creds.json").unwrap();
    let mirror = mirror.parent().unwrap().to_path_buf();
    eventually("the mirror is the tree", async || contents(&mirror) == contents(&root)).await;
    assert_eq!(running.stop().await, 0);
}

fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    files(root).into_iter().map(|(name, (_, bytes))| (name, bytes)).collect()
}

fn files_named(root: &Path) -> Vec<String> {
    files(root).into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_quits_at_once_and_says_that_nothing_was_flushed() {
    let world = World::new().await;
    let (root, up) = (world.root("root"), world.root("up"));
    let mut command = world.command("exec", &root);
    command.args(["--grace", "20m", "--stop-timeout", "10m", "--", "sh", "-c"]);
    command.arg("trap '' TERM; : > \"$1\"; exec sleep 300").arg("bot").arg(&up);
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
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
async fn a_start_heals_every_kind_of_ruined_creds_json() {
    let world = World::new().await;
    let source = world.tree("source");
    world.ok("sync", &source, &[]).await;
    let tree = files(&source);
    let good = tree["creds.json"].1.clone();
    let mut unpaired: Value = serde_json::from_slice(&good).unwrap();
    unpaired.as_object_mut().unwrap().remove("account");
    unpaired.as_object_mut().unwrap().remove("me");
    let mut id_alone = unpaired.clone();
    id_alone["me"] = json!({ "id": "5511900000002:1@s.whatsapp.net" });
    let (unpaired, id_alone) = (unpaired.to_string(), id_alone.to_string());
    let ruined: [Option<&[u8]>; 5] =
        [None, Some(b""), Some(&good[..500]), Some(unpaired.as_bytes()), Some(id_alone.as_bytes())];
    for (number, bad) in ruined.into_iter().enumerate() {
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
async fn what_cannot_be_seen_is_never_a_new_session() {
    let world = World::new().await;
    let (root, empty) = (world.tree("root"), world.root("empty"));
    world.ok("sync", &root, &[]).await;
    let tree = files(&root);
    let public = BucketOptions { id: "open".into(), public: true, ..BucketOptions::default() };
    world.supabase.put_bucket(public).unwrap();
    let forged = format!("{}.AAAA", world.supabase.service_role_key().rsplit_once('.').unwrap().0);
    let cases = [
        (5, "SUPABASE_SERVICE_ROLE_KEY", forged.as_str()),
        (5, "SUPABASE_SERVICE_ROLE_KEY", world.supabase.anon_key()),
        (2, "SUPABASE_BUCKET", "whatsapp-session"),
        (2, "SUPABASE_BUCKET", "open"),
    ];
    for root in [&root, &empty] {
        for (wanted, name, value) in cases {
            let mut command = world.command("restore", root);
            command.env(name, value).env("RUST_LOG", "off").args(["--outage-wait", "0s"]);
            refused(command, wanted).await;
        }
        for id in ["../s", "u", "u/.s", "u/s/t", "u/a b"] {
            let mut command = world.bare("restore", root);
            command.env("RUST_LOG", "off").args(["--session", id]);
            refused(command, 2).await;
        }
    }
    // A key that lost its right to read: the server answers as if nothing were there.
    world.supabase.set_faults(Faults { empty_lists: true, ..Faults::default() });
    for root in [&root, &empty] {
        let mut command = world.command("restore", root);
        command.env("RUST_LOG", "off");
        refused(command, 5).await;
    }
    world.supabase.set_faults(Faults::default());
    assert!(files(&root) == tree && (!empty.exists() || files(&empty).is_empty()));
    assert!(world.head().await == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_bucket_behind_a_known_head_is_no_new_session() {
    let world = World::new().await;
    let root = world.tree("root");
    world.ok("sync", &root, &[]).await;
    let tree = files(&root);
    let url = format!("{}/storage/v1/bucket/whatsapp-sessions/empty", world.supabase.url());
    let key = world.supabase.service_role_key();
    // The first client of a process decides who does its cryptography; another test's may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let emptied = reqwest::Client::new().post(url).bearer_auth(key).header("apikey", key).send().await;
    assert!(emptied.unwrap().status().is_success());
    let mut command = world.command("restore", &root);
    command.env("RUST_LOG", "off");
    refused(command, 6).await;
    assert!(files(&root) == tree);
    // Also with the tree gone: the state alone knows that there was one.
    for name in tree.keys() {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    let mut command = world.command("restore", &root);
    command.env("RUST_LOG", "off");
    refused(command, 6).await;
    assert!(files(&root).is_empty());
}

/// The exit code, and one line that says why.
async fn refused(command: Command, wanted: i32) {
    let called = format!("{command:?}");
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(wanted), "{called}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.trim().lines().count() == 1, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_under_faults_lose_nothing_acknowledged() {
    // Side by side: most of a life is a wait after a fault.
    futures_util::future::join_all((11..15).map(|seed| lives(seed, 25))).await;
}

/// A session whose processes are all killed: on the old disk, an older one, or none.
async fn lives(seed: u64, count: u64) {
    let world = World::new().await;
    world.supabase.set_faults("errors=0.05,resets=0.01,cut=0.01,late-uploads=0.01".parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let roots = [world.root("a"), world.root("b")];
    let counter = |root: &Path| -> u64 {
        std::fs::read_to_string(root.join("counter.json")).map_or(0, |text| text.parse().unwrap())
    };
    let (mut acknowledged, mut words) = (0, 0);
    for life in 1..=count {
        // The old disk, an older one, or none.
        let root = &roots[usize::from(random.random_bool(0.2))];
        if random.random_bool(0.15) && root.exists() {
            std::fs::remove_dir_all(root).unwrap();
        }
        let mut command = world.command("run", root);
        command.args(["--probe-listen", "off", "--quiet-window", "20ms"]).env("POD_UID", life.to_string());
        let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        if random.random_bool(0.3) {
            // Killed somewhere in its start.
            sleep(Duration::from_millis(random.random_range(0..150))).await;
            drop(running);
            continue;
        }
        eventually("it is ready", async || world.status(root).await["ready"] == true).await;
        assert!(
            counter(root) >= acknowledged,
            "seed {seed}: life {life} starts at {} of {acknowledged}",
            counter(root)
        );
        std::fs::write(root.join("counter.json"), life.to_string()).unwrap();
        if random.random_bool(0.4) {
            if world.run("sync", root, &[]).await.status.success() {
                (acknowledged, words) = (life, words + 1);
            }
        } else {
            sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        drop(running);
    }
    world.supabase.set_faults(Faults::default());
    assert!(words > 2, "only {words} lives were told that their counter is kept");
    for root in &roots {
        world.ok("restore", root, &[]).await;
        assert!(counter(root) >= acknowledged, "{} < {acknowledged}", counter(root));
        let state = root.join(STATE_DIR);
        assert_eq!(files(&state.join("staging")).len(), 0, "staging grows");
        let set_aside = state.join("set-aside/u1/s1");
        let kept = std::fs::read_dir(set_aside).map_or(0, Iterator::count);
        assert!(kept <= 10, "{kept} trees are set aside");
    }
    let mut uploaded: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for upload in world.supabase.uploads() {
        if upload.key.starts_with(".history/") && upload.key.ends_with(".tar.zst") {
            uploaded.entry(upload.key).or_default().insert(upload.sha256);
        }
    }
    assert!(
        uploaded.len() as u64 > count && uploaded.values().all(|contents| contents.len() == 1),
        "one name, one content"
    );
}
