//! The engine of one session: waits for changes, commits them, reconciles, and flushes at the end.
//!
//! One task a session. What is dirty waits in the [`Inbox`]; orders come through a channel; everything that a
//! crash must not lose is in the [`Journal`] and the tree itself.

mod parting;
mod plaintext;
mod status;
mod turn;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::backoff::Backoff;
use super::blocks::HeadBlocks;
use super::env::{Env, Fencing};
use super::inbox::{Inbox, Marks};
use super::journal::{Draft, Journal, Lost};
use super::lease::Standing;
use super::look::Eye;
use super::mark::{self, Written};
use super::mirroring::Mirroring;
use super::plan::LoggedOut;
use super::report::{SessionStatus, SessionSync};
use crate::error::{Code, Error};
use crate::history::{ChainWeight, Mark};
use crate::session::SessionKey;
use crate::tree::baileys::Tracker;
use crate::tree::guard::{MassDelete, Size};
use crate::tree::identity::Creds;
use crate::tree::{Filter, Reason, Table};
pub use parting::Parting;
use plaintext::Closing;
use turn::Occasion;

/// How often a tree is compared when no events come.
const POLL: Duration = Duration::from_secs(5);
/// How often what is held is looked at again without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a running engine can be asked for.
#[derive(Debug)]
pub enum Order {
    /// A full scan, and a commit of what differs.
    Sync(oneshot::Sender<Result<SessionSync, Error>>),
    /// A tombstone: the account was logged out.
    Logout(oneshot::Sender<Result<Written, Error>>),
    /// Commit the identity that is on disk although the guard holds it.
    AcceptIdentity(oneshot::Sender<Result<Written, Error>>),
    /// Commit what is there and let another process have the session. The bot was stopped.
    GiveWay {
        /// When it must be stored: else the session is kept.
        deadline: Instant,
        /// Told whether it is given away.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Commit what is there and end.
    Finish {
        /// When the process must have ended.
        deadline: Instant,
        /// What is known of the bot.
        parting: Parting,
    },
}

impl Order {
    /// Answers an order that cannot be carried out.
    pub fn refuse(self, error: Error) {
        // The asker may have gone.
        let _ = match self {
            Self::Sync(reply) => reply.send(Err(error)).is_ok(),
            Self::Logout(reply) | Self::AcceptIdentity(reply) => reply.send(Err(error)).is_ok(),
            Self::GiveWay { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Finish { .. } => true,
        };
    }
}

/// How an engine ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything is stored and acknowledged; some paths may have been held.
    Flushed {
        /// How many.
        held: usize,
        /// Whether the session may be given back: nobody writes to it any more.
        release: bool,
    },
    /// Another process may have it: everything is stored.
    GaveWay,
    /// Another process took the session.
    Taken {
        /// Its epoch.
        epoch: u32,
    },
    /// Nobody can give orders any more: the process is on its way out without a flush.
    Abandoned,
}

/// What history has at the journal's head.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// The tree.
    pub table: Arc<Table>,
    /// The credentials in it, by the file that holds them.
    pub creds: Arc<BTreeMap<String, Creds>>,
    /// When it was committed.
    pub at: Option<Timestamp>,
}

/// What an engine is made from.
#[derive(Debug)]
pub struct Parts {
    /// What all sessions share.
    pub env: Arc<Env>,
    /// Whose.
    pub key: SessionKey,
    /// What belongs to this tree.
    pub filter: Arc<Filter>,
    /// Where events wait.
    pub inbox: Arc<Inbox>,
    /// Proves that earlier events were seen.
    pub fence: Arc<dyn Fencing>,
    /// The write side.
    pub journal: Journal,
    /// What history has.
    pub committed: Committed,
    /// How long the chain is.
    pub weight: ChainWeight,
    /// An account that was logged out and whose keys may still lie on disk.
    pub logged_out: Option<LoggedOut>,
    /// What the start found that a person should know.
    pub start_alarm: Option<String>,
    /// See [`Owned::unfit`](crate::sync::open::Owned::unfit).
    pub unfit: bool,
    /// Where the status goes.
    pub status: watch::Sender<SessionStatus>,
    /// How the session stands with the lessor; none: nothing is held there.
    pub lease: Option<watch::Receiver<Standing>>,
    /// The mirror, unless it is off.
    pub mirror: Option<Mirroring>,
}

/// What a person should look at; of each kind the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// The start found something.
    Start,
    /// Changes are not committed yet.
    Behind,
    /// The lease ran out, or somebody asks for it.
    Lease,
    /// A guard holds something, or saw something it let pass.
    Guard,
    /// History is not as it should be.
    History,
    /// Plaintext is left beside an encrypted history.
    Plaintext,
    /// A database stays out of commits until a person does something.
    Database,
}

/// A path that stays at the head's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    reason: Reason,
    since: Timestamp,
}

/// The engine of one session.
#[derive(Debug)]
pub struct Engine {
    env: Arc<Env>,
    key: SessionKey,
    inbox: Arc<Inbox>,
    fence: Arc<dyn Fencing>,
    journal: Journal,
    committed: Committed,
    /// Large files of its tree.
    head_blocks: HeadBlocks,
    weight: ChainWeight,
    /// An account that was logged out and whose keys may still lie on disk.
    logged_out: Option<LoggedOut>,
    status: watch::Sender<SessionStatus>,
    lease: Option<watch::Receiver<Standing>>,
    mirror: Option<Mirroring>,

    /// When something was last seen to change.
    last_change: Instant,
    /// None before the first look, and while a look has it.
    eye: Option<Eye>,
    filter: Arc<Filter>,
    /// What this turn took of the inbox.
    taken: Vec<Marks>,
    /// No bot may start on what lies there, until its identity is back.
    unfit: bool,
    groups: BTreeMap<String, Tracker>,
    guard: MassDelete,
    held: BTreeMap<String, Hold>,
    /// Paths of stored commits that the mirror was not told of yet.
    unmirrored: BTreeSet<String>,
    session_held: Option<String>,
    alarms: BTreeMap<Alarm, String>,
    accept_identity: bool,
    backoff: Backoff,
    /// What the last turn failed with; none: it did not.
    failed: Option<Code>,
    /// When disk and head were last found, or made, the same.
    last_success: Option<Timestamp>,
    /// Not before this moment, after a failure.
    retry_at: Option<Instant>,
    look_again: Option<Instant>,
    next_poll: Instant,
    next_reconcile: Instant,
    /// A new base was acknowledged since the last retention.
    retention_due: bool,
    last_retention: Option<Instant>,
    last_read_back: Option<Instant>,
    /// What is left of the plaintext.
    closing: Closing,
}

impl Engine {
    /// An engine that has looked at nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            env,
            key,
            filter,
            inbox,
            fence,
            journal,
            committed,
            weight,
            logged_out,
            start_alarm,
            unfit,
            status,
            lease,
            mirror,
        } = parts;
        let now = Instant::now();
        let closing = Closing::new(env.keys.encrypts());
        let policy = &env.policy;
        let mut guard = MassDelete::new(policy.allow_mass_delete, policy.pace.max_wait);
        guard.note(now, Size::of(&committed.table));
        Self {
            eye: None,
            filter,
            taken: Vec::new(),
            unfit,
            next_poll: now + POLL,
            next_reconcile: now + policy.reconcile,
            // This start, or that of an init container before it, sealed with a base. A first epoch has nothing to clean.
            retention_due: weight.deltas <= 1 && journal.epoch() > 1,
            env,
            key,
            inbox,
            fence,
            journal,
            committed,
            head_blocks: HeadBlocks::default(),
            weight,
            logged_out,
            status,
            lease,
            mirror,
            last_change: now,
            groups: BTreeMap::new(),
            guard,
            held: BTreeMap::new(),
            unmirrored: BTreeSet::new(),
            session_held: None,
            alarms: start_alarm.into_iter().map(|text| (Alarm::Start, text)).collect(),
            accept_identity: false,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            failed: None,
            last_success: None,
            retry_at: None,
            look_again: None,
            last_retention: None,
            last_read_back: None,
            closing,
        }
    }

    /// Works until it is told to finish, or the session is taken.
    pub async fn run(mut self, orders: &mut mpsc::Receiver<Order>) -> Ended {
        self.publish_status();
        loop {
            let (wake, occasion) = self.next_turn();
            let inbox = Arc::clone(&self.inbox);
            let result = tokio::select! {
                biased;
                order = orders.recv() => match order {
                    None => return Ended::Abandoned,
                    Some(Order::Finish { deadline, parting }) => return self.finish(deadline, parting).await,
                    Some(Order::GiveWay { deadline, reply }) => match self.flush_until(deadline).await {
                        Ok(()) => match reply.send(Ok(())) {
                            Ok(()) => return self.given_away(),
                            // Whoever has gone starts its bot again.
                            Err(_) => Ok(()),
                        },
                        Err(lost) => answer(reply, Err(lost), &self.key),
                    },
                    Some(order) => self.obey(order).await,
                },
                standing = moved(&mut self.lease) => self.heed(standing),
                () = sleep_until(wake) => self.turn(occasion).await.map(drop),
                // Says nothing of what failed before: that is tried again when it is due.
                () = inbox.changed() => {
                    self.last_change = Instant::now();
                    self.publish_status();
                    continue;
                }
            };
            if let Some(epoch) = self.settle(result) {
                return self.taken(epoch);
            }
        }
    }

    /// When to look next, and why.
    fn next_turn(&self) -> (Instant, Occasion) {
        let pace = self.env.policy.pace;
        let not_before = |at: Instant| self.retry_at.map_or(at, |retry| at.max(retry));
        let window = match (self.inbox.span(), self.look_again) {
            (Some((first, last)), again) => {
                let due = pace.due(first, last);
                Some(again.map_or(due, |again| due.min(again)))
            }
            (None, again) => again,
        };
        let window = if self.journal.unacknowledged().is_some() {
            Some(window.unwrap_or_else(Instant::now))
        } else {
            window
        };
        let mut turns = vec![(not_before(self.next_reconcile), Occasion::Reconcile)];
        turns.extend(self.closing.due().map(|at| (not_before(at), Occasion::Window)));
        turns.extend(window.map(|at| (not_before(at), Occasion::Window)));
        if self.fence.polling() {
            turns.push((not_before(self.next_poll), Occasion::Poll));
        }
        turns.into_iter().min_by_key(|(at, _)| *at).unwrap_or((self.next_reconcile, Occasion::Reconcile))
    }

    /// What a turn's end means for the next; the epoch of whoever took the session.
    fn settle(&mut self, result: Result<(), Lost>) -> Option<u32> {
        match result {
            Ok(()) => {
                self.backoff.reset();
                (self.retry_at, self.failed) = (None, None);
            }
            Err(Lost::Taken { epoch }) => return Some(epoch),
            Err(Lost::Failed(error)) => {
                let wait = self.backoff.next_wait();
                warn!(%error, failures = self.backoff.failures(), wait_ms = crate::telemetry::millis(wait), "not committed yet; trying again");
                self.retry_at = Some(Instant::now() + wait);
                self.failed = Some(error.code());
                self.env.counters.failed(error.code());
                self.alarms.insert(Alarm::Behind, format!("not committed yet: {error}"));
            }
        }
        self.publish_status();
        None
    }

    async fn obey(&mut self, order: Order) -> Result<(), Lost> {
        match order {
            Order::Sync(reply) => {
                let result = self.sync().await;
                answer(reply, result, &self.key)
            }
            Order::Logout(reply) => {
                let result = self.log_out().await;
                answer(reply, result, &self.key)
            }
            Order::AcceptIdentity(reply) => {
                let result = self.accept().await;
                answer(reply, result, &self.key)
            }
            Order::Finish { .. } | Order::GiveWay { .. } => Ok(()),
        }
    }

    /// What is on disk is in the head, and the head is ours: also when nothing had changed. // P5
    async fn sync(&mut self) -> Result<SessionSync, Lost> {
        let until = Instant::now() + self.env.policy.pace.max_wait;
        let mut committed = false;
        loop {
            committed |= self.turn(Occasion::Sync).await?.committed;
            // Who writes and then asks at once has a group that was not quiet yet.
            let settles = |hold: &Hold| matches!(hold.reason, Reason::Changing | Reason::Group);
            let again = self.look_again.filter(|again| *again <= until);
            match again.filter(|_| self.held.values().any(settles)) {
                Some(again) => sleep_until(again).await,
                None => break,
            }
        }
        if !committed {
            self.journal.prove().await?;
        }
        Ok(self.sync_report(committed))
    }

    /// P4: only a person replaces a paired identity by one that is none.
    async fn accept(&mut self) -> Result<Written, Lost> {
        let pinned = self.journal.head();
        self.accept_identity = true;
        let result = self.turn(Occasion::Sync).await;
        self.accept_identity = false;
        let turn = result?;
        if let Some(why) = &self.session_held {
            return Err(Error::new(
                Code::Held,
                format!("session {}: {why}: there is nothing to accept", self.key),
            )
            .into());
        }
        let commit = self.journal.head().filter(|_| turn.committed);
        commit.map(|commit| Written { commit, pinned }).ok_or_else(|| {
            Error::new(
                Code::NotFound,
                format!("session {}: no identity is held: there is nothing to accept", self.key),
            )
            .into()
        })
    }

    /// A tombstone. What lies on disk stays there, for the bot may be using it (P7), but is not committed until
    /// the account in it is another one.
    async fn log_out(&mut self) -> Result<Written, Lost> {
        let written = mark::write(&mut self.journal, Mark::Logout, Draft::empty(None)).await?;
        self.logged_out = Some(LoggedOut::of(&self.committed.creds));
        self.weigh(true);
        self.unmirrored.extend(self.committed.table.files.keys().cloned());
        self.note_committed(Table::default(), BTreeMap::new());
        self.tell_mirror();
        self.session_held = None;
        self.inbox.rescan();
        Ok(written)
    }

    fn note_committed(&mut self, table: Table, creds: BTreeMap<String, Creds>) {
        self.guard.note(Instant::now(), Size::of(&table));
        self.committed =
            Committed { table: Arc::new(table), creds: Arc::new(creds), at: Some(self.env.host.now()) };
    }
}

/// Waits until the session stands otherwise with the lessor than it did.
async fn moved(lease: &mut Option<watch::Receiver<Standing>>) -> Standing {
    loop {
        let Some(watched) = lease else { std::future::pending().await };
        if watched.changed().await.is_ok() {
            return *watched.borrow_and_update();
        }
        // Given back.
        *lease = None;
    }
}

fn answer<T>(
    reply: oneshot::Sender<Result<T, Error>>,
    result: Result<T, Lost>,
    key: &SessionKey,
) -> Result<(), Lost> {
    let (answer, rest) = match result {
        Ok(value) => (Ok(value), Ok(())),
        Err(Lost::Taken { epoch }) => {
            (Err(Lost::Taken { epoch }.into_error(key)), Err(Lost::Taken { epoch }))
        }
        // Whoever asked is told; the engine goes on as before.
        Err(Lost::Failed(error)) => (Err(error), Ok(())),
    };
    // The asker may have gone.
    let _ = reply.send(answer);
    rest
}
