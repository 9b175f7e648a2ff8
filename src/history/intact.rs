//! The newest point that can still be restored when the head cannot.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::HistoryError;
use super::archive;
use super::chain::{Fetched, Link, Progress, blocking, download, refuse_encrypted};
use super::name::Id;
use super::replay::Replay;
use super::survey::Survey;
use crate::session::SessionKey;
use crate::store::Store;

/// The newest commit at or before `id`, of the same line of parents, whose whole chain verifies byte by byte.
///
/// None when there is none, or when the link that is missing was the only one that named its parent. The survey
/// should hold all pages: a base's parent lies beyond what the head's chain needs.
pub async fn newest_intact(
    store: &dyn Store,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Option<Id>, HistoryError> {
    let mut from = Some(id);
    while let Some(id) = from {
        let Ok(ids) = survey.chain(id) else { return Ok(None) };
        refuse_encrypted(survey, &ids)?;
        let fetched = download(store, survey, &ids, scratch, progress).await?;
        let owned = key.clone();
        let intact = blocking(move || longest_intact(&owned, fetched)).await?;
        if intact.is_some() {
            return Ok(intact);
        }
        // Not even the base: what was before it?
        from = ids.first().and_then(|base| survey.commits.get(base)).and_then(|base| base.name.parent);
    }
    Ok(None)
}

fn longest_intact(key: &SessionKey, fetched: Fetched) -> Result<Option<Id>, HistoryError> {
    let Fetched { scratch, links } = fetched;
    let _scratch: Arc<TempDir> = scratch;
    let mut replay = Replay::default();
    let mut intact = None;
    for link in links {
        match link.and_then(|link| verify(key, &link, &mut replay)) {
            // A wrong digest does not spoil what is built on it.
            Ok((id, true)) => intact = Some(id),
            Ok((_, false)) => {}
            Err(error) if error.is_damage() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(intact)
}

/// Verifies one more link; whether a restore of exactly this point would succeed.
fn verify(key: &SessionKey, link: &Link, replay: &mut Replay) -> Result<(Id, bool), HistoryError> {
    let commit = archive::unpack(link.open(), &link.name, key, &mut |_, _| Ok(()))?;
    replay.apply(&commit)?;
    Ok((commit.id, replay.verify().is_ok()))
}

#[cfg(test)]
mod tests;
