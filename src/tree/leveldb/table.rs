//! Tables: sorted entries in blocks, each with its sum, and an index of the blocks at the end.

use std::borrow::Cow;

use super::{Failure, crc, take, varint};

/// More than any block of a table holds.
const MOST: usize = 256 << 20;
/// More than a packed byte can stand for: a copy of 64 bytes takes three.
const DENSEST: usize = 64;
const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
const FOOTER: usize = 48;
/// What follows a block: how it is packed, and the sum.
const TRAILER: usize = 5;
const PLAIN: u8 = 0;
const SNAPPY: u8 = 1;

/// Whether a table is as it was written: every block has its sum.
pub fn check(table: &[u8]) -> Result<(), Failure> {
    each_block(table, |_| Ok(()))
}

/// Hands over all entries: key (with its number and kind at the end) and value.
pub fn each_entry(table: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Failure> {
    each_block(table, |block| {
        let unpacked = block.unpack()?;
        entries(&unpacked, |key, value| {
            each(key, value);
            Some(())
        })
        .ok_or(Failure::Damage("a block of a table does not hold what it should"))
    })
}

/// Hands over the blocks with entries, and checks the others.
fn each_block(table: &[u8], mut each: impl FnMut(Block<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let short = || Failure::Damage("a table is too short");
    let (_, mut footer) = table.split_at_checked(table.len().wrapping_sub(FOOTER)).ok_or_else(short)?;
    if !footer.ends_with(&MAGIC) {
        return Err(Failure::Damage("a table does not end as tables do"));
    }
    let handles = Handle::take(&mut footer).zip(Handle::take(&mut footer));
    let (meta, index) = handles.ok_or(Failure::Damage("a table has no index"))?;
    let mut handles = Vec::new();
    for (handle, data) in [(meta, false), (index, true)] {
        let unpacked = Block::at(table, handle)?.unpack()?;
        let all = entries(&unpacked, |_, mut value| {
            handles.push((Handle::take(&mut value)?, data));
            Some(())
        });
        all.ok_or(Failure::Damage("the index of a table does not hold what it should"))?;
    }
    for (handle, data) in handles {
        let block = Block::at(table, handle)?;
        if data {
            each(block)?;
        }
    }
    Ok(())
}

/// Where a block lies.
#[derive(Clone, Copy)]
struct Handle {
    offset: u64,
    size: u64,
}

impl Handle {
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { offset: varint(bytes)?, size: varint(bytes)? })
    }
}

/// A block whose sum is right.
struct Block<'a> {
    packed: &'a [u8],
    kind: u8,
}

impl<'a> Block<'a> {
    fn at(table: &'a [u8], handle: Handle) -> Result<Self, Failure> {
        let place = || {
            let begin = usize::try_from(handle.offset).ok()?;
            let end = begin.checked_add(usize::try_from(handle.size).ok()?)?;
            Some((table.get(begin..end)?, table.get(end..end.checked_add(TRAILER)?)?))
        };
        let (packed, trailer) = place().ok_or(Failure::Damage("a block lies outside its table"))?;
        let sum = [trailer[1], trailer[2], trailer[3], trailer[4]];
        if !crc::is_sum(sum, [packed, &trailer[..1]]) {
            return Err(Failure::Damage("the sum of a block is wrong"));
        }
        Ok(Self { packed, kind: trailer[0] })
    }

    fn unpack(&self) -> Result<Cow<'a, [u8]>, Failure> {
        match self.kind {
            PLAIN => Ok(Cow::Borrowed(self.packed)),
            SNAPPY => unpack(self.packed)
                .map(Cow::Owned)
                .ok_or(Failure::Damage("a block of a table does not unpack")),
            _ => Err(Failure::Damage("a block of a table is packed in an unknown way")),
        }
    }
}

/// None of what Snappy did not pack.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    // What is claimed may be far from what comes, and room is made for it before anything is unpacked.
    let length = snap::raw::decompress_len(packed).ok()?;
    if length > MOST || length > packed.len().saturating_mul(DENSEST) {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(packed).ok()
}

/// The entries of a block; each key tells how much of it is the key before.
fn entries(block: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Option<()> {
    let (before, count) = block.split_last_chunk::<4>()?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(4)?;
    let (mut rest, _) = before.split_at_checked(before.len().checked_sub(restarts)?)?;
    let rest = &mut rest;
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (shared, own, value) = (varint(rest)?, varint(rest)?, varint(rest)?);
        let shared = usize::try_from(shared).ok().filter(|shared| *shared <= key.len())?;
        key.truncate(shared);
        key.extend_from_slice(take(rest, own)?);
        each(&key, take(rest, value)?)?;
    }
    Some(())
}
