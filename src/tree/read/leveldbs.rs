//! Reads `LevelDB` databases while whoever has them open goes on writing.
//!
//! No lock keeps the writer out, and none is needed: tables do not change, manifest and logs only grow, and a file is
//! deleted only after the manifest says that it is not needed. So what the manifest named is there as long as the
//! manifest stands; and a log up to any of its records, together with it, is a state that the database was in.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::{Batch, Disk, HashCache, Job, Known, Outcome, Stable, is_racy, load, read};
use crate::tree::identity::Creds;
use crate::tree::leveldb::records::read_records;
use crate::tree::leveldb::{self, CURRENT, Member, Version, local_storage, manifest_name, table};
use crate::tree::scan::Found;
use crate::tree::sqlite::Sides;
use crate::tree::{Content, Dir, Hash, Meta, Reason};

/// How often a database is read before it is held to the next window: a busy one writes a table every second or so.
const TRIES: u32 = 5;
/// The largest manifest: one of a hundred thousand tables.
const MANIFEST_MOST: u64 = 64 << 20;
/// So many files beside a database are held open at once; a process may often have a thousand.
const OPEN_MOST: usize = 256;

/// Reads a database that a scan found, of one moment and with the files of it that lie outside, or holds it whole.
pub(super) fn read_leveldb(
    disk: &dyn Disk,
    (dir, blobs): (&str, Option<&str>),
    job: Job<'_>,
    cache: &mut HashCache,
    wants: &impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<()> {
    let mut reading = Reading { disk, dir, blobs, job, tables: BTreeMap::new(), stands_on: None };
    let mut why = Reason::Changing;
    for _ in 0..TRIES {
        match reading.attempt(cache, wants) {
            Ok(files) => return reading.keep(files, cache, wants, batch),
            Err(Failure::Spool(error)) => return Err(error),
            // Damage was read, unless the writer was faster.
            Err(Failure::Held(Reason::LevelDb)) if !reading.stands() => why = Reason::Changing,
            Err(Failure::Held(reason)) => {
                if std::mem::replace(&mut why, reason) == reason && reason == Reason::LevelDb {
                    break;
                }
            }
        }
    }
    let held = std::iter::once(dir).chain(blobs).map(|dir| (dir.to_owned(), why));
    batch.held_below.extend(held);
    Ok(())
}

enum Failure {
    Held(Reason),
    /// A private copy cannot be made: it is not the database's fault.
    Spool(io::Error),
}

impl Failure {
    /// Of a file that must be there.
    fn of_file(error: &io::Error) -> Self {
        Self::Held(match error.kind() {
            io::ErrorKind::NotFound => Reason::LevelDb,
            _ => Reason::Unreadable,
        })
    }
}

impl From<super::Failure> for Failure {
    fn from(failure: super::Failure) -> Self {
        match failure {
            super::Failure::File(error) => Self::of_file(&error),
            super::Failure::Spool(error) => Self::Spool(error),
        }
    }
}

impl From<leveldb::Failure> for Failure {
    fn from(failure: leveldb::Failure) -> Self {
        match failure {
            leveldb::Failure::Damage(what) => {
                tracing::debug!(what, "a LevelDB database is not fit");
                Self::Held(Reason::LevelDb)
            }
            leveldb::Failure::Io(error) => Self::Spool(error),
        }
    }
}

/// A file of a database.
struct One {
    known: Known,
    /// None of what was read before and is not wanted.
    content: Option<Content>,
    /// Whether it can be known again by its looks.
    lasts: bool,
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    dir: &'a str,
    blobs: Option<&'a str>,
    job: Job<'a>,
    /// Tables that an earlier try read: they do not change.
    tables: BTreeMap<String, One>,
    /// What the last try stands on.
    stands_on: Option<Ground>,
}

/// `CURRENT` and the manifest, as they were read.
struct Ground {
    current: Found,
    manifest: (String, Found),
    /// How much of the manifest was read.
    size: u64,
}

impl<'a> Reading<'a> {
    fn attempt(
        &mut self,
        cache: &HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
    ) -> Result<BTreeMap<String, One>, Failure> {
        self.stands_on = None;
        let (current_found, current) = self.whole(CURRENT)?;
        let name = manifest_name(&current).ok_or(Failure::Held(Reason::LevelDb))?;
        let (found, manifest) = self.whole(name)?;
        let size = manifest.len() as u64;
        self.stands_on = Some(Ground { current: current_found, manifest: (name.to_owned(), found), size });
        let version = Version::parse(&manifest)?;
        // Listed after the manifest: a log that the manifest needs is there, or the manifest has moved.
        let (names, logs) = self.list(&version)?;
        let mut files = BTreeMap::new();
        for (number, size) in &version.tables {
            // P4: without one, LevelDB says that the database is corrupt, and Chromium begins a new one.
            let name = names.get(number).ok_or(Failure::Held(Reason::LevelDb))?;
            self.table(name, *size, cache, wants)?;
        }
        let before = self.open_blobs(cache, wants)?;
        let opened = logs.iter().map(|name| Ok((name, self.disk.open(&self.path(name))?)));
        let opened: Vec<_> = opened.collect::<io::Result<_>>().map_err(|error| Failure::of_file(&error))?;
        let sizes: Vec<_> = opened.iter().map(|(name, (found, _))| (*name, *found)).collect();
        let blobs = self.merge_blobs(before, cache, wants, &sizes)?;
        // What is open stays readable. From here on the writer may do what it likes.
        if !self.stands() {
            return Err(Failure::Held(Reason::Changing));
        }
        for (name, (found, reader)) in opened {
            let found = found.ok_or(Failure::Held(Reason::LevelDb))?;
            let (content, sha256) = self.log(reader, found.fingerprint.size)?;
            files.insert(self.path(name), One::of(&found, content, sha256));
        }
        let manifest = Content::Bytes(manifest.into()).cut(version.length);
        for (name, found, content) in
            [(CURRENT, current_found, Content::Bytes(current.clone().into())), (name, found, manifest)]
        {
            let sha256 = content.hash().map_err(Failure::Spool)?;
            files.insert(self.path(name), One::of(&found, content, sha256));
        }
        files.extend(self.read_blobs(blobs)?);
        let needed = version.tables.keys().filter_map(|number| names.get(number));
        for name in needed {
            files.extend(self.tables.remove(name).map(|one| (self.path(name), one)));
        }
        Ok(files)
    }

    /// The names of all tables by number, and of the logs that are needed, from the oldest on.
    fn list(&self, version: &Version) -> Result<(BTreeMap<u64, String>, Vec<String>), Failure> {
        let names = self.disk.names(self.dir).map_err(|error| Failure::of_file(&error))?;
        let (mut tables, mut logs) = (BTreeMap::new(), BTreeMap::new());
        for name in names.into_iter().filter_map(|name| name.into_string().ok()) {
            match Member::parse(&name) {
                Some(Member::Table(number)) => drop(tables.insert(number, name)),
                Some(Member::Log(number)) if version.needs_log(number) => drop(logs.insert(number, name)),
                _ => {}
            }
        }
        // LevelDB does not ask for it, and opens the database without what was in it.
        if version.log != 0 && !logs.contains_key(&version.log) {
            return Err(Failure::Held(Reason::LevelDb));
        }
        Ok((tables, logs.into_values().collect()))
    }

    /// Reads a table, unless it is known and not wanted.
    fn table(
        &mut self,
        name: &str,
        size: u64,
        cache: &HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
    ) -> Result<(), Failure> {
        let path = self.path(name);
        let found = self.disk.stat(&path).map_err(|error| Failure::of_file(&error))?;
        let found = found.filter(|found| found.fingerprint.size == size);
        let found = found.ok_or(Failure::Held(Reason::LevelDb))?;
        if self.tables.get(name).is_some_and(|one| one.known.fingerprint == found.fingerprint) {
            return Ok(());
        }
        let one = if let Some(known) = self.known(&path, &found, cache, wants) {
            One { known: known.clone(), content: None, lasts: true }
        } else {
            let one = self.read(&path)?.ok_or(Failure::Held(Reason::LevelDb))?;
            let content = one.content.as_ref().map(Content::bytes);
            if let Some(bytes) = content.transpose().map_err(Failure::Spool)? {
                table::check(&bytes)?;
            }
            // Whatever its times say: nobody writes to it any more.
            One { known: Known { racy: false, ..one.known }, ..one }
        };
        self.tables.insert(name.to_owned(), one);
        Ok(())
    }

    /// What lies beside the database now, opened: so it stays readable whoever deletes it. And all names that were there.
    fn open_blobs(
        &self,
        cache: &HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
    ) -> Result<(Blobs<'a>, Vec<String>), Failure> {
        let disk: &'a dyn Disk = self.disk;
        let (mut blobs, mut opened) = (BTreeMap::new(), 0);
        let (files, seen) = self.list_blobs()?;
        for (path, found) in files {
            let blob = match self.known(&path, &found, cache, wants) {
                Some(known) => Blob::Known(Box::new(known.clone())),
                None if opened == OPEN_MOST => Blob::Closed,
                None => match disk.open(&path) {
                    Ok((Some(found), reader)) => Blob::Open(found, reader),
                    Ok((None, _)) => continue,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(_) => return Err(Failure::Held(Reason::Unreadable)),
                },
            };
            opened += usize::from(matches!(blob, Blob::Open(..)));
            blobs.insert(path, blob);
        }
        Ok((blobs, seen))
    }

    /// What lies there after the logs were opened, and what was deleted since. A record speaks of what was written before
    /// it, and what no record needs any more is deleted after the record that says so. So this is all that any record
    /// needs, but for what came after the first look and went before the second: where a log grew meanwhile, a number that
    /// is missing tells of it.
    fn merge_blobs(
        &self,
        (before, seen): (Blobs<'a>, Vec<String>),
        cache: &HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
        logs: &[(&String, Option<Found>)],
    ) -> Result<Blobs<'a>, Failure> {
        if self.blobs.is_none() {
            return Ok(before);
        }
        let (mut blobs, new) = self.open_blobs(cache, wants)?;
        blobs.extend(before);
        let grew = |(name, found): &(&String, Option<Found>)| {
            self.disk.stat(&self.path(name)).ok().flatten().map(|now| now.fingerprint.size)
                != found.map(|found| found.fingerprint.size)
        };
        if logs.iter().any(grew) && self.lacks_a_number(&seen, &new) {
            return Err(Failure::Held(Reason::Changing));
        }
        Ok(blobs)
    }

    /// Whether the numbers of what is new do not follow each other: `{database}/{two digits}/{number}`, all in hex.
    fn lacks_a_number(&self, before: &[String], now: &[String]) -> bool {
        let number = |path: &String| -> Option<(String, u64)> {
            let inside = path.strip_prefix(self.blobs?)?.strip_prefix('/')?;
            let (database, name) = (inside.split_once('/')?.0, inside.rsplit_once('/')?.1);
            Some((database.to_owned(), u64::from_str_radix(name, 16).ok()?))
        };
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        for (database, number) in before.iter().filter_map(number) {
            let newest = newest.entry(database).or_default();
            *newest = number.max(*newest);
        }
        let mut new: Vec<(String, u64)> = now.iter().filter_map(number).collect();
        new.sort();
        new.into_iter().any(|(database, number)| {
            let newest = newest.entry(database).or_default();
            let follows = number <= *newest + 1;
            *newest = number.max(*newest);
            !follows
        })
    }

    /// Reads what was opened. What a record speaks of is whole by now; what is being written is not spoken of yet.
    fn read_blobs(&self, blobs: Blobs<'a>) -> Result<BTreeMap<String, One>, Failure> {
        let mut files = BTreeMap::new();
        for (path, blob) in blobs {
            let one = match blob {
                Blob::Known(known) => Some(One { known: *known, content: None, lasts: false }),
                Blob::Open(found, reader) => {
                    let (content, sha256) = load(reader, found.fingerprint.size, self.job.spool)?;
                    let whole = content.size() == found.fingerprint.size;
                    let one = One::of(&found, content, sha256);
                    let racy = is_racy(&found, self.job.now);
                    Some(One { known: Known { racy, ..one.known }, lasts: whole, ..one })
                }
                Blob::Closed => self.read(&path)?,
            };
            files.extend(one.map(|one| (path, one)));
        }
        Ok(files)
    }

    fn known<'c>(
        &self,
        path: &str,
        found: &Found,
        cache: &'c HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
    ) -> Option<&'c Known> {
        if self.job.dirty.contains(path) || self.holds_identity() {
            return None;
        }
        let known = cache.get(path, found, Sides::default())?;
        known.verdict.is_ok_and(|meta| !wants(path, &meta)).then_some(known)
    }

    /// Reads a file that must be there; none where it moved all the time.
    fn read(&self, path: &str) -> Result<Option<One>, Failure> {
        match read(self.disk, path, self.job.now, self.job.spool).map_err(Failure::Spool)? {
            Outcome::Stable(stable) => Ok(Some(One::of_stable(stable))),
            Outcome::Gone => Err(Failure::Held(Reason::Changing)),
            Outcome::Held(Reason::Changing) => Ok(None),
            Outcome::Held(reason) => Err(Failure::Held(reason)),
        }
    }

    /// A log, as far as it was when it was opened, up to the last whole record.
    fn log(&self, reader: Box<dyn Read + '_>, size: u64) -> Result<(Content, Hash), Failure> {
        let (content, sha256) = load(reader.take(size), size, self.job.spool)?;
        cut(content, sha256)
    }

    /// A small file, whole.
    fn whole(&self, name: &str) -> Result<(Found, Vec<u8>), Failure> {
        let (found, reader) = self.disk.open(&self.path(name)).map_err(|error| Failure::of_file(&error))?;
        let found = found.ok_or(Failure::Held(Reason::LevelDb))?;
        let mut bytes = Vec::new();
        reader.take(MANIFEST_MOST).read_to_end(&mut bytes).map_err(|error| Failure::of_file(&error))?;
        Ok((found, bytes))
    }

    /// Whether `CURRENT` and the manifest are as they were read.
    fn stands(&self) -> bool {
        let Some(Ground { current, manifest: (name, found), size }) = &self.stands_on else { return true };
        let now = |name: &str| self.disk.stat(&self.path(name)).ok().flatten();
        let id = |found: &Found| (found.fingerprint.dev, found.fingerprint.inode);
        // It only grows.
        let same = |now: Found| id(&now) == id(found) && now.fingerprint.size == *size;
        now(CURRENT) == Some(*current) && now(name).is_some_and(same)
    }

    /// What lies beside the database and belongs to it, and all names that were there, also of what is gone since.
    fn list_blobs(&self) -> Result<(BTreeMap<String, Found>, Vec<String>), Failure> {
        let (mut files, mut seen) = (BTreeMap::new(), Vec::new());
        let mut left: Vec<String> = self.blobs.into_iter().map(str::to_owned).collect();
        while let Some(dir) = left.pop() {
            let names = match self.disk.names(&dir) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => return Err(Failure::Held(Reason::Unreadable)),
            };
            for name in names.into_iter().filter_map(|name| name.into_string().ok()) {
                let path = format!("{dir}/{name}");
                seen.push(path.clone());
                match self.disk.stat(&path) {
                    Ok(Some(found)) => drop(files.insert(path, found)),
                    // Neither links nor pipes are in the tree; what is no directory has no names.
                    Ok(None) if self.disk.is_dir(&path) => left.push(path),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => return Err(Failure::Held(Reason::Unreadable)),
                }
            }
        }
        Ok((files, seen))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Whether the database is one that says whose account it is: it is small, and read as a whole.
    fn holds_identity(&self) -> bool {
        self.dir.ends_with(local_storage::DIR)
    }

    /// Notes what was read.
    fn keep(
        &self,
        files: BTreeMap<String, One>,
        cache: &mut HashCache,
        wants: &impl Fn(&str, &Meta) -> bool,
        batch: &mut Batch,
    ) -> io::Result<()> {
        if self.holds_identity() {
            let contents = files.iter().filter_map(|(path, one)| Some((path.as_str(), one.content.clone()?)));
            let creds = Creds::of_profile(contents)?;
            batch.accounts.extend(creds.map(|creds| (self.path(CURRENT), creds)));
        }
        for (path, One { known, content, lasts }) in files {
            match content {
                Some(content) => batch.keep(&path, &known, content, wants)?,
                None => batch.note(&path, &known),
            }
            if lasts {
                cache.insert(&path, known);
            }
        }
        batch.whole.insert(self.dir.to_owned());
        Ok(())
    }
}

/// What lies beside a database, by path.
type Blobs<'a> = BTreeMap<String, Blob<'a>>;

/// One of them.
enum Blob<'a> {
    /// It was read before, and is not wanted.
    Known(Box<Known>),
    Open(Found, Box<dyn Read + 'a>),
    /// There are too many.
    Closed,
}

impl One {
    fn of_stable(stable: Stable) -> Self {
        let one = Self::of(&stable.found, stable.content, stable.meta.sha256);
        Self { known: Known { racy: stable.racy, ..one.known }, lasts: true, ..one }
    }

    fn of(found: &Found, content: Content, sha256: Hash) -> Self {
        let meta = Meta { size: content.size(), mode: found.mode, mtime_ns: found.mtime_ns(), sha256 };
        let known = Known { fingerprint: found.fingerprint, verdict: Ok(meta), racy: true, database: None };
        Self { known, content: Some(content), lasts: false }
    }
}

/// A log or a manifest without what its writer had not finished.
fn cut(content: Content, sha256: Hash) -> Result<(Content, Hash), Failure> {
    let whole = read_records(io::BufReader::new(content.reader()), |_| Ok(()))?;
    if whole == content.size() {
        return Ok((content, sha256));
    }
    let content = content.cut(whole);
    let sha256 = content.hash().map_err(Failure::Spool)?;
    Ok((content, sha256))
}

/// One file of a database as a commit would have it, if nothing was written since. What does not change is read as
/// other files are, what grows up to its last whole record.
pub(super) fn read_member(dir: &Dir, path: &str, job: Job<'_>) -> io::Result<Option<(Meta, Content)>> {
    let Outcome::Stable(stable) = read(dir, path, job.now, job.spool)? else { return Ok(None) };
    let name = path.rsplit('/').next().unwrap_or(path);
    if !matches!(Member::parse(name), Some(Member::Log(_) | Member::Manifest(_))) {
        return Ok(Some((stable.meta, stable.content)));
    }
    match cut(stable.content, stable.meta.sha256) {
        Ok((content, sha256)) => Ok(Some((Meta { size: content.size(), sha256, ..stable.meta }, content))),
        Err(Failure::Spool(error)) => Err(error),
        Err(Failure::Held(_)) => Ok(None),
    }
}
