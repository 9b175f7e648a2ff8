//! Removing local files whose proof is at hand, and nothing else.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::Stat;

use super::Lies;
use crate::error::{Code, Error};
use crate::host::{Host, Step};
use crate::session::{STATE_DIR, SessionKey};
use crate::tree::disk::Disk;
use crate::tree::identity::may_hold;
use crate::tree::leveldb::{Member, is_scrap};
use crate::tree::scan::{Found, scan};
use crate::tree::{Dir, Filter, Scan};

/// Who wrote within this time may write again.
const RECENT: SignedDuration = SignedDuration::from_secs(60);
/// What a Chromium leaves at the top of a profile while it runs, and when it is killed.
const BROWSER: &str = "SingletonLock";
/// Where databases lie while they are removed: in no tree, and on the same file system. All that is found there was proven.
pub(super) const LEAVING: &str = ".session-sidecar/leaving";
const ASIDE: &str = ".session-sidecar/leaving/database";
const PRIVATE: u32 = 0o700;

/// What a cleanup did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Files that were removed.
    pub files: u64,
    /// What was removed with a `LevelDB` database that does not need it: tables that were merged, logs that are in tables,
    /// its lock and its diary, and files whose last record was not finished.
    pub unneeded: u64,
    /// Files that lie there still: the filters exclude them, or they came later, so that nothing is proven of them.
    pub kept: u64,
}

/// The removal of a session's local files after its proof.
#[derive(Debug)]
pub(super) struct Cleaner {
    pub key: SessionKey,
    pub path: PathBuf,
    pub lies: Lies,
    pub filter: Arc<Filter>,
    /// Files that a restore gave to their last byte.
    pub proven: BTreeSet<String>,
    /// The tree, as it was when that was found.
    pub scan: Scan,
    pub host: Arc<dyn Host>,
}

/// When the tree was last written, as its files say.
#[must_use]
pub fn newest_write(scan: &Scan) -> Option<Timestamp> {
    let newest = scan.files.values().map(|found| found.fingerprint.mtime_ns).max()?;
    Timestamp::from_nanosecond(newest).ok()
}

/// Whether whoever wrote then may still be at work.
#[must_use]
pub fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < RECENT
}

impl Cleaner {
    /// Whether the tree may be removed: nobody seems to use it, and it is the one that was proven. // P7
    ///
    /// # Errors
    /// [`Code::Held`] where not.
    pub fn check(&self) -> Result<(), Error> {
        // What came since the proof tells of a bot, too.
        let now = Dir::open(&self.path).and_then(|dir| scan(&dir, &self.filter));
        let now = now.map_err(|error| self.failed(error))?;
        if let Some(why) = in_use(&self.path, &now, self.host.now()) {
            let text =
                format!("session {}: {why}: stop its bot and run this again; nothing was removed", self.key);
            return Err(Error::new(Code::Held, text));
        }
        differs(&self.scan, &now).map_or(Ok(()), |file| Err(self.changed(&file, Removed::default())))
    }

    /// Removes what was proven, each file only if it was not touched since; then the directories that are empty by that. // P7
    ///
    /// The credentials go first: what an interruption leaves has no identity, so that every start restores the session. A
    /// database goes in one step, for a half of one is damage; what is left of that, the next cleanup removes.
    ///
    /// # Errors
    /// [`Code::Held`] at the first file that is another one by now.
    pub fn remove(&self) -> Result<Removed, Error> {
        let dir = Dir::open(&self.path).map_err(|error| self.failed(error))?;
        let disk = Disk::open(&self.path, &*self.host).map_err(|error| self.failed(error))?;
        let mut removed = Removed { files: self.leave(&disk)?, ..Removed::default() };
        let (databases, files) = self.in_order();
        for database in databases {
            self.remove_database(&dir, &disk, database, &mut removed)?;
        }
        for file in files {
            self.unlink(&dir, file, &removed)?;
            removed.files += 1;
        }
        self.remove_empty();
        removed.kept = if self.lies == Lies::AmongOthers { 0 } else { count(&self.path) };
        Ok(removed)
    }

    /// Databases that are proven, and all other files that are: in both, those of an account first.
    fn in_order(&self) -> (Vec<&str>, Vec<&str>) {
        // A database was read as a whole, and is in the bucket so, or it is held.
        let is_proven = |dir: &&str| self.proven.contains(&format!("{dir}/CURRENT"));
        let mut databases: Vec<&str> =
            self.scan.leveldbs.keys().map(String::as_str).filter(is_proven).collect();
        databases.sort_by_key(|dir| !may_hold(&format!("{dir}/CURRENT")));
        let inside = |file: &&str| databases.iter().any(|dir| above(file) == *dir);
        let mut files: Vec<&str> =
            self.proven.iter().map(String::as_str).filter(|file| !inside(file)).collect();
        files.sort_by_key(|file| !may_hold(file));
        (databases, files)
    }

    fn remove_database(
        &self,
        dir: &Dir,
        disk: &Disk<'_>,
        database: &str,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let failed = |error: io::Error| self.failed(error);
        let inside = dir.dir(database).map_err(failed)?;
        let (mut proven, mut unneeded, mut others) = (Vec::new(), Vec::new(), false);
        for name in inside.names().map_err(failed)? {
            let path = name.to_str().map(|name| (name, format!("{database}/{name}")));
            match path {
                Some((_, path)) if self.proven.contains(&path) => proven.push(path),
                Some((name, path))
                    if is_scrap(name) && inside.stat(name).is_ok_and(|stat| Found::of(&stat).is_some()) =>
                {
                    unneeded.push(path);
                }
                Some((name, path))
                    if Member::parse(name).is_some() && self.scan.files.contains_key(&path) =>
                {
                    unneeded.push(path);
                }
                _ => others = true,
            }
        }
        let going: BTreeSet<&str> = proven.iter().chain(&unneeded).map(String::as_str).collect();
        if let Some(file) = going.iter().find(|file| !self.is_untouched(dir, file)) {
            return Err(self.changed(file, *removed));
        }
        if !others && self.set_aside(disk, database)? {
            // Written in the last moment.
            if !self.is_all(&inside, database, &going).map_err(failed)? {
                let back = disk.rename(Path::new(ASIDE), Path::new(database), Step("cleanup: put back"));
                back.map_err(failed)?;
                self.leave(disk)?;
                return Err(self.changed(database, *removed));
            }
        } else {
            // What is not to be removed lies in it, or another file system: file by file.
            for file in going {
                self.unlink(dir, file, removed)?;
            }
        }
        self.leave(disk)?;
        removed.files += proven.len() as u64;
        removed.unneeded += unneeded.len() as u64;
        Ok(())
    }

    /// Whether these files, as they were, are all that lies in a database's directory, which was moved.
    fn is_all(&self, inside: &Dir, database: &str, files: &BTreeSet<&str>) -> io::Result<bool> {
        let names = inside.names()?;
        let same = |name: &OsString| {
            let Some(name) = name.to_str() else { return false };
            let file = format!("{database}/{name}");
            files.contains(&*file) && self.is_the_same(&file, inside.stat(name).ok())
        };
        Ok(names.iter().all(same))
    }

    /// Whether a directory could be taken out of the tree in one step.
    fn set_aside(&self, disk: &Disk<'_>, database: &str) -> Result<bool, Error> {
        disk.make_dirs(Path::new(LEAVING), PRIVATE, None).map_err(|error| self.failed(error))?;
        match disk.rename(Path::new(database), Path::new(ASIDE), Step("cleanup: set a database aside")) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Removes what was set aside, also by a cleanup that was cut off; the number of files.
    fn leave(&self, disk: &Disk<'_>) -> Result<u64, Error> {
        if self.lies == Lies::AmongOthers {
            return Ok(0);
        }
        let left = count(&self.path.join(LEAVING));
        let gone = disk.remove_all(Path::new(LEAVING), Step("cleanup: remove what was set aside"));
        gone.map_err(|error| self.failed(error))?;
        if self.lies != Lies::InRoot {
            // Not empty: it is somebody's root.
            let _ = fs::remove_dir(self.path.join(STATE_DIR));
        }
        Ok(left)
    }

    fn unlink(&self, dir: &Dir, file: &str, removed: &Removed) -> Result<(), Error> {
        if !self.is_untouched(dir, file) {
            return Err(self.changed(file, *removed));
        }
        dir.unlink(file).map_err(|error| self.failed(error))
    }

    /// Whether a file that was scanned is still the same one; of what no scan takes in, nothing is known.
    fn is_untouched(&self, dir: &Dir, file: &str) -> bool {
        self.is_the_same(file, dir.stat(file).ok())
    }

    fn is_the_same(&self, file: &str, now: Option<Stat>) -> bool {
        let now = now.as_ref().and_then(Found::of);
        self.scan.files.get(file).is_none_or(|found| now.as_ref() == Some(found))
    }

    fn changed(&self, file: &str, removed: Removed) -> Error {
        let text = format!(
            "session {}: {file} was written just now: a bot is at work; {} files were removed",
            self.key,
            removed.files + removed.unneeded
        );
        Error::new(Code::Held, text)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(format!("session {}: the local files cannot be removed", self.key), error)
    }

    /// Deepest first. What is not empty stays.
    fn remove_empty(&self) {
        let mut dirs: BTreeSet<&Path> = self.scan.empty_dirs.iter().map(Path::new).collect();
        dirs.extend(self.scan.files.keys().flat_map(|file| Path::new(file).ancestors().skip(1)));
        let mut dirs: Vec<&Path> = dirs.into_iter().filter(|dir| !dir.as_os_str().is_empty()).collect();
        dirs.retain(|dir| dir.to_str().is_some_and(|dir| self.filter.enters(dir)));
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
        for dir in dirs {
            // Not empty, or gone already.
            let _ = fs::remove_dir(self.path.join(dir));
        }
        if self.lies == Lies::Alone {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// The first path at which two looks at a tree differ.
fn differs(then: &Scan, now: &Scan) -> Option<String> {
    let files = then.files.keys().chain(now.files.keys());
    let files = files.filter(|path| then.files.get(*path) != now.files.get(*path));
    let databases = then.databases.keys().chain(now.databases.keys());
    let databases = databases.filter(|path| then.databases.get(*path) != now.databases.get(*path));
    files.chain(databases).min().cloned()
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// Files below a directory, as far as they can be seen.
fn count(path: &Path) -> u64 {
    let (mut files, mut dirs) = (0, vec![path.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true if dir == path && entry.file_name() == STATE_DIR => {}
                true => dirs.push(entry.path()),
                false => files += 1,
            }
        }
    }
    files
}

/// Why a bot seems to use a tree. // P7
fn in_use(path: &Path, scan: &Scan, now: Timestamp) -> Option<String> {
    if newest_write(scan).is_some_and(|at| is_recent(at, now)) {
        return Some("it was written within the last minute".to_owned());
    }
    if let Some((database, _)) = scan.databases.iter().next() {
        return Some(format!(
            "{database} has a -wal or a journal beside it, as while it is open or after a crash"
        ));
    }
    if fs::symlink_metadata(path.join(BROWSER)).is_ok() {
        return Some(format!("{BROWSER} says that a browser runs on it (remove that if none does)"));
    }
    let pid = user_of(path)?;
    Some(format!("process {pid} has files of it open, or works in it"))
}

/// A process that has something below a path open or is at home there. Of processes that are not ours to look into nothing
/// is known.
fn user_of(path: &Path) -> Option<u32> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = std::process::id();
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut links = open.chain([process.join("cwd")]);
        *pid != own && links.any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(&path)))
    })
}

#[cfg(test)]
mod tests;
