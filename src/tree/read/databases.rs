//! Reads databases: through SQLite where somebody may have them open, else as other files.

use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;

use super::leveldbs::read_member;
use super::{Batch, HashCache, Job, Known, Outcome, Stable, read_all};
use crate::tree::identity::{Creds, accounts};
use crate::tree::scan::{Found, Scan, scan_some};
use crate::tree::sqlite::snapshot::{Failure, Snapshot, at_one_moment, is_damage, is_whole};
use crate::tree::sqlite::{Database, Kind, Sides, has_database_name, is_foreign};
use crate::tree::{Content, Dir, Filter, Meta, Reason};

/// A database that a scan found.
type One<'a> = (&'a str, Found, Database);

/// What is to be read of a scan.
pub(super) struct Wanted<'a> {
    pub scan: &'a Scan,
    pub databases: Vec<One<'a>>,
}

/// Whether a content is a database's.
pub(super) fn is_database(content: &Content) -> io::Result<bool> {
    let mut header = Vec::with_capacity(32);
    content.reader().take(20).read_to_end(&mut header)?;
    Ok(matches!(Kind::of(&header), Kind::Rollback | Kind::Wal))
}

/// Reads databases that may be in use, all of one moment.
pub(super) fn read_databases(
    dir: &Dir,
    wanted: &Wanted<'_>,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: &impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    let (foreign, own): (Vec<One<'_>>, Vec<One<'_>>) =
        wanted.databases.iter().copied().partition(|(_, _, database)| is_foreign(database.uid, ours));
    batch.held.extend(foreign.into_iter().map(|(path, ..)| (path.to_owned(), Reason::SqliteOwner)));
    let moved = || {
        // Once the others' transactions are begun: what was known of these must still be so.
        let rest = wanted.scan.databases.iter().filter(|(path, _)| batch.metas.contains_key(*path));
        rest.filter_map(|(path, database)| moved_since(dir, path, wanted.scan, database)).collect::<Vec<_>>()
    };
    let more = std::cell::RefCell::new(Vec::new());
    let read = at_one_moment(dir, job.spool, &own, || {
        let moved = moved();
        more.borrow_mut().clone_from(&moved);
        moved
    });
    let all: Vec<One<'_>> = own.into_iter().chain(more.into_inner()).collect();
    for ((path, found, database), (_, outcome)) in all.into_iter().zip(read) {
        cache.forget(path);
        batch.forget(path);
        let failure = match outcome {
            Ok(snapshot) => {
                take((path, found, database), snapshot, job, cache, wants, batch)?;
                continue;
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Held(reason) => drop(batch.held.insert(path.to_owned(), reason)),
            Failure::Gone => drop(batch.gone.insert(path.to_owned())),
            Failure::Spool(error) => return Err(error),
        }
    }
    Ok(())
}

impl Batch {
    fn forget(&mut self, path: &str) {
        self.metas.remove(path);
        self.accounts.remove(path);
        self.blocks.remove(path);
    }
}

/// A database as it is now, if it is not as it was.
fn moved_since<'a>(dir: &Dir, path: &'a str, scan: &Scan, database: &Database) -> Option<One<'a>> {
    let now = Found::of(&dir.stat(path).ok()?)?;
    let sides = Sides::of(dir, path).ok()?;
    let same = scan.files.get(path) == Some(&now)
        && (sides.wal, sides.journal) == (database.sides.wal, database.sides.journal);
    (!same).then_some((path, now, Database { sides, ..*database }))
}

/// A database as it is now; none when it is none any more, or cannot be told.
fn database_now<'a>(dir: &Dir, path: &'a str) -> Option<One<'a>> {
    let stat = dir.stat(path).ok()?;
    let kind = Kind::sniff(dir, path).ok().filter(|kind| matches!(kind, Kind::Rollback | Kind::Wal))?;
    let database = Database { sides: Sides::of(dir, path).ok()?, kind: Some(kind), uid: stat.st_uid };
    Some((path, Found::of(&stat)?, database))
}

/// A file that turned out to be a database when it was read, or that moved all the time and may be one. If nobody was at
/// it, what was read counts; else it is read through SQLite after all. Whether anything was done.
pub(super) fn read_found_out(
    dir: &Dir,
    path: &str,
    outcome: &Outcome,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: &impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<bool> {
    let stable = match outcome {
        Outcome::Stable(stable) if is_database(&stable.content)? => Some(stable),
        Outcome::Held(Reason::Changing) => None,
        _ => return Ok(false),
    };
    let Some((_, found, database)) = database_now(dir, path) else { return Ok(false) };
    // Writes within one tick leave the same times, and who writes with a journal alone may be in the middle of them.
    let settled = |stable: &&Stable| {
        let torn = stable.racy && database.kind == Some(Kind::Rollback);
        database.sides.is_bare() && found == stable.found && !torn
    };
    let foreign = is_foreign(database.uid, rustix::process::geteuid().as_raw());
    let Some(stable) = stable.filter(settled).filter(|_| !foreign) else {
        let wanted = Wanted { scan: &Scan::default(), databases: vec![(path, found, database)] };
        read_databases(dir, &wanted, job, cache, wants, batch)?;
        return Ok(true);
    };
    match Snapshot::of_content(&stable.content, job.spool) {
        Ok(snapshot) => {
            take(
                (path, found, Database { sides: Sides::default(), ..database }),
                snapshot,
                job,
                cache,
                wants,
                batch,
            )?;
        }
        Err(Failure::Spool(error)) => return Err(error),
        Err(Failure::Held(_) | Failure::Gone) => {
            batch.held.insert(path.to_owned(), Reason::Unreadable);
        }
    }
    Ok(true)
}

/// Notes what a snapshot gave.
fn take(
    (path, found, database): One<'_>,
    snapshot: Snapshot,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: &impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<()> {
    let (verdict, creds) = look_into(path, &snapshot, job.check);
    let meta = meta(&found, &snapshot);
    let known = Known {
        fingerprint: found.fingerprint,
        verdict: verdict.map(|()| meta),
        racy: database.is_racy(&found, job.now),
        database: Some((database.sides, creds)),
    };
    batch.keep(path, &known, snapshot.content, wants)?;
    cache.insert(path, known);
    Ok(())
}

/// As history knows it: mode and time are the file's, the bytes are the snapshot's.
fn meta(found: &Found, snapshot: &Snapshot) -> Meta {
    let size = snapshot.content.size();
    Meta { size, mode: found.mode, mtime_ns: found.mtime_ns(), sha256: snapshot.sha256 }
}

/// Whether a snapshot is fit to commit, and whose accounts it holds.
fn look_into(path: &str, snapshot: &Snapshot, check: bool) -> (Result<(), Reason>, Option<Creds>) {
    let named = has_database_name(path);
    if snapshot.content.size() == 0 || (!named && !check) {
        return (Ok(()), None);
    }
    let looked = snapshot.open().and_then(|database| {
        if check && !is_whole(&database) {
            return Ok((Err(Reason::SqliteDamaged), None));
        }
        Ok((Ok(()), if named { accounts(&database)? } else { None }))
    });
    match looked {
        Ok(found) => found,
        Err(error) if is_damage(&error) => (Err(Reason::SqliteDamaged), None),
        // Of a library of the bot's own.
        Err(_) => (Ok(()), None),
    }
}

/// Reads one file of a tree as a commit would have it: through SQLite where it is a database. None when it is gone or
/// not fit.
///
/// # Errors
/// Only those of the private copy, such as a full disk.
pub fn read_file(
    dir: &Dir,
    filter: &Filter,
    path: &str,
    now: Timestamp,
    spool: &Path,
) -> io::Result<Option<(Meta, Content)>> {
    let wanted = [path.to_owned()].into();
    let Ok(scan) = scan_some(dir, filter, &wanted) else { return Ok(None) };
    let job = Job { dirty: &wanted, now, spool, check: false };
    if scan.leveldb_of(path).is_some() {
        return read_member(dir, path, job);
    }
    let mut batch = read_all(dir, &scan, job, &mut HashCache::default(), |read, _| read == path)?;
    Ok(batch.metas.remove(path).zip(batch.contents.remove(path)))
}
