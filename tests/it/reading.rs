//! Reading real trees as the engine does: scan, stable reads, group and guards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use session_sidecar::tree::baileys::{Look, Member, Tracker, Verdict};
use session_sidecar::tree::filter::Filter;
use session_sidecar::tree::identity::{Creds, IdentityVerdict, Loss, identity_guard};
use session_sidecar::tree::read::{Batch, HashCache, Job, read_all};
use session_sidecar::tree::scan::{self, Scan};
use session_sidecar::tree::{Dir, Preset, Reason, Table};
use tempfile::TempDir;
use tokio::time::{Duration, Instant};

use crate::fixtures::{LARGE, SMALL, unpack};

struct Tree {
    dir: TempDir,
    cache: HashCache,
    head: Table,
}

impl Tree {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        unpack(name, dir.path());
        Self { dir, cache: HashCache::default(), head: Table::default() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Looks at the whole tree, or at some paths, a long time after everything in it was written.
    fn look(&mut self, dirty: &[&str]) -> (Scan, Batch) {
        let dirty: BTreeSet<String> = dirty.iter().map(|path| (*path).to_owned()).collect();
        let top = Dir::open(self.dir.path()).unwrap();
        let filter = Filter::new(None, &[], &[]).unwrap().for_dir(&top).unwrap();
        assert_eq!(filter.preset(), Some(Preset::Baileys));
        let scan = if dirty.is_empty() {
            scan::scan(&top, &filter).unwrap()
        } else {
            scan::scan_some(&top, &filter, &dirty).unwrap()
        };
        let now = Timestamp::from_second(Timestamp::now().as_second() + 60).unwrap();
        let job = Job { dirty: &dirty, now, spool: Path::new("/nonexistent"), check: false };
        let head = &self.head.files;
        let batch = read_all(&top, &scan, job, &mut self.cache, |path, meta| {
            head.get(path).is_none_or(|old| old.sha256 != meta.sha256)
        })
        .unwrap();
        (scan, batch)
    }

    /// Makes what was found the head.
    fn commit(&mut self) {
        let (_, batch) = self.look(&[]);
        self.head.files = batch.metas;
    }

    fn creds(&self) -> BTreeMap<String, Creds> {
        let creds = fs::read(self.path("creds.json")).ok();
        [(String::new(), Creds::parse(creds.as_deref()))].into()
    }
}

#[test]
fn a_real_tree_is_read_whole_and_only_once() {
    for (name, files, bytes) in [(SMALL, 1257, 405_719), (LARGE, 5461, 3_151_624)] {
        let mut tree = Tree::of(name);
        let (scan, batch) = tree.look(&[]);
        assert!(scan.held.is_empty() && batch.held.is_empty() && scan.empty_dirs.is_empty());
        assert_eq!((batch.metas.len(), batch.contents.len()), (files, files));
        let read: u64 = batch.contents.values().map(session_sidecar::tree::Content::size).sum();
        assert_eq!(read, bytes);
        tree.head.files = batch.metas;
        let (scan, batch) = tree.look(&[]);
        assert_eq!(batch.metas, tree.head.files);
        assert!(batch.contents.is_empty());
        assert_eq!(scan.gone(&tree.head).count(), 0);
    }
}

#[test]
fn a_message_dirties_the_files_it_wrote_and_no_other() {
    let mut tree = Tree::of(SMALL);
    tree.commit();
    let pre_key = tree.head.files.keys().find(|path| path.starts_with("pre-key-")).unwrap().clone();
    fs::remove_file(tree.path(&pre_key)).unwrap();
    fs::write(tree.path("session-1_1.0.json"), r#"{"_sessions":{}}"#).unwrap();
    fs::write(tree.path("identity-key-1_1.0.json"), "").unwrap();
    let (scan, batch) = tree.look(&[&pre_key, "session-1_1.0.json", "identity-key-1_1.0.json"]);
    assert_eq!(batch.contents.keys().collect::<Vec<_>>(), ["session-1_1.0.json"]);
    assert_eq!(scan.gone(&tree.head).collect::<Vec<_>>(), [pre_key.as_str()]);
    assert_eq!(batch.held.get("identity-key-1_1.0.json"), Some(&Reason::BadJson));
}

#[test]
fn a_truncated_creds_json_is_held_and_so_is_the_session() {
    let mut tree = Tree::of(SMALL);
    tree.commit();
    let head = tree.creds();
    assert!(head[""].identity.is_paired() && head[""].phone.is_some());
    let whole = fs::read(tree.path("creds.json")).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(tree.path("creds.json"), &whole[..length]).unwrap();
        let (_, batch) = tree.look(&["creds.json"]);
        assert_eq!(batch.held.get("creds.json"), Some(&Reason::BadJson));
        let judged = identity_guard(&head, &tree.creds());
        assert_eq!(judged.verdict, IdentityVerdict::Hold { why: Loss::Unreadable });
    }
    fs::write(tree.path("creds.json"), &whole).unwrap();
    let (_, batch) = tree.look(&["creds.json"]);
    assert_eq!(batch.metas["creds.json"].sha256, tree.head.files["creds.json"].sha256);
    assert_eq!(identity_guard(&head, &tree.creds()).verdict, IdentityVerdict::Same);
}

#[test]
fn a_real_tree_is_adopted_at_once_although_pre_keys_were_used_before() {
    let tree = Tree::of(SMALL);
    let creds = tree.creds();
    let names = Dir::open(tree.dir.path()).unwrap().names().unwrap();
    let on_disk: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| match Member::parse(name.to_str()?)? {
            Member::PreKey(id) => Some(id),
            Member::Creds => None,
        })
        .collect();
    assert!(on_disk.len() as u64 + 1 < creds[""].next_pre_key_id.unwrap(), "some were used");
    let now = Instant::now();
    let decision = Tracker::default().decide(
        now + Duration::from_millis(20),
        &Look {
            head: &Creds::ABSENT,
            disk: &creds[""],
            on_disk: &on_disk,
            held: &BTreeSet::new(),
            written: true,
            began: now,
            quiet_window: Duration::from_millis(500),
            last_flush: false,
        },
    );
    assert_eq!(decision.verdict, Verdict::Take);
}
