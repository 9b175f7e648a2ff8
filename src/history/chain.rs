//! A chain, fetched and replayed: the tree at one commit, ready to be extracted.

mod download;
mod extract;
mod rebuild;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::HistoryError;
use super::access::Access;
use super::archive::{self, Item, Parts};
use super::commit::Commit;
use super::keys::Keys;
use super::name::{CommitName, Id};
use super::replay::Replay;
use super::survey::Survey;
use crate::session::SessionKey;
use crate::tree::{Content, Dir, Entry, Meta, Table};

pub(super) use download::{Fetched, download};
pub(super) use rebuild::Rebuild;

/// Hears how far a restore has come.
pub trait Progress: Send + Sync + Debug {
    /// What is going to be fetched.
    fn planned(&self, objects: u64, bytes: u64) {
        let _ = (objects, bytes);
    }

    /// Bytes arrived; negative when a download begins again.
    fn received(&self, bytes: i64) {
        let _ = bytes;
    }

    /// One more object is here.
    fn fetched(&self) {}

    /// One more file is written and verified.
    fn extracted(&self) {}
}

/// Nobody is watching.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// The objects of a chain on the local disk, and the tree they lead to. Dropping it removes the objects.
#[derive(Debug)]
pub struct Chain {
    key: SessionKey,
    links: Vec<Link>,
    replay: Replay,
    head: Commit,
    scratch: Arc<TempDir>,
}

/// One commit of a chain.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) name: CommitName,
    pub(super) parts: Vec<PathBuf>,
    /// What opens it.
    pub(super) keys: Keys,
}

impl Link {
    pub(super) fn open(&self) -> Parts {
        Parts::new(self.parts.clone())
    }

    /// See [`archive::header`].
    pub(super) fn header(&self, key: &SessionKey) -> Result<Commit, HistoryError> {
        archive::header(self.open(), &self.name, key, &self.keys)
    }

    /// See [`archive::unpack`].
    pub(super) fn unpack(
        &self,
        key: &SessionKey,
        visit: &mut archive::Visit<'_>,
    ) -> Result<Commit, HistoryError> {
        archive::unpack(self.open(), &self.name, key, &self.keys, visit)
    }
}

/// Fetches all objects of the chain that leads to `id`, 64 at once, into a new directory below `scratch`, replays
/// them and verifies the tree. The bytes of the files are verified when they are [extracted](Chain::extract).
///
/// # Errors
/// [`HistoryError::Missing`] and [`HistoryError::Damaged`] for a chain that is not whole; [`HistoryError::Gone`]
/// when an object vanished since the list: list again, once. [`HistoryError::NoIdentity`],
/// [`HistoryError::WrongIdentity`] and [`HistoryError::Plaintext`] for what the keys do not open, or do not let pass.
pub async fn fetch(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Chain, HistoryError> {
    let ids = survey.chain(id)?;
    access.admit(key, survey, &ids).await?;
    let Fetched { scratch, links } = download(access, survey, &ids, scratch, progress).await?;
    let links = links.into_iter().collect::<Result<Vec<Link>, HistoryError>>()?;
    let key = key.clone();
    blocking(move || Chain::replay(key, links, scratch)).await
}

/// Runs what reads and writes files beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(HistoryError::io("reading the history", std::io::Error::other(error))),
    }
}

impl Chain {
    pub(super) fn replay(
        key: SessionKey,
        links: Vec<Link>,
        scratch: Arc<TempDir>,
    ) -> Result<Self, HistoryError> {
        let mut replay = Replay::default();
        let mut head = None;
        for link in &links {
            let commit = link.header(&key)?;
            replay.apply(&commit)?;
            head = Some(commit);
        }
        replay.verify()?;
        let head = head.expect("a chain has at least the commit it leads to");
        Ok(Self { key, links, replay, head, scratch })
    }

    /// The commit that the chain leads to.
    #[must_use]
    pub fn head(&self) -> &Commit {
        &self.head
    }

    /// The tree at that commit.
    #[must_use]
    pub fn table(&self) -> &Table {
        self.replay.table()
    }

    /// The commits of the chain, base first.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.links.iter().map(|link| link.name.id)
    }

    /// Writes the tree below an empty directory: modes and times as history has them, owner ours. Every file is
    /// verified. Nothing outside `into` is touched, whatever the objects hold. Blocking; making it durable is the
    /// caller's part.
    ///
    /// # Errors
    /// [`HistoryError::Damaged`], and [`HistoryError::Io`] when the disk fails; `into` then holds part of a tree.
    pub fn extract(&self, into: &Dir, progress: &dyn Progress) -> Result<(), HistoryError> {
        for path in &self.table().empty_dirs {
            into.make_dir_all(path, extract::DIRECTORY_MODE)
                .map_err(|error| HistoryError::io(format!("cannot make {}", path.escape_debug()), error))?;
        }
        self.newest(|_| true, &mut |entry, content| {
            extract::write(into, &entry.path, &entry.meta, content)?;
            progress.extracted();
            Ok(())
        })
    }

    /// Writes only these files, as [`extract`](Self::extract) does.
    pub fn extract_some(&self, into: &Dir, paths: &BTreeSet<String>) -> Result<(), HistoryError> {
        self.newest(|path| paths.contains(path), &mut |entry, content| {
            extract::write(into, &entry.path, &entry.meta, content)
        })
    }

    /// The contents of some paths, in memory; those that the tree does not have are left out. Blocking.
    pub fn read(&self, paths: &BTreeSet<String>) -> Result<BTreeMap<String, Content>, HistoryError> {
        let mut contents = BTreeMap::new();
        self.newest(|path| paths.contains(path), &mut |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            contents.insert(entry.path.clone(), Content::Bytes(Bytes::from(bytes)));
            Ok(())
        })?;
        Ok(contents)
    }

    /// Reads every byte of every object and verifies it, also what a later commit replaced. Blocking.
    pub fn verify(&self) -> Result<(), HistoryError> {
        let mut rebuild = Rebuild::new(self.scratch.path());
        for link in &self.links {
            rebuild.follow(link, &self.key, self.replay.patched())?;
        }
        Ok(())
    }

    /// Visits the newest version of each wanted file, once; objects that hold nothing of them are not opened. // P1
    fn newest(
        &self,
        wanted: impl Fn(&str) -> bool,
        visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> std::io::Result<()>,
    ) -> Result<(), HistoryError> {
        let (versions, patches) = (self.replay.versions(), self.replay.patches());
        let parts = patches.iter().flat_map(|(path, ids)| ids.iter().map(move |id| (path, id)));
        let holders: BTreeSet<Id> =
            versions.iter().chain(parts).filter(|(path, _)| wanted(path)).map(|(_, id)| *id).collect();
        let mut rebuild = Rebuild::new(self.scratch.path());
        for link in self.links.iter().filter(|link| holders.contains(&link.name.id)) {
            let id = link.name.id;
            let mut complete = Vec::new();
            link.unpack(&self.key, &mut |item, content| match item {
                Item::Put(entry) if versions.get(&entry.path) == Some(&id) && wanted(&entry.path) => {
                    // What is patched is handed over with its last patch.
                    if patches.contains_key(&entry.path) {
                        rebuild.put(&entry.path, content)
                    } else {
                        visit(entry, content)
                    }
                }
                Item::Patch(patch) if wanted(&patch.entry.path) => {
                    let ids = patches.get(&patch.entry.path).map_or(&[][..], Vec::as_slice);
                    if ids.last() == Some(&id) {
                        complete.push(patch.entry.clone());
                    }
                    if ids.contains(&id) { rebuild.patch(patch, content) } else { Ok(()) }
                }
                Item::Put(_) | Item::Patch(_) => Ok(()),
            })?;
            for entry in complete {
                rebuild.read(id, &entry, visit)?;
                rebuild.forget(&entry.path)?;
            }
        }
        Ok(())
    }

    /// What history knows of a file at this commit.
    #[must_use]
    pub fn meta(&self, path: &str) -> Option<&Meta> {
        self.table().files.get(path)
    }
}

#[cfg(test)]
mod tests;
