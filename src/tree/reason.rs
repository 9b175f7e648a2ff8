//! Why a path is kept at the head's version.

use std::fmt;

/// Why a file, or everything below a directory, is held: what is on disk is not fit to commit. (P8)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// It exists, or may exist, but cannot be read. Only `ENOENT` is absence.
    Unreadable,
    /// It moved during every try to read it.
    Changing,
    /// A `*.json` that is empty or does not parse.
    BadJson,
    /// Another file of its group is not fit, or the group is being written.
    Group,
    /// A SQLite database that somebody keeps locked.
    SqliteLocked,
    /// A SQLite database that SQLite itself finds damaged.
    SqliteDamaged,
    /// A SQLite database of another user.
    SqliteOwner,
    /// A LevelDB database that LevelDB would not open, or not with all that was in it.
    LevelDb,
    /// Its name is not UTF-8.
    NotUtf8,
    /// The paired identity of the tree would be lost.
    Identity,
    /// Too much of the tree vanished at once.
    MassDelete,
    /// It is the tree of an account that was logged out.
    LoggedOut,
}

impl Reason {
    /// The word that `status`, metrics and `--json` use; a contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Changing => "changing",
            Self::BadJson => "bad_json",
            Self::Group => "group",
            Self::SqliteLocked => "sqlite_locked",
            Self::SqliteDamaged => "sqlite_damaged",
            Self::SqliteOwner => "sqlite_owner",
            Self::LevelDb => "leveldb",
            Self::NotUtf8 => "not_utf8",
            Self::Identity => "identity",
            Self::MassDelete => "mass_delete",
            Self::LoggedOut => "logged_out",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "cannot be read",
            Self::Changing => "changes faster than it can be read",
            Self::BadJson => "is empty or not valid JSON",
            Self::Group => "belongs to files that are committed together, and one of them is not fit yet",
            Self::SqliteLocked => "is a SQLite database that another process keeps locked",
            Self::SqliteDamaged => "is a SQLite database that is damaged: SQLite's own check fails",
            Self::SqliteOwner => {
                "is a SQLite database of another user, who could not open what SQLite makes beside it: run bot and sidecar as one user"
            }
            Self::LevelDb => "is a LevelDB database that is not whole: LevelDB would not open it",
            Self::NotUtf8 => "has a name that is not UTF-8",
            Self::Identity => "would replace the paired identity",
            Self::LoggedOut => "belongs to an account that was logged out",
            Self::MassDelete => "vanished together with more than half of the tree",
        })
    }
}
