//! What the ends of the sessions come to together.

use tokio::task::JoinError;
use tracing::error;

use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::engine::Ended;
use crate::sync::journal::taken;

/// What an end came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The worst of what the sessions said; none: all is stored.
    pub error: Option<Error>,
}

impl Outcome {
    pub(super) fn note(&mut self, key: &SessionKey, ended: Result<Ended, Error>) {
        let error = match ended {
            Ok(Ended::Flushed { held: 0, .. } | Ended::GaveWay) => return,
            Ok(Ended::Flushed { held, .. }) => Error::new(
                Code::Held,
                format!(
                    "session {key}: everything fit is stored; {held} paths are held at the version that history has (see `session-sidecar status`)"
                ),
            ),
            Ok(Ended::Taken { epoch }) => taken(key, epoch),
            Ok(Ended::Abandoned) => {
                Error::new(Code::NotFlushed, format!("session {key}: ended before it was stored"))
            }
            Err(error) => error,
        };
        self.error = Some(worse(self.error.take(), error));
    }
}

/// What a session's task left that ended without a word.
pub(super) fn died(error: JoinError) -> Error {
    Error::new(Code::Internal, "a session's task died").because(error)
}

/// The error that a process with several ends with: what was lost counts more than what is held.
pub(super) fn worse(old: Option<Error>, new: Error) -> Error {
    let rank = |error: &Error| match error.code().exit() {
        8 => 7,
        7 => 6,
        6 => 5,
        5 => 4,
        4 => 3,
        2 => 2,
        _ => 1,
    };
    // Whoever ends with the error prints it; the others are told here.
    match old {
        Some(old) if rank(&old) >= rank(&new) => {
            error!("{new}");
            old
        }
        Some(old) => {
            error!("{old}");
            new
        }
        None => new,
    }
}
