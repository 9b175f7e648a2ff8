//! What all sessions of one process share.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::counters::Counters;
use super::inbox::Pace;
use super::journal::{Journal, JournalParts, Terms, blocking};
use super::lease::{self, Claimant, Held, Leases, Taking, Wait};
use super::metadata::Noter;
use super::rootdir::RootDir;
use super::start::Options;
use super::state::{LocalState, Place};
use crate::error::Error;
use crate::history::{self, Access, Depth, Id, Keys, Survey, Writer, retention};
use crate::host::Host;
use crate::session::{Layout, SessionKey};
use crate::store::{self, SharedStore};
use crate::tree::durable::make_durable;
use crate::tree::publish::Site;
use crate::tree::staging::Owner;
use crate::tree::{Dir, Filter};

/// What all sessions of one process share.
#[derive(Debug)]
pub struct Env {
    /// The bucket.
    pub store: SharedStore,
    /// What commits are encrypted for, and what opens them.
    pub keys: Keys,
    /// What the bucket makes of our commits; asked for once, when it can be.
    pub known_terms: OnceCell<Terms>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The root, locked.
    pub root: Arc<RootDir>,
    /// How sessions lie below it.
    pub layout: Layout,
    /// Who decides who waits, and what this process holds.
    pub leases: Arc<Leases>,
    /// Keeps the table of sessions; none: there is none to keep.
    pub noter: Option<Arc<Noter>>,
    /// Whose bucket: a state of another project is no state.
    pub project: Project,
    /// Where we are: what a holder id is bound to.
    pub place: Place,
    /// What was configured.
    pub policy: Policy,
    /// Where the one session lies that is read elsewhere than below the root: a migration's. Nothing is ever written
    /// there.
    pub source: Option<PathBuf>,
    /// A runner beside us speaks for the bots, and stops them when another process asks.
    pub runner_speaks: AtomicBool,
    /// What is counted, for metrics.
    pub counters: Arc<Counters>,
    /// What passes between us and storage, for metrics.
    pub traffic: store::Metrics,
}

/// Which bucket a local state speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's URL, normalised.
    pub url: String,
    /// The bucket.
    pub bucket: String,
}

/// What was configured, as far as sessions are concerned.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub struct Policy {
    /// When dirty trees are committed.
    pub pace: Pace,
    /// Between two full comparisons.
    pub reconcile: Duration,
    /// How long a start bears an outage.
    pub outage_wait: Duration,
    /// How a start waits for a session that another process holds.
    pub waiting: Waiting,
    /// Whether this process can stop the bot and let another have the session.
    pub gives_way: bool,
    /// A session that is given away alone is held for this long first.
    pub min_hold: Duration,
    /// Whether a session is let go of when its lease ran out, until it is ours again.
    pub lease_strict: bool,
    /// What the flush before giving one away may take.
    pub grace: Duration,
    /// What belongs to a tree; a preset may still be found by looking.
    pub filter: Filter,
    /// Who owns restored files; none: the owner of the root (when root) or ours.
    pub owner: Option<Owner>,
    /// Whether most of a tree may vanish at once.
    pub allow_mass_delete: bool,
    /// Whether there is a mirror.
    pub mirror: bool,
    /// How long history is kept.
    pub retention: retention::Policy,
    /// What a start may do.
    pub start: Options,
    /// The deployment's own word.
    pub label: Option<String>,
}

/// How a start waits for a session that another process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// For how long.
    pub wait: Duration,
    /// Whether the holder is asked to give way: tools do not ask.
    pub ask: bool,
}

impl Waiting {
    /// Whether it is that of a command on its own, beside which no bot of this process works.
    #[must_use]
    pub fn is_tools(self) -> bool {
        !self.ask
    }
}

/// What is its own of an [`Env`] for one session.
#[derive(Debug)]
pub struct One {
    /// Where its state is kept.
    pub root: Arc<RootDir>,
    /// The place of that root.
    pub place: Place,
    /// Where it lies, if not in the root; read only.
    pub source: Option<PathBuf>,
    /// What was configured for it.
    pub policy: Policy,
    /// Keeps its row.
    pub noter: Option<Arc<Noter>>,
}

impl Env {
    /// What the bucket makes of our commits. Until this was answered, that nothing is listed means nothing.
    ///
    /// # Errors
    /// [`Code::BucketPublic`](crate::error::Code::BucketPublic), [`Code::BucketMissing`](crate::error::Code::BucketMissing), [`Code::BucketRefuses`](crate::error::Code::BucketRefuses), those of a wrong key, and outages.
    pub async fn terms(&self) -> Result<&Terms, Error> {
        self.known_terms
            .get_or_try_init(|| async { Terms::of(&self.project.bucket, self.store.bucket().await) })
            .await
    }

    /// How history is read, by somebody with this local state.
    #[must_use]
    pub fn access(&self, state: Option<&LocalState>) -> Access<'_> {
        let since = state.and_then(|state| state.encrypted_since);
        Access { since, ..Access::new(&*self.store, &self.keys) }
    }

    /// What this disk knows of a session.
    pub fn known(&self, key: &SessionKey) -> Result<Option<LocalState>, Error> {
        let Project { url, bucket } = &self.project;
        LocalState::load(&self.root.state_file(key), url, bucket, &*self.host)
    }

    /// The local state to go on with; none was known: a fresh one.
    #[must_use]
    pub fn state(&self, known: Option<LocalState>) -> LocalState {
        LocalState::here(known, &self.project.url, &self.project.bucket, &self.place)
    }

    /// Whether somebody stops the bot when another process asks.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        self.policy.gives_way || self.runner_speaks.load(Ordering::Relaxed)
    }

    /// How long a start that begins now waits for a session that another process holds.
    #[must_use]
    pub fn wait(&self) -> Wait {
        let Waiting { wait, ask } = self.policy.waiting;
        Wait { ask, until: Some(Instant::now() + wait), contend: true }
    }

    /// The list before the grant, on which nothing is decided but what is refused.
    pub async fn list(&self, key: &SessionKey, depth: Depth) -> Result<Survey, Error> {
        // Until the bucket answered, that nothing is listed means nothing.
        self.terms().await?;
        Ok(history::survey(&*self.store, key, depth, None).await?)
    }

    /// Steps 2 and 3 of a restore: grant and claim, list again. The state knows the epoch from then on.
    pub async fn take(
        &self,
        key: &SessionKey,
        before: &Survey,
        state: &mut LocalState,
        wait: Wait,
    ) -> Result<Held, Error> {
        let claimant = Claimant {
            holder: state.holder.to_string(),
            content_type: self.terms().await?.content_type.clone(),
            now: self.host.now(),
        };
        let taking = Taking { key, before, known: state.epoch, claimant: &claimant, wait };
        let held = lease::take(&*self.store, &self.leases, &taking).await?;
        state.epoch = held.epoch;
        state.save(&self.root.state_file(key), &*self.host)?;
        Ok(held)
    }

    /// The write side of a session that was taken, on this head. Its state is kept in `state_file`.
    pub async fn journal(
        &self,
        key: &SessionKey,
        state: LocalState,
        state_file: PathBuf,
        head: Option<Id>,
    ) -> Result<Journal, Error> {
        let writer = Writer {
            holder: state.holder.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            label: self.policy.label.clone(),
        };
        let parts = JournalParts {
            store: Arc::clone(&self.store),
            keys: self.keys.clone(),
            host: Arc::clone(&self.host),
            key: key.clone(),
            terms: self.terms().await?.clone(),
            writer,
            state,
            state_file,
            noter: self.noter.clone(),
            counters: Arc::clone(&self.counters),
        };
        Ok(Journal::new(parts, head))
    }

    /// Step 0 of a commit, for files of a session that were just read, or are gone.
    pub async fn make_durable(&self, key: &SessionKey, paths: Vec<String>) -> Result<(), Error> {
        let (dir, host, filter) = (self.dir(key), Arc::clone(&self.host), self.policy.filter.clone());
        let synced = blocking(move || match Dir::open(&dir) {
            Ok(dir) => make_durable(&dir, &filter, paths.iter().map(String::as_str), &*host),
            // All was removed with the directory itself.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        synced.await?.map_err(|error| Error::io("what was read cannot be made durable", error))
    }

    /// The directory of a session.
    #[must_use]
    pub fn dir(&self, key: &SessionKey) -> PathBuf {
        self.source.clone().unwrap_or_else(|| self.layout.dir(self.root.root(), key))
    }

    /// Where a session lies and is published.
    #[must_use]
    pub fn site(&self, key: &SessionKey) -> Site {
        Site { elsewhere: self.source.clone(), ..self.root.site(&self.layout, key) }
    }

    /// What is watched for changes.
    #[must_use]
    pub fn watched(&self) -> &Path {
        self.source.as_deref().unwrap_or_else(|| self.root.root())
    }

    /// The same for one session alone, which lies where `one` says.
    #[must_use]
    pub fn of_one(&self, key: &SessionKey, one: One) -> Arc<Self> {
        let One { root, place, source, policy, noter } = one;
        Arc::new(Self {
            store: Arc::clone(&self.store),
            known_terms: self.known_terms.clone(),
            host: Arc::clone(&self.host),
            root,
            layout: Layout::Single(key.clone()),
            leases: Arc::clone(&self.leases),
            noter,
            project: self.project.clone(),
            place,
            policy,
            source,
            runner_speaks: AtomicBool::new(false),
            keys: self.keys.clone(),
            counters: Arc::clone(&self.counters),
            traffic: self.traffic.clone(),
        })
    }
}

/// Proves that all events before it were seen.
#[async_trait]
pub trait Fencing: Send + Sync + Debug {
    /// Whether a fence passed: then what is marked is all that is dirty. Else everything must be looked at.
    async fn pass(&self) -> bool;

    /// Whether events cannot be relied on, so that the tree must be compared again and again.
    fn polling(&self) -> bool;

    /// A reconcile found what no event had announced.
    fn missed(&self, what: &str);
}
