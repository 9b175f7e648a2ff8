//! A file of which only some blocks changed.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::tree::{Entry, Hash};

/// What a reader takes for the bytes of a block, a power of two; [`BLOCK`](crate::tree::blocks::BLOCK) is written.
const BLOCKS: RangeInclusive<u32> = 512..=1 << 20;

/// A file of which only some blocks changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Path, and the file after the patch.
    #[serde(flatten)]
    pub entry: Entry,
    /// The hash of the version it patches.
    pub of: Hash,
    /// Bytes a block; the last one of a file may be short.
    pub block: u32,
    /// First block and number of blocks; their bytes follow one another in `blocks/<path>`.
    pub runs: Vec<(u64, u64)>,
}

impl Patch {
    /// Checks what can be said of it alone. Without it, the rest of this must not be called.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.block.is_power_of_two() || !BLOCKS.contains(&self.block) {
            return Err(format!("has blocks of {} bytes", self.block));
        }
        let blocks = self.entry.meta.size.div_ceil(self.block.into());
        let mut end = 0;
        for (first, count) in &self.runs {
            if *count == 0 {
                return Err(format!("has a run of no blocks at {first}"));
            }
            if *first < end {
                return Err(format!("has runs that overlap or do not ascend at {first}"));
            }
            end = first
                .checked_add(*count)
                .filter(|end| *end <= blocks)
                .ok_or_else(|| format!("has a run beyond the end of the file at {first}"))?;
        }
        Ok(())
    }

    /// The bytes of the file that its runs say, as offset and length.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let (size, block) = (self.entry.meta.size, u64::from(self.block));
        self.runs.iter().map(move |(first, count)| {
            let at = first * block;
            (at, count.saturating_mul(block).min(size - at))
        })
    }

    /// The bytes of all its runs.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.ranges().map(|(_, len)| len).sum()
    }

    /// Whether every byte beyond the end of the version it patches is in it: a patch never makes a file larger than what
    /// was sent for it.
    #[must_use]
    pub fn covers_growth(&self, from: u64) -> bool {
        let known =
            self.ranges().fold(from, |known, (at, len)| if at > known { known } else { known.max(at + len) });
        known >= self.entry.meta.size
    }
}

#[cfg(test)]
mod tests;
