//! Finds what is on disk: regular files with their fingerprints, empty directories, and what cannot be told.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::{FileType, Stat};

use super::beneath::file_type;
use super::leveldb::{Member, database_of_blob};
use super::sqlite::Database;
use super::{Dir, Filter, Reason, Table};

mod walk;

pub use walk::{absent, scan, scan_some};

/// What tells that a file was not written since: taken by one `lstat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Change time in nanoseconds since 1970; nobody can set it back.
    pub ctime_ns: i128,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub dev: u64,
}

/// A regular file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What tells that it was not written since.
    pub fingerprint: Fingerprint,
    /// Permission bits, at most 0777.
    pub mode: u32,
}

impl Found {
    /// Of a regular file; none for anything else.
    #[must_use]
    pub fn of(stat: &Stat) -> Option<Self> {
        (file_type(stat) == FileType::RegularFile).then(|| Self {
            fingerprint: Fingerprint {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                mtime_ns: nanoseconds(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
                ctime_ns: nanoseconds(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
                inode: stat.st_ino,
                dev: stat.st_dev,
            },
            mode: stat.st_mode & 0o777,
        })
    }

    /// The modification time as history has it: zero for files before 1970.
    #[must_use]
    pub fn mtime_ns(&self) -> u64 {
        u64::try_from(self.fingerprint.mtime_ns.max(0)).unwrap_or(u64::MAX)
    }
}

fn nanoseconds(seconds: i128, nanoseconds: i128) -> i128 {
    seconds * 1_000_000_000 + nanoseconds
}

/// What a scan found, in all of a tree or at some paths of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Regular files that the filter includes and nothing speaks against reading.
    pub files: BTreeMap<String, Found>,
    /// Those of the files that are databases and may be in use.
    pub databases: BTreeMap<String, Database>,
    /// Directories that are `LevelDB` databases, whole or not, each with the directory of what is too large for it. Their
    /// files stand among the others.
    pub leveldbs: BTreeMap<String, Option<String>>,
    /// Directories with no included file and no directory below that is entered.
    pub empty_dirs: BTreeSet<String>,
    /// Paths, each with all below it, that must stay at the head's version. The empty path is the whole tree.
    /// A name that is not UTF-8 stands here escaped; no path in history can equal it.
    pub held: BTreeMap<String, Reason>,
    /// Links that were skipped: neither followed nor stored.
    pub links: u64,
    /// Pipes, sockets and devices that were skipped.
    pub special: u64,
    /// Names that are not UTF-8.
    pub not_utf8: u64,
    /// The paths that were looked at with all below them; none for a scan of the whole tree.
    scope: Option<BTreeSet<String>>,
    /// Directories that were only looked into for whether they are empty.
    glanced: BTreeSet<String>,
}

impl Scan {
    /// Whether a path must stay at the head's version, because it or a directory above it is held.
    #[must_use]
    pub fn is_held(&self, path: &str) -> bool {
        self.why_held(path).is_some()
    }

    /// Why a path is held.
    #[must_use]
    pub fn why_held(&self, path: &str) -> Option<Reason> {
        itself_and_above(path).find_map(|path| self.held.get(path).copied())
    }

    /// The database that a file is a part of, by its directory.
    #[must_use]
    pub fn leveldb_of(&self, path: &str) -> Option<&str> {
        if self.leveldbs.is_empty() {
            return None;
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let itself = Member::parse(name).and_then(|_| self.leveldbs.get_key_value(above));
        let beside = || self.leveldbs.get_key_value(&database_of_blob(path)?);
        itself.or_else(beside).map(|(dir, _)| dir.as_str())
    }

    /// Whether the scan looked at a path.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| itself_and_above(path).any(|path| scope.contains(path)))
    }

    /// The head's files that this scan looked for, did not find, and was not kept from finding. Each is to
    /// be checked again with [`absent`] before its removal is believed.
    pub fn gone<'a>(&'a self, head: &'a Table) -> impl Iterator<Item = &'a str> {
        let paths = head.files.keys().map(String::as_str);
        paths.filter(|path| self.covers(path) && !self.files.contains_key(*path) && !self.is_held(path))
    }

    /// The full list of empty directories after this scan, where the head's is known: what was not looked
    /// at, or is held, stays.
    #[must_use]
    pub fn empty_dirs_after(&self, head: &Table) -> BTreeSet<String> {
        let stays = |dir: &&String| {
            let looked_at = self.covers(dir) || self.glanced.contains(*dir);
            (!looked_at || self.is_held(dir)) && !self.has_below(dir)
        };
        head.empty_dirs.iter().filter(stays).chain(&self.empty_dirs).cloned().collect()
    }

    /// Whether something was found below a directory.
    fn has_below(&self, dir: &str) -> bool {
        let below = format!("{dir}/");
        let starts = |path: Option<&String>| path.is_some_and(|path| path.starts_with(&below));
        starts(self.files.range(below.clone()..).next().map(|(path, _)| path))
            || starts(self.empty_dirs.range(below.clone()..).next())
    }
}

/// A path and the directories above it, up to the empty path.
pub(super) fn itself_and_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rsplit_once('/') {
        Some((above, _)) => Some(above),
        None => (!path.is_empty()).then_some(""),
    })
}

#[cfg(test)]
mod tests;
