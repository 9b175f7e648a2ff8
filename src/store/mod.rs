//! The object store as the rest sees it: a small trait, and decorators that add behaviour.
//!
//! | decorator | adds |
//! |---|---|
//! | [`Retry`] | tries again, with jitter, what may succeed later |
//! | [`Limit`] | bounds how many calls are under way |
//! | [`Metered`] | counts calls, bytes and errors |
//! | [`Faulty`] | for tests: lost answers, hangs, late uploads, stale reads |
//!
//! [`Memory`] is the store of the tests; `supabase::Supabase` the real one; [`stack`] puts them together.

mod error;
mod faulty;
mod limit;
mod memory;
mod metered;
mod retry;

pub use error::{Kind, StoreError};
pub use faulty::{Call, Fault, Faulty, Late, rules};
pub use limit::Limit;
pub use memory::{Memory, Upload, Way};
pub use metered::{Counts, Metered, Metrics, Snapshot};
pub use retry::{Bounds, Policy, Retry, backoff, give_up_at};

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

/// A bucket of objects under names.
///
/// There is no conditional write: `put` without `overwrite` is check-then-act and two writers of one new
/// name may both succeed; only [`rename`](Store::rename) onto a free name decides between two.
/// Every call may have taken effect although it failed with a retryable error, and an upload
/// that timed out may still complete later.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// What the bucket allows. The only call that tells "no such bucket" and "no right to it" from "nothing
    /// there".
    async fn bucket(&self) -> Result<Bucket, StoreError>;

    /// Writes an object whole.
    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError>;

    /// Reads an object from its first byte into the sink, which is restarted first (and again by a retry).
    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError>;

    /// What is known of an object without reading it.
    async fn info(&self, key: &str) -> Result<Info, StoreError>;

    /// One page of names.
    async fn list(&self, page: &Page) -> Result<Listing, StoreError>;

    /// Deletes objects; returns the names of those that were there (and are gone). At most 1,000 a call.
    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError>;

    /// Moves an object onto a free name, atomically: [`Kind::AlreadyExists`] when it is taken.
    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError>;
}

/// A store that several tasks share.
pub type SharedStore = Arc<dyn Store>;

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        (**self).bucket().await
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        (**self).put(key, body, how).await
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        (**self).get(key, sink).await
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        (**self).info(key).await
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        (**self).list(page).await
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        (**self).remove(keys).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        (**self).rename(from, to).await
    }
}

/// The stack that every command uses: retries outside, so that a call that waits for its next try holds no
/// permit; counters inside, so that every try is counted.
pub fn stack<S: Store + 'static>(store: S, policy: Policy, concurrency: usize) -> (SharedStore, Metrics) {
    let metered = Metered::new(store);
    let metrics = metered.metrics();
    (Arc::new(Retry::new(Limit::new(metered, concurrency), policy)), metrics)
}

/// A call of the trait, as counters and fault rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// [`Store::bucket`]
    Bucket,
    /// [`Store::put`]
    Put,
    /// [`Store::get`]
    Get,
    /// [`Store::info`]
    Info,
    /// [`Store::list`]
    List,
    /// [`Store::remove`]
    Remove,
    /// [`Store::rename`]
    Rename,
}

impl Op {
    /// The verb of errors, logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Put => "put",
            Self::Get => "get",
            Self::Info => "info",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Rename => "rename",
        }
    }
}

/// What a bucket allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Whether everybody may read it.
    pub public: bool,
    /// The largest object in bytes; none: no limit of the bucket's own.
    pub size_limit: Option<u64>,
    /// The content types it accepts, perhaps with `type/*`; none: all.
    pub types: Option<Vec<String>>,
}

impl Bucket {
    /// Whether it takes objects of this content type (as it stands, without a charset).
    #[must_use]
    pub fn accepts(&self, content_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| {
            types.iter().any(|allowed| match allowed.strip_suffix("/*") {
                Some(group) => content_type.split('/').next() == Some(group) || allowed == "*/*",
                None => allowed == content_type,
            })
        })
    }
}

/// How an object is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// The content type, without a charset.
    pub content_type: String,
    /// Replaces what is there; else [`Kind::AlreadyExists`].
    pub overwrite: bool,
    /// User metadata (`x-metadata`), shown by [`Store::info`] only.
    pub metadata: Option<Value>,
}

/// One object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The full key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The etag without quotes, where the server gives one. MD5 only when it is 32 hex digits.
    pub etag: Option<String>,
    /// When it came into being, by the database's clock (milliseconds); of a late upload: its completion.
    pub created_at: Option<Timestamp>,
}

/// What [`Store::info`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Bytes.
    pub size: u64,
    /// The etag without quotes.
    pub etag: Option<String>,
    /// User metadata; null when there is none.
    pub metadata: Value,
    /// When the content was last written.
    pub modified_at: Option<Timestamp>,
}

/// The order of names in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Bytewise ascending.
    #[default]
    Ascending,
    /// Bytewise descending: newest first in history.
    Descending,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// A string prefix of full keys (bytewise, not a folder).
    pub prefix: String,
    /// The wanted order; a server may ignore it, see [`Listing::order`].
    pub order: Order,
    /// Names a page, 1 to 1,000; 0 or more than that: 1,000, the server's own cap.
    pub limit: usize,
    /// Where the page before said to go on.
    pub cursor: Option<String>,
    /// Groups what lies below the next `/` into [`Listing::folders`].
    pub delimiter: bool,
}

impl Page {
    /// [`limit`](Self::limit) with its cap applied.
    #[must_use]
    pub fn size(&self) -> usize {
        if self.limit == 0 { 1000 } else { self.limit.min(1000) }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The objects, in the order of the page.
    pub objects: Vec<Object>,
    /// Full keys of folders, with a trailing `/` (only with [`Page::delimiter`]).
    pub folders: Vec<String>,
    /// Where to go on; none: this was the last page.
    pub next: Option<String>,
    /// The order that the answer really has, where it can be told: by the cursor, or by two names.
    pub order: Option<Order>,
    /// The server's clock (whole seconds).
    pub date: Option<Timestamp>,
}

/// Where downloaded bytes go.
pub trait Sink: Send {
    /// Forgets what was written: the download begins, or begins again.
    fn restart(&mut self) -> io::Result<()>;
    /// The next bytes.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.extend_from_slice(chunk);
        Ok(())
    }
}

impl Sink for std::fs::File {
    fn restart(&mut self) -> io::Result<()> {
        io::Seek::rewind(self)?;
        self.set_len(0)
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, chunk)
    }
}

/// Reads a small object into memory.
pub async fn read(store: &dyn Store, key: &str) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    store.get(key, &mut bytes).await?;
    Ok(bytes)
}

/// Whether Supabase Storage takes this key: its character set, and no `.` or `..` as a segment.
///
/// Source: `isValidKey` of supabase/storage, and its file backend.
pub(crate) fn is_valid_key(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(is_key_byte)
        && !key.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether a key may hold this byte.
pub(crate) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_/!.*'() &$=@;:+,?-".contains(&byte)
}

/// The order that the first two names of a page prove, if any.
pub(crate) fn order_of_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Order> {
    match names.next()?.cmp(names.next()?) {
        std::cmp::Ordering::Less => Some(Order::Ascending),
        std::cmp::Ordering::Greater => Some(Order::Descending),
        std::cmp::Ordering::Equal => None,
    }
}
