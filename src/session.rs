//! Sessions: their ids, their paths on disk, their keys in the bucket.

mod scope;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Code, Error};
pub use scope::{ROLE, SESSION_CLAIM, Scope, USER_CLAIM};

/// The state directory below the root; never synced, refused in commits.
pub const STATE_DIR: &str = ".session-sidecar";
/// What `mkfs` leaves at a mount point; never part of a tree.
pub const LOST_AND_FOUND: &str = "lost+found";
/// The folder of the bucket that holds all history; outside every folder that per-user policies reach.
pub const HISTORY: &str = ".history";

/// Bytes of an id at most.
pub const ID_BYTES: usize = 128;

/// A session: the unit of commit, lease and restore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    user: String,
    session: String,
}

impl SessionKey {
    /// Checks both ids.
    ///
    /// # Errors
    /// [`Code::BadSessionId`] when one is empty, longer than 128 bytes, starts with `.`, or holds
    /// anything but `A-Z a-z 0-9 _ - . @ + =`.
    pub fn new(user: impl Into<String>, session: impl Into<String>) -> Result<Self, Error> {
        let (user, session) = (user.into(), session.into());
        check_id("user", &user)?;
        check_id("session", &session)?;
        Ok(Self { user, session })
    }

    /// The user id.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The session id.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// `.history/{user}/{session}/`
    #[must_use]
    pub fn history_prefix(&self) -> String {
        format!("{HISTORY}/{}/{}/", self.user, self.session)
    }

    /// `{user}/{session}/`
    #[must_use]
    pub fn mirror_prefix(&self) -> String {
        format!("{}/{}/", self.user, self.session)
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.session)
    }
}

impl FromStr for SessionKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('/') {
            Some((user, session)) => Self::new(user, session),
            None => Err(Error::new(
                Code::BadSessionId,
                format!("`{}` is not USER/SESSION: give both ids with one `/` between", text.escape_debug()),
            )),
        }
    }
}

/// Checks one id by the rule of [`SessionKey::new`]; `what` names it in the error.
pub fn check_id(what: &str, id: &str) -> Result<(), Error> {
    let bad = |why: &str| {
        let shown: String = id.chars().take(40).collect();
        Err(Error::new(
            Code::BadSessionId,
            format!(
                "{what} id `{}` {why}: an id has 1 to 128 of A-Z a-z 0-9 _ - . @ + = and does not start with a dot",
                shown.escape_debug()
            ),
        ))
    };
    if id.is_empty() {
        return bad("is empty");
    }
    if id.len() > ID_BYTES {
        return bad("is too long");
    }
    if id.starts_with('.') {
        return bad("starts with a dot");
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@+=".contains(&b)) {
        return bad("holds a character that is not allowed");
    }
    Ok(())
}

/// How sessions lie below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// `{root}/{user}/{session}/`
    Many,
    /// `{root}/{session}/`, all of one user
    User(String),
    /// the root itself is the session
    Single(SessionKey),
}

impl Layout {
    /// The directory of a session.
    #[must_use]
    pub fn dir(&self, root: &Path, key: &SessionKey) -> PathBuf {
        match self {
            Self::Many => root.join(key.user()).join(key.session()),
            Self::User(_) => root.join(key.session()),
            Self::Single(_) => root.to_path_buf(),
        }
    }

    /// How many directories lie between the root and a session.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Many => 2,
            Self::User(_) => 1,
            Self::Single(_) => 0,
        }
    }

    /// The session that a path below the root belongs to, with the path inside it; none for what lies
    /// outside every session (the state directory, loose files, malformed ids).
    #[must_use]
    pub fn locate(&self, relative: &Path) -> Option<(SessionKey, PathBuf)> {
        let mut parts = relative.components();
        let mut next = || parts.next()?.as_os_str().to_str().map(str::to_owned);
        let key = match self {
            Self::Many => SessionKey::new(next()?, next()?).ok()?,
            Self::User(user) => SessionKey::new(user.clone(), next()?).ok()?,
            Self::Single(key) => key.clone(),
        };
        let rest = parts.as_path();
        let reserved = rest.starts_with(STATE_DIR) || rest.starts_with(LOST_AND_FOUND);
        (!reserved || *self != Self::Single(key.clone())).then(|| (key, rest.to_path_buf()))
    }

    /// Whether a session can lie below this root.
    #[must_use]
    pub fn covers(&self, key: &SessionKey) -> bool {
        match self {
            Self::Many => true,
            Self::User(user) => user == key.user(),
            Self::Single(own) => own == key,
        }
    }
}
