use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::tree::leveldb::testing;

/// An hour later, so that nothing was written of late; dies at a step, once it was there so often.
#[derive(Debug, Default)]
struct Later {
    dies_at: Option<(&'static str, u32)>,
    seen: AtomicU32,
    dead: AtomicBool,
    /// A bot writes this file right before a database is set aside.
    writes: Option<PathBuf>,
}

impl Host for Later {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_hours(1)
    }

    fn step(&self, step: Step) -> io::Result<()> {
        if let (Some(path), "cleanup: set a database aside") = (&self.writes, step.0) {
            fs::write(path, "{}")?;
        }
        let dies = self
            .dies_at
            .is_some_and(|(at, times)| at == step.0 && self.seen.fetch_add(1, Ordering::Relaxed) == times);
        self.dead.fetch_or(dies, Ordering::Relaxed);
        if self.dead.load(Ordering::Relaxed) { Err(io::Error::other("dead")) } else { Ok(()) }
    }
}

/// Of a tree that was proven as it lies there.
fn cleaner(path: &Path) -> Cleaner {
    let filter = Filter::new(None, &[], &["cache".to_owned()]).unwrap();
    let scan = scan(&Dir::open(path).unwrap(), &filter).unwrap();
    Cleaner {
        key: SessionKey::new("u", "s").unwrap(),
        path: path.to_owned(),
        lies: Lies::Alone,
        filter: Arc::new(filter),
        proven: scan.files.keys().cloned().collect(),
        scan,
        host: Arc::new(Later::default()),
    }
}

fn tree(files: &[&str]) -> (tempfile::TempDir, Cleaner) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "{}").unwrap();
    }
    let cleaner = cleaner(dir.path());
    (dir, cleaner)
}

#[test]
fn what_is_excluded_or_not_proven_stays_and_all_else_goes() {
    let (dir, mut cleaner) =
        tree(&["creds.json", "keys/a.json", "keys/b/c.json", "cache/x", "keys/b/cache/y"]);
    cleaner.proven.remove("keys/a.json");
    assert_eq!(cleaner.remove().unwrap(), Removed { files: 2, unneeded: 0, kept: 3 });
    for file in ["cache/x", "keys/b/cache/y", "keys/a.json"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    let (dir, cleaner) = tree(&["creds.json", "keys/a.json"]);
    cleaner.remove().unwrap();
    assert!(!dir.path().exists());
}

#[test]
fn of_one_file_nothing_beside_it_is_touched_or_counted() {
    let (dir, mut cleaner) = tree(&["store.db", "config.yml", "other/.session-sidecar/lock"]);
    fs::create_dir_all(dir.path().join(LEAVING)).unwrap();
    (cleaner.lies, cleaner.proven) = (Lies::AmongOthers, ["store.db".to_owned()].into());
    assert_eq!(cleaner.remove().unwrap(), Removed { files: 1, unneeded: 0, kept: 0 });
    assert!(dir.path().join("config.yml").exists() && dir.path().join(LEAVING).exists());
}

#[test]
fn a_tree_that_was_just_written_is_left_alone() {
    let (dir, mut cleaner) = tree(&["creds.json"]);
    cleaner.host = Arc::new(crate::host::Real);
    let error = cleaner.check().unwrap_err();
    assert!(error.code() == Code::Held && dir.path().join("creds.json").exists(), "{error}");
}

#[test]
fn a_file_that_is_another_by_now_or_came_since_is_left_alone() {
    let (dir, cleaner) = tree(&["a.json", "creds.json"]);
    fs::write(dir.path().join("b.json"), "{}").unwrap();
    let error = cleaner.check().unwrap_err();
    assert!(error.to_string().contains("b.json"), "it came since the proof: {error}");
    fs::remove_file(dir.path().join("b.json")).unwrap();
    cleaner.check().unwrap();
    fs::write(dir.path().join("a.json"), "{\"more\":1}").unwrap();
    let error = cleaner.check().unwrap_err();
    assert!(error.to_string().contains("a.json"), "{error}");
    // Written after the check: what is another one stays.
    let error = cleaner.remove().unwrap_err();
    assert!(error.code() == Code::Held && dir.path().join("a.json").exists(), "{error}");
}

#[test]
fn a_database_that_was_opened_since_the_proof_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let bot = rusqlite::Connection::open(&path).unwrap();
    bot.execute_batch("CREATE TABLE t(x); PRAGMA journal_mode=WAL;").unwrap();
    drop(bot);
    let cleaner = cleaner(dir.path());
    cleaner.check().unwrap();
    fs::write(dir.path().join("store.db-wal"), "").unwrap();
    let error = cleaner.check().unwrap_err();
    assert!(error.to_string().contains("store.db has a -wal"), "{error}");
}

#[test]
fn a_database_goes_as_a_whole_with_what_it_does_not_need() {
    let dir = tempfile::tempdir().unwrap();
    testing::unpack(dir.path());
    let database = dir.path().join(testing::INDEXED_DB);
    for scrap in ["LOCK", "LOG", "000099.ldb"] {
        fs::write(database.join(scrap), "").unwrap();
    }
    let mut cleaner = cleaner(dir.path());
    // No commit has it; and of the log all but its last record, which is not whole.
    let is_log = |path: &&String| {
        let name = path.strip_prefix(testing::INDEXED_DB).and_then(|name| name.strip_prefix('/'));
        matches!(name.and_then(Member::parse), Some(Member::Log(_)))
    };
    let log = cleaner.proven.iter().find(is_log);
    let log = log.unwrap().clone();
    assert!(
        cleaner.proven.remove(&log) && cleaner.proven.remove(&format!("{}/000099.ldb", testing::INDEXED_DB))
    );
    let removed = cleaner.remove().unwrap();
    assert_eq!((removed.files, removed.kept), (cleaner.proven.len() as u64, 0));
    assert!(removed.unneeded >= 4, "{removed:?}");
    assert!(!dir.path().exists());
}

#[test]
fn a_database_that_is_written_in_the_last_moment_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    testing::unpack(dir.path());
    let mut cleaner = cleaner(dir.path());
    let new = dir.path().join(testing::LOCAL_STORAGE).join("000099.log");
    cleaner.host = Arc::new(Later { writes: Some(new.clone()), ..Later::default() });
    let error = cleaner.remove().unwrap_err();
    assert!(error.code() == Code::Held && error.to_string().contains(" 0 files were removed"), "{error}");
    assert!(new.exists() && !dir.path().join(STATE_DIR).exists());
    assert!(cleaner.proven.iter().all(|file| dir.path().join(file).exists()));
}

#[test]
fn a_cleanup_that_was_cut_off_leaves_databases_whole_or_gone_and_is_gone_on_with() {
    // The first of these removes what an earlier cleanup left: nothing.
    for dies_at in [("cleanup: set a database aside", 1), ("cleanup: remove what was set aside", 1)] {
        let dir = tempfile::tempdir().unwrap();
        testing::unpack(dir.path());
        let mut cut_off = cleaner(dir.path());
        cut_off.host = Arc::new(Later { dies_at: Some(dies_at), ..Later::default() });
        cut_off.remove().unwrap_err();
        let again = cleaner(dir.path());
        let (before, after) = (&cut_off.scan, &again.scan);
        assert_eq!(after.leveldbs.len() + 1, before.leveldbs.len(), "{dies_at:?}");
        assert!(!after.leveldbs.contains_key(testing::LOCAL_STORAGE), "the account goes first");
        let of =
            |scan: &Scan, database: &str| scan.files.keys().filter(|path| above(path) == database).count();
        for database in before.leveldbs.keys() {
            assert!([0, of(before, database)].contains(&of(after, database)), "{dies_at:?}: {database}");
        }
        again.remove().unwrap();
        assert!(!dir.path().exists(), "{dies_at:?}");
    }
}

#[test]
fn a_tree_that_a_process_works_in_or_a_browser_locks_is_in_use() {
    let (dir, cleaner) = tree(&["creds.json"]);
    let mut child = std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
    let why = in_use(dir.path(), &cleaner.scan, cleaner.host.now());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(why.unwrap().contains(&child.id().to_string()));
    assert_eq!(in_use(dir.path(), &cleaner.scan, cleaner.host.now()), None);
    std::os::unix::fs::symlink("host-1", dir.path().join(BROWSER)).unwrap();
    assert!(in_use(dir.path(), &cleaner.scan, cleaner.host.now()).unwrap().contains(BROWSER));
}
