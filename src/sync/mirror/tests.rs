use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::host::Real;
use crate::store::{Call, Fault, Faulty, Kind, Memory, Op, Store as _};
use crate::tree::Meta;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// The tree on disk, as a source.
#[derive(Debug, Default)]
struct Disk(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl Source for Disk {
    async fn content(&self, path: &str, sha256: Hash) -> Option<Content> {
        let bytes = lock(&self.0).get(path).cloned().filter(|bytes| Hash::of(bytes) == sha256);
        bytes.map(Content::Bytes)
    }
}

type Log = Arc<Mutex<Vec<(Op, String, Instant)>>>;

/// An engine, a bucket and the mirror between them.
struct World {
    memory: Arc<Memory>,
    faulty: Arc<Faulty<Arc<Memory>>>,
    log: Log,
    disk: Arc<Disk>,
    mirror: Mirror,
    commits: u32,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

fn rule(
    log: &Log,
    fault: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static,
) -> impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static {
    let log = Arc::clone(log);
    move |call| {
        lock(&log).push((call.op, call.key.to_owned(), Instant::now()));
        fault(call)
    }
}

impl World {
    fn new() -> Self {
        Self::with(Bucket::default(), |_| {})
    }

    fn with(bucket: Bucket, prepare: impl FnOnce(&Memory)) -> Self {
        let memory = Arc::new(Memory::new(Arc::new(Real)));
        prepare(&memory);
        let log = Log::default();
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory), rule(&log, |_| Fault::Pass)));
        let disk = Arc::<Disk>::default();
        let source: Arc<dyn Source> = Arc::<Disk>::clone(&disk);
        let store: SharedStore = Arc::<Faulty<Arc<Memory>>>::clone(&faulty);
        let (mirror, worker) = Mirror::new(store, key(), bucket, source);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(worker.run(cancel.clone()));
        Self { memory, faulty, log, disk, mirror, commits: 0, cancel, task }
    }

    fn fault(&self, fault: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) {
        self.faulty.set(rule(&self.log, fault));
    }

    fn write(&self, path: &str, content: impl Into<Bytes>) {
        lock(&self.disk.0).insert(path.to_owned(), content.into());
    }

    fn delete(&self, path: &str) {
        lock(&self.disk.0).remove(path);
    }

    /// What is on disk becomes the head; only now can the mirror have it.
    fn commit(&mut self, changed: &[&str]) {
        let meta = |bytes: &Bytes| Meta {
            size: bytes.len() as u64,
            mode: 0o600,
            mtime_ns: 0,
            sha256: Hash::of(bytes),
        };
        let files = lock(&self.disk.0).iter().map(|(path, bytes)| (path.clone(), meta(bytes))).collect();
        self.commits += 1;
        let table = Arc::new(Table { files, ..Table::default() });
        self.mirror.committed(
            format!("00000001-{:08}-00000000", self.commits),
            table,
            changed.iter().map(|path| (*path).to_owned()),
        );
    }

    /// Lets everybody do what can be done now.
    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    fn requests(&self) -> Vec<(Op, String, Instant)> {
        lock(&self.log).clone()
    }

    fn times(&self, op: Op, key: &str) -> Vec<Instant> {
        let requests = self.requests().into_iter();
        requests.filter(|(o, k, _)| *o == op && k == key).map(|(.., at)| at).collect()
    }

    fn bucket(&self) -> BTreeMap<String, Bytes> {
        self.memory.objects()
    }

    fn mirrored(&self) -> BTreeMap<String, Bytes> {
        let files = lock(&self.disk.0).clone();
        files.into_iter().map(|(path, bytes)| (format!("u/s/{path}"), bytes)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_brings_the_bucket_to_the_head_and_writes_only_what_differs() {
    let mut world = World::with(Bucket::default(), |memory| {
        for (key, body) in [("u/s/same", "1"), ("u/s/old", "2"), ("u/s/gone", "3"), ("u/other/x", "4")] {
            memory.plant(key, body, Timestamp::UNIX_EPOCH);
        }
    });
    world.write("same", "1");
    world.write("old", "x");
    world.write("keys/nëw", "y");
    world.commit(&[]);
    world.settle().await;
    let mut expected = world.mirrored();
    expected.remove("u/s/keys/nëw");
    expected.insert("u/s/keys/n$C3$ABw".to_owned(), "y".into());
    expected.insert("u/other/x".to_owned(), "4".into());
    assert_eq!(world.bucket(), expected);
    assert_eq!(world.times(Op::Put, "u/s/same"), []);
    assert_eq!(world.mirror.status().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_first_commit() {
    let world = World::new();
    sleep(MINUTE * 120).await;
    assert_eq!(world.requests(), []);
}

#[tokio::test(start_paused = true)]
async fn an_object_is_written_at_most_once_in_15_seconds_and_ends_at_the_newest() {
    let mut world = World::new();
    for second in 0..60 {
        world.write("creds.json", format!("{{\"n\":{second}}}"));
        world.commit(&["creds.json"]);
        sleep(SECOND).await;
    }
    sleep(SECOND * 15).await;
    let times = world.times(Op::Put, "u/s/creds.json");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= SECOND * 15), "{times:?}");
    assert!((4..=6).contains(&times.len()), "{times:?}");
    assert_eq!(world.bucket(), world.mirrored());
}

#[tokio::test(start_paused = true)]
async fn a_wave_of_files_is_written_once_each_and_eight_at_a_time() {
    let mut world = World::new();
    world.commit(&[]);
    world.settle().await;
    world.fault(|call| if call.op == Op::Put { Fault::Delay(SECOND) } else { Fault::Pass });
    for n in 0..80 {
        let path = format!("session-{n}.json");
        world.write(&path, "{}");
        world.commit(&[&path]);
    }
    sleep(SECOND * 11).await;
    assert_eq!(world.bucket(), world.mirrored());
    let puts: Vec<_> = world.requests().into_iter().filter(|(op, ..)| *op == Op::Put).collect();
    assert_eq!(puts.len(), 80);
    for (_, _, start) in &puts {
        let at_once = puts.iter().filter(|(_, _, at)| *at <= *start && *start - *at < SECOND).count();
        assert!(at_once <= 8, "{at_once} uploads at once");
    }
}

#[tokio::test(start_paused = true)]
async fn removals_come_after_the_puts_of_their_commit() {
    let mut world = World::new();
    world.write("a", "1");
    world.write("b", "1");
    world.commit(&["a", "b"]);
    sleep(SECOND * 20).await;
    world.write("b", "2");
    world.commit(&["b"]);
    sleep(SECOND * 5).await;
    // `b` may not be written again for ten seconds: so `a`, which moved into it, stays.
    world.write("b", "3");
    world.delete("a");
    world.commit(&["a", "b"]);
    sleep(SECOND * 5).await;
    assert!(world.bucket().contains_key("u/s/a"));
    sleep(SECOND * 10).await;
    assert_eq!(world.bucket(), world.mirrored());
    let (put, removal) = (world.times(Op::Put, "u/s/b"), world.times(Op::Remove, "u/s/a"));
    assert!(put.last() <= removal.first(), "{put:?} {removal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_level_sends_nothing_for_an_hour() {
    let mut world = World::new();
    world.write("creds.json", "{}");
    world.commit(&[]);
    world.settle().await;
    let before = world.requests().len();
    sleep(MINUTE * 59).await;
    assert_eq!(world.requests().len(), before);
    sleep(MINUTE * 2).await;
    let after: Vec<Op> = world.requests()[before..].iter().map(|(op, ..)| *op).collect();
    assert_eq!(after, [Op::List]);
}

#[tokio::test(start_paused = true)]
async fn the_hourly_comparison_mends_what_somebody_else_did() {
    let mut world = World::new();
    world.write("creds.json", "{\"a\":1}");
    world.write("app-state.json", "{}");
    world.commit(&[]);
    world.settle().await;
    // The same size: only the MD5 tells.
    world.memory.plant("u/s/creds.json", "{\"b\":2}", Timestamp::UNIX_EPOCH);
    world.memory.plant("u/s/more.json", "{}", Timestamp::UNIX_EPOCH);
    world.memory.erase("u/s/app-state.json");
    sleep(MINUTE * 61).await;
    assert_eq!(world.bucket(), world.mirrored());
}

#[tokio::test(start_paused = true)]
async fn files_over_1_mib_wait_for_the_reconcile_and_hold_nothing_up() {
    let mut world = World::new();
    world.commit(&[]);
    world.settle().await;
    world.write("whatsapp.db", vec![1; (1 << 20) + 1]);
    world.write("small", vec![1; 1 << 20]);
    world.commit(&["whatsapp.db", "small", "gone"]);
    sleep(MINUTE * 10).await;
    assert_eq!(world.memory.keys(""), ["u/s/small"]);
    assert_eq!(world.times(Op::Remove, "u/s/gone").len(), 1);
    assert_eq!(world.mirror.status().pending, 1);
    assert!(world.mirror.status().lag_seconds > 500.0);
    world.mirror.reconciled();
    world.settle().await;
    assert_eq!(world.bucket(), world.mirrored());
    assert_eq!(world.mirror.status().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn objects_carry_the_heads_id_and_the_contents_hash() {
    let mut world = World::new();
    world.write("creds.json", "{}");
    world.commit(&[]);
    world.settle().await;
    let info = world.memory.info("u/s/creds.json").await.unwrap();
    let sha256 = Hash::of(b"{}").to_string();
    let mark = json!({ "sidecar": { "head": "00000001-00000001-00000000", "sha256": sha256, "md5": md5_hex(b"{}") } });
    assert_eq!(info.metadata, mark);
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_little_and_is_made_up_for() {
    let mut world = World::new();
    world.write("a", "1");
    world.write("b", "1");
    world.commit(&[]);
    world.settle().await;
    world.fault(|_| Fault::Before(Kind::Transient));
    for minute in 0..60 {
        world.write("a", format!("{minute}"));
        world.commit(&["a"]);
        sleep(MINUTE).await;
    }
    world.delete("b");
    world.commit(&["b"]);
    let during = world.requests().len();
    assert!(during < 60, "{during} requests in an hour without an answer");
    assert!(world.mirror.error().unwrap().contains("a fault was injected"));
    assert!(world.mirror.status().lag_seconds > 3000.0);
    world.fault(|_| Fault::Pass);
    sleep(MINUTE * 6).await;
    assert_eq!(world.bucket(), world.mirrored());
    assert_eq!(world.mirror.error(), None);
}

/// Phone numbers are in file names.
#[tokio::test(start_paused = true)]
async fn an_error_does_not_tell_which_file_it_was() {
    let mut world = World::new();
    world.fault(|call| if call.op == Op::Put { Fault::Before(Kind::Denied) } else { Fault::Pass });
    world.write("session-5511900000001.0.json", "{}");
    world.commit(&[]);
    world.settle().await;
    let error = world.mirror.error().expect("an error");
    assert!(!error.contains("5511900000001"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_was_lost_is_compared_and_not_sent_again() {
    let mut world = World::new();
    world.fault(|call| if call.op == Op::Put { Fault::After(Kind::Transient) } else { Fault::Pass });
    world.write("a", "1");
    world.commit(&[]);
    world.settle().await;
    world.fault(|_| Fault::Pass);
    sleep(MINUTE * 2).await;
    assert_eq!(world.bucket(), world.mirrored());
    assert_eq!(world.times(Op::Put, "u/s/a").len(), 1);
    assert_eq!(world.mirror.status().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_cannot_take_is_counted_and_its_old_version_removed() {
    let bucket = Bucket {
        size_limit: Some(10),
        types: Some(vec!["application/json".to_owned()]),
        ..Bucket::default()
    };
    let mut world = World::with(bucket, |memory| memory.plant("u/s/big.json", "{}", Timestamp::UNIX_EPOCH));
    world.write("big.json", "[1,2,3,4,5,6]");
    world.write("wa.db", "1");
    world.write("creds.json", "{}");
    world.commit(&[]);
    world.settle().await;
    assert_eq!(world.memory.keys(""), ["u/s/creds.json"]);
    assert_eq!(world.mirror.status().skipped, 2);
    assert_eq!(world.mirror.status().pending, 0);
    world.write("big.json", "[]");
    world.commit(&["big.json"]);
    sleep(SECOND * 15).await;
    assert_eq!(world.memory.keys(""), ["u/s/big.json", "u/s/creds.json"]);
    assert_eq!(world.mirror.status().skipped, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_refuses_for_good_is_not_sent_again_until_it_changes() {
    let mut world = World::new();
    world.fault(|call| match (call.op, call.key) {
        (Op::Put, "u/s/a.bin") => Fault::Before(Kind::TypeRefused),
        _ => Fault::Pass,
    });
    world.write("a.bin", "1");
    world.write("b.json", "{}");
    world.commit(&[]);
    sleep(MINUTE * 130).await;
    assert_eq!(world.times(Op::Put, "u/s/a.bin").len(), 1);
    assert_eq!(world.memory.keys(""), ["u/s/b.json"]);
    assert_eq!(world.mirror.status().skipped, 1);
    assert_eq!(world.mirror.error(), None);
    world.write("a.bin", "2");
    world.commit(&["a.bin"]);
    sleep(SECOND * 15).await;
    assert_eq!(world.times(Op::Put, "u/s/a.bin").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_has_moved_on_is_left_for_its_next_commit_and_holds_nothing_up() {
    let mut world = World::new();
    world.write("creds.json", "{\"n\":1}");
    world.write("pre-key-1.json", "{}");
    world.commit(&[]);
    sleep(SECOND * 20).await;
    world.write("creds.json", "{\"n\":2}");
    world.delete("pre-key-1.json");
    world.commit(&["creds.json", "pre-key-1.json"]);
    world.write("creds.json", "{\"n\":");
    sleep(SECOND * 40).await;
    assert_eq!(world.bucket(), BTreeMap::from([("u/s/creds.json".to_owned(), "{\"n\":1}".into())]));
    assert_eq!(world.mirror.status().pending, 1);
    world.write("creds.json", "{\"n\":2}");
    sleep(SECOND * 16).await;
    assert_eq!(world.bucket(), world.mirrored());
}

/// A source that gives other bytes than it was asked for.
#[derive(Debug)]
struct Liar;

#[async_trait]
impl Source for Liar {
    async fn content(&self, _: &str, _: Hash) -> Option<Content> {
        Some(Content::Bytes("torn".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_the_committed_ones_are_not_sent() {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    let store: SharedStore = Arc::<Memory>::clone(&memory);
    let (mirror, worker) = Mirror::new(store, key(), Bucket::default(), Arc::new(Liar));
    let cancel = CancellationToken::new();
    let task = tokio::spawn(worker.run(cancel.clone()));
    let meta = Meta { size: 4, mode: 0o600, mtime_ns: 0, sha256: Hash::of(b"good") };
    let table = Table { files: BTreeMap::from([("a".to_owned(), meta)]), ..Table::default() };
    mirror.committed("head".to_owned(), Arc::new(table), []);
    sleep(MINUTE * 5).await;
    assert_eq!(memory.calls(Op::Put), 0);
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_once_also_in_the_middle_of_an_upload() {
    let mut world = World::new();
    world.fault(|call| if call.op == Op::Put { Fault::HangBefore } else { Fault::Pass });
    world.write("a", "1");
    world.commit(&[]);
    world.settle().await;
    let before = Instant::now();
    world.cancel.cancel();
    world.task.await.unwrap();
    assert_eq!(Instant::now(), before);
    assert_eq!(world.memory.keys(""), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn clearing_takes_all_of_one_session_and_nothing_else() {
    let memory = Memory::new(Arc::new(Real));
    for n in 0..1200 {
        memory.plant(&format!("u/s/f{n}"), "1", Timestamp::UNIX_EPOCH);
    }
    memory.plant("u/s2/x", "1", Timestamp::UNIX_EPOCH);
    memory.plant(".history/u/s/x", "1", Timestamp::UNIX_EPOCH);
    assert_eq!(clear(&memory, &key()).await.unwrap(), (1200, 1200));
    assert_eq!(memory.keys(""), [".history/u/s/x", "u/s2/x"]);
}
