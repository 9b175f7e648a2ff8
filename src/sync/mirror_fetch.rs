//! The mirror as a source: where there is no history (lines 7 and 10), and where somebody else wrote into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tokio::time::sleep;

use super::mirror::{list_all, md5_hex};
use super::mirror_key::{key_of, unescape};
use super::mirror_plan::{is_md5, md5};
use crate::error::{Code, Error};
use crate::history::HistoryError;
use crate::session::SessionKey;
use crate::store::{self, Info, Kind, Object, Sink, Store, StoreError};
use crate::tree::identity::CREDS;
use crate::tree::table::check_path;
use crate::tree::{Dir, Hash, Meta, Table};

#[cfg(test)]
mod tests;

const CONCURRENCY: usize = 16;
/// Overwritten objects may be served stale for a while: reads that do not match are tried again.
const TRIES: u32 = 4;
const STALE_WAIT: Duration = Duration::from_secs(5);
/// What the dashboard of Supabase leaves in a folder that it made.
pub(super) const PLACEHOLDER: &str = ".emptyFolderPlaceholder";
/// Other writers store no modes; nobody else has business with keys.
const MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Why a mirror could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name that no tree can have, or two for one file.
    #[error("an object in the mirror {0}")]
    Hostile(String),
    /// What was read is not what is listed, also after a while.
    #[error("an object in the mirror is served with another content than the list says")]
    Mismatch,
    /// The list before and the list after differ.
    #[error("the mirror changed while it was read: something else writes it; stop that and try again")]
    Changed,
    /// The local disk failed.
    #[error("the mirror cannot be written down: {0}")]
    Io(#[from] io::Error),
}

impl FetchError {
    /// Whether it says nothing about what is stored.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Io(source) => Self::io("the mirror cannot be written down", source),
            FetchError::Store(source) => {
                let code = HistoryError::from(source.clone()).code();
                Self::new(code, "the mirror cannot be read").because(source)
            }
            FetchError::Changed => Self::new(Code::Conflict, error.to_string()),
            FetchError::Hostile(_) | FetchError::Mismatch => Self::new(Code::Damaged, error.to_string()),
        }
    }
}

/// A mirror that lies in a directory now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its files; modes and times are ours, the bucket has none.
    pub table: Table,
    /// When it was last written, as far as the bucket tells.
    pub newest: Option<Timestamp>,
    /// The server's clock.
    pub date: Option<Timestamp>,
}

impl Fetched {
    /// How old its newest file is, for the alarm: the service whose mirrors we find uploaded only once.
    #[must_use]
    pub fn age(&self) -> Option<SignedDuration> {
        Some(self.date?.duration_since(self.newest?).max(SignedDuration::ZERO))
    }
}

/// Whether there is a mirror: one list of a few names.
pub async fn is_there(store: &dyn Store, session: &SessionKey) -> Result<bool, StoreError> {
    let page = store::Page { prefix: session.mirror_prefix(), limit: 2, ..store::Page::default() };
    let listing = store.list(&page).await?;
    Ok(listing.objects.iter().any(|object| !object.key.ends_with(PLACEHOLDER)))
}

/// Downloads the mirror into an empty directory, whole or not at all: what an error leaves there is the caller's to
/// remove. `progress` is told the bytes so far and in all.
pub async fn fetch_mirror(
    store: &dyn Store,
    session: &SessionKey,
    into: &Dir,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Fetched, FetchError> {
    let prefix = session.mirror_prefix();
    let before = list_all(store, &prefix).await?;
    let plan = plan(&prefix, &before.objects)?;
    let total = plan.values().map(|object| object.size).sum();
    for path in plan.keys() {
        if let Some((dir, _)) = path.rsplit_once('/') {
            into.make_dir_all(dir, DIR_MODE)?;
        }
    }
    let mut downloads = stream::iter(plan)
        .map(|(path, object)| async move {
            let meta = download(store, &object, into, &path).await?;
            Ok((path, meta))
        })
        .buffer_unordered(CONCURRENCY);
    let mut table = Table::default();
    let mut done = 0;
    while let Some(result) = downloads.next().await {
        let (path, meta): (String, Meta) = result.map_err(|error: FetchError| error)?;
        done += meta.size;
        progress(done, total);
        table.files.insert(path, meta);
    }
    drop(downloads);
    let creds = written_at(store, &key_of(session, CREDS)).await?;
    let after = list_all(store, &prefix).await?;
    if before.objects != after.objects {
        return Err(FetchError::Changed);
    }
    let created = before.objects.iter().filter_map(|object| object.created_at).max();
    Ok(Fetched { table, newest: created.max(creds), date: after.date })
}

/// Lists tell when an object came into being, not when it was overwritten. `creds.json` is overwritten all the time.
async fn written_at(store: &dyn Store, key: &str) -> Result<Option<Timestamp>, StoreError> {
    match store.info(key).await {
        Ok(info) => Ok(info.modified_at),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which object is which file. Every name is hostile until it is checked.
fn plan(prefix: &str, objects: &[Object]) -> Result<BTreeMap<String, Object>, FetchError> {
    let mut plan = BTreeMap::new();
    for object in objects {
        let rest = object.key.strip_prefix(prefix).unwrap_or_default();
        if rest.rsplit('/').next() == Some(PLACEHOLDER) {
            continue;
        }
        let path =
            unescape(rest).ok_or_else(|| FetchError::Hostile("has a name that is not UTF-8".to_owned()))?;
        check_path(&path).map_err(|bad| FetchError::Hostile(format!("has a name that {bad}")))?;
        if plan.insert(path, object.clone()).is_some() {
            return Err(FetchError::Hostile("has a second name".to_owned()));
        }
    }
    let dirs: BTreeSet<&str> =
        plan.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at])).collect();
    if plan.keys().any(|path| dirs.contains(path.as_str())) {
        return Err(FetchError::Hostile("is a file and a folder".to_owned()));
    }
    Ok(plan)
}

async fn download(store: &dyn Store, object: &Object, into: &Dir, path: &str) -> Result<Meta, FetchError> {
    let mut file = Checked::new(into.create(path, MODE)?);
    let mut tried = 0;
    loop {
        match store.get(&object.key, &mut file).await {
            Ok(()) if file.is(object) => return Ok(file.meta()),
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => return Err(FetchError::Changed),
            Err(error) => return Err(error.into()),
        }
        tried += 1;
        if tried == TRIES {
            return Err(FetchError::Mismatch);
        }
        sleep(STALE_WAIT).await;
    }
}

/// A file that knows what was written into it.
struct Checked {
    file: File,
    size: u64,
    md5: Md5,
    sha256: Sha256,
}

impl Checked {
    fn new(file: File) -> Self {
        Self { file, size: 0, md5: Md5::new(), sha256: Sha256::new() }
    }

    fn is(&self, object: &Object) -> bool {
        let ours = || hex::encode(self.md5.clone().finalize());
        self.size == object.size && md5(object).is_none_or(|theirs| theirs.eq_ignore_ascii_case(&ours()))
    }

    fn meta(self) -> Meta {
        Meta { size: self.size, mode: MODE, mtime_ns: 0, sha256: Hash::finish(self.sha256) }
    }
}

impl Sink for Checked {
    fn restart(&mut self) -> io::Result<()> {
        self.size = 0;
        self.md5.reset();
        self.sha256.reset();
        self.file.restart()
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.size += chunk.len() as u64;
        self.md5.update(chunk);
        self.sha256.update(chunk);
        Sink::write(&mut self.file, chunk)
    }
}

/// A `creds.json` that somebody else wrote into the mirror.
#[derive(Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its content: whoever has it owns an account.
    pub bytes: Vec<u8>,
    /// When it was written.
    pub modified_at: Option<Timestamp>,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign")
            .field("bytes", &self.bytes.len())
            .field("modified_at", &self.modified_at)
            .finish()
    }
}

/// The mirrored `creds.json`, where it differs from the head's (`head`) and was not written by us: it has no mark of
/// ours, or one whose hash is not its content's. // P4
///
/// # Errors
/// [`Kind::Transient`] when what is served is not what the bucket says it has: a stale read must not be taken for
/// somebody's work.
pub async fn foreign_creds(
    store: &dyn Store,
    session: &SessionKey,
    head: &[u8],
) -> Result<Option<Foreign>, StoreError> {
    let key = key_of(session, CREDS);
    let mut tried = 0;
    loop {
        let info = match store.info(&key).await {
            Ok(info) => info,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if etag_is(&info, head) == Some(true) || proven(&info) {
            return Ok(None);
        }
        let bytes = store::read(store, &key).await?;
        let same = bytes.len() as u64 == info.size
            && match etag_is(&info, &bytes) {
                Some(same) => same,
                // The etag is no MD5: at least nobody wrote in between.
                None => store.info(&key).await? == info,
            };
        if same {
            let ours = marked(&info) == Some(Hash::of(&bytes));
            let foreign = bytes != head && !ours;
            return Ok(foreign.then_some(Foreign { bytes, modified_at: info.modified_at }));
        }
        tried += 1;
        if tried == TRIES {
            let text = "it is served with another content than its etag says";
            return Err(StoreError::new(Kind::Transient, "get", text).at(key));
        }
        sleep(STALE_WAIT).await;
    }
}

/// Whether we wrote it, by its mark: by the etag where that is an MD5, else by the mark alone.
pub(super) fn is_ours(info: &Info) -> bool {
    if md5_of(info).is_some() { proven(info) } else { marked(info).is_some() }
}

/// The hash in our mark, where there is one.
fn marked(info: &Info) -> Option<Hash> {
    info.metadata["sidecar"]["sha256"].as_str()?.parse().ok()
}

/// Whether the content is the one that we marked, by its etag alone.
fn proven(info: &Info) -> bool {
    md5_of(info).is_some_and(|etag| info.metadata["sidecar"]["md5"].as_str() == Some(etag))
}

/// The etag, where it is an MD5.
fn md5_of(info: &Info) -> Option<&str> {
    info.etag.as_deref().filter(|etag| is_md5(etag))
}

/// Whether the etag is the MD5 of these bytes; none when it is no MD5.
fn etag_is(info: &Info, bytes: &[u8]) -> Option<bool> {
    let etag = md5_of(info)?;
    Some(info.size == bytes.len() as u64 && etag.eq_ignore_ascii_case(&md5_hex(bytes)))
}
