//! Removing local files whose proof is at hand, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use crate::error::{Code, Error};
use crate::session::{STATE_DIR, SessionKey};
use crate::tree::identity::may_hold;
use crate::tree::scan::Found;
use crate::tree::{Dir, Filter, Scan};

/// Who wrote within this time may write again.
const RECENT: SignedDuration = SignedDuration::from_secs(60);
/// What a Chromium leaves at the top of a profile while it runs, and when it is killed.
const BROWSER: &str = "SingletonLock";

/// What a cleanup did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Files that were removed.
    pub files: u64,
    /// Files that lie there still: the filters exclude them, so that nothing is proven of them.
    pub kept: u64,
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

/// Whether a tree may be removed: nobody seems to use it, and every file is the one that was scanned. // P7
///
/// # Errors
/// [`Code::Held`] where not.
pub(super) fn check(key: &SessionKey, path: &Path, scan: &Scan, now: Timestamp) -> Result<(), Error> {
    if let Some(why) = in_use(path, scan, now) {
        let text = format!("session {key}: {why}: stop its bot and run this again; nothing was removed");
        return Err(Error::new(Code::Held, text));
    }
    let dir = Dir::open(path).map_err(|error| failed(key, error))?;
    match scan.files.iter().find(|(path, found)| !is_untouched(&dir, path, found)) {
        Some((path, _)) => Err(changed(key, path, 0)),
        None => Ok(()),
    }
}

/// Removes the files of a scan, each only if it was not touched since; then the directories that are empty by that. // P7
///
/// The credentials go first: what an interruption leaves has no identity, so that every start restores the session.
///
/// # Errors
/// [`Code::Held`] at the first file that is another one by now.
pub(super) fn remove(
    key: &SessionKey,
    path: &Path,
    filter: &Filter,
    scan: &Scan,
    own_directory: bool,
) -> Result<Removed, Error> {
    let dir = Dir::open(path).map_err(|error| failed(key, error))?;
    let mut removed = 0;
    let (first, rest): (Vec<_>, Vec<_>) = scan.files.iter().partition(|(path, _)| may_hold(path));
    for (file, found) in first.into_iter().chain(rest) {
        if !is_untouched(&dir, file, found) {
            return Err(changed(key, file, removed));
        }
        dir.unlink(file).map_err(|error| failed(key, error))?;
        removed += 1;
    }
    remove_empty(path, filter, scan, own_directory);
    Ok(Removed { files: removed, kept: count(path).map_err(|error| failed(key, error))? })
}

fn is_untouched(dir: &Dir, file: &str, found: &Found) -> bool {
    dir.stat(file).is_ok_and(|stat| Found::of(&stat).as_ref() == Some(found))
}

fn changed(key: &SessionKey, file: &str, removed: u64) -> Error {
    let text =
        format!("session {key}: {file} was written just now: a bot is at work; {removed} files were removed");
    Error::new(Code::Held, text)
}

fn failed(key: &SessionKey, error: io::Error) -> Error {
    Error::io(format!("session {key}: the local files cannot be removed"), error)
}

/// Deepest first. What is not empty stays.
fn remove_empty(path: &Path, filter: &Filter, scan: &Scan, own_directory: bool) {
    let mut dirs: BTreeSet<&Path> = scan.empty_dirs.iter().map(Path::new).collect();
    dirs.extend(scan.files.keys().flat_map(|file| Path::new(file).ancestors().skip(1)));
    let mut dirs: Vec<&Path> = dirs.into_iter().filter(|dir| !dir.as_os_str().is_empty()).collect();
    dirs.retain(|dir| dir.to_str().is_some_and(|dir| filter.enters(dir)));
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for dir in dirs {
        // Not empty, or gone already.
        let _ = fs::remove_dir(path.join(dir));
    }
    if own_directory {
        let _ = fs::remove_dir(path);
    }
}

fn count(path: &Path) -> io::Result<u64> {
    let (mut files, mut dirs) = (0, vec![path.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true if dir == path && entry.file_name() == STATE_DIR => {}
                true => dirs.push(entry.path()),
                false => files += 1,
            }
        }
    }
    Ok(files)
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
mod tests {
    use super::*;
    use crate::tree::scan::scan;

    fn key() -> SessionKey {
        SessionKey::new("u", "s").unwrap()
    }

    fn filter() -> Filter {
        Filter::new(None, &[], &["cache".to_owned()]).unwrap()
    }

    fn later() -> Timestamp {
        jiff::Timestamp::now() + SignedDuration::from_hours(1)
    }

    fn tree(files: &[&str]) -> (tempfile::TempDir, Scan) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "{}").unwrap();
        }
        let found = scan(&Dir::open(dir.path()).unwrap(), &filter()).unwrap();
        (dir, found)
    }

    #[test]
    fn what_is_excluded_stays_and_all_else_goes() {
        let (dir, scan) = tree(&["creds.json", "keys/a.json", "keys/b/c.json", "cache/x", "keys/b/cache/y"]);
        let removed = remove(&key(), dir.path(), &filter(), &scan, true).unwrap();
        assert_eq!(removed, Removed { files: 3, kept: 2 });
        assert!(dir.path().join("cache/x").exists() && dir.path().join("keys/b/cache/y").exists());
        let (dir, scan) = tree(&["creds.json", "keys/a.json"]);
        remove(&key(), dir.path(), &filter(), &scan, true).unwrap();
        assert!(!dir.path().exists());
    }

    #[test]
    fn a_tree_that_was_just_written_is_left_alone() {
        let (dir, scan) = tree(&["creds.json"]);
        let error = check(&key(), dir.path(), &scan, jiff::Timestamp::now()).unwrap_err();
        assert!(error.code() == Code::Held && dir.path().join("creds.json").exists(), "{error}");
    }

    #[test]
    fn a_file_that_is_another_by_now_is_left_alone() {
        let (dir, scan) = tree(&["a.json", "creds.json"]);
        fs::write(dir.path().join("a.json"), "{\"more\":1}").unwrap();
        let error = check(&key(), dir.path(), &scan, later()).unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        // Written after the check: what is another one stays.
        let error = remove(&key(), dir.path(), &filter(), &scan, true).unwrap_err();
        assert!(error.code() == Code::Held && dir.path().join("a.json").exists(), "{error}");
    }

    #[test]
    fn a_tree_that_a_process_works_in_or_a_browser_locks_is_in_use() {
        let (dir, scan) = tree(&["creds.json"]);
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        let why = in_use(dir.path(), &scan, later());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(why.unwrap().contains(&child.id().to_string()));
        assert_eq!(in_use(dir.path(), &scan, later()), None);
        std::os::unix::fs::symlink("host-1", dir.path().join(BROWSER)).unwrap();
        assert!(in_use(dir.path(), &scan, later()).unwrap().contains(BROWSER));
    }
}
