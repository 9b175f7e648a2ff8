//! What the mirror still owes the bucket, and what of it is due: values only, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::mirror_key::{self, Skip};
use crate::session::SessionKey;
use crate::store::{Bucket, Object};
use crate::tree::{Hash, Meta, Table};

/// An object is written or removed at most once in this time.
pub const PACE: Duration = Duration::from_secs(15);
/// Larger files go to the mirror at reconcile only.
pub const LARGE: u64 = 1 << 20;

/// The objects of a mirror, by full key.
pub type Listed = BTreeMap<String, Object>;

/// One object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOrder {
    /// The file.
    pub path: String,
    /// The object's full key.
    pub key: String,
    /// How it is sent.
    pub content_type: &'static str,
    /// The file at the newest head.
    pub meta: Meta,
}

/// What differs between the newest head and the bucket, as far as is known.
#[derive(Debug)]
pub struct Backlog {
    session: SessionKey,
    bucket: Bucket,
    table: Arc<Table>,
    /// Counts commits and comparisons: which change came first.
    round: u64,
    /// By path.
    puts: BTreeMap<String, Waiting>,
    /// By key: what is there may be no file of ours.
    removals: BTreeMap<String, Waiting>,
    /// When an object was last written or removed, by key, for as long as [`PACE`] asks for it.
    touched: BTreeMap<String, Instant>,
    skipped: BTreeMap<String, Skip>,
    /// Contents that the server refused: not sent again.
    refused: BTreeMap<String, (Hash, Skip)>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// The first round that asked for it.
    round: u64,
    /// When that was.
    since: Instant,
    /// Its content was not to be had the last time.
    not_before: Option<Instant>,
    /// A large file's reconcile has come.
    ripe: bool,
}

impl Backlog {
    /// Nothing is known and nothing is owed.
    #[must_use]
    pub fn new(session: SessionKey, bucket: Bucket) -> Self {
        Self {
            session,
            bucket,
            table: Arc::default(),
            round: 0,
            puts: BTreeMap::new(),
            removals: BTreeMap::new(),
            touched: BTreeMap::new(),
            skipped: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// The head has this table now; these paths changed, whichever way.
    pub fn committed(&mut self, now: Instant, table: Arc<Table>, changed: impl IntoIterator<Item = String>) {
        self.table = table;
        self.round += 1;
        for path in changed {
            match self.wanted(&path) {
                Some((meta, Ok(key))) => {
                    self.removals.remove(&key);
                    self.owe_put(now, path, meta.size <= LARGE);
                }
                // An old version of what cannot be written now would be a lie.
                Some((_, Err(_))) | None => {
                    self.puts.remove(&path);
                    self.owe_removal(now, mirror_key::key_of(&self.session, &path));
                }
            }
        }
    }

    /// The engine compared disk and head: large files may go.
    pub fn reconciled(&mut self) {
        self.puts.values_mut().for_each(|put| put.ripe = true);
    }

    /// The end is near: what is owed is due at once, however recently it was written.
    pub fn hurry(&mut self) {
        self.touched.clear();
        self.reconciled();
    }

    /// The files whose MD5 decides whether the listed object is the same.
    #[must_use]
    pub fn undecided(&self, listed: &Listed, known: &BTreeMap<Hash, String>) -> Vec<(String, Meta)> {
        let open = |path: &String, meta: &Meta| {
            let object = listed.get(&mirror_key::key_of(&self.session, path))?;
            let open = object.size == meta.size && md5(object).is_some() && !known.contains_key(&meta.sha256);
            open.then(|| (path.clone(), *meta))
        };
        self.table.files.iter().filter_map(|(path, meta)| open(path, meta)).collect()
    }

    /// The whole mirror was listed: what is owed is what differs.
    pub fn compared(&mut self, now: Instant, listed: &Listed, known: &BTreeMap<Hash, String>) {
        self.round += 1;
        self.skipped.clear();
        let table = Arc::clone(&self.table);
        self.refused.retain(|path, _| table.files.contains_key(path));
        let mut expected = BTreeSet::new();
        for (path, meta) in &table.files {
            let Some((_, Ok(key))) = self.wanted(path) else {
                self.puts.remove(path);
                continue;
            };
            match listed.get(&key).map(|object| sameness(object, meta, known)) {
                Some(Some(true)) => {
                    self.puts.remove(path);
                }
                None | Some(Some(false)) => self.owe_put(now, path.clone(), true),
                // What is owed stays owed, and nothing else is.
                Some(None) => {}
            }
            expected.insert(key);
        }
        self.removals.retain(|key, _| listed.contains_key(key));
        for key in listed.keys().filter(|key| !expected.contains(*key)) {
            self.owe_removal(now, key.clone());
        }
        self.reconciled();
    }

    /// At most `limit` objects that are due to be written, those first that have waited longest.
    #[must_use]
    pub fn puts_due(&mut self, now: Instant, limit: usize) -> Vec<PutOrder> {
        self.touched.retain(|_, at| *at + PACE > now);
        let mut due: Vec<(u64, PutOrder)> = Vec::new();
        for (put, order) in self.sendable() {
            if self.due_at(&order.key, put).is_some_and(|at| at <= now) {
                due.push((put.round, order));
            }
        }
        due.sort_by_key(|(round, _)| *round);
        due.into_iter().take(limit).map(|(_, order)| order).collect()
    }

    /// At most `limit` keys that are due to be removed: nothing goes before what was owed with it was written.
    #[must_use]
    pub fn removals_due(&self, now: Instant, limit: usize) -> Vec<String> {
        let first_put = self.first_put();
        let due = |key: &str, removal: &Waiting| {
            first_put.is_none_or(|first| removal.round < first)
                && self.due_at(key, removal).is_some_and(|at| at <= now)
        };
        let due = self.removals.iter().filter(|(key, removal)| due(key, removal));
        due.take(limit).map(|(key, _)| key.clone()).collect()
    }

    /// When something may be due next; none: nothing is owed but large files.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let puts = self.sendable().filter_map(|(put, order)| self.due_at(&order.key, put));
        let first_put = self.first_put();
        let free = |removal: &Waiting| first_put.is_none_or(|first| removal.round < first);
        let removals = self.removals.iter().filter(|(_, removal)| free(removal));
        puts.chain(removals.filter_map(|(key, removal)| self.due_at(key, removal))).min()
    }

    /// An upload begins: the pace counts from here, whatever becomes of it.
    pub fn touch(&mut self, now: Instant, key: &str) {
        self.touched.insert(key.to_owned(), now);
    }

    /// This content of the path was written.
    pub fn written(&mut self, path: &str, sha256: Hash) {
        if self.table.files.get(path).is_none_or(|meta| meta.sha256 == sha256) {
            self.puts.remove(path);
        }
    }

    /// This key was removed.
    pub fn removed(&mut self, key: &str) {
        self.removals.remove(key);
    }

    /// The committed bytes are not on disk any more: a newer commit, or a later try, will do. Nothing else waits for it.
    pub fn unavailable(&mut self, now: Instant, path: &str) {
        if let Some(put) = self.puts.get_mut(path) {
            put.not_before = Some(now + PACE);
        }
    }

    /// The server refused this content for good.
    pub fn refuse(&mut self, path: &str, sha256: Hash, skip: Skip) {
        self.refused.insert(path.to_owned(), (sha256, skip));
        self.skipped.insert(path.to_owned(), skip);
        self.puts.remove(path);
    }

    /// The table of the newest head.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What the mirror does not have, by path.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<String, Skip> {
        &self.skipped
    }

    /// Objects that wait, and since when the first of them does.
    #[must_use]
    pub fn pending(&self) -> (usize, Option<Instant>) {
        let all = self.puts.values().chain(self.removals.values());
        (self.puts.len() + self.removals.len(), all.map(|waiting| waiting.since).min())
    }

    /// The file at the head and its key, or why it has none; none when the head has no such file.
    fn wanted(&mut self, path: &str) -> Option<(Meta, Result<String, Skip>)> {
        let Some(meta) = self.table.files.get(path).copied() else {
            self.skipped.remove(path);
            return None;
        };
        let refused = self.refused.get(path).filter(|(sha256, _)| *sha256 == meta.sha256);
        let admitted = match refused {
            Some((_, skip)) => Err(*skip),
            None => mirror_key::admit(&self.session, path, meta.size, &self.bucket).map(|(key, _)| key),
        };
        match &admitted {
            Ok(_) => self.skipped.remove(path),
            Err(skip) => self.skipped.insert(path.to_owned(), *skip),
        };
        Some((meta, admitted))
    }

    fn owe_put(&mut self, now: Instant, path: String, ripe: bool) {
        let put = self.puts.entry(path).or_insert_with(|| Waiting::new(self.round, now));
        put.not_before = None;
        put.ripe |= ripe;
    }

    fn owe_removal(&mut self, now: Instant, key: String) {
        let removal = self.removals.entry(key).or_insert_with(|| Waiting::new(self.round, now));
        removal.ripe = true;
    }

    /// All that is owed and could be written, due or not.
    fn sendable(&self) -> impl Iterator<Item = (&Waiting, PutOrder)> {
        self.puts.iter().filter_map(|(path, put)| {
            let meta = *self.table.files.get(path)?;
            let (key, content_type) = mirror_key::admit(&self.session, path, meta.size, &self.bucket).ok()?;
            Some((put, PutOrder { path: path.clone(), key, content_type, meta }))
        })
    }

    /// The oldest put that removals wait for.
    fn first_put(&self) -> Option<u64> {
        let waited_for = self.sendable().filter(|(put, _)| put.ripe && put.not_before.is_none());
        waited_for.map(|(put, _)| put.round).min()
    }

    fn due_at(&self, key: &str, waiting: &Waiting) -> Option<Instant> {
        let paced = self.touched.get(key).map(|at| *at + PACE);
        waiting.ripe.then(|| paced.max(waiting.not_before).unwrap_or(waiting.since))
    }
}

impl Waiting {
    fn new(round: u64, now: Instant) -> Self {
        Self { round, since: now, not_before: None, ripe: false }
    }
}

/// Whether an object is the file; none when only the size can be compared, and is equal.
fn sameness(object: &Object, meta: &Meta, known: &BTreeMap<Hash, String>) -> Option<bool> {
    if object.size != meta.size {
        return Some(false);
    }
    Some(md5(object)?.eq_ignore_ascii_case(known.get(&meta.sha256)?))
}

/// The MD5 that an etag is, if it is one (as hex).
#[must_use]
pub fn md5(object: &Object) -> Option<&str> {
    object.etag.as_deref().filter(|etag| is_md5(etag))
}

/// Whether an etag can be an MD5: S3 has others for uploads in parts.
#[must_use]
pub fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())
}
