//! What one record of a log holds: writes that happened together.

use super::{counted, take};

/// Sequence and count.
const HEADER: u64 = 12;

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// Higher than those of all writes before.
    pub sequence: u64,
    /// What was written.
    pub key: &'a [u8],
    /// None: it was deleted.
    pub value: Option<&'a [u8]>,
}

/// The writes of a record; none where it is not what `LevelDB` writes.
#[must_use]
pub fn writes(mut record: &[u8]) -> Option<Vec<Write<'_>>> {
    let from = &mut record;
    let header = take(from, HEADER)?;
    let (sequence, count) = header.split_first_chunk::<8>()?;
    let (sequence, count) = (u64::from_le_bytes(*sequence), u32::from_le_bytes(count.try_into().ok()?));
    let mut writes = Vec::new();
    while let Some((kind, rest)) = from.split_first() {
        *from = rest;
        let sequence = sequence.checked_add(writes.len() as u64)?;
        let key = counted(from)?;
        let value = match kind {
            0 => None,
            1 => Some(counted(from)?),
            _ => return None,
        };
        writes.push(Write { sequence, key, value });
    }
    (writes.len() as u64 == u64::from(count)).then_some(writes)
}

/// A key as tables have it: what was written, and the number and kind of the write.
#[must_use]
pub fn of_table<'a>(key: &'a [u8], value: &'a [u8]) -> Option<Write<'a>> {
    let (key, tag) = key.split_last_chunk::<8>()?;
    let tag = u64::from_le_bytes(*tag);
    let value = match tag & 0xff {
        0 => None,
        1 => Some(value),
        _ => return None,
    };
    Some(Write { sequence: tag >> 8, key, value })
}
