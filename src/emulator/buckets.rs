//! The calls on buckets. Only the service key has rights to them, and a role that a policy names.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::BucketOptions;
use super::auth::{Who, sees_bucket};
use super::error::Refusal;
use super::index::BucketRow;
use super::list::iso;
use super::rules;
use super::server::{Call, Shared, ok};

fn show(row: &BucketRow) -> Value {
    json!({
        "id": row.set.id, "name": row.set.id, "owner": "", "public": row.set.public,
        "file_size_limit": row.set.file_size_limit, "allowed_mime_types": row.set.allowed_mime_types,
        "created_at": iso(row.created_at), "updated_at": iso(row.updated_at),
    })
}

/// `GET /bucket`.
pub(super) fn all(shared: &Shared, call: &Call) -> Result<Response, Refusal> {
    let who = shared.who(call)?;
    let index = shared.index();
    let seen = index.buckets.values().map(|b| &b.row).filter(|row| sees_bucket(&row.set.policies, &who));
    let rows = seen.map(|row| {
        let mut row = show(row);
        row["type"] = "STANDARD".into();
        row
    });
    Ok(ok(&rows.collect::<Vec<_>>()))
}

/// `GET /bucket/{id}`.
pub(super) fn one(shared: &Shared, call: &Call) -> Result<Response, Refusal> {
    let who = shared.who(call)?;
    let index = shared.index();
    let row = &index.bucket(&call.route.bucket)?.row;
    if sees_bucket(&row.set.policies, &who) { Ok(ok(&show(row))) } else { Err(Refusal::NoSuchBucket) }
}

/// Takes the settings that a body names into a row.
fn settings(row: &mut BucketOptions, body: &Value) -> Result<(), Refusal> {
    if let Some(public) = body.get("public") {
        row.public = public.as_bool().ok_or_else(|| Refusal::schema("body/public must be boolean"))?;
    }
    if let Some(limit) = body.get("file_size_limit") {
        let bytes = limit.as_u64().or_else(|| limit.as_str().and_then(rules::size_text));
        if bytes.is_none() && !limit.is_null() {
            return Err(Refusal::schema(
                "body/file_size_limit must be integer, body/file_size_limit must pass \"finite\" keyword \
                 validation, body/file_size_limit must match pattern \
                 \"^[0-9]+(?:\\.[0-9]+)?(?:[gG][bB]|[mM][bB]|[kK][bB]|[bB])$\", \
                 body/file_size_limit must match a schema in anyOf",
            ));
        }
        if bytes.is_some_and(|bytes| bytes > rules::LARGEST) {
            return Err(Refusal::TooLarge);
        }
        row.file_size_limit = bytes;
    }
    if let Some(types) = body.get("allowed_mime_types") {
        row.allowed_mime_types = serde_json::from_value(types.clone())
            .map_err(|_| Refusal::schema("body/allowed_mime_types must be array,null"))?;
    }
    Ok(())
}

/// `POST /bucket`: the one creation that decides between two.
pub(super) async fn create(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    let name = body.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Refusal::schema("body must have required property 'name'"))?;
    let id = body.get("id").and_then(Value::as_str).unwrap_or(name).to_owned();
    rules::bucket_name(&id)?;
    let mut index = shared.index();
    let (file_size_limit, allowed_mime_types, policies) = (None, None, Vec::new());
    let mut row =
        BucketOptions { id: id.clone(), public: false, file_size_limit, allowed_mime_types, policies };
    settings(&mut row, &body)?;
    if who != Who::Service {
        return Err(Refusal::RowLevelSecurity);
    }
    if index.buckets.contains_key(&id) {
        return Err(Refusal::Exists("BucketAlreadyExists"));
    }
    index.put_bucket(row)?;
    Ok(ok(&json!({ "name": id })))
}

/// `PUT /bucket/{id}`.
pub(super) async fn update(shared: &Arc<Shared>, mut call: Call) -> Result<Response, Refusal> {
    let who = shared.who(&call)?;
    let body = call.object().await?;
    match who {
        Who::Service => {}
        Who::Role(_) | Who::Sidecar(_) => {
            return Err(Refusal::Denied("permission denied for table buckets"));
        }
        Who::Anon | Who::User(_) => return Err(Refusal::NoSuchBucket),
    }
    let mut index = shared.index();
    let mut row = index.bucket(&call.route.bucket)?.row.set.clone();
    settings(&mut row, &body)?;
    index.put_bucket(row)?;
    Ok(ok(&json!({ "message": "Successfully updated" })))
}

/// `DELETE /bucket/{id}`.
pub(super) fn delete(shared: &Shared, call: &Call) -> Result<Response, Refusal> {
    let who = shared.who(call)?;
    let mut index = shared.index();
    let bucket = index.bucket(&call.route.bucket)?;
    if !bucket.objects.is_empty() {
        return Err(Refusal::NotEmpty);
    }
    if who != Who::Service {
        return Err(Refusal::NoSuchBucket);
    }
    index.remove_bucket(&call.route.bucket)?;
    Ok(ok(&json!({ "message": "Successfully deleted" })))
}

/// `POST /bucket/{id}/empty`.
pub(super) fn empty(shared: &Shared, call: &Call) -> Result<Response, Refusal> {
    if shared.who(call)? != Who::Service {
        return Err(Refusal::InvalidRole);
    }
    let mut index = shared.index();
    let bucket = &call.route.bucket;
    for key in index.bucket(bucket)?.objects.keys().cloned().collect::<Vec<_>>() {
        index.remove_seen((bucket, &key), &Who::Service, call.fate.stale)?;
    }
    Ok(ok(&json!({ "message": "Empty bucket has been queued. Completion may take up to an hour." })))
}
