//! How much of a bucket a token is for: all of it, one user, one session.

use std::fmt;

use serde_json::Value;

use super::{HISTORY, SessionKey, check_id};

/// The role that tokens are for; the SQL makes it.
pub const ROLE: &str = "session_sidecar";
/// The claim that narrows a token to a user.
pub const USER_CLAIM: &str = "sidecar_user";
/// The claim that, with [`USER_CLAIM`], narrows it to a session.
pub const SESSION_CLAIM: &str = "sidecar_session";

/// What a token of the role [`ROLE`] is for. The same rule stands in the SQL, as `session_sidecar_prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All sessions of the bucket.
    Bucket,
    /// All sessions of a user.
    User(String),
    /// One session.
    Session(SessionKey),
}

impl Scope {
    /// What these claims are for; none: nothing, because one of them is no id, or a session is named without its user.
    #[must_use]
    pub fn of_claims(user: Option<&Value>, session: Option<&Value>) -> Option<Self> {
        match (user, session) {
            (None, None) => Some(Self::Bucket),
            (None, Some(_)) => None,
            (Some(user), None) => {
                let user = user.as_str().filter(|user| check_id("user", user).is_ok())?;
                Some(Self::User(user.to_owned()))
            }
            (Some(user), Some(session)) => {
                SessionKey::new(user.as_str()?, session.as_str()?).ok().map(Self::Session)
            }
        }
    }

    /// The folder of mirrors that it opens, with its `/`; below [`HISTORY`] it is the same. Empty: all of the bucket.
    #[must_use]
    pub fn folder(&self) -> String {
        match self {
            Self::Bucket => String::new(),
            Self::User(user) => format!("{user}/"),
            Self::Session(key) => key.mirror_prefix(),
        }
    }

    /// Whether it is for an object.
    #[must_use]
    pub fn reaches(&self, key: &str) -> bool {
        let history = key.strip_prefix(HISTORY).and_then(|rest| rest.strip_prefix('/'));
        let folder = self.folder();
        key.starts_with(&folder) || history.is_some_and(|rest| rest.starts_with(&folder))
    }

    /// Whether a list below `prefix` can show anything that it is for.
    #[must_use]
    pub fn looks_into(&self, prefix: &str) -> bool {
        let folder = self.folder();
        self.reaches(prefix)
            || folder.starts_with(prefix)
            || format!("{HISTORY}/{folder}").starts_with(prefix)
    }

    /// Whether it is for a session.
    #[must_use]
    pub fn covers(&self, user: &str, session: &str) -> bool {
        match self {
            Self::Bucket => true,
            Self::User(only) => only == user,
            Self::Session(only) => (only.user(), only.session()) == (user, session),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket => f.write_str("all sessions of the bucket"),
            Self::User(user) => write!(f, "the sessions of user {user}"),
            Self::Session(key) => write!(f, "session {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user() -> Scope {
        Scope::User("a".to_owned())
    }

    fn session() -> Scope {
        Scope::Session("a/s".parse().unwrap())
    }

    #[test]
    fn claims_that_are_no_ids_open_nothing() {
        let of = |user: Value, session: Value| {
            let given = |value: Value| (value != json!("-")).then_some(value);
            Scope::of_claims(given(user).as_ref(), given(session).as_ref())
        };
        assert_eq!(of(json!("-"), json!("-")), Some(Scope::Bucket));
        assert_eq!(of(json!("a"), json!("-")), Some(user()));
        assert_eq!(of(json!("a"), json!("s")), Some(session()));
        for bad in [json!(""), json!(".history"), json!("a/s"), json!("%"), json!(7), Value::Null] {
            assert_eq!(of(bad.clone(), json!("-")), None, "{bad}");
            assert_eq!(of(json!("a"), bad.clone()), None, "{bad}");
        }
        assert_eq!(of(json!("-"), json!("s")), None, "whose session?");
    }

    #[test]
    fn a_token_for_a_user_is_for_no_user_whose_id_begins_alike() {
        for key in
            ["a/s/creds.json", ".history/a/s/x", ".history/a/s/.claim-1", "a/t/x", ".history/a/.doctor-1/x"]
        {
            assert!(user().reaches(key), "{key}");
        }
        for key in [
            "ab/s/creds.json",
            ".history/ab/s/x",
            "a",
            ".history/a",
            ".History/a/s/x",
            "/a/s/x",
            "b/a/s/x",
            ".history//a/x",
        ] {
            assert!(!user().reaches(key) && !session().reaches(key), "{key}");
        }
        assert!(session().reaches("a/s/x") && session().reaches(".history/a/s/x"));
        for key in ["a/t/x", "a/st/x", ".history/a/st/x", ".history/a/x"] {
            assert!(!session().reaches(key), "{key}");
        }
        assert!(Scope::Bucket.reaches("anything"));
        assert!(user().covers("a", "t") && !user().covers("ab", "s"));
        assert!(session().covers("a", "s") && !session().covers("a", "st") && Scope::Bucket.covers("x", "y"));
    }

    #[test]
    fn lists_above_what_it_is_for_show_the_way_there() {
        for prefix in ["", ".history/", ".history/a/", "a/", "a/s/", ".history/a/s/0000"] {
            assert!(user().looks_into(prefix) && session().looks_into(prefix), "{prefix}");
        }
        for prefix in ["b/", ".history/b/", "ab/", ".history/ab/", ".doctor"] {
            assert!(!user().looks_into(prefix) && !session().looks_into(prefix), "{prefix}");
        }
        assert!(!session().looks_into("a/t/") && user().looks_into("a/t/"));
    }
}
