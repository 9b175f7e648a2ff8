//! The sessions of a user, put together from what this process has, what the bucket has, and what the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use super::env::Env;
use super::report::{SessionEntry, SessionStatus};
use super::{deletion, discover};
use crate::error::{Code, Error};
use crate::history::{Depth, HistoryError, Mark};
use crate::session::{SessionKey, check_id};

/// How long bucket and table may take, before the list is what the others know.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sessions that are looked at at once.
const AT_ONCE: usize = 8;
/// Bytes that the mark of an end surely fits in.
const TOMBSTONE: u64 = 4096;

/// Lists them, newest first. Neither an outage of the bucket nor one of the table hides what the others know. // P8
///
/// # Errors
/// [`Code::BadSessionId`] for a user that cannot be one; [`Code::Unreachable`] where nobody answers at all.
pub async fn sessions(env: &Env, user: &str, here: Vec<SessionStatus>) -> Result<Vec<SessionEntry>, Error> {
    check_id("user", user)?;
    let late = || Error::new(Code::Unreachable, "no answer in time");
    let bucket = async {
        let listed = timeout(PATIENCE, discover::of_user(&*env.store, user)).await.map_err(|_| late())?;
        listed.map_err(|error| Error::from(HistoryError::from(error)))
    };
    let table = async {
        match &env.noter {
            Some(noter) => timeout(PATIENCE, noter.notes().rows(user)).await.map_err(|_| late())?,
            None => Ok(Vec::new()),
        }
    };
    // Looked at before the rows are: what is not said yet is known here, what was said is in them.
    let ended = env.noter.as_ref().map(|noter| noter.ended(user)).unwrap_or_default();
    let (bucket, table) = join(bucket, table).await;
    let rows = table.unwrap_or_else(|error| {
        warn!(%error, "the table cannot be asked for a user's sessions: they are listed without it");
        Vec::new()
    });
    let stored = match bucket {
        Ok(stored) => stored,
        Err(error) if here.is_empty() && rows.is_empty() => return Err(error),
        Err(error) => {
            warn!(%error, "the bucket cannot be asked for a user's sessions: they are listed without it");
            BTreeSet::new()
        }
    };
    let known: BTreeSet<&str> = rows.iter().filter_map(|row| row["session_id"].as_str()).collect();
    let is_here = |key: &SessionKey| here.iter().any(|status| status.session == key.to_string());
    let told = |key: &SessionKey| known.contains(key.session()) || is_here(key);
    let (told, untold): (BTreeSet<_>, BTreeSet<_>) =
        stored.into_iter().filter(|key| env.layout.covers(key)).partition(told);
    let live = stream::iter(untold).map(async |key| (!has_ended(env, &key).await).then_some(key));
    let live: Vec<Option<SessionKey>> = live.buffer_unordered(AT_ONCE).collect().await;
    let stored = told.into_iter().chain(live.into_iter().flatten()).collect();
    Ok(merge(user, stored, rows, here, &ended))
}

/// Whether all that the bucket has of a session is that it was logged out or deleted; where that cannot be told, it is
/// listed. Only what no row tells of is looked at.
async fn has_ended(env: &Env, key: &SessionKey) -> bool {
    let mark = async {
        let survey = env.list(key, Depth::Chain).await?;
        let head =
            survey.head().filter(|id| survey.commits.get(id).is_some_and(|commit| commit.size() < TOMBSTONE));
        match head {
            Some(head) => deletion::mark_of(env, key, &survey, head).await,
            None => Ok(None),
        }
    };
    let mark = timeout(PATIENCE, mark).await;
    matches!(mark, Ok(Ok(Some(Mark::Logout | Mark::Delete))))
}

fn merge(
    user: &str,
    stored: BTreeSet<SessionKey>,
    rows: Vec<Value>,
    here: Vec<SessionStatus>,
    ended: &BTreeMap<SessionKey, bool>,
) -> Vec<SessionEntry> {
    let mut entries: BTreeMap<String, SessionEntry> = BTreeMap::new();
    for row in rows {
        let Some(session) = row["session_id"].as_str() else { continue };
        if SessionKey::new(user, session).is_err() {
            continue;
        }
        let entry = of_row(user, session, row.clone());
        match entries.get(session) {
            // A table without the constraint may have several: an active one counts, then the newest.
            Some(known) if rank(known) >= rank(&entry) => {}
            _ => drop(entries.insert(entry.session_id.clone(), entry)),
        }
    }
    for key in stored {
        let session = key.session();
        entries.entry(session.to_owned()).or_insert_with(|| of_row(user, session, Value::Null));
    }
    for status in here {
        let Ok(key) = status.session.parse::<SessionKey>() else { continue };
        let session = key.session();
        let entry = entries.entry(session.to_owned()).or_insert_with(|| of_row(user, session, Value::Null));
        entry.last_activity = entry.last_activity.max(status.last_commit_at);
        entry.here = Some(status);
    }
    for (key, untold) in ended {
        // A row that was told may have begun again elsewhere since; without one nobody else says that it is over.
        if let Some(entry) = entries.get_mut(key.session()).filter(|entry| *untold || entry.row.is_null()) {
            entry.is_active = false;
        }
    }
    let mut entries: Vec<SessionEntry> = entries.into_values().collect();
    entries.sort_by(|a, b| {
        (b.created_at, b.last_activity, &a.session_id).cmp(&(a.created_at, a.last_activity, &b.session_id))
    });
    entries
}

fn rank(entry: &SessionEntry) -> (bool, Option<Timestamp>) {
    (entry.is_active, entry.last_activity.max(entry.created_at))
}

/// What a row says; a column that is missing, or of another type than it should be, says nothing.
fn of_row(user: &str, session: &str, row: Value) -> SessionEntry {
    // `timestamptz` comes as 2026-11-23T21:00:00+00:00, `timestamp` without a zone, which the old service wrote in UTC.
    let time = |name: &str| {
        let text = row[name].as_str()?;
        text.parse().or_else(|_| format!("{text}Z").parse()).ok()
    };
    SessionEntry {
        user_id: user.to_owned(),
        session_id: session.to_owned(),
        is_active: row["is_active"].as_bool() != Some(false),
        is_default: row["is_default"].as_bool() == Some(true),
        desired: row["session_data"]["sidecar"]["desired"].as_bool(),
        created_at: time("created_at"),
        last_activity: time("last_activity"),
        here: None,
        row,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(session: &str, created: &str, active: bool) -> Value {
        json!({"user_id": "u", "session_id": session, "is_active": active, "created_at": created})
    }

    #[test]
    fn whoever_knows_a_session_makes_it_listed_and_the_newest_is_first() {
        let rows = vec![
            row("old", "2026-11-20T10:00:00+00:00", true),
            row("new", "2026-11-23T10:00:00.123", false),
            json!({"user_id": "u", "session_id": "../x"}),
            json!({"session_id": null}),
        ];
        let stored = BTreeSet::from(["u/old".parse().unwrap(), "u/bucket".parse().unwrap()]);
        let here = SessionStatus { files: 7, ..SessionStatus::blank(&"u/here".parse().unwrap()) };
        let merged = merge("u", stored, rows, vec![here], &BTreeMap::new());
        let ids: Vec<&str> = merged.iter().map(|entry| entry.session_id.as_str()).collect();
        assert_eq!(ids, ["new", "old", "bucket", "here"]);
        assert!(!merged[0].is_active && merged[2].is_active && merged[3].here.as_ref().unwrap().files == 7);
    }

    #[test]
    fn of_two_rows_of_one_session_the_active_one_counts() {
        let rows = vec![
            row("s", "2026-11-23T10:00:00Z", false),
            json!({"user_id": "u", "session_id": "s", "is_default": true, "created_at": "2026-11-20T10:00:00Z",
                   "session_data": {"sidecar": {"desired": false}}}),
        ];
        let merged = merge("u", BTreeSet::new(), rows, Vec::new(), &BTreeMap::new());
        assert_eq!(merged.len(), 1);
        assert!(merged[0].is_active && merged[0].is_default && merged[0].desired == Some(false));
    }

    #[test]
    fn what_was_just_ended_is_not_called_active_because_its_row_is_a_moment_behind() {
        let of = |session: &str| row(session, "2026-11-23T10:00:00Z", true);
        let stored = BTreeSet::from(["u/rowless".parse().unwrap(), "u/kept".parse().unwrap()]);
        let ended = [("u/untold", true), ("u/told", false), ("u/rowless", false)];
        let ended = ended.map(|(key, untold)| (key.parse().unwrap(), untold)).into();
        let merged = merge("u", stored, vec![of("told"), of("untold")], Vec::new(), &ended);
        let active = merged.iter().filter(|one| one.is_active).map(|one| one.session_id.as_str());
        assert_eq!(active.collect::<Vec<_>>(), ["told", "kept"], "one that was told began again elsewhere");
    }
}
