//! One request: its faults, its call, its answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::{Keys, Policy, Who, bearer};
use super::conn::Line;
use super::disk::Disk;
use super::error::Refusal;
use super::faults::{Dice, Failure, Fate};
use super::index::{Index, Name};
use super::rest::{self, Rest};
use super::route::{Op, Route};
use super::{buckets, objects};
use crate::host::Host;
use crate::session::ROLE;

/// JSON bodies above this are refused.
const JSON_LIMIT: usize = 1024 * 1024;
/// Node's limit of all headers together.
const HEADER_LIMIT: usize = 16 * 1024;

/// What all requests share.
pub(super) struct Shared {
    pub(super) index: Mutex<Index>,
    pub(super) rest: Mutex<Rest>,
    pub(super) disk: Disk,
    pub(super) keys: Keys,
    pub(super) dice: Dice,
    pub(super) host: Arc<dyn Host>,
    pub(super) bare: bool,
    pub(super) counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) stop: CancellationToken,
}

/// One request, routed.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Came through the gateway's path, which knows `apikey`.
    gateway: bool,
    pub(super) fate: Fate,
    pub(super) line: Line,
}

impl Shared {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request.
    pub(super) fn count(&self, name: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }

    pub(super) fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The role a call runs as.
    pub(super) fn who(&self, call: &Call) -> Result<Who, Refusal> {
        if call.gateway && self.keys.swaps(&call.headers) {
            return Ok(Who::Service);
        }
        let missing = || Refusal::schema("headers must have required property 'authorization'");
        let who = self.keys.verify(bearer(&call.headers).ok_or_else(missing)?)?;
        match who.role() {
            Some(role) if !self.knows(role) => Err(Refusal::Database("22023")),
            _ => Ok(who),
        }
    }

    /// Whether a Postgres role exists: those that policies name.
    fn knows(&self, role: &str) -> bool {
        let names = |policy: &Policy| match policy {
            Policy::Role(granted) => granted == role,
            Policy::Sidecar => role == ROLE,
            _ => false,
        };
        self.index().buckets.values().any(|bucket| bucket.row.set.policies.iter().any(names))
    }
}

impl Call {
    pub(super) fn name(&self) -> Name<'_> {
        (&self.route.bucket, &self.route.key)
    }

    /// The JSON body of a call that cannot do without: there, and called JSON.
    pub(super) async fn object(&mut self) -> Result<Value, Refusal> {
        let mime = self.headers.get(CONTENT_TYPE);
        let is_json = mime.is_some_and(|mime| mime.as_bytes().starts_with(b"application/json"));
        let body = to_bytes(std::mem::take(&mut self.body), JSON_LIMIT).await;
        let body = body.map_err(|_| Refusal::BodyTooLarge)?;
        let body = if is_json && !body.is_empty() {
            let message = "Body is not valid JSON but content-type is set to 'application/json'";
            serde_json::from_slice(&body).map_err(|_| Refusal::schema(message))?
        } else {
            Value::Null
        };
        if body.is_object() { Ok(body) } else { Err(Refusal::schema("body must be object")) }
    }
}

/// Answers one request.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let mut response = respond(&shared, line, request).await.unwrap_or_else(Refusal::into_response);
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&shared.host.now())
        && let Ok(date) = HeaderValue::try_from(date)
    {
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn respond(shared: &Arc<Shared>, line: Line, request: Request) -> Result<Response, Refusal> {
    if shared.stop.is_cancelled() {
        line.reset();
        return Err(Refusal::Internal);
    }
    let (parts, body) = request.into_parts();
    let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > HEADER_LIMIT {
        return Err(Refusal::HeaderSize);
    }
    let path = parts.uri.path();
    if path.starts_with("/rest/v1/") {
        return Ok(rest::answer(shared, &line, &parts, body).await);
    }
    let (gateway, path) = match path.strip_prefix("/storage/v1") {
        Some(path) => (true, path),
        None if shared.bare => (false, path),
        None => return Err(Refusal::NoRoute(format!("{}:{path}", parts.method))),
    };
    let route = Route::parse(&parts.method, path)?;
    shared.count(route.name);

    let fate = shared.dice.throw(route.op == Op::Upload);
    if !fate.latency.is_zero() {
        tokio::time::sleep(fate.latency).await;
    }
    if let Some((failure, false)) = &fate.answer {
        if *failure != Failure::Reset {
            // Unread bytes would reset the connection and hide the answer.
            let _ = to_bytes(body, usize::MAX).await;
        }
        return fail(failure, &line);
    }
    let (failure, cut) = (fate.answer.clone(), fate.cut);
    let call =
        Call { method: parts.method, route, headers: parts.headers, body, gateway, fate, line: line.clone() };
    let response = dispatch(shared, call).await;
    match failure {
        Some((failure, _)) => fail(&failure, &line),
        None if cut => Ok(cut_short(response.unwrap_or_else(Refusal::into_response)).await),
        None => response,
    }
}

fn fail(failure: &Failure, line: &Line) -> Result<Response, Refusal> {
    match failure {
        Failure::Reset => {
            line.reset();
            Err(Refusal::Internal)
        }
        Failure::Error(refusal) => Err(refusal.clone()),
        Failure::BadGateway => {
            Ok((StatusCode::BAD_GATEWAY, Html("<html><h1>502 Bad Gateway</h1></html>")).into_response())
        }
    }
}

/// The first half of the body under the length of the whole, then the end of the connection.
async fn cut_short(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(whole) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_GATEWAY.into_response() };
    parts.headers.insert(CONTENT_LENGTH, whole.len().into());
    let half = whole.slice(..whole.len() / 2);
    let end = stream::once(async {
        // What was written before must have left for the client to see half of it.
        tokio::time::sleep(Duration::from_millis(2)).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    let halves = stream::once(async { Ok::<Bytes, std::io::Error>(half) }).chain(end);
    Response::from_parts(parts, Body::from_stream(halves))
}

async fn dispatch(shared: &Arc<Shared>, call: Call) -> Result<Response, Refusal> {
    match call.route.op {
        Op::Status => Ok(StatusCode::OK.into_response()),
        Op::Version => Ok("1.11.2".into_response()),
        Op::Health => {
            // A missing token is a bad one here.
            shared.who(&call).map_err(|_| Refusal::Denied("Invalid Compact JWS"))?;
            Ok(ok(&json!({ "healthy": true })))
        }
        Op::Buckets => buckets::all(shared, &call),
        Op::Bucket => buckets::one(shared, &call),
        Op::CreateBucket => buckets::create(shared, call).await,
        Op::UpdateBucket => buckets::update(shared, call).await,
        Op::DeleteBucket => buckets::delete(shared, &call),
        Op::EmptyBucket => buckets::empty(shared, &call),
        Op::Upload => objects::upload(shared, call).await,
        Op::Get(access) => objects::get(shared, &call, access),
        Op::Info(access) => objects::info(shared, &call, access),
        Op::List => objects::list(shared, call).await,
        Op::ListV2 => objects::list_v2(shared, call).await,
        Op::Move => objects::rename(shared, call).await,
        Op::Copy => objects::copy(shared, call).await,
        Op::Delete => objects::delete(shared, &call),
        Op::DeleteMany => objects::delete_many(shared, call).await,
    }
}

/// A success.
pub(super) fn ok<T: serde::Serialize>(body: &T) -> Response {
    let mut response = Json(body).into_response();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
