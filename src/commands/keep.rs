//! `watch`, `run`, `exec`: restore, watch, and end in order.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::bot::{Bot, BotCommand};
use super::setup;
use super::signals::{self, Stop};
use super::terminal::Terminal;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http::{control, probe};
use crate::sync::control::Control;
use crate::sync::env::Env;
use crate::sync::rootdir::{ControlAddress, RootDir};
use crate::sync::start::Command;
use crate::sync::supervisor::{Outcome, Supervisor};

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
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, false).await;
            return outcome.error.map_or(Ok(0), Err);
        }
    };
    ready?;
    info!("ready");
    match bot {
        None => keep_until_signal(config, command, &supervisor, stop).await,
        Some(bot) => keep_around_bot(config, env, &supervisor, bot, stop).await,
    }
}

async fn keep_until_signal(
    config: &Config,
    command: Command,
    supervisor: &Arc<Supervisor>,
    stop: &Stop,
) -> Result<u8> {
    tokio::select! {
        () = stop.orderly.cancelled() => {}
        error = supervisor.all_over() => return Err(error),
    }
    let deadline = Instant::now() + config.timing.grace;
    let outcome = supervisor.finish(deadline, command == Command::Watch).await;
    outcome.error.map_or(Ok(0), Err)
}

async fn keep_around_bot(
    config: &Config,
    env: &Arc<Env>,
    supervisor: &Arc<Supervisor>,
    command: BotCommand,
    stop: &Stop,
) -> Result<u8> {
    // The child keeps the root locked should it outlive us.
    let lock =
        env.root.lock_for_child().map_err(|error| Error::io("the root's lock cannot be handed on", error))?;
    let mut bot = Bot::start(&command)?;
    drop(lock);
    let mut terminal = Terminal::lend(bot.group())?;
    let follow = async {
        match &mut terminal {
            Some(terminal) => terminal.follow().await,
            None => std::future::pending().await,
        }
    };
    let forward = signals::forward(&bot)?;
    let mut deadline = None;
    let code = tokio::select! {
        code = bot.wait() => code?,
        () = stop.orderly.cancelled() => {
            deadline = Some(Instant::now() + config.timing.grace);
            bot.stop(stop.signal(), config.timing.stop_timeout).await?
        }
        error = supervisor.all_over() => {
            warn!("no session is left: the bot is stopped");
            bot.stop(Signal::TERM, config.timing.stop_timeout).await?;
            return Err(error);
        }
        never = follow => match never {},
    };
    drop(terminal);
    forward.abort();
    info!(code, "bot ended");
    bot.end_group();
    let deadline = deadline.unwrap_or_else(|| Instant::now() + config.timing.grace);
    match supervisor.finish(deadline, false).await {
        // How the bot ended counts more than what waits for a person; what could not be kept counts most.
        Outcome { error: Some(error) } if code != 0 && error.code() == Code::Held => {
            warn!(%error, "held");
            Ok(code)
        }
        Outcome { error: Some(error) } => Err(error),
        Outcome { error: None } => Ok(code),
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
            ended = control::serve(listener, Arc::clone(&control), stop.clone()) => {
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
    let outcome = supervisor.finish(Instant::now() + Duration::from_mins(1), false).await;
    match (result, outcome.error) {
        (Err(error), _) => Err(error),
        (Ok(_), Some(error)) if error.code() != Code::Held => Err(error),
        (Ok(value), _) => Ok(value),
    }
}
