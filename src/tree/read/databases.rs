//! Reads databases: through SQLite where somebody may have them open, else as other files.

use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;

use super::{Batch, HashCache, Job, Known, Outcome, RETRIES, Stable, is_racy, read};
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
                let (verdict, creds) = look_into(path, &snapshot, job.check);
                let meta = meta(&found, &snapshot);
                let known = Known {
                    fingerprint: found.fingerprint,
                    verdict: verdict.map(|()| meta),
                    racy: database.is_racy(&found, job.now),
                    database: Some((database.sides, creds)),
                };
                batch.note(path, &known);
                if known.verdict.is_ok() && wants(path, &meta) {
                    batch.contents.insert(path.to_owned(), snapshot.content);
                }
                cache.insert(path, known);
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

/// A database that was read as a file, because nothing lay beside it.
pub(super) fn read_plain_database(
    dir: &Dir,
    path: &str,
    stable: Stable,
    job: Job<'_>,
    cache: &mut HashCache,
    wants: &impl Fn(&str, &Meta) -> bool,
    batch: &mut Batch,
) -> io::Result<()> {
    let hold = |batch: &mut Batch, reason| {
        batch.held.insert(path.to_owned(), reason);
    };
    match dir.stat(path).and_then(|stat| Ok((stat, Sides::of(dir, path)?))) {
        Ok((stat, _)) if is_foreign(stat.st_uid, rustix::process::geteuid().as_raw()) => {
            hold(batch, Reason::SqliteOwner);
            return Ok(());
        }
        // Somebody has opened it meanwhile.
        Ok((stat, sides)) if !sides.is_bare() || Found::of(&stat) != Some(stable.found) => {
            hold(batch, Reason::Changing);
            return Ok(());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            batch.gone.insert(path.to_owned());
            return Ok(());
        }
        Err(_) => {
            hold(batch, Reason::Unreadable);
            return Ok(());
        }
    }
    let snapshot = match Snapshot::of_content(&stable.content, job.spool) {
        Ok(snapshot) => snapshot,
        Err(Failure::Spool(error)) => return Err(error),
        Err(Failure::Held(_) | Failure::Gone) => {
            hold(batch, Reason::Unreadable);
            return Ok(());
        }
    };
    let (verdict, creds) = look_into(path, &snapshot, job.check);
    let meta = meta(&stable.found, &snapshot);
    let known = Known {
        fingerprint: stable.found.fingerprint,
        verdict: verdict.map(|()| meta),
        racy: stable.racy,
        database: Some((Sides::default(), creds)),
    };
    batch.note(path, &known);
    if known.verdict.is_ok() && wants(path, &meta) {
        batch.contents.insert(path.to_owned(), snapshot.content);
    }
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

/// Reads one file of a tree as a commit would have it: through SQLite where it is a database.
///
/// # Errors
/// Only those of the private copy, such as a full disk.
pub fn read_file(
    dir: &Dir,
    filter: &Filter,
    path: &str,
    now: Timestamp,
    spool: &Path,
) -> io::Result<Outcome> {
    for _ in 0..=RETRIES {
        let Ok(scan) = scan_some(dir, filter, &[path.to_owned()].into()) else {
            return Ok(Outcome::Held(Reason::Unreadable));
        };
        let Some(found) = scan.files.get(path) else {
            return Ok(scan.why_held(path).map_or(Outcome::Gone, Outcome::Held));
        };
        let (found, content) = match scan.databases.get(path) {
            Some(database) => match at_one_moment(dir, spool, &[(path, *found, *database)], Vec::new).pop() {
                Some((_, Ok(snapshot))) => (*found, snapshot),
                Some((_, Err(Failure::Held(reason)))) => return Ok(Outcome::Held(reason)),
                Some((_, Err(Failure::Spool(error)))) => return Err(error),
                Some((_, Err(Failure::Gone))) | None => return Ok(Outcome::Gone),
            },
            None => match read(dir, path, now, spool)? {
                Outcome::Stable(stable) if is_database(&stable.content)? => {
                    if !matches!(Sides::of(dir, path), Ok(sides) if sides.is_bare()) {
                        continue;
                    }
                    match Snapshot::of_content(&stable.content, spool) {
                        Ok(snapshot) => (stable.found, snapshot),
                        Err(Failure::Spool(error)) => return Err(error),
                        Err(_) => return Ok(Outcome::Held(Reason::Unreadable)),
                    }
                }
                outcome => return Ok(outcome),
            },
        };
        let meta = meta(&found, &content);
        let racy = is_racy(&found, now);
        return Ok(Outcome::Stable(Stable { meta, content: content.content, found, racy }));
    }
    Ok(Outcome::Held(Reason::Changing))
}
