//! One session's place among the connections: what is shown of it, and who works at it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;
use whatsapp_rust::Client;

use super::files;
use super::manager::Hooks;
use super::port::{Connection, Event, FailureCode, Message};
use super::settings::Settings;
use super::state::{Input, Machine, Next, Now};
use crate::error::Error;
use crate::host::{Host as _, Real};
use crate::session::SessionKey;
use crate::telemetry;

/// What all sessions have in common.
pub(super) struct Common {
    pub settings: Settings,
    pub hooks: Arc<dyn Hooks>,
    pub events: broadcast::Sender<Event>,
}

/// One session.
pub(super) struct Slot {
    pub key: SessionKey,
    pub common: Arc<Common>,
    machine: Mutex<Machine>,
    shown: watch::Sender<Connection>,
    /// The client under way, or the last one; it owns the database for as long as it can be upgraded.
    client: Mutex<Weak<Client>>,
    /// Where that database lies.
    dir: Mutex<Option<PathBuf>>,
    /// Held while the session is started or ended: one connection, whoever asks.
    pub running: tokio::sync::Mutex<Option<Running>>,
}

/// The task that keeps a session connected.
pub(super) struct Running {
    pub commands: mpsc::Sender<Command>,
    pub task: JoinHandle<()>,
}

/// What the task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Keep the link, end the connection.
    Stop,
    /// End the link, then the connection.
    LogOut,
}

impl Slot {
    pub(super) fn new(key: SessionKey, common: Arc<Common>) -> Self {
        let (deadline, ask_again) = (common.settings.connect_deadline, common.settings.ask_again);
        let machine = Machine::new(now(), deadline, ask_again);
        Self {
            key,
            common,
            shown: watch::Sender::new(machine.shown().clone()),
            machine: Mutex::new(machine),
            client: Mutex::default(),
            dir: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        }
    }

    /// Tells the machine, and everybody what changed by it.
    pub(super) fn step(&self, input: Input) -> Next {
        let mut machine = lock(&self.machine);
        let next = machine.step(now(), input);
        let connection = machine.shown();
        if *connection != *self.shown.borrow() {
            // The lock is kept: changes are told in the order in which they happened.
            let before = self.shown.send_replace(connection.clone());
            self.log(&before, connection);
            self.common.hooks.changed(&self.key, connection);
            let connection = Box::new(connection.clone());
            // Nobody may be listening.
            let _ = self.common.events.send(Event::Connection { session: self.key.clone(), connection });
        }
        next
    }

    pub(super) fn message(&self, message: Message) {
        let event = Event::Message { session: self.key.clone(), message: Box::new(message) };
        let _ = self.common.events.send(event);
    }

    pub(super) fn connection(&self) -> Connection {
        self.shown.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Connection> {
        self.shown.subscribe()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        lock(&self.machine).due()
    }

    pub(super) fn is_void(&self) -> bool {
        lock(&self.machine).is_void()
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.machine).is_over()
    }

    pub(super) fn set_client(&self, client: &Arc<Client>, dir: &Path) {
        *lock(&self.client) = Arc::downgrade(client);
        *lock(&self.dir) = Some(dir.to_owned());
    }

    pub(super) fn client(&self) -> Option<Arc<Client>> {
        lock(&self.client).upgrade()
    }

    /// Waits until the last client has let go of the database.
    pub(super) async fn released(&self) -> Result<(), Error> {
        let (client, dir) = (lock(&self.client).clone(), lock(&self.dir).clone());
        match dir {
            Some(dir) => files::released(&client, &dir).await,
            None => Ok(()),
        }
    }

    fn log(&self, before: &Connection, after: &Connection) {
        let why = |connection: &Connection| connection.failure.clone();
        if before.state == after.state && why(before) == why(after) {
            return;
        }
        telemetry::session_span(&self.key).in_scope(|| match &after.failure {
            Some(failure)
                if failure.code == FailureCode::TryAgain || before.failure.as_ref() != Some(failure) =>
            {
                tracing::warn!(state = ?after.state, code = ?failure.code, "{}", failure.message);
            }
            _ => info!(state = ?after.state, "WhatsApp connection"),
        });
    }
}

fn now() -> Now {
    Now { wall: Real.now(), tick: Instant::now() }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
