//! From the moment that the sessions are ready: the bot runs, gives way to another process's, and ends in order.

use std::sync::Arc;

use rustix::process::Signal;
use tokio::time::Instant;
use tracing::{info, warn};

use super::bot::{Bot, BotCommand};
use super::handover::OnHandover;
use super::orphans::{self, Reaping};
use super::signals::{self, Stop};
use super::terminal::Terminal;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::sync::engine::Parting;
use crate::sync::env::Env;
use crate::sync::lease::courtesy::Courtesy;
use crate::sync::start::Command;
use crate::sync::supervisor::{Outcome, Supervisor};

/// What came of giving way.
enum Gave {
    /// The sessions came back.
    Back,
    /// They could not be given away, and are ours still.
    Kept,
    /// A signal came in the meantime; the process has ended all it had.
    Ended,
}

/// `run` and `watch`: until a signal or the loss of all sessions. The bot is not ours.
pub(super) async fn beside_bot(
    config: &Config,
    command: Command,
    supervisor: &Arc<Supervisor>,
    stop: &Stop,
) -> Result<u8> {
    let mut courtesy = Courtesy::new(config.lease.min_hold, Instant::now());
    let hook =
        config.lease.on_handover.as_deref().map(|command| OnHandover::new(command, config.timing.grace));
    loop {
        let hook = tokio::select! {
            () = stop.orderly.cancelled() => {
                let deadline = Instant::now() + config.timing.grace;
                let parting = if command == Command::Watch { Parting::Together } else { Parting::Presumed };
                let outcome = supervisor.finish(deadline, parting).await;
                return outcome.error.map_or(Ok(0), Err);
            }
            error = supervisor.all_over() => return Err(error),
            hook = wished(supervisor, &courtesy, hook.as_ref()) => hook,
        };
        if let Err(error) = hook.stop().await {
            warn!(%error, "the bot could not be stopped: the session is not given away");
            courtesy.begin(Instant::now());
            continue;
        }
        match give_way(config, supervisor, &mut courtesy, stop).await? {
            Gave::Ended => return Ok(0),
            Gave::Back | Gave::Kept => {
                if let Err(error) = hook.start().await {
                    warn!(%error, "the bot could not be started again");
                }
            }
        }
    }
}

/// Waits for a wish that somebody can meet.
async fn wished<'a>(
    supervisor: &Supervisor,
    courtesy: &Courtesy,
    hook: Option<&'a OnHandover>,
) -> &'a OnHandover {
    match hook {
        Some(hook) => {
            supervisor.wanted(courtesy.until()).await;
            hook
        }
        None => std::future::pending().await,
    }
}

/// `exec`: until a signal, the end of the bot, or the loss of a session.
pub(super) async fn around_bot(
    config: &Config,
    env: &Arc<Env>,
    supervisor: &Arc<Supervisor>,
    command: &BotCommand,
    stop: &Stop,
) -> Result<u8> {
    orphans::adopt()?;
    let mut courtesy = Courtesy::new(config.lease.min_hold, Instant::now());
    loop {
        match one_bot(config, env, supervisor, command, stop, &courtesy).await? {
            End::Code { code, deadline } => {
                return match supervisor.finish(deadline, Parting::Alone).await {
                    // How the bot ended counts more than what waits for a person; what could not be kept counts most.
                    Outcome { error: Some(error) } if code != 0 && error.code() == Code::Held => {
                        warn!(%error, "held");
                        Ok(code)
                    }
                    Outcome { error: Some(error) } => Err(error),
                    Outcome { error: None } => Ok(code),
                };
            }
            End::GiveWay => {
                if matches!(give_way(config, supervisor, &mut courtesy, stop).await?, Gave::Ended) {
                    return Ok(0);
                }
            }
        }
    }
}

/// Why a bot of ours does not run any more.
enum End {
    /// It ended, or was told to; what is left must be done by the deadline.
    Code { code: u8, deadline: Instant },
    /// It was stopped for another process's sake.
    GiveWay,
}

async fn one_bot(
    config: &Config,
    env: &Arc<Env>,
    supervisor: &Arc<Supervisor>,
    command: &BotCommand,
    stop: &Stop,
    courtesy: &Courtesy,
) -> Result<End> {
    // The child keeps the root locked should it outlive us.
    let lock =
        env.root.lock_for_child().map_err(|error| Error::io("the root's lock cannot be handed on", error))?;
    let mut bot = Bot::start(command)?;
    drop(lock);
    let reaping = Reaping::beside(bot.group().id())?;
    let mut terminal = Terminal::lend(bot.group())?;
    let follow = async {
        match &mut terminal {
            Some(terminal) => terminal.follow().await,
            None => std::future::pending().await,
        }
    };
    let forward = signals::forward(&bot)?;
    let patience = config.timing.stop_timeout;
    let end = tokio::select! {
        biased;
        code = bot.wait() => Ok(End::Code { code: code?, deadline: Instant::now() + config.timing.grace }),
        () = stop.orderly.cancelled() => {
            let deadline = Instant::now() + config.timing.grace;
            Ok(End::Code { code: bot.stop(stop.signal(), patience).await?, deadline })
        }
        // The other's bot runs by now, or is about to. P5
        () = supervisor.taken() => {
            warn!("another process has a session of this bot: the bot is stopped");
            bot.stop(Signal::TERM, patience).await?;
            Err(None)
        }
        error = supervisor.all_over() => {
            warn!("no session is left: the bot is stopped");
            bot.stop(Signal::TERM, patience).await?;
            Err(Some(error))
        }
        () = supervisor.wanted(courtesy.until()) => {
            info!("another process asks for the session: the bot is stopped");
            bot.stop(Signal::TERM, patience).await?;
            Ok(End::GiveWay)
        }
        () = supervisor.lease_ran_out(), if config.lease.strict => {
            warn!("the lease ran out (--lease-strict): the bot is stopped until it is ours again");
            bot.stop(Signal::TERM, patience).await?;
            Ok(End::GiveWay)
        }
        never = follow => match never {},
    };
    drop(terminal);
    forward.abort();
    bot.end_group();
    reaping.end_all().await;
    match end {
        Ok(end) => {
            info!("bot ended");
            Ok(end)
        }
        Err(Some(error)) => Err(error),
        Err(None) => {
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, Parting::Alone).await;
            Err(outcome.error.unwrap_or_else(|| Error::new(Code::LeaseLost, "a session was taken over")))
        }
    }
}

/// The bot was stopped: flushes, lets the other have the sessions, and waits until they come back. P5
async fn give_way(
    config: &Config,
    supervisor: &Arc<Supervisor>,
    courtesy: &mut Courtesy,
    stop: &Stop,
) -> Result<Gave> {
    if let Err(error) = supervisor.give_way(Instant::now() + config.timing.grace).await {
        if error.code() == Code::LeaseLost {
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, Parting::Alone).await;
            return Err(outcome.error.unwrap_or(error));
        }
        if supervisor.health().borrow().ready {
            warn!(%error, "the session is not given away; the bot goes on");
            courtesy.begin(Instant::now());
            return Ok(Gave::Kept);
        }
        // Of several sessions some are given away, and the bot needs all of them. P5
        warn!(%error, "not all sessions are given away; the bot waits until all are here again");
    }
    courtesy.gave_way(Instant::now());
    tokio::select! {
        ready = supervisor.ready() => ready?,
        () = stop.orderly.cancelled() => {
            let outcome = supervisor.finish(Instant::now() + config.timing.grace, Parting::Alone).await;
            return outcome.error.map_or(Ok(Gave::Ended), Err);
        }
    }
    info!("the session came back");
    courtesy.serves_again(Instant::now());
    Ok(Gave::Back)
}
