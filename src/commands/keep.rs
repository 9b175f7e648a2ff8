//! `watch`, `run`, `exec`: restore, watch, and end in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::bot::BotCommand;
use super::signals::{self, Stop};
use super::{setup, tenure};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http::{control, probe};
use crate::sync::control::Control;
use crate::sync::engine::Parting;
use crate::sync::env::Env;
use crate::sync::rootdir::{ControlAddress, RootDir};
use crate::sync::start::Command;
use crate::sync::supervisor::Supervisor;

/// How often it is seen to that the control socket is still there.
const LOOK: Duration = Duration::from_secs(5);

/// Runs until a signal, the end of the bot, or the loss of all sessions; the exit code.
pub(super) async fn run(config: &Config, command: Command, bot: Option<BotCommand>) -> Result<u8> {
    let stop = signals::listen()?;
    let listener = config.probe.map(probe::bind).transpose()?;
    let env = setup::env(config, command).await?;
    tokio::select! {
        result = guarded(config, command, &env, listener, bot, &stop) => result,
        () = stop.at_once.cancelled() => Err(Error::new(Code::NotFlushed, "a second signal: ended without waiting for what was not stored yet")),
    }
}

async fn guarded(
    config: &Config,
    command: Command,
    env: &Arc<Env>,
    listener: Option<TcpListener>,
    bot: Option<BotCommand>,
    stop: &Stop,
) -> Result<u8> {
    let servers = CancellationToken::new();
    let selection = setup::selection(config);
    let supervisor = Supervisor::start(Arc::clone(env), &selection, false)?;
    let _stop_servers = servers.clone().drop_guard();
    if let Some(listener) = listener {
        tokio::spawn(probe::serve(listener, supervisor.health(), servers.clone()));
    }
    let socket = Socket::bind(&env.root)?;
    tokio::spawn(serve_control(socket, Arc::clone(env), Arc::clone(&supervisor) as _, servers.clone()));
    let ready = tokio::select! {
        ready = supervisor.ready() => ready,
        () = stop.orderly.cancelled() => {
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, Parting::Alone).await;
            return outcome.error.map_or(Ok(0), Err);
        }
    };
    ready?;
    info!("ready");
    match bot {
        None => tenure::beside_bot(config, command, &supervisor, stop).await,
        Some(bot) => tenure::around_bot(config, env, &supervisor, &bot, stop).await,
    }
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
    stop: CancellationToken,
) {
    loop {
        let Socket { listener, address } = socket;
        tokio::select! {
            ended = control::serve(listener, Arc::clone(&control), None, stop.clone()) => {
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
    let supervisor = Supervisor::start(env, &setup::selection(config), true)?;
    supervisor.ready().await?;
    let result = work(&supervisor).await;
    let outcome = supervisor.finish(Instant::now() + Duration::from_mins(1), Parting::Alone).await;
    match (result, outcome.error) {
        (Err(error), _) => Err(error),
        (Ok(_), Some(error)) if error.code() != Code::Held => Err(error),
        (Ok(value), _) => Ok(value),
    }
}
