//! What there is to tell: a pure look at sessions and connections.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::event::Kind;
use crate::error::{Code, Error};
#[cfg(feature = "runner")]
use crate::runner::port::{Connection, FailureCode, State};
#[cfg(feature = "runner")]
use crate::session::SessionKey;
use crate::sync::report::{HeldFile, SessionState, SessionStatus, StatusReport};
use crate::tree::Reason;

/// A change that waits for longer is told.
const DURABLE: SignedDuration = SignedDuration::from_mins(5);
/// A bot may write a file twice: what is held for less is nobody's business.
const SETTLES: Duration = Duration::from_secs(5);
/// Single files that are held for longer are told: most are fit a moment later.
const LASTS: SignedDuration = SignedDuration::from_mins(5);

/// When a condition is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ripe {
    /// When it has held for so long.
    After(Duration),
    /// From this moment on.
    At(Timestamp),
    /// Whenever the number has grown.
    Grown(u64),
}

/// Something that a person may have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub kind: Kind,
    /// Whose; none: the process's.
    pub session: Option<String>,
    /// Why, as a stable word.
    pub code: Option<String>,
    /// One sentence.
    pub message: String,
    /// When it is told.
    pub ripe: Ripe,
}

/// What one look saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub conditions: Vec<Condition>,
    /// Sessions that are committed: what was not durable may be called so again.
    pub well: BTreeSet<String>,
    /// Something may change without a word of it: it is to be looked at again soon.
    pub restless: bool,
}

impl Seen {
    /// Where the sessions stand.
    pub(super) fn sessions(&mut self, report: &StatusReport) {
        for status in &report.sessions {
            self.session(status);
            if status.error.as_deref() == Some(Code::Unauthorized.as_str()) {
                self.unauthorized(status.alarms.first().map(String::as_str));
            }
        }
    }

    fn session(&mut self, status: &SessionStatus) {
        let state = status.state;
        if state == SessionState::Ready {
            self.well.insert(status.session.clone());
        }
        // Nobody speaks for their changes until they are owned.
        self.restless |= matches!(state, SessionState::Waiting | SessionState::NotOwned);
        let mut tell = |kind, code: Option<&str>, message: &str, ripe| {
            self.conditions.push(Condition {
                kind,
                session: Some(status.session.clone()),
                code: code.map(str::to_owned),
                message: message.to_owned(),
                ripe,
            });
        };
        let alarms = Some(status.alarms.join("; ")).filter(|alarms| !alarms.is_empty());
        let error = status.error.as_deref();
        match state {
            SessionState::Held if error == Some(Code::Unauthorized.as_str()) => {}
            SessionState::Held => {
                let (kind, message) = held(error);
                tell(kind, error, alarms.as_deref().unwrap_or(message), Ripe::After(SETTLES));
            }
            SessionState::Taken => {
                let message =
                    "Another process took the session over; run one replica (`strategy: Recreate`).";
                tell(Kind::Taken, Some(Code::LeaseLost.as_str()), message, Ripe::After(Duration::ZERO));
            }
            _ => {
                if let Some(file) =
                    status.held.iter().filter(|file| needs_a_person(file)).min_by_key(|file| file.since)
                {
                    let message = "A file has been held for minutes and is not committed; `session-sidecar status` shows which.";
                    let ripe = Ripe::At(file.since.saturating_add(LASTS).unwrap_or(file.since));
                    tell(Kind::Held, Some(&file.reason), message, ripe);
                }
            }
        }
        if status.logged_out {
            let message = "The account was logged out; link it again, or restore a point from before.";
            tell(Kind::LoggedOut, None, message, Ripe::After(Duration::ZERO));
        }
        if let Some(oldest) = status.oldest_change_at {
            let message = "Changes have not been stored for minutes: they are on this disk only. Do not remove it; see the log for why.";
            let ripe = Ripe::At(oldest.saturating_add(DURABLE).unwrap_or(oldest));
            tell(Kind::NotDurable, error, message, ripe);
        }
        if status.handovers_refused > 0 {
            let message = "Another process asks for the session, and the bot here is not ours to stop: run one replica (`strategy: Recreate`), or set --on-handover.";
            tell(Kind::HandoverRefused, None, message, Ripe::Grown(status.handovers_refused));
        }
    }

    /// Where the connections to WhatsApp stand.
    #[cfg(feature = "runner")]
    pub(super) fn connections(&mut self, connections: &[(SessionKey, Connection)]) {
        for (key, connection) in connections {
            let Some(failure) = connection.failure.as_ref().filter(|_| connection.state == State::Failed)
            else {
                continue;
            };
            let kind = match failure.code {
                FailureCode::LoggedOut => Kind::LoggedOut,
                FailureCode::Replaced => Kind::Replaced,
                FailureCode::QrExpired | FailureCode::PairingFailed => Kind::NotLinked,
                // Whoever keeps the session tells that.
                FailureCode::SessionLost | FailureCode::Unreachable => continue,
                _ => Kind::Failed,
            };
            let session = key.to_string();
            // Its sidecar says the same of a session that was logged out.
            self.conditions.retain(|known| known.kind != kind || known.session.as_ref() != Some(&session));
            self.conditions.push(Condition {
                kind,
                session: Some(session),
                code: Some(failure.code.as_str().to_owned()),
                message: failure.message.clone(),
                ripe: Ripe::After(Duration::ZERO),
            });
        }
    }

    /// What ended the process, as far as no session says it.
    pub(super) fn end(&mut self, error: &Error) {
        let tells = |kind| self.conditions.iter().any(|known| known.kind == kind);
        match error.code() {
            Code::Unauthorized => self.unauthorized(Some(&error.to_string())),
            Code::NotFlushed if !tells(Kind::NotDurable) => self.conditions.push(Condition {
                kind: Kind::NotDurable,
                session: None,
                code: Some(Code::NotFlushed.as_str().to_owned()),
                message: error.to_string(),
                ripe: Ripe::After(Duration::ZERO),
            }),
            _ => {}
        }
    }

    fn unauthorized(&mut self, why: Option<&str>) {
        self.conditions.retain(|known| known.kind != Kind::Unauthorized);
        let message =
            "Supabase refuses the key: give the project's current secret key (SUPABASE_SERVICE_ROLE_KEY).";
        self.conditions.push(Condition {
            kind: Kind::Unauthorized,
            session: None,
            code: Some(Code::Unauthorized.as_str().to_owned()),
            message: why.unwrap_or(message).to_owned(),
            ripe: Ripe::After(SETTLES),
        });
    }
}

/// What a session that is held is told as.
fn held(error: Option<&str>) -> (Kind, &'static str) {
    match error.and_then(Code::from_word) {
        Some(Code::Conflict | Code::OtherEngine | Code::NoSession) => {
            (Kind::Conflict, "Local tree and history differ; decide with --on-conflict.")
        }
        Some(Code::Damaged | Code::HeadMissing) => {
            (Kind::Damaged, "The history is damaged; `session-sidecar verify` tells what can be restored.")
        }
        _ => (Kind::Held, "Nothing is committed until a person decides; see `session-sidecar status`."),
    }
}

/// What nobody can do anything about, or what is as it should be, is not told.
fn needs_a_person(file: &HeldFile) -> bool {
    let quiet = [Reason::NotUtf8, Reason::LevelDb, Reason::LoggedOut];
    !quiet.iter().any(|reason| reason.as_str() == file.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn status(state: SessionState) -> SessionStatus {
        SessionStatus { state, ready: true, ..SessionStatus::blank(&"u/s".parse().unwrap()) }
    }

    fn seen(status: SessionStatus) -> Vec<(Kind, Option<String>)> {
        let report = StatusReport { version: "1".into(), running: true, watch: None, sessions: vec![status] };
        let mut seen = Seen::default();
        seen.sessions(&report);
        seen.conditions.into_iter().map(|condition| (condition.kind, condition.code)).collect()
    }

    fn held_by(code: Code) -> SessionStatus {
        SessionStatus { error: Some(code.as_str().to_owned()), ..status(SessionState::Held) }
    }

    #[test]
    fn a_session_that_is_well_is_nothing_to_tell() {
        assert_eq!(seen(status(SessionState::Ready)), []);
        assert_eq!(seen(status(SessionState::Queued)), []);
        assert_eq!(seen(status(SessionState::Stopped)), []);
    }

    #[test]
    fn what_holds_a_session_decides_what_is_told() {
        for (code, kind) in [
            (Code::Held, Kind::Held),
            (Code::Conflict, Kind::Conflict),
            (Code::Damaged, Kind::Damaged),
            (Code::HeadMissing, Kind::Damaged),
            (Code::Unauthorized, Kind::Unauthorized),
        ] {
            assert_eq!(seen(held_by(code)), [(kind, Some(code.as_str().to_owned()))]);
        }
        assert_eq!(seen(status(SessionState::Taken)), [(Kind::Taken, Some("lease_lost".to_owned()))]);
        let ended = SessionStatus { logged_out: true, ..status(SessionState::Ready) };
        assert_eq!(seen(ended), [(Kind::LoggedOut, None)]);
    }

    #[test]
    fn files_that_no_person_can_mend_are_not_told_and_others_are() {
        let since = at("2026-11-27T12:00:00Z");
        let with = |reason: Reason| SessionStatus {
            held: vec![HeldFile { path: "x".into(), reason: reason.as_str().into(), since }],
            ..status(SessionState::Ready)
        };
        assert_eq!(seen(with(Reason::LevelDb)), []);
        assert_eq!(seen(with(Reason::BadJson)), [(Kind::Held, Some("bad_json".to_owned()))]);
    }

    #[test]
    fn a_key_that_is_refused_is_one_event_however_many_sessions_there_are() {
        let report = StatusReport {
            version: "1".into(),
            running: true,
            watch: None,
            sessions: vec![held_by(Code::Unauthorized), held_by(Code::Unauthorized)],
        };
        let mut seen = Seen::default();
        seen.sessions(&report);
        seen.end(&Error::new(Code::Unauthorized, "the key is refused"));
        assert_eq!(seen.conditions.len(), 1);
    }
}
