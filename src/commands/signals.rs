//! Signals: the first asks for an orderly end, the second quits at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::bot::Bot;
use crate::error::{Code, Error};

/// Platforms may send SIGTERM to every process of a container (Heroku says: more than once), and a wrapper passes it on as
/// well. What comes this soon after the first says nothing new.
const ECHO: Duration = Duration::from_secs(1);

/// The two stages of an end.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Flush, release, end.
    pub orderly: CancellationToken,
    /// End now.
    pub at_once: CancellationToken,
    first: Arc<OnceLock<(Signal, Instant)>>,
}

impl Stop {
    /// The signal that asked for the end: the bot gets the same.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.first.get().map_or(Signal::TERM, |(signal, _)| *signal)
    }

    /// What is left of the time from the signal to the exit; without a signal all of it.
    #[must_use]
    pub fn left(&self, grace: Duration) -> Duration {
        self.first.get().map_or(grace, |(_, at)| grace.saturating_sub(at.elapsed()))
    }
}

/// Listens for SIGTERM and SIGINT from now on.
pub fn listen() -> Result<Stop, Error> {
    let handler = |kind| {
        signal(kind).map_err(|error| Error::new(Code::Internal, "signals cannot be handled").because(error))
    };
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let stop = Stop::default();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => Signal::TERM,
                _ = interrupt.recv() => Signal::INT,
            };
            if told.orderly.is_cancelled() {
                let echo = told.first.get().is_some_and(|(first, at)| is_echo(*first, signal, at.elapsed()));
                if echo {
                    debug!(?signal, "the same signal again: already ending in order");
                    continue;
                }
                warn!("second signal: ending without waiting for what is not stored yet");
                told.at_once.cancel();
                return;
            }
            info!(?signal, "signal received: ending in order");
            told.first.get_or_init(|| (signal, Instant::now()));
            told.orderly.cancel();
        }
    });
    Ok(stop)
}

/// Whether a signal only repeats the first. A person who presses Ctrl-C twice means it.
fn is_echo(first: Signal, again: Signal, after: Duration) -> bool {
    first == Signal::TERM && again == Signal::TERM && after < ECHO
}

/// Passes on what a bot may expect from whoever started it: reload, user signals, a changed window.
pub fn forward(bot: &Bot) -> Result<JoinHandle<()>, Error> {
    let mut received = SelectAll::new();
    for (kind, passed) in [
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
        (SignalKind::window_change(), Signal::WINCH),
    ] {
        let mut source = signal(kind)
            .map_err(|error| Error::new(Code::Internal, "signals cannot be handled").because(error))?;
        received.push(
            futures_util::stream::poll_fn(move |context| {
                source.poll_recv(context).map(|got| got.map(|()| passed))
            })
            .boxed(),
        );
    }
    let group = bot.group();
    Ok(tokio::spawn(async move {
        while let Some(passed) = received.next().await {
            group.signal(passed);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_told_twice_is_one_and_a_second_word_is_obeyed() {
        let soon = Duration::from_millis(10);
        assert!(is_echo(Signal::TERM, Signal::TERM, soon));
        assert!(!is_echo(Signal::TERM, Signal::TERM, ECHO));
        assert!(!is_echo(Signal::INT, Signal::INT, soon), "Ctrl-C twice");
        assert!(!is_echo(Signal::TERM, Signal::INT, soon));
    }
}
