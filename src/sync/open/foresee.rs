//! What a start would do with a session: looked at without a grant, nothing is taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Attempt, Opening, remote};
use crate::error::Error;
use crate::history::{Depth, Id, Silent};
use crate::session::SessionKey;
use crate::store;
use crate::sync::env::Env;
use crate::sync::look::Sight;
use crate::sync::mirror_fetch::Fetched;
use crate::sync::start::{self, Decision, Mirror, Remote, Tree};
use crate::tree::identity::Creds;
use crate::tree::{Filter, Scan, Table};

/// Both sides of a session, and what the start table makes of them.
#[derive(Debug)]
pub struct Foreseen {
    /// What a start would do.
    pub decision: Decision,
    /// The local tree, as the table sees it.
    pub tree: Tree,
    /// What belongs to it.
    pub filter: Arc<Filter>,
    /// Its files that are fit.
    pub local: Table,
    /// What the look at it found.
    pub sight: Sight,
    /// What the bucket has, as the table sees it.
    pub remote: Remote,
    /// The newest commit.
    pub head: Option<Id>,
    /// The head's tree, where its chain is whole.
    pub table: Option<Table>,
    /// The credentials in it.
    pub creds: BTreeMap<String, Creds>,
    /// The word of the deployment that wrote the head.
    pub label: Option<String>,
    /// The mirror next to an empty history.
    pub mirror: Mirror,
    /// What it holds.
    pub mirrored: Option<Fetched>,
}

/// Looks at both sides of a session: one try, which ends with `--outage-wait`.
pub async fn foresee(env: &Arc<Env>, key: &SessionKey) -> Result<Foreseen, Error> {
    let give_up_at = Instant::now() + env.policy.outage_wait;
    let ending = CancellationToken::new();
    let attempt = Attempt { give_up_at, in_use: false, wait: env.wait(), ending: &ending, progress: &Silent };
    let looking = async {
        let mut opening = Opening::new(env, key, attempt).await?;
        let before = env.list(key, Depth::Chain).await?;
        let there = remote::look(&opening, before).await?;
        let facts = opening.facts(Some(&there));
        let decision = opening.decide(Some(&there)).await?;
        let head = there.chain.as_ref().ok().and_then(Option::as_ref);
        Ok(Foreseen {
            decision,
            tree: facts.tree,
            remote: facts.remote,
            head: there.head(),
            table: there.table().cloned(),
            creds: there.creds.clone(),
            label: head.and_then(|chain| chain.head().writer.label.clone()),
            mirror: facts.mirror,
            mirrored: there.mirrored.as_ref().map(|(fetched, _)| fetched.clone()),
            filter: opening.local.filter,
            local: opening.local.table,
            sight: opening.local.sight,
        })
    };
    // Boxed, as in `open`.
    Box::pin(store::give_up_at(give_up_at, looking)).await
}

impl Foreseen {
    /// Whether both sides hold the same paired accounts, at least one.
    #[must_use]
    pub fn same_identity(&self) -> bool {
        let paired = |creds: &BTreeMap<String, Creds>| -> std::collections::BTreeSet<_> {
            creds.values().flat_map(|creds| creds.identity.paired()).collect()
        };
        let here = paired(&self.sight.creds);
        !here.is_empty() && here == paired(&self.creds)
    }

    /// Whether what lies here is at an earlier point than the head: a pre-key id that went back, or no file that is as new
    /// as the head's newest.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let went_back = self.creds.iter().any(|(path, head)| {
            let here = self.sight.creds.get(path).and_then(|creds| creds.next_pre_key_id);
            here.zip(head.next_pre_key_id).is_some_and(|(here, head)| here < head)
        });
        went_back || self.table.as_ref().is_some_and(|head| is_older(&self.sight.scan, head))
    }

    /// Whether every local file is in the head with the same content.
    #[must_use]
    pub fn is_part_of_head(&self) -> bool {
        let Some(head) = &self.table else { return false };
        let same = |(path, meta): (&String, &crate::tree::Meta)| {
            head.files.get(path).is_some_and(|theirs| theirs.sha256 == meta.sha256)
        };
        !self.local.is_empty() && self.local.files.iter().all(same)
    }

    /// How the head's tree stands to the local one.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.table.as_ref().is_some_and(|head| head.same_content(&self.local))
    }

    /// Whether the chain cannot be read whole.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.remote == Remote::Commits(start::Chain::Damaged)
    }
}

/// Whether the newest file of a tree is older than the newest of the head's. In whole seconds: what copied a tree may have
/// cut off the rest.
fn is_older(here: &Scan, head: &Table) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let here = here.files.values().map(|found| found.mtime_ns() / SECOND).max();
    let head = head.files.values().map(|meta| meta.mtime_ns / SECOND).max();
    here.zip(head).is_some_and(|(here, head)| here < head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::scan::{Fingerprint, Found};
    use crate::tree::{Hash, Meta};

    #[test]
    fn a_tree_whose_newest_file_is_older_than_the_heads_is_an_older_copy() {
        let here = |times: &[i128]| {
            let found = |mtime_ns: &i128| Found {
                fingerprint: Fingerprint { size: 1, mtime_ns: *mtime_ns, ctime_ns: 0, inode: 1, dev: 1 },
                mode: 0o600,
            };
            let files = times.iter().enumerate().map(|(n, time)| (n.to_string(), found(time)));
            let mut scan = Scan::default();
            scan.files = files.collect();
            scan
        };
        let head = |times: &[u64]| {
            let meta =
                |mtime_ns: &u64| Meta { size: 1, mode: 0o600, mtime_ns: *mtime_ns, sha256: Hash::of(b"") };
            let files = times.iter().enumerate().map(|(n, time)| (n.to_string(), meta(time)));
            Table { files: files.collect(), ..Table::default() }
        };
        let stored = head(&[5_000_000_000, 9_900_000_000]);
        assert!(is_older(&here(&[5_000_000_000, 8_999_999_999]), &stored));
        assert!(!is_older(&here(&[9_000_000_000]), &stored), "the same, copied by whole seconds");
        assert!(!is_older(&here(&[1, 12_000_000_000]), &stored), "its bot went on");
        assert!(!is_older(&here(&[]), &stored) && !is_older(&here(&[1]), &head(&[])));
    }
}
