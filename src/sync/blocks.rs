//! The head's large files by their blocks: what a delta can patch.

use std::collections::BTreeMap;

use crate::history::commit::Patch;
use crate::tree::blocks::{BLOCK, LARGE, diff};
use crate::tree::{BlockTable, Entry, Hash, Meta, Table};

/// Blocks of large files of the head, in memory: 16 bytes for each 4 KiB of them. What it does not know is put whole.
#[derive(Debug, Clone, Default)]
pub struct HeadBlocks {
    /// With the hash of the version.
    files: BTreeMap<String, (Hash, BlockTable)>,
}

impl HeadBlocks {
    /// Learns from a look which of the files it read are the head's, and forgets versions that the head no longer has.
    ///
    /// `head` must be confirmed by storage: a patch of a version that only a failed attempt had could never be
    /// applied. // P1
    pub fn learn(
        &mut self,
        head: &Table,
        metas: &BTreeMap<String, Meta>,
        seen: &BTreeMap<String, BlockTable>,
    ) {
        let has = |path: &String, hash: &Hash| head.files.get(path).is_some_and(|meta| meta.sha256 == *hash);
        for (path, blocks) in seen {
            if let Some(hash) = metas.get(path).map(|meta| meta.sha256).filter(|hash| has(path, hash)) {
                self.files.insert(path.clone(), (hash, blocks.clone()));
            }
        }
        self.files.retain(|path, (hash, _)| has(path, hash));
    }

    /// The patch that turns the head's version of a file into the one that was read, if both are large and known by
    /// blocks, and if it saves enough.
    fn patch(&self, head: &Table, path: &str, meta: &Meta, new: Option<&BlockTable>) -> Option<Patch> {
        let of = head.files.get(path)?.sha256;
        let (_, old) = self.files.get(path).filter(|(hash, _)| *hash == of)?;
        let entry = Entry { path: path.to_owned(), meta: *meta };
        let smaller = Patch { entry, of, block: BLOCK, runs: diff(old, new?) };
        let saves = meta.size > LARGE && smaller.weight() <= meta.size / 4 * 3;
        saves.then_some(smaller)
    }

    /// What a delta puts whole, and what it patches.
    #[must_use]
    pub fn split(
        &self,
        head: &Table,
        put: &BTreeMap<String, Meta>,
        seen: &BTreeMap<String, BlockTable>,
    ) -> (Vec<Entry>, Vec<Patch>) {
        let (mut whole, mut patches) = (Vec::new(), Vec::new());
        for (path, meta) in put {
            match self.patch(head, path, meta, seen.get(path)) {
                Some(patch) => patches.push(patch),
                None => whole.push(Entry { path: path.clone(), meta: *meta }),
            }
        }
        (whole, patches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    const MIB: usize = 1 << 20;

    /// A version of one file, and a tree of it.
    struct File {
        metas: BTreeMap<String, Meta>,
        seen: BTreeMap<String, BlockTable>,
        head: Table,
    }

    fn file(size: usize, changed: std::ops::Range<usize>) -> File {
        let mut bytes = vec![7; size];
        bytes[changed].fill(9);
        let meta = Meta { size: size as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(&bytes) };
        let metas = BTreeMap::from([("db".to_owned(), meta)]);
        let blocks = BlockTable::of(&Content::Bytes(bytes.into())).unwrap();
        let head = Table { files: metas.clone(), ..Table::default() };
        File { metas, seen: BTreeMap::from([("db".to_owned(), blocks)]), head }
    }

    fn split(known: &HeadBlocks, head: &File, new: &File) -> (usize, Vec<Vec<(u64, u64)>>) {
        let (whole, patches) = known.split(&head.head, &new.metas, &new.seen);
        (whole.len(), patches.into_iter().map(|patch| patch.runs).collect())
    }

    fn knows(files: &[&File], head: &File) -> HeadBlocks {
        let mut known = HeadBlocks::default();
        for file in files {
            known.learn(&head.head, &file.metas, &file.seen);
        }
        known
    }

    #[test]
    fn a_large_file_that_is_known_by_blocks_is_patched_where_it_changed() {
        let (old, new) = (file(3 * MIB, 0..0), file(3 * MIB, 5000..5001));
        assert_eq!(split(&knows(&[&old], &old), &old, &new), (0, vec![vec![(1, 1)]]));
    }

    #[test]
    fn an_unknown_version_a_small_file_and_one_that_mostly_changed_are_put_whole() {
        let (old, new) = (file(3 * MIB, 0..0), file(3 * MIB, 0..1));
        assert_eq!(split(&HeadBlocks::default(), &old, &new), (1, vec![]));
        let small = file(MIB, 0..0);
        assert_eq!(split(&knows(&[&old], &old), &old, &small), (1, vec![]), "not over 1 MiB");
        let mostly = file(4 * MIB, 0..3 * MIB + 1);
        let old = file(4 * MIB, 0..0);
        assert_eq!(split(&knows(&[&old], &old), &old, &mostly), (1, vec![]));
        let three_quarters = file(4 * MIB, 0..3 * MIB);
        assert_eq!(split(&knows(&[&old], &old), &old, &three_quarters), (0, vec![vec![(0, 768)]]));
    }

    #[test]
    fn a_version_that_was_read_and_not_stored_is_never_patched() {
        let (old, failed, new) = (file(3 * MIB, 0..0), file(3 * MIB, 0..1), file(3 * MIB, 0..2));
        // Storage never confirmed the second: the head is still the first.
        let known = knows(&[&old, &failed], &old);
        let (_, patches) = known.split(&old.head, &new.metas, &new.seen);
        assert_eq!(patches.len(), 1);
        assert_eq!(patches[0].of, old.metas["db"].sha256);
        // And with another head, nothing of the old one serves.
        let mut known = knows(&[&old], &old);
        assert_eq!(split(&known, &failed, &new), (1, vec![]));
        known.learn(&failed.head, &failed.metas, &failed.seen);
        assert_eq!(split(&known, &failed, &new), (0, vec![vec![(0, 1)]]));
    }
}
