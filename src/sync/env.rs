//! What all sessions of one process share.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::inbox::Pace;
use super::journal::Terms;
use super::lease::Lessor;
use super::rootdir::RootDir;
use super::start::Options;
use super::state::Place;
use crate::error::Error;
use crate::history::retention;
use crate::host::Host;
use crate::session::{Layout, SessionKey};
use crate::store::SharedStore;
use crate::tree::Filter;
use crate::tree::staging::Owner;
use tokio::sync::OnceCell;

/// What all sessions of one process share.
#[derive(Debug)]
pub struct Env {
    /// The bucket.
    pub store: SharedStore,
    /// What the bucket makes of our commits; asked for once, when it can be.
    pub known_terms: OnceCell<Terms>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The root, locked.
    pub root: Arc<RootDir>,
    /// How sessions lie below it.
    pub layout: Layout,
    /// Who decides who waits.
    pub lessor: Arc<dyn Lessor>,
    /// Whose bucket: a state of another project is no state.
    pub project: Project,
    /// Where we are: what a holder id is bound to.
    pub place: Place,
    /// What was configured.
    pub policy: Policy,
}

/// Which bucket a local state speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's URL, normalised.
    pub url: String,
    /// The bucket.
    pub bucket: String,
}

/// What was configured, as far as sessions are concerned.
#[derive(Debug, Clone)]
pub struct Policy {
    /// When dirty trees are committed.
    pub pace: Pace,
    /// Between two full comparisons.
    pub reconcile: Duration,
    /// How long a start bears an outage.
    pub outage_wait: Duration,
    /// What belongs to a tree; a preset may still be found by looking.
    pub filter: Filter,
    /// Who owns restored files; none: the owner of the root (when root) or ours.
    pub owner: Option<Owner>,
    /// Whether most of a tree may vanish at once.
    pub allow_mass_delete: bool,
    /// Whether there is a mirror.
    pub mirror: bool,
    /// How long history is kept.
    pub retention: retention::Policy,
    /// What a start may do.
    pub start: Options,
    /// The deployment's own word.
    pub label: Option<String>,
}

impl Env {
    /// What the bucket makes of our commits. Until this was answered, that nothing is listed means nothing.
    ///
    /// # Errors
    /// [`Code::BucketPublic`](crate::error::Code::BucketPublic), [`Code::BucketMissing`](crate::error::Code::BucketMissing), [`Code::BucketRefuses`](crate::error::Code::BucketRefuses), those of a wrong key, and outages.
    pub async fn terms(&self) -> Result<&Terms, Error> {
        self.known_terms
            .get_or_try_init(|| async { Terms::of(&self.project.bucket, self.store.bucket().await) })
            .await
    }

    /// The directory of a session.
    #[must_use]
    pub fn dir(&self, key: &SessionKey) -> PathBuf {
        self.layout.dir(self.root.root(), key)
    }
}

/// Proves that all events before it were seen.
#[async_trait]
pub trait Fencing: Send + Sync + Debug {
    /// Whether a fence passed: then what is marked is all that is dirty. Else everything must be looked at.
    async fn pass(&self) -> bool;

    /// Whether events cannot be relied on, so that the tree must be compared again and again.
    fn polling(&self) -> bool;

    /// A reconcile found what no event had announced.
    fn missed(&self, what: &str);
}
