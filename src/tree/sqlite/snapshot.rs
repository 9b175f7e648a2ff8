//! Copies of databases, all of one moment.

use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::Instant;

use super::copy::{self, Private};
use super::{Database, Kind, Sides, make_canonical};
use crate::tree::read::IN_MEMORY;
use crate::tree::scan::Found;
use crate::tree::{Content, Dir, Hash, Reason};

/// How long databases that somebody has locked are waited for, all of one tree together: a browser keeps a dozen locked
/// for as long as it runs.
const BUSY: Duration = Duration::from_secs(1);

/// Why there is no copy.
#[derive(Debug)]
pub enum Failure {
    /// The database stays at the head's version.
    Held(Reason),
    /// It is gone.
    Gone,
    /// A private copy cannot be made: it is not the database's fault.
    Spool(io::Error),
}

impl Failure {
    /// Of reading a file of the tree.
    pub(super) fn of_file(error: &io::Error) -> Self {
        match error.kind() {
            // Only ENOENT is absence.
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Held(Reason::Unreadable),
        }
    }

    /// Of a database in the tree.
    fn of_source(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Held(Reason::SqliteLocked),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Held(Reason::SqliteDamaged),
            _ => Self::Held(Reason::Unreadable),
        }
    }

    /// Of a private copy.
    pub(super) fn of_copy(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Held(Reason::SqliteDamaged),
            Some(ErrorCode::DiskFull) => Self::Spool(io::ErrorKind::StorageFull.into()),
            _ => Self::Spool(io::Error::other(error.to_string())),
        }
    }
}

/// A copy that nobody else knows of.
#[derive(Debug)]
pub struct Snapshot {
    /// Its bytes.
    pub content: Content,
    /// Of the content.
    pub sha256: Hash,
    /// Where it lies, for SQLite to look into; gone with this.
    private: Private,
}

impl Snapshot {
    /// Opens the copy. Nothing is written beside it.
    pub fn open(&self) -> rusqlite::Result<Connection> {
        open_unmoved(&self.private.path())
    }

    fn of(private: Private, cookie: Option<i32>) -> Result<Self, Failure> {
        let file = private.file()?;
        make_canonical(&file, cookie).map_err(Failure::Spool)?;
        let size = file.metadata().map_err(Failure::Spool)?.len();
        let content = Content::Spooled { file: Arc::new(file), size };
        let sha256 = content.hash().map_err(Failure::Spool)?;
        let content = match size {
            0..=IN_MEMORY => Content::Bytes(content.bytes().map_err(Failure::Spool)?),
            _ => content,
        };
        Ok(Self { content, sha256, private })
    }

    /// A plain copy of a database, for SQLite to look into.
    pub fn of_content(content: &Content, spool: &Path) -> Result<Self, Failure> {
        let private = Private::new(spool)?;
        let mut file = std::fs::File::create(private.path()).map_err(Failure::Spool)?;
        io::copy(&mut content.reader(), &mut file).map_err(Failure::Spool)?;
        Self::of(private, None)
    }
}

/// A database that is going to be copied, with its read transaction begun.
#[derive(Debug)]
enum Source {
    Open {
        database: Connection,
        cookie: i32,
    },
    /// Nobody has it open, and nobody may while it is read.
    Unmoved {
        database: Connection,
        cookie: i32,
        sides: Sides,
    },
    Copied(Private),
    Empty,
}

/// How a database is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through SQLite, beside whoever writes.
    Beside,
    /// Through SQLite, without a look at side files: there are none.
    Unmoved,
    /// A private copy of the database and what its writer left.
    Private,
    Empty,
}

impl Way {
    /// SQLite itself makes a WAL and its index where a header asks for them: it is let at a database only where both are
    /// there already, or where it would make none.
    fn of(database: &Database, found: &Found) -> Self {
        let Sides { wal, journal, shm } = database.sides;
        match database.kind {
            _ if found.fingerprint.size == 0 => Self::Empty,
            None if wal.is_none() && journal.is_none() => Self::Unmoved,
            None => Self::Beside,
            Some(_) if wal.is_some() && shm => Self::Beside,
            Some(Kind::Rollback) if wal.is_none() => Self::Beside,
            Some(_) => Self::Private,
        }
    }
}

/// Copies databases: the read transactions of all are begun before the first is copied, so that what a bot wrote to
/// one before it wrote to another is there in this order. `moved` is asked in between for more, which came into
/// need only since; their copies are of the same moment. Blocks.
pub fn at_one_moment<'a>(
    dir: &Dir,
    spool: &Path,
    wanted: &[(&'a str, Found, Database)],
    moved: impl FnOnce() -> Vec<(&'a str, Found, Database)>,
) -> Vec<(&'a str, Result<Snapshot, Failure>)> {
    let until = Instant::now() + BUSY;
    let begin_all = |wanted: &[(&'a str, Found, Database)]| {
        let begin = |(path, found, database): &(&'a str, Found, Database)| {
            (*path, *found, begin(dir, path, found, database, spool, until))
        };
        wanted.iter().map(begin).collect::<Vec<_>>()
    };
    let mut sources = begin_all(wanted);
    sources.extend(begin_all(&moved()));
    let finish = |(path, found, source): (&'a str, Found, Result<Source, Failure>)| {
        (path, source.and_then(|source| finish(dir, path, &found, source, spool)))
    };
    sources.into_iter().map(finish).collect()
}

fn begin(
    dir: &Dir,
    path: &str,
    found: &Found,
    database: &Database,
    spool: &Path,
    until: Instant,
) -> Result<Source, Failure> {
    match Way::of(database, found) {
        Way::Empty => Ok(Source::Empty),
        Way::Private => copy::mended(dir, path, spool).map(Source::Copied),
        Way::Unmoved => {
            let connection =
                open_unmoved(&absolute(dir, path, found)?).map_err(|e| Failure::of_source(&e))?;
            let cookie = begin_reading(&connection).map_err(|error| Failure::of_source(&error))?;
            Ok(Source::Unmoved { database: connection, cookie, sides: database.sides })
        }
        Way::Beside => {
            let absolute = absolute(dir, path, found)?;
            let opened = open_beside(&absolute, until)
                .and_then(|database| begin_reading(&database).map(|cookie| (database, cookie)));
            match opened {
                Ok((database, cookie)) => Ok(Source::Open { database, cookie }),
                // What must be taken back or made anew, and may not be here, is so in a copy.
                Err(error) if database.kind.is_some() && wants_to_write(&error) => {
                    copy::mended(dir, path, spool).map(Source::Copied)
                }
                // The next who opens it to write will mend it.
                Err(error) if wants_to_write(&error) => Err(Failure::Held(Reason::SqliteLocked)),
                Err(error) => Err(Failure::of_source(&error)),
            }
        }
    }
}

fn finish(dir: &Dir, path: &str, found: &Found, source: Source, spool: &Path) -> Result<Snapshot, Failure> {
    match source {
        Source::Empty => {
            let private = Private::new(spool)?;
            std::fs::File::create(private.path()).map_err(Failure::Spool)?;
            Snapshot::of(private, None)
        }
        Source::Copied(private) => Snapshot::of(private, None),
        Source::Open { database, cookie } => {
            let private = back_up(&database, spool)?;
            // Frees the writer before anything else is done.
            drop(database);
            Snapshot::of(private, Some(cookie))
        }
        Source::Unmoved { database, cookie, sides } => {
            let private = back_up(&database, spool)?;
            drop(database);
            let stat = dir.stat(path).map_err(|error| Failure::of_file(&error))?;
            let now = Sides::of(dir, path).map_err(|error| Failure::of_file(&error))?;
            let same = (now.wal, now.journal) == (sides.wal, sides.journal);
            if Found::of(&stat) != Some(*found) || !same {
                return Err(Failure::Held(Reason::Changing));
            }
            Snapshot::of(private, Some(cookie))
        }
    }
}

/// One step: a copy in several begins anew with every write, and never ends under a busy writer.
fn back_up(database: &Connection, spool: &Path) -> Result<Private, Failure> {
    let private = Private::new(spool)?;
    let mut copy = Connection::open(private.path()).map_err(|error| Failure::of_copy(&error))?;
    // A copy that is cut off is thrown away: it needs neither journal nor sync.
    let prepared = copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF");
    prepared.map_err(|error| Failure::of_copy(&error))?;
    let step = Backup::new(database, &mut copy).and_then(|backup| backup.step(-1));
    match step {
        Ok(StepResult::Done) => {}
        Ok(_) => return Err(Failure::Held(Reason::SqliteLocked)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            return Err(Failure::of_copy(&error));
        }
        Err(error) => return Err(Failure::of_source(&error)),
    }
    copy.close().map_err(|(_, error)| Failure::of_copy(&error))?;
    Ok(private)
}

/// For reading beside whoever writes. A connection that only reads neither checkpoints nor removes a WAL.
fn open_beside(path: &Path, until: Instant) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(until.saturating_duration_since(Instant::now()))?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(database)
}

/// For reading what nobody writes: SQLite neither locks it nor looks for side files, nor makes any.
pub(super) fn open_unmoved(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// Begins a read transaction by reading the schema's cookie.
fn begin_reading(database: &Connection) -> rusqlite::Result<i32> {
    database.execute_batch("BEGIN")?;
    database.query_row("PRAGMA schema_version", [], |row| row.get(0))
}

fn wants_to_write(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

/// The path by which SQLite must open a file: through no link, and the file that was found.
fn absolute(dir: &Dir, path: &str, found: &Found) -> Result<PathBuf, Failure> {
    let absolute = std::fs::canonicalize(dir.path()).map_err(|error| Failure::of_file(&error))?.join(path);
    let stat = rustix::fs::lstat(&absolute).map_err(|error| Failure::of_file(&error.into()))?;
    let same = |same: &Found| {
        (same.fingerprint.dev, same.fingerprint.inode) == (found.fingerprint.dev, found.fingerprint.inode)
    };
    match Found::of(&stat) {
        Some(there) if same(&there) => Ok(absolute),
        _ => Err(Failure::Held(Reason::Changing)),
    }
}

/// Whether SQLite itself finds a copy whole: what a base is to hold must be. A query that a library of the bot's would
/// be needed for says nothing.
pub fn is_whole(database: &Connection) -> bool {
    let checked = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match checked {
        Ok(answer) => answer == "ok",
        Err(error) => !is_damage(&error),
    }
}

/// Whether an error means that the file is no good.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
