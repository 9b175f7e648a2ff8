//! What a failed call means.

use std::io;
use std::time::Duration;

use super::Op;
use crate::error::{Code, Error};

/// What a failure means; the only thing decisions look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No such object.
    NotFound,
    /// No such bucket (or no right to see it).
    NoBucket,
    /// The name is taken.
    AlreadyExists,
    /// Over the size limit.
    TooLarge,
    /// A content type that the bucket refuses.
    TypeRefused,
    /// A key that the server refuses.
    BadKey,
    /// The key (credential) is missing, wrong, expired or has no right.
    Denied,
    /// A quota is used up or the project is paused.
    Unavailable,
    /// The server does not answer, is overloaded or failed: try again.
    Transient,
    /// Too many requests: try again, slower.
    Throttled,
    /// The database is read-only: try again in minutes.
    ReadOnly,
    /// The answer is not that of Supabase Storage (a wrong URL, a proxy's page).
    Protocol,
    /// Bytes arrived that cannot be what was asked for, or could not be written down here.
    Local,
}

impl Kind {
    /// The word in metric labels and `--json` output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoBucket => "no_bucket",
            Self::AlreadyExists => "already_exists",
            Self::TooLarge => "too_large",
            Self::TypeRefused => "type_refused",
            Self::BadKey => "bad_key",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::ReadOnly => "read_only",
            Self::Protocol => "protocol",
            Self::Local => "local",
        }
    }
}

/// A failed call, by meaning.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{op}{}: {message}", key.as_deref().map(|k| format!(" {k}")).unwrap_or_default())]
pub struct StoreError {
    /// What it means.
    pub kind: Kind,
    /// The call, as a verb: `put`, `list` …
    pub op: &'static str,
    /// The object, where there is one.
    pub key: Option<String>,
    /// What the server said, shortened, without secrets.
    pub message: String,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
}

impl StoreError {
    /// A failure of `op` with this meaning.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<String>) -> Self {
        Self { kind, op, key: None, message: message.into(), retry_after: None }
    }

    /// The sink did not take what was downloaded.
    #[must_use]
    pub fn sink(error: &io::Error) -> Self {
        Self::new(Kind::Local, Op::Get.as_str(), format!("what was downloaded cannot be written: {error}"))
    }

    /// The same, at an object.
    #[must_use]
    pub fn at(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Whether the same call may succeed later: the one place that says so.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Throttled | Kind::ReadOnly)
    }

    /// Whether it says nothing about what is stored: storage as a whole cannot be asked now.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.is_retryable() || self.kind == Kind::Unavailable
    }
}

impl Kind {
    /// The stable word for people, and with it the exit code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::NoBucket => Code::BucketMissing,
            Self::TooLarge | Self::TypeRefused | Self::BadKey => Code::BucketRefuses,
            Self::Denied => Code::Unauthorized,
            Self::Unavailable | Self::Transient | Self::Throttled | Self::ReadOnly => Code::Unreachable,
            Self::Protocol => Code::NotSupabase,
            Self::AlreadyExists | Self::Local => Code::Internal,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::new(error.kind.code(), error.to_string())
    }
}
