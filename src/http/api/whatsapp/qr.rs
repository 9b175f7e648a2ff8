//! The QR code that waits for a phone.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::connect::begin;
use super::image::{Format, Image};
use crate::http::api::call::Call;
use crate::http::api::problem::Problem;
use crate::http::api::{NO_CODE, Shared};
use crate::runner::port::{Connection, Event, Qr, State as Standing};

/// Seconds after which to look again.
const AGAIN: u64 = 2;
/// How long a connection that was just asked for gets to show a code.
const WAIT: Duration = Duration::from_secs(15);

/// The QR code that waits for a phone, or that there is none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QrView {
    /// Whether there is one.
    success: bool,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    qr_code: Option<String>,
    /// Its image.
    #[serde(rename = "qrCodeDataURL", skip_serializing_if = "Option::is_none")]
    qr_code_data_url: Option<String>,
    /// As the old service answered another way.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<QrData>,
    /// When the next one replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// The session.
    session_id: String,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// As the old service answered another way.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QrData {
    /// Its text.
    qr_code: String,
}

/// `GET /api/whatsapp/qr/{user}`
pub async fn show(State(api): State<Shared>, call: Call) -> Result<Response, Problem> {
    let format = if let Some(name) = call.query("format") {
        Format::named(name).ok_or_else(Problem::bad_format)?
    } else {
        let accept = call.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Format::accepted(accept).ok_or_else(Problem::not_acceptable)?
    };
    let key = call.session(&api).await?;
    let connection = api.whatsapp()?.connection(&key);
    let Some(qr) = connection.as_ref().and_then(|connection| connection.qr.as_ref()) else {
        return match format {
            Format::Json => Ok(none(key.session(), NO_CODE.to_owned())),
            _ => Err(Problem::no_code().after(AGAIN)),
        };
    };
    let image = || Image::of(&qr.code).ok_or_else(Problem::internal);
    let mut response = match format {
        Format::Json => there(key.session(), qr)?,
        Format::Png => as_media("image/png", image()?.png()),
        Format::Svg => as_media("image/svg+xml", image()?.svg().into_bytes()),
        Format::Text => as_media("text/plain; charset=utf-8", image()?.text().into_bytes()),
        Format::Raw => as_media("text/plain; charset=utf-8", qr.code.clone().into_bytes()),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn as_media(media: &'static str, bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, media)], bytes).into_response()
}

fn there(session: &str, qr: &Qr) -> Result<Response, Problem> {
    let image = Image::of(&qr.code).ok_or_else(Problem::internal)?;
    Ok(Json(QrView {
        success: true,
        qr_code: Some(qr.code.clone()),
        qr_code_data_url: Some(image.data_url()),
        data: Some(QrData { qr_code: qr.code.clone() }),
        expires_at: Some(qr.expires_at),
        session_id: session.to_owned(),
        message: None,
    })
    .into_response())
}

/// Old clients take 200 with `success: false` for "ask again", and anything else for a failure.
fn none(session: &str, message: String) -> Response {
    let view = QrView {
        success: false,
        qr_code: None,
        qr_code_data_url: None,
        data: None,
        expires_at: None,
        session_id: session.to_owned(),
        message: Some(message),
    };
    ([(RETRY_AFTER, HeaderValue::from(AGAIN))], Json(view)).into_response()
}

/// `GET|POST /api/whatsapp/generate-qr/{user}`
pub async fn generate(State(api): State<Shared>, call: Call) -> Result<Response, Problem> {
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    // Before it is asked for: what happens in between is not missed.
    let mut events = whatsapp.events();
    let mut connection = begin(&api, &key).await?;
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        if let Some(answer) = decided(key.session(), &connection) {
            return answer;
        }
        connection = match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Ok(Event::Connection { session, connection })) if session == key => *connection,
            Ok(Ok(_)) => continue,
            Ok(Err(RecvError::Lagged(_))) => match whatsapp.connection(&key) {
                Some(connection) => connection,
                None => return Ok(none(key.session(), NO_CODE.to_owned())),
            },
            Ok(Err(RecvError::Closed)) | Err(_) => return Ok(none(key.session(), NO_CODE.to_owned())),
        };
    }
}

/// What to answer for a connection that needs no more waiting.
fn decided(session: &str, connection: &Connection) -> Option<Result<Response, Problem>> {
    let instead = |why: &str| Some(Ok(none(session, why.to_owned())));
    match (&connection.qr, connection.state) {
        (Some(qr), _) => Some(there(session, qr)),
        (None, Standing::Working) => instead("The session is linked already: no QR code is needed"),
        (None, Standing::PasskeyRequired | Standing::PasskeyConfirmationRequired) => {
            instead("WhatsApp asks for a passkey: see the status")
        }
        (None, Standing::Failed) => {
            instead(connection.failure.as_ref().map_or(NO_CODE, |failure| failure.message.as_str()))
        }
        // A code that was typed needs none that is scanned.
        (None, Standing::ScanQrCode) if connection.pairing_code.is_some() => {
            instead("A pairing code waits instead")
        }
        (None, Standing::ScanQrCode | Standing::Starting | Standing::Stopped) => None,
    }
}
