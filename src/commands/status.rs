//! The status of a root that no process holds, and of a whole project: what the bucket shows.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::bucket::Bucket;
use crate::cli::Look;
use crate::error::Result;
use crate::history::{self, Access, Depth, HistoryError, Mark, archive};
use crate::session::SessionKey;
use crate::store::read;
use crate::sync::discover;
use crate::sync::report::{SessionState, SessionStatus, StatusReport};

/// Histories that are read at once.
const AT_ONCE: usize = 16;

/// The sessions that are meant, or all that the bucket has below the root.
pub(super) async fn idle(look: &Look) -> Result<StatusReport> {
    let bucket = Bucket::open(look).await?;
    report(bucket.access(), bucket.sessions().await?).await
}

/// All sessions that have a history, wherever their roots are. No lease is taken, and this disk has no say.
pub(super) async fn project(look: &Look) -> Result<StatusReport> {
    let bucket = Bucket::open(look).await?;
    let sessions = discover::with_history(&*bucket.store).await.map_err(HistoryError::from)?;
    report(bucket.access(), sessions.into_iter().collect()).await
}

async fn report(access: Access<'_>, keys: Vec<SessionKey>) -> Result<StatusReport> {
    let sessions = stream::iter(keys).map(|key| async move { session(access, &key).await });
    let sessions = sessions.buffered(AT_ONCE).try_collect().await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(StatusReport { version, running: false, watch: None, sessions })
}

/// What the bucket knows of a session.
async fn session(access: Access<'_>, key: &SessionKey) -> Result<SessionStatus> {
    let mut status = SessionStatus { state: SessionState::Stopped, ..SessionStatus::blank(key) };
    let survey = history::survey(access.store, key, Depth::Chain, None).await?;
    let Some((id, listed)) = survey.commits.last_key_value() else {
        status.alarms.push("it has no history yet".to_owned());
        return Ok(status);
    };
    status.head = Some(id.to_string());
    status.last_commit_at = listed.created_at();
    match head(access, key, listed).await {
        Ok(commit) => {
            (status.files, status.bytes) = (commit.tree.files, commit.tree.bytes);
            let over = match commit.mark {
                Some(Mark::Logout) => Some("the account was logged out: it restores as a new session"),
                Some(Mark::Delete) => Some("it was deleted: it restores as a new session"),
                Some(Mark::Rewind) | None => None,
            };
            status.alarms.extend(over.map(str::to_owned));
        }
        Err(error) if error.is_outage() => return Err(error.into()),
        // The others can still be shown, and an alarm says what `verify` would.
        Err(error) => status.alarms.push(format!("{error}: `verify` tells more")),
    }
    Ok(status)
}

/// The commit itself, which says how large its tree is.
async fn head(
    access: Access<'_>,
    key: &SessionKey,
    listed: &history::survey::Listed,
) -> Result<history::Commit, HistoryError> {
    // `commit.json` is the first entry, but it need not end in the first part.
    let mut bytes = Vec::new();
    for object in &listed.objects {
        bytes.append(&mut read(access.store, &object.key).await?);
    }
    archive::header(&*bytes, &listed.name, key, access.keys)
}
