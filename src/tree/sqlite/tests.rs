//! Real databases by SQLite itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;

use super::*;
use crate::tree::read::{Batch, HashCache, Job, read_all};
use crate::tree::scan::{absent, scan, scan_some};
use crate::tree::{Content, Hash, Reason, Table};

mod stress;

struct Tree {
    dir: tempfile::TempDir,
    spool: tempfile::TempDir,
    cache: HashCache,
    filter: Filter,
}

impl Tree {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            spool: tempfile::tempdir().unwrap(),
            cache: HashCache::default(),
            filter: Filter::new(None, &[], &[]).unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A database with a table and some rows, still open.
    fn database(&self, name: &str, mode: &str, rows: i64) -> Connection {
        let database = Connection::open(self.path(name)).unwrap();
        database.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
        database.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY, text TEXT)").unwrap();
        insert(&database, 1..=rows);
        database
    }

    fn look_at(&mut self, check: bool, wants: bool) -> Batch {
        let top = Dir::open(self.dir.path()).unwrap();
        let scan = scan(&top, &self.filter).unwrap();
        assert_eq!(scan.held, std::collections::BTreeMap::new());
        // Long after everything was written.
        let now = Timestamp::from_second(Timestamp::now().as_second() + 60).unwrap();
        let job = Job { dirty: &BTreeSet::new(), now, spool: self.spool.path(), check };
        let batch = read_all(&top, &scan, job, &mut self.cache, |_, _| wants).unwrap();
        assert_eq!(fs::read_dir(self.spool.path()).unwrap().count(), 0, "private copies are gone");
        batch
    }

    fn look(&mut self) -> Batch {
        self.look_at(false, true)
    }

    fn hash(&mut self, name: &str) -> Hash {
        self.look_at(false, false).metas[name].sha256
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn insert(database: &Connection, rows: std::ops::RangeInclusive<i64>) {
    for row in rows {
        database.execute("INSERT INTO t VALUES (?1, hex(randomblob(100)))", [row]).unwrap();
    }
}

/// The rows of a content, opened far from where it was read.
#[track_caller]
fn rows(content: &Content) -> Vec<i64> {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("restored.db");
    fs::write(&path, content.bytes().unwrap()).unwrap();
    let database = Connection::open(&path).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut rows = database.prepare("SELECT n FROM t ORDER BY n").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn up_to(last: i64) -> Vec<i64> {
    (1..=last).collect()
}

#[test]
fn a_side_file_is_told_by_its_name() {
    assert_eq!(database_of("a/x.db-wal"), Some("a/x.db"));
    assert_eq!(database_of("Cookies-journal"), Some("Cookies"));
    assert_eq!(database_of("x-shm"), Some("x"));
    for none in ["x.db", "-wal", "a/-wal", "x.db-wal2"] {
        assert_eq!(database_of(none), None, "{none}");
    }
    assert!(has_database_name("storages/whatsapp.db") && has_database_name("s.sqlite3"));
    assert!(!has_database_name("x.db/creds.json") && !has_database_name("x.db-wal"));
}

#[test]
fn a_database_is_told_by_its_header() {
    let tree = Tree::new();
    drop((tree.database("wal.db", "WAL", 1), tree.database("delete.db", "DELETE", 1)));
    let kind = |name: &str| Kind::of(&fs::read(tree.path(name)).unwrap());
    assert_eq!((kind("wal.db"), kind("delete.db")), (Kind::Wal, Kind::Rollback));
    assert_eq!((Kind::of(b""), Kind::of(b"SQLite format 2\0 and more")), (Kind::Empty, Kind::Other));
}

#[test]
fn what_is_only_in_the_wal_is_in_the_snapshot() {
    let mut tree = Tree::new();
    let writer = tree.database("whatsapp.db", "WAL", 20);
    assert_eq!(fs::metadata(tree.path("whatsapp.db")).unwrap().len(), 4096, "nothing was moved into it yet");
    let batch = tree.look();
    assert_eq!(batch.metas.keys().collect::<Vec<_>>(), ["whatsapp.db"], "side files are no part of a tree");
    assert_eq!(rows(&batch.contents["whatsapp.db"]), up_to(20));
    insert(&writer, 21..=25);
    assert_eq!(rows(&tree.look().contents["whatsapp.db"]), up_to(25));
    drop(writer);
    assert_eq!(tree.names(), ["whatsapp.db"], "the writer could still tidy up");
}

#[test]
fn an_unchanged_database_has_the_same_bytes_however_it_is_read() {
    for live in [false, true] {
        let mut tree = Tree::new();
        if live {
            tree.filter = tree.filter.clone().with_live_databases(["whatsapp.db"]);
        }
        let writer = tree.database("whatsapp.db", "WAL", 200);
        writer.execute_batch("DELETE FROM t WHERE n % 3 = 0; CREATE INDEX i ON t(text)").unwrap();
        let in_wal = tree.hash("whatsapp.db");
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert_eq!(tree.hash("whatsapp.db"), in_wal, "moved into the file");
        drop(writer);
        assert_eq!(tree.names(), ["whatsapp.db"]);
        assert_eq!(tree.hash("whatsapp.db"), in_wal, "closed");
        let content = tree.look().contents["whatsapp.db"].bytes().unwrap();
        fs::write(tree.path("whatsapp.db"), &content).unwrap();
        assert_eq!(tree.hash("whatsapp.db"), in_wal, "restored");
        assert_eq!(Hash::of(&content), in_wal);
        let reader = Connection::open(tree.path("whatsapp.db")).unwrap();
        reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        assert_eq!(tree.hash("whatsapp.db"), in_wal, "opened again, and nothing written");
    }
}

#[test]
fn a_database_that_did_not_move_is_not_copied_again() {
    let mut tree = Tree::new();
    let writer = tree.database("x.db", "WAL", 3);
    let first = tree.look_at(false, false);
    let top = Dir::open(tree.dir.path()).unwrap();
    let now = Timestamp::from_second(Timestamp::now().as_second() + 60).unwrap();
    let dirty = ["x.db-wal".to_owned(), "x.db-shm".to_owned()].into();
    // A copy would fail: there is nowhere to put it.
    let nowhere = Path::new("/nonexistent");
    let scan = scan_some(&top, &tree.filter, &dirty).unwrap();
    assert!(
        scan.covers("x.db") && scan.databases.contains_key("x.db"),
        "an event of a side file is one of it"
    );
    let job = Job { dirty: &dirty, now, spool: nowhere, check: false };
    let again = read_all(&top, &scan, job, &mut tree.cache, |_, _| false).unwrap();
    assert_eq!(again.metas, first.metas);
    insert(&writer, 4..=4);
    let moved = scan_some(&top, &tree.filter, &dirty).unwrap();
    assert!(read_all(&top, &moved, job, &mut tree.cache, |_, _| false).is_err(), "now it is copied");
}

#[test]
fn what_a_dead_writer_left_in_the_wal_is_in_the_snapshot_and_nothing_is_made_beside_it() {
    let (live, mut dead) = (Tree::new(), Tree::new());
    let _writer = live.database("x.db", "WAL", 12);
    for name in ["x.db", "x.db-wal"] {
        fs::copy(live.path(name), dead.path(name)).unwrap();
    }
    let wal = fs::read(dead.path("x.db-wal")).unwrap();
    assert_eq!(rows(&dead.look().contents["x.db"]), up_to(12));
    assert_eq!(dead.names(), ["x.db", "x.db-wal"]);
    assert_eq!(fs::read(dead.path("x.db-wal")).unwrap(), wal);
    // With the index that a killed writer leaves.
    fs::copy(live.path("x.db-shm"), dead.path("x.db-shm")).unwrap();
    assert_eq!(rows(&dead.look().contents["x.db"]), up_to(12));
    assert_eq!(fs::read(dead.path("x.db-wal")).unwrap(), wal);
}

#[test]
fn a_transaction_that_a_dead_writer_left_half_done_is_taken_back_in_the_snapshot_alone() {
    let (live, mut dead) = (Tree::new(), Tree::new());
    let writer = live.database("x.db", "DELETE", 1500);
    // So small a cache must be written out before the commit.
    writer.execute_batch("PRAGMA cache_size=1; BEGIN; UPDATE t SET text = 'half done' || text").unwrap();
    for name in ["x.db", "x.db-journal"] {
        fs::copy(live.path(name), dead.path(name)).unwrap();
    }
    let half = fs::read(dead.path("x.db")).unwrap();
    assert!(String::from_utf8_lossy(&half).contains("half done"), "the file itself is torn");
    let content = dead.look().contents["x.db"].clone();
    assert_eq!(rows(&content), up_to(1500));
    assert!(!String::from_utf8_lossy(&content.bytes().unwrap()).contains("half done"));
    assert_eq!(fs::read(dead.path("x.db")).unwrap(), half, "the tree is the bot's");
    assert_eq!(dead.names(), ["x.db", "x.db-journal"]);
}

#[test]
fn a_locked_database_is_held_alone() {
    let mut tree = Tree::new();
    fs::write(tree.path("creds.json"), "{}").unwrap();
    drop(tree.database("other.db", "DELETE", 3));
    let writer = tree.database("x.db", "DELETE", 3);
    writer.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (4, '')").unwrap();
    let batch = tree.look();
    assert_eq!(batch.held, [("x.db".to_owned(), Reason::SqliteLocked)].into());
    assert_eq!(batch.metas.keys().collect::<Vec<_>>(), ["creds.json", "other.db"]);
    writer.execute_batch("COMMIT").unwrap();
    let batch = tree.look();
    assert!(batch.held.is_empty());
    assert_eq!(rows(&batch.contents["x.db"]), up_to(4));
}

#[test]
fn a_damaged_database_is_held_when_a_base_is_made() {
    let mut tree = Tree::new();
    drop(tree.database("x.db", "DELETE", 500));
    let mut bytes = fs::read(tree.path("x.db")).unwrap();
    bytes[3 * 4096..5 * 4096].fill(0xA5);
    fs::write(tree.path("x.db"), bytes).unwrap();
    let batch = tree.look_at(true, true);
    assert_eq!(batch.held, [("x.db".to_owned(), Reason::SqliteDamaged)].into());
    assert!(batch.contents.is_empty());
}

#[test]
fn side_files_go_from_a_head_that_has_them_and_orphans_never_come() {
    let mut tree = Tree::new();
    let _writer = tree.database("x.db", "WAL", 1);
    for (name, bytes) in
        [("gone.db-wal", "orphan"), ("new.db", ""), ("new.db-journal", "hot"), ("work-journal", "a diary")]
    {
        fs::write(tree.path(name), bytes).unwrap();
    }
    let batch = tree.look();
    assert_eq!(batch.metas.keys().collect::<Vec<_>>(), ["new.db", "work-journal", "x.db"]);
    assert_eq!(batch.metas["new.db"].size, 0);
    let top = Dir::open(tree.dir.path()).unwrap();
    for (path, is_absent) in
        [("x.db-wal", true), ("x.db-shm", true), ("x.db", false), ("work-journal", false)]
    {
        assert_eq!(absent(&top, &tree.filter, path).unwrap(), is_absent, "{path}");
    }
    let head = Table { files: batch.metas, ..Table::default() };
    let mut head_with_wal = head.clone();
    head_with_wal.files.insert("x.db-wal".into(), head.files["x.db"]);
    let found = scan(&top, &tree.filter).unwrap();
    assert_eq!(found.gone(&head_with_wal).collect::<Vec<_>>(), ["x.db-wal"]);
}

#[test]
fn a_directory_of_nothing_but_orphans_is_empty() {
    let tree = Tree::new();
    fs::create_dir(tree.path("d")).unwrap();
    fs::write(tree.path("d/x.db-wal"), "").unwrap();
    let found = scan(&Dir::open(tree.dir.path()).unwrap(), &tree.filter).unwrap();
    assert_eq!(found.empty_dirs, ["d".to_owned()].into());
}

#[test]
fn only_root_may_open_a_database_of_another_user() {
    assert!(is_foreign(1000, 65532) && is_foreign(0, 65532));
    assert!(!is_foreign(1000, 1000) && !is_foreign(1000, 0));
}

#[test]
fn several_databases_are_read_together() {
    let mut tree = Tree::new();
    let writers = ["a.db", "b.db", "c.db"].map(|name| tree.database(name, "WAL", 5));
    let batch = tree.look();
    for name in ["a.db", "b.db", "c.db"] {
        assert_eq!(rows(&batch.contents[name]), up_to(5));
    }
    insert(&writers[1], 6..=6);
    let batch = tree.look_at(false, false);
    assert_eq!(batch.metas.len(), 3);
}

/// Whether this process holds a lock on a file, as the kernel sees it.
fn holds_lock(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{}", fs::metadata(path).unwrap().ino());
    let pid = std::process::id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|lock| {
        lock.contains(&"POSIX") && lock.contains(&pid.as_str()) && lock.iter().any(|of| of.ends_with(&inode))
    })
}

#[test]
fn no_look_at_a_live_database_drops_the_locks_of_its_writer() {
    let mut tree = Tree::new();
    tree.filter = tree.filter.clone().with_live_databases(["whatsapp.db"]);
    let (path, index) = (tree.path("whatsapp.db"), tree.path("whatsapp.db-shm"));
    let writer = tree.database("whatsapp.db", "WAL", 5);
    assert!(holds_lock(&path) && holds_lock(&index));
    for rows_now in 6..9 {
        insert(&writer, rows_now..=rows_now);
        let batch = tree.look_at(true, true);
        assert_eq!(rows(&batch.contents["whatsapp.db"]), up_to(rows_now));
        assert!(holds_lock(&path) && holds_lock(&index), "after a look");
        let top = Dir::open(tree.dir.path()).unwrap();
        let (spool, now) = (tree.spool.path(), Timestamp::now());
        assert!(
            crate::tree::read::read_file(&top, &tree.filter, "whatsapp.db", now, spool).unwrap().is_some()
        );
        assert!(holds_lock(&path) && holds_lock(&index), "after what the mirror reads");
        let paths = ["whatsapp.db", "whatsapp.db-wal"];
        crate::tree::durable::make_durable(&top, &tree.filter, paths.into_iter(), &crate::host::Real)
            .unwrap();
        assert!(!absent(&top, &tree.filter, "whatsapp.db").unwrap());
        assert!(absent(&top, &tree.filter, "whatsapp.db-shm").unwrap());
        assert!(holds_lock(&path) && holds_lock(&index), "after a commit made it durable");
    }
    // What the rule is for.
    drop(fs::File::open(&path).unwrap());
    assert!(!holds_lock(&path), "a plain look does it");
}

#[test]
fn the_engines_of_a_directory_are_those_of_its_paired_accounts() {
    use crate::tree::identity::{Format, engines};
    let tree = Tree::new();
    let look = || engines(tree.dir.path(), &tree.filter, tree.spool.path()).unwrap();
    assert!(look().is_empty());
    let store = tree.database("whatsapp.db", "WAL", 1);
    let tables =
        "CREATE TABLE __diesel_schema_migrations(version TEXT); CREATE TABLE device(id INTEGER, pn TEXT,
        registration_id INTEGER, noise_key BLOB, identity_key BLOB, adv_secret_key BLOB, account BLOB);
        INSERT INTO device VALUES (1, '', 1, x'01', x'02', x'03', NULL)";
    store.execute_batch(tables).unwrap();
    fs::write(tree.path("creds.json"), r#"{"noiseKey":{}}"#).unwrap();
    assert!(look().is_empty(), "nothing is paired yet");
    store.execute_batch("UPDATE device SET pn = '1:1@s.whatsapp.net', account = x'04'").unwrap();
    assert_eq!(look(), [Format::WhatsappRust].into(), "also what is only in the WAL");
    fs::write(tree.path("creds.json"), r#"{"me":{"id":"1:1@s.whatsapp.net"},"account":{"a":1}}"#).unwrap();
    assert_eq!(look(), [Format::Baileys, Format::WhatsappRust].into());
    assert!(engines(&tree.path("missing"), &tree.filter, tree.spool.path()).unwrap().is_empty());
}
