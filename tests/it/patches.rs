//! Large files: a delta has only the blocks that changed, and every point restores.

use std::path::Path;

use crate::support::world::{Files, Running, World, eventually, files};

const MIB: usize = 1 << 20;

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    (0..size).map(|_| random.random_range(0..=255)).collect()
}

/// Objects of the history so far: commits with their sizes, oldest first.
fn commits(world: &World) -> Vec<(String, u64)> {
    let uploads = world.supabase.uploads().into_iter();
    let commits =
        uploads.filter(|upload| upload.key.starts_with(".history/") && upload.key.ends_with(".tar.zst"));
    let size =
        |key: &str| world.supabase.object_path("whatsapp-sessions", key).unwrap().metadata().unwrap().len();
    commits.map(|upload| (size(&upload.key), upload.key)).map(|(size, key)| (key, size)).collect()
}

/// Waits until the head is what lies on disk; the size of the newest commit.
async fn committed(world: &World, root: &Path) -> u64 {
    let tree = files(root);
    eventually("the head is the tree", async || world.head().await == tree).await;
    commits(world).pop().unwrap().1
}

async fn point(world: &World, root: &Path, id: &str) -> Files {
    let to = world.root(&format!("at-{id}"));
    world.ok("export", root, &["--at", id, "--to", to.to_str().unwrap()]).await;
    files(&to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_block_of_a_large_file_costs_kilobytes_and_every_point_restores() {
    let world = World::new().await;
    let root = world.root("root");
    std::fs::create_dir(&root).unwrap();
    let mut bytes = noise(3 * MIB);
    std::fs::write(root.join("media.bin"), &bytes).unwrap();
    let running = Running::start(&world, &root, &["--quiet-window", "50ms", "--mirror", "off"]).await;
    assert!(committed(&world, &root).await > 3_000_000, "the base has all of it");
    // Its first look, after which it knows the file.
    world.ok("sync", &root, &[]).await;

    let mut points = Vec::new();
    for round in 0..5 {
        bytes[round * 600_000 + 5] ^= 1;
        if round == 3 {
            bytes.extend_from_slice(&noise(10_000));
        }
        if round == 4 {
            bytes.truncate(2 * MIB + 77);
        }
        std::fs::write(root.join("media.bin"), &bytes).unwrap();
        let size = committed(&world, &root).await;
        assert!(size < 64 << 10, "round {round}: {size} bytes");
        points.push((world.status(&root).await["head"].as_str().unwrap().to_owned(), files(&root)));
    }
    assert_eq!(running.stop().await, 0);

    // Another process finds the file as the head has it, and patches on.
    let running = Running::start(&world, &root, &["--quiet-window", "50ms", "--mirror", "off"]).await;
    world.ok("sync", &root, &[]).await;
    bytes[1000] ^= 1;
    std::fs::write(root.join("media.bin"), &bytes).unwrap();
    let size = committed(&world, &root).await;
    assert!(size < 64 << 10, "after a restart: {size} bytes");
    assert_eq!(running.stop().await, 0);

    let there = world.root("there");
    world.ok("restore", &there, &[]).await;
    assert!(files(&there) == files(&root));
    world.ok("verify", &root, &[]).await;
    for (id, tree) in points {
        assert!(point(&world, &root, &id).await == tree, "the point {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_row_in_a_database_of_50_mb_costs_kilobytes() {
    let world = World::new().await;
    let (root, there) = (world.root("root"), world.root("there"));
    std::fs::create_dir(&root).unwrap();
    let add = |rows: u32| {
        // Closed, without side files and under a name that says nothing: read as any other file.
        let database = rusqlite::Connection::open(root.join("messages")).unwrap();
        database.pragma_update(None, "journal_mode", "MEMORY").unwrap();
        database
            .execute_batch("CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, body BLOB)")
            .unwrap();
        let more = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                    INSERT INTO message (body) SELECT randomblob(1000) FROM n";
        database.execute(more, [rows]).unwrap();
    };
    add(50_000);
    assert!(root.join("messages").metadata().unwrap().len() > 50_000_000);
    let running = Running::start(&world, &root, &["--mirror", "off"]).await;
    world.ok("sync", &root, &[]).await;
    let before = commits(&world).len();
    add(1);
    eventually("the row is committed", async || {
        world.ok("sync", &root, &[]).await;
        commits(&world).len() > before
    })
    .await;
    let size: u64 = commits(&world)[before..].iter().map(|(_, size)| size).sum();
    println!("one more row in 50 MB of SQLite: {size} bytes");
    assert!(size < 64 << 10, "{size} bytes");
    assert_eq!(running.stop().await, 0);
    world.ok("restore", &there, &[]).await;
    assert!(files(&there) == world.head().await);
    let restored = rusqlite::Connection::open(there.join("messages")).unwrap();
    let rows: u32 = restored.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
    let whole: String = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!((rows, whole.as_str()), (50_001, "ok"));
}
