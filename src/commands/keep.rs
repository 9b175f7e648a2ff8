//! `watch`, `run`, `exec`: restore, watch, and end in order.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::bot::Bot;
use super::setup;
use super::signals::{self, Stop};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http::{control, probe};
use crate::sync::env::Env;
use crate::sync::rootdir::ControlAddress;
use crate::sync::start::Command;
use crate::sync::supervisor::{Outcome, Supervisor};

/// A child to run while the sessions are ready.
pub(super) struct BotCommand {
    pub command: Vec<OsString>,
    pub pass_supabase_env: bool,
}

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
    let _socket = serve_control(env, &supervisor, &servers)?;
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
    let mut bot = Bot::start(&command.command, command.pass_supabase_env)?;
    drop(lock);
    let forward = signals::forward(&bot)?;
    let mut deadline = None;
    let code = tokio::select! {
        code = bot.wait() => code?,
        () = stop.orderly.cancelled() => {
            deadline = Some(Instant::now() + config.timing.grace);
            bot.stop(config.timing.stop_timeout).await?
        }
        error = supervisor.all_over() => {
            warn!("no session is left: the bot is stopped");
            bot.stop(config.timing.stop_timeout).await?;
            return Err(error);
        }
    };
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

/// The control socket. The address must live as long as it is served.
fn serve_control(
    env: &Env,
    supervisor: &Arc<Supervisor>,
    stop: &CancellationToken,
) -> Result<ControlAddress> {
    let failed = |error| Error::io("the control socket cannot be opened", error);
    let address = ControlAddress::of(env.root.root()).map_err(failed)?;
    let listener: UnixListener = control::bind(address.path()).map_err(failed)?;
    tokio::spawn(control::serve(listener, Arc::clone(supervisor) as _, stop.clone()));
    Ok(address)
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
