//! The calls on objects.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Who;
use super::error::Refusal;
use super::index::{Name, Row, stage};
use super::list::{self, Metadata, iso};
use super::route::Access;
use super::server::{Call, Shared, ok};
use super::{rules, upload};

/// `POST` and `PUT /object/{bucket}/{key}`: looks whether the name is free, takes the body, and writes it
/// whatever has the name by then.
pub(super) async fn upload(shared: &Arc<Shared>, call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let Call { method, route, headers, body, fate, line, .. } = call;
    let (bucket, key) = (route.bucket, route.key);
    rules::key(&key)?;
    let row = shared.index().bucket(&bucket)?.row.set.clone();
    let boundary = upload::boundary(&headers);
    if boundary.is_none() {
        rules::mime_type(&row, &upload::raw(&headers, None).mime)?;
        // Only a length that is told is looked at: a chunked body passes any limit.
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        rules::size(&row, length.unwrap_or(0))?;
    }
    let upsert = method == Method::PUT || headers.get("x-upsert").is_some_and(|value| value == "true");
    shared.index().may_upload((&bucket, &key), &who, upsert)?;
    // Where two uploads of one name meet, both have passed the check by now.
    tokio::task::yield_now().await;
    // A body that ends early has no one to answer to; nothing was written.
    let body = to_bytes(body, usize::MAX).await.map_err(|_| Refusal::NoContent)?;
    let (labels, body) = match boundary {
        None => (upload::raw(&headers, who.sub()), body),
        Some(boundary) => {
            let (labels, body) = upload::form(&body, boundary, who.sub())?;
            rules::mime_type(&row, &labels.mime)?;
            rules::size(&row, body.len() as u64)?;
            (labels, body)
        }
    };
    let staged = stage(&shared.disk, &body)?;
    let id = if let Some(late) = fate.late {
        line.reset();
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = tokio::time::sleep(late) => {
                    // The bucket may be gone: then so is the upload.
                    let _ = shared.index().complete((&bucket, &key), &staged, labels, fate.stale);
                }
            }
        });
        return Err(Refusal::Internal);
    } else {
        shared.index().complete((&bucket, &key), &staged, labels, fate.stale)?
    };
    Ok(ok(&json!({ "Key": format!("{bucket}/{key}"), "Id": id })))
}

/// The role of a read, once the way it came has been proved.
fn reader(shared: &Shared, call: &Call, access: Access) -> Result<Who, Refusal> {
    let public = || shared.index().bucket(&call.route.bucket).is_ok_and(|bucket| bucket.row.set.public);
    match access {
        Access::Token => shared.who(call),
        Access::Public | Access::Any if public() => Ok(Who::Service),
        Access::Public => Err(Refusal::NoSuchBucket),
        // No token, a bad one, an expired one: all look like a missing bucket.
        Access::Any => shared.who(call).map_err(|refusal| match refusal.said().0 {
            400 | 403 => Refusal::NoSuchBucket,
            _ => refusal,
        }),
    }
}

fn head(row: &Row) -> HeaderMap {
    let printer = DateTimePrinter::new();
    let modified = printer.timestamp_to_rfc9110_string(&row.updated_at).unwrap_or_default();
    let pairs = [
        (ETAG, format!("\"{}\"", row.print.etag)),
        (LAST_MODIFIED, modified),
        (CACHE_CONTROL, row.cache_control.clone()),
    ];
    let value = |(name, value): (HeaderName, String)| Some((name, HeaderValue::try_from(value).ok()?));
    pairs.into_iter().filter_map(value).collect()
}

/// `GET /object/…/{bucket}/{key}`.
pub(super) fn get(shared: &Shared, call: &Call, access: Access) -> Result<Response, Refusal> {
    let who = reader(shared, call, access)?;
    let (row, bytes) = shared.index().read(call.name(), &who, call.fate.stale)?;
    let mut headers = head(&row);
    // Pages are not served as pages.
    let mime = if row.mime.starts_with("text/html") { "text/plain" } else { &row.mime };
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(mime).map_err(|_| Refusal::Internal)?);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("x-robots-tag", HeaderValue::from_static("none"));
    if call.method == Method::HEAD {
        return Ok((headers, bytes).into_response());
    }
    let asked = |name: HeaderName| call.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(etag) = asked(IF_NONE_MATCH) {
        // Equal as a string only: no list, no `W/`, no `*`.
        if headers.get(ETAG).is_some_and(|own| own == etag) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let cached = format!("{}, stale-while-revalidate=30", row.cache_control);
        headers.insert(CACHE_CONTROL, HeaderValue::try_from(cached).map_err(|_| Refusal::Internal)?);
    } else if asked(IF_MODIFIED_SINCE).and_then(http_date).is_some_and(|since| since >= row.updated_at) {
        // Whole seconds against milliseconds: its own Last-Modified is too early.
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let Some(range) = asked(RANGE) else { return Ok((headers, bytes).into_response()) };
    let (from, to) = byte_range(range, bytes.len()).ok_or(Refusal::Range)?;
    let content_range = format!("bytes {from}-{to}/{}", bytes.len());
    headers.insert(CONTENT_RANGE, HeaderValue::try_from(content_range).map_err(|_| Refusal::Internal)?);
    let bytes: Bytes = bytes.slice(from..=to);
    Ok((StatusCode::PARTIAL_CONTENT, headers, bytes).into_response())
}

fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// First and last byte of a single range that can be satisfied.
fn byte_range(text: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let last = size.checked_sub(1)?;
    let (from, to) = match (from, to) {
        ("", suffix) => (size.saturating_sub(suffix.parse::<usize>().ok().filter(|n| *n > 0)?), last),
        (from, "") => (from.parse().ok()?, last),
        (from, to) => (from.parse().ok()?, to.parse::<usize>().ok()?.min(last)),
    };
    (from <= to).then_some((from, to))
}

/// `GET /object/info/…/{bucket}/{key}`: from the database's row alone.
pub(super) fn info(shared: &Shared, call: &Call, access: Access) -> Result<Response, Refusal> {
    let who = reader(shared, call, access)?;
    let index = shared.index();
    let row = index.object(call.name(), &who)?;
    let body = json!({
        "id": row.id, "name": call.route.key, "version": row.version, "bucket_id": call.route.bucket,
        "size": row.print.size, "content_type": row.mime, "cache_control": row.cache_control,
        "etag": format!("\"{}\"", row.print.etag), "metadata": row.user_metadata,
        "last_modified": iso(row.updated_at), "created_at": iso(row.created_at),
    });
    let mut response = ok(&body);
    response.headers_mut().extend(head(row));
    Ok(response)
}

/// `POST /object/list/{bucket}`: a bucket that is not there is empty.
pub(super) async fn list(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    let index = shared.index();
    let bucket = index.buckets.get(&call.route.bucket).filter(|_| !call.fate.empty_lists);
    Ok(ok(&list::v1(bucket, &who, &body)?))
}

/// `POST /object/list-v2/{bucket}`: a bucket that is not there is empty.
pub(super) async fn list_v2(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    let index = shared.index();
    let bucket = index.buckets.get(&call.route.bucket).filter(|_| !call.fate.empty_lists);
    Ok(ok(&list::v2(bucket, &who, &body, call.fate.no_sort)?))
}

/// `bucketId`, `sourceKey`, `destinationBucket` and `destinationKey` of a move or copy.
fn ends(body: &Value) -> Result<(Name<'_>, Name<'_>), Refusal> {
    let field = |name: &str| {
        let text = body.get(name).and_then(Value::as_str);
        text.ok_or_else(|| Refusal::schema(format!("body must have required property '{name}'")))
    };
    let (bucket, source, target) = (field("bucketId")?, field("sourceKey")?, field("destinationKey")?);
    let target_bucket = body.get("destinationBucket").and_then(Value::as_str).unwrap_or(bucket);
    Ok(((bucket, source), (target_bucket, target)))
}

/// `POST /object/move`: `x-upsert` is not looked at.
pub(super) async fn rename(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    let (from, to) = ends(&body)?;
    shared.index().rename(from, to, &who)?;
    Ok(ok(&json!({ "message": "Successfully moved" })))
}

/// The row of an object as deletes and copies give it.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    bucket_id: &'a str,
    owner: &'static str,
    owner_id: &'a str,
    version: &'a str,
    id: &'a str,
    updated_at: String,
    created_at: String,
    last_accessed_at: String,
    metadata: Metadata,
    user_metadata: &'a Value,
}

fn shown<'a>(bucket_id: &'a str, name: &'a str, row: &'a Row) -> Shown<'a> {
    Shown {
        name,
        bucket_id,
        owner: "",
        owner_id: row.owner.as_deref().unwrap_or_default(),
        version: &row.version,
        id: &row.id,
        updated_at: iso(row.updated_at),
        created_at: iso(row.created_at),
        last_accessed_at: iso(row.created_at),
        metadata: Metadata::of(row),
        user_metadata: &row.user_metadata,
    }
}

/// `POST /object/copy`.
pub(super) async fn copy(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let upsert = call.headers.get("x-upsert").is_some_and(|value| value == "true");
    let body = call.object().await?;
    let (from, to) = ends(&body)?;
    let row = shared.index().copy(from, to, &who, upsert)?;
    let mut copied = serde_json::to_value(shown(to.0, to.1, &row)).map_err(|_| Refusal::Internal)?;
    copied["Key"] = format!("{}/{}", to.0, to.1).into();
    copied["Id"] = row.id.into();
    Ok(ok(&copied))
}

/// `DELETE /object/{bucket}/{key}`.
pub(super) fn delete(shared: &Shared, call: &Call) -> Result<Response, Refusal> {
    let who = shared.who(call)?;
    shared.index().remove(call.name(), &who, call.fate.stale)?;
    Ok(ok(&json!({ "message": "Successfully deleted" })))
}

/// `DELETE /object/{bucket}`: `prefixes` are whole keys; the answer has the rows that were there.
pub(super) async fn delete_many(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    let keys = body.get("prefixes").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| Refusal::schema("body must have required property 'prefixes'"))?;
    if keys.is_empty() {
        return Err(Refusal::schema("body/prefixes must NOT have fewer than 1 items"));
    }
    let bucket = &call.route.bucket;
    let mut index = shared.index();
    let mut rows = Vec::new();
    for key in keys.iter().filter_map(Value::as_str) {
        if let Some(row) = index.remove_seen((bucket, key), &who, call.fate.stale)? {
            rows.push((key, row));
        }
    }
    Ok(ok(&rows.iter().map(|(key, row)| shown(bucket, key, row)).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_that_fits_is_served() {
        assert_eq!(byte_range("bytes=0-3", 10), Some((0, 3)));
        assert_eq!(byte_range("bytes=5-", 10), Some((5, 9)));
        assert_eq!(byte_range("bytes=-3", 10), Some((7, 9)));
        assert_eq!(byte_range("bytes=0-99", 10), Some((0, 9)));
        for bad in ["bytes=100-200", "bytes=0-0,2-3", "bytes=3-1", "items=0-1", "bytes=-0", "bytes=-"] {
            assert_eq!(byte_range(bad, 10), None, "{bad}");
        }
        assert_eq!(byte_range("bytes=0-", 0), None);
    }
}
