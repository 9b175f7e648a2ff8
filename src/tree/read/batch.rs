//! Reads what a scan found.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::databases::{Wanted, read_databases, read_found_out};
use super::leveldbs::read_leveldb;
use super::{Disk, HashCache, Known, Outcome, Stable, read};
use crate::tree::blocks::LARGE;
use crate::tree::identity::Creds;
use crate::tree::scan::Scan;
use crate::tree::sqlite::Sides;
use crate::tree::{BlockTable, Content, Meta, Reason, json};

/// What to read, and when that is.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Paths that an event named: they are read whatever their fingerprint says.
    pub dirty: &'a BTreeSet<String>,
    /// The wall clock before the first read.
    pub now: Timestamp,
    /// A directory for private copies of large files and of databases.
    pub spool: &'a Path,
    /// Whether SQLite checks what is read of databases.
    pub check: bool,
}

/// What reading gave, of the files that a scan found.
#[derive(Debug, Default)]
pub struct Batch {
    /// Files that are fit to commit.
    pub metas: BTreeMap<String, Meta>,
    /// The contents that were asked for.
    pub contents: BTreeMap<String, Content>,
    /// Files that must stay at the head's version.
    pub held: BTreeMap<String, Reason>,
    /// Large files that were read, by their blocks.
    pub blocks: BTreeMap<String, BlockTable>,
    /// Files that vanished since the scan; to be checked again like every removal.
    pub gone: BTreeSet<String>,
    /// The accounts in the databases that were read, now or before.
    pub accounts: BTreeMap<String, Creds>,
    /// Directories of which everything must stay at the head's version.
    pub held_below: BTreeMap<String, Reason>,
    /// `LevelDB` databases that were read as a whole: what else lies in them is not theirs any more.
    pub whole: BTreeSet<String>,
}

/// Reads the files of a scan that were written since the cache last saw them, and those whose content is
/// wanted: for a delta, what differs from the head; for a base, everything.
///
/// # Errors
/// Only those of private copies, such as a full disk.
pub fn read_all(
    disk: &dyn Disk,
    scan: &Scan,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: impl Fn(&str, &Meta) -> bool,
) -> io::Result<Batch> {
    let mut batch = Batch::default();
    let mut databases = Vec::new();
    for (path, found) in &scan.files {
        if scan.leveldb_of(path).is_some() {
            continue;
        }
        let database = scan.databases.get(path);
        let sides = database.map_or(Sides::default(), |database| database.sides);
        let known = if job.dirty.contains(path) { None } else { cache.get(path, found, sides) };
        match (known.filter(|known| !known.verdict.is_ok_and(|meta| wants(path, &meta))), database) {
            (Some(known), _) => batch.note(path, known),
            (None, Some(database)) => databases.push((path.as_str(), *found, *database)),
            (None, None) => read_one(disk, path, job, cache, &wants, &mut batch)?,
        }
    }
    if let (Some(dir), false) = (disk.dir(), databases.is_empty()) {
        let wanted = Wanted { scan, databases };
        read_databases(dir, &wanted, job, cache, &wants, &mut batch)?;
    }
    // Each of one moment, one after the other: what a browser wrote to two of them may lie a moment apart.
    for (dir, blobs) in &scan.leveldbs {
        read_leveldb(disk, (dir, blobs.as_deref()), job, cache, &wants, &mut batch)?;
    }
    Ok(batch)
}

impl Batch {
    /// What an earlier read gave.
    pub(super) fn note(&mut self, path: &str, known: &Known) {
        match known.verdict {
            Ok(meta) => drop(self.metas.insert(path.to_owned(), meta)),
            Err(reason) => drop(self.held.insert(path.to_owned(), reason)),
        }
        let creds = known.database.as_ref().and_then(|(_, creds)| creds.clone());
        self.accounts.extend(creds.map(|creds| (path.to_owned(), creds)));
    }

    /// What this read gave; the content only if it is wanted. Of all large files the blocks are noted, for the next
    /// change of an unchanged one is told by them.
    pub(super) fn keep(
        &mut self,
        path: &str,
        known: &Known,
        content: Content,
        wants: impl Fn(&str, &Meta) -> bool,
    ) -> io::Result<()> {
        self.note(path, known);
        let Ok(meta) = known.verdict else { return Ok(()) };
        if meta.size > LARGE {
            self.blocks.insert(path.to_owned(), BlockTable::of(&content)?);
        }
        if wants(path, &meta) {
            self.contents.insert(path.to_owned(), content);
        }
        Ok(())
    }
}

fn read_one(
    disk: &dyn Disk,
    path: &str,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<()> {
    cache.forget(path);
    let outcome = read(disk, path, job.now, job.spool)?;
    if let Some(dir) = disk.dir()
        && read_found_out(dir, path, &outcome, job, cache, &wants, batch)?
    {
        return Ok(());
    }
    match outcome {
        Outcome::Stable(stable) => {
            let fit = json::is_fit(path, &stable.content)?;
            let verdict = if fit { Ok(stable.meta) } else { Err(Reason::BadJson) };
            let Stable { found, racy, content, .. } = stable;
            let known = Known { fingerprint: found.fingerprint, verdict, racy, database: None };
            batch.keep(path, &known, content, &wants)?;
            cache.insert(path, known);
        }
        Outcome::Gone => drop(batch.gone.insert(path.to_owned())),
        Outcome::Held(reason) => drop(batch.held.insert(path.to_owned(), reason)),
    }
    Ok(())
}
