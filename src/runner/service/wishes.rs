//! What is wanted of each session, and what came of it while it has no connection of its own to show.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::host::{Host as _, Real};

use crate::runner::port::{Connection, Failure, State};
use crate::session::SessionKey;

#[derive(Debug, Clone)]
struct Wish {
    connected: bool,
    since: Timestamp,
    /// Why it could not be brought up, and when that was.
    failure: Option<(Failure, Instant)>,
}

/// Between two tries to bring up what is wanted.
const AGAIN: Duration = Duration::from_secs(10);

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<BTreeMap<SessionKey, Wish>>);

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Wish>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_known(&self, key: &SessionKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Whether it is to be brought up now: not at once again after a failure.
    pub fn is_due(&self, key: &SessionKey) -> bool {
        let rested = |wish: &Wish| wish.failure.as_ref().is_none_or(|(_, at)| at.elapsed() >= AGAIN);
        self.lock().get(key).is_some_and(|wish| wish.connected && rested(wish))
    }

    /// A person said so.
    pub fn set(&self, key: &SessionKey, connected: bool) {
        self.lock().insert(key.clone(), Wish { connected, since: Real.now(), failure: None });
    }

    /// So it was before; a person's word counts more.
    pub fn learn(&self, key: &SessionKey, connected: bool) {
        let wish = Wish { connected, since: Real.now(), failure: None };
        self.lock().entry(key.clone()).or_insert(wish);
    }

    pub fn came_to(&self, key: &SessionKey, failure: Option<Failure>) {
        if let Some(wish) = self.lock().get_mut(key) {
            wish.failure = failure.map(|failure| (failure, Instant::now()));
        }
    }

    pub fn forget(&self, key: &SessionKey) {
        self.lock().remove(key);
    }

    pub fn keys(&self) -> Vec<SessionKey> {
        self.lock().keys().cloned().collect()
    }

    /// The connection as people see it: one that is wanted and not there yet is starting, or says why it is not.
    pub fn over(&self, key: &SessionKey, connection: Option<Connection>) -> Option<Connection> {
        let wish = self.lock().get(key).cloned();
        let Some(wish) = wish.filter(|wish| wish.connected) else {
            return connection;
        };
        let idle = connection.as_ref().is_none_or(|now| now.state == State::Stopped);
        match (wish.failure, connection) {
            (Some((failure, _)), connection) if idle => Some(Connection {
                failure: Some(failure),
                me: connection.and_then(|now| now.me),
                ..Connection::new(State::Failed, wish.since)
            }),
            (None, connection) if idle => Some(Connection {
                me: connection.and_then(|now| now.me),
                ..Connection::new(State::Starting, wish.since)
            }),
            (_, connection) => connection,
        }
    }
}
