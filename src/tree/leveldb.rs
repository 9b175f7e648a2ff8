//! `LevelDB` databases in a tree: which files belong to one, what a set of them says, and whether `LevelDB` would open it.
//!
//! A database is a directory. `CURRENT` names a `MANIFEST-*`; the manifest lists the tables that are live, and the number
//! of the oldest log that is not in them. Tables never change once the manifest names them, manifest and logs only grow,
//! `CURRENT` is replaced by a rename, and what is not needed any more is deleted. So a copy that holds together needs no
//! lock: see [`read`](super::read).
//!
//! Sources: `doc/impl.md`, `doc/log_format.md` and `doc/table_format.md` of `LevelDB`; `db/log_reader.cc`,
//! `db/version_edit.cc` and `db/version_set.cc` for what it accepts when it opens a database.

use std::fmt;
use std::io;

pub mod batch;
mod crc;
pub mod local_storage;
pub mod manifest;
pub mod records;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use manifest::Version;

/// The file that names the manifest.
pub const CURRENT: &str = "CURRENT";
/// What Chromium appends to an origin's name for the database of its `IndexedDB`, and for the files of it that are too
/// large for a database.
const INDEXED_DB: (&str, &str) = (".indexeddb.leveldb", ".indexeddb.blob");

/// A file of a database that says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// `CURRENT`
    Current,
    /// `MANIFEST-000001`
    Manifest(u64),
    /// `000003.log`
    Log(u64),
    /// `000005.ldb`, or `.sst` as older versions named it.
    Table(u64),
}

impl Member {
    /// By file name; none for all other files.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == CURRENT {
            return Some(Self::Current);
        }
        if let Some(number) = name.strip_prefix("MANIFEST-") {
            return number_of(number).map(Self::Manifest);
        }
        let (number, kind) = name.split_once('.')?;
        match kind {
            "log" => number_of(number).map(Self::Log),
            "ldb" | "sst" => number_of(number).map(Self::Table),
            _ => None,
        }
    }
}

fn number_of(text: &str) -> Option<u64> {
    let digits = (6..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Whether a file of a database's directory is one that `LevelDB` makes anew and that says nothing: its lock, its own
/// diary, and a `CURRENT` that was not renamed yet.
#[must_use]
pub fn is_scrap(name: &str) -> bool {
    matches!(name, "LOCK" | "LOG" | "LOG.old") || matches!(name.split_once('.'), Some((_, "dbtmp")))
}

/// Whether the names of one directory are those of a database, whole or not.
#[must_use]
pub fn is_leveldb<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut current, mut manifest, mut data) = (false, false, false);
    for member in names.into_iter().filter_map(Member::parse) {
        match member {
            Member::Current => current = true,
            Member::Manifest(_) => manifest = true,
            Member::Log(_) | Member::Table(_) => data = true,
        }
    }
    manifest || (current && data)
}

/// The directory that holds what is too large for the database in this directory: it is committed with it.
#[must_use]
pub fn blobs_of(dir: &str) -> Option<String> {
    dir.strip_suffix(INDEXED_DB.0).map(|origin| format!("{origin}{}", INDEXED_DB.1))
}

/// The directory of the database that a file with such contents belongs to, by the file's path.
#[must_use]
pub fn database_of_blob(path: &str) -> Option<String> {
    let end = path.match_indices(INDEXED_DB.1).find_map(|(at, suffix)| {
        let end = at + suffix.len();
        (path.len() == end || path.as_bytes()[end] == b'/').then_some(at)
    })?;
    Some(format!("{}{}", &path[..end], INDEXED_DB.0))
}

/// Why files are no database, or why that is not known.
#[derive(Debug)]
pub enum Failure {
    /// `LevelDB` would not open it, or not with all that was in it.
    Damage(&'static str),
    /// A file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(what) => f.write_str(what),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// The manifest's name out of the content of `CURRENT`.
#[must_use]
pub fn manifest_name(current: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(current).ok()?.strip_suffix('\n')?;
    matches!(Member::parse(name), Some(Member::Manifest(_))).then_some(name)
}

/// Takes a number of one to ten bytes, seven bits each, from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes so many bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Takes bytes from the front that are led by their length.
fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(bytes)?;
    take(bytes, length)
}

/// Whether a file is named as those of a database.
#[must_use]
pub fn is_of_leveldb(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    Member::parse(name).is_some() || database_of_blob(path).is_some()
}
