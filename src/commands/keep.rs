//! `watch`, `run`, `exec`, `serve`: restore, watch, and end in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::bot::BotCommand;
use super::front::{self, Behind, Front};
use super::observed::{Observed, Observer};
#[cfg(feature = "runner")]
use super::serve;
use super::signals::{self, Stop};
use super::{setup, tenure};
use crate::config::{ApiSettings, Config, KeySource, Observe, Secret};
use crate::error::{Code, Error, Result};
use crate::http::api::CloudStorage;
use crate::http::{control, metrics, probe};
#[cfg(feature = "runner")]
use crate::runner::service::{Home, Service};
use crate::sync::control::Control;
use crate::sync::engine::Parting;
use crate::sync::env::Env;
use crate::sync::rootdir::{ControlAddress, RootDir};
use crate::sync::start::Command;
use crate::sync::supervisor::{self, Supervisor};

/// How often it is seen to that the control socket is still there.
const LOOK: Duration = Duration::from_secs(5);

/// Whose the bot is.
pub(super) enum Tenant {
    /// It runs beside us.
    Beside,
    /// Our child.
    Child(BotCommand),
    /// The connections of this process.
    #[cfg(feature = "runner")]
    Runner(crate::runner::Settings),
}

/// What a process that keeps sessions listens at, and whom it tells.
pub(super) struct Listeners {
    probe: Option<TcpListener>,
    front: Front,
    observer: Observer,
}

impl Listeners {
    /// Opens them, before anything else is done.
    pub fn open(
        config: &Config,
        api: ApiSettings,
        by_default: front::Default,
        observe: Observe,
    ) -> Result<Self> {
        let probe = config.probe.map(probe::bind).transpose()?;
        Ok(Self { probe, front: Front::open(api, by_default)?, observer: Observer::new(observe)? })
    }
}

/// Runs until a signal, the end of the bot, or the loss of all sessions; the exit code.
pub(super) async fn run(
    config: &Config,
    command: Command,
    listeners: Listeners,
    tenant: Tenant,
) -> Result<u8> {
    let stop = signals::listen()?;
    say_who_reads(config);
    let env = setup::env(config, command).await?;
    tokio::select! {
        result = guarded(config, command, &env, listeners, tenant, &stop) => result,
        () = stop.at_once.cancelled() => Err(Error::new(Code::NotFlushed, "a second signal: ended without waiting for what was not stored yet")),
    }
}

/// Whoever reads `creds.json` owns the account. Said once, for whoever does not know. // P8
fn say_who_reads(config: &Config) {
    let keys = &config.remote.keys;
    if keys.encrypts() {
        info!(recipients = keys.fingerprints().join(","), "the history is encrypted");
    } else if !matches!(config.remote.key_source, KeySource::Own(_)) {
        warn!(
            "the history is not encrypted: Supabase, and everybody with the project's secret key or a backup of the bucket, can \
             read the keys of the accounts in it; --recipient encrypts it"
        );
    }
}

async fn guarded(
    config: &Config,
    command: Command,
    env: &Arc<Env>,
    Listeners { probe, front, observer }: Listeners,
    tenant: Tenant,
    stop: &Stop,
) -> Result<u8> {
    let servers = CancellationToken::new();
    let selection = setup::selection(config);
    let supervisor = Supervisor::start(Arc::clone(env), &selection, false)?;
    let _stop_servers = servers.clone().drop_guard();
    let socket = Socket::bind(&env.root)?;
    let control: Arc<dyn Control> = Arc::clone(&supervisor) as _;
    let token = front.token();
    tokio::spawn(serve_control(socket, Arc::clone(env), Arc::clone(&control), token, servers.clone()));
    #[cfg(feature = "runner")]
    let service = match &tenant {
        Tenant::Runner(settings) => {
            let home = Home { root: config.place.root.clone(), layout: config.place.layout.clone() };
            Some(Service::start(settings.clone(), home, Arc::clone(&control)))
        }
        _ => None,
    };
    let (metrics, told) = observer.watch(Observed {
        sessions: Some((Arc::clone(&control), supervisor.changes())),
        health: supervisor.health(),
        counted: Some((Arc::clone(&env.counters), env.traffic.clone())),
        #[cfg(feature = "runner")]
        whatsapp: service.clone().map(|service| service as _),
    });
    let mut probes = Some(metrics);
    if let Some(listener) = probe {
        let metrics = probes.take().map(|metrics| metrics::router(metrics, metrics::Listener::Probe));
        let router = probe::router(supervisor.health()).merge(metrics.unwrap_or_default());
        tokio::spawn(probe::serve(listener, router, servers.clone()));
    }
    let behind = Behind {
        control,
        #[cfg(feature = "runner")]
        whatsapp: service.clone().map(|service| service as _),
        health: supervisor.health(),
        probes,
        cloud: CloudStorage::Enabled,
    };
    front.answer(behind, &servers)?;
    #[cfg(feature = "runner")]
    if let Some(service) = service {
        let result = serve::until_the_end(config, env, &supervisor, &service, stop).await;
        told.close(result.as_ref().err(), stop.left(config.timing.grace)).await;
        return result;
    }
    let result = kept(config, command, env, &supervisor, tenant, stop).await;
    told.close(result.as_ref().err(), stop.left(config.timing.grace)).await;
    result
}

/// From the start of the sessions to their end.
async fn kept(
    config: &Config,
    command: Command,
    env: &Arc<Env>,
    supervisor: &Arc<Supervisor>,
    tenant: Tenant,
    stop: &Stop,
) -> Result<u8> {
    let ready = tokio::select! {
        ready = supervisor.ready() => ready,
        () = stop.orderly.cancelled() => {
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, Parting::Alone).await;
            return outcome.error.map_or(Ok(0), Err);
        }
    };
    ready?;
    info!("ready");
    if let Tenant::Child(bot) = tenant {
        return tenure::around_bot(config, env, supervisor, &bot, stop).await;
    }
    tenure::beside_bot(config, command, supervisor, stop).await
}

/// The control socket as it is bound now.
struct Socket {
    listener: UnixListener,
    /// Must live as long as it is served.
    address: ControlAddress,
}

impl Socket {
    /// Only for whoever holds the root's lock.
    fn bind(root: &RootDir) -> Result<Self> {
        let failed = |error| Error::io("the control socket cannot be opened", error);
        let address = ControlAddress::of(root.root()).map_err(failed)?;
        Ok(Self { listener: control::bind(address.path()).map_err(failed)?, address })
    }
}

/// Answers at the control socket, and binds it again where it was removed with its directory. // P8
async fn serve_control(
    mut socket: Socket,
    env: Arc<Env>,
    control: Arc<dyn Control>,
    token: Option<Secret>,
    stop: CancellationToken,
) {
    loop {
        let Socket { listener, address } = socket;
        tokio::select! {
            ended = control::serve(listener, Arc::clone(&control), token.clone(), stop.clone()) => {
                if let Err(error) = ended {
                    error!(%error, "the control socket does not answer any more");
                }
                return;
            }
            () = lost(&env.root, &address) => {}
        }
        drop(address);
        socket = loop {
            match Socket::bind(&env.root) {
                Ok(socket) => break socket,
                Err(error) => warn!(%error, "the control socket was removed; it is opened again soon"),
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        };
    }
}

/// Waits until the socket is gone from below the root, while the root is ours.
async fn lost(root: &RootDir, address: &ControlAddress) {
    loop {
        sleep(LOOK).await;
        if root.is_intact() && !address.leads_to(root.root()) {
            return;
        }
    }
}

/// Opens the sessions without a bot, does something with them, and flushes: for commands on their own.
pub(super) async fn alone<T>(config: &Config, work: impl AsyncFnOnce(&Supervisor) -> Result<T>) -> Result<T> {
    let env = setup::env(config, Command::Watch).await?;
    // Whatever happens, the tree is not replaced: a bot may be using it.
    supervisor::alone(env, &setup::selection(config), true, work).await
}
