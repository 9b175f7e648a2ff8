//! The start of a session: from the list before the grant to a tree that its bot may use.
//!
//! The steps are those of "Restore" in DESIGN.md; what is done with the tree is decided by the
//! [start table](super::start) on the list *after* the grant, and nothing is published before the seal is
//! acknowledged.

mod apply;
mod conflict;
mod foresee;
mod keep;
mod local;
mod remote;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::engine::Committed;
use super::env::Env;
use super::journal::{Journal, Lost};
use super::lease::Wait;
use super::plan::LoggedOut;
use super::start::{self, Action, Decision, Facts, KnownAbove, Mirror, Refusal, Remote, Restoring, State};
use super::state::{Life, LocalState};
use crate::error::{Code, Error};
use crate::history::{Access, ChainWeight, Depth, Progress};
use crate::session::SessionKey;
use crate::store;
use crate::tree::Filter;
use crate::tree::publish::{Site, recover};
pub use foresee::{Foreseen, foresee};
use local::Local;
use remote::There;

/// A session that is ours, published, and ready for its bot.
#[derive(Debug)]
pub struct Owned {
    /// The write side, sealed.
    pub journal: Journal,
    /// What history has.
    pub committed: Committed,
    /// How long the chain is.
    pub weight: ChainWeight,
    /// An account that was logged out, whose bot may still use its tree.
    pub logged_out: Option<LoggedOut>,
    /// What belongs to this tree.
    pub filter: Arc<Filter>,
    /// What a person should know of this start.
    pub alarm: Option<String>,
    /// The identity of the head is not in the tree: it is kept, and is not ready for a bot.
    pub unfit: bool,
}

/// What a start came to.
#[derive(Debug)]
pub enum Opened {
    /// Ours.
    Owned(Box<Owned>),
    /// The tree may be used as it is, but nothing of it can be committed yet: open it again until it can.
    NotOwned,
    /// Storage does not answer: not ready; open it again.
    Unreachable(Error),
}

/// What one try may take for granted.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// When `--outage-wait` is over.
    pub give_up_at: Instant,
    /// Whether a bot was already started on this tree by this process.
    pub in_use: bool,
    /// How a session that another process holds is waited for.
    pub wait: Wait,
    /// Ends the wait for it: the process is on its way out.
    pub ending: &'a CancellationToken,
    /// Told of what is downloaded.
    pub progress: &'a dyn Progress,
}

/// Opens a session: one try.
///
/// # Errors
/// Whatever a person must decide or mend; the tree is as it was, or a publish marker is there that the next start
/// finishes or undoes.
pub fn open<'a>(
    env: &'a Arc<Env>,
    key: &'a SessionKey,
    attempt: Attempt<'a>,
) -> BoxFuture<'a, Result<Opened, Error>> {
    // Boxed: the compiler cannot prove a future of this depth to be `Send` for all lifetimes.
    Box::pin(store::give_up_at(attempt.give_up_at, async move {
        Opening::new(env, key, attempt).await?.run().await
    }))
}

/// A start under way.
pub(super) struct Opening<'a> {
    env: &'a Arc<Env>,
    key: &'a SessionKey,
    attempt: Attempt<'a>,
    site: Site,
    state_file: PathBuf,
    local: Local,
    /// A bot may live that was started on what lies there.
    same_life: bool,
    /// When the session was granted: waiting for it is no part of a restore.
    granted: Option<Instant>,
}

impl<'a> Opening<'a> {
    async fn new(env: &'a Arc<Env>, key: &'a SessionKey, attempt: Attempt<'a>) -> Result<Self, Error> {
        let site = env.site(key);
        let state_file = env.root.state_file(key);
        let local = local::read(env, key, &site).await?;
        let beside_a_bot = env.policy.start.command.may_start_again_beside_a_bot();
        let known = local.state.as_ref();
        let same_life =
            attempt.in_use || known.is_some_and(|state| state.same_life(&env.place, beside_a_bot));
        Ok(Self { env, key, attempt, site, state_file, local, same_life, granted: None })
    }

    async fn run(mut self) -> Result<Opened, Error> {
        if self.attempt.in_use {
            self.note_in_use()?;
        }
        let there = match self.ask().await {
            Ok(there) if self.same_life => Ok(there),
            Ok(there) => Ok(self.resolve_mirror(there).await?),
            Err(error) if error.code() == Code::Unreachable => Err(error),
            Err(error) => return Err(error),
        };
        let decision = self.decide(there.as_ref().ok()).await?;
        info!(line = decision.line.number(), action = ?decision.action, "start decided");
        let there = match there {
            Ok(there) => there,
            Err(error) => {
                return match decision.action {
                    Action::Exit(refusal) => Err(refusal.error(self.key, Some(&error.to_string()))),
                    Action::StartNotOwned => {
                        self.note_in_use()?;
                        Ok(Opened::NotOwned)
                    }
                    _ => Ok(Opened::Unreachable(error)),
                };
            }
        };
        if let Action::Exit(refusal) = decision.action {
            return Err(self.refused(refusal, &there).await);
        }
        self.apply(decision, there).await.map(|owned| Opened::Owned(Box::new(owned)))
    }

    /// Steps 1 to 4: list, grant and claim, list again, all objects of the chain.
    ///
    /// What would be refused on the list before the grant is refused without one: a claim takes the session from
    /// whoever has it. // P5
    async fn ask(&mut self) -> Result<There, Error> {
        let before = self.env.list(self.key, Depth::Chain).await?;
        // An empty list may be one that the key must not see: the claim tells.
        let shown = !before.commits.is_empty();
        let mut there = remote::look(self, before).await?;
        if shown && let Action::Exit(refusal) = self.decide(Some(&there)).await?.action {
            return Err(self.refused(refusal, &there).await);
        }
        let mut state = self.state();
        let wait = self.attempt.wait;
        let wait = if self.same_life { wait.beside_a_bot(self.env.leases.ttl()) } else { wait };
        let held = tokio::select! {
            held = self.env.take(self.key, &there.survey, &mut state, wait) => held?,
            () = self.attempt.ending.cancelled() => {
                let text = format!("session {}: told to end before it was ours", self.key);
                return Err(Error::new(Code::LeaseHeld, text));
            }
        };
        self.granted = Some(Instant::now());
        self.local.state = Some(state);
        if held.survey.commits == there.survey.commits {
            there.survey = held.survey;
        } else {
            there = remote::look(self, held.survey).await?;
        }
        there.known_head = held.known_head;
        Ok(there)
    }

    async fn decide(&mut self, there: Option<&There>) -> Result<Decision, Error> {
        let mut facts = self.facts(there);
        loop {
            let decision = start::decide(&facts);
            match decision.action {
                Action::Recover => {
                    self.recover().await?;
                    self.local = local::read(self.env, self.key, &self.site).await?;
                    facts = self.facts(there);
                }
                Action::FinishRestoring => {
                    self.finish_restoring()?;
                    facts = facts.finish_restoring();
                }
                _ => return Ok(decision),
            }
        }
    }

    async fn refused(&self, refusal: Refusal, there: &There) -> Error {
        match &there.chain {
            Err(error) if refusal.code == Code::Damaged => there.damage(self, error).await,
            _ => refusal.error(self.key, self.summaries(there).as_deref()),
        }
    }

    /// The local state, or a fresh one for a session that this disk knows nothing of.
    fn state(&self) -> LocalState {
        self.env.state(self.local.state.clone())
    }

    /// How this start reads history.
    fn access(&self) -> Access<'_> {
        self.env.access(self.local.state.as_ref())
    }

    fn facts(&self, there: Option<&There>) -> Facts {
        let state = self.local.state.as_ref();
        let head = there.and_then(There::head);
        let relation = |known: Option<crate::history::Id>| match (state, head) {
            (Some(state), Some(head)) if known.or(state.head) == Some(head) => State::IsHead,
            (Some(state), Some(head)) if state.pending.contains(&head) => State::PendingIsHead,
            (Some(state), _) if known.or(state.head).is_some() => State::Other,
            _ => State::None,
        };
        let listed = |id| there.is_some_and(|there| there.survey.commits.contains_key(&id));
        let restoring = match state.and_then(|state| state.restoring) {
            None => Restoring::No,
            Some(id) if listed(id) && self.local.is_digest(state.and_then(|state| state.digest)) => {
                Restoring::Published { then: relation(Some(id)) }
            }
            Some(_) => Restoring::Unpublished,
        };
        let now = self.env.host.now();
        let wait_over = Instant::now() >= self.attempt.give_up_at;
        let mut options = self.env.policy.start;
        if self.attempt.in_use {
            // P7: whatever this process is, it has started its bot on this tree.
            options.command = start::Command::Run;
        }
        Facts {
            marker: self.local.cut_off,
            restoring,
            same_life: self.same_life,
            tree: self.local.tree(),
            state: relation(None),
            remote: there.map_or(Remote::Unreachable { wait_over }, There::remote),
            known_above: match (state.and_then(|state| state.head), there) {
                (Some(known), Some(_)) if Some(known) > head => KnownAbove::ByState,
                (_, Some(there)) if there.known_head > head => KnownAbove::ByRow,
                _ => KnownAbove::No,
            },
            mirror: there.map_or(Mirror::None, |there| there.mirror(&self.local, &self.env.root.spool())),
            digest_equal: there
                .and_then(There::table)
                .is_some_and(|table| self.local.table.same_content(table)),
            heals: state.zip(there.and_then(There::table)).map_or(0, |(state, table)| {
                u32::try_from(state.heals(table.digest(), now)).unwrap_or(u32::MAX)
            }),
            options,
        }
    }

    async fn recover(&self) -> Result<(), Error> {
        let (site, host) = (self.site.clone(), Arc::clone(&self.env.host));
        let recovered = super::journal::blocking(move || recover(&site, &*host)).await?;
        recovered.map(drop).map_err(|error| {
            Error::io("a publish that was cut off can neither be finished nor undone", error)
        })
    }

    fn finish_restoring(&mut self) -> Result<(), Error> {
        let Some(state) = &mut self.local.state else { return Ok(()) };
        if let (Some(id), Some(digest)) = (state.restoring, state.digest) {
            state.restored(id, digest);
            state.save(&self.state_file, &*self.env.host)?;
        }
        Ok(())
    }

    /// A bot is at work on a tree that is not owned: from here on it must not be replaced, also not by the process that
    /// comes after this one. // P7
    fn note_in_use(&mut self) -> Result<(), Error> {
        let mut state = self.state();
        let life = Some(self.life());
        if state.ready != life {
            state.ready = life;
            state.save(&self.state_file, &*self.env.host)?;
        }
        self.local.state = Some(state);
        Ok(())
    }

    fn life(&self) -> Life {
        Life { boot_id: self.env.place.boot_id.clone(), pod_uid: self.env.place.pod_uid.clone() }
    }

    async fn journal(&self, there: &There) -> Result<Journal, Error> {
        self.journal_at(there, self.state_file.clone()).await
    }

    /// A journal that keeps its state elsewhere: what it writes is not this disk's.
    async fn journal_at(&self, there: &There, state_file: PathBuf) -> Result<Journal, Error> {
        self.env.journal(self.key, self.state(), state_file, there.head()).await
    }

    /// Both sides of a conflict, for the person who decides.
    fn summaries(&self, there: &There) -> Option<String> {
        let (local, remote, head) = (self.local.table.summary(), there.table()?.summary(), there.head()?);
        Some(format!(
            "local: {} files, {} bytes; bucket: {} files, {} bytes, head {head}",
            local.files, local.bytes, remote.files, remote.bytes
        ))
    }
}

/// Bears failures of a step of the start until it works or the session is taken: an attempt that failed may still
/// land.
pub(super) struct Patience<'a> {
    key: &'a SessionKey,
    backoff: Backoff,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    fn new(key: &'a SessionKey, patience: Option<Duration>) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        Self { key, backoff, until: patience.map(|patience| Instant::now() + patience) }
    }

    /// Waits before the next try, or gives up.
    pub(super) async fn bear(&mut self, lost: Lost) -> Result<(), Error> {
        match lost {
            Lost::Failed(error) if self.until.is_none_or(|until| Instant::now() < until) => {
                let wait = self.backoff.next_wait();
                warn!(%error, wait_ms = crate::telemetry::millis(wait), "not yet; trying again");
                sleep(wait).await;
                Ok(())
            }
            lost => Err(lost.into_error(self.key)),
        }
    }
}
