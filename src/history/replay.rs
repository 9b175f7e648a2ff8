//! The tree that a chain of commits leads to, and which commits hold the newest bytes of each file.

use std::collections::{BTreeMap, BTreeSet};

use super::HistoryError;
use super::commit::{Commit, Kind};
use super::name::Id;
use crate::tree::{Entry, Summary, Table};

/// A replay in progress: commits are applied base first.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    table: Table,
    bytes: u64,
    versions: BTreeMap<String, Id>,
    patches: BTreeMap<String, Vec<Id>>,
    patched: BTreeSet<String>,
    last: Option<(Id, Summary)>,
}

impl Replay {
    /// Applies the next commit of a chain; it has passed [`Commit::check`].
    ///
    /// The number of files and their bytes are compared with what the commit says; the digest, which costs a pass
    /// over the tree, is left to [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`HistoryError::Damaged`]: the parent is not the commit before, a removed file is not there, a patch is of another
    /// version than there is, or the tree is not the one announced.
    pub fn apply(&mut self, commit: &Commit) -> Result<(), HistoryError> {
        let damaged = |what: String| HistoryError::damaged(commit.id, what);
        match (commit.kind, &self.last) {
            (Kind::Base, None) => {}
            (Kind::Delta, Some((last, _))) if commit.parent == Some(*last) => {}
            _ => return Err(damaged("it does not follow the commit before it".into())),
        }
        for path in &commit.remove {
            let old = self.table.files.remove(path);
            let old = old
                .ok_or_else(|| damaged(format!("it removes {}, which is not there", path.escape_debug())))?;
            self.bytes -= old.size;
            self.versions.remove(path);
            self.patches.remove(path);
        }
        for patch in &commit.patch {
            let Entry { path, meta } = &patch.entry;
            let old = self.table.files.get(path).filter(|old| old.sha256 == patch.of).ok_or_else(|| {
                damaged(format!("it patches a version of {} that is not there", path.escape_debug()))
            })?;
            if !patch.covers_growth(old.size) {
                return Err(damaged(format!("its patch of {} lacks blocks", path.escape_debug())));
            }
            self.grow(Some(old.size), meta.size).ok_or_else(|| damaged("its sizes overflow".into()))?;
            self.table.files.insert(path.clone(), *meta);
            self.patches.entry(path.clone()).or_default().push(commit.id);
            self.patched.insert(path.clone());
        }
        for Entry { path, meta } in &commit.put {
            let old = self.table.files.insert(path.clone(), *meta);
            let overflow = || damaged("its sizes overflow".into());
            self.grow(old.map(|old| old.size), meta.size).ok_or_else(overflow)?;
            self.versions.insert(path.clone(), commit.id);
            self.patches.remove(path);
        }
        self.table.empty_dirs = commit.empty_dirs.iter().cloned().collect();
        let (files, bytes) = (self.table.files.len() as u64, self.bytes);
        if (files, bytes) != (commit.tree.files, commit.tree.bytes) {
            return Err(damaged(format!(
                "it leads to {files} files and {bytes} bytes, not {} and {}",
                commit.tree.files, commit.tree.bytes
            )));
        }
        self.last = Some((commit.id, commit.tree));
        Ok(())
    }

    /// Counts a file that was as large as `old` and is now as large as `new`.
    fn grow(&mut self, old: Option<u64>, new: u64) -> Option<()> {
        self.bytes = (self.bytes - old.unwrap_or(0)).checked_add(new)?;
        Some(())
    }

    /// Proves that the tree is the one that the last commit's writer meant, and that it can lie on a disk. (P1)
    pub fn verify(&self) -> Result<(), HistoryError> {
        let Some((id, tree)) = self.last else { return Ok(()) };
        if self.table.digest() != tree.sha256 {
            return Err(HistoryError::damaged(id, "it does not lead to the tree that its writer meant"));
        }
        check_shape(&self.table).map_err(|what| HistoryError::damaged(id, what))
    }

    /// The tree.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// By path, the commit that holds the newest whole file.
    #[must_use]
    pub fn versions(&self) -> &BTreeMap<String, Id> {
        &self.versions
    }

    /// By path, the commits whose patches on that file lead to the newest bytes, in this order.
    #[must_use]
    pub fn patches(&self) -> &BTreeMap<String, Vec<Id>> {
        &self.patches
    }

    /// Every path that any commit so far patched.
    #[must_use]
    pub fn patched(&self) -> &BTreeSet<String> {
        &self.patched
    }
}

/// Whether all of a tree can lie on one disk: nothing is a file and a directory at once.
pub fn check_shape(table: &Table) -> Result<(), String> {
    for path in table.files.keys().chain(&table.empty_dirs) {
        let mut above = path.as_str();
        while let Some((directory, _)) = above.rsplit_once('/') {
            if table.files.contains_key(directory) {
                return Err(format!("{} is a file and a directory", directory.escape_debug()));
            }
            above = directory;
        }
    }
    match table.empty_dirs.iter().find(|path| table.files.contains_key(*path)) {
        Some(path) => Err(format!("{} is a file and a directory", path.escape_debug())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
