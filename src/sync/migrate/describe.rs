//! A session as `migrate` and `import` tell of it: both of its sides, and what is to be done.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::Source;
use super::clean::{is_recent, newest_write};
use super::plan::{Content, Step, There};
use super::report::{BucketSide, Doing, Failure, Has, SessionMigration};
use crate::error::Error;
use crate::sync::look::Sight;
use crate::sync::mirror_fetch::Fetched;
use crate::sync::open::Foreseen;
use crate::sync::report::HeldFile;
use crate::sync::start::{Mirror, Remote};
use crate::tree::identity::Format;
use crate::tree::{Preset, Table};

/// Both sides of a session, and what is to be done with it.
pub(super) fn describe(
    source: &Source,
    seen: &Foreseen,
    there: There,
    step: &Step,
    now: Timestamp,
) -> SessionMigration {
    let creds = || seen.sight.creds.values();
    let paired = creds().any(|creds| creds.identity.is_paired());
    let format = creds().find_map(|creds| creds.format).map(Format::as_str);
    let format = format.or_else(|| seen.filter.preset().map(Preset::as_str));
    let writing = newest_write(&seen.sight.scan).is_some_and(|at| is_recent(at, now));
    // Of a tree that is not what counts, nothing is left out.
    let held = match step {
        Step::AdoptMirror | Step::KeepBucket => Vec::new(),
        Step::Commit { .. } | Step::Skip | Step::Refuse { .. } => held(&seen.sight, now),
    };
    let (step, error) = match step {
        Step::Commit { .. } => (Doing::Commit, None),
        Step::Skip => (Doing::Skip, None),
        Step::KeepBucket => (Doing::KeepBucket, None),
        Step::AdoptMirror => (Doing::AdoptMirror, None),
        Step::Refuse { code, why } => {
            (Doing::Refuse, Some(Failure { code: *code, message: format!("session {}: {why}", source.key) }))
        }
    };
    SessionMigration {
        session: Some(source.key.to_string()),
        path: source.path.as_ref().map(|path| path.display().to_string()),
        format: format.map(str::to_owned),
        paired,
        files: seen.local.files.len() as u64,
        bytes: seen.local.bytes(),
        writing,
        bucket: bucket(seen, there),
        step,
        commit: None,
        held,
        verified: None,
        removed: None,
        unneeded: None,
        kept: None,
        error,
    }
}

fn bucket(seen: &Foreseen, there: There) -> BucketSide {
    let mirror = seen.mirrored.as_ref();
    let has = match (there.remote, there.content) {
        (Remote::Nothing, _) if there.mirror != Mirror::None => Has::Mirror,
        (Remote::Nothing | Remote::Unreachable { .. }, _) => Has::Nothing,
        (Remote::Marked | Remote::Emptied, _) => Has::Ended,
        (Remote::Commits(_), _) if seen.is_damaged() => Has::Damaged,
        (Remote::Commits(_), Content::Same) => Has::Same,
        (Remote::Commits(_), Content::Part) => Has::More,
        (Remote::Commits(_), Content::Other) if there.same_identity => Has::SameIdentity,
        (Remote::Commits(_), Content::Other) => Has::Other,
    };
    let table = seen.table.as_ref().or(mirror.map(|mirror| &mirror.table));
    BucketSide {
        has,
        head: seen.head.map(|id| id.to_string()),
        files: table.map_or(0, |table| table.files.len() as u64),
        bytes: table.map_or(0, Table::bytes),
        age_seconds: mirror.and_then(Fetched::age).map(|age| age.as_secs()),
    }
}

/// What lies there and is not fit to be committed. // P8
pub(super) fn held(sight: &Sight, since: Timestamp) -> Vec<HeldFile> {
    let held: BTreeMap<_, _> = sight.scan.held.iter().chain(&sight.held).collect();
    held.into_iter()
        .map(|(path, reason)| HeldFile { path: path.clone(), reason: reason.as_str().to_owned(), since })
        .collect()
}

/// What is said of a directory whose name cannot be that of a session.
#[must_use]
pub fn nameless(name: &str, path: &Path, error: &Error) -> SessionMigration {
    SessionMigration {
        session: None,
        path: Some(path.display().to_string()),
        format: None,
        paired: false,
        files: 0,
        bytes: 0,
        writing: false,
        bucket: BucketSide { has: Has::Nothing, head: None, files: 0, bytes: 0, age_seconds: None },
        step: Doing::Refuse,
        commit: None,
        held: Vec::new(),
        verified: None,
        removed: None,
        unneeded: None,
        kept: None,
        error: Some(Failure {
            code: error.code(),
            message: format!("{name}: {error}: rename the directory"),
        }),
    }
}
