use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::super::*;
use crate::error::Code;
use crate::host::Real;
use crate::sync::report::{
    BotFacts, DeleteReport, HeldFile, HistoryReport, MarkReport, Point, SessionEntry, SessionState,
    SessionStatus, SessionSync, StatusReport, SyncReport,
};

pub const HEAD: &str = "00000003-00000042-1b20c7d9";

pub fn key(text: &str) -> SessionKey {
    text.parse().unwrap()
}

/// A process that keeps the sessions it was given.
#[derive(Default)]
pub struct Sidecar {
    pub entries: Mutex<Vec<SessionEntry>>,
    pub heads: Mutex<BTreeMap<String, String>>,
    pub asked: Mutex<Vec<String>>,
    /// What every call but `status` fails with.
    pub fails: Mutex<Option<(Code, &'static str)>>,
    pub panics: Mutex<bool>,
}

impl Sidecar {
    pub fn with(self, session: &str, change: impl FnOnce(&mut SessionEntry)) -> Self {
        let key = key(session);
        let mut entry = SessionEntry {
            user_id: key.user().to_owned(),
            session_id: key.session().to_owned(),
            is_active: true,
            is_default: false,
            desired: None,
            created_at: Some("2026-11-01T00:00:00Z".parse().unwrap()),
            last_activity: None,
            row: Value::Null,
            here: Some(status(&key, HEAD)),
        };
        change(&mut entry);
        self.entries.lock().unwrap().push(entry);
        self.heads.lock().unwrap().insert(session.to_owned(), HEAD.to_owned());
        self
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn note_call(&self, call: String) -> Result<(), Error> {
        self.asked.lock().unwrap().push(call);
        assert!(!*self.panics.lock().unwrap(), "a bug");
        match *self.fails.lock().unwrap() {
            Some((code, message)) => Err(Error::new(code, message)),
            None => Ok(()),
        }
    }

    fn known(&self, key: &SessionKey) -> Result<(), Error> {
        if self.heads.lock().unwrap().contains_key(&key.to_string()) {
            Ok(())
        } else {
            Err(Error::new(Code::NotFound, "the session is not one of this root"))
        }
    }
}

fn status(key: &SessionKey, head: &str) -> SessionStatus {
    SessionStatus {
        state: SessionState::Ready,
        ready: true,
        head: Some(head.to_owned()),
        last_commit_at: Some("2026-11-27T12:00:00Z".parse().unwrap()),
        files: 12,
        bytes: 3456,
        held: vec![HeldFile {
            path: "creds.json".to_owned(),
            reason: "empty".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        }],
        ..SessionStatus::blank(key)
    }
}

#[async_trait]
impl Control for Sidecar {
    async fn status(&self) -> Result<StatusReport, Error> {
        let heads = self.heads.lock().unwrap().clone();
        let sessions = heads.iter().map(|(session, head)| status(&key(session), head)).collect();
        Ok(StatusReport { version: "1".to_owned(), running: true, watch: None, sessions })
    }

    async fn sync(&self, asked: Option<SessionKey>, _: Duration) -> Result<SyncReport, Error> {
        let key = asked.expect("one session");
        self.note_call(format!("sync {key}"))?;
        self.known(&key)?;
        let done = SessionSync {
            session: key.to_string(),
            commit: Some(HEAD.to_owned()),
            changed: true,
            files: 12,
            bytes: 3456,
            held: status(&key, HEAD).held,
        };
        Ok(SyncReport { sessions: vec![done] })
    }

    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.note_call(format!("logout {key}"))?;
        self.known(key)?;
        Ok(MarkReport { session: key.to_string(), commit: HEAD.to_owned(), pinned: None })
    }

    async fn accept_identity(&self, _: &SessionKey) -> Result<MarkReport, Error> {
        unreachable!("the API has no such call")
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        self.note_call(format!("history {key}"))?;
        self.known(key)?;
        let point = Point {
            id: HEAD.to_owned(),
            parent: None,
            base: true,
            created_at: None,
            size: 9,
            in_chain: true,
            pins: vec!["identity".to_owned()],
        };
        Ok(HistoryReport { session: key.to_string(), head: Some(HEAD.to_owned()), points: vec![point] })
    }

    async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
        self.note_call(format!("sessions {user}"))?;
        let entries = self.entries.lock().unwrap();
        Ok(entries.iter().filter(|entry| entry.user_id == user).cloned().collect())
    }

    async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        self.note_call(format!("open {key}"))?;
        Ok(status(key, HEAD))
    }

    async fn give_way(&self, _: &SessionKey) -> Result<(), Error> {
        unreachable!("the API has no such call")
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        self.note_call(format!("restore {key} {at:?}"))?;
        self.known(key)?;
        Ok(RestoreReport {
            session: key.to_string(),
            commit: Some(HEAD.to_owned()),
            restored: at.or_else(|| Some(HEAD.to_owned())),
            files: 12,
            bytes: 3456,
        })
    }

    async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        self.note_call(format!("delete {key} purge={purge}"))?;
        self.known(key)?;
        self.heads.lock().unwrap().remove(&key.to_string());
        Ok(DeleteReport {
            session: key.to_string(),
            commit: HEAD.to_owned(),
            pinned: None,
            set_aside: None,
            history_removed: 1,
            mirror_removed: 1,
        })
    }

    async fn note(&self, key: &SessionKey, facts: BotFacts) -> Result<(), Error> {
        self.note_call(format!("note {key} {:?} {:?}", facts.name, facts.is_default))
    }
}

#[cfg(feature = "runner")]
pub mod runner {
    use tokio::sync::broadcast;

    use super::*;
    use crate::runner::port::{
        Connection, Event, Failure, FailureCode, Me, PairingCode, Passkey, Qr, State as Standing, WhatsApp,
    };

    pub const CODE: &str = "2@AbCdEf/GhIjKl+MnOpQr==,key1,key2,secret,1";

    pub fn connection(state: Standing) -> Connection {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let linked = state == Standing::Working;
        Connection {
            state,
            since: at("2026-11-27T12:00:00Z"),
            me: linked.then(|| Me {
                id: "5511999990000:3@s.whatsapp.net".to_owned(),
                lid: None,
                push_name: None,
            }),
            qr: (state == Standing::ScanQrCode)
                .then(|| Qr { code: CODE.to_owned(), expires_at: at("2026-11-27T12:00:20Z") }),
            pairing_code: None,
            passkey: match state {
                Standing::PasskeyRequired => {
                    Some(Passkey::Challenge { options: json!({"challenge": "AAAA", "rpId": "whatsapp.com"}) })
                }
                Standing::PasskeyConfirmationRequired => {
                    Some(Passkey::Confirm { code: Some("ABCD-EFGH".to_owned()) })
                }
                _ => None,
            },
            failure: (state == Standing::Failed).then(|| Failure {
                code: FailureCode::QrExpired,
                message: "nobody scanned in time: connect again".to_owned(),
            }),
            next_try_at: None,
        }
    }

    /// Connections that stand where a test puts them.
    pub struct Phone {
        pub connections: Mutex<BTreeMap<SessionKey, Connection>>,
        pub asked: Mutex<Vec<String>>,
        pub events: broadcast::Sender<Event>,
        /// Where a connect leads to, after it was answered.
        pub leads_to: Mutex<Standing>,
        pub fails: Mutex<Option<(Code, &'static str)>>,
    }

    impl Default for Phone {
        fn default() -> Self {
            Self {
                connections: Mutex::default(),
                asked: Mutex::default(),
                events: broadcast::channel(4).0,
                leads_to: Mutex::new(Standing::ScanQrCode),
                fails: Mutex::default(),
            }
        }
    }

    impl Phone {
        pub fn put(&self, session: &str, connection: Connection) {
            let session = key(session);
            self.connections.lock().unwrap().insert(session.clone(), connection.clone());
            let _ = self.events.send(Event::Connection { session, connection: Box::new(connection) });
        }

        pub fn asked(&self) -> Vec<String> {
            std::mem::take(&mut *self.asked.lock().unwrap())
        }

        fn note_call(&self, call: String) -> Result<(), Error> {
            self.asked.lock().unwrap().push(call);
            match *self.fails.lock().unwrap() {
                Some((code, message)) => Err(Error::new(code, message)),
                None => Ok(()),
            }
        }
    }

    #[async_trait]
    impl WhatsApp for Phone {
        async fn connect(&self, key: &SessionKey) -> Result<Connection, Error> {
            self.note_call(format!("connect {key}"))?;
            if let Some(there) = self.connection(key).filter(|there| there.state == Standing::Working) {
                return Ok(there);
            }
            self.put(&key.to_string(), connection(Standing::Starting));
            let answer = connection(Standing::Starting);
            let next = *self.leads_to.lock().unwrap();
            self.put(&key.to_string(), connection(next));
            Ok(answer)
        }

        async fn disconnect(&self, key: &SessionKey) -> Result<(), Error> {
            self.note_call(format!("disconnect {key}"))?;
            self.put(&key.to_string(), connection(Standing::Stopped));
            Ok(())
        }

        async fn logout(&self, key: &SessionKey) -> Result<(), Error> {
            self.note_call(format!("logout {key}"))
        }

        async fn delete(&self, key: &SessionKey, logout: bool, purge: bool) -> Result<(), Error> {
            self.note_call(format!("delete {key} logout={logout} purge={purge}"))?;
            self.connections.lock().unwrap().remove(key);
            Ok(())
        }

        async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
            self.note_call(format!("restore {key} {at:?}"))?;
            if key.session() == "never-stored" {
                let session = key.to_string();
                return Ok(RestoreReport { session, commit: None, restored: None, files: 0, bytes: 0 });
            }
            let (commit, restored) = (Some(HEAD.to_owned()), at.or_else(|| Some(HEAD.to_owned())));
            Ok(RestoreReport { session: key.to_string(), commit, restored, files: 12, bytes: 3456 })
        }

        fn connection(&self, key: &SessionKey) -> Option<Connection> {
            self.connections.lock().unwrap().get(key).cloned()
        }

        fn connections(&self) -> Vec<(SessionKey, Connection)> {
            self.connections.lock().unwrap().clone().into_iter().collect()
        }

        async fn pairing_code(&self, key: &SessionKey, phone: &str) -> Result<PairingCode, Error> {
            self.note_call(format!("pairing_code {key} {phone}"))?;
            Ok(PairingCode {
                code: "ABCD-EFGH".to_owned(),
                expires_at: "2026-11-27T12:03:00Z".parse().unwrap(),
            })
        }

        async fn answer_passkey(&self, key: &SessionKey, assertion: Value) -> Result<(), Error> {
            self.note_call(format!("answer_passkey {key} {assertion}"))
        }

        async fn confirm_passkey(&self, key: &SessionKey) -> Result<(), Error> {
            self.note_call(format!("confirm_passkey {key}"))
        }

        async fn send(&self, key: &SessionKey, to: &str, text: &str) -> Result<String, Error> {
            self.note_call(format!("send {key} {to} {text}"))?;
            Ok("3EB0ABCDEF".to_owned())
        }

        fn events(&self) -> broadcast::Receiver<Event> {
            self.events.subscribe()
        }
    }
}

/// The configuration of an API without a credential.
pub fn config() -> (watch::Sender<Health>, ApiConfig) {
    let well = Health { alive: true, ready: true, lease_lost: false, why: std::collections::BTreeSet::new() };
    let (sender, health) = watch::channel(well);
    let metrics = Metrics {
        control: None,
        health: health.clone(),
        counted: None,
        #[cfg(feature = "runner")]
        whatsapp: None,
        deliveries: None,
        labels: crate::config::SessionLabels::Auto,
        started: Timestamp::UNIX_EPOCH,
        host: Arc::new(Real),
    };
    let config = ApiConfig {
        auth: Auth::Open,
        max_sessions_per_user: 3,
        sync_deadline: Duration::from_mins(1),
        cloud: CloudStorage::Enabled,
        health,
        probes: Some(Arc::new(metrics)),
        page: true,
        host: Arc::new(Real),
        stop: CancellationToken::new(),
    };
    (sender, config)
}

/// An API over fakes.
pub struct World {
    pub router: Router,
    pub sidecar: Arc<Sidecar>,
    #[cfg(feature = "runner")]
    pub phone: Arc<runner::Phone>,
    pub health: watch::Sender<Health>,
    pub stop: CancellationToken,
    calls: AtomicU32,
}

impl World {
    pub fn new(sidecar: Sidecar) -> Self {
        Self::with(sidecar, |_| ())
    }

    pub fn with(sidecar: Sidecar, change: impl FnOnce(&mut ApiConfig)) -> Self {
        let (health, mut config) = config();
        change(&mut config);
        let sidecar = Arc::new(sidecar);
        let stop = config.stop.clone();
        #[cfg(feature = "runner")]
        {
            let phone = Arc::new(runner::Phone::default());
            let router = api(sidecar.clone(), Some(phone.clone()), config);
            Self { router, sidecar, phone, health, stop, calls: AtomicU32::new(1) }
        }
        #[cfg(not(feature = "runner"))]
        Self { router: api(sidecar.clone(), config), sidecar, health, stop, calls: AtomicU32::new(1) }
    }

    pub async fn ask(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// As the mobile client asks: always `application/json`, no body where there is none.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        self.call_as(method, path, body, None).await
    }

    pub async fn call_as(
        &self,
        method: &str,
        path: &str,
        body: &str,
        token: Option<&str>,
    ) -> (StatusCode, Value) {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // Each call from another address: how often one may call is tested on its own.
        let peer = self.calls.fetch_add(1, Ordering::Relaxed);
        let request = request.extension(ConnectInfo(SocketAddr::from((peer.to_be_bytes(), 1))));
        read(self.ask(request.body(Body::from(body.to_owned())).unwrap()).await).await
    }

    pub async fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, value) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {value}");
        value
    }

    pub async fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, value) = self.call(method, path, body).await;
        problem(status, &value)
    }
}

pub async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    (status, value)
}

/// Status and code of an answer that must have the shape of a problem.
pub fn problem(status: StatusCode, value: &Value) -> (u16, String) {
    assert_eq!(value["success"], json!(false), "{status} {value}");
    assert_eq!(value["statusCode"], json!(status.as_u16()), "{value}");
    assert!(value["error"].is_string() && value["error"] == value["message"], "{value}");
    (status.as_u16(), value["code"].as_str().unwrap().to_owned())
}
