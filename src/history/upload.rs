//! Sending a frozen commit.

use super::HistoryError;
use super::archive::Frozen;
use crate::session::SessionKey;
use crate::store::{Bucket, Kind, Put, Store};

/// What a commit is, and what it is sent as where the bucket has no say.
const ZSTD: &str = "application/zstd";
const OCTETS: &str = "application/octet-stream";

/// Said once: commits are sent under a type that is not theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(
    /// One line, with what to do.
    pub String,
);

/// Uploads all parts in order. `content_type` is [`content_type`]'s answer for the bucket.
///
/// A name that is taken counts as confirmed: an earlier try of the same bytes arrived. (P3) A failure says nothing
/// about whether the commit will appear: try again with the same value, or keep its id as pending.
pub async fn upload(
    store: &dyn Store,
    key: &SessionKey,
    frozen: &Frozen,
    content_type: &str,
) -> Result<(), HistoryError> {
    let prefix = key.history_prefix();
    let how = Put { content_type: content_type.to_owned(), overwrite: false, metadata: None };
    for (name, body) in &frozen.objects {
        match store.put(&format!("{prefix}{name}"), body.clone(), &how).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The type that commits are sent as: the right one, else bytes, else the first that the bucket accepts.
///
/// # Errors
/// [`HistoryError::BucketRefuses`] when it accepts nothing that can be named.
pub fn content_type(bucket: &Bucket) -> Result<(String, Option<Warning>), HistoryError> {
    let types = bucket.types.as_deref().unwrap_or_default();
    for wanted in [ZSTD, OCTETS] {
        if types.is_empty() || types.iter().any(|allowed| covers(allowed, wanted)) {
            return Ok((wanted.to_owned(), None));
        }
    }
    let chosen = types.iter().find_map(|allowed| concrete(allowed)).ok_or_else(|| {
        HistoryError::BucketRefuses(format!(
            "the bucket accepts only {}: `session-sidecar init` adds {ZSTD}",
            types.join(", ")
        ))
    })?;
    let warning = format!(
        "the bucket does not accept {ZSTD}: commits are sent as {chosen}; `session-sidecar init` widens the list"
    );
    Ok((chosen.to_owned(), Some(Warning(warning))))
}

fn covers(allowed: &str, wanted: &str) -> bool {
    let family = allowed.strip_suffix("/*");
    allowed == wanted
        || allowed == "*/*"
        || family.is_some_and(|family| wanted.split('/').next() == Some(family))
}

/// The server compares as text: a type goes out as it is listed, and one with a charset cannot be used.
fn concrete(allowed: &str) -> Option<&str> {
    match allowed {
        "text/*" => Some("text/plain"),
        _ if allowed.contains(['*', ';', ' ']) || !allowed.contains('/') => None,
        _ => Some(allowed),
    }
}

#[cfg(test)]
mod tests;
