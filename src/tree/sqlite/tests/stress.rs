//! Snapshots beside a writer that never rests, here and in another process, until it is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// Makes the test binary a writer: `{journal mode} {path}`.
const WRITES: &str = "SIDECAR_TEST_WRITES";
/// How many snapshots are taken beside one writer.
const SNAPSHOTS: &str = "SIDECAR_TEST_SNAPSHOTS";

fn snapshots() -> usize {
    std::env::var(SNAPSHOTS).ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// Writes transactions of three rows each, and says each that is committed.
#[expect(clippy::disallowed_methods, reason = "nothing waits for it, and a process's time cannot be paused")]
fn write(path: &Path, mode: &str, committed: impl Fn(i64) -> bool) {
    let mut database = Connection::open(path).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    database.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
    database.execute_batch("PRAGMA wal_autocheckpoint=50; PRAGMA synchronous=OFF").unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS w(n INTEGER, text TEXT)").unwrap();
    for n in 1.. {
        let transaction = database.transaction().unwrap();
        for _ in 0..3 {
            transaction.execute("INSERT INTO w VALUES (?1, hex(randomblob(200)))", [n]).unwrap();
        }
        transaction.commit().unwrap();
        if !committed(n) {
            return;
        }
        // It would grow faster than anybody can look at it.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn as_the_writer() {
    let Ok(order) = std::env::var(WRITES) else { return };
    let (mode, path) = order.split_once(' ').unwrap();
    write(Path::new(path), mode, |n| {
        println!("committed {n}");
        true
    });
}

/// The last transaction in a database. Those before it must be whole, and all there.
#[track_caller]
fn last(database: &Connection) -> i64 {
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let query = "SELECT count(*), count(DISTINCT n), coalesce(max(n), 0) FROM w";
    let (rows, numbers, last) = database
        .query_row(query, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        .unwrap();
    assert_eq!((numbers, rows), (last, 3 * last), "a prefix of whole transactions");
    last
}

#[track_caller]
fn last_in(content: &Content) -> i64 {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("restored.db");
    fs::write(&path, content.bytes().unwrap()).unwrap();
    last(&Connection::open(&path).unwrap())
}

fn wait_for(acknowledged: &AtomicI64, n: i64) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while acknowledged.load(Ordering::SeqCst) < n {
        assert!(Instant::now() < deadline, "the writer does not get on");
        std::thread::yield_now();
    }
}

/// Looks again and again; each snapshot holds what was acknowledged before the look.
fn look_beside(tree: &mut Tree, acknowledged: &AtomicI64) {
    let mut taken = 0;
    let deadline = Instant::now() + Duration::from_mins(2);
    while taken < snapshots() {
        assert!(Instant::now() < deadline, "only {taken} snapshots");
        let before = acknowledged.load(Ordering::SeqCst);
        let batch = tree.look();
        let Some(content) = batch.contents.get("x.db") else {
            // A writer with a journal keeps readers out while it commits.
            assert_eq!(batch.held.get("x.db"), Some(&Reason::SqliteLocked), "{:?}", batch.held);
            continue;
        };
        let last = last_in(content);
        assert!(last >= before, "{last} of {before} that were acknowledged");
        taken += 1;
        wait_for(acknowledged, before + 2);
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn beside_another_process(mode: &str) {
    let mut tree = Tree::new();
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "tree::sqlite::tests::stress::as_the_writer", "--nocapture"]);
    other.env(WRITES, format!("{mode} {}", tree.path("x.db").display()));
    let mut child = Killed(other.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let acknowledged = Arc::new(AtomicI64::new(0));
    let (said, lines) = (Arc::clone(&acknowledged), BufReader::new(child.0.stdout.take().unwrap()));
    let reading = std::thread::spawn(move || {
        let lines = lines.lines().map_while(Result::ok);
        for line in lines.filter_map(|line| line.rsplit_once("committed ").map(|(_, n)| n.to_owned())) {
            said.store(line.parse().unwrap(), Ordering::SeqCst);
        }
    });
    wait_for(&acknowledged, 3);
    look_beside(&mut tree, &acknowledged);
    drop(child);
    reading.join().unwrap();
    // Killed in the middle of something: what it had acknowledged is in the snapshot, and in its own database.
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    let snapshot = last_in(&tree.look().contents["x.db"]);
    assert!(snapshot >= acknowledged);
    let own = Connection::open(tree.path("x.db")).unwrap();
    assert_eq!(last(&own), snapshot);
}

#[test]
fn snapshots_beside_a_writer_in_this_process_are_whole() {
    let mut tree = Tree::new();
    tree.filter = tree.filter.clone().with_live_databases(["x.db"]);
    let (acknowledged, ended) = (AtomicI64::new(0), AtomicBool::new(false));
    let path = tree.path("x.db");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write(&path, "WAL", |n| {
                acknowledged.store(n, Ordering::SeqCst);
                !ended.load(Ordering::SeqCst)
            });
        });
        wait_for(&acknowledged, 3);
        look_beside(&mut tree, &acknowledged);
        ended.store(true, Ordering::SeqCst);
    });
    assert_eq!(last_in(&tree.look().contents["x.db"]), acknowledged.load(Ordering::SeqCst));
    assert_eq!(tree.names(), ["x.db"], "the writer tidied up as if nobody had looked");
}

#[test]
fn snapshots_beside_a_writer_with_a_wal_in_another_process_are_whole() {
    beside_another_process("WAL");
}

#[test]
fn snapshots_beside_a_writer_with_a_journal_in_another_process_are_whole() {
    beside_another_process("DELETE");
}
