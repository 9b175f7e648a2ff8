//! Hashes of what was read before, so that a full scan reads only what moved.

use std::collections::BTreeMap;

use crate::tree::identity::Creds;
use crate::tree::scan::{Fingerprint, Found};
use crate::tree::sqlite::Sides;
use crate::tree::{Meta, Reason};

/// What an earlier read of a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Of the file that was read.
    pub fingerprint: Fingerprint,
    /// What history would know of it, or why its content is not fit.
    pub verdict: Result<Meta, Reason>,
    /// Whether a later write may have left the same fingerprint.
    pub racy: bool,
    /// Of a database: what lay beside it, and the accounts in it.
    pub database: Option<(Sides, Option<Creds>)>,
}

/// Earlier reads by path. Forgetting is always safe: it costs one read.
#[derive(Debug, Clone, Default)]
pub struct HashCache {
    known: BTreeMap<String, Known>,
}

impl HashCache {
    /// What is known of a file that looks as it did, unless that may be a coincidence. `sides` are what lies beside a
    /// database now.
    #[must_use]
    pub fn get(&self, path: &str, found: &Found, sides: Sides) -> Option<&Known> {
        let known = self.known.get(path)?;
        let then = known.database.as_ref().map_or(Sides::default(), |(sides, _)| *sides);
        // The index of a WAL comes and goes with whoever reads it.
        let same = (then.wal, then.journal) == (sides.wal, sides.journal);
        (!known.racy && same && known.fingerprint == found.fingerprint).then_some(known)
    }

    /// Notes a read.
    pub fn insert(&mut self, path: &str, known: Known) {
        self.known.insert(path.to_owned(), known);
    }

    /// Forgets a file.
    pub fn forget(&mut self, path: &str) {
        self.known.remove(path);
    }

    /// Forgets what a full scan did not find.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.known.retain(|path, _| keep(path));
    }
}
