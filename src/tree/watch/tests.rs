//! Real inotify on real directories; what must come is polled for with a deadline.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use super::super::fence::FenceResult;
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Seen {
    touched: Vec<PathBuf>,
    rescans: Vec<String>,
    degraded: Vec<String>,
}

#[derive(Debug, Default)]
struct Recorder {
    seen: Mutex<Seen>,
    /// While it is held the thread of the watch waits.
    gate: tokio::sync::Mutex<()>,
}

impl Notice for Recorder {
    fn touched(&self, relative: &Path) {
        drop(self.gate.blocking_lock());
        self.seen.lock().unwrap().touched.push(relative.to_path_buf());
    }

    fn rescan(&self, why: &str) {
        self.seen.lock().unwrap().rescans.push(why.to_owned());
    }

    fn degraded(&self, why: &str) {
        self.seen.lock().unwrap().degraded.push(why.to_owned());
    }
}

impl Recorder {
    fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn has_touched(&self, path: &str) -> bool {
        self.seen.lock().unwrap().touched.iter().any(|touched| touched == Path::new(path))
    }

    fn has_rescanned(&self) -> bool {
        !self.seen.lock().unwrap().rescans.is_empty()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    recorder: Arc<Recorder>,
    watch: Watch,
}

impl Bench {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join(STATE_DIR).join("fence")).unwrap();
        prepare(&root);
        let recorder = Arc::new(Recorder::default());
        let watch = Watch::start(&root, Arc::clone(&recorder) as Arc<dyn Notice>).unwrap();
        Self { dir, recorder, watch }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join("root").join(relative)
    }

    /// All events until now have been told.
    async fn settle(&self) {
        assert_eq!(self.watch.fence().pass(DEADLINE).await, FenceResult::Passed);
    }

    async fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is() {
            assert!(Instant::now() < end, "{what} did not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_tree_whose_fences_lie_elsewhere_is_watched_and_nothing_is_written_into_it() {
    let (tree, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(root.path().join(STATE_DIR).join("fence")).unwrap();
    let recorder = Arc::new(Recorder::default());
    let notice = Arc::clone(&recorder) as Arc<dyn Notice>;
    let watch = Watch::start_beside(tree.path(), root.path(), notice).unwrap();
    fs::write(tree.path().join("a"), "1").unwrap();
    assert_eq!(watch.fence().pass(DEADLINE).await, FenceResult::Passed);
    assert!(recorder.has_touched("a"));
    assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_written_renamed_or_removed_is_told() {
    let bench = Bench::new(|root| fs::create_dir_all(root.join("u/s/keys")).unwrap());
    fs::write(bench.path("u/s/keys/a"), "1").unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("u/s/keys/a"));
    bench.recorder.take();

    fs::rename(bench.path("u/s/keys/a"), bench.path("u/s/b")).unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("u/s/keys/a") && bench.recorder.has_touched("u/s/b"));
    bench.recorder.take();

    fs::remove_file(bench.path("u/s/b")).unwrap();
    bench.settle().await;
    let seen = bench.recorder.take();
    assert_eq!(seen.touched, [Path::new("u/s/b")]);
    assert!(seen.rescans.is_empty() && seen.degraded.is_empty(), "{seen:?}");
    assert!(!bench.watch.polling());
}

#[tokio::test]
async fn reading_makes_no_events() {
    let bench = Bench::new(|root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/a"), "1").unwrap();
    });
    for _ in 0..100 {
        fs::read(bench.path("d/a")).unwrap();
        assert_eq!(fs::read_dir(bench.path("d")).unwrap().count(), 1);
    }
    bench.settle().await;
    assert_eq!(bench.recorder.take().touched, Vec::<PathBuf>::new());
}

/// Whoever opens a database, even to read it, opens its WAL for writing; as root it changes the owner, too.
#[tokio::test]
async fn reading_a_database_beside_its_writer_makes_no_events_and_a_write_does() {
    let bench = Bench::new(|_| ());
    let writer = rusqlite::Connection::open(bench.path("x.db")).unwrap();
    writer.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    writer.execute_batch("CREATE TABLE t(n)").unwrap();
    bench.settle().await;
    bench.recorder.take();
    let (dir, filter) = (crate::tree::Dir::open(&bench.path("")), crate::tree::Filter::new(None, &[], &[]));
    let (dir, filter, spool) = (dir.unwrap(), filter.unwrap(), tempfile::tempdir().unwrap());
    for _ in 0..3 {
        let read = crate::tree::read::read_file(&dir, &filter, "x.db", jiff::Timestamp::now(), spool.path());
        assert!(read.unwrap().is_some());
    }
    bench.settle().await;
    assert_eq!(bench.recorder.take().touched, Vec::<PathBuf>::new());
    writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("x.db-wal"));
}

/// notify-rs/notify#124: `mkdir -p a/b/c` told of `a` alone, and what was written inside went by.
#[tokio::test]
async fn new_directories_are_watched_to_the_bottom_before_they_are_told() {
    let bench = Bench::new(|_| ());
    for n in 0..50 {
        fs::create_dir_all(bench.path(&format!("{n}/b/c"))).unwrap();
        fs::write(bench.path(&format!("{n}/b/c/early")), "").unwrap();
    }
    bench.settle().await;
    for n in 0..50 {
        // Whoever walks it when it is told finds what came before; what comes after is an event.
        let name = n.to_string();
        let told = bench.recorder.seen.lock().unwrap().touched.iter().any(|path| path.starts_with(&name));
        assert!(told, "{n}");
    }
    bench.recorder.take();
    for n in 0..50 {
        fs::write(bench.path(&format!("{n}/b/c/late")), "").unwrap();
    }
    bench.settle().await;
    for n in 0..50 {
        assert!(bench.recorder.has_touched(&format!("{n}/b/c/late")), "{n}");
    }
}

#[tokio::test]
async fn a_directory_that_moved_is_watched_under_its_new_name_only() {
    let bench = Bench::new(|root| fs::create_dir_all(root.join("a/deep")).unwrap());
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("a") && bench.recorder.has_touched("b"));
    bench.recorder.take();
    fs::write(bench.path("b/deep/x"), "").unwrap();
    bench.settle().await;
    let seen = bench.recorder.take();
    assert!(
        seen.touched.iter().all(|path| path == Path::new("b/deep/x")) && !seen.touched.is_empty(),
        "{seen:?}"
    );
}

/// The kernel tells of the new directory first and of the old one's leaving after.
#[tokio::test]
async fn a_directory_that_was_exchanged_for_another_stays_watched() {
    let bench = Bench::new(|root| {
        fs::create_dir_all(root.join("u/s/keys")).unwrap();
        fs::create_dir_all(root.join(STATE_DIR).join("staging/x/keys")).unwrap();
    });
    let staged = bench.path(".session-sidecar/staging/x");
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    for _ in 0..20 {
        rustix::fs::renameat_with(rustix::fs::CWD, &staged, rustix::fs::CWD, bench.path("u/s"), flags)
            .unwrap();
        bench.settle().await;
        assert!(bench.recorder.has_touched("u/s"));
        bench.recorder.take();
        fs::write(bench.path("u/s/keys/x"), "").unwrap();
        fs::write(staged.join("keys/y"), "").unwrap();
        bench.settle().await;
        let seen = bench.recorder.take();
        assert!(seen.touched.iter().all(|path| path == Path::new("u/s/keys/x")), "{seen:?}");
        assert!(!seen.touched.is_empty());
    }
}

#[tokio::test]
async fn a_link_to_a_directory_is_told_and_not_followed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::new(|_| ());
    std::os::unix::fs::symlink(elsewhere.path(), bench.path("link")).unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("link"));
    bench.recorder.take();
    fs::write(elsewhere.path().join("x"), "").unwrap();
    bench.settle().await;
    assert!(bench.recorder.take().touched.is_empty());
}

#[tokio::test]
async fn the_state_directory_and_lost_and_found_are_silent() {
    let bench = Bench::new(|root| {
        fs::create_dir_all(root.join("lost+found")).unwrap();
        fs::create_dir_all(root.join("u/lost+found")).unwrap();
    });
    fs::write(bench.path(".session-sidecar/lock"), "").unwrap();
    fs::create_dir_all(bench.path(".session-sidecar/staging/x")).unwrap();
    fs::write(bench.path("lost+found/x"), "").unwrap();
    bench.settle().await;
    assert_eq!(bench.recorder.take().touched, Vec::<PathBuf>::new());
    fs::write(bench.path("u/lost+found/x"), "").unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("u/lost+found/x"), "below the top it is an ordinary name");
}

/// facebook/buck2#1131: the event that says so has no path, and was passed over.
#[tokio::test]
async fn lost_events_lead_to_a_rescan_and_everything_is_watched_after() {
    let bench = Bench::new(|root| fs::create_dir(root.join("d")).unwrap());
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // While its thread is kept from reading, more comes than the queue holds.
    let kept = bench.recorder.gate.lock().await;
    fs::write(bench.path("d/first"), "").unwrap();
    // Twice: what its buffer holds is out of the queue already.
    for n in 0..=2 * limit {
        let file = bench.path(&format!("d/{}", n % 2));
        drop(fs::OpenOptions::new().create(true).append(true).open(file).unwrap());
    }
    fs::create_dir_all(bench.path("new/below")).unwrap();
    drop(kept);
    bench.until("a rescan", || bench.recorder.has_rescanned()).await;
    assert!(bench.recorder.take().rescans[0].contains("overflow"));
    // The directory's own event was lost; it is watched all the same.
    fs::write(bench.path("new/below/x"), "").unwrap();
    bench.until("an event", || bench.recorder.has_touched("new/below/x")).await;
    assert!(!bench.watch.polling());
}

#[tokio::test]
async fn a_root_that_was_replaced_is_watched_again() {
    let bench = Bench::new(|root| fs::create_dir(root.join("d")).unwrap());
    fs::rename(bench.path(""), bench.dir.path().join("away")).unwrap();
    bench.until("loss", || bench.watch.polling()).await;
    assert!(bench.recorder.has_rescanned());
    bench.recorder.take();
    assert_eq!(bench.watch.fence().pass(DEADLINE).await, FenceResult::TimedOut, "nothing is watched");

    fs::create_dir_all(bench.path(".session-sidecar/fence")).unwrap();
    fs::create_dir_all(bench.path("e")).unwrap();
    bench.watch.check();
    bench.until("a rescan", || bench.recorder.has_rescanned()).await;
    fs::write(bench.path("e/x"), "").unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("e/x"));
    assert!(!bench.watch.polling());
}

#[tokio::test]
async fn a_mount_over_the_root_is_found_by_the_check() {
    let bench = Bench::new(|_| ());
    let link = bench.dir.path().join("link");
    let other = bench.dir.path().join("other");
    fs::create_dir_all(other.join("d")).unwrap();
    std::os::unix::fs::symlink(bench.path(""), &link).unwrap();
    let recorder = Arc::new(Recorder::default());
    let watch = Watch::start(&link, Arc::clone(&recorder) as Arc<dyn Notice>).unwrap();
    // No event tells that the same name is another directory now, as none does with a mount.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    watch.check();
    bench.until("a rescan", || recorder.has_rescanned()).await;
    fs::write(other.join("d/x"), "").unwrap();
    bench.until("an event", || recorder.has_touched("d/x")).await;
}

#[tokio::test]
async fn a_state_directory_that_was_removed_and_made_again_has_fences_again() {
    let bench = Bench::new(|_| ());
    fs::remove_dir_all(bench.path(STATE_DIR)).unwrap();
    bench.until("a rescan", || bench.recorder.has_rescanned()).await;
    assert_eq!(bench.watch.fence().pass(Duration::from_millis(1)).await, FenceResult::TimedOut);
    fs::create_dir_all(bench.path(".session-sidecar/fence")).unwrap();
    bench.watch.check();
    let fence = bench.watch.fence();
    let end = Instant::now() + DEADLINE;
    while fence.pass(Duration::from_secs(1)).await != FenceResult::Passed {
        assert!(Instant::now() < end, "no fence passes");
    }
}

#[tokio::test]
async fn many_fences_at_once_all_pass_and_leave_nothing() {
    let bench = Bench::new(|_| ());
    let fences: Vec<_> = (0..200)
        .map(|_| {
            let fence = bench.watch.fence();
            tokio::spawn(async move { fence.pass(DEADLINE).await })
        })
        .collect();
    for fence in fences {
        assert_eq!(fence.await.unwrap(), FenceResult::Passed);
    }
    assert_eq!(fs::read_dir(bench.path(".session-sidecar/fence")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_fence_that_is_given_up_leaves_nothing() {
    let bench = Bench::new(|_| ());
    let fence = bench.watch.fence();
    let kept = bench.recorder.gate.lock().await;
    fs::write(bench.path("x"), "").unwrap();
    // The thread of the watch waits at the gate: no fence passes.
    for wait in [0, 20] {
        assert_eq!(fence.pass(Duration::from_millis(wait)).await, FenceResult::TimedOut);
    }
    drop(kept);
    bench.settle().await;
    bench
        .until("an empty directory", || {
            fs::read_dir(bench.path(".session-sidecar/fence")).unwrap().count() == 0
        })
        .await;
}

#[tokio::test]
async fn everything_before_a_fence_is_told_before_it_passes() {
    let bench = Bench::new(|_| ());
    for n in 0..100 {
        fs::create_dir(bench.path(&format!("d{n}"))).unwrap();
        fs::write(bench.path(&format!("f{n}")), "").unwrap();
        bench.settle().await;
        assert!(bench.recorder.has_touched(&format!("d{n}")) && bench.recorder.has_touched(&format!("f{n}")));
    }
}

#[tokio::test]
async fn distrust_and_renewal_are_told() {
    let bench = Bench::new(|_| ());
    bench.watch.distrust("a scan found what no event announced");
    bench.watch.distrust("again");
    assert_eq!(bench.recorder.take().degraded, ["a scan found what no event announced"]);
    assert!(bench.watch.polling());
    bench.watch.renew("to be sure");
    bench.until("a rescan", || bench.recorder.has_rescanned()).await;
    assert_eq!(bench.recorder.take().rescans, ["to be sure"]);
    bench.settle().await;
}

#[tokio::test]
async fn when_watches_run_out_it_says_so_polls_and_lives_on() {
    let bench = Bench::new(|root| {
        fs::create_dir(root.join("d")).unwrap();
        // Root, `d` and fences.
        super::super::inotify::limits::set(root, 3);
    });
    assert!(!bench.watch.polling());
    fs::create_dir(bench.path("e")).unwrap();
    bench.until("degraded", || bench.watch.polling()).await;
    bench.settle().await;
    let seen = bench.recorder.take();
    assert!(seen.degraded.len() == 1 && seen.degraded[0].contains("max_user_watches"), "{seen:?}");
    assert_eq!(seen.touched, [Path::new("e")], "what is seen is told all the same");

    bench.watch.check();
    fs::write(bench.path("d/x"), "").unwrap();
    bench.settle().await;
    assert!(bench.watch.polling() && bench.recorder.has_touched("d/x"));
    let seen = bench.recorder.take();
    assert!(seen.degraded.is_empty() && seen.rescans.is_empty(), "once is enough: {seen:?}");

    super::super::inotify::limits::set(&bench.path(""), 100);
    bench.watch.check();
    bench.until("a rescan", || bench.recorder.has_rescanned()).await;
    assert!(!bench.watch.polling());
    fs::write(bench.path("e/x"), "").unwrap();
    bench.settle().await;
    assert!(bench.recorder.has_touched("e/x"));
}

#[test]
fn a_lack_of_watches_is_explained() {
    let root = Path::new("/data");
    let no_watches = reason(root, &rustix::io::Errno::NOSPC.into());
    assert!(no_watches.contains("fs.inotify.max_user_watches"), "{no_watches}");
    let no_instances = reason(root, &rustix::io::Errno::MFILE.into());
    assert!(no_instances.contains("fs.inotify.max_user_instances"), "{no_instances}");
    assert!(reason(root, &rustix::io::Errno::IO.into()).contains("/data"));
}

/// Wants nothing of caches, from some moment on.
#[derive(Default)]
struct Choosy {
    recorder: Recorder,
    chooses: AtomicBool,
}

impl Notice for Choosy {
    fn touched(&self, relative: &Path) {
        self.recorder.touched(relative);
    }

    fn watches(&self, relative: &Path) -> bool {
        !self.chooses.load(Ordering::Relaxed) || !relative.ends_with("Cache")
    }

    fn rescan(&self, why: &str) {
        self.recorder.rescan(why);
    }

    fn degraded(&self, why: &str) {
        self.recorder.degraded(why);
    }
}

#[tokio::test]
async fn what_nobody_wants_to_know_of_is_not_watched_also_when_that_is_found_out_later() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["s/Cache/deep", "s/IndexedDB"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    fs::create_dir_all(dir.path().join(STATE_DIR).join("fence")).unwrap();
    let choosy = Arc::new(Choosy::default());
    let watch = Watch::start(dir.path(), Arc::clone(&choosy) as Arc<dyn Notice>).unwrap();
    let settle = async || assert_eq!(watch.fence().pass(DEADLINE).await, FenceResult::Passed);
    let write = |path: &str| fs::write(dir.path().join(path), "1").unwrap();
    write("s/Cache/a");
    settle().await;
    assert!(choosy.recorder.has_touched("s/Cache/a"));

    choosy.chooses.store(true, Ordering::Relaxed);
    watch.renew("what is wanted is known now");
    let end = Instant::now() + DEADLINE;
    while !choosy.recorder.has_rescanned() {
        assert!(Instant::now() < end, "the watches are not placed anew");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    choosy.recorder.take();
    for path in ["s/Cache/b", "s/IndexedDB/c"] {
        write(path);
    }
    fs::create_dir(dir.path().join("s/IndexedDB/Cache")).unwrap();
    settle().await;
    write("s/IndexedDB/Cache/d");
    settle().await;
    let touched = choosy.recorder.take().touched;
    let told = |path: &str| touched.iter().any(|touched| touched == Path::new(path));
    assert!(told("s/IndexedDB/c") && told("s/IndexedDB/Cache"), "{touched:?}");
    assert!(!told("s/Cache/b") && !told("s/IndexedDB/Cache/d"), "{touched:?}");
}
