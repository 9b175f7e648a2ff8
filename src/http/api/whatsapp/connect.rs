//! Connections begin and end, and send.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::api::call::Call;
use crate::http::api::problem::Problem;
use crate::http::api::sessions::{Done, gone_is_done};
use crate::http::api::{Shared, detached};
use crate::runner::port::Connection;
use crate::session::SessionKey;
use crate::sync::report::BotFacts;

/// Bytes of a name.
const NAME_LIMIT: usize = 128;

/// Which session to connect, and how it is called.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectBody {
    /// The session, where neither path nor query name one; a new one, where it is new.
    session_id: Option<String>,
    /// A name for people.
    session_name: Option<String>,
    /// Whether it is meant where a call names no session.
    is_default: Option<bool>,
}

/// A connection is on its way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectView {
    /// `true`
    success: bool,
    /// The session.
    session_id: String,
    /// For people.
    message: &'static str,
    /// Where it stands.
    state: crate::runner::port::State,
}

/// `POST /api/whatsapp/connect/{user}`
pub async fn connect(State(api): State<Shared>, call: Call) -> Result<Json<ConnectView>, Problem> {
    let body: ConnectBody = call.body()?;
    let name = body.session_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    if name.as_ref().is_some_and(|name| name.len() > NAME_LIMIT || name.chars().any(char::is_control)) {
        return Err(Problem::bad_request("`sessionName` is not one line of at most 128 bytes"));
    }
    let key = call.session(&api).await?;
    let connection = begin(&api, &key).await?;
    if name.is_some() || body.is_default.is_some() {
        let facts = BotFacts { name, is_default: body.is_default, ..BotFacts::default() };
        if let Err(error) = api.control.note(&key, facts).await {
            tracing::warn!(%error, "the name of a session could not be noted");
        }
        api.directory.forget(key.user());
    }
    Ok(Json(ConnectView {
        success: true,
        session_id: key.session().to_owned(),
        message: "WhatsApp connection initiated",
        state: connection.state,
    }))
}

/// Connects a session that the user may have.
pub async fn begin(api: &Shared, key: &SessionKey) -> Result<Connection, Problem> {
    let whatsapp = api.whatsapp()?;
    let turn = api.admit(key).await?;
    let asked = key.clone();
    let connection = detached(async move {
        let connection = whatsapp.connect(&asked).await;
        drop(turn);
        connection
    })
    .await?;
    api.directory.forget(key.user());
    Ok(connection?)
}

/// `POST /api/whatsapp/disconnect/{user}`
pub async fn disconnect(State(api): State<Shared>, call: Call) -> Result<Json<Done>, Problem> {
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let asked = key.clone();
    let result = detached(async move { whatsapp.disconnect(&asked).await }).await?;
    api.directory.forget(key.user());
    gone_is_done(result)?;
    Ok(Done::to(&key, "WhatsApp disconnected successfully"))
}

/// `POST /api/whatsapp/clean-session/{user}`
pub async fn clean(State(api): State<Shared>, call: Call) -> Result<Json<Done>, Problem> {
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let asked = key.clone();
    let result = detached(async move { whatsapp.delete(&asked, true, false).await }).await?;
    api.directory.forget(key.user());
    gone_is_done(result)?;
    Ok(Done::to(&key, "Session cleaned successfully"))
}

/// Which phone a code is for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairingBody {
    /// The number with its country's prefix; signs between the digits do not matter.
    #[schema(example = "+55 11 99999-0000")]
    phone_number: String,
}

/// A code to type into the phone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairingView {
    /// `true`
    success: bool,
    /// `ABCD-EFGH`
    pairing_code: String,
    /// When it is void.
    expires_at: Timestamp,
    /// The session.
    session_id: String,
}

/// `POST /api/whatsapp/pairing-code/{user}`
pub async fn pairing_code(State(api): State<Shared>, call: Call) -> Result<Json<PairingView>, Problem> {
    let body: PairingBody = call.body()?;
    let phone: String = body.phone_number.chars().filter(|c| !" +-().\t".contains(*c)).collect();
    // E.164; the number itself is not repeated, an answer may be logged.
    if !(7..=15).contains(&phone.len()) || !phone.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::bad_request(
            "`phoneNumber` is not a phone number: give 7 to 15 digits with the country's prefix",
        ));
    }
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let turn = api.admit(&key).await?;
    let asked = key.clone();
    let code = detached(async move {
        let code = whatsapp.pairing_code(&asked, &phone).await;
        drop(turn);
        code
    })
    .await?;
    api.directory.forget(key.user());
    let code = code?;
    Ok(Json(PairingView {
        success: true,
        pairing_code: code.code,
        expires_at: code.expires_at,
        session_id: key.session().to_owned(),
    }))
}

/// A text, and to whom.
#[derive(Deserialize, ToSchema)]
pub struct SendBody {
    /// A phone number or a JID.
    to: String,
    /// The text.
    text: String,
}

/// A text was sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendView {
    /// `true`
    success: bool,
    /// Its id in the chat.
    message_id: String,
    /// The session.
    session_id: String,
}

/// `POST /api/whatsapp/send/{user}`
pub async fn send(State(api): State<Shared>, call: Call) -> Result<Json<SendView>, Problem> {
    let body: SendBody = call.body()?;
    if body.to.trim().is_empty() || body.text.is_empty() {
        return Err(Problem::bad_request("`to` or `text` is empty"));
    }
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let asked = key.clone();
    let sent = detached(async move { whatsapp.send(&asked, body.to.trim(), &body.text).await }).await?;
    Ok(Json(SendView { success: true, message_id: sent?, session_id: key.session().to_owned() }))
}
