//! How the server says no: the true status is a string in the body, and HTTP nearly always says 400.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::auth::BadToken;

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchKey,
    NoSuchBucket,
    /// The bucket that a move or copy goes to.
    NoRelated,
    /// `KeyAlreadyExists`, `BucketAlreadyExists` or, of a move, `ResourceAlreadyExists`.
    Exists(&'static str),
    NotEmpty,
    InvalidKey(String),
    BucketName,
    MimeType(String),
    TooLarge,
    /// A JSON body over 1 MiB.
    BodyTooLarge,
    Range,
    NoContent,
    /// What does not fit the route's schema.
    Schema(String),
    Cursor,
    Denied(&'static str),
    /// The `WITH CHECK` of a row-level security policy.
    RowLevelSecurity,
    /// One of the few real 403.
    InvalidRole,
    /// With the code of Postgres.
    Database(&'static str),
    Internal,
    DatabaseTimeout,
    /// With `Retry-After`; the real server sends none.
    SlowDown(Option<Duration>),
    LockTimeout,
    Locked,
    NoRoute(String),
    BadUrl(String),
    HeaderSize,
}

/// What is said: `statusCode`, `error`, `code` and `message` of the body.
type Said = (u16, &'static str, &'static str, String);

impl Refusal {
    pub(super) fn schema(message: impl Into<String>) -> Self {
        Self::Schema(message.into())
    }

    /// What the body says.
    pub(super) fn said(&self) -> Said {
        let say = |status, error, code, message: &str| (status, error, code, message.to_owned());
        let invalid = |status, message| say(status, "InvalidRequest", "InvalidRequest", message);
        let denied = |message| say(403, "Unauthorized", "AccessDenied", message);
        match self {
            Self::NoSuchKey => say(404, "not_found", "NoSuchKey", "Object not found"),
            Self::NoSuchBucket => say(404, "Bucket not found", "NoSuchBucket", "Bucket not found"),
            Self::NoRelated => invalid(404, "The related resource does not exist"),
            Self::Exists(code) => say(409, "Duplicate", code, "The resource already exists"),
            Self::NotEmpty => {
                let message = "The bucket you tried to delete is not empty";
                say(409, "ResourceNotEmpty", "ResourceNotEmpty", message)
            }
            Self::InvalidKey(key) => say(400, "InvalidKey", "InvalidKey", &format!("Invalid key: {key}")),
            Self::BucketName => say(400, "Invalid Input", "InvalidBucketName", "Bucket name invalid"),
            Self::MimeType(mime) => {
                let message = format!("mime type {mime} is not supported");
                say(415, "invalid_mime_type", "InvalidMimeType", &message)
            }
            Self::TooLarge => say(
                413,
                "Payload too large",
                "EntityTooLarge",
                "The object exceeded the maximum allowed size",
            ),
            Self::BodyTooLarge => say(413, "FastifyError", "EntityTooLarge", "Request body is too large"),
            Self::Range => say(416, "invalid_range", "InvalidRange", "invalid range provided"),
            Self::NoContent => invalid(400, "No content provided"),
            Self::Schema(message) => say(400, "Error", "InvalidRequest", message),
            Self::Cursor => {
                say(400, "InvalidParameter", "InvalidParameter", "Invalid Parameter continuation token")
            }
            Self::Denied(message) => denied(message),
            Self::RowLevelSecurity => denied("new row violates row-level security policy"),
            Self::InvalidRole => denied("Access denied: Invalid role"),
            Self::Database(pg) => {
                say(500, "DatabaseError", "DatabaseError", &format!("database error, code: {pg}"))
            }
            Self::Internal => say(500, "InternalError", "InternalError", "Internal Server Error"),
            Self::DatabaseTimeout => {
                let message = "The connection to the database timed out";
                say(544, "DatabaseTimeout", "DatabaseTimeout", message)
            }
            Self::SlowDown(_) => {
                let message = "Too many connections issued to the database";
                say(429, "too_many_connections", "SlowDown", message)
            }
            Self::LockTimeout => say(503, "acquiring_lock_timeout", "LockTimeout", "acquiring lock timeout"),
            Self::Locked => say(423, "ResourceLocked", "ResourceLocked", "The resource is locked"),
            Self::NoRoute(route) => {
                say(404, "Not Found", "InvalidRequest", &format!("Route {route} not found"))
            }
            Self::BadUrl(path) => {
                let message = format!("'{path}' is not a valid url component");
                say(400, "Bad Request", "FST_ERR_BAD_URL", &message)
            }
            Self::HeaderSize => {
                let message = "Exceeded maximum allowed HTTP header size";
                say(431, "Request Header Fields Too Large", "", message)
            }
        }
    }

    /// The HTTP status: 400, but for a few.
    fn http(&self) -> u16 {
        match self {
            Self::Range
            | Self::BodyTooLarge
            | Self::InvalidRole
            | Self::Database(_)
            | Self::Internal
            | Self::DatabaseTimeout
            | Self::SlowDown(_)
            | Self::NoRoute(_)
            | Self::HeaderSize => self.said().0,
            _ => 400,
        }
    }
}

impl From<BadToken> for Refusal {
    fn from(bad: BadToken) -> Self {
        Self::Denied(match bad {
            BadToken::Expired => "\"exp\" claim timestamp check failed",
            BadToken::Signature => "signature verification failed",
            BadToken::Malformed => "Invalid Compact JWS",
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error, code, message) = self.said();
        // Node and the router answer in another shape: a number, and a type without a charset.
        let node = matches!(self, Self::BadUrl(_) | Self::HeaderSize);
        let mut body = json!({ "error": error, "message": message });
        body["statusCode"] = if node { status.into() } else { status.to_string().into() };
        if !code.is_empty() {
            body["code"] = code.into();
        }
        let mut response = Json(body).into_response();
        *response.status_mut() = StatusCode::from_u16(self.http()).expect("all our statuses are in range");
        if !node && !matches!(self, Self::NoRoute(_)) {
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, json);
        }
        if let Self::SlowDown(Some(after)) = self {
            response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}
