//! Moving trees that other programs kept into the bucket: `migrate` and `import`.
//!
//! | module | holds |
//! |---|---|
//! | [`find`] | which sessions lie below a directory |
//! | [`plan`] | what is to be done with each: a pure function |
//! | [`prove`] | a restore beside, compared with the source |
//! | [`clean`] | removing what was proven |
//! | [`describe`] | both sides, and what is done, as they are told |
//! | [`report`] | what is printed |
//!
//! A source is only read, until a person asks for its removal. It is committed by the same engine, and under the same
//! lease, as a tree that is watched. What was done already is told by history: no state of a migration is kept.

pub mod clean;
pub mod describe;
pub mod find;
pub mod plan;
pub mod prove;
pub mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::control::Control as _;
use super::env::{Env, One, Policy};
use super::journal::blocking;
use super::open::{Foreseen, foresee};
use super::report::HeldFile;
use super::rootdir::{self, RootDir};
use super::start::{Command, Remote, Side, Tree};
use super::supervisor::{self, Selection, Supervisor};
use crate::error::{Code, Error};
use crate::history::{Depth, Id, Progress};
use crate::session::SessionKey;
use crate::tree::identity::{Creds, Identity};
use crate::tree::{Filter, Reason};
use clean::Cleaner;
use describe::describe;
pub use describe::nameless;
use plan::{Asked, Content, Here, Step, There};
use prove::{Proof, Verdict, prove};
use report::{Failure, SessionMigration};

/// How long a commit may take.
const SYNC: Duration = Duration::from_mins(5);
/// How long the mirror is waited for: what is missing comes with the next start.
const MIRROR: Duration = Duration::from_mins(5);
const GLANCE: Duration = Duration::from_millis(100);

/// A session that was found.
#[derive(Debug, Clone)]
pub struct Source {
    /// Which it is.
    pub key: SessionKey,
    /// Where it lies; none: in the bucket's plain files only.
    pub path: Option<PathBuf>,
    /// What else the directory is.
    pub lies: Lies,
}

/// What the directory of a session is beside that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// Nothing: it goes when it is empty.
    Alone,
    /// The root, or a directory of our own: it stays.
    InRoot,
    /// Anything: only one file of it is the session.
    AmongOthers,
}

/// How sessions are moved.
#[derive(Debug, Clone)]
pub struct Manner {
    /// `--on-conflict`.
    pub on_conflict: Option<Side>,
    /// The word that commits bear.
    pub label: &'static str,
    /// What an earlier cleanup that was cut off left is in the bucket already: one may be gone on with.
    pub resumes: bool,
    /// What belongs to a tree.
    pub filter: Filter,
    /// Also what is in the bucket already is restored beside and compared.
    pub verify: bool,
    /// What was proven is removed.
    pub cleanup: bool,
    /// Where trees are restored to, to compare them.
    pub scratch: PathBuf,
}

/// A session, both of its sides, and what is to be done.
#[derive(Debug)]
pub struct Planned {
    source: Source,
    seen: Foreseen,
    /// What is to be done.
    pub step: Step,
    /// For people and machines.
    pub report: SessionMigration,
}

/// Looks at both sides of a session. Nothing is taken, written or uploaded.
///
/// # Errors
/// Outages and wrong keys; what speaks against this session alone is in the plan.
pub async fn look(env: &Arc<Env>, source: Source, manner: &Manner) -> Result<Planned, Error> {
    let empty = temporary(&manner.scratch)?;
    let path = source.path.clone().unwrap_or_else(|| empty.path().to_owned());
    let alone = beside(env, &source.key, path, manner.on_conflict, manner, false);
    let seen = foresee(&alone, &source.key).await?;
    let (here, there) = (here(&source, &seen), there(&seen));
    let (on_conflict, resumes) = (manner.on_conflict, manner.resumes);
    let mut step = plan::step(&here, &there, Asked { decision: seen.decision, on_conflict, resumes });
    let writes = matches!(step, Step::Commit { .. }) || (manner.cleanup && step == Step::Skip);
    if writes && let Err(error) = spare_holders(env, &source).await {
        step = Step::Refuse { code: error.code(), why: error.to_string() };
    }
    let report = describe(&source, &seen, there, &step, env.host.now());
    Ok(Planned { source, seen, step, report })
}

/// Does what was planned. What goes wrong with this session is in its report.
pub async fn carry_out(
    env: &Arc<Env>,
    planned: Planned,
    manner: &Manner,
    progress: &dyn Progress,
) -> SessionMigration {
    let Planned { source, seen, step, mut report } = planned;
    if let Err(error) = carry(env, &source, &seen, &step, manner, progress, &mut report).await {
        report.error = Some(Failure::from(&error));
    }
    report
}

async fn carry(
    env: &Arc<Env>,
    source: &Source,
    seen: &Foreseen,
    step: &Step,
    manner: &Manner,
    progress: &dyn Progress,
    report: &mut SessionMigration,
) -> Result<(), Error> {
    let key = &source.key;
    let mut left_out = Vec::new();
    let mirrored = Source { path: None, ..source.clone() };
    let mut source = source;
    let proves = match step {
        Step::Refuse { .. } => return Ok(()),
        Step::Skip => {
            report.commit = seen.head.map(|id| id.to_string());
            manner.verify || manner.cleanup
        }
        Step::KeepBucket => {
            report.commit = seen.head.map(|id| id.to_string());
            if manner.cleanup {
                let text = format!(
                    "session {key}: the bucket's tree is kept, and what lies here is not in it: nothing was removed"
                );
                return Err(Error::new(Code::Held, text));
            }
            false
        }
        Step::AdoptMirror => {
            report.commit = adopt_mirror(env, key, manner, progress).await?;
            // A tree that lies here was not what was taken.
            source = &mirrored;
            true
        }
        Step::Commit { on_conflict } => {
            let Some(path) = source.path.clone() else {
                return Err(Error::new(Code::Internal, "a commit of what lies nowhere"));
            };
            spare_holders(env, source).await?;
            if overrules(*on_conflict, manner.on_conflict) {
                is_where_it_was(key, seen.head, env.list(key, Depth::Chain).await?.head())?;
            }
            let alone = beside(env, key, path, *on_conflict, manner, true);
            (report.commit, left_out) = commit(alone, key).await?;
            report.held.clone_from(&left_out);
            true
        }
    };
    if !proves {
        return Ok(());
    }
    let whole = *step != Step::Skip || seen.is_same();
    let proof = prove(env, source, seen, whole, &left_out, manner, progress).await?;
    if left_out.is_empty() {
        report.held.clone_from(&proof.held);
    }
    match &proof.verdict {
        Verdict::Same => report.verified = Some(true),
        Verdict::Changed(paths) => {
            report.verified = Some(false);
            let text = format!(
                "session {key}: what is in the bucket is whole, but {} files changed here meanwhile, {} first: a bot still \
                 writes. Stop it and run this again",
                paths.len(),
                paths.first().map_or("", String::as_str),
            );
            return Err(Error::new(Code::Held, text));
        }
    }
    if manner.cleanup && *step != Step::AdoptMirror {
        cleanup(env, source, seen, proof, report).await?;
    }
    Ok(())
}

/// Whether a tree goes over a head although no person named the side that counts.
fn overrules(planned: Option<Side>, asked: Option<Side>) -> bool {
    planned == Some(Side::Local) && asked.is_none()
}

/// What was said of a head is not said of the one that came after it. // P2
fn is_where_it_was(key: &SessionKey, planned: Option<Id>, now: Option<Id>) -> Result<(), Error> {
    if planned == now {
        return Ok(());
    }
    let text = format!(
        "session {key}: its history in the bucket went on while this was planned: nothing was committed, run this again"
    );
    Err(Error::new(Code::Conflict, text))
}

/// A process that keeps a tree, in whatever directory above it that is its root, commits what lies there already, and its
/// bot lives on it. // P7
///
/// # Errors
/// [`Code::RootLocked`].
pub fn spare_holder(path: &Path, own: Option<&Path>) -> Result<(), Error> {
    let Some(locked) = rootdir::locked_above(path, own)? else { return Ok(()) };
    let text = format!(
        "a session-sidecar, or a bot that it started, works on {}: it commits what lies there already; stop it first",
        locked.display()
    );
    Err(Error::new(Code::RootLocked, text))
}

async fn spare_holders(env: &Env, source: &Source) -> Result<(), Error> {
    let Some(path) = source.path.clone() else { return Ok(()) };
    let own = env.root.root().canonicalize().ok();
    blocking(move || spare_holder(&path, own.as_deref())).await?
}

/// The local files go, after their proof. // P7
async fn cleanup(
    env: &Arc<Env>,
    source: &Source,
    seen: &Foreseen,
    proof: Proof,
    report: &mut SessionMigration,
) -> Result<(), Error> {
    let (key, Some(path)) = (&source.key, source.path.clone()) else { return Ok(()) };
    if let Some(first) = report.held.first() {
        let text = format!(
            "session {key}: {} files here are not in the bucket, {} first: nothing was removed",
            report.held.len(),
            first.path
        );
        return Err(Error::new(Code::Held, text));
    }
    spare_holders(env, source).await?;
    let cleaner = Cleaner {
        key: key.clone(),
        path,
        lies: source.lies,
        filter: Arc::clone(&seen.filter),
        proven: proof.proven,
        scan: proof.scan,
        host: Arc::clone(&env.host),
    };
    let cleaner = blocking(move || cleaner.check().map(|()| cleaner)).await??;
    if let Some(mut state) = env.known(key)? {
        // No bot lives on what is going to be gone: the next start here restores it.
        state.ready = None;
        state.save(&env.root.state_file(key), &*env.host)?;
    }
    let removed = blocking(move || cleaner.remove()).await??;
    report.removed = Some(removed.files);
    report.unneeded = Some(removed.unneeded);
    report.kept = Some(removed.kept);
    Ok(())
}

/// Commits a tree with the engine; the head after it, and what is held.
async fn commit(alone: Arc<Env>, key: &SessionKey) -> Result<(Option<String>, Vec<HeldFile>), Error> {
    // As `watch` starts: what lies there is never replaced.
    supervisor::alone(alone, &Selection::LocalOnly, false, async |sessions| {
        let report = sessions.sync(Some(key.clone()), SYNC).await?;
        mirrored(sessions).await;
        let one = report.sessions.into_iter().next();
        Ok(one.map_or((None, Vec::new()), |one| (one.commit, one.held)))
    })
    .await
}

/// Another service's files in the mirror would be taken for its work until all of them are ours.
async fn mirrored(sessions: &Supervisor) {
    let until = Instant::now() + MIRROR;
    loop {
        let status = sessions.status().await;
        let pending: u64 =
            status.map_or(0, |status| status.sessions.iter().map(|one| one.mirror.pending).sum());
        if pending == 0 {
            return;
        }
        if Instant::now() > until {
            return warn!(pending, "the mirror is behind; the next start brings it up to date");
        }
        sleep(GLANCE).await;
    }
}

/// Restores the mirror beside, which makes it the first commit.
async fn adopt_mirror(
    env: &Arc<Env>,
    key: &SessionKey,
    manner: &Manner,
    progress: &dyn Progress,
) -> Result<Option<String>, Error> {
    let beside = temporary(&manner.scratch)?;
    let (path, host) = (beside.path().to_owned(), Arc::clone(&env.host));
    let root = Arc::new(blocking(move || RootDir::open(&path, host)).await??);
    let mut policy = policy(env, None, manner);
    policy.start.command = Command::Restore;
    let noter = env.noter.as_ref().map(|noter| Arc::new(noter.another()));
    let one = One { place: root.place(None)?, root, source: None, policy, noter };
    let alone = env.of_one(key, one);
    let restored = supervisor::restore(&alone, &Selection::LocalOnly, progress).await;
    alone.last_notes().await;
    let status = restored?.into_iter().next();
    Ok(status.and_then(|status| status.head))
}

/// One session of a source, read where it lies.
fn beside(
    env: &Arc<Env>,
    key: &SessionKey,
    path: PathBuf,
    on_conflict: Option<Side>,
    manner: &Manner,
    writes: bool,
) -> Arc<Env> {
    let noter = env.noter.as_ref().filter(|_| writes).map(|noter| Arc::new(noter.another()));
    let (root, place, policy) = (Arc::clone(&env.root), env.place.clone(), policy(env, on_conflict, manner));
    env.of_one(key, One { root, place, source: Some(path), policy, noter })
}

fn policy(env: &Env, on_conflict: Option<Side>, manner: &Manner) -> Policy {
    let mut policy = env.policy.clone();
    policy.start.on_conflict = on_conflict;
    policy.label = Some(manner.label.to_owned());
    policy.filter = manner.filter.clone();
    policy
}

pub(super) fn temporary(below: &Path) -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix("session-sidecar-").tempdir_in(below);
    made.map_err(|error| Error::io(format!("no scratch directory can be made in {}", below.display()), error))
}

fn here(source: &Source, seen: &Foreseen) -> Here {
    Here { lies: source.path.is_some(), tree: seen.tree, unfit: unfit(seen) }
}

/// Why a tree cannot be copied whole. What is merely held, such as one file of JSON that a crash cut off, is told and left
/// out. // P4
fn unfit(seen: &Foreseen) -> Option<String> {
    let (scan, creds) = (&seen.sight.scan, &seen.sight.creds);
    let ruined =
        |(path, creds): (&String, &Creds)| (creds.identity == Identity::Unreadable).then(|| path.clone());
    if let Some(path) = creds.iter().find_map(ruined) {
        return Some(format!(
            "{path} is empty, cut off or cannot be read: a bot would start as a new account on it. Repair it, or remove it \
             where it is not needed"
        ));
    }
    let unreadable = |(path, reason): (&String, &Reason)| {
        matches!(reason, Reason::Unreadable | Reason::SqliteOwner).then(|| path.clone())
    };
    if let Some(path) = scan.held.iter().chain(&seen.sight.held).find_map(unreadable) {
        let path = if path.is_empty() { ".".to_owned() } else { path };
        return Some(format!(
            "{path} cannot be read by this user: run this as the user that the bot runs as"
        ));
    }
    if scan.links > 0 {
        return Some(format!(
            "{} links lie in it, which are not followed: replace them by what they lead to, or leave them out (--exclude)",
            scan.links
        ));
    }
    None
}

fn there(seen: &Foreseen) -> There {
    let content = match () {
        () if seen.is_same() && !matches!(seen.remote, Remote::Marked | Remote::Emptied) => Content::Same,
        () if seen.is_part_of_head() || (seen.tree == Tree::Empty && seen.table.is_some()) => Content::Part,
        () => Content::Other,
    };
    There {
        remote: seen.remote,
        mirror: seen.mirror,
        content,
        same_identity: seen.same_identity(),
        ahead: seen.is_behind(),
        migrated: seen.label.as_deref() == Some(plan::LABEL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_moved_since_the_plan_is_not_overruled_without_a_persons_word() {
        assert!(overrules(Some(Side::Local), None));
        assert!(!overrules(Some(Side::Local), Some(Side::Local)) && !overrules(None, None));
        let key = SessionKey::new("u", "s").unwrap();
        let id = |text: &str| Some(text.parse::<Id>().unwrap());
        let (planned, now) = (id("00000001-00000001-9f3c01ab"), id("00000002-00000001-1b20c7d9"));
        assert!(is_where_it_was(&key, planned, planned).is_ok());
        assert_eq!(is_where_it_was(&key, planned, now).unwrap_err().code(), Code::Conflict);
    }
}
