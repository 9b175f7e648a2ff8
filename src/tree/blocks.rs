//! Large files by their blocks, so that a change of some costs what changed.

use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Content;

/// Bytes a block: the page of SQLite, and of most file systems.
pub const BLOCK: u32 = 4096;
/// Files above this size are known by their blocks.
pub const LARGE: u64 = 1 << 20;

/// Half of a SHA-256. A table only says which blocks to send, and two blocks that are taken for one are found out by
/// the hash of the whole file, which a restore proves: half the memory, for a failure that chance never makes.
type BlockHash = [u8; 16];

/// The hashes of a file's blocks; the last block may be short. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTable(Arc<[BlockHash]>);

impl BlockTable {
    /// Of a file's content.
    pub fn of(content: &Content) -> io::Result<Self> {
        let mut reader = content.reader();
        let mut buffer = vec![0; 64 * BLOCK as usize];
        let mut hashes = Vec::new();
        loop {
            let filled = fill(&mut *reader, &mut buffer)?;
            hashes.extend(buffer[..filled].chunks(BLOCK as usize).map(hash));
            if filled < buffer.len() {
                return Ok(Self(hashes.into()));
            }
        }
    }
}

/// Only a chunk at the very end is not full: every block begins where it should.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn hash(block: &[u8]) -> BlockHash {
    let whole: [u8; 32] = Sha256::digest(block).into();
    *whole.first_chunk().expect("it is twice as long")
}

/// The blocks of a new version that the old one does not have at the same place, as first block and number of blocks.
/// A block that only became shorter or longer is another one.
#[must_use]
pub fn diff(old: &BlockTable, new: &BlockTable) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (block, _) in (0_u64..).zip(&*new.0).filter(|(at, hash)| {
        let same = usize::try_from(*at).ok().and_then(|at| old.0.get(at));
        same != Some(*hash)
    }) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == block => *count += 1,
            _ => runs.push((block, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: &[u8]) -> BlockTable {
        BlockTable::of(&Content::Bytes(bytes.to_vec().into())).unwrap()
    }

    /// Blocks that differ from each other.
    fn blocks(count: u32) -> Vec<u8> {
        (0..count).flat_map(|block| block.to_le_bytes().repeat(BLOCK as usize / 4)).collect()
    }

    #[test]
    fn neighbours_are_one_run_and_what_is_equal_is_none() {
        let old = blocks(100);
        let mut new = old.clone();
        assert_eq!(diff(&table(&old), &table(&new)), []);
        for block in [3, 4, 5, 99] {
            new[block * BLOCK as usize + 7] ^= 1;
        }
        assert_eq!(diff(&table(&old), &table(&new)), [(3, 3), (99, 1)]);
    }

    #[test]
    fn a_last_block_that_was_short_and_all_beyond_it_are_new() {
        let old = blocks(3);
        let new = [&old[..], b"tail"].concat();
        assert_eq!(diff(&table(&old), &table(&new)), [(3, 1)]);
        assert_eq!(diff(&table(&new), &table(&blocks(5))), [(3, 2)]);
        assert_eq!(diff(&table(b""), &table(&old)), [(0, 3)]);
    }

    #[test]
    fn a_file_cut_between_blocks_has_no_new_block_and_one_cut_within_has_one() {
        let old = blocks(3);
        assert_eq!(diff(&table(&old), &table(&old[..2 * BLOCK as usize])), []);
        assert_eq!(diff(&table(&old), &table(&old[..2 * BLOCK as usize - 1])), [(1, 1)]);
        assert_eq!(diff(&table(&old), &table(b"")), []);
    }
}
