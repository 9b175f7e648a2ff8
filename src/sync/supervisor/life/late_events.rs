//! Events that come while a turn is at work: what it took of them and could not store is not forgotten.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use async_trait::async_trait;

use super::*;
use crate::history::{Access, Depth, Keys, fetch, survey};
use crate::host::Real;
use crate::session::Layout;
use crate::store::{Call, Fault, Faulty, Kind, Memory, Op};
use crate::sync::rootdir::RootDir;
use crate::sync::start::Command;
use crate::sync::supervisor::testing::{self, Running, key};

/// At its second pass within a turn, which comes after the look, another file is written.
struct Late {
    passes: AtomicUsize,
    armed: AtomicBool,
    file: PathBuf,
    tell: Mutex<Box<dyn Fn() + Send>>,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

#[async_trait]
impl Fencing for Late {
    async fn pass(&self) -> bool {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        if pass == 1 && self.armed.swap(false, Ordering::Relaxed) {
            std::fs::write(&self.file, "{}").unwrap();
            self.tell.lock().unwrap()();
        }
        true
    }

    fn polling(&self) -> bool {
        false
    }

    fn missed(&self, what: &str) {
        panic!("{what}");
    }
}

async fn head(memory: &Memory) -> Vec<String> {
    let keys = Keys::off();
    let list = survey(memory, &key(), Depth::All, None).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let chain =
        fetch(Access::new(memory, &keys), &key(), &list, list.head().unwrap(), scratch.path(), &Silent).await;
    chain.unwrap().table().files.keys().cloned().collect()
}

/// The head a minute after one file was removed, and another was written during the look at that: long before anything looks
/// at all of the tree again.
async fn after_a_late_write(fails: bool, tell: fn(&Inbox)) -> Vec<String> {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.json", "b.json", "c.json"] {
        std::fs::write(dir.path().join(name), "{}").unwrap();
    }
    let failing = Arc::new(AtomicBool::new(false));
    let fail = Arc::clone(&failing);
    let store = Faulty::new(Arc::clone(&memory), move |call: &Call<'_>| {
        let strikes = call.op == Op::Put && fail.swap(false, Ordering::Relaxed);
        if strikes { Fault::Before(Kind::Transient) } else { Fault::Pass }
    });
    let root = RootDir::open(dir.path(), Arc::new(Real)).unwrap();
    let place = root.place(None).unwrap();
    let env = testing::env(
        Arc::new(store),
        Keys::off(),
        Arc::new(Real),
        root,
        Layout::Single(key()),
        place,
        testing::policy(Command::Run),
    );
    let inbox = Arc::new(OnceLock::<Arc<Inbox>>::new());
    let told = Arc::clone(&inbox);
    let late = Arc::new(Late {
        passes: AtomicUsize::new(0),
        armed: AtomicBool::new(false),
        file: dir.path().join("late.json"),
        tell: Mutex::new(Box::new(move || tell(told.get().unwrap()))),
    });
    let running = Running::begin_with(env, false, Arc::clone(&late) as _);
    inbox.set(Arc::clone(&running.inbox)).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(head(&memory).await, ["a.json", "b.json", "c.json"]);

    std::fs::remove_file(dir.path().join("a.json")).unwrap();
    late.passes.store(0, Ordering::Relaxed);
    late.armed.store(true, Ordering::Relaxed);
    failing.store(fails, Ordering::Relaxed);
    running.inbox.touch("a.json");
    sleep(Duration::from_mins(1)).await;
    assert!(!late.armed.load(Ordering::Relaxed) && !failing.load(Ordering::Relaxed));
    running.task.abort();
    head(&memory).await
}

#[tokio::test(start_paused = true)]
async fn what_was_written_during_a_look_is_marked_again_when_its_commit_fails() {
    let head = after_a_late_write(true, |inbox| inbox.touch("late.json")).await;
    assert_eq!(head, ["b.json", "c.json", "late.json"]);
}

#[tokio::test(start_paused = true)]
async fn events_that_are_lost_during_a_look_mean_a_look_at_everything() {
    let head = after_a_late_write(false, Inbox::rescan).await;
    assert_eq!(head, ["b.json", "c.json", "late.json"]);
}
