//! The write side of one session's history: the order of a commit, and who may call it acknowledged.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::counters::Counters;
use super::metadata::{Noted, Noter};
use super::state::LocalState;
use crate::error::{Code, Error};
use crate::history::commit::Patch;
use crate::history::{self, Commit, HistoryError, Id, Keys, Kind, Mark, Writer};
use crate::history::{Standing, short_list};
use crate::host::Host;
use crate::session::SessionKey;
use crate::store::{Bucket, Kind as StoreKind, SharedStore, StoreError};
use crate::tree::{Content, Entry, Hash, Summary, Table};

/// What a bucket makes of our commits; found out once at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The content type that it accepts for them.
    pub content_type: String,
    /// What it allows.
    pub bucket: Bucket,
}

impl Terms {
    /// What the answer about a bucket means for us.
    pub fn of(name: &str, answer: Result<Bucket, StoreError>) -> Result<Self, Error> {
        let bucket = answer.map_err(|error| match error.kind {
            StoreKind::NoBucket => Error::new(
                Code::BucketMissing,
                format!("there is no bucket `{name}`, or this key must not see it: check the name (--bucket, SUPABASE_BUCKET) and the key, or create it with `session-sidecar init` (a token sees the buckets alone that the SQL was applied for)"),
            ),
            _ => HistoryError::from(error).into(),
        })?;
        if bucket.public {
            return Err(Error::new(
                Code::BucketPublic,
                format!(
                    "bucket `{name}` is public: everybody could read the keys of the accounts; make it private (`session-sidecar init` does)"
                ),
            ));
        }
        let (content_type, warning) = history::upload::content_type(&bucket)?;
        if let Some(warning) = warning {
            warn!("{}", warning.0);
        }
        Ok(Self { content_type, bucket })
    }
}

/// A commit before it has an id and bytes.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Whether it holds the whole tree.
    pub base: bool,
    /// Logout, delete, rewind.
    pub mark: Option<Mark>,
    /// The tree on disk is not this commit's yet; it will be once it is published.
    pub restores: bool,
    /// New and changed files (of a base: all).
    pub put: Vec<Entry>,
    /// Files of which some blocks changed; none in a base.
    pub patch: Vec<Patch>,
    /// Paths that are gone.
    pub remove: Vec<String>,
    /// The tree after the commit.
    pub table: Table,
    /// The bytes of `put`, and of the whole files of `patch`.
    pub contents: BTreeMap<String, Content>,
}

impl Draft {
    /// The first commit of an epoch that changes nothing: it only cuts off what an older epoch uploads later.
    #[must_use]
    pub fn seal(table: &Table) -> Self {
        Self { table: table.clone(), ..Self::default() }
    }

    /// A base of nothing: a new session or, with a mark, the end of one.
    #[must_use]
    pub fn empty(mark: Option<Mark>) -> Self {
        Self { mark, ..Self::base(Table::default(), BTreeMap::new()) }
    }

    /// A base of a whole tree.
    #[must_use]
    pub fn base(table: Table, contents: BTreeMap<String, Content>) -> Self {
        let put = table.files.iter().map(|(path, meta)| Entry { path: path.clone(), meta: *meta }).collect();
        Self { base: true, put, table, contents, ..Self::default() }
    }
}

/// Why a commit did not come about, or does not count.
#[derive(Debug)]
pub enum Lost {
    /// Another process took the session: nothing may be committed or mirrored any more.
    Taken {
        /// Its epoch.
        epoch: u32,
    },
    /// Not now: the attempt was given up, or is stored and not owned yet. Try again later.
    Failed(Error),
}

impl Lost {
    /// As an error for a user.
    #[must_use]
    pub fn into_error(self, key: &SessionKey) -> Error {
        match self {
            Self::Taken { epoch } => taken(key, epoch),
            Self::Failed(error) => error,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { epoch } => write!(f, "taken over by epoch {epoch}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<HistoryError> for Lost {
    fn from(error: HistoryError) -> Self {
        Self::Failed(error.into())
    }
}

/// The error of a process that lost a session.
#[must_use]
pub fn taken(key: &SessionKey, epoch: u32) -> Error {
    Error::new(
        Code::LeaseLost,
        format!(
            "session {key} was taken over by another process (epoch {epoch}): this one must not write it any more; run one replica (`strategy: Recreate`)"
        ),
    )
}

/// Writes one session's commits, strictly one after another.
pub struct Journal {
    store: SharedStore,
    keys: Keys,
    host: Arc<dyn Host>,
    key: SessionKey,
    terms: Terms,
    writer: Writer,
    state: LocalState,
    state_file: PathBuf,
    epoch: u32,
    seq: u32,
    /// The last commit confirmed by storage.
    head: Option<Id>,
    acknowledged: Option<Id>,
    /// The head's tree, if it was stored here.
    tree: Option<Summary>,
    /// Whether there was no tree before it.
    empty: bool,
    noter: Option<Arc<Noter>>,
    /// Bytes of the last commit that was stored.
    stored_bytes: u64,
    counters: Arc<Counters>,
    /// Of the head that is not acknowledged yet: what it is, and since when it is under way.
    counting: Option<(Kind, Instant)>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({} epoch {} head {:?})", self.key, self.epoch, self.head)
    }
}

/// What a journal is made from.
#[derive(Debug)]
pub struct JournalParts {
    /// Where history lies.
    pub store: SharedStore,
    /// What it is encrypted for.
    pub keys: Keys,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Whose history.
    pub key: SessionKey,
    /// What the bucket accepts.
    pub terms: Terms,
    /// Who writes.
    pub writer: Writer,
    /// The local state, and where it is kept.
    pub state: LocalState,
    /// Its file.
    pub state_file: PathBuf,
    /// Keeps the table of sessions.
    pub noter: Option<Arc<Noter>>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Journal {
    /// The journal of a fresh grant: nothing was written under this epoch yet.
    #[must_use]
    pub fn new(parts: JournalParts, head: Option<Id>) -> Self {
        let JournalParts { store, keys, host, key, terms, writer, state, state_file, noter, counters } =
            parts;
        Self {
            store,
            keys,
            host,
            key,
            terms,
            writer,
            epoch: state.epoch,
            state,
            state_file,
            seq: 0,
            head,
            acknowledged: None,
            tree: None,
            empty: head.is_none(),
            noter,
            stored_bytes: 0,
            counters,
            counting: None,
        }
    }

    /// The last commit confirmed by storage.
    #[must_use]
    pub fn head(&self) -> Option<Id> {
        self.head
    }

    /// The last commit that is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Option<Id> {
        self.acknowledged
    }

    /// The epoch of the grant.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The local state.
    #[must_use]
    pub fn state(&self) -> &LocalState {
        &self.state
    }

    /// Changes the local state durably.
    pub fn update_state(&mut self, change: impl FnOnce(&mut LocalState)) -> Result<(), Error> {
        change(&mut self.state);
        self.save()
    }

    fn save(&self) -> Result<(), Error> {
        self.state.save(&self.state_file, &*self.host)
    }

    /// Steps 1 and 2 of a commit: the id joins `pending`, then the upload. // P2 P3
    ///
    /// The caller made durable what was read, and calls [`acknowledge`](Self::acknowledge) next: until then the
    /// commit is stored and not owned. An attempt that fails is given up: its id stays pending until a higher one
    /// is confirmed, and the successor names the last confirmed parent under a new id.
    pub async fn store(&mut self, draft: Draft) -> Result<Id, Lost> {
        self.seq += 1;
        let id = Id { epoch: self.epoch, seq: self.seq, nonce: rand::random() };
        let marks = draft.mark.is_some() || draft.restores;
        let began = Instant::now();
        let frozen = self.freeze(id, self.head, draft).await?;
        let before = self.state.clone();
        self.state.attempt(id, marks);
        if marks {
            // What a publish of it will leave; the old tree's must not pass for it.
            self.state.digest = Some(frozen.commit.tree.sha256);
        }
        if let Err(error) = self.save() {
            // Nothing of it was sent.
            self.state = before;
            return Err(error.into());
        }
        history::upload::upload(&*self.store, &self.key, &frozen, &self.terms.content_type).await?;
        self.head = Some(id);
        self.counting = Some((frozen.commit.kind, began));
        self.state.stored(id, self.keys.encrypts());
        self.empty = self.tree.map_or(self.empty, |tree| tree.files == 0);
        self.tree = Some(frozen.commit.tree);
        self.stored_bytes = frozen.objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        debug!(%id, files = frozen.commit.put.len(), patches = frozen.commit.patch.len(), "stored");
        Ok(id)
    }

    /// [`store`](Self::store), then [`acknowledge`](Self::acknowledge).
    pub async fn append(&mut self, draft: Draft) -> Result<Id, Lost> {
        let id = self.store(draft).await?;
        self.acknowledge().await?;
        Ok(id)
    }

    /// Keeps a place below the next commit, for [`store_beside`](Self::store_beside).
    pub fn reserve(&mut self) -> u32 {
        self.seq += 1;
        self.seq
    }

    /// Stores a commit beside the chain, at a place below its head, and pins it: it is kept and never the head.
    pub async fn store_beside(&self, seq: u32, parent: Id, draft: Draft, reason: &str) -> Result<(), Lost> {
        let id = Id { epoch: self.epoch, seq, nonce: rand::random() };
        let frozen = self.freeze(id, Some(parent), draft).await?;
        history::pin::pin(&*self.store, &self.key, id, reason).await?;
        history::upload::upload(&*self.store, &self.key, &frozen, &self.terms.content_type).await?;
        Ok(())
    }

    async fn freeze(&self, id: Id, parent: Option<Id>, draft: Draft) -> Result<history::Frozen, Error> {
        let Draft { base, mark, restores: _, put, patch, remove, table, contents } = draft;
        let commit = Commit {
            format: history::commit::FORMAT,
            user: self.key.user().to_owned(),
            session: self.key.session().to_owned(),
            id,
            parent,
            kind: if base { Kind::Base } else { Kind::Delta },
            created_at: self.host.now(),
            writer: self.writer.clone(),
            mark,
            recipients: Vec::new(),
            put,
            patch,
            remove,
            empty_dirs: table.empty_dirs.iter().cloned().collect(),
            tree: table.summary(),
        };
        let (limit, keys) = (self.terms.bucket.size_limit, self.keys.clone());
        blocking(move || history::freeze(commit, &contents, limit, &keys))
            .await?
            .map_err(|error| Error::io("a commit could not be packed", error))
    }

    /// Bytes of the last commit that was stored, all parts.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The head, if it is stored and not acknowledged yet.
    #[must_use]
    pub fn unacknowledged(&self) -> Option<Id> {
        self.head.filter(|head| self.acknowledged != Some(*head) && head.epoch == self.epoch)
    }

    /// Steps 3 and 4: the short list proves that nobody claimed a higher epoch before the commit was stored. // P5
    pub async fn acknowledge(&mut self) -> Result<(), Lost> {
        let Some(head) = self.unacknowledged() else { return Ok(()) };
        match self.prove().await {
            Ok(()) => {}
            Err(lost) => {
                if matches!(lost, Lost::Taken { .. }) && self.counting.take().is_some() {
                    self.counters.not_owned.inc();
                }
                return Err(lost);
            }
        }
        if let Some((kind, began)) = self.counting.take() {
            self.counters.committed(kind, self.stored_bytes, began.elapsed());
        }
        self.acknowledged = Some(head);
        // While something is restored, the disk holds another tree than the head: the publish will say so.
        if self.state.restoring.is_none() {
            self.state.confirm(head);
            self.state.digest = self.tree.map(|tree| tree.sha256);
            self.save()?;
        }
        if let (Some(noter), Some(tree)) = (&self.noter, self.tree) {
            noter.committed(&self.key, Noted { head, tree, at: self.host.now(), first: self.empty });
        }
        Ok(())
    }

    /// For the table: a person ended the session with this mark, or brought it back.
    pub fn note(&self, mark: Mark) {
        if let Some(noter) = &self.noter {
            noter.marked(&self.key, mark);
        }
    }

    /// The short list: nobody claimed a higher epoch, and nobody writes under ours. // P5
    pub async fn prove(&self) -> Result<(), Lost> {
        let Some(head) = self.head else { return Ok(()) };
        match short_list(&*self.store, &self.key, head, &self.state.pending.iter().copied().collect()).await?
        {
            Standing::Acknowledged => Ok(()),
            Standing::Taken { epoch } => Err(Lost::Taken { epoch }),
            Standing::Unclear => Err(Lost::Failed(Error::new(
                Code::Unreachable,
                "a commit is stored, but the bucket's list does not show it yet",
            ))),
        }
    }

    /// Step 9: what is on disk is the head's tree; nothing is restored any more.
    pub fn settle(&mut self, digest: Hash, change: impl FnOnce(&mut LocalState)) -> Result<(), Error> {
        if let Some(head) = self.acknowledged {
            self.state.restored(head, digest);
        }
        self.update_state(change)
    }

    /// Writes a pin on the head, before the commit that it is to outlive.
    pub async fn pin(&self, reason: &str) -> Result<(), Lost> {
        match self.head {
            Some(head) => Ok(history::pin::pin(&*self.store, &self.key, head, reason).await?),
            None => Ok(()),
        }
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs what blocks (disk, packing) where it may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Error::new(Code::Internal, "a worker thread ended early").because(error))
}
