//! The control socket: how other commands ask the process that holds a root.
//!
//! HTTP over a Unix socket below the state directory, open to its owner alone. An error travels as
//! `{"error":{"code","message"}}` and comes out as the same [`Error`].

mod client;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::status::status_of;
use crate::config::Secret;
use crate::error::{Code, Error, ErrorReport};
use crate::sync::control::Control;
use crate::sync::report::BotFacts;
pub use client::Client;

/// How long a `sync` may take when the caller does not say.
const DEADLINE: Duration = Duration::from_mins(1);
/// Where the same calls lie on the API of a sidecar, for the runner in its pod.
pub const PREFIX: &str = "/control";

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
    token: Option<Secret>,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(control, token)).with_graceful_shutdown(stop.cancelled_owned()).await
}

type Shared = State<Arc<dyn Control>>;

/// The calls of [`Control`], one route each. What destroys or replaces a tree needs the token; without one it is refused.
pub fn router(control: Arc<dyn Control>, token: Option<Secret>) -> Router {
    let guarded = destructive(Arc::clone(&control)).layer(middleware::from_fn_with_state(token, guard));
    harmless(control).merge(guarded)
}

/// The same for callers that were let in already.
pub fn open_router(control: Arc<dyn Control>) -> Router {
    harmless(Arc::clone(&control)).merge(destructive(control))
}

fn harmless(control: Arc<dyn Control>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/history", get(history))
        .route("/sessions", get(sessions))
        .route("/sync", post(sync))
        .route("/logout", post(logout))
        .route("/accept-identity", post(accept_identity))
        .route("/open", post(open))
        .route("/give-way", post(give_way))
        .route("/note", post(note))
        .with_state(control)
}

fn destructive(control: Arc<dyn Control>) -> Router {
    Router::new().route("/restore", post(restore)).route("/delete", post(delete)).with_state(control)
}

/// Whoever may open the socket may read the keys; to destroy them takes the token as well. // P7
async fn guard(
    State(token): State<Option<Secret>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    let text = match (&token, given) {
        (Some(token), Some(given)) if token.is(given) => return next.run(request).await,
        (Some(_), _) => "this needs the token of the process that holds the root (API_TOKEN)",
        (None, _) => {
            "this needs a token: set API_TOKEN for the process that holds the root, and for the one that asks"
        }
    };
    let error = Error::new(Code::Unauthorized, text);
    (StatusCode::UNAUTHORIZED, Json(ErrorReport::from(&error))).into_response()
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

#[derive(Debug, Serialize, Deserialize)]
struct UserRequest {
    user: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct RestoreRequest {
    session: String,
    #[serde(default)]
    at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeleteRequest {
    session: String,
    #[serde(default)]
    purge: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct NoteRequest {
    session: String,
    facts: BotFacts,
}

/// Nothing else is to be said.
#[derive(Debug, Serialize, Deserialize)]
struct Done {}

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

async fn sessions(State(control): Shared, Query(request): Query<UserRequest>) -> Response {
    answer(control.sessions(&request.user).await)
}

async fn open(State(control): Shared, body: Bytes) -> Response {
    answer(async { control.open(&json::<SessionRequest>(&body)?.session.parse()?).await }.await)
}

async fn give_way(State(control): Shared, body: Bytes) -> Response {
    let given = async { control.give_way(&json::<SessionRequest>(&body)?.session.parse()?).await };
    answer(given.await.map(|()| Done {}))
}

async fn note(State(control): Shared, body: Bytes) -> Response {
    let noted = async {
        let NoteRequest { session, facts } = json(&body)?;
        control.note(&session.parse()?, facts).await
    };
    answer(noted.await.map(|()| Done {}))
}

async fn restore(State(control): Shared, body: Bytes) -> Response {
    let restored = async {
        let RestoreRequest { session, at } = json(&body)?;
        control.restore(&session.parse()?, at).await
    };
    answer(restored.await)
}

async fn delete(State(control): Shared, body: Bytes) -> Response {
    let deleted = async {
        let DeleteRequest { session, purge } = json(&body)?;
        control.delete(&session.parse()?, purge).await
    };
    answer(deleted.await)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::session::SessionKey;
    use crate::sync::report::{
        BotStatus, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionStatus,
        SessionSync, StatusReport, SyncReport,
    };

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

        async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
            self.note(format!("sessions {user}"));
            Ok(Vec::new())
        }

        async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
            self.note(format!("open {key}"));
            Ok(SessionStatus::blank(key))
        }

        async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
            self.note(format!("restore {key} {at:?}"));
            Ok(RestoreReport { session: key.to_string(), commit: None, restored: at, files: 0, bytes: 0 })
        }

        async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
            self.note(format!("delete {key} {purge}"));
            Err(Error::new(Code::NoSession, "there is none"))
        }

        async fn give_way(&self, key: &SessionKey) -> Result<(), Error> {
            self.note(format!("give way {key}"));
            Ok(())
        }

        async fn note(&self, key: &SessionKey, facts: BotFacts) -> Result<(), Error> {
            self.note(format!("note {key} {:?} {:?}", facts.status, facts.desired));
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_call_and_every_error_passes_through_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "left behind by an earlier life").unwrap();
        let recorder = Arc::new(Recorder::default());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(
            bind(&path).unwrap(),
            recorder.clone(),
            Some(Secret::new("the token")),
            stop.clone(),
        ));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let client = Client::new(&path, None).unwrap();
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
    async fn what_a_runner_asks_passes_through_and_what_destroys_needs_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let recorder = Arc::new(Recorder::default());
        let stop = CancellationToken::new();
        let token = Secret::new("right token");
        let listener = bind(&path).unwrap();
        let server = tokio::spawn(serve(listener, recorder.clone(), Some(token.clone()), stop.clone()));
        let key: SessionKey = "u/s".parse().unwrap();

        let client = Client::new(&path, Some(token)).unwrap();
        assert!(client.sessions("u").await.unwrap().is_empty());
        assert_eq!(client.open(&key).await.unwrap().session, "u/s");
        let at = Some("00000003-00000042-1b20c7d9".to_owned());
        assert_eq!(client.restore(&key, at.clone()).await.unwrap().restored, at);
        assert_eq!(client.delete(&key, true).await.unwrap_err().code(), Code::NoSession);
        client.give_way(&key).await.unwrap();
        let says =
            BotFacts { status: Some(BotStatus::QrGenerated), desired: Some(true), ..BotFacts::default() };
        Control::note(&client, &key, says).await.unwrap();
        let asked = recorder.0.lock().unwrap().clone();
        assert_eq!(asked[0..2], ["sessions u", "open u/s"]);
        assert_eq!(asked[3..], ["delete u/s true", "give way u/s", "note u/s Some(QrGenerated) Some(true)"]);

        for token in [None, Some(Secret::new("wrong token"))] {
            let stranger = Client::new(&path, token).unwrap();
            assert_eq!(stranger.restore(&key, None).await.unwrap_err().code(), Code::Unauthorized);
            assert_eq!(stranger.delete(&key, false).await.unwrap_err().code(), Code::Unauthorized);
            stranger.open(&key).await.unwrap();
        }
        assert_eq!(recorder.0.lock().unwrap().len(), asked.len() + 2, "nothing was destroyed");
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_malformed_request_is_an_error_of_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let stop = CancellationToken::new();
        let server =
            tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Recorder::default()), None, stop.clone()));
        let client = Client::new(&path, None).unwrap();
        for body in ["{", "{}", r#"{"session":"../x"}"#] {
            let request = client.raw("/logout", body);
            let error = client.ask::<MarkReport>(request, DEADLINE).await.unwrap_err();
            assert_eq!(error.code().exit(), 2, "{error}");
        }
        let plain: SyncReport = client.ask(client.raw("/sync", ""), DEADLINE).await.unwrap();
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
        let server =
            tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Recorder::default()), None, stop.clone()));
        assert!(Client::new(&path, None).unwrap().status().await.unwrap().running);
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
