//! `verify`: reads a history back and checks every byte of it.

use serde::Serialize;

use super::bucket::{Bucket, explain};
use super::output::Output;
use super::progress;
use crate::cli::Look;
use crate::error::{Error, Result};
use crate::history::{self, Access, Depth, HistoryError, Id};
use crate::session::SessionKey;
use crate::sync::points;

#[derive(Serialize)]
struct Report {
    sessions: Vec<Verified>,
}

/// A history whose head restores.
#[derive(Serialize)]
struct Verified {
    session: String,
    head: Option<Id>,
    commits: usize,
    files: u64,
    bytes: u64,
    /// Objects of all commits that are listed.
    encrypted_objects: usize,
    plaintext_objects: usize,
}

/// Verifies every session that is meant; the first one that is damaged is the error.
pub(super) async fn run(look: &Look, out: Output) -> Result<()> {
    let bucket = Bucket::open(look).await?;
    let mut sessions = Vec::new();
    for key in bucket.sessions().await? {
        let verified = verify(bucket.access(), &key, out).await?;
        if verified.head.is_none() && bucket.named.is_some() {
            // A mistyped name must not pass for ever.
            return Err(points::none(&key));
        }
        sessions.push(verified);
    }
    out.result(&Report { sessions }, text)
}

async fn verify(access: Access<'_>, key: &SessionKey, out: Output) -> Result<Verified> {
    let survey = history::survey(access.store, key, Depth::All, None).await?;
    let (encrypted_objects, plaintext_objects) = survey.count();
    let blank = Verified {
        session: key.to_string(),
        head: None,
        commits: 0,
        files: 0,
        bytes: 0,
        encrypted_objects,
        plaintext_objects,
    };
    let Some(head) = survey.head() else { return Ok(blank) };
    let progress = progress::listener(out, &format!("verifying {key}"));
    let scratch =
        tempfile::tempdir().map_err(|error| Error::io("cannot make a temporary directory", error))?;
    let checked = async {
        let chain = history::fetch(access, key, &survey, head, scratch.path(), &*progress).await?;
        let work = tokio::task::spawn_blocking(move || chain.verify().map(|()| chain));
        work.await.map_err(|error| HistoryError::io("reading the history", std::io::Error::other(error)))?
    };
    match checked.await {
        Ok(chain) => {
            let tree = chain.head().tree;
            Ok(Verified {
                head: Some(head),
                commits: chain.ids().count(),
                files: tree.files,
                bytes: tree.bytes,
                ..blank
            })
        }
        Err(error) => Err(explain(access, key, &survey, head, error).await),
    }
}

fn objects(encrypted: usize, plaintext: usize) -> String {
    match (encrypted, plaintext) {
        (0, all) => format!("{all} objects, not encrypted"),
        (all, 0) => format!("{all} objects, all encrypted"),
        (encrypted, plaintext) => format!("{encrypted} objects encrypted, {plaintext} NOT encrypted"),
    }
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for one in &report.sessions {
        lines.push(match one.head {
            None => format!("{}  no history", one.session),
            Some(head) => format!(
                "{}  verified {head}: {}, {} commits; {}",
                one.session,
                super::show::amount(one.files, one.bytes),
                one.commits,
                objects(one.encrypted_objects, one.plaintext_objects)
            ),
        });
    }
    if lines.is_empty() { "no sessions".to_owned() } else { lines.join("\n") }
}
