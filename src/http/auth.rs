//! Who may call: whoever holds the token of the API, or a user of the project with their own token.
//!
//! | module | holds |
//! |---|---|
//! | `secret` | secrets that are compared, and read again from their file |
//! | `claims` | what a user's token must say |
//! | `jwks` | the project's public keys |
//! | `users` | a user's token: by public key, by secret, or by asking the project |
//! | `local` | the only guard of an API that is open on loopback: web pages of strangers are kept out |

mod claims;
mod jwks;
mod local;
mod secret;
#[cfg(test)]
pub(super) mod testing;
mod users;

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jiff::Timestamp;

use crate::config::{ApiSettings, AuthSettings};
use crate::error::Result;
use crate::host::Host;
pub(super) use local::{from_here, origin_is_local};
use secret::SecretSource;
use users::Users;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever may do everything.
    Operator,
    /// A user, who has their own sessions and no others.
    User(String),
}

impl Caller {
    /// Whether the sessions of `user` are theirs to see.
    #[must_use]
    pub fn may_see(&self, user: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::User(own) => own == user,
        }
    }
}

/// A call that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who calls.
    pub caller: Caller,
    /// When their token ends; none: it does not.
    pub until: Option<Timestamp>,
}

impl Access {
    const OPERATOR: Self = Self { caller: Caller::Operator, until: None };
}

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No credential came with it.
    Missing,
    /// A credential that is nobody's; why, without repeating it.
    Invalid(&'static str),
    /// The project could not be asked whose it is.
    Unavailable,
    /// The project was not asked: this peer made us ask too often.
    NotAsked,
}

/// Says whether the project may be asked once more.
pub type MayAsk<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// Whom the API answers.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Everybody: something in front decides (`--auth none`).
    Open,
    /// Everybody on this machine, but no web page of a stranger: a loopback listener without any credential.
    Local,
    /// Whoever shows a credential.
    Guarded(Arc<Guard>),
}

/// What is compared with the credential of a call.
#[derive(Debug)]
pub struct Guard {
    token: Option<SecretSource>,
    users: Option<Users>,
    host: Arc<dyn Host>,
}

impl Auth {
    /// What the configuration says. Connects to nothing yet.
    pub fn new(settings: &ApiSettings, host: Arc<dyn Host>) -> Result<Self> {
        Ok(match &settings.auth {
            AuthSettings::Open => Self::Open,
            AuthSettings::Local => Self::Local,
            AuthSettings::Guarded { token, users } => Self::Guarded(Arc::new(Guard {
                token: token.clone().map(SecretSource::from),
                users: users.as_ref().map(Users::new).transpose()?,
                host,
            })),
        })
    }

    /// Who calls. `ask` is asked whether the project may be asked about a token that nothing here can tell.
    pub async fn access(&self, headers: &HeaderMap, ask: MayAsk<'_>) -> Result<Access, Refusal> {
        match self {
            Self::Open | Self::Local => Ok(Access::OPERATOR),
            Self::Guarded(guard) => guard.access(headers, ask).await,
        }
    }
}

impl Guard {
    async fn access(&self, headers: &HeaderMap, ask: MayAsk<'_>) -> Result<Access, Refusal> {
        let shown = credential(headers).ok_or(Refusal::Missing)?;
        if let Some(token) = &self.token
            && token.is(shown).await
        {
            return Ok(Access::OPERATOR);
        }
        match &self.users {
            Some(users) => {
                let user = users.verify(shown, self.host.now(), ask).await?;
                Ok(Access { caller: Caller::User(user.id), until: Some(user.until) })
            }
            None => Err(Refusal::Invalid("it is not the token of this API")),
        }
    }
}

/// The credential that a call shows, in a header and nowhere else: what is in a URL ends up in logs.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let key = || headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(key).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_taken_from_two_headers_and_only_as_bearer() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let shown = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = headers(pairs);
            credential(&headers).map(str::to_owned)
        };
        assert_eq!(shown(&[("authorization", "Bearer abc")]), Some("abc".to_owned()));
        assert_eq!(shown(&[("authorization", "bearer  abc")]), Some("abc".to_owned()));
        assert_eq!(shown(&[("x-api-key", "abc")]), Some("abc".to_owned()));
        assert_eq!(shown(&[("authorization", "Basic eDp5"), ("x-api-key", "k")]), Some("k".to_owned()));
        assert_eq!(shown(&[("authorization", "abc")]), None);
        assert_eq!(shown(&[("authorization", "Bearer ")]), None);
        assert_eq!(shown(&[("cookie", "token=abc")]), None);
    }
}
