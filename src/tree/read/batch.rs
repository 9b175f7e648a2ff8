//! Reads what a scan found.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::{Disk, HashCache, Known, Outcome, read};
use crate::tree::blocks::LARGE;
use crate::tree::scan::Scan;
use crate::tree::{BlockTable, Content, Meta, Reason, json};

/// What to read, and when that is.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Paths that an event named: they are read whatever their fingerprint says.
    pub dirty: &'a BTreeSet<String>,
    /// The wall clock before the first read.
    pub now: Timestamp,
    /// A directory for private copies of large files.
    pub spool: &'a Path,
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
}

impl Batch {
    /// Takes a file that is fit to commit, its content only if it is wanted: of all large ones the blocks are noted, for
    /// the next change of an unchanged one is told by them.
    pub fn take(&mut self, path: &str, meta: Meta, content: Content, wanted: bool) -> io::Result<()> {
        if meta.size > LARGE {
            self.blocks.insert(path.to_owned(), BlockTable::of(&content)?);
        }
        if wanted {
            self.contents.insert(path.to_owned(), content);
        }
        self.metas.insert(path.to_owned(), meta);
        Ok(())
    }
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
    for (path, found) in &scan.files {
        let known = if job.dirty.contains(path) { None } else { cache.get(path, found) };
        match known {
            Some(Ok(meta)) if !wants(path, &meta) => drop(batch.metas.insert(path.clone(), meta)),
            Some(Err(reason)) => drop(batch.held.insert(path.clone(), reason)),
            _ => read_one(disk, path, job, cache, &wants, &mut batch)?,
        }
    }
    Ok(batch)
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
    match read(disk, path, job.now, job.spool)? {
        Outcome::Stable(stable) => {
            let fit = json::is_fit(path, &stable.content)?;
            let verdict = if fit { Ok(stable.meta) } else { Err(Reason::BadJson) };
            let fingerprint = stable.found.fingerprint;
            cache.insert(path, Known { fingerprint, verdict, racy: stable.racy });
            match verdict {
                Ok(meta) => batch.take(path, meta, stable.content, wants(path, &meta))?,
                Err(reason) => drop(batch.held.insert(path.to_owned(), reason)),
            }
        }
        Outcome::Gone => drop(batch.gone.insert(path.to_owned())),
        Outcome::Held(reason) => drop(batch.held.insert(path.to_owned(), reason)),
    }
    Ok(())
}
