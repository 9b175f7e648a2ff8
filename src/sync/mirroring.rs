//! The mirror's worker as a part of a running session.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::env::Env;
use super::journal::blocking;
use super::mirror::{Mirror, Source};
use super::report::MirrorStatus;
use crate::host::Host;
use crate::session::SessionKey;
use crate::store::Bucket;
use crate::tree::read::read_file;
use crate::tree::sqlite::Turn;
use crate::tree::{Content, Dir, Filter, Hash, Table};

/// How often the end looks whether the mirror is up to date.
const GLANCE: Duration = Duration::from_millis(50);

/// A mirror and its worker; the worker ends with it.
#[derive(Debug)]
pub struct Mirroring {
    mirror: Mirror,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Mirroring {
    /// Starts the worker. It compares itself with the bucket first.
    #[must_use]
    pub fn start(env: &Arc<Env>, key: &SessionKey, bucket: &Bucket) -> Self {
        let source = DiskSource {
            dir: env.dir(key),
            filter: env.policy.filter.clone(),
            spool: env.root.spool(),
            host: Arc::clone(&env.host),
        };
        let (mirror, worker) =
            Mirror::new(Arc::clone(&env.store), key.clone(), bucket.clone(), Arc::new(source));
        let cancel = CancellationToken::new();
        let task = tokio::spawn(worker.run(cancel.clone()));
        Self { mirror, cancel, task }
    }

    /// A commit was acknowledged.
    pub fn committed(&self, head: String, table: Arc<Table>, changed: impl IntoIterator<Item = String>) {
        self.mirror.committed(head, table, changed);
    }

    /// Disk and head were compared: large files may go.
    pub fn reconciled(&self) {
        self.mirror.reconciled();
    }

    /// For `status`.
    #[must_use]
    pub fn status(&self) -> MirrorStatus {
        self.mirror.status()
    }

    /// The mirror itself: its status goes on where the engine says nothing new.
    #[must_use]
    pub fn mirror(&self) -> Mirror {
        self.mirror.clone()
    }

    /// The session is not ours any more: nothing more is written.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until it is up to date. The caller bounds that: what is missing comes with the next start.
    pub async fn finish(self) {
        self.mirror.hurry();
        while self.mirror.status().pending > 0 {
            sleep(GLANCE).await;
        }
    }
}

impl Drop for Mirroring {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

/// Committed bytes, as long as they are what lies on disk.
struct DiskSource {
    dir: PathBuf,
    filter: Filter,
    spool: PathBuf,
    host: Arc<dyn Host>,
}

#[async_trait]
impl Source for DiskSource {
    async fn content(&self, path: &str, sha256: Hash) -> Option<Content> {
        let (dir, filter, spool, path, now) =
            (self.dir.clone(), self.filter.clone(), self.spool.clone(), path.to_owned(), self.host.now());
        let read = blocking(move || {
            let _turn = Turn::take(&dir);
            read_file(&Dir::open(&dir)?, &filter, &path, now, &spool)
        })
        .await;
        match read {
            Ok(Ok(Some((meta, content)))) if meta.sha256 == sha256 => Some(content),
            _ => None,
        }
    }
}
