//! A runner under test, and what surrounds it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use session_sidecar::runner::port::{Connection, Event, FailureCode, Message, State};
use session_sidecar::runner::{DATABASE, Hooks, Runner, Settings};
use session_sidecar::session::SessionKey;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use crate::whatsapp::{Device, Phone, Server};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const NUMBER: &str = "15550001111";
pub const FRIEND: &str = "15550002222";

/// What the hooks were told.
#[derive(Default)]
pub struct Told {
    /// The account in a copy of the database at the moment of each link.
    pub paired: Mutex<Vec<String>>,
    pub unlinked: Mutex<Vec<SessionKey>>,
    pub states: Mutex<Vec<State>>,
    /// A commit that does not come to an end.
    pub hangs: Mutex<bool>,
    /// Where the sessions lie.
    pub root: PathBuf,
}

#[async_trait]
impl Hooks for Told {
    async fn paired(&self, key: &SessionKey) {
        let copy = tempfile::tempdir().unwrap();
        back_up(&self.root.join(key.session()).join(DATABASE), &copy.path().join(DATABASE));
        let shown = self.states.lock().unwrap().last().copied();
        assert_ne!(shown, Some(State::Working));
        self.paired.lock().unwrap().push(pn(&copy.path().join(DATABASE)));
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
    }

    async fn unlinked(&self, key: &SessionKey) {
        self.unlinked.lock().unwrap().push(key.clone());
    }

    fn changed(&self, _: &SessionKey, connection: &Connection) {
        self.states.lock().unwrap().push(connection.state);
    }
}

/// A server, a phone, and a runner with one session.
pub struct Setting {
    pub server: Server,
    pub phone: Phone,
    pub runner: Arc<Runner>,
    pub told: Arc<Told>,
    pub key: SessionKey,
    pub root: tempfile::TempDir,
}

impl Setting {
    pub async fn new() -> Self {
        let server = Server::start().await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let told = Arc::new(Told { root: root.path().to_owned(), ..Told::default() });
        let runner = runner(&server, told.clone());
        let key = SessionKey::new("u1", "s1").unwrap();
        std::fs::create_dir(root.path().join("s1")).unwrap();
        Self { phone: server.phone(NUMBER, "Ada"), server, runner, told, key, root }
    }

    /// With a linked device that is at work.
    pub async fn working() -> (Self, Device) {
        let setting = Self::new().await;
        setting.start().await;
        let device = setting.scan().await;
        setting.until(State::Working).await;
        (setting, device)
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("s1")
    }

    pub async fn start(&self) {
        self.runner.start(&self.key, &self.dir()).await.unwrap();
    }

    pub async fn stop(&self) {
        self.runner.stop(&self.key).await.unwrap();
    }

    pub async fn scan(&self) -> Device {
        let qr = self.until(State::ScanQrCode).await.qr.unwrap();
        self.phone.scan_qr(&qr.code).await.unwrap()
    }

    pub async fn until(&self, state: State) -> Connection {
        when(&self.runner, &self.key, &format!("{state:?}"), |shown| shown.state == state).await
    }

    pub async fn failed(&self, code: FailureCode) -> Connection {
        let shown = self.until(State::Failed).await;
        assert_eq!(failure(&shown), Some(code));
        shown
    }

    pub async fn shows(&self, code: FailureCode) -> Connection {
        when(&self.runner, &self.key, &format!("{code:?}"), |shown| failure(shown) == Some(code)).await
    }
}

pub fn settings(server: &Server) -> Settings {
    Settings {
        url: Some(server.url()),
        version: Some((2, 3000, 1_026_131_876)),
        pre_keys: Some(20),
        ask_again: [Duration::from_millis(20), Duration::from_millis(40)],
        ..Settings::default()
    }
}

pub fn runner(server: &Server, told: Arc<Told>) -> Arc<Runner> {
    Runner::new(settings(server).check().unwrap(), told)
}

pub fn failure(shown: &Connection) -> Option<FailureCode> {
    shown.failure.as_ref().map(|failure| failure.code)
}

/// Waits until a connection is shown as wanted.
pub async fn when(
    runner: &Runner,
    key: &SessionKey,
    what: &str,
    mut wanted: impl FnMut(&Connection) -> bool,
) -> Connection {
    let mut events = runner.events();
    let wait = async {
        loop {
            if let Some(shown) = runner.connection(key).filter(&mut wanted) {
                return shown;
            }
            // Lagging behind is no harm: the connection itself is looked at.
            let _ = events.recv().await;
        }
    };
    let found = timeout(PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("no {what} in time; shown is {:?}", runner.connection(key)))
}

/// The next message of a session.
pub async fn message(events: &mut Receiver<Event>, key: &SessionKey) -> Message {
    let wait = async {
        loop {
            match events.recv().await.unwrap() {
                Event::Message { session, message } if session == *key => return *message,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("no message in time")
}

pub async fn text(events: &mut Receiver<Event>, key: &SessionKey) -> String {
    message(events, key).await.text.unwrap()
}

/// Copies a database as the sidecar does: through SQLite, while its owner writes.
pub fn back_up(from: &Path, to: &Path) {
    let from = open(from);
    let mut to = rusqlite::Connection::open(to).unwrap();
    let backup = rusqlite::backup::Backup::new(&from, &mut to).unwrap();
    backup.run_to_completion(1000, Duration::ZERO, None).unwrap();
}

/// The account that a database is linked to.
pub fn pn(database: &Path) -> String {
    open(database).query_row("select pn from device", [], |row| row.get(0)).unwrap()
}

fn open(database: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}
