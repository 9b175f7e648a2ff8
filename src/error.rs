//! One error for people and machines: a stable code, the exit code it maps to, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, as a stable word; each maps to one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A flag or variable is missing or malformed.
    Usage,
    /// A user or session id that cannot be a key.
    BadSessionId,
    /// The root is not a directory, cannot be read or cannot be written.
    BadRoot,
    /// Another process holds the root.
    RootLocked,
    /// The disk is full.
    DiskFull,
    /// Another process listens at the address.
    AddressInUse,
    /// The URL answers, but not as Supabase Storage does.
    NotSupabase,
    /// The project lacks our tables and functions.
    SchemaMissing,
    /// The bucket does not exist.
    BucketMissing,
    /// The bucket is public: everybody could read the keys of the account.
    BucketPublic,
    /// The bucket refuses what we must store (its size limit or its types).
    BucketRefuses,
    /// Local tree and history differ and only a person can say which one counts.
    Conflict,
    /// Something is held that needs a decision.
    Held,
    /// No session where one was required.
    NoSession,
    /// Supabase does not answer.
    Unreachable,
    /// The key is wrong, expired or of the wrong kind.
    Unauthorized,
    /// An object of the history is damaged or missing.
    Damaged,
    /// A known head is above everything that is listed.
    HeadMissing,
    /// Another process took the session over.
    LeaseLost,
    /// Another process holds the session.
    LeaseHeld,
    /// Changes could not be flushed before the end.
    NotFlushed,
    /// The named session, commit or time does not exist.
    NotFound,
    /// The session's directory holds the paired account of another WhatsApp library.
    OtherEngine,
    /// The session has no connection to WhatsApp that could do this now.
    NotConnected,
    /// WhatsApp refused what was asked.
    Refused,
    /// The history is encrypted, or is to be, and there is nothing to open it with.
    NoIdentity,
    /// The history is encrypted for others.
    WrongIdentity,
    /// There is plaintext where the history is encrypted.
    Plaintext,
    /// What should not happen: a bug or a broken machine.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 29] = [
        Self::Usage,
        Self::BadSessionId,
        Self::BadRoot,
        Self::RootLocked,
        Self::DiskFull,
        Self::AddressInUse,
        Self::NotSupabase,
        Self::SchemaMissing,
        Self::BucketMissing,
        Self::BucketPublic,
        Self::BucketRefuses,
        Self::Conflict,
        Self::Held,
        Self::NoSession,
        Self::Unreachable,
        Self::Unauthorized,
        Self::Damaged,
        Self::HeadMissing,
        Self::LeaseLost,
        Self::LeaseHeld,
        Self::NotFlushed,
        Self::NotFound,
        Self::OtherEngine,
        Self::NotConnected,
        Self::Refused,
        Self::NoIdentity,
        Self::WrongIdentity,
        Self::Plaintext,
        Self::Internal,
    ];

    /// The code of a word; of a word that a newer version wrote, none.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// The word that appears in `--json` output and in logs; a contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::BadSessionId => "bad_session_id",
            Self::BadRoot => "bad_root",
            Self::RootLocked => "root_locked",
            Self::DiskFull => "disk_full",
            Self::AddressInUse => "address_in_use",
            Self::NotSupabase => "not_supabase",
            Self::SchemaMissing => "schema_missing",
            Self::BucketMissing => "bucket_missing",
            Self::BucketPublic => "bucket_public",
            Self::BucketRefuses => "bucket_refuses",
            Self::Conflict => "conflict",
            Self::Held => "held",
            Self::NoSession => "no_session",
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Damaged => "damaged",
            Self::HeadMissing => "head_missing",
            Self::LeaseLost => "lease_lost",
            Self::LeaseHeld => "lease_held",
            Self::NotFlushed => "not_flushed",
            Self::NotFound => "not_found",
            Self::OtherEngine => "other_engine",
            Self::NotConnected => "not_connected",
            Self::Refused => "refused",
            Self::NoIdentity => "no_identity",
            Self::WrongIdentity => "wrong_identity",
            Self::Plaintext => "plaintext",
            Self::Internal => "internal",
        }
    }

    /// The exit code of the process, a contract: see `--help`.
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Usage
            | Self::BadSessionId
            | Self::BadRoot
            | Self::RootLocked
            | Self::DiskFull
            | Self::AddressInUse
            | Self::NotSupabase
            | Self::SchemaMissing
            | Self::BucketMissing
            | Self::BucketPublic
            | Self::BucketRefuses
            | Self::NoIdentity
            | Self::WrongIdentity
            | Self::Plaintext
            | Self::NotFound => 2,
            Self::Conflict | Self::Held | Self::NoSession | Self::OtherEngine => 3,
            Self::Unreachable => 4,
            Self::Unauthorized => 5,
            Self::Damaged | Self::HeadMissing => 6,
            Self::LeaseLost | Self::LeaseHeld => 7,
            Self::NotFlushed | Self::NotConnected | Self::Refused | Self::Internal => 8,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An error as a user meets it: one line that says what is wrong and what to do.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything above the store and the disk.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this code. The message is one line and holds no secret.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// The same with the error that caused it; its text is appended to the line.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O error at a path, with the code that its kind calls for.
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let code = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::DiskFull,
            std::io::ErrorKind::ReadOnlyFilesystem
            | std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::NotADirectory => Code::BadRoot,
            _ => Code::Internal,
        };
        Self::new(code, what.to_string()).because(source)
    }

    /// The stable word.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error as machines read it, in `--json` output and on the control socket: `{"error":{"code","message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The only field, so that a result can be told from an error.
    pub error: ErrorBody,
}

/// The inside of an [`ErrorReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The stable word, see [`Code::as_str`].
    pub code: String,
    /// One line for people.
    pub message: String,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self { error: ErrorBody { code: error.code.as_str().to_owned(), message: error.to_string() } }
    }
}

impl From<ErrorReport> for Error {
    fn from(report: ErrorReport) -> Self {
        Self::new(Code::from_word(&report.error.code).unwrap_or(Code::Internal), report.error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own_and_comes_back_from_it() {
        for code in Code::ALL {
            assert_eq!(Code::from_word(code.as_str()), Some(code));
            assert!((2..=8).contains(&code.exit()));
        }
    }

    #[test]
    fn an_error_travels_with_its_code_and_its_cause() {
        let error = Error::new(Code::Held, "held").because("by a test");
        let back = Error::from(ErrorReport::from(&error));
        assert_eq!((back.code(), back.to_string()), (Code::Held, "held: by a test".to_owned()));
    }
}
