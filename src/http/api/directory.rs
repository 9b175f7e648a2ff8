//! The sessions of each user, remembered for a moment: a client that asks each second must not make us ask the bucket
//! and the table each second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Api;
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::report::{SessionEntry, SessionStatus};

/// How old an answer may be.
const REMEMBERED: Duration = Duration::from_secs(3);
/// More users are not remembered at once.
const MOST: usize = 4096;

type Entries = Arc<Vec<SessionEntry>>;

/// The sessions of each user.
#[derive(Default)]
pub struct Directory {
    known: Mutex<HashMap<String, (Instant, Entries)>>,
    /// One new session at a time for each user, so that none slips past their number.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Directory {
    /// The sessions of a user, newest first, at most a moment old.
    pub async fn of(&self, user: &str, api: &Api) -> Result<Entries, Error> {
        if let Some((at, entries)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(user)
            && at.elapsed() < REMEMBERED
        {
            return Ok(entries.clone());
        }
        self.fresh(user, api).await
    }

    /// The sessions of a user as they are now. Where the project does not answer, those of this process.
    pub async fn fresh(&self, user: &str, api: &Api) -> Result<Entries, Error> {
        let entries = match api.control.sessions(user).await {
            Ok(entries) => entries,
            Err(error) if matches!(error.code(), Code::Unreachable | Code::Unauthorized) => {
                tracing::warn!(%error, "the sessions of a user cannot be listed: those of this process are");
                here(user, api.control.status().await?.sessions)
            }
            Err(error) => return Err(error),
        };
        let entries = Arc::new(entries);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if known.len() < MOST {
            known.insert(user.to_owned(), (Instant::now(), entries.clone()));
        }
        Ok(entries)
    }

    /// Something changed.
    pub fn forget(&self, user: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(user);
    }

    /// Waits until nobody else begins a session for this user.
    #[cfg(feature = "runner")]
    pub async fn turn(&self, user: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(user.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

fn here(user: &str, sessions: Vec<SessionStatus>) -> Vec<SessionEntry> {
    let of_this_process = |status: SessionStatus| {
        let key: SessionKey = status.session.parse().ok()?;
        (key.user() == user).then(|| SessionEntry {
            user_id: key.user().to_owned(),
            session_id: key.session().to_owned(),
            is_active: true,
            is_default: false,
            desired: None,
            created_at: None,
            last_activity: status.last_commit_at,
            row: serde_json::Value::Null,
            here: Some(status),
        })
    };
    let mut entries: Vec<_> = sessions.into_iter().filter_map(of_this_process).collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.last_activity));
    entries
}
