use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::tree::{Hash, Meta, Preset};

fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        write(dir.path(), file, b"{}");
    }
    dir
}

fn write(dir: &Path, file: &str, bytes: &[u8]) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn all() -> Filter {
    Filter::new(None, &[], &[]).unwrap()
}

fn open(dir: &TempDir) -> Dir {
    Dir::open(dir.path()).unwrap()
}

fn full(dir: &TempDir) -> Scan {
    scan(&open(dir), &all()).unwrap()
}

fn some(dir: &TempDir, paths: &[&str]) -> Scan {
    scan_some(&open(dir), &all(), &set(paths)).unwrap()
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn files(scan: &Scan) -> Vec<&str> {
    scan.files.keys().map(String::as_str).collect()
}

fn head(files: &[&str], empty_dirs: &[&str]) -> Table {
    let meta = Meta { size: 2, mode: 0o600, mtime_ns: 0, sha256: Hash::of(b"{}") };
    Table {
        files: files.iter().map(|file| ((*file).to_owned(), meta)).collect(),
        empty_dirs: set(empty_dirs),
    }
}

#[test]
fn a_scan_finds_regular_files_with_their_modes_and_the_empty_directories() {
    let dir = tree(&["creds.json", "keys/a/b.json"]);
    fs::create_dir_all(dir.path().join("empty/deeper")).unwrap();
    fs::set_permissions(dir.path().join("creds.json"), fs::Permissions::from_mode(0o4640)).unwrap();
    let scan = full(&dir);
    assert_eq!(files(&scan), ["creds.json", "keys/a/b.json"]);
    assert_eq!(scan.files["creds.json"].mode, 0o640);
    assert_eq!(scan.files["creds.json"].fingerprint.size, 2);
    assert_eq!(scan.empty_dirs, set(&["empty/deeper"]));
    assert!(scan.held.is_empty());
}

#[test]
fn links_and_pipes_are_counted_and_never_followed() {
    let dir = tree(&["creds.json"]);
    symlink("/etc", dir.path().join("etc")).unwrap();
    symlink("creds.json", dir.path().join("link.json")).unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(0, 0),
    )
    .unwrap();
    let scan = full(&dir);
    assert_eq!(files(&scan), ["creds.json"]);
    assert_eq!((scan.links, scan.special), (2, 1));
    let scan = some(&dir, &["etc", "etc/passwd", "pipe"]);
    assert!(scan.files.is_empty() && scan.held.is_empty(), "{scan:?}");
}

#[test]
fn a_name_that_is_not_utf8_is_held_and_counted() {
    let dir = tree(&["creds.json"]);
    fs::write(dir.path().join(OsStr::from_bytes(b"bad\xff.json")), "{}").unwrap();
    let scan = full(&dir);
    assert_eq!(files(&scan), ["creds.json"]);
    assert_eq!(scan.not_utf8, 1);
    assert_eq!(scan.held.get("bad\\xff.json"), Some(&Reason::NotUtf8));
}

#[test]
fn what_is_excluded_is_no_part_of_the_tree() {
    let dir = tree(&["creds.json", ".session-sidecar/state.json", "lost+found/x", "Default/Cache/a"]);
    let filter = Filter::new(Some(Preset::WhatsappWebJs), &[], &[]).unwrap();
    let scan = scan(&open(&dir), &filter).unwrap();
    assert_eq!(files(&scan), ["creds.json"]);
    assert_eq!(scan.empty_dirs, set(&["Default"]));
}

/// Runs a closure as somebody to whom permissions apply.
fn without_privilege<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            run()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_directory_that_cannot_be_read_holds_all_below_it() {
    let dir = tree(&["creds.json", "keys/pre-key-1.json"]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let keys = dir.path().join("keys");
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o000)).unwrap();
    let top = open(&dir);
    let (full, some, absent) = without_privilege(|| {
        let paths = set(&["keys/pre-key-1.json"]);
        let path = "keys/pre-key-1.json";
        (scan(&top, &all()).unwrap(), scan_some(&top, &all(), &paths).unwrap(), absent(&top, &all(), path))
    });
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o755)).unwrap();
    let head = head(&["creds.json", "keys/pre-key-1.json"], &["keys/empty"]);
    for scan in [full, some] {
        assert!(scan.is_held("keys/pre-key-1.json"), "{scan:?}");
        assert_eq!(scan.gone(&head).count(), 0);
        assert_eq!(scan.empty_dirs_after(&head), set(&["keys/empty"]));
    }
    assert!(absent.is_err());
}

#[test]
fn a_directory_deleted_behind_the_descriptor_is_an_error_not_an_empty_tree() {
    let dir = tree(&["creds.json"]);
    let top = open(&dir);
    fs::remove_dir_all(dir.path()).unwrap();
    fs::create_dir(dir.path()).unwrap();
    assert!(scan(&top, &all()).is_err());
    assert!(scan_some(&top, &all(), &set(&["creds.json"])).is_err());
}

#[test]
fn a_dirty_set_says_nothing_of_other_paths() {
    let dir = tree(&["creds.json", "keys/b.json"]);
    let head = head(&["a.json", "creds.json", "keys/a.json", "other.json"], &[]);
    let scan = some(&dir, &["a.json", "creds.json", "keys"]);
    assert_eq!(files(&scan), ["creds.json", "keys/b.json"]);
    assert_eq!(scan.gone(&head).collect::<Vec<_>>(), ["a.json", "keys/a.json"]);
    assert!(!scan.covers("other.json"));
}

#[test]
fn a_file_in_place_of_a_directory_makes_what_was_below_absent() {
    let dir = tree(&["keys"]);
    symlink("/nowhere", dir.path().join("links")).unwrap();
    let scan = some(&dir, &["keys/a.json", "links/a.json"]);
    assert!(scan.held.is_empty(), "{scan:?}");
    let head = head(&["keys/a.json", "links/a.json"], &[]);
    assert_eq!(scan.gone(&head).count(), 2);
    for path in head.files.keys() {
        assert!(absent(&open(&dir), &all(), path).unwrap());
    }
    assert!(!absent(&open(&dir), &all(), "keys").unwrap());
    assert!(absent(&open(&dir), &Filter::new(None, &[], &["keys".to_owned()]).unwrap(), "keys").unwrap());
}

#[test]
fn a_directory_that_lost_its_last_file_becomes_an_empty_directory() {
    let dir = tree(&["creds.json"]);
    fs::create_dir_all(dir.path().join("keys/deep")).unwrap();
    let before = head(&["creds.json", "keys/deep/a.json", "old/a.json"], &["stays"]);
    let scan = some(&dir, &["keys/deep/a.json", "old/a.json"]);
    assert_eq!(scan.empty_dirs_after(&before), set(&["keys/deep", "stays"]));
    assert_eq!(full(&dir).empty_dirs_after(&before), set(&["keys/deep"]));
}

#[test]
fn a_directory_that_got_a_file_is_not_empty_any_more() {
    let dir = tree(&["keys/deep/a.json"]);
    let scan = some(&dir, &["keys/deep/a.json"]);
    assert_eq!(scan.empty_dirs_after(&head(&[], &["keys", "key"])), set(&["key"]));
}

const SQLITE: &[u8] = b"SQLite format 3\0and pages";

#[test]
fn a_database_is_found_without_its_side_files_in_every_kind_of_scan() {
    let dir = tree(&["creds.json", "notes.db"]);
    for (path, bytes) in [
        ("main.db", SQLITE),
        ("main.db-wal", b"wal".as_slice()),
        ("main.db-shm", b"shm"),
        ("keys/store", SQLITE),
        ("keys/store-journal", b"journal"),
        ("new.sqlite3", b""),
        ("new.sqlite3-journal", b"journal"),
        ("gone.db-wal", b"orphan"),
        ("work-journal", b"a diary"),
        ("plain", SQLITE),
    ] {
        write(dir.path(), path, bytes);
    }
    let databases = ["keys/store", "main.db", "new.sqlite3"];
    let found = ["creds.json", "keys/store", "main.db", "new.sqlite3", "notes.db", "plain", "work-journal"];
    let sides = ["gone.db-wal", "main.db-wal", "main.db-shm", "keys/store-journal", "new.sqlite3-journal"];
    let everything: Vec<&str> = sides.iter().chain(&found).copied().collect();
    for scan in [full(&dir), some(&dir, &everything)] {
        assert!(scan.held.is_empty(), "{:?}", scan.held);
        assert_eq!(scan.databases.keys().map(String::as_str).collect::<Vec<_>>(), databases);
        assert_eq!(files(&scan), found);
    }
    // An event of a side file is one of its database.
    assert_eq!(files(&some(&dir, &["main.db-wal"])), ["main.db"]);
    assert_eq!(files(&some(&dir, &["plain-journal"])), ["plain"]);
}

#[test]
fn a_leveldb_is_looked_at_as_a_whole_with_what_is_too_large_for_it() {
    let (db, blob) = ("Default/IndexedDB/x.indexeddb.leveldb", "Default/IndexedDB/x.indexeddb.blob/1/00/1");
    let dir = tree(&["creds.json", "other/CURRENT", blob]);
    for name in
        ["CURRENT", "MANIFEST-000001", "000003.log", "000005.ldb", "LOCK", "LOG", "x.dbtmp", "sub/file"]
    {
        write(dir.path(), &format!("{db}/{name}"), b"x");
    }
    let within = |name: &str| format!("{db}/{name}");
    let all: Vec<String> =
        ["000003.log", "000005.ldb", "CURRENT", "MANIFEST-000001", "sub/file"].map(within).into();
    let with = |more: &[&str]| {
        let mut files: Vec<String> =
            all.iter().cloned().chain(more.iter().map(|m| (*m).to_owned())).collect();
        files.sort();
        files
    };
    let whole = full(&dir);
    assert_eq!(files(&whole), with(&["creds.json", "other/CURRENT", blob]));
    for marked in ["000003.log", "LOCK", "gone.ldb"].map(within).iter().map(String::as_str).chain([blob, db])
    {
        let scan = some(&dir, &[marked]);
        assert_eq!(files(&scan), with(&[blob]), "{marked}");
        assert_eq!(scan.leveldbs, whole.leveldbs);
        for part in [&within("000003.log"), blob] {
            assert_eq!(scan.leveldb_of(part), Some(db));
        }
        assert_eq!(scan.leveldb_of(&within("sub/file")), None);
    }
    assert!(some(&dir, &["other/CURRENT", "creds.json"]).leveldbs.is_empty());
}

#[test]
fn a_path_too_deep_for_history_is_held_and_costs_no_descriptors() {
    let dir = tree(&["creds.json"]);
    let mut path = String::new();
    let name = "d".repeat(200);
    while path.len() <= 4096 {
        path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
        let above = open(&dir).dir(above).unwrap();
        rustix::fs::mkdirat(&above, last, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
    }
    let scan = full(&dir);
    assert_eq!(files(&scan), ["creds.json"]);
    assert_eq!(scan.held.values().collect::<Vec<_>>(), [&Reason::Unreadable]);
}
