//! What is stored: buckets and their objects by name, in memory, and every change of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::BucketOptions;
use super::auth::{Who, allows};
use super::disk::{Disk, Entry, Print, Staged};
use super::error::Refusal;
use super::rules;
use crate::host::Host;

/// A row of `storage.buckets`, with the policies of its objects.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BucketRow {
    #[serde(flatten)]
    pub(super) set: BucketOptions,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// A row of `storage.objects`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    /// New with every write and move.
    pub(super) version: String,
    #[serde(flatten)]
    pub(super) print: Print,
    pub(super) mime: String,
    pub(super) cache_control: String,
    pub(super) user_metadata: Value,
    /// The `sub` of who made it.
    pub(super) owner: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// What an upload says about itself.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) mime: String,
    pub(super) cache_control: String,
    pub(super) user_metadata: Value,
    pub(super) owner: Option<String>,
}

/// A content that was accepted under a name, by upload, move or copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The content's SHA-256 in hex.
    pub sha256: String,
    /// When it took effect, by the server's clock.
    pub at: Timestamp,
}

/// Bucket and key.
pub(super) type Name<'a> = (&'a str, &'a str);

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) row: BucketRow,
    /// In the order of names, bytewise.
    pub(super) objects: BTreeMap<String, Row>,
}

/// What a cache in front would still serve.
struct Stale {
    row: Row,
    bytes: Bytes,
    since: Instant,
}

/// Everything that is stored.
pub(super) struct Index {
    pub(super) disk: Disk,
    host: Arc<dyn Host>,
    journal: File,
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) uploads: Vec<Upload>,
    stale: HashMap<(String, String), Stale>,
    /// The directory is another's now: requests that outlived the server change nothing any more.
    pub(super) closed: bool,
}

/// What a file that cannot be read or written is to a client.
#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn broken(error: io::Error) -> Refusal {
    tracing::warn!(%error, "the emulator's directory");
    Refusal::Internal
}

impl Index {
    /// Rebuilds the index from the journal. Files that somebody wrote meanwhile count as overwritten.
    pub(super) fn open(disk: Disk, host: Arc<dyn Host>) -> io::Result<Self> {
        let (journal, entries) = disk.journal()?;
        let (buckets, uploads, stale) = (BTreeMap::new(), Vec::new(), HashMap::new());
        let mut index = Self { disk, host, journal, buckets, uploads, stale, closed: false };
        for entry in entries {
            index.apply(entry);
        }
        let mut edited = Vec::new();
        for (bucket, Bucket { objects, .. }) in &index.buckets {
            for (key, row) in objects {
                if let Some(print) = index.disk.changed(bucket, key, &row.print)? {
                    edited.push((bucket.clone(), key.clone(), index.renewed(row, print)));
                }
            }
        }
        for (bucket, key, row) in edited {
            index.record(Entry::Put { bucket, key, row })?;
        }
        Ok(index)
    }

    /// The database's clock, which counts milliseconds.
    pub(super) fn now(&self) -> Timestamp {
        let now = self.host.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// A row after a write or a move: what stays is the id and when it came into being.
    fn renewed(&self, row: &Row, print: Print) -> Row {
        Row { version: Uuid::new_v4().to_string(), print, updated_at: self.now(), ..row.clone() }
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed { Err(io::Error::other("the emulator has ended")) } else { Ok(()) }
    }

    fn record(&mut self, entry: Entry) -> io::Result<()> {
        self.check_open()?;
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.journal.write_all(&line)?;
        self.apply(entry);
        Ok(())
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Bucket(row) => match self.buckets.get_mut(&row.set.id) {
                Some(bucket) => bucket.row = row,
                None => {
                    self.buckets.insert(row.set.id.clone(), Bucket { row, objects: BTreeMap::new() });
                }
            },
            Entry::NoBucket { id } => drop(self.buckets.remove(&id)),
            Entry::Put { bucket, key, row } => self.insert(bucket, key, row),
            Entry::Gone { bucket, key } => drop(self.take(&bucket, &key)),
            Entry::Moved { from, to, row } => {
                self.take(&from.0, &from.1);
                self.insert(to.0, to.1, row);
            }
        }
    }

    fn insert(&mut self, bucket: String, key: String, row: Row) {
        let Some(there) = self.buckets.get_mut(&bucket) else { return };
        there.objects.insert(key.clone(), row.clone());
        self.uploads.push(Upload { bucket, key, sha256: row.print.sha256, at: row.updated_at });
    }

    fn take(&mut self, bucket: &str, key: &str) -> Option<Row> {
        self.buckets.get_mut(bucket)?.objects.remove(key)
    }

    pub(super) fn bucket(&self, id: &str) -> Result<&Bucket, Refusal> {
        self.buckets.get(id).ok_or(Refusal::NoSuchBucket)
    }

    /// Creates or changes a bucket.
    pub(super) fn put_bucket(&mut self, set: BucketOptions) -> Result<(), Refusal> {
        let now = self.now();
        let created_at = self.buckets.get(&set.id).map_or(now, |bucket| bucket.row.created_at);
        self.record(Entry::Bucket(BucketRow { set, created_at, updated_at: now })).map_err(broken)
    }

    pub(super) fn remove_bucket(&mut self, id: &str) -> Result<(), Refusal> {
        self.record(Entry::NoBucket { id: id.to_owned() }).map_err(broken)?;
        self.disk.remove_bucket(id);
        Ok(())
    }

    /// An object as `who` sees it: what they may not see is not there.
    pub(super) fn object(&self, (bucket, key): Name<'_>, who: &Who) -> Result<&Row, Refusal> {
        rules::key(key)?;
        let bucket = self.bucket(bucket)?;
        let seen = bucket.objects.get(key).filter(|_| allows(&bucket.row.set.policies, who, key));
        seen.ok_or(Refusal::NoSuchKey)
    }

    /// The first half of an upload. The second half, [`Index::complete`], asks nothing again: between the two
    /// another upload or a move may take the name, and is overwritten.
    pub(super) fn may_upload(&self, (bucket, key): Name<'_>, who: &Who, upsert: bool) -> Result<(), Refusal> {
        let bucket = self.bucket(bucket)?;
        if !allows(&bucket.row.set.policies, who, key) {
            return Err(Refusal::RowLevelSecurity);
        }
        if !upsert && bucket.objects.contains_key(key) {
            return Err(Refusal::Exists("KeyAlreadyExists"));
        }
        Ok(())
    }

    /// The second half of an upload: the bytes are there under the name from now on. Gives the object's id.
    pub(super) fn complete(
        &mut self,
        (bucket, key): Name<'_>,
        staged: &Staged,
        labels: Labels,
        stale: Duration,
    ) -> Result<String, Refusal> {
        let now = self.now();
        let before = self.bucket(bucket)?.objects.get(key);
        let (id, created_at) = match before {
            Some(row) => (row.id.clone(), row.created_at),
            None => (Uuid::new_v4().to_string(), now),
        };
        if let Some(row) = before.filter(|_| !stale.is_zero()).cloned() {
            self.remember((bucket, key), row, stale);
        }
        let row = Row {
            id: id.clone(),
            version: Uuid::new_v4().to_string(),
            print: staged.print.clone(),
            mime: labels.mime,
            cache_control: labels.cache_control,
            user_metadata: labels.user_metadata,
            owner: labels.owner,
            created_at,
            updated_at: now,
        };
        self.check_open().map_err(broken)?;
        self.disk.publish(staged, bucket, key).map_err(broken)?;
        self.record(Entry::Put { bucket: bucket.into(), key: key.into(), row }).map_err(broken)?;
        Ok(id)
    }

    /// Keeps what a cache in front may go on serving.
    fn remember(&mut self, (bucket, key): Name<'_>, row: Row, stale: Duration) {
        let name = (bucket.to_owned(), key.to_owned());
        // A cache keeps the copy that it has: the first of several overwritten ones.
        let fresh = self.stale.get(&name).is_none_or(|old| old.since.elapsed() > stale);
        if fresh && let Ok(bytes) = fs::read(self.disk.find(bucket, key)) {
            self.stale.insert(name, Stale { row, bytes: bytes.into(), since: Instant::now() });
        }
    }

    /// The object's row and bytes, or for `stale` after an overwrite those before it.
    pub(super) fn read(&self, name: Name<'_>, who: &Who, stale: Duration) -> Result<(Row, Bytes), Refusal> {
        let row = self.object(name, who)?;
        if !stale.is_zero()
            && let Some(old) = self.stale.get(&(name.0.to_owned(), name.1.to_owned()))
            && old.since.elapsed() <= stale
        {
            return Ok((old.row.clone(), old.bytes.clone()));
        }
        let bytes = fs::read(self.disk.find(name.0, name.1)).map_err(broken)?;
        Ok((row.clone(), bytes.into()))
    }

    /// Gives an object a new name, if that is free: the one atomic decision between two writers.
    pub(super) fn rename(&mut self, from: Name<'_>, to: Name<'_>, who: &Who) -> Result<(), Refusal> {
        rules::key(to.1)?;
        let row = self.object(from, who)?.clone();
        self.may_arrive(to, who)?;
        let row = self.renewed(&row, row.print.clone());
        if from != to {
            if self.bucket(to.0)?.objects.contains_key(to.1) {
                return Err(Refusal::Exists("ResourceAlreadyExists"));
            }
            self.check_open().map_err(broken)?;
            self.disk.link(from, to).map_err(broken)?;
        }
        let name = |(bucket, key): Name<'_>| (bucket.to_owned(), key.to_owned());
        self.record(Entry::Moved { from: name(from), to: name(to), row }).map_err(broken)?;
        if from != to {
            self.disk.remove(from.0, from.1);
        }
        Ok(())
    }

    /// Whether a move or a copy may end here.
    fn may_arrive(&self, to: Name<'_>, who: &Who) -> Result<(), Refusal> {
        let bucket = self.buckets.get(to.0).ok_or(Refusal::NoRelated)?;
        if allows(&bucket.row.set.policies, who, to.1) { Ok(()) } else { Err(Refusal::RowLevelSecurity) }
    }

    /// Copies an object, with its metadata; gives the new row.
    pub(super) fn copy(
        &mut self,
        from: Name<'_>,
        to: Name<'_>,
        who: &Who,
        upsert: bool,
    ) -> Result<Row, Refusal> {
        rules::key(to.1)?;
        let (row, bytes) = self.read(from, who, Duration::ZERO)?;
        self.may_arrive(to, who)?;
        self.may_upload(to, who, upsert)?;
        let staged = self.disk.stage(&bytes).map_err(broken)?;
        let labels = Labels {
            mime: row.mime,
            cache_control: row.cache_control,
            user_metadata: row.user_metadata,
            owner: who.sub(),
        };
        self.complete(to, &staged, labels, Duration::ZERO)?;
        Ok(self.object(to, who)?.clone())
    }

    /// Deletes one object: `Access denied` where it is another's, as the server says it.
    pub(super) fn remove(&mut self, name: Name<'_>, who: &Who, stale: Duration) -> Result<(), Refusal> {
        let there = self.buckets.get(name.0).is_some_and(|bucket| bucket.objects.contains_key(name.1));
        match self.remove_seen(name, who, stale)? {
            Some(_) => Ok(()),
            None if there => Err(Refusal::Denied("Access denied")),
            None => Err(Refusal::NoSuchKey),
        }
    }

    /// Deletes an object that `who` sees; gives its row.
    pub(super) fn remove_seen(
        &mut self,
        name: Name<'_>,
        who: &Who,
        stale: Duration,
    ) -> Result<Option<Row>, Refusal> {
        let Ok(row) = self.object(name, who).cloned() else { return Ok(None) };
        if !stale.is_zero() {
            self.remember(name, row.clone(), stale);
        }
        self.record(Entry::Gone { bucket: name.0.into(), key: name.1.into() }).map_err(broken)?;
        self.disk.remove(name.0, name.1);
        Ok(Some(row))
    }
}

/// Stages bytes outside the index's lock.
pub(super) fn stage(disk: &Disk, bytes: &[u8]) -> Result<Staged, Refusal> {
    disk.stage(bytes).map_err(broken)
}
