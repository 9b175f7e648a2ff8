//! What a small change of a large file costs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

use crate::Result;
use crate::report::Cost;
use crate::world::World;

/// 50 MB that do not compress, of which one block of 4 KiB changes.
pub const NOISE: &str = "50 MB of noise";
/// A database of 50 MB that gets one more row.
pub const SQLITE: &str = "50 MB of SQLite";

const SIZE: u64 = 50_000_000;
const ROW: u32 = 1000;
const ROWS: u32 = 50_000;

/// The first commit of it, and the one after the change.
pub async fn changed(world: &World, file: &str, print: &dyn Fn(&str, Cost)) -> Result<()> {
    let root = world.root("root");
    fs::create_dir_all(&root)?;
    let path = root.join("large");
    if file == SQLITE {
        add(&path, ROWS)?;
    } else {
        make(&path)?;
    }
    let (mut run, _) = world.run(&root, &["--probe-listen", "off", "--mirror", "off"]).await?;
    // The first look comes after "ready": then the file is known by its blocks.
    print("sync, nothing changed", world.once("sync", &root, &[]).await?);
    let (since, before) = (world.since(), run.usage());
    if file == SQLITE {
        add(&path, 1)?;
    } else {
        spoil(&path)?;
    }
    run.says("committed").await?;
    print("commit of a small change", run.cost(world, &since, before));
    run.stop().await?;
    Ok(())
}

fn make(file: &Path) -> io::Result<()> {
    io::copy(&mut File::open("/dev/urandom")?.take(SIZE), &mut File::create_new(file)?)?;
    Ok(())
}

fn spoil(file: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, SIZE / 2)?;
    file.write_all_at(&[!byte[0]], SIZE / 2)
}

fn add(database: &Path, rows: u32) -> rusqlite::Result<()> {
    // Closed, without side files and under a name that says nothing: read as any other file.
    let database = Connection::open(database)?;
    database.pragma_update(None, "journal_mode", "MEMORY")?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, body BLOB)")?;
    let more = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO message (body) SELECT randomblob(?2) FROM n";
    database.execute(more, [rows, ROW])?;
    Ok(())
}
