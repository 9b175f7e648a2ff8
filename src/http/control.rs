//! The control socket: how other commands ask the process that holds a root.
//!
//! HTTP over a Unix socket below the state directory, open to its owner alone. An error travels as
//! `{"error":{"code","message"}}` and comes out as the same [`Error`].

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::RequestBuilder;
use rustls::RootCertStore;
use rustls::crypto::ring;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::status::status_of;
use crate::error::{Code, Error, ErrorReport};
use crate::session::SessionKey;
use crate::sync::control::Control;
use crate::sync::report::{HistoryReport, MarkReport, StatusReport, SyncReport};

/// How long a `sync` may take when the caller does not say.
const DEADLINE: Duration = Duration::from_mins(1);
/// How long the answer may take on top of the work that was asked for.
const SLACK: Duration = Duration::from_secs(10);

/// Opens the socket in place of one that an earlier life left behind. Only the process that holds the
/// root's lock may call it.
///
/// The path must fit a socket address (107 bytes): below a deep root, go through `/proc/self/fd`.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("~");
    let fresh = Path::new(&fresh);
    match std::fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(fresh)?;
    // Nobody may connect at the known name before its mode is right.
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(fresh, path)?;
    Ok(listener)
}

/// Answers until `stop`.
pub async fn serve(
    listener: UnixListener,
    control: Arc<dyn Control>,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(control)).with_graceful_shutdown(stop.cancelled_owned()).await
}

type Shared = State<Arc<dyn Control>>;

/// The calls of [`Control`], one route each.
pub fn router(control: Arc<dyn Control>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/history", get(history))
        .route("/sync", post(sync))
        .route("/logout", post(logout))
        .route("/accept-identity", post(accept_identity))
        .with_state(control)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SyncRequest {
    session: Option<String>,
    deadline_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SessionRequest {
    session: String,
}

async fn status(State(control): Shared) -> Response {
    answer(control.status().await)
}

async fn history(State(control): Shared, Query(request): Query<SessionRequest>) -> Response {
    answer(async { control.history(&request.session.parse()?).await }.await)
}

async fn sync(State(control): Shared, body: Bytes) -> Response {
    let work = async {
        let request: SyncRequest = if body.is_empty() { SyncRequest::default() } else { json(&body)? };
        let key = request.session.as_deref().map(str::parse).transpose()?;
        control.sync(key, request.deadline_ms.map_or(DEADLINE, Duration::from_millis)).await
    };
    answer(work.await)
}

async fn logout(State(control): Shared, body: Bytes) -> Response {
    answer(async { control.logout(&json::<SessionRequest>(&body)?.session.parse()?).await }.await)
}

async fn accept_identity(State(control): Shared, body: Bytes) -> Response {
    answer(async { control.accept_identity(&json::<SessionRequest>(&body)?.session.parse()?).await }.await)
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::new(Code::Usage, "not the JSON that is expected").because(error))
}

fn answer<T: Serialize>(result: Result<T, Error>) -> Response {
    match result {
        Ok(report) => Json(report).into_response(),
        Err(error) => (status_of(error.code()), Json(ErrorReport::from(&error))).into_response(),
    }
}

/// The other end of the socket: a [`Control`] that asks the process behind it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client of this socket; connects with every call. The path is used as it is: one through
    /// `/proc/self/fd` needs its descriptor open as long as the client lives.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Code::Internal, "cannot make a client for the control socket").because(error)
        };
        // Never used, but asked for: without it the client would look for certificates that a small image lacks.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .unix_socket(path)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { http })
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, within: Duration) -> Result<T, Error> {
        let silent = |error: reqwest::Error| {
            Error::new(
                Code::RootLocked,
                "the process that holds the root does not answer at its control socket: it is starting, \
                 stopping or stuck; try again, or look at its logs",
            )
            .because(error.without_url())
        };
        let response = request.timeout(within + SLACK).send().await.map_err(silent)?;
        let well = response.status().is_success();
        let body = response.bytes().await.map_err(silent)?;
        if well {
            return serde_json::from_slice(&body).map_err(foreign);
        }
        Err(serde_json::from_slice::<ErrorReport>(&body).map_or_else(foreign, Error::from))
    }

    async fn mark(&self, path: &str, key: &SessionKey) -> Result<MarkReport, Error> {
        let request = SessionRequest { session: key.to_string() };
        self.ask(self.http.post(url(path)).json(&request), DEADLINE).await
    }
}

fn foreign(error: serde_json::Error) -> Error {
    Error::new(
        Code::Internal,
        "the process that holds the root is of another version: its answer is not understood",
    )
    .because(error)
}

/// The host is never looked up.
fn url(path: &str) -> String {
    format!("http://sidecar{path}")
}

#[async_trait]
impl Control for Client {
    async fn status(&self) -> Result<StatusReport, Error> {
        self.ask(self.http.get(url("/status")), Duration::ZERO).await
    }

    async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error> {
        let deadline_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        let request = SyncRequest { session: key.map(|key| key.to_string()), deadline_ms };
        self.ask(self.http.post(url("/sync")).json(&request), deadline).await
    }

    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.mark("/logout", key).await
    }

    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.mark("/accept-identity", key).await
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        self.ask(self.http.get(url("/history")).query(&[("session", key.to_string())]), DEADLINE).await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Mutex;

    use super::*;
    use crate::sync::report::SessionSync;

    /// Records what was asked.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Recorder {
        fn note(&self, call: impl Into<String>) {
            self.0.lock().unwrap().push(call.into());
        }
    }

    #[async_trait]
    impl Control for Recorder {
        async fn status(&self) -> Result<StatusReport, Error> {
            Ok(StatusReport { version: "1".to_owned(), running: true, watch: None, sessions: Vec::new() })
        }

        async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error> {
            self.note(format!("sync {key:?} {deadline:?}"));
            let session = SessionSync {
                session: "u/s".to_owned(),
                commit: None,
                changed: false,
                files: 1,
                bytes: 2,
                held: Vec::new(),
            };
            Ok(SyncReport { sessions: vec![session] })
        }

        async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
            self.note(format!("logout {key}"));
            Err(Error::new(Code::LeaseLost, "taken").because("by another"))
        }

        async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
            self.note(format!("accept-identity {key}"));
            Ok(MarkReport { session: key.to_string(), commit: "c".to_owned(), pinned: None })
        }

        async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
            self.note(format!("history {key}"));
            Ok(HistoryReport { session: key.to_string(), head: None, points: Vec::new() })
        }
    }

    #[tokio::test]
    async fn every_call_and_every_error_passes_through_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "left behind by an earlier life").unwrap();
        let recorder = Arc::new(Recorder::default());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(bind(&path).unwrap(), recorder.clone(), stop.clone()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let client = Client::new(&path).unwrap();
        let key: SessionKey = "u+1/s@x".parse().unwrap();
        assert!(client.status().await.unwrap().running);
        let deadline = Duration::from_millis(1500);
        assert_eq!(client.sync(Some(key.clone()), deadline).await.unwrap().sessions[0].bytes, 2);
        client.sync(None, deadline).await.unwrap();
        assert_eq!(client.history(&key).await.unwrap().session, "u+1/s@x");
        assert_eq!(client.accept_identity(&key).await.unwrap().commit, "c");
        let error = client.logout(&key).await.unwrap_err();
        assert_eq!((error.code(), error.to_string()), (Code::LeaseLost, "taken: by another".to_owned()));

        let asked = recorder.0.lock().unwrap().clone();
        assert_eq!(
            asked[1..],
            ["sync None 1.5s", "history u+1/s@x", "accept-identity u+1/s@x", "logout u+1/s@x",]
        );
        assert!(asked[0].starts_with("sync Some(") && asked[0].contains("u+1"), "{}", asked[0]);

        stop.cancel();
        server.await.unwrap().unwrap();
        let error = client.status().await.unwrap_err();
        assert_eq!(error.code(), Code::RootLocked, "{error}");
    }

    #[tokio::test]
    async fn a_malformed_request_is_an_error_of_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Recorder::default()), stop.clone()));
        let client = Client::new(&path).unwrap();
        for body in ["{", "{}", r#"{"session":"../x"}"#] {
            let request = client.http.post(url("/logout")).body(body);
            let error = client.ask::<MarkReport>(request, DEADLINE).await.unwrap_err();
            assert_eq!(error.code().exit(), 2, "{error}");
        }
        let plain: SyncReport = client.ask(client.http.post(url("/sync")), DEADLINE).await.unwrap();
        assert_eq!(plain.sessions.len(), 1);
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_socket_below_a_deep_root_is_reached_through_its_directory() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let open = std::fs::File::open(&deep).unwrap();
        let path = std::path::PathBuf::from(format!("/proc/self/fd/{}/control.sock", open.as_raw_fd()));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Recorder::default()), stop.clone()));
        assert!(Client::new(&path).unwrap().status().await.unwrap().running);
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
