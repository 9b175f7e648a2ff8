//! What the tests of history share: a clock that can be set, and an author who writes commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::archive::{Frozen, freeze};
use super::commit::{Commit, FORMAT, Kind, Mark, Patch, Writer};
use super::keys::Keys;
use super::name::Id;
use super::upload::upload;
use crate::host::Host;
use crate::session::SessionKey;
use crate::store::{Memory, Object, Store};
use crate::tree::blocks::{BLOCK, diff};
use crate::tree::{BlockTable, Content, Entry, Hash, Meta, Table};

pub fn key() -> SessionKey {
    SessionKey::new("u", "s").unwrap()
}

pub fn id(epoch: u32, seq: u32) -> Id {
    Id { epoch, seq, nonce: epoch * 1000 + seq }
}

pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub fn object(name: &str, created_at: i64) -> Object {
    let key = format!("{}{name}", key().history_prefix());
    Object { key, size: 100, etag: None, created_at: Some(time(created_at)) }
}

/// A clock that stands until it is moved.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<Timestamp>>);

impl Clock {
    pub fn forward(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Host for Clock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A store and its clock.
pub fn memory() -> (Arc<Memory>, Clock) {
    let clock = Clock(Arc::new(Mutex::new(time(0))));
    (Arc::new(Memory::new(Arc::new(clock.clone()))), clock)
}

/// How a history without encryption is read.
pub fn access(store: &dyn Store) -> Access<'_> {
    static OFF: LazyLock<Keys> = LazyLock::new(Keys::off);
    Access::new(store, &OFF)
}

/// A pair: the recipient, and the text of its identity file.
pub fn pair() -> (String, String) {
    let identity = age::x25519::Identity::generate();
    let secret = identity.to_string();
    (identity.to_public().to_string(), age::secrecy::ExposeSecret::expose_secret(&secret).to_owned())
}

/// Keys that encrypt for one pair and open what it gets.
pub fn keys() -> Keys {
    let (recipient, identity) = pair();
    Keys::new([recipient.as_str()], &identity, false).unwrap()
}

/// Somebody who changes a tree and commits it.
#[derive(Debug, Clone)]
pub struct Author {
    pub epoch: u32,
    pub seq: u32,
    pub head: Option<Id>,
    pub table: Table,
    pub contents: BTreeMap<String, Content>,
    pub size_limit: Option<u64>,
    pub keys: Keys,
    pub dirty: BTreeSet<String>,
    pub patches: BTreeMap<String, Patch>,
}

impl Author {
    pub fn new() -> Self {
        Self {
            epoch: 1,
            seq: 0,
            head: None,
            table: Table::default(),
            contents: BTreeMap::new(),
            size_limit: None,
            keys: Keys::off(),
            dirty: BTreeSet::new(),
            patches: BTreeMap::new(),
        }
    }

    pub fn put(&mut self, path: &str, bytes: &[u8]) -> &mut Self {
        let meta = Meta {
            size: bytes.len() as u64,
            mode: 0o640,
            mtime_ns: 1_700_000_000_123_456_789,
            sha256: Hash::of(bytes),
        };
        self.table.files.insert(path.to_owned(), meta);
        self.contents.insert(path.to_owned(), Content::Bytes(Bytes::copy_from_slice(bytes)));
        self.dirty.insert(path.to_owned());
        self
    }

    /// Like `put`, of a file that the last commit has: the next one has only its changed blocks.
    pub fn patch(&mut self, path: &str, bytes: &[u8]) -> &mut Self {
        let (of, old) = (self.table.files[path].sha256, BlockTable::of(&self.contents[path]).unwrap());
        self.put(path, bytes).dirty.remove(path);
        let new = BlockTable::of(&self.contents[path]).unwrap();
        let entry = Entry { path: path.to_owned(), meta: self.table.files[path] };
        let blocks = Patch { entry, of, block: BLOCK, runs: diff(&old, &new) };
        self.patches.insert(path.to_owned(), blocks);
        self
    }

    pub fn remove(&mut self, path: &str) -> &mut Self {
        self.table.files.remove(path);
        self.contents.remove(path);
        self.dirty.insert(path.to_owned());
        self
    }

    /// The commit of what is dirty, or of everything; it becomes the head.
    pub fn next(&mut self, kind: Kind, mark: Option<Mark>) -> Commit {
        self.seq += 1;
        let (id, parent) = (id(self.epoch, self.seq), self.head);
        let (dirty, patches) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.patches));
        let puts = self.table.files.iter().filter(|(path, _)| kind == Kind::Base || dirty.contains(*path));
        let put = puts.map(|(path, meta)| Entry { path: path.clone(), meta: *meta }).collect();
        let gone = dirty.iter().filter(|path| kind == Kind::Delta && !self.table.files.contains_key(*path));
        self.head = Some(id);
        Commit {
            format: FORMAT,
            user: "u".into(),
            session: "s".into(),
            id,
            parent,
            kind,
            created_at: time(0),
            writer: Writer { holder: "h".into(), version: "0.1.0".into(), label: None },
            mark,
            recipients: Vec::new(),
            put,
            patch: if kind == Kind::Delta { patches.into_values().collect() } else { Vec::new() },
            remove: gone.cloned().collect(),
            empty_dirs: self.table.empty_dirs.iter().cloned().collect(),
            tree: self.table.summary(),
        }
    }

    pub fn freeze(&mut self, kind: Kind) -> Frozen {
        let commit = self.next(kind, None);
        freeze(commit, &self.contents, self.size_limit, &self.keys).unwrap()
    }

    pub async fn commit(&mut self, store: &dyn Store, kind: Kind) -> Id {
        let frozen = self.freeze(kind);
        upload(store, &key(), &frozen, "application/zstd").await.unwrap();
        frozen.commit.id
    }
}
