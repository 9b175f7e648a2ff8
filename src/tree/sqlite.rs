//! SQLite databases in a tree: what one is, which files belong to it, and how it is copied while a bot writes.
//!
//! What is in a database lies in the file itself, in a `-wal` (written and not moved into the file yet) or must be
//! taken back by a `-journal`. These side files are never part of a tree: a [`snapshot`] holds what they say.
//!
//! POSIX locks belong to the process: closing any descriptor of a database drops all locks that this process has
//! on it, and another process may then delete the live WAL. So what a connection of this process may have open is
//! opened by SQLite alone, which knows of the others: the databases that a [`Filter`] calls live, always; every
//! other one while it is copied, which [`Turn`] sees to.

use std::io::{self, Read as _};

use super::scan::Found;
use super::{Dir, Filter};

mod canonical;
mod copy;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod turn;

pub use canonical::{Canonical, make_canonical};
pub use turn::Turn;

/// What SQLite appends to a database's name.
const SIDES: [&str; 3] = ["-wal", "-shm", "-journal"];
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The bytes of a header that tell what must be known before SQLite may open it.
const HEADER: u64 = 20;
/// In bytes 18 and 19 of a header: the file is to be read with a WAL.
const WAL_VERSION: u8 = 2;

/// The database that a file would be a side file of, by its name.
#[must_use]
pub fn database_of(path: &str) -> Option<&str> {
    let name = SIDES.iter().find_map(|side| path.strip_suffix(side))?;
    (!name.is_empty() && !name.ends_with('/')).then_some(name)
}

/// The side files of a database, whether they are there or not.
pub fn sides_of(path: &str) -> impl Iterator<Item = String> {
    SIDES.iter().map(move |side| format!("{path}{side}"))
}

/// Whether a path is named as databases are.
#[must_use]
pub fn has_database_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end))
        || [".sqlite-", ".sqlite3-"].iter().any(|part| name.contains(part))
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No database.
    Other,
    /// Nothing yet: to SQLite a database without tables, whatever lies beside it.
    Empty,
    /// A database with a rollback journal.
    Rollback,
    /// A database with a WAL.
    Wal,
}

impl Kind {
    /// Of a file that begins with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Empty,
            bytes if !bytes.starts_with(MAGIC) => Self::Other,
            bytes if bytes.get(18..20).is_some_and(|versions| versions.contains(&WAL_VERSION)) => Self::Wal,
            _ => Self::Rollback,
        }
    }

    /// Opens a file and reads its header. Never of a live database.
    pub(super) fn sniff(dir: &Dir, path: &str) -> io::Result<Self> {
        let mut header = Vec::with_capacity(32);
        dir.read(path)?.take(HEADER).read_to_end(&mut header)?;
        Ok(Self::of(&header))
    }
}

/// What tells that a side file was not written since.
///
/// Without the change time: who opens a WAL as root gives it to its owner again, so that each look of ours would be
/// a change. Nobody sets the modification time of a WAL back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i128,
}

impl Print {
    fn of(found: &Found) -> Self {
        let fingerprint = found.fingerprint;
        Self { inode: fingerprint.inode, size: fingerprint.size, mtime_ns: fingerprint.mtime_ns }
    }
}

/// The side files that lie beside a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides {
    /// `-wal`
    pub wal: Option<Print>,
    /// `-journal`
    pub journal: Option<Print>,
    /// Whether `-shm` is there. It is mapped: what is in it shows in no fingerprint, and it holds no content.
    pub shm: bool,
}

impl Sides {
    /// What lies beside a database now.
    pub fn of(dir: &Dir, path: &str) -> io::Result<Self> {
        let print = |side: &str| match dir.stat(&format!("{path}{side}")) {
            Ok(stat) => Ok(Found::of(&stat).map(|found| Print::of(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Self { wal: print("-wal")?, journal: print("-journal")?, shm: print("-shm")?.is_some() })
    }

    /// Whether none of those that hold content is there.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.wal.is_none() && self.journal.is_none()
    }

    /// The newest modification time.
    fn mtime_ns(&self) -> Option<i128> {
        self.wal.iter().chain(&self.journal).map(|print| print.mtime_ns).max()
    }
}

/// A database that a scan found and that must not be read as other files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Database {
    /// What lies beside it.
    pub sides: Sides,
    /// What its header says; none: it is live, and was not opened for that.
    pub kind: Option<Kind>,
    /// Who owns it.
    pub uid: u32,
}

impl Database {
    /// Whether a write after the scan may have left the same fingerprints. `now` is the wall clock before it.
    #[must_use]
    pub fn is_racy(&self, found: &Found, now: jiff::Timestamp) -> bool {
        let with_sides = self.sides.mtime_ns().map_or(*found, |mtime_ns| {
            let mut newest = *found;
            newest.fingerprint.mtime_ns = newest.fingerprint.mtime_ns.max(mtime_ns);
            newest
        });
        super::read::is_racy(&with_sides, now)
    }
}

/// Whether a database may not be touched: SQLite would make side files that its owner cannot open.
#[must_use]
pub fn is_foreign(owner: u32, ours: u32) -> bool {
    ours != 0 && owner != ours
}

/// Whether a regular file is a side file of a database, so that it is no part of the tree. `kind` is asked what the
/// database itself is.
///
/// # Errors
/// The database could not be looked at: it may be one.
pub(super) fn is_side(
    dir: &Dir,
    filter: &Filter,
    path: &str,
    kind: impl Fn(&str) -> io::Result<Kind>,
) -> io::Result<bool> {
    let Some(database) = database_of(path) else { return Ok(false) };
    match dir.stat(database) {
        Ok(stat) => match Found::of(&stat) {
            None => Ok(has_database_name(database)),
            Some(_) if filter.is_live(database) => Ok(true),
            Some(found) if found.fingerprint.size == 0 => Ok(true),
            Some(_) => kind(database).map(|kind| kind != Kind::Other),
        },
        // An orphan says nothing either: SQLite drops it when it makes the database.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(has_database_name(database)),
        Err(error) => Err(error),
    }
}
