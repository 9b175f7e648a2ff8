//! `LevelDB` databases, whole and damaged, and one whose writer is at work between any two looks of ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use super::*;
use crate::tree::leveldb::batch::{of_table, writes};
use crate::tree::leveldb::records::read_records;
use crate::tree::leveldb::testing::{
    BLOBS, INDEXED_DB, LOCAL_STORAGE, batch as batch_of, records, table as table_of, unpack,
};
use crate::tree::leveldb::{Member, Version, manifest_name, table};

fn read_tree(top: &Path) -> Batch {
    read_on(&Dir::open(top).unwrap(), top, &mut HashCache::default())
}

fn read_on(disk: &dyn Disk, top: &Path, cache: &mut HashCache) -> Batch {
    let scan = scan(&Dir::open(top).unwrap(), &Filter::new(None, &[], &[]).unwrap()).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let job = Job { dirty: &BTreeSet::new(), now: at(0), spool: spool.path(), check: false };
    read_all(disk, &scan, job, cache, |_, _| true).unwrap()
}

fn names(batch: &Batch, dir: &str) -> Vec<String> {
    batch
        .metas
        .keys()
        .filter_map(|path| Some(path.strip_prefix(dir)?.strip_prefix('/')?.to_owned()))
        .collect()
}

/// What somebody finds in a database who opens these files.
fn values(batch: &Batch, dir: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let content = |name: &str| batch.contents[&format!("{dir}/{name}")].bytes().unwrap();
    let version = Version::parse(&content(manifest_name(&content("CURRENT")).unwrap())).unwrap();
    let mut found: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> = BTreeMap::new();
    let mut see = |write: crate::tree::leveldb::batch::Write<'_>| {
        let entry = found.entry(write.key.to_vec()).or_default();
        if entry.0 <= write.sequence {
            *entry = (write.sequence, write.value.map(<[u8]>::to_vec));
        }
    };
    for name in names(batch, dir) {
        match Member::parse(&name) {
            Some(Member::Table(number)) => {
                assert!(version.tables.contains_key(&number), "{name} is not live");
                table::each_entry(&content(&name), |key, value| see(of_table(key, value).unwrap())).unwrap();
            }
            Some(Member::Log(_)) => drop(read_records(&content(&name)[..], |record| {
                writes(record).unwrap().into_iter().for_each(&mut see);
                Ok(())
            })),
            _ => {}
        }
    }
    let live =
        version.tables.keys().filter(|number| !batch.metas.contains_key(&format!("{dir}/{number:06}.ldb")));
    assert_eq!(live.count(), 0);
    found.into_iter().filter_map(|(key, (_, value))| Some((key, value?))).collect()
}

#[test]
fn of_a_real_profile_both_databases_are_taken_without_what_they_do_not_need() {
    let top = tempfile::tempdir().unwrap();
    unpack(top.path());
    let batch = read_tree(top.path());
    assert!(batch.held_below.is_empty() && batch.held.is_empty(), "{batch:?}");
    assert_eq!(batch.whole, [INDEXED_DB, LOCAL_STORAGE].map(str::to_owned).into());
    assert_eq!(names(&batch, BLOBS).len(), 3);
    assert!(values(&batch, INDEXED_DB).len() > 500);
    let lying = fs::read_dir(top.path().join(INDEXED_DB)).unwrap().count();
    assert!(names(&batch, INDEXED_DB).len() < lying, "a compaction left files that nobody needs");
    let creds = &batch.accounts[&format!("{LOCAL_STORAGE}/CURRENT")];
    assert_eq!(creds.phone.as_deref(), Some("5511900000000"));
    assert!(creds.identity.is_paired());
}

#[test]
fn a_log_that_was_being_written_is_cut_where_the_next_browser_may_go_on() {
    let top = tempfile::tempdir().unwrap();
    unpack(top.path());
    let (log, manifest) = (format!("{INDEXED_DB}/000010.log"), format!("{INDEXED_DB}/MANIFEST-000001"));
    let before = read_tree(top.path());
    for path in [&log, &manifest] {
        let more = [fs::read(top.path().join(path)).unwrap(), vec![1, 2, 3, 4, 200, 0, 1, 9]].concat();
        fs::write(top.path().join(path), more).unwrap();
    }
    let after = read_tree(top.path());
    for path in [&log, &manifest] {
        assert_eq!(after.metas[path].sha256, before.metas[path].sha256);
        assert_eq!(after.contents[path].size(), after.metas[path].size);
        let alone = read_file(
            &Dir::open(top.path()).unwrap(),
            &Filter::new(None, &[], &[]).unwrap(),
            path,
            at(0),
            top.path(),
        );
        assert_eq!(alone.unwrap().unwrap().0.sha256, before.metas[path].sha256);
    }
}

#[test]
fn a_database_that_leveldb_would_not_open_is_held_whole_and_the_other_is_not() {
    type Damage = fn(&Path);
    let damage: [(&str, Damage); 8] = [
        ("no table", |db| fs::remove_file(db.join("000012.ldb")).unwrap()),
        ("no log", |db| fs::remove_file(db.join("000010.log")).unwrap()),
        ("no manifest", |db| fs::remove_file(db.join("MANIFEST-000001")).unwrap()),
        ("empty manifest", |db| fs::write(db.join("MANIFEST-000001"), "").unwrap()),
        ("no current", |db| fs::remove_file(db.join("CURRENT")).unwrap()),
        ("current names nothing", |db| fs::write(db.join("CURRENT"), "MANIFEST-000009\n").unwrap()),
        ("short table", |db| {
            fs::File::options().write(true).open(db.join("000012.ldb")).unwrap().set_len(168_000).unwrap();
        }),
        ("rotten log", |db| {
            let mut log = fs::read(db.join("000010.log")).unwrap();
            log[5000] ^= 1;
            fs::write(db.join("000010.log"), log).unwrap();
        }),
    ];
    for (what, damage) in damage {
        let top = tempfile::tempdir().unwrap();
        unpack(top.path());
        damage(&top.path().join(INDEXED_DB));
        let batch = read_tree(top.path());
        let held: Vec<(&str, Reason)> =
            batch.held_below.iter().map(|(path, reason)| (path.as_str(), *reason)).collect();
        assert_eq!(held, [(BLOBS, Reason::LevelDb), (INDEXED_DB, Reason::LevelDb)], "{what}");
        assert!(names(&batch, INDEXED_DB).is_empty() && names(&batch, BLOBS).is_empty(), "{what}");
        assert_eq!(batch.whole, [LOCAL_STORAGE.to_owned()].into(), "{what}");
    }
}

/// Does something before a look of ours.
struct Meddler<'a> {
    dir: &'a Dir,
    looks: Cell<usize>,
    before: &'a dyn Fn(usize),
}

impl Meddler<'_> {
    fn look(&self) {
        self.looks.set(self.looks.get() + 1);
        (self.before)(self.looks.get());
    }
}

impl Disk for Meddler<'_> {
    fn stat(&self, path: &str) -> io::Result<Option<Found>> {
        self.look();
        Disk::stat(self.dir, path)
    }

    fn open(&self, path: &str) -> io::Result<(Option<Found>, Box<dyn Read + '_>)> {
        self.look();
        Disk::open(self.dir, path)
    }

    fn names(&self, dir: &str) -> io::Result<Vec<OsString>> {
        self.look();
        Disk::names(self.dir, dir)
    }

    fn is_dir(&self, path: &str) -> bool {
        Disk::is_dir(self.dir, path)
    }
}

const DB: &str = "x.indexeddb.leveldb";

/// A small database and what its writer does to it.
struct Writer {
    top: tempfile::TempDir,
    next: Cell<u8>,
}

impl Writer {
    fn new() -> Self {
        let writer = Self { top: tempfile::tempdir().unwrap(), next: Cell::new(3) };
        fs::create_dir(writer.path("")).unwrap();
        fs::write(writer.path("CURRENT"), "MANIFEST-000002\n").unwrap();
        fs::write(writer.path("MANIFEST-000002"), records(&[&[2, 3, 9, 0, 3, 4, 4, 0]])).unwrap();
        fs::write(writer.path("000003.log"), "").unwrap();
        writer.write(1, b"a");
        writer.write(2, b"b");
        writer
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.top.path().join(DB).join(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        let mut file = fs::File::options().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn write(&self, sequence: u64, key: &[u8]) {
        let log = format!("{:06}.log", self.next.get());
        self.append(&log, &records(&[&batch_of(sequence, &[(key, Some(b"1"))])]));
    }

    /// Moves the log into a table, begins another log, and deletes what is not needed any more.
    fn compact(&self) {
        let old = self.next.get();
        let (log, number) = (old + 1, old + 2);
        self.next.set(log);
        fs::write(self.path(&format!("{log:06}.log")), "").unwrap();
        let key = |name: &[u8], sequence: u64| [name, &(sequence << 8 | 1).to_le_bytes()].concat();
        let entries = [(key(b"a", 1), b"1"), (key(b"b", 2), b"1")];
        let table = table_of(&[(&entries[0].0, entries[0].1), (&entries[1].0, entries[1].1)]);
        fs::write(self.path(&format!("{number:06}.ldb")), &table).unwrap();
        let mut edit = vec![2, log, 9, 0, 3, number + 1, 4, 2];
        edit.extend([7, 0, number, u8::try_from(table.len() & 0x7f).unwrap() | 0x80]);
        edit.extend([u8::try_from(table.len() >> 7).unwrap(), 1, b'a', 1, b'b']);
        let before = format!("{:06}.ldb", old + 1);
        if self.path(&before).exists() {
            edit.extend([6, 0, old + 1]);
        }
        self.append("MANIFEST-000002", &records(&[&edit]));
        let _ = fs::remove_file(self.path(&before));
        fs::remove_file(self.path(&format!("{old:06}.log"))).unwrap();
    }
}

#[test]
fn a_compaction_between_any_two_looks_loses_nothing() {
    let wanted =
        |keys: &[&[u8]]| keys.iter().map(|key| (key.to_vec(), b"1".to_vec())).collect::<BTreeMap<_, _>>();
    let mut looks = 1;
    for at in 1.. {
        if at > looks {
            break;
        }
        let writer = Writer::new();
        let dir = Dir::open(writer.top.path()).unwrap();
        let act = |look: usize| {
            if look == at {
                writer.compact();
                writer.write(3, b"c");
            }
        };
        let disk = Meddler { dir: &dir, looks: Cell::new(0), before: &act };
        let batch = read_on(&disk, writer.top.path(), &mut HashCache::default());
        assert!(batch.held_below.is_empty(), "before look {at}: {batch:?}");
        let values = values(&batch, DB);
        assert!(
            values == wanted(&[b"a", b"b"]) || values == wanted(&[b"a", b"b", b"c"]),
            "before look {at}: {values:?}"
        );
        looks = looks.max(disk.looks.get());
    }
    assert!(looks > 8, "{looks}");
}

#[test]
fn a_database_that_changes_faster_than_it_is_read_is_held_until_it_does_not() {
    let writer = Writer::new();
    let dir = Dir::open(writer.top.path()).unwrap();
    let act = |_: usize| {
        if writer.next.get() < 120 {
            writer.compact();
        }
    };
    let disk = Meddler { dir: &dir, looks: Cell::new(0), before: &act };
    let batch = read_on(&disk, writer.top.path(), &mut HashCache::default());
    assert_eq!(batch.held_below.get(DB), Some(&Reason::Changing), "{batch:?}");
    assert!(batch.metas.is_empty());
    let batch = read_tree(writer.top.path());
    assert!(batch.held_below.is_empty() && values(&batch, DB).len() == 2);
}

#[test]
fn what_vanishes_beside_a_database_during_the_read_is_believed_only_of_a_later_one() {
    let writer = Writer::new();
    let blobs = writer.top.path().join("x.indexeddb.blob/1/00");
    fs::create_dir_all(&blobs).unwrap();
    for name in ["1", "2"] {
        fs::write(blobs.join(name), name).unwrap();
    }
    let dir = Dir::open(writer.top.path()).unwrap();
    let mut looks = 1;
    for at in 1.. {
        if at > looks {
            break;
        }
        fs::write(blobs.join("2"), "2").unwrap();
        let act = |look: usize| {
            if look == at {
                fs::remove_file(blobs.join("2")).unwrap();
            }
        };
        let disk = Meddler { dir: &dir, looks: Cell::new(0), before: &act };
        let batch = read_on(&disk, writer.top.path(), &mut HashCache::default());
        assert!(batch.held_below.is_empty(), "before look {at}: {batch:?}");
        let found = names(&batch, "x.indexeddb.blob");
        assert!(found == ["1/00/1"] || found == ["1/00/1", "1/00/2"], "{found:?}");
        looks = looks.max(disk.looks.get());
    }
}

#[test]
fn no_record_that_is_taken_speaks_of_a_file_that_is_not() {
    let mut held = 0;
    for (from, times) in (1..60).flat_map(|from| [1, 2, 3, 20].map(|times| (from, times))) {
        let writer = Writer::new();
        let blobs = writer.top.path().join("x.indexeddb.blob/1/00");
        fs::create_dir_all(&blobs).unwrap();
        let next = Cell::new(1_u8);
        // As Chromium does it: the file, the record that speaks of it, and then the one before is deleted.
        let replace = || {
            let number = next.replace(next.get() + 1);
            let name = |number: u8| format!("{number:x}");
            fs::write(blobs.join(name(number)), name(number)).unwrap();
            let value = name(number);
            let log = format!("{:06}.log", writer.next.get());
            let record = batch_of(u64::from(number) + 10, &[(b"blob", Some(value.as_bytes()))]);
            writer.append(&log, &records(&[&record]));
            let _ = fs::remove_file(blobs.join(name(number - 1)));
        };
        replace();
        let dir = Dir::open(writer.top.path()).unwrap();
        let act = |look: usize| {
            if (from..from + times).contains(&look) {
                replace();
            }
        };
        let disk = Meddler { dir: &dir, looks: Cell::new(0), before: &act };
        let batch = read_on(&disk, writer.top.path(), &mut HashCache::default());
        if !batch.held_below.is_empty() {
            held += 1;
            assert!(times > 1, "one at {from} must not hold it");
            continue;
        }
        let name = String::from_utf8(values(&batch, DB)[&b"blob"[..]].clone()).unwrap();
        let content = batch.contents.get(&format!("x.indexeddb.blob/1/00/{name}"));
        let content = content.unwrap_or_else(|| panic!("{name} is missing: {times} from {from}"));
        assert_eq!(content.bytes().unwrap(), name.as_bytes());
    }
    assert!(held < 100, "{held}");
}

#[test]
fn tables_that_are_known_are_not_read_again_and_the_log_is() {
    let writer = Writer::new();
    writer.compact();
    let dir = Dir::open(writer.top.path()).unwrap();
    let mut cache = HashCache::default();
    read_on(&dir, writer.top.path(), &mut cache);
    writer.write(3, b"c");
    let scan = scan(&dir, &Filter::new(None, &[], &[]).unwrap()).unwrap();
    let job = Job { dirty: &BTreeSet::new(), now: at(0), spool: writer.top.path(), check: false };
    let log = format!("{DB}/000004.log");
    let batch = read_all(&dir, &scan, job, &mut cache, |path, _| path == log).unwrap();
    assert_eq!(batch.contents.keys().collect::<Vec<_>>(), [&log]);
    assert_eq!(names(&batch, DB), ["000004.log", "000005.ldb", "CURRENT", "MANIFEST-000002"]);
    let known = cache.get(
        &format!("{DB}/000005.ldb"),
        &scan.files[&format!("{DB}/000005.ldb")],
        crate::tree::sqlite::Sides::default(),
    );
    assert!(
        known.is_some()
            && cache.get(&log, &scan.files[&log], crate::tree::sqlite::Sides::default()).is_none()
    );
}
