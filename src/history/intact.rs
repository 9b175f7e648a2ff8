//! The newest point that can still be restored when the head cannot.

use std::collections::BTreeSet;
use std::path::Path;

use super::HistoryError;
use super::access::Access;
use super::chain::{Fetched, Link, Progress, Rebuild, blocking, download};
use super::name::Id;
use super::replay::Replay;
use super::survey::Survey;
use crate::session::SessionKey;

/// The newest commit at or before `id`, of the same line of parents, whose whole chain verifies byte by byte.
///
/// None when there is none, or when the link that is missing was the only one that named its parent. The survey
/// should hold all pages: a base's parent lies beyond what the head's chain needs.
pub async fn newest_intact(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Option<Id>, HistoryError> {
    let mut from = Some(id);
    while let Some(id) = from {
        let Ok(ids) = survey.chain(id) else { return Ok(None) };
        access.admit(key, survey, &ids).await?;
        let fetched = download(access, survey, &ids, scratch, progress).await?;
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
    let mut replay = Replay::default();
    let mut rebuild = Rebuild::new(scratch.path());
    let patched = patched(key, &links);
    let mut intact = None;
    for link in links {
        match link.and_then(|link| verify(key, &link, &mut replay, &mut rebuild, &patched)) {
            // A wrong digest does not spoil what is built on it.
            Ok((id, true)) => intact = Some(id),
            Ok((_, false)) => {}
            Err(error) if error.is_damage() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(intact)
}

/// Every path that a link patches, up to the first link that cannot be read: nothing after it is intact.
fn patched(key: &SessionKey, links: &[Result<Link, HistoryError>]) -> BTreeSet<String> {
    let commits = links.iter().map_while(|link| {
        let link = link.as_ref().ok()?;
        link.header(key).ok()
    });
    commits.flat_map(|commit| commit.patch).map(|patch| patch.entry.path).collect()
}

/// Verifies one more link; whether a restore of exactly this point would succeed.
fn verify(
    key: &SessionKey,
    link: &Link,
    replay: &mut Replay,
    rebuild: &mut Rebuild<'_>,
    patched: &BTreeSet<String>,
) -> Result<(Id, bool), HistoryError> {
    let commit = link.header(key)?;
    replay.apply(&commit)?;
    rebuild.follow(link, key, patched)?;
    Ok((commit.id, replay.verify().is_ok()))
}

#[cfg(test)]
mod tests;
