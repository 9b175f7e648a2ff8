//! Removing a mirror that is not kept any more: it is plaintext, and history is encrypted.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::mirror::list_all;
use super::mirror_fetch::{PLACEHOLDER, is_ours};
use super::mirror_key::unescape;
use crate::session::SessionKey;
use crate::store::{Kind, Store, StoreError, read};
use crate::tree::{Hash, Table};

/// Objects that are looked at at once.
const AT_ONCE: usize = 8;
/// Objects that are removed at once: what was looked at is not looked at again.
const BATCH: usize = 64;

/// Removes what is the mirror of files in history: what we wrote, by its mark, and what somebody else wrote and the head
/// has with the same bytes. All else is in no commit: it stays, and joins `foreign`, which is not looked at again. How
/// many are gone. It can be cut off anywhere. // P6
pub async fn remove_ours(
    store: &dyn Store,
    session: &SessionKey,
    head: &Table,
    foreign: &mut BTreeSet<String>,
) -> Result<u64, StoreError> {
    let prefix = session.mirror_prefix();
    let all = list_all(store, &prefix).await?;
    foreign.retain(|key| all.objects.iter().any(|object| object.key == *key));
    let keys = all.objects.into_iter().map(|object| object.key);
    let keys: Vec<String> =
        keys.filter(|key| !foreign.contains(key) && !key.ends_with(PLACEHOLDER)).collect();
    let mut gone = 0;
    for batch in keys.chunks(BATCH) {
        let looks = batch.iter().map(|key| look(store, &prefix, key.clone(), head));
        let looks = stream::iter(looks.collect::<Vec<_>>());
        let looked: Vec<(String, bool)> = looks.buffer_unordered(AT_ONCE).try_collect().await?;
        let (ours, others): (Vec<_>, Vec<_>) = looked.into_iter().partition(|(_, ours)| *ours);
        foreign.extend(others.into_iter().map(|(key, _)| key));
        let ours: Vec<String> = ours.into_iter().map(|(key, _)| key).collect();
        if !ours.is_empty() {
            gone += store.remove(&ours).await?.len() as u64;
        }
    }
    Ok(gone)
}

async fn look(
    store: &dyn Store,
    prefix: &str,
    key: String,
    head: &Table,
) -> Result<(String, bool), StoreError> {
    let ours = is_mirrored(store, prefix, &key, head).await?;
    Ok((key, ours))
}

async fn is_mirrored(store: &dyn Store, prefix: &str, key: &str, head: &Table) -> Result<bool, StoreError> {
    let info = match store.info(key).await {
        Ok(info) => info,
        Err(error) if error.kind == Kind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if is_ours(&info) {
        return Ok(true);
    }
    let path = key.strip_prefix(prefix).and_then(unescape);
    let known = path.and_then(|path| head.files.get(&path).copied());
    match known {
        Some(meta) if meta.size == info.size => {
            let bytes = match read(store, key).await {
                Err(error) if error.kind == Kind::NotFound => return Ok(true),
                bytes => bytes?,
            };
            Ok(Hash::of(&bytes) == meta.sha256)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests;
