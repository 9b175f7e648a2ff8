//! A store in memory with the manners of the real server, and a log of all that was ever uploaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{Timestamp, TimestampRound, Unit};
use md5::{Digest, Md5};
use serde_json::Value;

use super::{
    Bucket, Info, Kind, Listing, Object, Op, Order, Page, Put, Sink, Store, StoreError, is_valid_key,
    order_of_names,
};
use crate::host::Host;

/// A bucket in memory, as Supabase Storage would keep it.
///
/// As there: an overwrite and a rename keep `created_at`; a missing bucket lists as empty; a rename whose
/// source is gone is [`Kind::NotFound`] even when its target exists; names sort bytewise. Unlike there, a
/// `put` without `overwrite` is atomic: tests that want the race wrap it in [`Faulty`](super::Faulty).
pub struct Memory {
    clock: Arc<dyn Host>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bucket: Option<Bucket>,
    objects: BTreeMap<String, Stored>,
    log: Vec<Upload>,
    calls: BTreeMap<Op, u64>,
}

#[derive(Clone)]
struct Stored {
    body: Bytes,
    etag: String,
    metadata: Value,
    created_at: Timestamp,
    modified_at: Timestamp,
}

impl Stored {
    fn new(body: Bytes, metadata: Value, created_at: Timestamp, modified_at: Timestamp) -> Self {
        Self { etag: hex::encode(Md5::digest(&body)), body, metadata, created_at, modified_at }
    }
}

/// How a content came under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By [`Store::put`] without overwriting.
    Create,
    /// By [`Store::put`] with [`Put::overwrite`].
    Overwrite,
    /// By [`Store::rename`].
    Rename,
}

/// A content that came under a name: one line of [`Memory::log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The full key.
    pub key: String,
    /// The content.
    pub body: Bytes,
    /// How it came there.
    pub way: Way,
}

impl Memory {
    /// An empty private bucket without limits; `clock` gives `created_at` and [`Listing::date`].
    pub fn new(clock: Arc<dyn Host>) -> Self {
        let state = State { bucket: Some(Bucket::default()), ..State::default() };
        Self { clock, state: Mutex::new(state) }
    }

    /// Changes what the bucket allows; none: there is no bucket.
    pub fn set_bucket(&self, bucket: Option<Bucket>) {
        self.state().bucket = bucket;
    }

    /// All objects now.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.iter().map(|(key, stored)| (key.clone(), stored.body.clone())).collect()
    }

    /// The keys below a prefix now, ascending.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.state().objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// The content of an object now.
    #[must_use]
    pub fn content(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|stored| stored.body.clone())
    }

    /// Every content that ever came under a name, in the order of time; removals leave it alone.
    /// [`plant`](Self::plant) is not in it.
    #[must_use]
    pub fn log(&self) -> Vec<Upload> {
        self.state().log.clone()
    }

    /// Names below the prefix that had more than one content: what P3 forbids in history.
    #[must_use]
    pub fn rewritten(&self, prefix: &str) -> BTreeSet<String> {
        let mut first: BTreeMap<String, Bytes> = BTreeMap::new();
        let mut rewritten = BTreeSet::new();
        for upload in self.log().into_iter().filter(|upload| upload.key.starts_with(prefix)) {
            let body = first.entry(upload.key.clone()).or_insert_with(|| upload.body.clone());
            if *body != upload.body {
                rewritten.insert(upload.key);
            }
        }
        rewritten
    }

    /// How many calls of this kind arrived.
    #[must_use]
    pub fn calls(&self, op: Op) -> u64 {
        self.state().calls.get(&op).copied().unwrap_or_default()
    }

    /// Puts an object in place behind everybody's back: a damaged one, or one from the past.
    pub fn plant(&self, key: &str, body: impl Into<Bytes>, created_at: Timestamp) {
        let stored = Stored::new(body.into(), Value::Null, created_at, created_at);
        self.state().objects.insert(key.to_owned(), stored);
    }

    /// Takes an object away behind everybody's back; its content, if it was there.
    pub fn erase(&self, key: &str) -> Option<Bytes> {
        self.state().objects.remove(key).map(|stored| stored.body)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no call panics while it holds the lock")
    }

    fn call(&self, op: Op) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.calls.entry(op).or_default() += 1;
        state
    }

    /// The clock as Postgres rows show it.
    fn now(&self) -> Timestamp {
        round(self.clock.now(), Unit::Millisecond)
    }
}

impl Default for Memory {
    /// On the real clock.
    fn default() -> Self {
        Self::new(Arc::new(crate::host::Real))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("objects", &self.state().objects.len()).finish_non_exhaustive()
    }
}

fn round(time: Timestamp, unit: Unit) -> Timestamp {
    let down = TimestampRound::new().smallest(unit).mode(jiff::RoundMode::Floor);
    time.round(down).unwrap_or(time)
}

fn refuse(kind: Kind, op: Op, key: &str, message: &str) -> StoreError {
    StoreError::new(kind, op.as_str(), message).at(key)
}

impl State {
    fn check_put(&self, key: &str, body: &Bytes, how: &Put) -> Result<(), StoreError> {
        let refuse = |kind, message| Err(refuse(kind, Op::Put, key, message));
        if !is_valid_key(key) {
            return refuse(Kind::BadKey, "Invalid key");
        }
        let Some(bucket) = &self.bucket else {
            return refuse(Kind::NoBucket, "Bucket not found");
        };
        if !bucket.accepts(&how.content_type) {
            return refuse(Kind::TypeRefused, "mime type is not supported");
        }
        if bucket.size_limit.is_some_and(|limit| body.len() as u64 > limit) {
            return refuse(Kind::TooLarge, "The object exceeded the maximum allowed size");
        }
        if !how.overwrite && self.objects.contains_key(key) {
            return refuse(Kind::AlreadyExists, "The resource already exists");
        }
        Ok(())
    }

    fn find(&self, op: Op, key: &str) -> Result<&Stored, StoreError> {
        if !is_valid_key(key) {
            return Err(refuse(Kind::BadKey, op, key, "Invalid key"));
        }
        if self.bucket.is_none() {
            return Err(refuse(Kind::NoBucket, op, key, "Bucket not found"));
        }
        self.objects.get(key).ok_or_else(|| refuse(Kind::NotFound, op, key, "Object not found"))
    }
}

#[async_trait]
impl Store for Memory {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let missing = || StoreError::new(Kind::NoBucket, Op::Bucket.as_str(), "Bucket not found");
        self.call(Op::Bucket).bucket.clone().ok_or_else(missing)
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        let now = self.now();
        let mut state = self.call(Op::Put);
        state.check_put(key, &body, how)?;
        let created_at = state.objects.get(key).map_or(now, |stored| stored.created_at);
        let metadata = how.metadata.clone().unwrap_or_default();
        state.objects.insert(key.to_owned(), Stored::new(body.clone(), metadata, created_at, now));
        let way = if how.overwrite { Way::Overwrite } else { Way::Create };
        state.log.push(Upload { key: key.to_owned(), body, way });
        Ok(())
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        let body = self.call(Op::Get).find(Op::Get, key)?.body.clone();
        sink.restart().and_then(|()| sink.write(&body)).map_err(|error| StoreError::sink(&error).at(key))
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        let state = self.call(Op::Info);
        let stored = state.find(Op::Info, key)?;
        Ok(Info {
            size: stored.body.len() as u64,
            etag: Some(stored.etag.clone()),
            metadata: stored.metadata.clone(),
            modified_at: Some(stored.modified_at),
        })
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        let date = round(self.clock.now(), Unit::Second);
        let state = self.call(Op::List);
        if state.bucket.is_none() {
            return Ok(Listing { date: Some(date), ..Listing::default() });
        }
        let mut listing = list(&state.objects, page)?;
        listing.date = Some(date);
        Ok(listing)
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let mut state = self.call(Op::Remove);
        if state.bucket.is_none() {
            return Ok(Vec::new());
        }
        Ok(keys.iter().filter(|key| state.objects.remove(*key).is_some()).cloned().collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let now = self.now();
        let mut state = self.call(Op::Rename);
        if !is_valid_key(to) {
            return Err(refuse(Kind::BadKey, Op::Rename, to, "Invalid key"));
        }
        let stored = state.find(Op::Rename, from)?.clone();
        if from == to {
            return Ok(());
        }
        if state.objects.contains_key(to) {
            return Err(refuse(Kind::AlreadyExists, Op::Rename, to, "The resource already exists"));
        }
        let body = stored.body.clone();
        state.objects.remove(from);
        state.objects.insert(to.to_owned(), Stored { modified_at: now, ..stored });
        state.log.push(Upload { key: to.to_owned(), body, way: Way::Rename });
        Ok(())
    }
}

/// Where a page goes on: the order travels in the cursor and wins over the one asked for, as on the server.
fn parse_cursor(page: &Page) -> Result<(Order, Option<&str>), StoreError> {
    let Some(cursor) = &page.cursor else { return Ok((page.order, None)) };
    match cursor.split_once(':') {
        Some(("asc", last)) => Ok((Order::Ascending, Some(last))),
        Some(("desc", last)) => Ok((Order::Descending, Some(last))),
        _ => Err(StoreError::new(Kind::Protocol, Op::List.as_str(), "Invalid Parameter continuation token")),
    }
}

fn list(objects: &BTreeMap<String, Stored>, page: &Page) -> Result<Listing, StoreError> {
    let (order, last) = parse_cursor(page)?;
    let after = match (order, last) {
        (_, None) => (Bound::Unbounded, Bound::Unbounded),
        (Order::Ascending, Some(last)) => (Bound::Excluded(last), Bound::Unbounded),
        (Order::Descending, Some(last)) => (Bound::Unbounded, Bound::Excluded(last)),
    };
    let range = objects.range::<str, _>(after).filter(|(key, _)| key.starts_with(&page.prefix));
    let ordered: Box<dyn Iterator<Item = (&String, &Stored)>> = match order {
        Order::Ascending => Box::new(range),
        Order::Descending => Box::new(range.rev()),
    };
    let mut listing = Listing::default();
    // Objects and folders of the page in their common order; both count.
    let mut names: Vec<String> = Vec::new();
    for (key, stored) in ordered {
        let folder = folder(key, page);
        // A folder that the page before, or this one, has already shown.
        if folder.as_deref().is_some_and(|f| last == Some(f) || names.last().is_some_and(|name| name == f)) {
            continue;
        }
        if names.len() == page.size() {
            let order = if order == Order::Ascending { "asc" } else { "desc" };
            listing.next = names.last().map(|name| format!("{order}:{name}"));
            break;
        }
        if let Some(folder) = folder {
            names.push(folder.clone());
            listing.folders.push(folder);
        } else {
            names.push(key.clone());
            listing.objects.push(Object {
                key: key.clone(),
                size: stored.body.len() as u64,
                etag: Some(stored.etag.clone()),
                created_at: Some(stored.created_at),
            });
        }
    }
    listing.order = match &listing.next {
        Some(_) => Some(order),
        None => order_of_names(names.iter().map(String::as_str)),
    };
    Ok(listing)
}

/// The folder that a key falls into when the page groups by `/`.
fn folder(key: &str, page: &Page) -> Option<String> {
    let rest = key.strip_prefix(&page.prefix).filter(|_| page.delimiter)?;
    rest.find('/').map(|slash| format!("{}{}/", page.prefix, &rest[..slash]))
}

#[cfg(test)]
mod tests;
