//! The object store as the rest sees it: a small trait, and decorators that add behaviour.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
    /// What the bucket allows. The only call that tells "no such bucket" and "no right to it" from "nothing there".
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
    /// Names a page, 1 to 1,000.
    pub limit: usize,
    /// Where the page before said to go on.
    pub cursor: Option<String>,
    /// Groups what lies below the next `/` into [`Listing::folders`].
    pub delimiter: bool,
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

/// What a failure means; the only thing decisions look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No such object.
    NotFound,
    /// No such bucket (or no right to see it).
    NoBucket,
    /// The name is taken.
    AlreadyExists,
    /// Over the size limit.
    TooLarge,
    /// A content type that the bucket refuses.
    TypeRefused,
    /// A key that the server refuses.
    BadKey,
    /// The key (credential) is missing, wrong, expired or has no right.
    Denied,
    /// A quota is used up or the project is paused.
    Unavailable,
    /// The server does not answer, is overloaded or failed: try again.
    Transient,
    /// Too many requests: try again, slower.
    Throttled,
    /// The database is read-only: try again in minutes.
    ReadOnly,
    /// The answer is not that of Supabase Storage (a wrong URL, a proxy's page).
    Protocol,
    /// Bytes arrived that cannot be what was asked for, or could not be written down here.
    Local,
}

/// A failed call, by meaning.
#[derive(Debug, thiserror::Error)]
#[error("{op}{}: {message}", key.as_deref().map(|k| format!(" {k}")).unwrap_or_default())]
pub struct StoreError {
    /// What it means.
    pub kind: Kind,
    /// The call, as a verb: `put`, `list` …
    pub op: &'static str,
    /// The object, where there is one.
    pub key: Option<String>,
    /// What the server said, shortened, without secrets.
    pub message: String,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
}

impl StoreError {
    /// A failure of `op` with this meaning.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<String>) -> Self {
        Self { kind, op, key: None, message: message.into(), retry_after: None }
    }

    /// The same, at an object.
    #[must_use]
    pub fn at(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Whether the same call may succeed later: the one place that says so.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Throttled | Kind::ReadOnly)
    }

    /// Whether it says nothing about what is stored: storage as a whole cannot be asked now.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.is_retryable() || self.kind == Kind::Unavailable
    }
}

/// Reads a small object into memory.
pub async fn read(store: &dyn Store, key: &str) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    store.get(key, &mut bytes).await?;
    Ok(bytes)
}
