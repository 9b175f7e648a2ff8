//! What went wrong, as every answer of the API says it.

use std::any::Any;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::auth::Refusal;
use super::super::status::status_of;
use crate::error::{Code, Error};

/// An answer that says what went wrong. The code is a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<u64>,
}

/// A problem as JSON; clients of the old service read `success` and `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemView {
    /// Always `false`.
    success: bool,
    /// The HTTP status.
    #[schema(example = 409)]
    status_code: u16,
    /// A stable word.
    #[schema(example = "lease_held")]
    code: &'static str,
    /// One line for people.
    error: String,
    /// The same line.
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// The same, to be tried again after this many seconds.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The stable word.
    #[cfg(test)]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// A request that is not understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// A body that is no JSON object.
    pub fn bad_json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_json", "the body is not a JSON object: send one, or nothing")
    }

    /// A body that is too large.
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 64 KiB")
    }

    /// Headers that are too large.
    pub fn headers_too_large() -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, "headers_too_large", "the headers are larger than 32 KiB")
    }

    /// A format that there is not.
    pub fn bad_format() -> Self {
        let text = "there is no such format: png, svg, json, text or raw";
        Self::new(StatusCode::BAD_REQUEST, "bad_format", text)
    }

    /// None of the formats is wanted.
    pub fn not_acceptable() -> Self {
        let text =
            "none of the accepted types is one of image/png, image/svg+xml, application/json, text/plain";
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", text)
    }

    /// Nothing is at this path, or nothing that this caller may see.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    /// No image yet.
    pub fn no_code() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_qr_code", super::NO_CODE)
    }

    /// The path has no such method.
    pub fn method_not_allowed() -> Self {
        let text = "the path is right, the method is not: see /openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
    }

    /// It took too long.
    pub fn timeout() -> Self {
        let text =
            "it takes longer than a request may: what was begun goes on, look at the status and ask again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text)
    }

    /// What changed is not stored in time.
    pub fn not_durable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "not_durable", message).after(5)
    }

    /// Too many calls.
    pub fn rate_limited(seconds: u64) -> Self {
        let text = "too many requests: wait, then go on more slowly";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text).after(seconds)
    }

    /// Too many streams of events.
    pub fn too_many_streams() -> Self {
        let text = "too many streams of events are open: close one, or ask for the status";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", text).after(5)
    }

    /// One session more than a user may have.
    pub fn too_many_sessions(most: usize) -> Self {
        let text = format!("the user has {most} sessions, which is the most: delete one first");
        Self::new(StatusCode::CONFLICT, "too_many_sessions", text)
    }

    /// The page of a stranger.
    pub fn foreign_page() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "this API has no credential and answers this machine alone: come by localhost or an address, or set API_TOKEN",
        )
    }

    /// What should not happen.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal.as_str(), "a bug: the log says more")
    }

    /// For what a handler that panicked leaves behind; the hook has logged it.
    pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
        Self::internal().into_response()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status_of(error.code());
        if status.is_server_error() {
            tracing::warn!(code = error.code().as_str(), %error, "a call of the API failed");
        }
        Self::new(status, error.code().as_str(), error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let unauthorized =
            |text: &str| Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized.as_str(), text);
        match refusal {
            Refusal::Missing => {
                unauthorized("no credential: send `Authorization: Bearer TOKEN`, or `X-Api-Key`")
            }
            Refusal::Invalid(why) => unauthorized(why),
            Refusal::Unavailable => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "auth_unavailable",
                "the project does not answer whose token it is: try again",
            )
            .after(5),
            Refusal::NotAsked => Self::rate_limited(1),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemView {
            success: false,
            status_code: self.status.as_u16(),
            code: self.code,
            error: self.message.clone(),
            message: self.message,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
