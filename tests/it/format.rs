//! The format as docs/format.md has it: a reader of another language, written from that page, rebuilds every point.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use session_sidecar::emulator::{BUCKET, BucketOptions};

use crate::support::world::{Running, World, finished};

const MIB: usize = 1 << 20;
/// What is no ASCII, what the mirror would escape, and what no tar header has room for.
const NAMES: [&str; 3] = [
    "keys/ä $.json",
    "keys/zero",
    "deep/down/pre-key-a-name-that-does-not-fit-into-the-hundred-bytes-of-a-header-because-it-goes-on-and-on.json",
];

/// By path the mode, time and content of a file; of an empty directory nothing.
type Tree = BTreeMap<String, Option<(u32, i64, i64, Vec<u8>)>>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries: Vec<PathBuf> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if entries.is_empty() {
            found.insert(name(&directory), None);
        }
        for path in entries {
            if path.is_dir() {
                directories.push(path);
            } else {
                let stat = path.metadata().unwrap();
                let (mode, bytes) = (stat.permissions().mode() & 0o777, std::fs::read(&path).unwrap());
                found.insert(name(&path), Some((mode, stat.mtime(), stat.mtime_nsec(), bytes)));
            }
        }
    }
    found
}

/// The reader at work on the objects as they lie in the bucket.
async fn read(world: &World, id: &str, to: &Path) -> Output {
    let mut reader = Command::new("python3");
    reader.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format/reader.py"));
    reader.arg(world.dir.path().join("supabase").join(BUCKET)).args(["u1", "s1"]).arg(to).arg(id);
    finished(reader).await
}

async fn refused(world: &World, id: &str, why: &str) {
    let to = world.root("refused");
    let output = read(world, id, &to).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("damaged: ") && stderr.contains(why) && !to.exists(), "{stderr}");
}

/// A base in parts, patches, removals, an empty directory, a rewind; the points, oldest first.
async fn a_long_life(world: &World, root: &Path) -> Vec<String> {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut noise = |size: usize| -> Vec<u8> { (0..size).map(|_| random.random_range(0..=255)).collect() };
    let mut media = noise(3 * MIB / 2);
    for name in NAMES {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), if name == "keys/zero" { "" } else { "{}" }).unwrap();
    }
    std::fs::write(root.join("media.bin"), &media).unwrap();
    std::fs::set_permissions(root.join("media.bin"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let running = Running::start(world, root, &["--quiet-window", "50ms", "--mirror", "off"]).await;
    world.sync(root).await;

    media[5] ^= 1;
    media[700_000] ^= 1;
    media.extend_from_slice(&noise(10_000));
    std::fs::write(root.join("media.bin"), &media).unwrap();
    world.sync(root).await;

    std::fs::remove_file(root.join(NAMES[2])).unwrap();
    std::fs::write(root.join("creds.json"), "{\"v\":1}").unwrap();
    let there = world.json("sync", root).await["sessions"][0]["commit"].as_str().unwrap().to_owned();

    media.truncate(MIB + 77);
    std::fs::write(root.join("media.bin"), &media).unwrap();
    std::fs::remove_dir(root.join("deep/down")).unwrap();
    std::fs::write(root.join("deep/up"), "x").unwrap();
    world.sync(root).await;
    assert_eq!(running.stop().await, 0);
    world.ok("restore", root, &["--at", &there]).await;

    let history = world.json("history", root).await;
    let points = history["points"].as_array().unwrap().iter().rev();
    points.map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

/// What the archives hold, so that the test cannot pass without them.
fn objects(world: &World) -> Vec<String> {
    let folder = world.dir.path().join("supabase").join(BUCKET).join(".history/u1/s1");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_written_from_the_document_rebuilds_every_point_as_export_does() {
    let world = World::new().await;
    let bucket = BucketOptions { file_size_limit: Some(400 << 10), ..BucketOptions::default() };
    world.supabase.put_bucket(bucket).unwrap();
    let root = world.root("root");
    let points = a_long_life(&world, &root).await;

    let names = objects(&world);
    for kind in [".base.tar.zst", ".base.from.", "-of-004.tar.zst", ".claim", ".pin.rewind"] {
        let found = names.iter().any(|name| name.contains(kind) || kind == ".base.tar.zst");
        assert!(found, "no {kind} in {names:?}");
    }
    let mut trees = Vec::new();
    for id in &points {
        let (ours, theirs) = (world.root(&format!("ours-{id}")), world.root(&format!("theirs-{id}")));
        world.ok("export", &root, &["--at", id, "--to", ours.to_str().unwrap()]).await;
        let output = read(&world, id, &theirs).await;
        assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(tree(&theirs) == tree(&ours), "the point {id}");
        trees.push(tree(&theirs));
    }
    let media = |tree: &Tree| tree["media.bin"].as_ref().map(|(mode, .., bytes)| (*mode, bytes.len()));
    let sizes: Vec<_> = trees.iter().filter_map(media).collect();
    assert!(sizes.iter().all(|(mode, _)| *mode == 0o640), "{sizes:?}");
    assert!(sizes.iter().any(|(_, size)| *size == MIB + 77), "{sizes:?}");
    let last = trees.last().unwrap();
    assert!(last.get("deep/down") == Some(&None) && last.contains_key("creds.json"), "the rewind's tree");

    let head = points.last().unwrap();
    let patched: Value = patches(&world);
    assert!(patched.as_array().is_some_and(|patches| patches.len() >= 2), "{patched}");

    // A part of the head's base goes: the commit does not exist.
    let folder = world.dir.path().join("supabase").join(BUCKET).join(".history/u1/s1");
    let part = names.iter().filter(|name| name.contains(".p002-of-")).max().unwrap();
    let bytes = std::fs::read(folder.join(part)).unwrap();
    std::fs::remove_file(folder.join(part)).unwrap();
    refused(&world, head, "is missing").await;
    // It is there again, with one byte that is another.
    let mut damaged = bytes;
    damaged[1000] ^= 1;
    std::fs::write(folder.join(part), damaged).unwrap();
    refused(&world, head, "").await;
}

/// The patches of all deltas, as standard tools show them.
fn patches(world: &World) -> Value {
    let folder = world.dir.path().join("supabase").join(BUCKET).join(".history/u1/s1");
    let deltas =
        objects(world).into_iter().filter(|name| name.ends_with(".tar.zst") && !name.contains(".base"));
    let patches = deltas.flat_map(|name| {
        let pipe = format!("zstd -dc '{}' | tar -xO commit.json", folder.join(name).display());
        let output = Command::new("sh").args(["-c", &pipe]).output().unwrap();
        let commit: Value = serde_json::from_slice(&output.stdout).unwrap();
        commit["patch"].as_array().unwrap().clone()
    });
    Value::Array(patches.collect())
}
