//! A session that is new in two pods at once: who loses it lets go, and leaves the tree to the bot that is at work on it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::history::Keys;
use crate::host::Real;
use crate::session::Layout;
use crate::store::{Call, Fault, Faulty, Memory, Op, SharedStore};
use crate::sync::lease::{Ask, Grant, How, Leases, Lessor, Outcome, Refused, Renewed};
use crate::sync::rootdir::RootDir;
use crate::sync::start::Command;
use crate::sync::supervisor::testing::{self, Running, Seen, key};

const TTL: Duration = Duration::from_secs(30);

/// A root of many in which a bot has begun a session.
fn pod(store: SharedStore, uid: &str, text: &str) -> (tempfile::TempDir, Arc<Env>) {
    let dir = tempfile::tempdir().unwrap();
    let session = Layout::Many.dir(dir.path(), &key());
    std::fs::create_dir_all(&session).unwrap();
    std::fs::write(session.join("note.json"), text).unwrap();
    let env = env(store, &dir, uid);
    (dir, env)
}

fn env(store: SharedStore, dir: &tempfile::TempDir, uid: &str) -> Arc<Env> {
    let root = RootDir::open(dir.path(), Arc::new(Real)).unwrap();
    let place = root.place(Some(uid.to_owned())).unwrap();
    testing::env(store, Keys::off(), Arc::new(Real), root, Layout::Many, place, testing::policy(Command::Run))
}

fn note(dir: &tempfile::TempDir) -> String {
    std::fs::read_to_string(Layout::Many.dir(dir.path(), &key()).join("note.json")).unwrap()
}

async fn ended(running: Running) -> (Result<Ended, Error>, SessionStatus) {
    let ended = timeout(TTL * 4, running.task).await.expect("it lets go").unwrap();
    (ended, running.status.borrow().clone())
}

#[tokio::test(start_paused = true)]
async fn who_stood_still_before_its_first_commit_lets_go_of_what_another_won() {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    // It stands still between its claim and the list that decides.
    let claimed = Arc::new(Mutex::new(false));
    let stalls = move |call: &Call<'_>| {
        let mut claimed = claimed.lock().unwrap();
        let stall = call.op == Op::List && *claimed;
        *claimed = call.op == Op::Rename;
        if stall { Fault::Delay(Duration::from_mins(2)) } else { Fault::Pass }
    };
    let (late, stalled) = pod(Arc::new(Faulty::new(Arc::clone(&memory), stalls)), "late", r#""late""#);
    let stalled = Running::begin_with(stalled, true, Arc::new(Seen));
    sleep(Duration::from_secs(1)).await;
    let (_dir, winner) = pod(Arc::clone(&memory) as _, "winner", r#""winner""#);
    let winner = Running::begin_with(winner, true, Arc::new(Seen));
    sleep(Duration::from_secs(30)).await;
    assert!(winner.status.borrow().ready && !stalled.status.borrow().ready);

    let (error, status) = ended(stalled).await;
    assert_eq!(error.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(status.state, SessionState::Taken);
    assert_eq!(note(&late), r#""late""#);
    assert!(!winner.task.is_finished(), "its session was not claimed a second time");
    assert!(!memory.keys("").iter().any(|key| key.contains("/00000003")), "{:?}", memory.keys(""));

    // Its container starts again beside the bot: the tree is still the bot's.
    let again = Running::begin(env(Arc::clone(&memory) as _, &late, "late"));
    let (error, _) = ended(again).await;
    assert_eq!(error.unwrap_err().code(), Code::Held);
    assert_eq!(note(&late), r#""late""#);
    assert!(!winner.task.is_finished());
    winner.task.abort();
}

/// Another process holds the session and renews its lease.
#[derive(Debug)]
struct Anothers;

#[async_trait]
impl Lessor for Anothers {
    async fn acquire(&self, asks: &[Ask], _: How) -> Result<Vec<Outcome>, Error> {
        let refused = Refused { holder: Some("another".into()), expires_in: Some(TTL / 2) };
        Ok(asks.iter().map(|_| Outcome::Refused(refused.clone())).collect())
    }

    async fn renew(&self, _: &[Grant], _: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        Ok(BTreeMap::new())
    }

    async fn release(&self, _: &[Grant]) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_not_waited_for_beside_a_bot() {
    let memory = Arc::new(Memory::new(Arc::new(Real)));
    let (dir, env) = pod(memory, "late", r#""late""#);
    let mut env = Arc::into_inner(env).unwrap();
    env.leases = Leases::new(Arc::new(Anothers), TTL, false);
    let began = Instant::now();
    let (error, status) = ended(Running::begin_with(Arc::new(env), true, Arc::new(Seen))).await;
    assert_eq!(error.unwrap_err().code(), Code::LeaseHeld);
    assert_eq!(status.state, SessionState::Taken);
    // As long as it may be the lease of a process that died.
    let waited = began.elapsed();
    assert!(waited >= TTL && waited < TTL + Duration::from_secs(10), "{waited:?}");
    assert_eq!(note(&dir), r#""late""#);
}
