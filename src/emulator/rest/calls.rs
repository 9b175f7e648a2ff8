//! Calls on tables: what headers and bodies mean, and how rows are answered.

use axum::http::header::{ACCEPT, CONTENT_RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::column::{LEASES, Row, SESSIONS, Shape};
use super::error::PgError;
use super::query::Query;
use super::table::{self, Resolution, default};
use super::{Rest, http};
use crate::emulator::auth::Who;
use crate::emulator::server::ok;

/// What the `Prefer` headers ask for.
#[derive(Debug, Default)]
struct Prefer {
    representation: bool,
    resolution: Option<Resolution>,
    /// A column that `columns` names and a row lacks gets its default, not null.
    missing_default: bool,
    count: bool,
}

impl Prefer {
    fn parse(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let texts = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for word in texts.flat_map(|text| text.split(',')) {
            match word.trim() {
                "return=representation" => prefer.representation = true,
                "resolution=merge-duplicates" => prefer.resolution = Some(Resolution::Merge),
                "resolution=ignore-duplicates" => prefer.resolution = Some(Resolution::Ignore),
                "missing=default" => prefer.missing_default = true,
                "count=exact" => prefer.count = true,
                _ => {}
            }
        }
        prefer
    }
}

/// Answers a call on a table.
pub(super) fn answer(
    rest: &mut Rest,
    table: &str,
    who: &Who,
    now: Timestamp,
    parts: &Parts,
    body: &Bytes,
) -> Result<Response, PgError> {
    let known = [&SESSIONS, &LEASES].into_iter().find(|shape| rest.schema && shape.name == table);
    let shape = known.ok_or_else(|| PgError::no_table(table))?;
    let reads = matches!(parts.method.as_str(), "GET" | "HEAD");
    // The grants of our SQL: a user reads sessions, and by its policy their own only.
    let granted = match who {
        Who::Service => true,
        Who::User(_) => reads && shape.name == SESSIONS.name,
        // It may write them too; here our functions do that for it.
        Who::Sidecar(_) => reads,
        Who::Anon | Who::Role(_) => false,
    };
    if !granted {
        return Err(PgError::denied(who, format!("permission denied for table {table}")));
    }
    let query = Query::parse(shape, parts.uri.query().unwrap_or_default())?;
    let prefer = Prefer::parse(&parts.headers);
    if shape.name == LEASES.name && !reads {
        return Err(PgError::new(405, "", "the emulator has this table to read only"));
    }
    if reads {
        return read(rest, shape, who, &query, &prefer, &parts.headers);
    }
    let written = rest.change(|tables| {
        let written = write(&mut tables.sessions, parts, body, &query, &prefer, now)?;
        one_if_wanted(&written.rows, &parts.headers)?;
        Ok::<_, PgError>(written)
    })?;
    let mut response =
        if prefer.representation { shown(written.rows, &query, &parts.headers) } else { Response::default() };
    *response.status_mut() = match written.status {
        StatusCode::NO_CONTENT if prefer.representation => StatusCode::OK,
        status => status,
    };
    set_range(&mut response, &written.range);
    Ok(response)
}

/// What a write did.
struct Written {
    rows: Vec<Row>,
    /// When the rows are not given.
    status: StatusCode,
    range: String,
}

fn write(
    sessions: &mut Vec<Row>,
    parts: &Parts,
    body: &Bytes,
    query: &Query,
    prefer: &Prefer,
    now: Timestamp,
) -> Result<Written, PgError> {
    let filtered = |verb| {
        let refusal = PgError::new(400, "21000", format!("{verb} requires a WHERE clause"));
        if query.filters.is_empty() { Err(refusal) } else { Ok(()) }
    };
    let (status, uncounted) = (StatusCode::NO_CONTENT, "*/*".to_owned());
    match parts.method.as_str() {
        "POST" => {
            if query.on_conflict.as_ref().is_some_and(|columns| !is_key(columns)) {
                let message =
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification";
                return Err(PgError::new(400, "42P10", message));
            }
            let values = bodies(http::json(body)?, query, prefer, now)?;
            let (rows, any_new) = table::insert(sessions, values, prefer.resolution, now)?;
            let created = any_new || prefer.resolution.is_none();
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Written { rows, status, range: uncounted })
        }
        "PATCH" => {
            filtered("UPDATE")?;
            let rows = table::update(sessions, query, http::object(body)?)?;
            let range = range(0, rows.len(), None);
            Ok(Written { rows, status, range })
        }
        "DELETE" => {
            filtered("DELETE")?;
            Ok(Written { rows: table::delete(sessions, query), status, range: uncounted })
        }
        method => Err(PgError::new(405, "PGRST117", format!("Unsupported HTTP method: {method}"))),
    }
}

fn is_key(columns: &[String]) -> bool {
    let mut columns: Vec<_> = columns.iter().map(String::as_str).collect();
    columns.sort_unstable();
    columns == ["session_id", "user_id"]
}

/// The rows of a body. With `columns` these columns of every row; without, all rows name the same.
fn bodies(body: Value, query: &Query, prefer: &Prefer, now: Timestamp) -> Result<Vec<Row>, PgError> {
    let bad = |message| PgError::new(400, "PGRST102", message);
    let items = match body {
        Value::Array(items) => items,
        one => vec![one],
    };
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(mut row) = item else { return Err(bad("Empty or invalid json")) };
        if let Some(columns) = &query.columns {
            let missing = |name: &str| if prefer.missing_default { default(name, now) } else { Value::Null };
            row = columns
                .iter()
                .map(|name| (name.clone(), row.remove(name).unwrap_or_else(|| missing(name))))
                .collect();
        }
        rows.push(row);
    }
    let alike = rows.windows(2).all(|pair| pair[0].keys().eq(pair[1].keys()));
    if alike { Ok(rows) } else { Err(bad("All object keys must match")) }
}

fn wants_object(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/vnd.pgrst.object"))
}

/// Refuses, and so rolls back, what is not one row where one is wanted.
fn one_if_wanted(rows: &[Row], headers: &HeaderMap) -> Result<(), PgError> {
    if rows.len() == 1 || !wants_object(headers) {
        return Ok(());
    }
    let message = "Cannot coerce the result to a single JSON object";
    Err(PgError::new(406, "PGRST116", message).details(format!("The result contains {} rows", rows.len())))
}

fn read(
    rest: &Rest,
    shape: &Shape,
    who: &Who,
    query: &Query,
    prefer: &Prefer,
    headers: &HeaderMap,
) -> Result<Response, PgError> {
    let all = if shape.name == LEASES.name {
        let row = |lease| serde_json::from_value(serde_json::to_value(lease)?);
        let rows: Result<Vec<Row>, serde_json::Error> = rest.tables().leases.rows().map(row).collect();
        let rows = rows.expect("a lease is a JSON object").into_iter().map(|row| shape.cast(row));
        rows.collect::<Result<_, _>>()?
    } else {
        rest.tables().sessions.clone()
    };
    let text = |row: &Row, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let seen = |row: &Row| who.covers(&text(row, "user_id"), &text(row, "session_id"));
    let all: Vec<_> = all.into_iter().filter(|row| seen(row) && query.matches(row)).collect();
    let total = prefer.count.then_some(all.len());
    if total.is_some_and(|total| query.offset > total) {
        let details =
            format!("An offset of {} was requested, but there are only {} rows.", query.offset, all.len());
        return Err(PgError::new(416, "PGRST103", "Requested range not satisfiable").details(details));
    }
    let rows = query.page(all);
    one_if_wanted(&rows, headers)?;
    let range = range(query.offset, rows.len(), total);
    let partial = total.is_some_and(|total| rows.len() < total);
    let mut response = shown(rows, query, headers);
    if partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    set_range(&mut response, &range);
    Ok(response)
}

/// `0-9/*`: the rows of an answer, and of how many if they were counted.
fn range(offset: usize, rows: usize, total: Option<usize>) -> String {
    let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    if rows == 0 { format!("*/{total}") } else { format!("{offset}-{}/{total}", offset + rows - 1) }
}

fn set_range(response: &mut Response, range: &str) {
    let range = HeaderValue::try_from(range).expect("digits, a dash, a slash and a star");
    response.headers_mut().insert(CONTENT_RANGE, range);
}

fn shown(rows: Vec<Row>, query: &Query, headers: &HeaderMap) -> Response {
    let mut rows: Vec<_> = rows.into_iter().map(|row| query.shown(row)).collect();
    if wants_object(headers) { ok(&rows.pop()) } else { ok(&rows) }
}
