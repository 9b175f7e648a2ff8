//! What is to be done about a session's connection, from where session and connection stand: pure.

use crate::runner::port::{Connection, FailureCode, State};
use crate::sync::report::{BotStatus, SessionState, SessionStatus};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it should be.
    Nothing,
    /// Connect: it is wanted, and the session is here.
    Start,
    /// Stop at once: the session is another process's by now. // P5
    Lose,
    /// Stop, and let another process have the session.
    GiveWay,
}

/// Decides. A connection that failed for a reason that a person must look at is left alone.
pub(super) fn decide(session: &SessionStatus, desired: bool, connection: Option<&Connection>) -> Step {
    let live = connection.is_some_and(is_live);
    match session.state {
        SessionState::Taken | SessionState::Queued if live => Step::Lose,
        _ if session.wanted => Step::GiveWay,
        SessionState::Ready | SessionState::NotOwned | SessionState::Held
            if session.ready && desired && may_start(connection) =>
        {
            Step::Start
        }
        _ => Step::Nothing,
    }
}

/// Whether something of it runs.
pub(super) fn is_live(connection: &Connection) -> bool {
    !matches!(connection.state, State::Stopped | State::Failed)
}

fn may_start(connection: Option<&Connection>) -> bool {
    connection.is_none_or(|connection| match connection.state {
        State::Stopped => true,
        State::Failed => {
            connection.failure.as_ref().is_some_and(|failure| failure.code == FailureCode::SessionLost)
        }
        _ => false,
    })
}

/// The old service's word.
pub(super) fn word(connection: &Connection) -> BotStatus {
    let logged_out = || connection.failure.as_ref().is_some_and(|why| why.code == FailureCode::LoggedOut);
    match connection.state {
        State::Working => BotStatus::Connected,
        State::Starting => BotStatus::Connecting,
        State::ScanQrCode | State::PasskeyRequired | State::PasskeyConfirmationRequired => {
            BotStatus::QrGenerated
        }
        State::Stopped => BotStatus::Disconnected,
        State::Failed if logged_out() => BotStatus::LoggedOut,
        State::Failed => BotStatus::Error,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runner::port::Failure;

    fn session(state: SessionState, ready: bool) -> SessionStatus {
        SessionStatus { state, ready, ..SessionStatus::blank(&"u/s".parse().unwrap()) }
    }

    fn connection(state: State, failure: Option<FailureCode>) -> Connection {
        let failure = failure.map(|code| Failure { code, message: String::new() });
        Connection { failure, ..Connection::new(state, Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn what_is_wanted_and_here_is_connected_and_what_is_anothers_is_not() {
        let ready = session(SessionState::Ready, true);
        assert_eq!(decide(&ready, true, None), Step::Start);
        assert_eq!(decide(&ready, false, None), Step::Nothing);
        assert_eq!(decide(&session(SessionState::Restoring, false), true, None), Step::Nothing);
        for state in [State::Working, State::Starting, State::ScanQrCode] {
            let live = connection(state, None);
            assert_eq!(decide(&ready, true, Some(&live)), Step::Nothing);
            assert_eq!(decide(&session(SessionState::Taken, true), true, Some(&live)), Step::Lose);
            assert_eq!(decide(&session(SessionState::Queued, false), true, Some(&live)), Step::Lose);
        }
        let lost = connection(State::Failed, Some(FailureCode::SessionLost));
        assert_eq!(decide(&session(SessionState::Queued, false), true, Some(&lost)), Step::Nothing);
        assert_eq!(decide(&ready, true, Some(&lost)), Step::Start, "it came back");
    }

    #[test]
    fn a_failure_that_a_person_must_look_at_is_left_alone() {
        let ready = session(SessionState::Ready, true);
        for code in
            [FailureCode::Replaced, FailureCode::LoggedOut, FailureCode::QrExpired, FailureCode::TemporaryBan]
        {
            assert_eq!(decide(&ready, true, Some(&connection(State::Failed, Some(code)))), Step::Nothing);
        }
    }

    #[test]
    fn who_is_asked_gives_way_whether_connected_or_not() {
        let wanted = SessionStatus { wanted: true, ..session(SessionState::Ready, true) };
        assert_eq!(decide(&wanted, true, Some(&connection(State::Working, None))), Step::GiveWay);
        assert_eq!(decide(&wanted, false, None), Step::GiveWay);
    }
}
