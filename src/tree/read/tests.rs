use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fs;

use super::*;
use crate::tree::scan::{Fingerprint, Scan, scan};
use crate::tree::{Filter, Table};

mod leveldbs;

/// A file as it stands at one moment.
type Moment = (Option<Found>, &'static str);

/// A disk on which a file lives through a script: every `lstat` and every open takes the next moment.
#[derive(Default)]
struct Script {
    moments: RefCell<VecDeque<io::Result<Moment>>>,
    opened: Cell<u32>,
}

impl Script {
    fn of(moments: impl IntoIterator<Item = Moment>) -> Self {
        Self { moments: RefCell::new(moments.into_iter().map(Ok).collect()), opened: Cell::new(0) }
    }

    /// The last moment stays.
    fn next(&self) -> io::Result<Moment> {
        let mut moments = self.moments.borrow_mut();
        match moments.len() {
            1 => moments[0].as_ref().copied().map_err(|error| error.kind().into()),
            _ => moments.pop_front().unwrap(),
        }
    }
}

impl Disk for Script {
    fn stat(&self, _: &str) -> io::Result<Option<Found>> {
        self.next().map(|(found, _)| found)
    }

    fn open(&self, _: &str) -> io::Result<(Option<Found>, Box<dyn Read + '_>)> {
        self.opened.set(self.opened.get() + 1);
        self.next().map(|(found, bytes)| (found, Box::new(bytes.as_bytes()) as Box<dyn Read>))
    }
}

const SECOND: i128 = 1_000_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn found(size: u64, written: i128) -> Found {
    let fingerprint =
        Fingerprint { size, mtime_ns: written * SECOND, ctime_ns: written * SECOND, inode: 7, dev: 1 };
    Found { fingerprint, mode: 0o600 }
}

fn outcome(script: &Script) -> Outcome {
    read(script, "creds.json", at(1000), Path::new("/nonexistent")).unwrap()
}

fn bytes(outcome: Outcome) -> bytes::Bytes {
    match outcome {
        Outcome::Stable(stable) => stable.content.bytes().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_stood_still_is_read_once() {
    let script = Script::of([(Some(found(4, 10)), "whol")]);
    let Outcome::Stable(stable) = outcome(&script) else { panic!("held") };
    assert_eq!(&stable.content.bytes().unwrap()[..], b"whol");
    assert_eq!(
        stable.meta,
        Meta { size: 4, mode: 0o600, mtime_ns: 10_000_000_000, sha256: Hash::of(b"whol") }
    );
    assert!(!stable.racy);
    assert_eq!(script.opened.get(), 1);
}

#[test]
fn a_write_during_the_read_is_read_again() {
    let (old, new) = (Some(found(3, 10)), Some(found(3, 11)));
    for moved in [
        // written after the read began
        Script::of([(old, "old"), (old, "old"), (new, "new")]),
        // replaced between lstat and open
        Script::of([(old, "old"), (new, "new")]),
    ] {
        assert_eq!(bytes(outcome(&moved)), "new");
        assert_eq!(moved.opened.get(), 2);
    }
}

#[test]
fn each_of_size_times_and_inode_tells_of_a_write() {
    let old = found(3, 10);
    let with = |change: fn(&mut Fingerprint)| {
        let mut new = old;
        change(&mut new.fingerprint);
        Some(new)
    };
    for new in
        [with(|f| f.mtime_ns += 1), with(|f| f.ctime_ns += 1), with(|f| f.inode += 1), with(|f| f.dev += 1)]
    {
        let script = Script::of([(Some(old), "old"), (Some(old), "old"), (new, "new")]);
        assert_eq!(bytes(outcome(&script)), "new");
    }
    let script = Script::of([(Some(old), "old"), (Some(old), "old"), (with(|f| f.size = 4), "long")]);
    assert_eq!(bytes(outcome(&script)), "long");
}

#[test]
fn bytes_that_do_not_match_the_size_are_a_torn_read_although_no_time_moved() {
    let same = Some(found(4, 10));
    for torn in ["", "lon", "longer"] {
        let script = Script::of([(same, ""), (same, torn), (same, ""), (same, ""), (same, "good")]);
        assert_eq!(bytes(outcome(&script)), "good");
    }
}

#[test]
fn a_file_that_never_stands_still_is_held_after_three_more_tries() {
    let moments = (0..100).map(|second| (Some(found(3, second)), "abc"));
    let script = Script::of(moments);
    assert!(matches!(outcome(&script), Outcome::Held(Reason::Changing)));
    assert_eq!(script.opened.get(), 1 + RETRIES);
}

#[test]
fn only_enoent_is_absence() {
    let fails = |error: io::ErrorKind| {
        let script = Script::default();
        script.moments.borrow_mut().push_back(Err(error.into()));
        outcome(&script)
    };
    assert!(matches!(fails(io::ErrorKind::NotFound), Outcome::Gone));
    assert!(matches!(fails(io::ErrorKind::PermissionDenied), Outcome::Held(Reason::Unreadable)));
    assert!(matches!(fails(io::ErrorKind::StaleNetworkFileHandle), Outcome::Held(Reason::Unreadable)));
}

#[test]
fn a_read_within_two_seconds_of_a_write_is_racy() {
    assert!(is_racy(&found(1, 999), at(1000)));
    assert!(is_racy(&found(1, 998), at(1000)));
    assert!(!is_racy(&found(1, 997), at(1000)));
    let mut renamed = found(1, 10);
    renamed.fingerprint.ctime_ns = 999 * SECOND;
    assert!(is_racy(&renamed, at(1000)), "the change time counts as well");
    assert!(is_racy(&found(1, 5000), at(1000)), "the clock was set back");
}

/// Scans and reads as the engine does, with every content wanted that the head lacks.
fn batch(
    disk: &dyn Disk,
    scan: &Scan,
    dirty: &[&str],
    now: i64,
    cache: &mut HashCache,
    head: &Table,
) -> Batch {
    let dirty: BTreeSet<String> = dirty.iter().map(|path| (*path).to_owned()).collect();
    let job = Job { dirty: &dirty, now: at(now), spool: Path::new("/nonexistent"), check: false };
    let differs = |path: &str, meta: &Meta| head.files.get(path).is_none_or(|old| old.sha256 != meta.sha256);
    read_all(disk, scan, job, cache, differs).unwrap()
}

fn scan_of(found: Found) -> Scan {
    let mut scan = Scan::default();
    scan.files.insert("creds.json".to_owned(), found);
    scan
}

#[test]
fn a_racy_file_is_hashed_again_although_its_fingerprint_stands() {
    let same = found(3, 999);
    let mut cache = HashCache::default();
    let mut head = Table::default();
    let first = batch(&Script::of([(Some(same), "[1]")]), &scan_of(same), &[], 1000, &mut cache, &head);
    head.files = first.metas;
    // Within the same tick of the kernel's clock: other bytes, same times, same size.
    let second = batch(&Script::of([(Some(same), "[2]")]), &scan_of(same), &[], 1100, &mut cache, &head);
    assert_eq!(second.contents["creds.json"].bytes().unwrap(), "[2]");
    head.files = second.metas;
    // Read long after its times, it is believed from now on.
    let script = Script::of([(Some(same), "[2]")]);
    let third = batch(&script, &scan_of(same), &[], 1200, &mut cache, &head);
    assert_eq!(script.opened.get(), 0);
    assert_eq!(third.metas, head.files);
}

#[test]
fn an_event_always_means_a_new_hash() {
    let same = found(3, 10);
    let mut cache = HashCache::default();
    let mut head = Table::default();
    head.files =
        batch(&Script::of([(Some(same), "[1]")]), &scan_of(same), &[], 1000, &mut cache, &head).metas;
    let script = Script::of([(Some(same), "[2]")]);
    let dirty = batch(&script, &scan_of(same), &["creds.json"], 1100, &mut cache, &head);
    assert_eq!(dirty.contents["creds.json"].bytes().unwrap(), "[2]");
}

#[test]
fn a_wanted_content_is_read_although_the_hash_is_known() {
    let same = found(3, 10);
    let mut cache = HashCache::default();
    let head = Table::default();
    for _ in 0..2 {
        let script = Script::of([(Some(same), "[1]")]);
        assert_eq!(batch(&script, &scan_of(same), &[], 1000, &mut cache, &head).contents.len(), 1);
    }
}

#[test]
fn a_json_file_that_stays_bad_stays_held_without_being_read_again() {
    let same = found(1, 10);
    let mut cache = HashCache::default();
    let script = Script::of([(Some(same), "{")]);
    for _ in 0..2 {
        let batch = batch(&script, &scan_of(same), &[], 1000, &mut cache, &Table::default());
        assert_eq!(batch.held["creds.json"], Reason::BadJson);
        assert!(batch.metas.is_empty() && batch.contents.is_empty());
    }
    assert_eq!(script.opened.get(), 1);
}

#[test]
fn a_large_file_goes_to_a_private_copy_that_later_writes_do_not_reach() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let size = IN_MEMORY + 5;
    let old = vec![b'a'; usize::try_from(size).unwrap()];
    fs::write(dir.path().join("big"), &old).unwrap();
    let top = Dir::open(dir.path()).unwrap();
    let outcome = read(&top, "big", Timestamp::now(), spool.path()).unwrap();
    let Outcome::Stable(stable) = outcome else { panic!("{outcome:?}") };
    fs::write(dir.path().join("big"), b"other").unwrap();
    assert!(matches!(stable.content, Content::Spooled { .. }));
    assert_eq!(stable.meta.sha256, Hash::of(&old));
    assert_eq!(stable.content.bytes().unwrap(), old);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0, "the copy has no name");
    assert!(stable.racy);
}

#[test]
fn a_spool_that_cannot_be_written_is_an_error_and_not_the_files_fault() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big"), vec![0; usize::try_from(IN_MEMORY + 1).unwrap()]).unwrap();
    let top = Dir::open(dir.path()).unwrap();
    assert!(read(&top, "big", at(1000), &dir.path().join("missing")).is_err());
}

#[test]
fn a_file_that_vanishes_after_the_scan_is_gone_and_not_held() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.json"), "{}").unwrap();
    let top = Dir::open(dir.path()).unwrap();
    let scan = scan(&top, &Filter::new(None, &[], &[]).unwrap()).unwrap();
    fs::remove_file(dir.path().join("a.json")).unwrap();
    let batch = batch(&top, &scan, &[], 1000, &mut HashCache::default(), &Table::default());
    assert!(batch.gone.contains("a.json") && batch.held.is_empty());
}
