//! Plaintext in a history that is encrypted from now on: what must be kept is encrypted under the same id, all else goes.
//!
//! The name of the encrypted object is a new one (P3), and only once it was read back the plaintext is deleted (P6). A crash
//! leaves both: the reader prefers the encrypted one, and the next run goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::HistoryError;
use super::access::{Access, judge};
use super::archive::{copy_packed, split};
use super::chain::{Fetched, Link, Silent, blocking, download};
use super::clean::remove;
use super::name::{CommitName, Id, Name};
use super::pin::note;
use super::survey::{Listed, Survey};
use crate::session::SessionKey;
use crate::store::{Kind, Put};
use crate::tree::Hash;

/// What is to become of the plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be encrypted, in this order: newest first, so that plaintext is older than all that is encrypted at every moment;
    /// else a reader could not tell it from what an enemy puts there.
    pub reseal: Vec<Id>,
    /// Full keys of what nothing needs.
    pub delete: Vec<String>,
    /// What is kept, is not believed, and so is not encrypted either: it would pass for ours.
    pub strangers: Vec<Id>,
}

impl Plan {
    /// Whether nothing of it is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reseal.is_empty() && self.delete.is_empty()
    }
}

/// Plans it. `keep` is what retention keeps; nothing above `epoch` is touched, and nothing at all unless the list has all
/// pages and the whole chain of the head is encrypted. // P4 P6
#[must_use]
pub fn plan(access: &Access<'_>, survey: &Survey, keep: &BTreeSet<Id>, epoch: u32) -> Plan {
    let mut plan = Plan::default();
    if !access.keys.encrypts() || !survey.complete || survey.encrypted_base().is_none() {
        return plan;
    }
    for (id, listed) in survey.commits.iter().rev().filter(|(id, _)| id.epoch <= epoch) {
        let open = if listed.name.encrypted { &listed.plain } else { &listed.objects };
        if open.is_empty() {
            continue;
        }
        if listed.ambiguous && keep.contains(id) {
            plan.strangers.push(*id);
        } else if !keep.contains(id) {
            plan.delete.extend(open.iter().map(|object| object.key.clone()));
        } else if listed.name.encrypted || judge(access.keys, access.since, survey, &[*id]).is_ok() {
            plan.reseal.push(*id);
        } else {
            plan.strangers.push(*id);
        }
    }
    // Uploads of a session are one after another: what an older attempt left here will never be whole.
    let parts = survey.incomplete.iter().filter(|(name, _)| !name.encrypted && name.id.epoch <= epoch);
    plan.delete.extend(parts.map(|(_, object)| object.key.clone()));
    plan
}

/// What the bucket takes.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The type that commits are sent as.
    pub content_type: &'a str,
    /// The largest object.
    pub size_limit: Option<u64>,
}

/// Encrypts one commit that [`plan`] names, or what is left to do of it; in the end its plaintext is gone. // P3 P6
pub async fn reseal(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
    scratch: &Path,
    terms: Terms<'_>,
) -> Result<(), HistoryError> {
    let listed = survey.commits.get(&id).ok_or(HistoryError::Missing { id })?;
    let name = CommitName { encrypted: false, ..listed.name };
    let objects = if listed.name.encrypted { &listed.plain } else { &listed.objects };
    let plain = Listed { name, objects: objects.clone(), ..listed.clone() };
    let source = Arc::new(fetch(access, &plain, scratch).await?);
    let sealed = if listed.name.encrypted {
        listed.clone()
    } else {
        write(access, key, survey, &plain, Arc::clone(&source), terms).await?
    };
    let copy = fetch(access, &sealed, scratch).await?;
    let same = blocking(move || Ok(hash(&source)? == hash(&copy)?)).await?;
    if !same {
        return Err(HistoryError::damaged(id, "its encrypted copy is not the same: its plaintext stays"));
    }
    let keys: Vec<String> = plain.objects.iter().map(|object| object.key.clone()).collect();
    remove(access.store, &keys).await?;
    Ok(())
}

/// Writes the encrypted copy; how a list will show it.
async fn write(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    listed: &Listed,
    source: Arc<Held>,
    terms: Terms<'_>,
) -> Result<Listed, HistoryError> {
    let id = listed.name.id;
    if let Some(seconds) = listed.created_at().and_then(|at| u32::try_from(at.as_second()).ok()) {
        // The new object is younger than what it holds; retention, and `--at`, go by this.
        let body = json!({ "format": 1, "id": id, "created_at": listed.created_at() });
        note(access.store, key, &Name::Time { id, seconds }, &body).await?;
    }
    // Parts that an earlier run left are of other bytes: they go, and theirs are names that are not used again.
    let left = survey.incomplete.iter().filter(|(name, _)| name.id == id && name.encrypted);
    let (used, left): (BTreeSet<u16>, Vec<String>) =
        left.map(|(name, object)| (name.part.map_or(1, |part| part.of), object.key.clone())).unzip();
    remove(access.store, &left).await?;

    let name = CommitName { encrypted: true, ..listed.name };
    let limit = terms.size_limit;
    let objects = blocking(move || {
        let failed = |error| HistoryError::io("a commit could not be encrypted", error);
        let mut sealed = source.keys.seal(Vec::new()).map_err(failed)?;
        copy_packed(source.open(), &source.name, &source.keys, &mut sealed)?;
        let bytes = sealed.finish().map_err(failed)?.into();
        split_anew(name, &bytes, limit, &used, rand::random_range(0..SPREAD)).map_err(failed)
    })
    .await?;

    let prefix = key.history_prefix();
    let how = Put { content_type: terms.content_type.to_owned(), overwrite: false, metadata: None };
    let (alone, mut written) = (objects.len() == 1, Vec::new());
    for (name, body) in objects {
        let (object, size) = (format!("{prefix}{name}"), body.len() as u64);
        match access.store.put(&object, body, &how).await {
            Ok(()) => {}
            // An earlier run's, whose answer was lost: whatever is there is read back and compared. A part of one is of
            // other bytes than ours: the next run's list shows it.
            Err(error) if error.kind == Kind::AlreadyExists && alone => {}
            Err(error) => return Err(error.into()),
        }
        written.push(crate::store::Object { key: object, size, etag: None, created_at: None });
    }
    Ok(Listed { name, objects: written, ..listed.clone() })
}

/// How many numbers of parts there are to choose from,
const SPREAD: usize = 64;
/// as long as no part gets smaller than this.
const PART: usize = 64 << 10;

/// The objects of a commit that is encrypted once more. Two encryptions of the same are of different bytes, and a part of an
/// earlier run may still be under way: parts get names that no listed one has, and that one hardly has. // P3
fn split_anew(
    name: CommitName,
    bytes: &Bytes,
    limit: Option<u64>,
    used: &BTreeSet<u16>,
    luck: usize,
) -> io::Result<Vec<(Name, Bytes)>> {
    let fits = split(name, bytes.clone(), limit)?;
    if fits.len() == 1 {
        return Ok(fits);
    }
    let spread = (bytes.len() / PART).min(SPREAD).max(used.len() + 1);
    for more in 0..spread {
        let of = fits.len() + (luck + more) % spread;
        let objects = split(name, bytes.clone(), Some(bytes.len().div_ceil(of) as u64))?;
        if !u16::try_from(objects.len()).is_ok_and(|of| used.contains(&of)) {
            return Ok(objects);
        }
    }
    Err(io::Error::other("parts of earlier runs have taken all names"))
}

/// The objects of one commit, on the local disk.
async fn fetch(access: Access<'_>, listed: &Listed, scratch: &Path) -> Result<Held, HistoryError> {
    let id = listed.name.id;
    let survey = Survey { commits: BTreeMap::from([(id, listed.clone())]), ..Survey::default() };
    let Fetched { scratch, mut links } = download(access, &survey, &[id], scratch, &Silent).await?;
    let link = links.pop().ok_or(HistoryError::Missing { id })??;
    Ok(Held { link, _scratch: scratch })
}

/// A commit on the local disk; its files go with it.
struct Held {
    link: Link,
    _scratch: Arc<tempfile::TempDir>,
}

impl std::ops::Deref for Held {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

fn hash(link: &Link) -> Result<Hash, HistoryError> {
    let mut hasher = Hashing(Sha256::new());
    copy_packed(link.open(), &link.name, &link.keys, &mut hasher)?;
    Ok(Hash::finish(hasher.0))
}

struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
