//! The sidecar's side: sessions, their history, and what may be done to them.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::call::Call;
use super::detached;
use super::problem::Problem;
use super::{Api, CloudStorage, Shared};
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::health::Why;
use crate::sync::points::Wanted;
use crate::sync::report::{HeldFile, HistoryReport, SessionEntry, SessionState, SessionStatus, SessionSync};

type Answer<T> = Result<Json<T>, Problem>;

/// Whether the process is well, for people and old clients: the probes are for platforms.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// `healthy` or `degraded`
    status: &'static str,
    /// Now, with milliseconds.
    timestamp: String,
    /// `enabled`, `degraded` or `disabled`
    cloud_storage: &'static str,
    /// Sessions whose bot runs or may run.
    active_sessions: usize,
}

/// `GET /api/health`
pub async fn health(State(api): State<Shared>) -> Response {
    let health = api.config.health.borrow().clone();
    let cloud_storage = match api.config.cloud {
        CloudStorage::Disabled => "disabled",
        CloudStorage::Enabled if health.why.contains(&Why::Unreachable) => "degraded",
        CloudStorage::Enabled => "enabled",
    };
    let supervised = api.config.health.has_changed().is_ok();
    let well =
        supervised && health.alive && health.ready && !health.lease_lost && cloud_storage != "degraded";
    let view = HealthView {
        status: if well { "healthy" } else { "degraded" },
        timestamp: format!("{:.3}", api.config.host.now()),
        cloud_storage,
        active_sessions: api.active().await,
    };
    Json(view).into_response()
}

/// The sessions of a user.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionsView {
    /// `true`
    success: bool,
    /// The rows of the table that are active, or of a session of this process, newest first, each with whatever columns the table has, and beside them
    /// `state`, `status`, `files`, `bytes`,
    /// `lastSyncAt`, `held`, `pendingFiles`, `alarms`, and `sync`: how its files fare.
    sessions: Vec<Value>,
}

/// `GET /api/sessions/{user}`
pub async fn list(State(api): State<Shared>, call: Call) -> Answer<SessionsView> {
    let entries = api.directory.of(&call.user, &api).await?;
    // One that was unlinked is no active one, and is here to be linked again.
    let shown = |entry: &&SessionEntry| entry.is_active || entry.here.is_some();
    let mut active: Vec<&SessionEntry> = entries.iter().filter(shown).collect();
    active.sort_by_key(|entry| std::cmp::Reverse(entry.created_at.or(entry.last_activity)));
    // The list may be a moment old; where a session of this process stands is not.
    let live = api.control.status().await.map(|report| report.sessions).unwrap_or_default();
    let sessions = active.into_iter().map(|entry| {
        let name = format!("{}/{}", entry.user_id, entry.session_id);
        let here = live.iter().find(|status| status.session == name).or(entry.here.as_ref());
        row(&api, entry, here)
    });
    let sessions = sessions.collect();
    Ok(Json(SessionsView { success: true, sessions }))
}

/// A row as the old service gave it, with ours beside.
fn row(api: &Api, entry: &SessionEntry, here: Option<&SessionStatus>) -> Value {
    let mut row = entry.row.as_object().cloned().unwrap_or_else(Map::new);
    let mut otherwise = |name: &str, value: Value| {
        row.entry(name).or_insert(value);
    };
    otherwise("user_id", json!(entry.user_id));
    otherwise("session_id", json!(entry.session_id));
    otherwise("session_name", Value::Null);
    otherwise("connection_type", json!("mobile"));
    otherwise("is_default", json!(entry.is_default));
    otherwise("is_active", json!(entry.is_active));
    otherwise("created_at", json!(entry.created_at));
    otherwise("last_activity", json!(entry.last_activity));
    let (state, status) = api.standing(entry);
    otherwise("status", Value::Null);
    if let Some(status) = status {
        row.insert("status".to_owned(), json!(status));
    }
    for (name, value) in [
        ("state", json!(state)),
        ("files", json!(here.map(|here| here.files))),
        ("bytes", json!(here.map(|here| here.bytes))),
        ("lastSyncAt", json!(here.and_then(|here| here.last_commit_at))),
        ("held", json!(here.map(|here| &here.held))),
        ("sync", json!(here.map(|here| here.state))),
        ("pendingFiles", json!(here.map(|here| here.dirty))),
        ("alarms", json!(here.map(|here| &here.alarms))),
    ] {
        row.insert(name.to_owned(), value);
    }
    Value::Object(row)
}

/// What a sync did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncView {
    /// `true`
    success: bool,
    /// `uploaded`, or `exists` where nothing had changed.
    action: &'static str,
    /// Files of the tree that is stored now, where something was uploaded.
    uploaded: u64,
    /// Files that are kept at their last good version.
    failed: usize,
    /// The newest commit: all that was on disk when the call came is in it, but for what is held.
    commit: Option<String>,
    /// What is held, and why.
    held: Vec<HeldFile>,
    /// Files of the tree.
    files: u64,
    /// Bytes of the tree.
    bytes: u64,
}

/// `POST /api/sessions/{user}/{session}/sync`
pub async fn sync(State(api): State<Shared>, call: Call) -> Answer<SyncView> {
    let key = call.session(&api).await?;
    let (shared, asked) = (api.clone(), key.clone());
    let deadline = api.config.sync_deadline;
    let report = detached(async move { shared.control.sync(Some(asked), deadline).await }).await?;
    api.directory.forget(key.user());
    match report {
        Ok(report) => {
            let done = report.sessions.into_iter().find(|one| one.session == key.to_string());
            let done = done.ok_or_else(|| {
                Problem::from(Error::new(
                    Code::NotFound,
                    "the session is not one of this process: connect it first",
                ))
            })?;
            Ok(Json(SyncView::from(done)))
        }
        Err(error) if error.code() == Code::NotFlushed => Err(Problem::not_durable(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

impl From<SessionSync> for SyncView {
    fn from(done: SessionSync) -> Self {
        Self {
            success: true,
            action: if done.changed { "uploaded" } else { "exists" },
            uploaded: if done.changed { done.files } else { 0 },
            failed: done.held.len(),
            commit: done.commit,
            held: done.held,
            files: done.files,
            bytes: done.bytes,
        }
    }
}

/// Which point to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct RestoreBody {
    /// An id of the history, or a time with its zone: the newest point at or before it. None: the newest.
    #[schema(example = "00000003-00000042-1b20c7d9")]
    at: Option<String>,
}

/// What a restore did.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestoreView {
    /// `false` where there is nothing to restore.
    success: bool,
    /// `restored`
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    /// Files of the tree.
    downloaded: u64,
    /// `0`: a restore is whole, or fails.
    failed: u64,
    /// The head after it.
    commit: Option<String>,
    /// The point whose tree it is.
    restored: Option<String>,
    /// Files of the tree.
    files: u64,
    /// Bytes of the tree.
    bytes: u64,
    /// Why there is nothing to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// `POST /api/sessions/{user}/{session}/restore`
pub async fn restore(State(api): State<Shared>, call: Call) -> Answer<RestoreView> {
    let key = call.session(&api).await?;
    let at = match call.body::<RestoreBody>()?.at {
        Some(at) => Some(at),
        None => call.query("at").map(str::to_owned),
    };
    if let Some(at) = &at {
        at.parse::<Wanted>().map_err(|error| Problem::bad_request(format!("`at` is {error}")))?;
    }
    let (shared, asked) = (api.clone(), key.clone());
    let report = detached(async move { shared.restore(&asked, at).await }).await?;
    api.directory.forget(key.user());
    let report = report?;
    let found = report.commit.is_some();
    Ok(Json(RestoreView {
        success: found,
        action: found.then_some("restored"),
        downloaded: report.files,
        failed: 0,
        commit: report.commit,
        restored: report.restored,
        files: report.files,
        bytes: report.bytes,
        error: (!found).then_some("nothing is stored of this session"),
    }))
}

/// Something was done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// `true`
    pub success: bool,
    /// What was done.
    pub message: &'static str,
    /// `logged_out`, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// The session.
    pub session_id: String,
    /// Whose, and which.
    pub data: DoneData,
}

/// Whose session, and which.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoneData {
    /// The user.
    pub user_id: String,
    /// The session.
    pub session_id: String,
}

impl Done {
    /// To this session.
    pub fn to(key: &SessionKey, message: &'static str) -> Json<Self> {
        let data = DoneData { user_id: key.user().to_owned(), session_id: key.session().to_owned() };
        Json(Self { success: true, message, action: None, session_id: key.session().to_owned(), data })
    }
}

/// What is gone already needs not be ended again.
pub fn gone_is_done<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if !matches!(error.code(), Code::NotFound | Code::NoSession) => Err(error),
        _ => Ok(()),
    }
}

/// `POST /api/sessions/{user}/{session}/logout`, `POST /api/whatsapp/logout/{user}`
pub async fn logout(State(api): State<Shared>, call: Call) -> Answer<Done> {
    let key = call.session(&api).await?;
    let (shared, asked) = (api.clone(), key.clone());
    let result = detached(async move { shared.logout(&asked).await }).await?;
    api.directory.forget(key.user());
    gone_is_done(result)?;
    let Json(done) = Done::to(&key, "Logged out: the session restores as a new one");
    Ok(Json(Done { action: Some("logged_out"), ..done }))
}

/// `DELETE /api/sessions/{user}/{session}`
pub async fn delete(State(api): State<Shared>, call: Call) -> Answer<Done> {
    let key = call.session(&api).await?;
    let (logout, purge) = (call.flag("logout")?.unwrap_or(true), call.flag("purge")?.unwrap_or(false));
    let (shared, asked) = (api.clone(), key.clone());
    let result = detached(async move { shared.delete(&asked, logout, purge).await }).await?;
    api.directory.forget(key.user());
    gone_is_done(result)?;
    Ok(Done::to(&key, "Session deleted successfully"))
}

/// The points of a session's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryView {
    /// `true`
    success: bool,
    /// The points.
    #[serde(flatten)]
    report: HistoryReport,
}

/// `GET /api/sessions/{user}/{session}/history`
pub async fn history(State(api): State<Shared>, call: Call) -> Answer<HistoryView> {
    let key = call.session(&api).await?;
    Ok(Json(HistoryView { success: true, report: api.control.history(&key).await? }))
}

/// How well a session is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Owned, nothing held, nothing a person should look at.
    healthy: bool,
    /// Where it stands.
    state: SessionState,
    /// Whether the bot may start.
    ready: bool,
    /// The newest commit.
    head: Option<String>,
    /// When that was made.
    last_sync_at: Option<Timestamp>,
    /// Files of its tree.
    files: u64,
    /// Bytes of its tree.
    bytes: u64,
    /// Changes that wait for the next commit.
    pending_files: u64,
    /// Paths that are kept at their last good version.
    held: Vec<HeldFile>,
    /// What a person should look at.
    alarms: Vec<String>,
}

impl From<SessionStatus> for Persistence {
    fn from(status: SessionStatus) -> Self {
        let owned = status.state == SessionState::Ready;
        Self {
            healthy: owned && status.held.is_empty() && status.alarms.is_empty(),
            state: status.state,
            ready: status.ready,
            head: status.head,
            last_sync_at: status.last_commit_at,
            files: status.files,
            bytes: status.bytes,
            pending_files: status.dirty,
            held: status.held,
            alarms: status.alarms,
        }
    }
}
