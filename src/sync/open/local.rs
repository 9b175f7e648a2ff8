//! What lies on this disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::session::SessionKey;
use crate::sync::env::Env;
use crate::sync::journal::blocking;
use crate::sync::look::{Eye, Sight, Want};
use crate::sync::start::{self, Tree};
use crate::sync::state::LocalState;
use crate::tree::identity::{Creds, Identity};
use crate::tree::publish::Site;
use crate::tree::{Filter, Hash, Meta, Table};

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
    /// Whether any file lies there, fit or not.
    pub any: bool,
    /// Credentials by directory.
    pub creds: BTreeMap<String, Creds>,
}

/// Reads what lies there; hashes every file.
pub(super) async fn read(
    env: &Arc<Env>,
    key: &SessionKey,
    site: &Site,
    state_file: &Path,
) -> Result<Local, Error> {
    let cut_off = site
        .is_cut_off(&*env.host)
        .map_err(|error| Error::io("the state directory cannot be read", error))?;
    let project = &env.project;
    let state = LocalState::load(state_file, &project.url, &project.bucket, &*env.host)?;
    let sight = look(env, key, site, Want::Hashes).await?;
    let names = sight.scan.files.keys().map(String::as_str);
    let filter = Arc::new(env.policy.filter.for_tree(names));
    let sight = if filter.preset() == env.policy.filter.preset() {
        sight
    } else {
        look_with(env, site, Arc::clone(&filter), Want::Hashes).await?
    };
    Ok(Local {
        cut_off,
        state,
        filter,
        any: !sight.scan.files.is_empty() || !sight.scan.held.is_empty(),
        table: table_of(&sight),
        creds: sight.creds,
    })
}

/// A look at the whole tree on disk, against nothing.
pub(super) async fn look(env: &Arc<Env>, _: &SessionKey, site: &Site, want: Want) -> Result<Sight, Error> {
    look_with(env, site, Arc::new(env.policy.filter.clone()), want).await
}

/// The same, with this filter.
pub(super) async fn look_with(
    env: &Arc<Env>,
    site: &Site,
    filter: Arc<Filter>,
    want: Want,
) -> Result<Sight, Error> {
    let mut eye = Eye::new(site.dir(), filter, env.root.spool());
    let now = env.host.now();
    blocking(move || {
        eye.look(&want, &std::collections::BTreeSet::new(), &Table::default(), &BTreeMap::new(), now)
    })
    .await?
}

/// What a look found, as history would have it.
pub(super) fn table_of(sight: &Sight) -> Table {
    Table { files: sight.metas.clone(), empty_dirs: sight.scan.empty_dirs.clone() }
}

impl Local {
    /// The tree, as the start table sees it.
    pub fn tree(&self) -> Tree {
        if !self.any {
            return Tree::Empty;
        }
        let rank = |identity: Identity| match identity {
            Identity::Paired(_) => 3,
            Identity::Unreadable => 2,
            Identity::Unpaired => 1,
            Identity::Absent => 0,
        };
        let best = self.creds.values().map(|creds| creds.identity).max_by_key(|identity| rank(*identity));
        Tree::Present(best.map_or(start::Identity::Absent, start::Identity::from))
    }

    /// Whether the tree has this digest, modes and all: what a restore left.
    pub fn is_digest(&self, digest: Option<Hash>) -> bool {
        digest == Some(self.table.digest())
    }

    /// Whether it holds the same files with the same content. Modes do not count: a change of mode alone is no
    /// commit either.
    pub fn is_tree(&self, other: &Table) -> bool {
        let content = |table: &Table| -> Vec<(String, Hash)> {
            table.files.iter().map(|(path, meta): (&String, &Meta)| (path.clone(), meta.sha256)).collect()
        };
        content(&self.table) == content(other)
    }
}
