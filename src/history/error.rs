//! What can go wrong with history, by meaning.

use std::io;

use super::name::Id;
use crate::error::{Code, Error};
use crate::store::StoreError;

/// A failure to read or write history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what its writer uploaded. It will not get better by trying again.
    #[error("commit {id} is damaged: {what}")]
    Damaged {
        /// The commit.
        id: Id,
        /// What is wrong with it.
        what: String,
    },
    /// A commit that a chain needs is not listed.
    #[error("commit {id} is missing from the history")]
    Missing {
        /// The commit that is not there.
        id: Id,
    },
    /// A listed object vanished while the chain was fetched: list again, once.
    #[error("commit {id} vanished while the history was read")]
    Gone {
        /// The commit.
        id: Id,
    },
    /// A commit is encrypted, and there is nothing to open it with.
    #[error(
        "commit {id} is encrypted and there is no identity: give --identity-file (SIDECAR_IDENTITY_FILE), or the variable SIDECAR_IDENTITY"
    )]
    NoIdentity {
        /// The commit.
        id: Id,
    },
    /// A commit is encrypted for others.
    #[error(
        "commit {id} is encrypted for another identity than those given: add the one that it was written for (--identity-file, SIDECAR_IDENTITY)"
    )]
    WrongIdentity {
        /// The commit.
        id: Id,
    },
    /// A commit is plaintext where it must not be: somebody may have put it there.
    #[error(
        "commit {id} is not encrypted, and where history is, it is not believed: see who wrote it (`history`); --accept-plaintext believes it"
    )]
    Plaintext {
        /// The commit.
        id: Id,
    },
    /// This version cannot or must not do it: a newer format, a name that is used up.
    #[error("{0}")]
    Refused(String),
    /// The bucket takes no content type that a commit could be sent as.
    #[error("{0}")]
    BucketRefuses(String),
    /// The local disk failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl HistoryError {
    /// Damage to a commit.
    pub fn damaged(id: Id, what: impl Into<String>) -> Self {
        Self::Damaged { id, what: what.into() }
    }

    /// A failure of the local disk.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Whether it says that the history itself is not whole, so that an older point may be.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::Gone { .. })
    }

    /// Whether it says nothing about what is stored: storage as a whole cannot be asked now.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }

    /// The stable word, and with it the exit code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.kind.code(),
            Self::Damaged { .. } | Self::Missing { .. } | Self::Gone { .. } => Code::Damaged,
            Self::NoIdentity { .. } => Code::NoIdentity,
            Self::WrongIdentity { .. } => Code::WrongIdentity,
            Self::Plaintext { .. } => Code::Plaintext,
            Self::Refused(_) => Code::Usage,
            Self::BucketRefuses(_) => Code::BucketRefuses,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
                _ => Code::Internal,
            },
        }
    }
}

impl From<HistoryError> for Error {
    fn from(error: HistoryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
