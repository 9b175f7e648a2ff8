//! What `migrate` and `import` share: the process around the moves, and how they are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use humantime::format_duration;
use tempfile::TempDir;
use tracing::{info, warn};

use super::output::Output;
use super::show::{amount, line};
use super::{progress, setup};
use crate::cli;
use crate::cli::options::{HoldArgs, RemoteArgs, StartArgs};
use crate::cli::values::Select;
use crate::config::{Config, Flags, Place, Probes, RemoteConfig, environment};
use crate::error::{Error, Result};
use crate::session::Layout;
use crate::sync::env::Env;
use crate::sync::migrate::report::{BucketSide, Doing, Has, MigrateReport, SessionMigration};
use crate::sync::migrate::{Manner, Planned, carry_out};
use crate::sync::start::Command;
use crate::telemetry::Masked;

/// What works on sessions that lie anywhere.
pub(super) struct Mover {
    pub env: Arc<Env>,
    pub config: Config,
    /// A root of our own, where none may be written to.
    _root: Option<TempDir>,
}

impl Mover {
    /// Connects, and takes the lock of the root whose sessions are moved; none: a root of our own in `scratch`.
    pub async fn open(
        root: Option<&Path>,
        scratch: &Path,
        remote: &RemoteArgs,
        hold: &HoldArgs,
    ) -> Result<Self> {
        let own = match root {
            Some(_) => None,
            None => Some(temporary(scratch)?),
        };
        let root = root.or(own.as_ref().map(TempDir::path)).unwrap_or(scratch).to_owned();
        let start = StartArgs { select: Select::None, ..cli::defaults() };
        let flags = Flags { start, hold: hold.clone(), ..Flags::default() };
        let place = Place { root, layout: Layout::Many };
        let config = Config::new(place, RemoteConfig::new(remote, &environment)?, &flags, Probes::OnRequest)?;
        let config = Config { lease: config.lease.clone().of_a_tool(), ..config };
        // As `watch` starts: no tree is replaced.
        let env = setup::env(&config, Command::Watch).await?;
        env.terms().await?;
        Ok(Self { env, config, _root: own })
    }

    /// Carries out what was planned, one after the other.
    pub async fn carry_out(
        &self,
        planned: Vec<Planned>,
        manner: &Manner,
        out: Output,
    ) -> Vec<SessionMigration> {
        let (mut done, all) = (Vec::new(), planned.len());
        for (number, one) in (1..).zip(planned) {
            let session = one.report.session.clone().unwrap_or_default();
            let progress = progress::listener(out, &format!("{number} of {all}: {session}"));
            let one = carry_out(&self.env, one, manner, &*progress).await;
            drop(progress);
            say(number, all, &one);
            done.push(one);
        }
        done
    }
}

/// A line for whoever does not see the bars.
fn say(number: usize, all: usize, one: &SessionMigration) {
    let session = one.session.as_deref().unwrap_or_default();
    let session = Masked(session);
    if let Some(error) = &one.error {
        warn!(%session, code = error.code.as_str(), "{number} of {all}: {}", Masked(&error.message));
    } else {
        info!(%session, verified = ?one.verified, removed = ?one.removed, "{number} of {all}: {}", doing(one, true));
    }
}

/// A directory in `below`, removed in the end.
pub(super) fn temporary(below: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("session-sidecar-").tempdir_in(below);
    made.map_err(|error| Error::io(format!("--scratch: nothing can be made in {}", below.display()), error))
}

/// Where the system keeps what is temporary.
pub(super) fn scratch(asked: Option<&PathBuf>) -> Result<PathBuf> {
    let scratch = asked.cloned().unwrap_or_else(std::env::temp_dir);
    std::path::absolute(&scratch).map_err(|error| Error::io("--scratch is no path", error))
}

/// The report for people.
pub(super) fn text(report: &MigrateReport) -> String {
    let mut out = String::new();
    for one in &report.sessions {
        session(&mut out, one, report.dry_run);
    }
    for ignored in &report.ignored {
        line(&mut out, format_args!("ignored: {} {}", ignored.path, ignored.why));
    }
    let count =
        |which: &dyn Fn(&SessionMigration) -> bool| report.sessions.iter().filter(|one| which(one)).count();
    let failed = count(&|one| one.error.is_some());
    let committed =
        count(&|one| one.error.is_none() && matches!(one.step, Doing::Commit | Doing::AdoptMirror));
    let skipped = count(&|one| one.error.is_none() && one.step == Doing::Skip);
    let kept = count(&|one| one.error.is_none() && one.step == Doing::KeepBucket);
    let kept = if kept > 0 { format!(", {kept} left as the bucket has them") } else { String::new() };
    let verb = if report.dry_run { "to be committed" } else { "committed" };
    let refused = if report.dry_run { "to be refused" } else { "refused or failed" };
    let s = if report.sessions.len() == 1 { "" } else { "s" };
    line(
        &mut out,
        format_args!(
            "{} session{s}: {committed} {verb}, {skipped} in the bucket already{kept}, {failed} {refused}",
            report.sessions.len()
        ),
    );
    out
}

fn session(out: &mut String, one: &SessionMigration, dry_run: bool) {
    let name = one.session.as_deref().or(one.path.as_deref()).unwrap_or_default();
    line(out, format_args!("{name}  {}", doing(one, !dry_run)));
    if let (Some(path), Some(_)) = (&one.path, &one.session) {
        let format = one.format.as_deref().unwrap_or("no known library");
        let paired = if one.paired { ", paired" } else { "" };
        let writing = if one.writing { ", written within the last minute: its bot is at work" } else { "" };
        let amount = amount(one.files, one.bytes);
        line(out, format_args!("  here: {path}, {format}{paired}, {amount}{writing}"));
    }
    if one.session.is_some() {
        line(out, format_args!("  bucket: {}", bucket(&one.bucket)));
    }
    for held in one.held.iter().take(10) {
        line(out, format_args!("  left out: {} {}", held.path, held.reason));
    }
    if one.held.len() > 10 {
        line(out, format_args!("  … and {} more (--json lists all)", one.held.len() - 10));
    }
    if let Some(kept) = one.kept.filter(|kept| *kept > 0) {
        line(
            out,
            format_args!(
                "  kept: {kept} files of which nothing is proven: the filters leave them out of the tree"
            ),
        );
    }
    if let Some(error) = &one.error {
        line(out, format_args!("  {}", error.message));
    }
}

fn doing(one: &SessionMigration, done: bool) -> String {
    let mut text = match (one.step, done && one.error.is_none()) {
        (Doing::Commit, false) => "commit",
        (Doing::Commit, true) => "committed",
        (Doing::AdoptMirror, false) => "make the bucket's plain files the first commit",
        (Doing::AdoptMirror, true) => "the bucket's plain files are the first commit",
        (Doing::Skip, _) => "in the bucket already",
        (Doing::KeepBucket, _) => "not stored: the bucket's is kept",
        (Doing::Refuse, _) => "refused",
    }
    .to_owned();
    if let Some(commit) = &one.commit {
        text = format!("{text} {commit}");
    }
    if one.verified == Some(true) {
        text.push_str(", verified");
    }
    if let Some(removed) = one.removed {
        text = format!("{text}, {removed} local files removed");
    }
    if let Some(unneeded) = one.unneeded.filter(|unneeded| *unneeded > 0) {
        text = format!("{text}, and {unneeded} that LevelDB does not need");
    }
    text
}

fn bucket(there: &BucketSide) -> String {
    let amount = amount(there.files, there.bytes);
    let head = there.head.as_deref().unwrap_or("none");
    match there.has {
        Has::Nothing => "nothing".to_owned(),
        Has::Mirror => {
            let age = there.age_seconds.and_then(|age| u64::try_from(age).ok());
            let age = age.map_or_else(
                || "of unknown age".to_owned(),
                |age| format!("the newest {} old", format_duration(std::time::Duration::from_secs(age))),
            );
            format!("plain files without a history, {amount}, {age}")
        }
        Has::Same => format!("the same, {amount}, head {head}"),
        Has::More => format!("all of this and more, {amount}, head {head}"),
        Has::SameIdentity => format!("a history of this account with another tree, {amount}, head {head}"),
        Has::Other => {
            format!("a history of another account, or of none that is known, {amount}, head {head}")
        }
        Has::Ended => format!("a history that was ended, head {head}"),
        Has::Damaged => format!("a damaged history, head {head}"),
    }
}
