//! The calls that the mirror makes.

use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest as _, Md5};
use serde_json::json;

use super::Source;
use crate::session::SessionKey;
use crate::store::{Kind, Object, Page, Put, Store, StoreError};
use crate::sync::mirror_key::Skip;
use crate::sync::mirror_plan::PutOrder;
use crate::tree::Hash;

/// How many keys one removal names at most.
pub(super) const REMOVALS: usize = 1000;

/// What became of one upload.
pub(super) enum Outcome {
    /// Written; its MD5 as hex.
    Written { md5: String },
    /// The committed bytes were not to be had.
    Unavailable,
    /// For good.
    Refused(Skip),
    /// Not clear, or not now.
    Failed(StoreError),
}

/// Writes one object, with our mark.
pub(super) async fn put_one(store: &dyn Store, source: &dyn Source, order: &PutOrder, head: &str) -> Outcome {
    let Some(body) = committed(source, &order.path, order.meta.sha256).await else {
        return Outcome::Unavailable;
    };
    let md5 = md5_hex(&body);
    let how = Put {
        content_type: order.content_type.to_owned(),
        overwrite: true,
        // The MD5 is what the etag will be: with it our mark proves itself without a read, which may be stale.
        metadata: Some(json!({ "sidecar": { "head": head, "sha256": order.meta.sha256, "md5": md5 } })),
    };
    match store.put(&order.key, body, &how).await {
        Ok(()) => Outcome::Written { md5 },
        Err(error) => match error.kind {
            Kind::TooLarge => Outcome::Refused(Skip::TooLarge),
            Kind::TypeRefused => Outcome::Refused(Skip::TypeRefused),
            Kind::BadKey => Outcome::Refused(Skip::Refused),
            _ => Outcome::Failed(error),
        },
    }
}

/// The committed bytes, proven by their hash: the source may have read while a bot wrote.
pub(super) async fn committed(source: &dyn Source, path: &str, sha256: Hash) -> Option<Bytes> {
    let content = source.content(path, sha256).await?;
    let read = move || content.bytes().ok().filter(|bytes| Hash::of(bytes) == sha256);
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// As an etag has it.
pub(in crate::sync) fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

/// All objects below a prefix, ascending, and the server's clock at the first page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::sync) struct All {
    pub(in crate::sync) objects: Vec<Object>,
    pub(in crate::sync) date: Option<Timestamp>,
}

/// Lists every page.
pub(in crate::sync) async fn list_all(store: &dyn Store, prefix: &str) -> Result<All, StoreError> {
    let mut page = Page { prefix: prefix.to_owned(), limit: 1000, ..Page::default() };
    let mut all = All::default();
    loop {
        let listing = store.list(&page).await?;
        all.date = all.date.or(listing.date);
        let empty = listing.objects.is_empty();
        all.objects.extend(listing.objects);
        let Some(next) = listing.next else { break };
        if empty || page.cursor.as_ref() == Some(&next) {
            return Err(StoreError::new(Kind::Protocol, "list", "a list that goes on without end").at(prefix));
        }
        page.cursor = Some(next);
    }
    all.objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(all)
}

/// Removes a session's whole mirror as it is listed now (encryption was turned on, or the session is deleted): how many
/// objects were listed, and how many of them are gone.
pub async fn clear(store: &dyn Store, session: &SessionKey) -> Result<(usize, u64), StoreError> {
    let all = list_all(store, &session.mirror_prefix()).await?;
    let keys: Vec<String> = all.objects.into_iter().map(|object| object.key).collect();
    let mut removed = 0;
    for keys in keys.chunks(REMOVALS) {
        removed += store.remove(keys).await?.len() as u64;
    }
    Ok((keys.len(), removed))
}
