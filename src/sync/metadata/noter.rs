//! Gathers what changed, and sends it now and then: one task a process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Facts, Noted, Notes, Row, Turn};
use crate::error::{Code, Error};
use crate::history::Mark;
use crate::session::SessionKey;
use crate::supabase::AT_ONCE;
use crate::sync::backoff::Backoff;
use crate::sync::report::{BotFacts, SessionState, SessionStatus};
use crate::telemetry::Masked;

/// From the first change to the call: more may follow at once.
const GATHER: Duration = Duration::from_secs(1);
/// Between two calls.
const EVERY: Duration = Duration::from_secs(5);
/// Between two tries where the project has no table, no functions or no right for us.
const SLOW: Duration = Duration::from_mins(10);
/// Between two tries at the end.
const LAST_TRY: Duration = Duration::from_millis(500);

/// Keeps the rows up to date. Nothing that is told to it blocks.
pub struct Noter {
    desk: Arc<Desk>,
    notes: Arc<dyn Notes>,
    ending: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Noter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Noter({:?})", self.notes)
    }
}

impl Noter {
    /// Begins with nothing to say.
    #[must_use]
    pub fn start(notes: Arc<dyn Notes>) -> Self {
        let (desk, ending) = (Arc::<Desk>::default(), CancellationToken::new());
        let worker = Worker {
            desk: Arc::clone(&desk),
            notes: Arc::clone(&notes),
            ending: ending.clone(),
            refused: BTreeMap::new(),
        };
        Self { desk, notes, ending, task: Mutex::new(Some(tokio::spawn(worker.run()))) }
    }

    /// Another one for the same rows: after [`finish`](Self::finish) nothing more is noted.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::start(Arc::clone(&self.notes))
    }

    /// Where the rows lie.
    #[must_use]
    pub fn notes(&self) -> &dyn Notes {
        &*self.notes
    }

    /// A commit was acknowledged.
    pub fn committed(&self, key: &SessionKey, noted: Noted) {
        self.desk.change_sheet(key, |sheet| {
            let facts = &mut sheet.facts;
            facts.head = Some(noted.head.to_string());
            (facts.files, facts.bytes) = (Some(noted.tree.files), Some(noted.tree.bytes));
            facts.last_sync_at = Some(noted.at);
            if noted.first && noted.tree.files > 0 {
                sheet.turn = Some(Turn::Began);
                sheet.over = false;
            }
        });
    }

    /// A session stands so.
    pub fn stands(&self, key: &SessionKey, status: &SessionStatus) {
        // Not ours any more: what was not sent yet is older than what its owner sends. // P5
        let new = Facts::of(status);
        self.desk.change_sheet(key, |sheet| {
            if matches!(status.state, SessionState::Taken | SessionState::Queued) {
                sheet.bot = BotFacts::default();
            }
            sheet.facts = new.unwrap_or_default();
        });
    }

    /// Its bot says so; what it leaves out stays as it was said before.
    pub fn bot_says(&self, key: &SessionKey, says: BotFacts) {
        self.desk.change_sheet(key, |sheet| {
            let BotFacts { status, desired, phone, name, is_default } = says;
            sheet.over &= desired != Some(true);
            let bot = &mut sheet.bot;
            bot.status = status.or(bot.status);
            bot.desired = desired.or(bot.desired);
            bot.phone = phone.or(bot.phone.take());
            bot.name = name.or(bot.name.take());
            bot.is_default = is_default.or(bot.is_default);
        });
    }

    /// A person ended it, or brought it back.
    pub fn marked(&self, key: &SessionKey, mark: Mark) {
        let new = match mark {
            Mark::Logout | Mark::Delete => Turn::Ended,
            Mark::Rewind => Turn::Began,
        };
        self.desk.change_sheet(key, |sheet| {
            sheet.turn = Some(new);
            sheet.over = new == Turn::Ended;
            // What the bot said was said of the life that is over.
            sheet.bot = BotFacts::default();
        });
    }

    /// The sessions of a user that ended here, and whether their rows are still to be told.
    #[must_use]
    pub fn ended(&self, user: &str) -> BTreeMap<SessionKey, bool> {
        let sheets = self.desk.lock();
        let ended = sheets.iter().filter(|(key, sheet)| key.user() == user && sheet.over);
        ended.map(|(key, sheet)| (key.clone(), sheet.turn.is_some())).collect()
    }

    /// Sends what is left until the deadline. The next start says again what was not sent.
    pub async fn finish(&self, deadline: Instant) {
        self.ending.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
            warn!("the table of sessions is behind; the next start brings it up to date");
        }
    }
}

impl Drop for Noter {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

/// What is known of a session, and whether it was said.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sheet {
    facts: Facts,
    bot: BotFacts,
    turn: Option<Turn>,
    /// A person ended it, and nobody began it again since.
    over: bool,
    due: bool,
}

/// The newest of every session.
#[derive(Debug, Default)]
struct Desk {
    sheets: Mutex<BTreeMap<SessionKey, Sheet>>,
    changed: Notify,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Sheet>> {
        self.sheets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_sheet(&self, key: &SessionKey, change: impl FnOnce(&mut Sheet)) {
        let mut sheets = self.lock();
        let sheet = sheets.entry(key.clone()).or_default();
        let before = sheet.clone();
        change(sheet);
        if *sheet != before {
            sheet.due =
                sheet.turn.is_some() || sheet.facts != Facts::default() || sheet.bot != BotFacts::default();
            self.changed.notify_one();
        }
    }

    /// What is to be sent next, oldest names first.
    fn due(&self) -> Vec<(SessionKey, Sheet)> {
        let sheets = self.lock();
        let due = sheets.iter().filter(|(_, sheet)| sheet.due).take(AT_ONCE);
        due.map(|(key, sheet)| (key.clone(), sheet.clone())).collect()
    }

    /// It was sent; what changed meanwhile stays.
    fn sent(&self, batch: &[(SessionKey, Sheet)]) {
        let mut sheets = self.lock();
        for (key, sent) in batch {
            let Some(sheet) = sheets.get_mut(key) else { continue };
            sheet.due = sheet != sent;
            if sheet.turn == sent.turn {
                sheet.turn = None;
            }
        }
    }
}

struct Worker {
    desk: Arc<Desk>,
    notes: Arc<dyn Notes>,
    ending: CancellationToken,
    /// Rows that the database refuses, and why: each is said once.
    refused: BTreeMap<SessionKey, String>,
}

impl Worker {
    async fn run(mut self) {
        let ending = self.ending.clone();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let mut not_before = Instant::now();
        // What keeps the rows from being written.
        let mut trouble: Option<Code> = None;
        loop {
            // In this order: what was told before the end is seen after it.
            let over = ending.is_cancelled();
            if self.desk.due().is_empty() {
                if over {
                    return;
                }
                tokio::select! {
                    () = self.desk.changed.notified() => {}
                    () = ending.cancelled() => {}
                }
                continue;
            }
            tokio::select! {
                () = sleep_until(not_before.max(Instant::now() + GATHER)) => {}
                () = ending.cancelled() => {
                    if trouble.is_some_and(|code| code != Code::Unreachable) {
                        return;
                    }
                }
            }
            match self.send().await {
                Ok(()) => {
                    backoff.reset();
                    not_before = Instant::now() + EVERY;
                    if trouble.take().is_some() {
                        info!("the table of sessions is kept up to date again");
                    }
                }
                Err(error) => {
                    if trouble.replace(error.code()) == Some(error.code()) {
                        debug!(%error, "the table of sessions is behind");
                    } else {
                        warn!(%error, "the table of sessions is behind; commits go on");
                    }
                    let later = error.code() == Code::Unreachable;
                    not_before = Instant::now() + if later { backoff.next_wait() } else { SLOW };
                    if later && ending.is_cancelled() {
                        sleep(LAST_TRY).await;
                    }
                }
            }
        }
    }

    /// Sends all that is due.
    async fn send(&mut self) -> Result<(), Error> {
        loop {
            let batch = self.desk.due();
            if batch.is_empty() {
                return Ok(());
            }
            let row = |(key, sheet): &(SessionKey, Sheet)| {
                Row::new(key, sheet.facts.clone(), sheet.bot.clone(), sheet.turn)
            };
            let rows: Vec<Row> = batch.iter().map(row).collect();
            let refused = self.notes.note(&rows).await?;
            self.desk.sent(&batch);
            self.say_refused(refused);
            if batch.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Each once. // P8
    fn say_refused(&mut self, refused: Vec<(SessionKey, String)>) {
        for (key, why) in refused {
            if self.refused.get(&key) != Some(&why) {
                warn!(session = %Masked(&key.to_string()), why, "the table of sessions does not take a row");
                self.refused.insert(key, why);
            }
        }
    }
}
