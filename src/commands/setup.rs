//! From a configuration to what the sessions of a process share.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::OnceCell;

use crate::cli::values::Select;
use crate::config::{Config, KeySource, RemoteConfig};
use crate::error::{Code, Error, Result};
use crate::history::retention;
use crate::host::{Host, Real};
use crate::store::{self, Policy as Retries, SharedStore};
use crate::supabase::Client;
use crate::sync::env::{Env, Policy, Project};
use crate::sync::inbox::Pace;
use crate::sync::journal::blocking;
use crate::sync::lease::StorageLessor;
use crate::sync::metadata::{Noter, PostgrestNotes};
use crate::sync::rootdir::RootDir;
use crate::sync::start::{self, Options};
use crate::sync::supervisor::Selection;
use crate::telemetry;

/// Requests of one process at once.
const CONCURRENCY: usize = 64;

/// The bucket, behind retries and a bound on concurrency.
pub(super) fn store(remote: &RemoteConfig) -> Result<(SharedStore, Project)> {
    connect(remote).map(|(store, project, _)| (store, project))
}

/// The same, and the connection to the project's tables.
fn connect(remote: &RemoteConfig) -> Result<(SharedStore, Project, Arc<Client>)> {
    if remote.key_source == KeySource::Flag {
        tracing::warn!(
            "a key given as a flag can be seen by everybody on this machine: use SUPABASE_SERVICE_ROLE_KEY or its _FILE"
        );
    }
    let supabase = remote.connect(Arc::new(Real))?;
    let url = match &remote.key_source {
        KeySource::Own(name) => name.clone(),
        _ => supabase.client().endpoint().base().to_owned(),
    };
    let project = Project { url, bucket: remote.bucket.clone() };
    let client = Arc::clone(supabase.client());
    let (store, _) = store::stack(supabase, Retries::default(), CONCURRENCY);
    Ok((store, project, client))
}

/// Takes the root's lock and puts everything together.
pub(super) async fn env(config: &Config, command: start::Command) -> Result<Arc<Env>> {
    let (store, project, client) = connect(&config.remote)?;
    let root_path = config.place.root.clone();
    let owner = config.tree.owner;
    let root = blocking(move || {
        let is_new = !root_path.exists();
        let root = RootDir::open(&root_path, Arc::new(Real))?;
        if let Some(owner) = owner.filter(|_| is_new) {
            // The bot makes files in it.
            std::os::unix::fs::chown(&root_path, Some(owner.uid), Some(owner.gid))
                .map_err(|error| Error::io("the new root cannot be given to --chown", error))?;
        }
        Ok::<_, Error>(root)
    });
    let root = root.await??;
    let pod_uid = std::env::var("POD_UID").ok().filter(|uid| !uid.is_empty());
    let place = root.place(pod_uid)?;
    let tree = &config.tree;
    let policy = Policy {
        pace: Pace { quiet: config.timing.quiet_window, max_wait: config.timing.max_wait },
        reconcile: config.timing.reconcile_interval,
        outage_wait: config.timing.outage_wait,
        filter: tree.filter.clone(),
        owner: tree.owner,
        allow_mass_delete: tree.allow_mass_delete,
        mirror: config.mirror,
        retention: retention::Policy {
            // The engine fills in what it holds.
            epoch: 0,
            history_keep: signed(config.history_keep)?,
            pin_keep: signed(config.pin_keep)?,
        },
        start: Options {
            command,
            on_conflict: config.start.on_conflict,
            use_local: config.start.use_local,
            require_existing: config.start.require_existing,
        },
        label: config.label.clone(),
    };
    for (key, recovered) in root.recovered() {
        tracing::info!(session = %telemetry::Masked(&key.to_string()), ?recovered, "a publish of an earlier life was completed");
    }
    let noter = config
        .metadata
        .as_ref()
        .map(|table| Arc::new(Noter::start(Arc::new(PostgrestNotes::new(client, table.clone())))));
    Ok(Arc::new(Env {
        store,
        known_terms: OnceCell::new(),
        host: Arc::new(Real) as Arc<dyn Host>,
        root: Arc::new(root),
        layout: config.place.layout.clone(),
        lessor: Arc::new(StorageLessor),
        noter,
        project,
        place,
        policy,
    }))
}

/// Which sessions a start restores.
pub(super) fn selection(config: &Config) -> Selection {
    match &config.start.select {
        Select::All => Selection::All,
        Select::Active => Selection::Active,
        Select::None => Selection::LocalOnly,
        Select::Only(keys) => Selection::Only(keys.iter().cloned().collect()),
    }
}

fn signed(duration: Duration) -> Result<SignedDuration> {
    SignedDuration::try_from(duration)
        .map_err(|error| Error::new(Code::Usage, "a duration is too long").because(error))
}
