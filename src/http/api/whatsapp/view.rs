//! Where a connection stands: what old clients read, and ours beside it.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::call::Call;
use crate::http::api::problem::Problem;
use crate::http::api::sessions::Persistence;
use crate::http::api::{Api, Shared};
use crate::runner::port::{self, Connection, FailureCode, Me, PairingCode, Passkey, Qr, State as Standing};
use crate::session::SessionKey;

/// Where a connection stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the shape that old clients read")]
pub struct StatusView {
    /// `true`
    success: bool,
    /// Logged in.
    connected: bool,
    /// On the way there; true also while a QR code waits.
    connecting: bool,
    /// The text of the QR code, while one waits.
    qr_code: Option<String>,
    /// The session.
    session_id: String,
    /// The name that a person gave it.
    session_name: Option<String>,
    /// Whether it is meant where a call names no session.
    is_default: bool,
    /// As the old service answered one way.
    session: SessionView,
    /// As the old service answered another way.
    data: DataView,
    /// `mobile`, or what the table says.
    connection_type: String,
    /// Where there is no connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    /// Where it stands, in WAHA's words.
    state: Standing,
    /// The linked account.
    me: Option<Me>,
    /// The QR code that waits.
    qr: Option<Qr>,
    /// The pairing code that waits.
    pairing_code: Option<PairingCode>,
    /// The step of a passkey that waits.
    passkey: Option<Passkey>,
    /// Why it failed, or is not up yet.
    failure: Option<port::Failure>,
    /// Since when it stands there.
    since: Option<Timestamp>,
    /// When it is tried again.
    next_try_at: Option<Timestamp>,
    /// How well it is kept; none where it is not one of this process.
    persistence: Option<Persistence>,
}

/// As the old service answered one way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionView {
    /// The session.
    session_id: String,
    /// The user.
    user_id: String,
    /// `initializing`, `connecting`, `qr_generated`, `connected`, `reconnecting`, `disconnected`, `logged_out`, `error` or
    /// `not_found`
    status: &'static str,
}

/// As the old service answered another way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DataView {
    /// The same word.
    status: &'static str,
    /// Logged in.
    connected: bool,
    /// The session.
    session_id: String,
    /// The user.
    user_id: String,
}

/// `GET /api/whatsapp/status/{user}`
pub async fn status(State(api): State<Shared>, call: Call) -> Result<Json<StatusView>, Problem> {
    let key = call.session(&api).await?;
    let connection = api.whatsapp()?.connection(&key);
    Ok(Json(of(&api, &key, connection).await))
}

/// The view of a session. What the project does not tell is left out: a status is no reason to fail.
pub async fn of(api: &Api, key: &SessionKey, connection: Option<Connection>) -> StatusView {
    let entries = api.directory.of(key.user(), api).await.unwrap_or_default();
    let entry = entries.iter().find(|entry| entry.session_id == key.session());
    let column = |name: &str| entry.and_then(|entry| entry.row.get(name)?.as_str()).map(str::to_owned);
    let name = key.to_string();
    let kept = api.control.status().await.ok();
    let kept = kept.and_then(|report| report.sessions.into_iter().find(|session| session.session == name));
    let word = match (&connection, entry) {
        (Some(connection), _) => old_word(connection),
        (None, Some(_)) => "disconnected",
        (None, None) => "not_found",
    };
    let (user_id, session_id) = (key.user().to_owned(), key.session().to_owned());
    let connected = word == "connected";
    let connecting = matches!(word, "initializing" | "connecting" | "reconnecting" | "qr_generated");
    let missing = connection.is_none();
    let now = connection.unwrap_or_else(|| Connection::new(Standing::Stopped, Timestamp::UNIX_EPOCH));
    StatusView {
        success: true,
        connected,
        connecting,
        qr_code: now.qr.as_ref().filter(|_| word == "qr_generated").map(|qr| qr.code.clone()),
        session_id: session_id.clone(),
        session_name: column("session_name"),
        is_default: entry.is_some_and(|entry| entry.is_default),
        session: SessionView { session_id: session_id.clone(), user_id: user_id.clone(), status: word },
        data: DataView { status: word, connected, session_id, user_id },
        connection_type: column("connection_type").unwrap_or_else(|| "mobile".to_owned()),
        message: missing.then_some("No active connection found"),
        state: now.state,
        me: now.me,
        qr: now.qr,
        pairing_code: now.pairing_code,
        passkey: now.passkey,
        failure: now.failure,
        since: (!missing).then_some(now.since),
        next_try_at: now.next_try_at,
        persistence: kept.map(Persistence::from),
    }
}

/// The old service's word for it.
pub fn old_word(connection: &Connection) -> &'static str {
    let logged_out =
        connection.failure.as_ref().is_some_and(|failure| failure.code == FailureCode::LoggedOut);
    match connection.state {
        Standing::Stopped | Standing::Failed if logged_out => "logged_out",
        Standing::Stopped => "disconnected",
        Standing::Failed => "error",
        Standing::Starting if connection.failure.is_some() || connection.next_try_at.is_some() => {
            "reconnecting"
        }
        Standing::Starting if connection.me.is_none() => "initializing",
        Standing::Starting | Standing::PasskeyRequired | Standing::PasskeyConfirmationRequired => {
            "connecting"
        }
        Standing::ScanQrCode => "qr_generated",
        Standing::Working => "connected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_has_a_word_that_old_clients_know() {
        let connection = |state, failure: Option<FailureCode>, linked: bool| Connection {
            state,
            since: Timestamp::UNIX_EPOCH,
            me: linked.then(|| Me { id: "1:2@s.whatsapp.net".to_owned(), lid: None, push_name: None }),
            qr: None,
            pairing_code: None,
            passkey: None,
            failure: failure.map(|code| port::Failure { code, message: String::new() }),
            next_try_at: None,
        };
        for (state, failure, linked, word) in [
            (Standing::Stopped, None, true, "disconnected"),
            (Standing::Stopped, Some(FailureCode::LoggedOut), false, "logged_out"),
            (Standing::Starting, None, false, "initializing"),
            (Standing::Starting, None, true, "connecting"),
            (Standing::Starting, Some(FailureCode::Unreachable), true, "reconnecting"),
            (Standing::ScanQrCode, None, false, "qr_generated"),
            (Standing::PasskeyRequired, None, false, "connecting"),
            (Standing::PasskeyConfirmationRequired, None, false, "connecting"),
            (Standing::Working, None, true, "connected"),
            (Standing::Failed, Some(FailureCode::LoggedOut), false, "logged_out"),
            (Standing::Failed, Some(FailureCode::QrExpired), false, "error"),
        ] {
            assert_eq!(old_word(&connection(state, failure, linked)), word, "{state:?} {failure:?} {linked}");
        }
    }
}
