//! Long lives: random edits, and many kills.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use session_sidecar::emulator::Faults;
use session_sidecar::session::STATE_DIR;
use tokio::time::sleep;

use crate::fixtures;
use crate::support::world::{Running, World, contents, eventually, files};

#[tokio::test(flavor = "multi_thread")]
async fn random_edits_additions_and_removals_are_all_in_the_head_and_then_in_the_mirror() {
    let world = World::new().await;
    edited(&world, &world.tree("root"), 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_tree_is_one_base_restored_whole_and_followed_through_edits() {
    let world = World::new().await;
    let (first, second) = (world.root("first"), world.root("second"));
    std::fs::create_dir(&first).unwrap();
    fixtures::unpack(fixtures::LARGE, &first);
    world.sync(&first).await;
    world.ok("restore", &second, &[]).await;
    let tree = files(&second);
    assert!(tree.len() == 5461 && tree == files(&first));
    let uploads = world.supabase.uploads();
    let commits = uploads.iter().filter(|upload| upload.key.starts_with(".history/"));
    assert_eq!(commits.filter(|upload| upload.key.contains(".base.")).count(), 1);
    edited(&world, &second, 8).await;
}

/// Keeps a tree while a bot edits it at random: history has every file, and then the mirror does.
async fn edited(world: &World, root: &Path, seed: u64) {
    let running = Running::start(world, root, &["--quiet-window", "50ms"]).await;
    let mut random = StdRng::seed_from_u64(seed);
    // Pre-keys belong together with creds.json: tests of their group write them.
    let plain = |name: &String| name != "creds.json" && !name.starts_with("pre-key-");
    let mut names: Vec<String> = files(root).into_keys().filter(plain).collect();
    for number in 0..200 {
        let at = random.random_range(0..names.len());
        let path = root.join(&names[at]);
        match random.random_range(0..4) {
            0 => {
                std::fs::remove_file(path).unwrap();
                names.swap_remove(at);
            }
            1 => {
                names.push(format!("lid-mapping-{number}.json"));
                std::fs::write(root.join(&names[names.len() - 1]), "\"1\"").unwrap();
            }
            2 => {
                // As a library that writes elsewhere and renames.
                std::fs::write(root.join("new.tmp"), format!("{{\"n\":{number}}}")).unwrap();
                std::fs::rename(root.join("new.tmp"), path).unwrap();
            }
            _ => std::fs::write(path, format!("{{\"edited\":{number}}}")).unwrap(),
        }
        if random.random_bool(0.1) {
            sleep(Duration::from_millis(random.random_range(1..120))).await;
        }
    }
    let tree = files(root);
    eventually("the head is the tree", async || {
        world.status(root).await["dirty"] == 0 && world.head().await == tree
    })
    .await;
    eventually("the mirror is the tree", async || world.mirror() == contents(root)).await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_under_faults_lose_nothing_acknowledged() {
    // Side by side: most of a life is a wait after a fault.
    futures_util::future::join_all((11..15).map(|seed| lives(seed, 25))).await;
}

/// A file of which every life changes two blocks.
const LARGE: &str = "large.bin";

fn write_large(root: &Path, life: u64) {
    let size = 3 << 19;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(root.join(LARGE)).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&life.to_le_bytes(), 0).unwrap();
    file.write_all_at(&life.to_le_bytes(), life * 5000 % size).unwrap();
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
        // Each is another holder: none may wait for the lease of the one before.
        command.args(["--lease", "storage", "--probe-listen", "off", "--quiet-window", "20ms"]);
        command.env("POD_UID", life.to_string());
        let running = Running::spawn(command);
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
        write_large(root, life);
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
        let large = std::fs::read(root.join(LARGE)).unwrap();
        assert!(u64::from_le_bytes(*large.first_chunk().unwrap()) >= acknowledged, "the large file is older");
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
