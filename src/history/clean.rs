//! Applying a retention plan, and reading back what everything else rests on.

use std::path::Path;

use super::HistoryError;
use super::access::Access;
use super::chain::{Silent, blocking, fetch};
use super::name::Id;
use super::retention::Plan;
use super::survey::Survey;
use crate::session::SessionKey;
use crate::store::Store;

/// Names a call: half of what the server documents, and far below its limit on a request's bytes.
const BATCH: usize = 500;

/// Deletes what a plan says; returns how many objects were there and are gone. An upload in flight can bring one
/// back: the next run looks again.
pub async fn clean(store: &dyn Store, plan: &Plan) -> Result<u64, HistoryError> {
    remove(store, &plan.delete).await
}

/// Deletes objects by their keys; how many were there and are gone.
pub async fn remove(store: &dyn Store, keys: &[String]) -> Result<u64, HistoryError> {
    let mut gone = 0;
    for batch in keys.chunks(BATCH) {
        gone += store.remove(batch).await?.len() as u64;
    }
    Ok(gone)
}

/// Reads a base back and verifies all of it: the tree that the newest chain, and every later one, is built on.
pub async fn verify_base(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    base: Id,
    scratch: &Path,
) -> Result<(), HistoryError> {
    let chain = fetch(access, key, survey, base, scratch, &Silent).await?;
    blocking(move || chain.verify()).await
}

#[cfg(test)]
mod tests;
