//! A look at the tree on disk: the thin, blocking part before a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::Error;
use crate::tree::baileys::Member;
use crate::tree::filter::Filter;
use crate::tree::identity::{Creds, auth_dir, may_hold};
use crate::tree::read::{Batch, HashCache, Job, read_all};
use crate::tree::scan::{Scan, absent, scan, scan_some};
use crate::tree::sqlite::Turn;
use crate::tree::{BlockTable, Content, Dir, Meta, Reason, Table};

/// How much of the tree to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// What events named, and what was held before.
    Marked(BTreeSet<String>),
    /// Everything.
    All,
    /// Everything, with all contents: for a base.
    Contents,
    /// Everything, with no contents but those of credentials: for a start.
    Hashes,
}

impl Want {
    /// What marks and held paths ask for. A member of a Baileys group asks for everything: whether the group is
    /// whole can only be told from all of it.
    #[must_use]
    pub fn marked(paths: BTreeSet<String>) -> Self {
        let wide = |path: &String| path.is_empty() || member_of(path).is_some();
        if paths.iter().any(wide) { Self::All } else { Self::Marked(paths) }
    }
}

/// The auth directory and the member that a path is, if any.
#[must_use]
pub fn member_of(path: &str) -> Option<(&str, Member)> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    Member::parse(name).map(|member| (dir, member))
}

/// What one look found.
#[derive(Debug)]
pub struct Sight {
    /// Whether everything was looked at.
    pub full: bool,
    /// When it began.
    pub began: Instant,
    /// Names and stats.
    pub scan: Scan,
    /// Files that are fit to commit.
    pub metas: BTreeMap<String, Meta>,
    /// Contents of what differs from the head (of a base: all).
    pub contents: BTreeMap<String, Content>,
    /// Large files that were read, by their blocks.
    pub blocks: BTreeMap<String, BlockTable>,
    /// Files that must stay at the head's version.
    pub held: BTreeMap<String, Reason>,
    /// Files of the head that are gone, checked twice.
    pub gone: BTreeSet<String>,
    /// Credentials on disk, by the file that holds them; of files not looked at, the head's.
    pub creds: BTreeMap<String, Creds>,
    /// Those of them that are in databases, as far as these were looked at.
    accounts: BTreeMap<String, Creds>,
}

impl Sight {
    /// A look at everything that found these accounts.
    #[cfg(test)]
    #[must_use]
    pub fn found(scan: Scan, metas: BTreeMap<String, Meta>, creds: BTreeMap<String, Creds>) -> Self {
        Self {
            full: true,
            began: Instant::now(),
            scan,
            metas,
            contents: BTreeMap::new(),
            blocks: BTreeMap::new(),
            held: BTreeMap::new(),
            gone: BTreeSet::new(),
            accounts: creds.clone(),
            creds,
        }
    }

    /// Why a path stays at the head's version.
    #[must_use]
    pub fn why_held(&self, path: &str) -> Option<Reason> {
        self.held.get(path).copied().or_else(|| self.scan.why_held(path))
    }

    fn damaged(&self, path: &str) -> bool {
        matches!(self.why_held(path), Some(Reason::SqliteDamaged | Reason::LevelDb))
    }

    /// Ids of the pre-keys on disk in an auth directory, fit or not.
    #[must_use]
    pub fn pre_keys(&self, dir: &str) -> BTreeSet<u64> {
        self.members(dir)
            .filter_map(|member| if let Member::PreKey(id) = member { Some(id) } else { None })
            .collect()
    }

    /// Members of a group on disk that are not fit to commit.
    #[must_use]
    pub fn unfit(&self, dir: &str) -> BTreeSet<Member> {
        let held = self.held.keys().chain(self.scan.held.keys());
        held.filter_map(|path| member_of(path))
            .filter(|(at, _)| *at == dir)
            .map(|(_, member)| member)
            .collect()
    }

    /// Whether a member of a group was written within `quiet` before a look that began then, or during it. A time that lies
    /// further ahead tells of a clock that was set back, and of nothing else.
    #[must_use]
    pub fn wrote_a_group(&self, began: Timestamp, quiet: Duration) -> bool {
        let (began, quiet) = (began.as_nanosecond(), i128::try_from(quiet.as_nanos()).unwrap_or(i128::MAX));
        let took = i128::try_from(self.began.elapsed().as_nanos()).unwrap_or(i128::MAX);
        let recent = |meta: &Meta| {
            let at = i128::from(meta.mtime_ns);
            at > began.saturating_sub(quiet) && at <= began.saturating_add(took).saturating_add(quiet)
        };
        self.metas.iter().any(|(path, meta)| member_of(path).is_some() && recent(meta))
    }

    fn members(&self, dir: &str) -> impl Iterator<Item = Member> {
        let on_disk = self.scan.files.keys().chain(self.scan.held.keys());
        on_disk.filter_map(|path| member_of(path)).filter(move |(at, _)| *at == dir).map(|(_, member)| member)
    }
}

/// Looks at one tree again and again, and remembers the hashes of what did not move.
#[derive(Debug)]
pub struct Eye {
    dir: PathBuf,
    filter: Arc<Filter>,
    spool: PathBuf,
    cache: HashCache,
}

impl Eye {
    /// For the tree in `dir`; private copies of large files go to `spool`.
    #[must_use]
    pub fn new(dir: PathBuf, filter: Arc<Filter>, spool: PathBuf) -> Self {
        Self { dir, filter, spool, cache: HashCache::default() }
    }

    /// The tree's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Blocking. `dirty` is read whatever its stat says: an event always means a new hash.
    ///
    /// # Errors
    /// Only what concerns our own files, such as a full disk; what is wrong with the tree is in the sight.
    pub fn look(
        &mut self,
        want: &Want,
        dirty: &BTreeSet<String>,
        head: &Table,
        head_creds: &BTreeMap<String, Creds>,
        now: Timestamp,
    ) -> Result<Sight, Error> {
        let began = Instant::now();
        let full = !matches!(want, Want::Marked(_));
        let dir = match Dir::open(&self.dir) {
            Ok(dir) => dir,
            Err(error) => return Ok(self.without_directory(&error, head, head_creds, began)),
        };
        let _turn = Turn::take(&self.dir);
        self.find_preset(&dir);
        let scanned = match want {
            Want::Marked(paths) => scan_some(&dir, &self.filter, paths),
            Want::All | Want::Contents | Want::Hashes => scan(&dir, &self.filter),
        };
        let scanned = scanned.map_err(|error| Error::io("the tree cannot be scanned", error))?;
        let differs = |path: &str, meta: &Meta| match want {
            Want::Contents => true,
            Want::Hashes => matches!(member_of(path), Some((_, Member::Creds))),
            Want::All | Want::Marked(_) => head.files.get(path).is_none_or(|old| old.sha256 != meta.sha256),
        };
        let job = Job { dirty, now, spool: &self.spool, check: *want == Want::Contents };
        let read = read_all(&dir, &scanned, job, &mut self.cache, differs);
        let Batch { metas, contents, blocks, held, gone, accounts, held_below, whole } =
            read.map_err(|error| Error::io("a private copy cannot be made", error))?;
        let mut scanned = scanned;
        scanned.held.extend(held_below);
        if full {
            self.cache.retain(|path| scanned.files.contains_key(path) || metas.contains_key(path));
        }
        let mut sight = Sight {
            full,
            began,
            metas,
            contents,
            blocks,
            held,
            gone: BTreeSet::new(),
            creds: head_creds.clone(),
            accounts,
            scan: scanned,
        };
        let candidates: BTreeSet<String> = sight
            .scan
            .gone(head)
            .map(str::to_owned)
            .chain(gone)
            .filter(|path| head.files.contains_key(path))
            .collect();
        // What a database does not need any more may lie there still.
        let done = |path: &&String| {
            sight.scan.leveldb_of(path).is_some_and(|dir| whole.contains(dir))
                && !sight.metas.contains_key(*path)
        };
        sight.gone = head.files.keys().filter(done).cloned().collect();
        for path in candidates {
            // It may have come since the scan.
            if sight.gone.contains(&path) || sight.metas.contains_key(&path) {
                continue;
            }
            // Only ENOENT, seen twice, is absence.
            match absent(&dir, &self.filter, &path) {
                Ok(true) => drop(sight.gone.insert(path)),
                Ok(false) => {}
                Err(_) => drop(sight.held.insert(path, Reason::Unreadable)),
            }
        }
        sight.creds = Self::creds(&sight, head, head_creds);
        Ok(sight)
    }

    /// What belongs to the tree, as far as it could be found by looking.
    #[must_use]
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// A tree that was empty at the start tells its kind only later: before the first commit of a browser's caches.
    fn find_preset(&mut self, dir: &Dir) {
        if self.filter.preset().is_none()
            && let Ok(found) = self.filter.for_dir(dir)
            && found.preset().is_some()
        {
            self.filter = Arc::new(found);
        }
    }

    /// The session directory itself cannot be opened: gone, the tree is emptied; anything else holds it whole.
    fn without_directory(
        &mut self,
        error: &io::Error,
        head: &Table,
        head_creds: &BTreeMap<String, Creds>,
        began: Instant,
    ) -> Sight {
        self.cache = HashCache::default();
        let mut scan = Scan::default();
        let missing = error.kind() == io::ErrorKind::NotFound;
        if !missing {
            scan.held.insert(String::new(), Reason::Unreadable);
        }
        Sight {
            full: true,
            began,
            scan,
            metas: BTreeMap::new(),
            contents: BTreeMap::new(),
            blocks: BTreeMap::new(),
            held: BTreeMap::new(),
            gone: if missing { head.files.keys().cloned().collect() } else { BTreeSet::new() },
            creds: if missing { BTreeMap::new() } else { head_creds.clone() },
            accounts: BTreeMap::new(),
        }
    }

    fn creds(sight: &Sight, head: &Table, head_creds: &BTreeMap<String, Creds>) -> BTreeMap<String, Creds> {
        let on_disk = sight.scan.files.keys().chain(sight.scan.held.keys());
        let paths = on_disk.chain(head.files.keys()).chain(head_creds.keys());
        let paths: BTreeSet<&String> = paths.filter(|path| may_hold(path)).collect();
        let of = |path: &&String| {
            let known = head_creds.get(*path);
            // Of a group's files it is known only after a look at everything what they are.
            let looked_at = if auth_dir(path).is_some() { sight.full } else { sight.scan.covers(path) };
            let creds = if looked_at { Self::creds_at(sight, path, head, known) } else { known.cloned() };
            creds.map(|creds| ((*path).clone(), creds))
        };
        paths.iter().filter_map(of).collect()
    }

    /// What a file holds that was looked at; none where it is a database without accounts.
    fn creds_at(sight: &Sight, path: &str, head: &Table, known: Option<&Creds>) -> Option<Creds> {
        let as_before = || Some(known.cloned().unwrap_or(Creds::UNREADABLE));
        let is_json = auth_dir(path).is_some();
        let same = |meta: &Meta| head.files.get(path).is_some_and(|old| old.sha256 == meta.sha256);
        match (sight.metas.get(path), sight.why_held(path)) {
            // At this moment somebody is at it: nothing is known of it yet.
            (_, Some(Reason::Changing | Reason::SqliteLocked)) if is_json || known.is_some() => as_before(),
            // Another's database says nothing of ours.
            (_, Some(Reason::SqliteOwner)) => known.cloned(),
            (_, Some(_)) if is_json || known.is_some() || sight.damaged(path) => Some(Creds::UNREADABLE),
            (_, Some(_)) => None,
            (Some(_), None) if !is_json => sight.accounts.get(path).cloned(),
            (Some(meta), None) if same(meta) => as_before(),
            (Some(_), None) => match sight.contents.get(path).map(Content::bytes) {
                Some(Ok(bytes)) => Some(Creds::parse(Some(&bytes))),
                _ => Some(Creds::UNREADABLE),
            },
            (None, None) if sight.gone.contains(path) || !head.files.contains_key(path) => {
                is_json.then_some(Creds::ABSENT)
            }
            (None, None) => known.cloned().or(is_json.then_some(Creds::ABSENT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_was_written_a_moment_ago_is_told_from_one_that_rests() {
        let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("creds.json"), "{}").unwrap();
        std::fs::write(dir.path().join("session-1.json"), "{}").unwrap();
        let filter = Arc::new(Filter::new(None, &[], &[]).unwrap());
        let mut eye = Eye::new(dir.path().to_owned(), filter, spool.path().to_owned());
        let now = Timestamp::now();
        let mut look = || {
            let (head, creds) = (Table::default(), BTreeMap::new());
            eye.look(&Want::Hashes, &BTreeSet::new(), &head, &creds, now).unwrap()
        };
        let (seconds, quiet) = (jiff::SignedDuration::from_secs, Duration::from_millis(500));
        let sight = look();
        assert!(sight.wrote_a_group(now, quiet));
        assert!(!sight.wrote_a_group(now + seconds(60), quiet), "it rests");
        assert!(!sight.wrote_a_group(now - seconds(3600), quiet), "a clock that was set back");
        std::fs::remove_file(dir.path().join("creds.json")).unwrap();
        assert!(!look().wrote_a_group(now, quiet), "no member of a group");
    }
}
