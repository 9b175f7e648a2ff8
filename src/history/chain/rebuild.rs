//! Files put together from a whole version and the patches on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Link;
use crate::history::HistoryError;
use crate::history::archive::{Checked, Item};
use crate::history::commit::{Commit, Patch};
use crate::history::name::Id;
use crate::session::SessionKey;
use crate::tree::Entry;

/// Files in the making, by path; they lie on disk, each under a number, and go when this is dropped.
#[derive(Debug)]
pub(in crate::history) struct Rebuild<'a> {
    scratch: &'a Path,
    /// Made for the first file: most chains have no patch.
    dir: Option<TempDir>,
    made: u64,
    files: BTreeMap<String, PathBuf>,
}

impl<'a> Rebuild<'a> {
    pub(in crate::history) fn new(scratch: &'a Path) -> Self {
        Self { scratch, dir: None, made: 0, files: BTreeMap::new() }
    }

    /// A whole version of a file, which patches may follow.
    pub(super) fn put(&mut self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        self.remove(path)?;
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => TempDir::with_prefix_in("rebuilt-", self.scratch)?,
        };
        self.made += 1;
        let place = self.dir.insert(dir).path().join(self.made.to_string());
        io::copy(content, &mut File::create_new(&place)?)?;
        self.files.insert(path.to_owned(), place);
        Ok(())
    }

    /// Turns the version that is there into the next; [`read`](Self::read) proves it. That it is the right one was told by
    /// [`Replay::apply`](crate::history::replay::Replay::apply).
    pub(super) fn patch(&mut self, patch: &Patch, content: &mut dyn Read) -> io::Result<()> {
        let place = self.files.get(&patch.entry.path).ok_or(io::ErrorKind::NotFound)?;
        let mut file = OpenOptions::new().write(true).open(place)?;
        file.set_len(patch.entry.meta.size)?;
        for (at, len) in patch.ranges() {
            file.seek(SeekFrom::Start(at))?;
            io::copy(&mut (&mut *content).take(len), &mut file)?;
        }
        Ok(())
    }

    /// Hands a file over and proves that it is the one that commit `id` announced. // P1
    ///
    /// `visit` sees bytes before their hash is proven; what it wrote counts for nothing unless this returns `Ok`.
    pub(super) fn read(
        &self,
        id: Id,
        entry: &Entry,
        visit: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<()>,
    ) -> Result<(), HistoryError> {
        let shown = || entry.path.escape_debug();
        let unreadable = |error| HistoryError::io(format!("cannot read {} back", shown()), error);
        let place = self.files.get(&entry.path).ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
        let mut content = Checked::new(File::open(place).map_err(unreadable)?);
        let visited = visit(entry, &mut content);
        if let Some(failed) = content.failed.take() {
            return Err(unreadable(failed));
        }
        visited.map_err(|error| HistoryError::io(format!("cannot write {}", shown()), error))?;
        io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
        if content.is(&entry.meta) {
            Ok(())
        } else {
            let what = format!("the patch of {} does not lead to the content announced", shown());
            Err(HistoryError::damaged(id, what))
        }
    }

    /// A file that nothing follows any more.
    pub(super) fn forget(&mut self, path: &str) -> Result<(), HistoryError> {
        self.remove(path).map_err(|error| HistoryError::io("cannot remove a fetched file", error))
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.files.remove(path).map_or(Ok(()), fs::remove_file)
    }

    /// Reads all of the next link of a chain and proves every version in it. `patched` are the paths that this link or a
    /// later one patches; the caller applied the commit to its replay.
    pub(in crate::history) fn follow(
        &mut self,
        link: &Link,
        key: &SessionKey,
        patched: &BTreeSet<String>,
    ) -> Result<Commit, HistoryError> {
        let commit = link.unpack(key, &mut |item, content| match item {
            Item::Put(entry) if patched.contains(&entry.path) => self.put(&entry.path, content),
            Item::Put(_) => Ok(()),
            Item::Patch(patch) => self.patch(patch, content),
        })?;
        for path in &commit.remove {
            self.forget(path)?;
        }
        for patch in &commit.patch {
            self.read(link.name.id, &patch.entry, &mut |_, _| Ok(()))?;
        }
        Ok(commit)
    }
}
