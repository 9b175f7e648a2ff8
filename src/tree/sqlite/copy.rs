//! A database whose writer is gone, with what it left beside it: copied plainly into a private directory, where
//! SQLite may write, and mended there.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::Sides;
use super::snapshot::Failure;
use crate::tree::read::RETRIES;
use crate::tree::scan::Found;
use crate::tree::{Dir, Reason};

/// The name of a database in a private directory: no name of the tree's, some of which are hostile.
const NAME: &str = "db";

/// A private directory for one database; it goes with this.
#[derive(Debug)]
pub(super) struct Private {
    dir: TempDir,
}

impl Private {
    pub fn new(spool: &Path) -> Result<Self, Failure> {
        tempfile::Builder::new()
            .prefix("sqlite-")
            .tempdir_in(spool)
            .map(|dir| Self { dir })
            .map_err(Failure::Spool)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    /// The copy, which has no name once this is gone.
    pub fn file(&self) -> Result<File, Failure> {
        File::options().read(true).write(true).open(self.path()).map_err(Failure::Spool)
    }
}

/// Copies a database with its WAL or journal as they stood at one moment, and has SQLite bring in the one or take
/// back the other.
pub(super) fn mended(dir: &Dir, path: &str, spool: &Path) -> Result<Private, Failure> {
    for _ in 0..=RETRIES {
        let private = Private::new(spool)?;
        if copied(dir, path, &private)? {
            mend(&private.path())?;
            return Ok(private);
        }
    }
    Err(Failure::Held(Reason::Changing))
}

/// Whether all of it stood still meanwhile.
fn copied(dir: &Dir, path: &str, private: &Private) -> Result<bool, Failure> {
    let look = || Ok::<_, io::Error>((dir.stat(path).map(|stat| Found::of(&stat))?, Sides::of(dir, path)?));
    let before = look().map_err(|error| Failure::of_file(&error))?;
    let mut sides = Vec::new();
    sides.extend(before.1.wal.map(|_| "-wal"));
    sides.extend(before.1.journal.map(|_| "-journal"));
    for side in std::iter::once("").chain(sides) {
        let mut from = dir.read(&format!("{path}{side}")).map_err(|error| Failure::of_file(&error))?;
        let to = private.dir.path().join(format!("{NAME}{side}"));
        let mut to = File::create(to).map_err(Failure::Spool)?;
        copy(&mut from, &mut to)?;
    }
    Ok(look().map_err(|error| Failure::of_file(&error))? == before)
}

/// Which side failed tells whose fault it is.
fn copy(from: &mut File, to: &mut File) -> Result<(), Failure> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).map_err(Failure::Spool)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::of_file(&error)),
        }
    }
}

fn mend(path: &Path) -> Result<(), Failure> {
    let mended = Connection::open(path).and_then(|database| {
        database.execute_batch("PRAGMA synchronous=OFF")?;
        // The first read recovers; the checkpoint moves all into the file itself.
        database.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        database.close().map_err(|(_, error)| error)
    });
    mended.map_err(|error| Failure::of_copy(&error))
}
