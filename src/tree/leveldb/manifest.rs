//! What a manifest says: which tables and logs make up the database.

use std::collections::BTreeMap;

use super::records::read_records;
use super::{Failure, counted, varint};

/// Levels of tables.
const LEVELS: u64 = 7;

/// A database at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// How keys are ordered.
    pub comparator: String,
    /// The oldest log that is needed; zero: all.
    pub log: u64,
    /// An older one that is needed, too; zero: none.
    pub previous_log: u64,
    /// The live tables with their sizes.
    pub tables: BTreeMap<u64, u64>,
    /// The number of the newest write that is in tables.
    pub last_sequence: u64,
    /// Where the last whole record of the manifest ends.
    pub length: u64,
}

impl Version {
    /// Reads a manifest, up to its last whole record: each of them leads from one state of the database to the next.
    pub fn parse(manifest: &[u8]) -> Result<Self, Failure> {
        let mut building = Building::default();
        let length = read_records(manifest, |record| {
            building
                .apply(record)
                .ok_or(Failure::Damage("the manifest holds what is no record of a manifest"))
        })?;
        building.finish(length).ok_or(Failure::Damage("the manifest is not whole"))
    }

    /// Whether a log is needed.
    #[must_use]
    pub fn needs_log(&self, number: u64) -> bool {
        number >= self.log || (self.previous_log != 0 && number == self.previous_log)
    }
}

#[derive(Default)]
struct Building {
    comparator: String,
    log: Option<u64>,
    previous_log: u64,
    next_file: Option<u64>,
    last_sequence: Option<u64>,
    /// By level and number: a table is moved from one level to another by one record.
    tables: BTreeMap<(u64, u64), u64>,
}

impl Building {
    fn apply(&mut self, mut record: &[u8]) -> Option<()> {
        let mut added = Vec::new();
        let bytes = &mut record;
        while !bytes.is_empty() {
            match varint(bytes)? {
                1 => self.comparator = String::from_utf8_lossy(counted(bytes)?).into_owned(),
                2 => self.log = Some(varint(bytes)?),
                3 => self.next_file = Some(varint(bytes)?),
                4 => self.last_sequence = Some(varint(bytes)?),
                5 => {
                    level(bytes)?;
                    counted(bytes)?;
                }
                6 => drop(self.tables.remove(&(level(bytes)?, varint(bytes)?))),
                7 => {
                    let (table, size) = ((level(bytes)?, varint(bytes)?), varint(bytes)?);
                    // The smallest and the largest key.
                    counted(bytes)?;
                    counted(bytes)?;
                    added.push((table, size));
                }
                9 => self.previous_log = varint(bytes)?,
                _ => return None,
            }
        }
        self.tables.extend(added);
        Some(())
    }

    /// None where `LevelDB` would say that an entry is missing.
    fn finish(self, length: u64) -> Option<Version> {
        self.next_file?;
        Some(Version {
            comparator: self.comparator,
            log: self.log?,
            previous_log: self.previous_log,
            tables: self.tables.into_iter().map(|((_, number), size)| (number, size)).collect(),
            last_sequence: self.last_sequence?,
            length,
        })
    }
}

fn level(bytes: &mut &[u8]) -> Option<u64> {
    varint(bytes).filter(|level| *level < LEVELS)
}
