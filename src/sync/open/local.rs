//! What lies on this disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::Error;
use crate::session::SessionKey;
use crate::sync::env::Env;
use crate::sync::journal::blocking;
use crate::sync::look::{Eye, Sight, Want};
use crate::sync::start::{self, Tree};
use crate::sync::state::LocalState;
use crate::tree::identity::Identity;
use crate::tree::publish::Site;
use crate::tree::{Dir, Filter, Hash, Table};

/// The tree and the state of a session before its start.
pub(super) struct Local {
    /// A publish was cut off.
    pub cut_off: bool,
    /// The state, unless it is another project's.
    pub state: Option<LocalState>,
    /// What belongs to this tree.
    pub filter: Arc<Filter>,
    /// Files that are fit, and empty directories.
    pub table: Table,
    /// What the look at the tree found: hashes, and no contents but those of credentials.
    pub sight: Sight,
}

/// Reads what lies there; hashes every file.
pub(super) async fn read(env: &Arc<Env>, key: &SessionKey, site: &Site) -> Result<Local, Error> {
    let cut_off = site
        .is_cut_off(&*env.host)
        .map_err(|error| Error::io("the state directory cannot be read", error))?;
    let state = env.known(key)?;
    let filter = &env.policy.filter;
    // A tree that cannot be listed tells nothing; the look says why.
    let filter =
        Dir::open(&site.dir()).and_then(|dir| filter.for_dir(&dir)).unwrap_or_else(|_| filter.clone());
    let filter = Arc::new(filter);
    let sight = look(env, site, Arc::clone(&filter), Want::Hashes).await?;
    Ok(Local { cut_off, state, filter, table: table_of(&sight), sight })
}

/// A look at the whole tree on disk, against nothing.
pub(super) async fn look(
    env: &Arc<Env>,
    site: &Site,
    filter: Arc<Filter>,
    want: Want,
) -> Result<Sight, Error> {
    let mut eye = Eye::new(site.dir(), filter, env.root.spool());
    let now = env.host.now();
    blocking(move || eye.look(&want, &BTreeSet::new(), &Table::default(), &BTreeMap::new(), now)).await?
}

/// What a look found, as history would have it.
pub(super) fn table_of(sight: &Sight) -> Table {
    Table { files: sight.metas.clone(), empty_dirs: sight.scan.empty_dirs.clone() }
}

impl Local {
    /// The tree, as the start table sees it.
    pub fn tree(&self) -> Tree {
        let scan = &self.sight.scan;
        if scan.files.is_empty() && scan.held.is_empty() {
            return Tree::Empty;
        }
        let rank = |identity: &Identity| match identity {
            Identity::Paired(_) => 3,
            Identity::Unreadable => 2,
            Identity::Unpaired => 1,
            Identity::Absent => 0,
        };
        let best =
            self.sight.creds.values().map(|creds| &creds.identity).max_by_key(|identity| rank(identity));
        Tree::Present(best.map_or(start::Identity::Absent, start::Identity::from))
    }

    /// Whether the tree has this digest, modes and all: what a restore left. It leaves nothing that is not fit.
    pub fn is_digest(&self, digest: Option<Hash>) -> bool {
        let fit = self.sight.held.is_empty() && self.sight.scan.held.is_empty();
        fit && digest == Some(self.table.digest())
    }
}
