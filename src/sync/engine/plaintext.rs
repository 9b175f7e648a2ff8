//! Encryption was turned on: what is left of the plaintext is encrypted or removed, the mirror with it.
//!
//! That may take minutes, and commits do not wait for it: it runs beside them, and can be cut off anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span, info, warn};

use super::turn::Occasion;
use super::{Alarm, Engine};
use crate::error::{Code, Error};
use crate::history::{self, Access, Depth, Id, Survey, reseal, retention};
use crate::session::SessionKey;
use crate::sync::backoff::Backoff;
use crate::sync::env::Env;
use crate::sync::journal::Lost;
use crate::sync::{mirror_fetch, mirror_gone};
use crate::tree::Table;

/// Once nothing is left: something may still land that an older process had under way.
const AGAIN: Duration = Duration::from_hours(1);
/// Who asked for a `sync` waits for it so long: nothing is committed meanwhile, and no signal is heard;
const PATIENCE: Duration = Duration::from_secs(5);
/// a command on its own, which has nothing else to do, so long.
const PATIENCE_ALONE: Duration = Duration::from_mins(2);

/// How far it is.
#[derive(Debug)]
pub(super) struct Closing {
    /// When to look; none: encryption is off, or somebody is at it.
    due: Option<Instant>,
    job: Option<AbortOnDropHandle<Result<Left, Error>>>,
    backoff: Backoff,
    /// Objects in the mirror's place that are not the mirror's.
    foreign: BTreeSet<String>,
}

/// What stays, for a person to decide about.
#[derive(Debug, Default)]
struct Left {
    /// Commits.
    strangers: Vec<Id>,
    /// Objects in the mirror's place.
    foreign: BTreeSet<String>,
}

impl Closing {
    pub(super) fn new(encrypts: bool) -> Self {
        Self {
            due: encrypts.then(Instant::now),
            job: None,
            backoff: Backoff::new(Duration::from_secs(15), Duration::from_mins(10)),
            foreign: BTreeSet::new(),
        }
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Engine {
    /// How this session's history is read.
    pub(super) fn access(&self) -> Access<'_> {
        self.env.access(Some(self.journal.state()))
    }

    /// Begins it when it is due, and sees to what came of it. A failure is logged and tried again; it never holds a commit up.
    pub(super) async fn close_plaintext(&mut self, occasion: Occasion) -> Result<(), Lost> {
        if self.closing.due.is_some_and(|due| due <= Instant::now()) && occasion != Occasion::Last {
            self.closing.due = None;
            match self.begin_closing().await {
                Ok(()) => {}
                Err(Lost::Taken { epoch }) => return Err(Lost::Taken { epoch }),
                Err(Lost::Failed(error)) => self.closing_failed(&error),
            }
        }
        let Some(mut job) = self.closing.job.take() else { return Ok(()) };
        let patience = match occasion {
            Occasion::Sync if self.env.policy.waiting.is_tools() => PATIENCE_ALONE,
            Occasion::Sync => PATIENCE,
            _ => Duration::ZERO,
        };
        match timeout(patience, &mut job).await {
            Err(_) => self.closing.job = Some(job),
            Ok(Ok(Ok(left))) => {
                self.closing.backoff.reset();
                self.closing.due = Some(Instant::now() + AGAIN);
                self.closing.foreign = left.foreign;
                self.alarm_left(&left.strangers);
            }
            Ok(Ok(Err(error))) => self.closing_failed(&error),
            Ok(Err(panicked)) => {
                let error = Error::new(Code::Internal, panicked.to_string());
                self.closing_failed(&error);
            }
        }
        Ok(())
    }

    async fn begin_closing(&mut self) -> Result<(), Lost> {
        let survey = history::survey(&*self.env.store, &self.key, Depth::All, self.journal.head()).await?;
        // The list that is planned on must itself prove that we may. // P5 P6
        self.journal.prove().await?;
        let job = Job {
            env: Arc::clone(&self.env),
            key: self.key.clone(),
            epoch: self.journal.epoch(),
            since: self.journal.state().encrypted_since,
            survey,
            table: Arc::clone(&self.committed.table),
            foreign: self.closing.foreign.clone(),
        };
        let work = job.run().instrument(Span::current());
        self.closing.job = Some(AbortOnDropHandle::new(tokio::spawn(work)));
        Ok(())
    }

    fn closing_failed(&mut self, error: &Error) {
        let wait = self.closing.backoff.next_wait();
        self.closing.due = Some(Instant::now() + wait);
        warn!(%error, "plaintext is left in the bucket; it will be tried again");
        self.set_alarm(
            Alarm::Plaintext,
            Some(format!("encryption: plaintext is left in the bucket: {error}")),
        );
    }

    /// What a person has to decide about. // P8
    fn alarm_left(&mut self, strangers: &[Id]) {
        let mut left = Vec::new();
        if let Some(id) = strangers.first() {
            left.push(format!(
                "{} commits that are kept, {id} first, are plaintext and newer than what is encrypted: somebody may have put \
                 them there; --accept-plaintext takes them",
                strangers.len()
            ));
        }
        if let Some(first) = self.closing.foreign.first() {
            left.push(format!(
                "{} objects in the mirror's place are in no commit and stay, {} first",
                self.closing.foreign.len(),
                crate::telemetry::Masked(first)
            ));
        }
        let text = (!left.is_empty()).then(|| format!("encryption: {}", left.join("; ")));
        self.set_alarm(Alarm::Plaintext, text);
    }
}

/// One run.
struct Job {
    env: Arc<Env>,
    key: SessionKey,
    epoch: u32,
    since: Option<Id>,
    survey: Survey,
    table: Arc<Table>,
    foreign: BTreeSet<String>,
}

impl Job {
    // Boxed: the compiler cannot prove a future of this depth to be `Send` for all lifetimes.
    fn run(self) -> BoxFuture<'static, Result<Left, Error>> {
        Box::pin(self.close())
    }

    async fn close(self) -> Result<Left, Error> {
        let Self { env, key, epoch, since, survey, table, mut foreign } = self;
        let access = Access { since, ..env.access(None) };
        let (Some(now), Some(base)) = (survey.date, survey.encrypted_base()) else {
            return Ok(Left { foreign, ..Left::default() });
        };
        let policy = retention::Policy { epoch, ..env.policy.retention };
        let keep = retention::plan(&survey, now, &policy).keep;
        let plan = reseal::plan(&access, &survey, &keep, epoch);
        let mirrored = mirror_fetch::is_there(access.store, &key).await?;
        if !plan.is_done() || mirrored {
            // Before anything goes, what takes its place is proven to be there and to open. // P6
            history::clean::verify_base(access, &key, &survey, base, env.root.scratch()?.path()).await?;
        }
        let terms = env.terms().await?;
        let terms = reseal::Terms { content_type: &terms.content_type, size_limit: terms.bucket.size_limit };
        let mut resealed = Ok(());
        for id in &plan.reseal {
            resealed = reseal::reseal(access, &key, &survey, *id, env.root.scratch()?.path(), terms).await;
            if resealed.is_err() {
                // What is older waits: the order tells a reader what to believe. Whatever nothing needs goes all the same.
                break;
            }
        }
        let removed = history::clean::remove(access.store, &plan.delete).await?;
        if !plan.is_done() && resealed.is_ok() {
            info!(
                encrypted = plan.reseal.len(),
                removed, "plaintext in the history was encrypted or removed"
            );
        }
        if mirrored {
            let removed = mirror_gone::remove_ours(access.store, &key, &table, &mut foreign).await?;
            info!(removed, left = foreign.len(), "the mirror was removed: it is not encrypted");
        }
        resealed?;
        Ok(Left { strangers: plan.strangers, foreign })
    }
}
