use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;
use crate::error::Code;
use crate::history::Mark;
use crate::supabase::AT_ONCE;
use crate::sync::report::{BotFacts, BotStatus, HeldFile, IdentityStatus};
use crate::tree::Hash;

/// The table in memory, with what happens to the next calls.
#[derive(Debug, Default)]
struct Memory {
    /// The calls that got through, with their moment.
    calls: Mutex<Vec<(Duration, Vec<Row>)>>,
    rows: Mutex<BTreeMap<String, Value>>,
    fault: Mutex<Option<Code>>,
    tries: Mutex<u32>,
    delay: Mutex<Duration>,
}

#[async_trait]
impl Notes for Memory {
    async fn note(&self, rows: &[Row]) -> Result<Vec<(SessionKey, String)>, Error> {
        *self.tries.lock().unwrap() += 1;
        let delay = *self.delay.lock().unwrap();
        sleep(delay).await;
        if let Some(code) = *self.fault.lock().unwrap() {
            return Err(Error::new(code, "a fault"));
        }
        assert!(rows.len() <= AT_ONCE);
        for row in rows {
            let value = serde_json::to_value(row).unwrap();
            let mut table = self.rows.lock().unwrap();
            let kept = table.entry(format!("{}/{}", row.user, row.session)).or_insert_with(|| json!({}));
            let merge = |to: &mut Value, from: &Value| {
                for (name, value) in from.as_object().unwrap() {
                    to[name] = value.clone();
                }
            };
            merge(kept, &value["sidecar"]);
            for name in ["active", "status"] {
                if let Some(value) = value.get(name) {
                    kept[name] = value.clone();
                }
            }
        }
        self.calls.lock().unwrap().push((began().elapsed(), rows.to_vec()));
        Ok(Vec::new())
    }

    async fn inactive(&self) -> Result<BTreeSet<SessionKey>, Error> {
        Ok(BTreeSet::new())
    }

    async fn rows(&self, _: &str) -> Result<Vec<Value>, Error> {
        Ok(self.rows.lock().unwrap().values().cloned().collect())
    }
}

impl Memory {
    fn calls(&self) -> Vec<(u64, usize)> {
        self.calls.lock().unwrap().iter().map(|(at, rows)| (at.as_secs(), rows.len())).collect()
    }

    fn row(&self, key: &str) -> Value {
        self.rows.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    fn fail(&self, code: Option<Code>) {
        *self.fault.lock().unwrap() = code;
    }
}

thread_local! {
    static BEGAN: Instant = Instant::now();
}

/// The paused runtime of a test has one thread.
fn began() -> Instant {
    BEGAN.with(|at| *at)
}

fn start() -> (Arc<Memory>, Noter) {
    began();
    let memory = Arc::new(Memory::default());
    (Arc::clone(&memory), Noter::start(memory))
}

fn key(number: usize) -> SessionKey {
    format!("u/s{number:04}").parse().unwrap()
}

fn status(state: SessionState, seq: u32) -> SessionStatus {
    SessionStatus {
        state,
        head: Some(format!("00000001-{seq:08}-00000000")),
        files: u64::from(seq),
        bytes: 10,
        ..SessionStatus::blank(&key(0))
    }
}

fn commit(seq: u32, files: u64, first: bool) -> Noted {
    let tree = Summary { files, bytes: files * 10, sha256: Hash::of(b"") };
    Noted { head: Id { epoch: 1, seq, nonce: 0 }, tree, at: Timestamp::UNIX_EPOCH, first }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_gathered_and_the_newest_facts_win() {
    let (table, noter) = start();
    // A session that changes five times a second for a quarter of a minute.
    for seq in 1..=75 {
        noter.stands(&key(0), &status(SessionState::Ready, seq));
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(table.calls(), [(1, 1), (6, 1), (11, 1)]);
    seconds(10).await;
    assert_eq!(table.calls().len(), 4);
    assert_eq!(table.row("u/s0000")["files"], 75);
    // What is said already is not said again.
    noter.stands(&key(0), &status(SessionState::Ready, 75));
    seconds(60).await;
    assert_eq!(table.calls().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sessions_are_two_calls() {
    let (table, noter) = start();
    for number in 0..1000 {
        noter.committed(&key(number), commit(1, 1, true));
    }
    seconds(2).await;
    assert_eq!(table.calls(), [(1, 500), (1, 500)]);
    assert_eq!(table.rows.lock().unwrap().len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_nothing_waits_and_the_rows_are_right_later() {
    let (table, noter) = start();
    table.fail(Some(Code::Unreachable));
    for seq in 1..=100 {
        noter.committed(&key(0), commit(seq, 5, seq == 1));
        seconds(1).await;
    }
    let tries = *table.tries.lock().unwrap();
    // Pauses are drawn by lot, so that processes do not come back at once.
    assert!((3..50).contains(&tries), "{tries}");
    table.fail(None);
    seconds(60).await;
    let row = table.row("u/s0000");
    assert_eq!(row["head"], "00000001-00000100-00000000");
    assert_eq!(row["active"], true, "that it began is not forgotten");
    assert_eq!(table.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_a_call_is_sent_after_it() {
    let (table, noter) = start();
    *table.delay.lock().unwrap() = Duration::from_secs(2);
    noter.committed(&key(0), commit(1, 5, true));
    seconds(2).await;
    noter.committed(&key(0), commit(2, 6, false));
    seconds(20).await;
    let calls = table.calls.lock().unwrap();
    let sent: Vec<_> = calls.iter().map(|(_, rows)| (rows[0].sidecar.files, rows[0].active)).collect();
    assert_eq!(sent, [(Some(5), Some(true)), (Some(6), None)]);
}

#[tokio::test(start_paused = true)]
async fn a_project_without_the_table_is_asked_seldom() {
    let (table, noter) = start();
    table.fail(Some(Code::SchemaMissing));
    for seq in 1..=1100 {
        noter.committed(&key(0), commit(seq, 5, false));
        seconds(1).await;
    }
    assert_eq!(*table.tries.lock().unwrap(), 2);
    // The end does not wait for it either.
    let at = Instant::now();
    noter.finish(at + Duration::from_mins(1)).await;
    assert_eq!((at.elapsed(), *table.tries.lock().unwrap()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_sends_what_is_left_and_waits_only_so_long() {
    // What was told last and the end come at once: which is seen first is chance.
    for _ in 0..32 {
        let (table, noter) = start();
        seconds(1).await;
        noter.committed(&key(0), commit(1, 5, true));
        noter.finish(Instant::now() + Duration::from_secs(3)).await;
        assert_eq!(table.calls().len(), 1);
    }

    let (table, noter) = start();
    table.fail(Some(Code::Unreachable));
    noter.committed(&key(0), commit(1, 5, true));
    let at = Instant::now();
    noter.finish(at + Duration::from_secs(3)).await;
    assert_eq!(at.elapsed(), Duration::from_secs(3));
    assert!(*table.tries.lock().unwrap() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_active_from_its_first_tree_to_its_end() {
    let (table, noter) = start();
    let row = |noted: Noted| {
        noter.committed(&key(0), noted);
        let table = Arc::clone(&table);
        async move {
            seconds(6).await;
            table.calls.lock().unwrap().last().map(|(_, rows)| rows[0].clone()).unwrap()
        }
    };
    let empty = row(commit(1, 0, true)).await;
    assert_eq!((empty.active, empty.status, empty.create), (None, None, false));
    let began = row(commit(2, 5, true)).await;
    assert_eq!((began.active, began.status, began.create), (Some(true), None, true));
    let more = row(commit(3, 6, false)).await;
    assert_eq!((more.active, more.status, more.create), (None, None, true));
    noter.marked(&key(0), Mark::Logout);
    let ended = row(commit(4, 0, false)).await;
    assert_eq!((ended.active, ended.status, ended.create), (Some(false), Some(BotStatus::LoggedOut), false));
}

#[tokio::test(start_paused = true)]
async fn of_a_session_that_was_taken_nothing_old_is_sent() {
    let (table, noter) = start();
    noter.stands(&key(0), &status(SessionState::Ready, 1));
    noter.stands(&key(0), &status(SessionState::Taken, 1));
    noter.stands(&key(1), &status(SessionState::NotOwned, 1));
    seconds(10).await;
    assert_eq!(table.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_bot_says_is_noted_until_the_session_ends_or_is_anothers() {
    let (table, noter) = start();
    let says = |status, desired| BotFacts { status: Some(status), desired, ..BotFacts::default() };
    noter
        .bot_says(&key(0), BotFacts { name: Some("Shop".into()), ..says(BotStatus::Connecting, Some(true)) });
    noter.bot_says(&key(0), BotFacts { phone: Some("5511".into()), ..says(BotStatus::Connected, None) });
    let last = async || {
        seconds(6).await;
        table.calls.lock().unwrap().last().map(|(_, rows)| rows[0].clone()).unwrap()
    };
    let row = last().await;
    assert!(row.create && row.active.is_none() && row.name.as_deref() == Some("Shop"));
    assert_eq!((row.status, row.sidecar.desired), (Some(BotStatus::Connected), Some(true)));
    assert_eq!(row.sidecar.phone.as_deref(), Some("5511"));
    assert!(
        !format!("{:?}", BotFacts { phone: Some("5511".into()), ..BotFacts::default() }).contains("5511")
    );

    noter.marked(&key(0), Mark::Logout);
    let row = last().await;
    assert_eq!((row.status, row.sidecar.desired, row.create), (Some(BotStatus::LoggedOut), None, false));

    let calls = table.calls().len();
    noter.bot_says(&key(0), says(BotStatus::Disconnected, Some(false)));
    noter.stands(&key(0), &status(SessionState::Queued, 1));
    seconds(10).await;
    assert_eq!(table.calls().len(), calls, "the row is its owner's");
}

#[test]
fn a_row_carries_what_is_known_and_no_more() {
    let mut status = status(SessionState::Held, 7);
    let file = |path: &str| HeldFile {
        path: path.to_owned(),
        reason: "empty".to_owned(),
        since: Timestamp::UNIX_EPOCH,
    };
    status.held = vec![file("creds.json"), file("b.json")];
    let identity =
        IdentityStatus { format: "baileys".to_owned(), paired: true, account: Some("5511".into()) };
    status.identity = Some(identity);
    let facts = Facts::of(&status).unwrap();
    assert!(!format!("{facts:?}").contains("5511"), "a phone in a log");
    assert_eq!(
        serde_json::to_value(Row::new(&key(1), facts, BotFacts::default(), None)).unwrap(),
        json!({
            "user": "u", "session": "s0001", "create": true,
            "sidecar": {
                "head": "00000001-00000007-00000000", "files": 7, "bytes": 10, "held": 2, "phone": "5511", "state": "held"
            },
        })
    );
    let blank = Row::new(&key(1), Facts::default(), BotFacts::default(), Some(Turn::Ended));
    assert_eq!(
        serde_json::to_value(blank).unwrap(),
        json!({"user": "u", "session": "s0001", "create": false, "sidecar": {}, "active": false, "status": "logged_out"})
    );
}
