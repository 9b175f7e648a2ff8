//! Sessions that lie on this disk alone: no history, no lease, nothing to restore from.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::control::Control;
use super::discover;
use super::journal::blocking;
use super::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionState,
    SessionStatus, SessionSync, StatusReport, SyncReport,
};
use super::rootdir::RootDir;
use crate::error::{Code, Error};
use crate::host::Host;
use crate::session::{Layout, SessionKey};
use crate::tree::Dir;
use crate::tree::publish::set_aside;

/// The keeper of a root without Supabase. Holds the root's lock.
pub struct LocalOnly {
    root: Arc<RootDir>,
    layout: Layout,
    host: Arc<dyn Host>,
    known: Mutex<BTreeSet<SessionKey>>,
}

impl std::fmt::Debug for LocalOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalOnly")
    }
}

impl LocalOnly {
    /// Finds the sessions that lie there.
    pub fn new(root: RootDir, layout: Layout, host: Arc<dyn Host>) -> Result<Self, Error> {
        let failed = |error| Error::io("the root cannot be read", error);
        let found = discover::local(&Dir::open(root.root()).map_err(failed)?, &layout).map_err(failed)?;
        Ok(Self { root: Arc::new(root), layout, host, known: Mutex::new(found.sessions) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SessionKey>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status_of(key: &SessionKey) -> SessionStatus {
        SessionStatus { state: SessionState::Ready, ready: true, ..SessionStatus::blank(key) }
    }

    /// The tree is kept for a week, as every tree that is replaced.
    async fn put_aside(&self, key: &SessionKey) -> Result<Option<String>, Error> {
        let (site, host) = (self.root.site(&self.layout, key), Arc::clone(&self.host));
        let moved = blocking(move || set_aside(&site, &*host)).await?;
        let moved = moved.map_err(|error| Error::io("the local tree cannot be set aside", error))?;
        Ok(moved.set_aside.map(|path| path.display().to_string()))
    }
}

/// What only Supabase could do.
fn no_history(key: &SessionKey) -> Error {
    Error::new(
        Code::NoSession,
        format!("session {key} has no history: this process runs without Supabase (--local-only)"),
    )
}

#[async_trait]
impl Control for LocalOnly {
    async fn status(&self) -> Result<StatusReport, Error> {
        let sessions = self.lock().iter().map(Self::status_of).collect();
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            watch: None,
            sessions,
        })
    }

    /// The disk is all there is: nothing is dirty, nothing is committed.
    async fn sync(&self, key: Option<SessionKey>, _: Duration) -> Result<SyncReport, Error> {
        let known = self.lock().clone();
        let keys = match key {
            Some(key) if known.contains(&key) => BTreeSet::from([key]),
            Some(key) => {
                return Err(Error::new(Code::NotFound, format!("session {key} is not one of this root")));
            }
            None => known,
        };
        let done = |key: SessionKey| SessionSync {
            session: key.to_string(),
            commit: None,
            changed: false,
            files: 0,
            bytes: 0,
            held: Vec::new(),
        };
        Ok(SyncReport { sessions: keys.into_iter().map(done).collect() })
    }

    /// Nothing is to be recorded; the void tree goes with the `restore` that follows.
    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.put_aside(key).await?;
        Err(no_history(key))
    }

    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        Err(no_history(key))
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        Err(no_history(key))
    }

    async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
        crate::session::check_id("user", user)?;
        let known = self.lock();
        let of_user = known.iter().filter(|key| key.user() == user);
        let entry = |key: &SessionKey| SessionEntry {
            user_id: user.to_owned(),
            session_id: key.session().to_owned(),
            is_active: true,
            is_default: false,
            desired: None,
            created_at: None,
            last_activity: None,
            row: serde_json::Value::Null,
            here: Some(Self::status_of(key)),
        };
        Ok(of_user.map(entry).collect())
    }

    async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        if !self.layout.covers(key) {
            let text = format!("session {key} cannot lie below this root: see --session and --user");
            return Err(Error::new(Code::NotFound, text));
        }
        self.lock().insert(key.clone());
        Ok(Self::status_of(key))
    }

    async fn restore(&self, key: &SessionKey, _: Option<String>) -> Result<RestoreReport, Error> {
        Err(no_history(key))
    }

    async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        if !self.lock().remove(key) {
            return Err(no_history(key));
        }
        let set_aside = self.put_aside(key).await?;
        if purge {
            let removed = self.root.remove_set_aside(key);
            removed.map_err(|error| Error::io("the local tree cannot be removed", error))?;
        }
        Ok(DeleteReport {
            session: key.to_string(),
            commit: String::new(),
            pinned: None,
            set_aside: set_aside.filter(|_| !purge),
            history_removed: 0,
            mirror_removed: 0,
        })
    }

    async fn give_way(&self, key: &SessionKey) -> Result<(), Error> {
        Err(no_history(key))
    }

    async fn note(&self, _: &SessionKey, _: BotFacts) -> Result<(), Error> {
        Ok(())
    }
}
