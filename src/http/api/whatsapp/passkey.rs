//! The steps of a passkey, for accounts that WhatsApp asks for one.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::{Code, Error};
use crate::http::api::call::Call;
use crate::http::api::problem::Problem;
use crate::http::api::sessions::Done;
use crate::http::api::{Shared, detached};
use crate::runner::port::Passkey;

/// The step that waits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// `true`
    success: bool,
    /// The session.
    session_id: String,
    /// `challenge` with `options` for `navigator.credentials.get({publicKey})`, or `confirm` with the `code` that the phone
    /// shows.
    #[serde(flatten)]
    step: Passkey,
}

/// `GET /api/whatsapp/passkey/{user}`
pub async fn step(State(api): State<Shared>, call: Call) -> Result<Json<StepView>, Problem> {
    let key = call.session(&api).await?;
    let step = api.whatsapp()?.connection(&key).and_then(|connection| connection.passkey);
    let step = step.ok_or_else(|| Error::new(Code::Conflict, "no passkey is asked for now"))?;
    Ok(Json(StepView { success: true, session_id: key.session().to_owned(), step }))
}

/// What the browser's `credential.toJSON()` gave: the body itself, or below `assertion`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for /openapi.json: the body goes on as it is")]
pub struct AssertionBody {
    /// The credential.
    assertion: Option<Value>,
}

/// `POST /api/whatsapp/passkey/{user}`
pub async fn answer(State(api): State<Shared>, call: Call) -> Result<Json<Done>, Problem> {
    let mut body: Map<String, Value> = call.body()?;
    body.remove("sessionId");
    let assertion = match body.remove("assertion") {
        Some(assertion) => assertion,
        None => Value::Object(body),
    };
    if assertion.as_object().is_none_or(Map::is_empty) {
        return Err(Problem::bad_request("the body is no assertion: send what `credential.toJSON()` gave"));
    }
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let asked = key.clone();
    detached(async move { whatsapp.answer_passkey(&asked, assertion).await }).await??;
    Ok(Done::to(&key, "Passkey answered"))
}

/// `POST /api/whatsapp/passkey/{user}/{session}/confirm`
pub async fn confirm(State(api): State<Shared>, call: Call) -> Result<Json<Done>, Problem> {
    let (key, whatsapp) = (call.session(&api).await?, api.whatsapp()?);
    let asked = key.clone();
    detached(async move { whatsapp.confirm_passkey(&asked).await }).await??;
    Ok(Done::to(&key, "Passkey confirmed"))
}
