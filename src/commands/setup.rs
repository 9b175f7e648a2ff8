//! From a configuration to what the sessions of a process share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::OnceCell;

use crate::cli::values::{LeaseKind, Select};
use crate::config::{Config, KeySource, RemoteConfig};
use crate::error::{Code, Error, Result};
use crate::history::retention;
use crate::host::{Host, Real};
use crate::store::{self, Policy as Retries, SharedStore};
use crate::supabase::Client;
use crate::sync::counters::Counters;
use crate::sync::env::{Env, Policy, Project, Waiting};
use crate::sync::inbox::Pace;
use crate::sync::journal::blocking;
use crate::sync::lease::{Counted, Leases, Lessor, PostgresLessor, StorageLessor};
use crate::sync::metadata::{Noter, PostgrestNotes};
use crate::sync::rootdir::RootDir;
use crate::sync::start::{self, Options};
use crate::sync::supervisor::Selection;
use crate::telemetry;
use crate::tree::Filter;

/// Requests of one process at once.
const CONCURRENCY: usize = 64;

/// A project, as everything but a start needs it.
pub(super) fn store(remote: &RemoteConfig) -> Result<(SharedStore, Project)> {
    let Connection { store, project, .. } = connect(remote)?;
    Ok((store, project))
}

/// A project: its bucket, behind retries and a bound on concurrency, and its tables.
struct Connection {
    store: SharedStore,
    metrics: store::Metrics,
    client: Arc<Client>,
    project: Project,
}

fn connect(remote: &RemoteConfig) -> Result<Connection> {
    if remote.key_source == KeySource::Flag {
        tracing::warn!(
            "a key given as a flag can be seen by everybody on this machine: use SUPABASE_SERVICE_ROLE_KEY or \
             SUPABASE_SIDECAR_TOKEN, or one of both with _FILE"
        );
    }
    let supabase = remote.connect(Arc::new(Real))?;
    let url = match &remote.key_source {
        KeySource::Own(name) => name.clone(),
        _ => supabase.client().endpoint().base().to_owned(),
    };
    let project = Project { url, bucket: remote.bucket.clone() };
    let client = Arc::clone(supabase.client());
    let (store, metrics) = store::stack(supabase, Retries::default(), CONCURRENCY);
    Ok(Connection { store, metrics, client, project })
}

/// Who decides who waits. One bot of ours needs all sessions of a root.
fn leases(
    config: &Config,
    command: start::Command,
    connection: &Connection,
    counters: &Arc<Counters>,
) -> Arc<Leases> {
    let lessor: Arc<dyn Lessor> = match config.lease.kind {
        LeaseKind::Storage => Arc::new(StorageLessor),
        LeaseKind::Postgres => {
            let postgres =
                PostgresLessor::new(Arc::clone(&connection.client), connection.project.bucket.clone());
            Arc::new(Counted::new(postgres, Arc::clone(counters)))
        }
    };
    Leases::new(lessor, config.lease.ttl, command == start::Command::Exec)
}

/// Keeps the table of sessions, unless there is none to keep.
fn noter(config: &Config, connection: &Connection) -> Option<Noter> {
    let table = config.metadata.clone()?;
    Some(Noter::start(Arc::new(PostgrestNotes::new(Arc::clone(&connection.client), table))))
}

/// Takes the root's lock and puts everything together.
pub(super) async fn env(config: &Config, command: start::Command) -> Result<Arc<Env>> {
    let connection = connect(&config.remote)?;
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
        waiting: Waiting { wait: config.lease.wait, ask: config.lease.ask },
        gives_way: command.owns_its_bot() || config.lease.on_handover.is_some(),
        min_hold: config.lease.min_hold,
        lease_strict: config.lease.strict,
        grace: config.timing.grace,
        filter: filter(&tree.filter, command),
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
    let counters = Arc::default();
    let leases = leases(config, command, &connection, &counters);
    let noter = noter(config, &connection).map(Arc::new);
    Ok(Arc::new(Env {
        store: connection.store,
        keys: config.remote.keys.clone(),
        known_terms: OnceCell::new(),
        host: Arc::new(Real) as Arc<dyn Host>,
        root: Arc::new(root),
        layout: config.place.layout.clone(),
        leases,
        noter,
        project: connection.project,
        place,
        policy,
        source: None,
        runner_speaks: AtomicBool::new(false),
        counters,
        traffic: connection.metrics,
    }))
}

/// The connections of this process have their databases open: nothing else may open them plainly.
fn filter(filter: &Filter, command: start::Command) -> Filter {
    match command {
        #[cfg(feature = "runner")]
        start::Command::Serve => filter.clone().with_live_databases([crate::runner::DATABASE]),
        _ => filter.clone(),
    }
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
