//! Pins: objects that keep a commit and what it needs.

use bytes::Bytes;
use serde_json::json;

use super::HistoryError;
use super::name::{Id, Name, is_reason};
use super::upload::content_type;
use crate::session::SessionKey;
use crate::store::{Kind, Put, Store, StoreError};

/// Pins a commit. Written before the commit that it protects from; a pin that is there already is enough.
///
/// `reason` is one word of `a-z 0-9 -`: `identity`, `logout`, `delete`, `rewind`, `label`, `mirror` …
pub async fn pin(store: &dyn Store, key: &SessionKey, id: Id, reason: &str) -> Result<(), HistoryError> {
    if !is_reason(reason) {
        return Err(HistoryError::Refused(format!("`{}` is not the reason of a pin", reason.escape_debug())));
    }
    let body = json!({ "format": 1, "id": id, "reason": reason });
    note(store, key, &Name::Pin { id, reason: reason.to_owned() }, &body).await
}

/// Writes a small object whose name says it all; one that is there already is enough.
pub(super) async fn note(
    store: &dyn Store,
    key: &SessionKey,
    name: &Name,
    body: &serde_json::Value,
) -> Result<(), HistoryError> {
    let name = format!("{}{name}", key.history_prefix());
    let body = Bytes::from(body.to_string());
    match confirmed(put(store, &name, body.clone(), "application/json").await) {
        Err(error) if error.kind == Kind::TypeRefused => {
            let (fallback, _) = content_type(&store.bucket().await?)?;
            Ok(confirmed(put(store, &name, body, &fallback).await)?)
        }
        result => Ok(result?),
    }
}

async fn put(store: &dyn Store, name: &str, body: Bytes, content_type: &str) -> Result<(), StoreError> {
    let how = Put { content_type: content_type.to_owned(), overwrite: false, metadata: None };
    store.put(name, body, &how).await
}

fn confirmed(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.kind == Kind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
