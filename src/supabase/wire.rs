//! The JSON of Supabase Storage. Fields that we do not use are left out; new ones are tolerated.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::store;

/// `GET /bucket/{id}`
#[derive(Deserialize)]
pub(super) struct Bucket {
    /// Proves that the answer is about a bucket.
    #[serde(rename = "id")]
    _id: String,
    public: bool,
    file_size_limit: Option<u64>,
    allowed_mime_types: Option<Vec<String>>,
}

impl From<Bucket> for store::Bucket {
    fn from(bucket: Bucket) -> Self {
        Self {
            public: bucket.public,
            size_limit: bucket.file_size_limit,
            types: bucket.allowed_mime_types.filter(|types| !types.is_empty()),
        }
    }
}

/// The body of `POST /bucket` and `PUT /bucket/{id}`, without the name.
pub(super) fn limits(bucket: &store::Bucket) -> Value {
    json!({ "public": bucket.public, "file_size_limit": bucket.size_limit, "allowed_mime_types": bucket.types })
}

/// `POST /object/{bucket}/{key}`
#[derive(Deserialize)]
pub(super) struct Uploaded {
    #[serde(rename = "Key")]
    _key: String,
}

/// `POST /object/move`
#[derive(Deserialize)]
pub(super) struct Moved {
    #[serde(rename = "message")]
    _message: String,
}

/// A row of `DELETE /object/{bucket}`
#[derive(Deserialize)]
pub(super) struct Removed {
    pub name: String,
}

/// `GET /object/info/authenticated/{bucket}/{key}`
#[derive(Deserialize)]
pub(super) struct Info {
    size: u64,
    etag: Option<String>,
    #[serde(default)]
    metadata: Value,
    last_modified: Option<Timestamp>,
}

impl From<Info> for store::Info {
    fn from(info: Info) -> Self {
        // An object without user metadata shows `{}`.
        let empty = info.metadata.as_object().is_some_and(serde_json::Map::is_empty);
        Self {
            size: info.size,
            etag: info.etag.map(unquote),
            metadata: if empty { Value::Null } else { info.metadata },
            modified_at: info.last_modified,
        }
    }
}

#[derive(Serialize)]
struct ListRequest<'a> {
    prefix: &'a str,
    limit: usize,
    with_delimiter: bool,
    #[serde(rename = "sortBy")]
    sort_by: SortBy,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct SortBy {
    column: &'static str,
    order: &'static str,
}

/// The body of `POST /object/list-v2/{bucket}`. The order is always said: without it the server ascends
/// silently.
pub(super) fn list(page: &store::Page) -> impl Serialize {
    let order = match page.order {
        store::Order::Ascending => "asc",
        store::Order::Descending => "desc",
    };
    ListRequest {
        prefix: &page.prefix,
        limit: page.size(),
        with_delimiter: page.delimiter,
        sort_by: SortBy { column: "name", order },
        cursor: page.cursor.as_deref(),
    }
}

/// The answer to it.
#[derive(Deserialize)]
pub(super) struct List {
    #[serde(rename = "hasNext")]
    has_next: bool,
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
    folders: Vec<Folder>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Folder {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    created_at: Option<Timestamp>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    size: Option<u64>,
    #[serde(rename = "contentLength")]
    content_length: Option<u64>,
    #[serde(rename = "eTag")]
    etag: Option<String>,
}

impl From<List> for store::Listing {
    /// A list that goes on without saying where has an empty `next`.
    fn from(list: List) -> Self {
        Self {
            objects: list.objects.into_iter().map(store::Object::from).collect(),
            folders: list.folders.into_iter().map(|folder| folder.name).collect(),
            next: list.has_next.then(|| list.next_cursor.unwrap_or_default()),
            order: None,
            date: None,
        }
    }
}

impl From<Object> for store::Object {
    fn from(object: Object) -> Self {
        let metadata = object.metadata.as_ref();
        Self {
            key: object.name,
            size: metadata.and_then(|metadata| metadata.size.or(metadata.content_length)).unwrap_or_default(),
            etag: object.metadata.and_then(|metadata| metadata.etag).map(unquote),
            created_at: object.created_at,
        }
    }
}

fn unquote(etag: String) -> String {
    match etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => etag,
    }
}

/// Whether a refusal comes from storage itself and not from something in front of it.
pub(super) fn is_storage(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("statusCode").is_some())
}

/// Whether storage has no such route: it answers, but not below this path.
pub(super) fn is_unknown_route(body: &[u8]) -> bool {
    let message = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        body.get("statusCode")?;
        Some(body.get("message")?.as_str()?.to_owned())
    });
    message.is_some_and(|message| super::meaning::is_unknown_route(&message))
}

/// At most this many keys a call: the documented limit.
const CHUNK_KEYS: usize = 1_000;
/// The server refuses bodies over 1 MiB.
const CHUNK_BYTES: usize = 1_000_000;

/// Keys in the chunks that one removal takes.
pub(super) fn chunks(keys: &[String]) -> Vec<&[String]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, key) in keys.iter().enumerate() {
        // Quotes and comma; no valid key holds a character that JSON escapes into more than two bytes.
        let size = 2 * key.len() + 3;
        if index - start == CHUNK_KEYS || (index > start && bytes + size > CHUNK_BYTES) {
            chunks.push(&keys[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < keys.len() {
        chunks.push(&keys[start..]);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_cut_by_number_and_by_bytes() {
        let keys = |n: usize, len: usize| vec!["k".repeat(len); n];
        let sizes = |keys: &[String]| chunks(keys).into_iter().map(<[String]>::len).collect::<Vec<_>>();
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&keys(1_000, 10)), [1_000]);
        assert_eq!(sizes(&keys(2_001, 10)), [1_000, 1_000, 1]);
        let long = keys(1_000, 850);
        assert_eq!(sizes(&long).iter().sum::<usize>(), 1_000);
        for chunk in chunks(&long) {
            assert!(json!({ "prefixes": chunk }).to_string().len() < 1 << 20);
        }
        assert!(sizes(&long).len() > 1);
    }

    #[test]
    fn a_recorded_list_is_read() {
        let body = r#"{"hasNext":true,"nextCursor":"bDpi","nextCursorKey":"b","folders":[{"key":"sub","name":"l/sub/","id":null,"updated_at":null,"created_at":null,"last_accessed_at":null,"metadata":null}],
            "objects":[{"id":"6aa2713b-55eb-4bda-b299-3499f9a576d5","name":".history/u/s/zz","metadata":{"eTag":"\"9dd4e461268c8034f5c8564e155c67a6\"","size":1,"mimetype":"application/octet-stream","cacheControl":"no-cache","lastModified":"2026-11-24T15:00:47.981Z","contentLength":1,"httpStatusCode":200},"updated_at":"2026-11-24T15:00:47.993Z","created_at":"2026-11-24T15:00:47.993Z","last_accessed_at":"2026-11-24T15:00:47.993Z","is_versioned":false}]}"#;
        let listing = store::Listing::from(serde_json::from_str::<List>(body).unwrap());
        assert_eq!(listing.next.as_deref(), Some("bDpi"));
        assert_eq!(listing.folders, ["l/sub/"]);
        let object = &listing.objects[0];
        assert_eq!((object.key.as_str(), object.size), (".history/u/s/zz", 1));
        assert_eq!(object.etag.as_deref(), Some("9dd4e461268c8034f5c8564e155c67a6"));
        assert_eq!(object.created_at.unwrap().to_string(), "2026-11-24T15:00:47.993Z");
    }
}
