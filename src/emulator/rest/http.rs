//! One request to `/rest/v1`: its faults, its role, its call, its answer.

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::column::Row;
use super::error::PgError;
use super::{Tables, calls, report, table};
use crate::emulator::auth::{Who, bearer, header, sees_bucket};
use crate::emulator::conn::Line;
use crate::emulator::server::{Shared, ok};

/// Bodies above this are refused.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

type Function = fn(&mut Tables, &Shared, Value, Timestamp) -> Result<Value, PgError>;

/// The functions of our SQL, and what calls of them are counted under.
const FUNCTIONS: [(&str, &str, Function); 5] = [
    ("acquire_session_leases", "rpc acquire_session_leases", |t, _, request, now| {
        t.leases.acquire(request, now)
    }),
    ("renew_session_leases", "rpc renew_session_leases", |t, _, request, now| t.leases.renew(request, now)),
    ("release_session_leases", "rpc release_session_leases", |t, _, request, now| {
        t.leases.release(request, now)
    }),
    ("note_session_metadata", "rpc note_session_metadata", |t, _, request, now| {
        table::note(&mut t.sessions, request, now)
    }),
    ("session_sidecar_report", "rpc session_sidecar_report", |_, shared, request, _| {
        let functions = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
        Ok(report::report(&shared.index(), functions, &request))
    }),
];

/// What a request is for.
enum Target<'a> {
    Function(&'a str),
    Table(&'a str),
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Result<Self, PgError> {
        let name = path.strip_prefix("/rest/v1/").unwrap_or(path);
        match name.strip_prefix("rpc/") {
            Some(name) if !name.contains('/') => Ok(Self::Function(name)),
            None if !name.contains('/') && !name.is_empty() => Ok(Self::Table(name)),
            _ => Err(PgError::new(404, "PGRST125", "Invalid path specified in request URL")),
        }
    }

    /// What requests are counted under.
    fn counted(&self, method: &Method) -> &'static str {
        match self {
            Self::Function(name) => FUNCTIONS
                .iter()
                .find(|(known, ..)| known == name)
                .map_or("rpc (unknown)", |(_, counted, _)| counted),
            Self::Table(_) => match method.as_str() {
                "GET" => "table GET",
                "HEAD" => "table HEAD",
                "POST" => "table POST",
                "PATCH" => "table PATCH",
                "DELETE" => "table DELETE",
                _ => "table (unknown)",
            },
        }
    }
}

/// Answers one request.
pub(in crate::emulator) async fn answer(shared: &Shared, line: &Line, parts: &Parts, body: Body) -> Response {
    let target = match Target::parse(parts.uri.path()) {
        Ok(target) => target,
        Err(error) => return error.into_response(),
    };
    shared.count(target.counted(&parts.method));
    let fate = shared.dice.throw_database();
    if !fate.latency.is_zero() {
        tokio::time::sleep(fate.latency).await;
    }
    if fate.reset == Some(false) {
        line.reset();
        return PgError::no_database().into_response();
    }
    // Unread bytes would reset the connection and hide the answer.
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return PgError::new(413, "", "Payload Too Large").into_response();
    };
    let response = if fate.away {
        PgError::no_database().into_response()
    } else {
        call(shared, &target, parts, &body).unwrap_or_else(PgError::into_response)
    };
    if fate.reset.is_some() {
        line.reset();
    }
    response
}

/// The role that a request runs as.
fn who(shared: &Shared, headers: &HeaderMap) -> Result<Who, PgError> {
    let Some(key) = header(headers, "apikey") else {
        return Err(PgError::new(401, "", "No API key found in request"));
    };
    if shared.keys.swaps(headers) {
        return Ok(Who::Service);
    }
    if key.starts_with("sb_") {
        return Err(PgError::new(401, "", "Invalid API key"));
    }
    Ok(shared.keys.verify(bearer(headers).unwrap_or(key))?)
}

fn call(shared: &Shared, target: &Target<'_>, parts: &Parts, body: &Bytes) -> Result<Response, PgError> {
    let who = who(shared, &parts.headers)?;
    let now = super::lease_table::micros(shared.host.now());
    match target {
        Target::Function(name) => function(shared, name, &who, now, &parts.method, body),
        Target::Table(name) => calls::answer(&mut shared.rest(), name, &who, now, parts, body),
    }
}

/// The JSON of a body.
pub(super) fn json(body: &Bytes) -> Result<Value, PgError> {
    serde_json::from_slice(body).map_err(|_| PgError::new(400, "PGRST102", "Empty or invalid json"))
}

/// The JSON object of a body.
pub(super) fn object(body: &Bytes) -> Result<Row, PgError> {
    match json(body)? {
        Value::Object(object) => Ok(object),
        _ => Err(PgError::new(400, "PGRST102", "Empty or invalid json")),
    }
}

/// What a token of ours may ask for: the bucket that is open to it, and the sessions that it is for.
fn within(shared: &Shared, who: &Who, request: &Value) -> Result<(), PgError> {
    let Who::Sidecar(_) = who else { return Ok(()) };
    let refused = |message| Err(PgError::new(403, "PT403", message));
    let items = |name: &str| request.get(name).and_then(Value::as_array).into_iter().flatten();
    let leases = request.get("keys").and(request.get("bucket")).and_then(Value::as_str);
    if let Some(bucket) = leases
        && !shared.index().buckets.get(bucket).is_some_and(|found| sees_bucket(&found.row.set.policies, who))
    {
        return refused("the role session_sidecar has no right to this bucket");
    }
    let text =
        |item: &Value, name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let covers = |item: &Value| who.covers(&text(item, "user"), &text(item, "session"));
    if items("keys").chain(items("rows")).all(covers) {
        Ok(())
    } else {
        refused("the token is for other sessions")
    }
}

fn function(
    shared: &Shared,
    name: &str,
    who: &Who,
    now: Timestamp,
    method: &Method,
    body: &Bytes,
) -> Result<Response, PgError> {
    if method != Method::POST {
        return Err(PgError::new(405, "PGRST101", format!("Cannot use the {method} method on RPC")));
    }
    let mut arguments = object(body)?;
    let names: Vec<_> = arguments.keys().map(String::as_str).collect();
    let signature =
        if names.is_empty() { " without parameters".into() } else { format!("({})", names.join(", ")) };
    let mut rest = shared.rest();
    let known = FUNCTIONS.iter().find(|(known, ..)| rest.schema && known == &name && names == ["request"]);
    let (_, _, function) = known.ok_or_else(|| PgError::no_function(name, &signature))?;
    if !matches!(who, Who::Service | Who::Sidecar(_)) {
        return Err(PgError::denied(who, format!("permission denied for function {name}")));
    }
    let request = arguments.remove("request").unwrap_or_default();
    within(shared, who, &request)?;
    let answer = rest.change(|tables| function(tables, shared, request, now))?;
    Ok(ok(&answer))
}
