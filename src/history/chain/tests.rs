use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::*;
use crate::history::commit::Kind;
use crate::history::keys::Keys;
use crate::history::survey::{Depth, survey};
use crate::history::testing::{Author, access, id, key, memory, time};
use crate::store::{Fault, Faulty, Memory, Op, Store, rules};

const TRANSIENT: Fault = Fault::Before(crate::store::Kind::Transient);

async fn fetched(store: &dyn Store, at: Id, scratch: &Path) -> Result<Chain, HistoryError> {
    let survey = survey(store, &key(), Depth::Chain, None).await?;
    fetch(access(store), &key(), &survey, at, scratch, &Silent).await
}

/// Three commits: a base in parts, a change, a removal that leaves an empty directory.
async fn history(store: &dyn Store) -> Author {
    let mut author = Author::new();
    author.size_limit = Some(300);
    author.put("creds.json", b"{\"v\":1}").put("keys/a.json", b"{}").put("old/x", b"x");
    author.commit(store, Kind::Base).await;
    author.put("creds.json", b"{\"v\":2}").commit(store, Kind::Delta).await;
    author.remove("old/x").table.empty_dirs.insert("old".into());
    author.put("keys/b.json", b"{\"b\":1}").commit(store, Kind::Delta).await;
    author
}

fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

#[tokio::test]
async fn a_chain_is_extracted_to_the_tree_that_its_writer_meant() {
    let (memory, _) = memory();
    let author = history(&memory).await;
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 3), scratch.path()).await.unwrap();
    assert_eq!(*chain.table(), author.table);
    assert_eq!(chain.head().id, id(1, 3));
    assert_eq!(chain.ids().collect::<Vec<_>>(), [id(1, 1), id(1, 2), id(1, 3)]);

    let target = tempfile::tempdir().unwrap();
    chain.extract(&Dir::open(target.path()).unwrap(), &Silent).unwrap();
    let expected: BTreeMap<String, Vec<u8>> = author
        .contents
        .iter()
        .map(|(path, content)| (path.clone(), content.bytes().unwrap().to_vec()))
        .collect();
    assert_eq!(files_below(target.path()), expected);
    assert!(target.path().join("old").is_dir(), "the empty directory");
    let stat = std::fs::metadata(target.path().join("keys/a.json")).unwrap();
    assert_eq!(stat.permissions().mode() & 0o7777, 0o640);
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_700_000_000, 123_456_789));
    drop(chain);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "fetched objects are gone");
}

#[tokio::test]
async fn an_older_point_is_fetched_as_it_was() {
    let (memory, _) = memory();
    history(&memory).await;
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 1), scratch.path()).await.unwrap();
    let wanted = BTreeSet::from(["creds.json".to_owned(), "old/x".to_owned(), "absent".to_owned()]);
    let contents = chain.read(&wanted).unwrap();
    assert_eq!(contents.len(), 2);
    assert_eq!(&contents["creds.json"].bytes().unwrap()[..], b"{\"v\":1}");
}

#[tokio::test]
async fn an_existing_file_is_never_overwritten_nor_a_link_followed() {
    let (memory, _) = memory();
    history(&memory).await;
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 3), scratch.path()).await.unwrap();
    let outside = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), target.path().join("keys")).unwrap();
    let error = chain.extract(&Dir::open(target.path()).unwrap(), &Silent).unwrap_err();
    assert!(matches!(error, HistoryError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("creds.json"), "mine").unwrap();
    assert!(chain.extract(&Dir::open(target.path()).unwrap(), &Silent).is_err());
    assert_eq!(std::fs::read(target.path().join("creds.json")).unwrap(), b"mine");
}

/// The key of the only object of a commit.
fn object_of(memory: &Memory, at: Id) -> String {
    let keys = memory.keys(&format!("{}{at}", key().history_prefix()));
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys[0].clone()
}

async fn small_history(store: &dyn Store) -> Author {
    let mut author = Author::new();
    author.put("creds.json", b"{\"v\":1}").put("a", b"a").commit(store, Kind::Base).await;
    author.put("creds.json", b"{\"v\":2}").commit(store, Kind::Delta).await;
    author.put("creds.json", b"{\"v\":3}").commit(store, Kind::Delta).await;
    author
}

#[tokio::test]
async fn an_object_that_vanished_since_the_list_asks_for_another_list() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let survey = survey(&memory, &key(), Depth::Chain, None).await.unwrap();
    memory.erase(&object_of(&memory, id(1, 2)));
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(access(&memory), &key(), &survey, id(1, 3), scratch.path(), &Silent).await.unwrap_err();
    assert!(matches!(error, HistoryError::Gone { id: gone } if gone == id(1, 2)), "{error}");
}

#[tokio::test]
async fn an_object_of_another_size_than_listed_is_damage() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let mut survey = survey(&memory, &key(), Depth::Chain, None).await.unwrap();
    survey.commits.get_mut(&id(1, 2)).unwrap().objects[0].size += 1;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(access(&memory), &key(), &survey, id(1, 3), scratch.path(), &Silent).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("listed"), "{error}");
}

#[tokio::test]
async fn a_commit_under_the_name_of_another_is_damage() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let body = memory.erase(&object_of(&memory, id(1, 3))).unwrap();
    memory.plant(&object_of(&memory, id(1, 2)), body, time(0));
    let scratch = tempfile::tempdir().unwrap();
    let error = fetched(&memory, id(1, 2), scratch.path()).await.unwrap_err();
    assert!(matches!(error, HistoryError::Damaged { id: damaged, .. } if damaged == id(1, 2)), "{error}");
}

#[tokio::test]
async fn damaged_bytes_of_a_file_stop_the_extraction() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let name = object_of(&memory, id(1, 3));
    let mut body = memory.content(&name).unwrap().to_vec();
    let last = body.len() - 1;
    body[last] ^= 1;
    memory.plant(&name, body, time(0));
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 3), scratch.path()).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let error = chain.extract(&Dir::open(target.path()).unwrap(), &Silent).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(chain.verify().unwrap_err().is_damage());
}

#[tokio::test]
async fn an_encrypted_chain_is_refused_before_anything_is_fetched() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let name = object_of(&memory, id(1, 3));
    let body = memory.erase(&name).unwrap();
    memory.plant(&format!("{name}.age"), body, time(0));
    let scratch = tempfile::tempdir().unwrap();
    let error = fetched(&memory, id(1, 3), scratch.path()).await.unwrap_err();
    assert!(matches!(error, HistoryError::NoIdentity { .. }), "{error}");
    assert_eq!(memory.calls(Op::Get), 0);
}

#[tokio::test]
async fn an_outage_is_no_damage() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let store = Faulty::new(std::sync::Arc::clone(&memory), rules::every(Op::Get, TRANSIENT));
    let scratch = tempfile::tempdir().unwrap();
    let error = fetched(&store, id(1, 3), scratch.path()).await.unwrap_err();
    assert!(error.is_outage(), "{error}");
}

#[tokio::test]
async fn one_object_that_never_can_be_read_while_others_can_is_damage() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let bad = object_of(&memory, id(1, 2));
    let store = Faulty::new(std::sync::Arc::clone(&memory), move |call| {
        if call.op == Op::Get && call.key == bad { TRANSIENT } else { Fault::Pass }
    });
    let scratch = tempfile::tempdir().unwrap();
    let error = fetched(&store, id(1, 3), scratch.path()).await.unwrap_err();
    assert!(matches!(error, HistoryError::Damaged { id: damaged, .. } if damaged == id(1, 2)), "{error}");
}

#[tokio::test]
async fn one_object_that_fails_once_is_fetched_again() {
    let (memory, _) = memory();
    small_history(&memory).await;
    let store = Faulty::new(std::sync::Arc::clone(&memory), rules::first(1, Op::Get, TRANSIENT));
    let scratch = tempfile::tempdir().unwrap();
    fetched(&store, id(1, 3), scratch.path()).await.unwrap();
}

#[tokio::test]
async fn what_only_superseded_bytes_lack_does_not_stop_a_restore() {
    let (memory, _) = memory();
    small_history(&memory).await;
    // The second commit's only file is written again by the third: its bytes are not needed, its header is.
    let mut commit = Author::new();
    commit.put("creds.json", b"{\"v\":1}").put("a", b"a").freeze(Kind::Base);
    let frozen = commit.put("creds.json", b"{\"v\":2}").freeze(Kind::Delta);
    let name = object_of(&memory, id(1, 2));
    let mut body = frozen.objects[0].1.to_vec();
    assert_eq!(memory.content(&name).unwrap(), body);
    let last = body.len() - 1;
    body[last] ^= 1;
    memory.plant(&name, body, time(0));
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 3), scratch.path()).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    chain.extract(&Dir::open(target.path()).unwrap(), &Silent).unwrap();
    assert_eq!(std::fs::read(target.path().join("creds.json")).unwrap(), b"{\"v\":3}");
    assert!(chain.verify().is_err(), "a look at everything still finds it");
}

#[derive(Debug, Default)]
struct Heard {
    objects: AtomicU64,
    bytes: AtomicU64,
    received: AtomicI64,
    fetched: AtomicU64,
    extracted: AtomicU64,
}

impl Progress for Heard {
    fn planned(&self, objects: u64, bytes: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn received(&self, bytes: i64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
    fn fetched(&self) {
        self.fetched.fetch_add(1, Ordering::Relaxed);
    }
    fn extracted(&self) {
        self.extracted.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn progress_adds_up_to_what_was_planned() {
    let (memory, _) = memory();
    history(&memory).await;
    let heard = Heard::default();
    let scratch = tempfile::tempdir().unwrap();
    let survey = survey(&memory, &key(), Depth::Chain, None).await.unwrap();
    let chain = fetch(access(&memory), &key(), &survey, id(1, 3), scratch.path(), &heard).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    chain.extract(&Dir::open(target.path()).unwrap(), &heard).unwrap();
    let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(number(&heard.fetched), number(&heard.objects));
    assert_eq!(heard.received.load(Ordering::Relaxed).unsigned_abs(), number(&heard.bytes));
    assert_eq!(number(&heard.extracted), 3);
}

#[tokio::test]
async fn a_chain_of_many_deltas_is_replayed() {
    let (memory, _) = memory();
    let mut author = Author::new();
    author.put("creds.json", b"{}").commit(&memory, Kind::Base).await;
    for n in 0..200 {
        author.put(&format!("k{}.json", n % 20), n.to_string().as_bytes()).commit(&memory, Kind::Delta).await;
    }
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, author.head.unwrap(), scratch.path()).await.unwrap();
    let contents = chain.read(&author.table.files.keys().cloned().collect()).unwrap();
    assert_eq!(contents.len(), 21);
    assert_eq!(&contents["k19.json"].bytes().unwrap()[..], b"199");
}

/// Blocks that differ, some of them changed.
fn large(blocks: u32, changed: &[u32]) -> Vec<u8> {
    let block = |at: u32| (at + 1000 * u32::from(changed.contains(&at))).to_le_bytes().repeat(1024);
    (0..blocks).flat_map(block).collect()
}

/// A base, four patches that change, grow, shrink and change again, and files around them.
async fn patched_history(store: &dyn Store) -> Author {
    let mut author = Author::new();
    author
        .put("db", &large(20, &[]))
        .put("gone", &large(9, &[]))
        .put("a", b"a")
        .commit(store, Kind::Base)
        .await;
    author.patch("db", &large(20, &[3, 19])).patch("gone", &large(8, &[])).commit(store, Kind::Delta).await;
    let grown = [&large(25, &[3, 19, 24])[..], b"tail"].concat();
    author.patch("db", &grown).remove("gone").commit(store, Kind::Delta).await;
    author.patch("db", &grown[..50_000]).put("gone", b"back").commit(store, Kind::Delta).await;
    author.patch("db", &[&large(12, &[1])[..], b"x"].concat()).commit(store, Kind::Delta).await;
    author
}

fn extracted(chain: &Chain) -> Result<BTreeMap<String, Vec<u8>>, HistoryError> {
    let target = tempfile::tempdir().unwrap();
    chain.extract(&Dir::open(target.path()).unwrap(), &Silent)?;
    Ok(files_below(target.path()))
}

#[tokio::test]
async fn every_point_of_a_patched_file_is_restored_byte_for_byte() {
    let (memory, _) = memory();
    let author = patched_history(&memory).await;
    let scratch = tempfile::tempdir().unwrap();
    let grown = [&large(25, &[3, 19, 24])[..], b"tail"].concat();
    let last = [&large(12, &[1])[..], b"x"].concat();
    let versions = [large(20, &[]), large(20, &[3, 19]), grown.clone(), grown[..50_000].to_vec(), last];
    for (seq, version) in (1..).zip(versions) {
        let chain = fetched(&memory, id(1, seq), scratch.path()).await.unwrap();
        let files = extracted(&chain).unwrap();
        assert!(files["db"] == version, "at {seq}");
        assert_eq!(files["a"], b"a");
        assert_eq!(
            files.get("gone").map(Vec::len),
            [9 * 4096, 8 * 4096, 0, 4, 4].map(Some)[seq as usize - 1].filter(|len| *len > 0)
        );
        let read = chain.read(&BTreeSet::from(["db".to_owned()])).unwrap();
        assert!(read["db"].bytes().unwrap() == version);
        chain.verify().unwrap();
        assert_eq!(
            std::fs::read_dir(chain.scratch.path()).unwrap().count(),
            chain.links.len(),
            "nothing stays"
        );
    }
    assert_eq!(author.head, Some(id(1, 5)));
}

#[tokio::test]
async fn a_restored_patch_has_the_mode_and_time_of_the_patch() {
    let (memory, _) = memory();
    let mut author = Author::new();
    author.put("db", &large(20, &[])).commit(&memory, Kind::Base).await;
    let mut delta = author.patch("db", &large(20, &[7])).next(Kind::Delta, None);
    delta.patch[0].entry.meta.mode = 0o600;
    delta.patch[0].entry.meta.mtime_ns = 1_600_000_000_000_000_007;
    author.table.files.insert("db".into(), delta.patch[0].entry.meta);
    delta.tree = author.table.summary();
    let frozen = crate::history::freeze(delta, &author.contents, None, &Keys::off()).unwrap();
    crate::history::upload::upload(&memory, &key(), &frozen, "application/zstd").await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let chain = fetched(&memory, id(1, 2), scratch.path()).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    chain.extract(&Dir::open(target.path()).unwrap(), &Silent).unwrap();
    let stat = std::fs::metadata(target.path().join("db")).unwrap();
    assert_eq!(stat.permissions().mode() & 0o7777, 0o600);
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_600_000_000, 7));
}

/// `patched_history`, its second commit with other bytes in the blocks, in a frame that is whole.
fn forge(memory: &Memory, at: Id) {
    let name = object_of(memory, at);
    let tar = zstd::decode_all(&memory.content(&name).unwrap()[..]).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let blocks = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path_bytes().starts_with(b"blocks/db"));
    let place = usize::try_from(blocks.unwrap().raw_file_position()).unwrap();
    let mut forged = tar.clone();
    forged[place + 100] ^= 1;
    memory.erase(&name);
    memory.plant(&name, zstd::encode_all(&forged[..], 3).unwrap(), time(0));
}

async fn newest_intact(memory: &Memory, scratch: &Path) -> Option<Id> {
    let (key, head) = (key(), id(1, 5));
    let survey = survey(memory, &key, Depth::All, None).await.unwrap();
    crate::history::intact::newest_intact(access(memory), &key, &survey, head, scratch, &Silent)
        .await
        .unwrap()
}

#[tokio::test]
async fn blocks_that_do_not_lead_to_the_announced_file_are_damage() {
    let (memory, _) = memory();
    patched_history(&memory).await;
    forge(&memory, id(1, 2));
    let scratch = tempfile::tempdir().unwrap();
    // The last version has none of the wrong block any more.
    for at in [2, 4] {
        let chain = fetched(&memory, id(1, at), scratch.path()).await.unwrap();
        let error = extracted(&chain).map(drop).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("does not lead to"), "{error}");
        assert!(chain.read(&BTreeSet::from(["db".to_owned()])).unwrap_err().is_damage());
        let error = chain.verify().unwrap_err();
        assert!(
            error.to_string().contains(&id(1, 2).to_string()),
            "the patch that is wrong is named: {error}"
        );
    }
    assert_eq!(newest_intact(&memory, scratch.path()).await, Some(id(1, 1)));
}

#[tokio::test]
async fn a_patched_chain_is_intact_at_its_head() {
    let (memory, _) = memory();
    patched_history(&memory).await;
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(newest_intact(&memory, scratch.path()).await, Some(id(1, 5)));
}

/// Edits of a file: what is written where, and how long it is then.
fn edits() -> impl proptest::strategy::Strategy<Value = Vec<(usize, Vec<u8>, usize)>> {
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..300);
    proptest::collection::vec((0..60_000_usize, bytes, 0..60_000_usize), 1..6)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_edits_growth_and_shrinking_come_back_through_patches(edits in edits(), spooled: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (memory, _) = memory();
            let mut author = Author::new();
            let mut bytes = large(10, &[]);
            author.put("db", &bytes).commit(&memory, Kind::Base).await;
            for (at, written, size) in edits {
                let end = bytes.len().max(at + written.len());
                bytes.resize(end, 7);
                bytes[at..at + written.len()].copy_from_slice(&written);
                bytes.resize(size, 7);
                author.patch("db", &bytes);
                if spooled {
                    let mut file = tempfile::tempfile().unwrap();
                    std::io::Write::write_all(&mut file, &bytes).unwrap();
                    let content = Content::Spooled { file: Arc::new(file), size: bytes.len() as u64 };
                    author.contents.insert("db".into(), content);
                }
                author.commit(&memory, Kind::Delta).await;
            }
            let scratch = tempfile::tempdir().unwrap();
            let chain = fetched(&memory, author.head.unwrap(), scratch.path()).await.unwrap();
            assert!(extracted(&chain).unwrap()["db"] == bytes);
            chain.verify().unwrap();
        });
    }
}
