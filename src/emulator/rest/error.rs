//! How `PostgREST` says no: the true HTTP status, and four fields (its `docs/references/errors`).

use std::io;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::emulator::auth::{BadToken, Who};

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct PgError {
    /// The HTTP status.
    pub status: u16,
    /// The SQLSTATE, or `PostgREST`'s own code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// More of it.
    pub details: Option<String>,
}

impl PgError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None }
    }

    pub(super) fn details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// `raise sqlstate 'PT400'`: a request that our functions do not understand.
    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(400, "PT400", message)
    }

    /// What `who` may not do: 401 for nobody, 403 for somebody.
    pub(super) fn denied(who: &Who, message: impl Into<String>) -> Self {
        Self::new(if *who == Who::Anon { 401 } else { 403 }, "42501", message)
    }

    pub(super) fn no_function(name: &str, arguments: &str) -> Self {
        let message = format!("Could not find the function public.{name}{arguments} in the schema cache");
        let details = format!(
            "Searched for the function public.{name}{arguments}, but no matches were found in the schema cache."
        );
        Self::new(404, "PGRST202", message).details(details)
    }

    pub(super) fn no_table(name: &str) -> Self {
        Self::new(404, "PGRST205", format!("Could not find the table 'public.{name}' in the schema cache"))
    }

    pub(super) fn no_database() -> Self {
        let message =
            "Could not connect with the database due to an internal error. Retrying the connection.";
        Self::new(503, "PGRST000", message)
    }
}

impl From<BadToken> for PgError {
    fn from(bad: BadToken) -> Self {
        match bad {
            BadToken::Expired => Self::new(401, "PGRST303", "JWT expired"),
            BadToken::Signature => Self::new(401, "PGRST301", "No suitable key or wrong key type"),
            BadToken::Malformed => Self::new(401, "PGRST301", "JWT could not be decoded"),
        }
    }
}

impl From<io::Error> for PgError {
    /// The emulator's own directory.
    fn from(error: io::Error) -> Self {
        Self::new(500, "58030", error.to_string())
    }
}

impl IntoResponse for PgError {
    fn into_response(self) -> Response {
        let mut body = json!({ "message": self.message, "details": self.details, "hint": null });
        // The gateway in front knows no codes.
        if !self.code.is_empty() {
            body["code"] = self.code.into();
        }
        let status = StatusCode::from_u16(self.status).expect("all our statuses are in range");
        (status, Json(body)).into_response()
    }
}
