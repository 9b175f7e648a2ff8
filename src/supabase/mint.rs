//! Tokens of the role `session_sidecar`, signed as a project signs those of its users.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::error::{Code, Error, Result};
use crate::session::{ROLE, SESSION_CLAIM, Scope, USER_CLAIM};

/// PostgREST takes no shorter secret, and HS256 is only as good as it is long.
const SECRET_BYTES: usize = 32;
/// A token cannot be taken back but by changing the secret of the whole project.
const LONGEST: Duration = Duration::from_hours(10 * 8766);

/// A token, and when it ends.
#[derive(Clone)]
pub struct Minted {
    /// The token: a secret.
    pub token: String,
    /// In whole seconds.
    pub expires_at: Timestamp,
}

/// Makes a token that is for `scope` alone. It names no `sub`: policies of others compare that with their users' ids.
///
/// # Errors
/// [`Code::Usage`], without the secret: it is none, or too short; nothing or too much of a lifetime.
pub fn mint(jwt_secret: &str, scope: &Scope, ttl: Duration, now: Timestamp) -> Result<Minted> {
    let bad = |why: String| Err(Error::new(Code::Usage, why));
    if jwt_secret.starts_with("eyJ") || jwt_secret.starts_with("sb_") {
        return bad(
            "this is one of the project's keys, not the secret that they are signed with: in the dashboard under \
             Settings, JWT keys, legacy JWT secret"
                .to_owned(),
        );
    }
    if jwt_secret.len() < SECRET_BYTES {
        return bad(format!(
            "the JWT secret is too short: it has {} bytes, that of a project at least {SECRET_BYTES}",
            jwt_secret.len()
        ));
    }
    if ttl < Duration::from_secs(1) {
        return bad("--ttl is nothing: give how long the token lasts (90d)".to_owned());
    }
    let too_long = || Error::new(Code::Usage, "--ttl is too long: a token lasts at most 10 years");
    if ttl > LONGEST {
        return Err(too_long());
    }
    let issued = Timestamp::from_second(now.as_second()).map_err(|_| too_long())?;
    let ttl = SignedDuration::from_secs(i64::try_from(ttl.as_secs()).map_err(|_| too_long())?);
    let expires_at = issued.checked_add(ttl).map_err(|_| too_long())?;
    let mut claims = json!({
        "iss": "session-sidecar", "role": ROLE, "iat": issued.as_second(), "exp": expires_at.as_second(),
    });
    match scope {
        Scope::Bucket => {}
        Scope::User(user) => claims[USER_CLAIM] = json!(user),
        Scope::Session(key) => {
            claims[USER_CLAIM] = json!(key.user());
            claims[SESSION_CLAIM] = json!(key.session());
        }
    }
    let key = EncodingKey::from_secret(jwt_secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| Error::new(Code::Internal, "the token cannot be signed").because(error))?;
    Ok(Minted { token, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supabase::{Credential, Reading, Wanted};

    const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
    const DAY: Duration = Duration::from_hours(24);

    fn now() -> Timestamp {
        "2026-11-28T12:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_token_says_of_itself_what_it_was_made_for() {
        for scope in [Scope::Bucket, Scope::User("u".into()), Scope::Session("u/s".parse().unwrap())] {
            let minted = mint(SECRET, &scope, DAY, now()).unwrap();
            let reading = Reading { wanted: Wanted::Token, gateway: Some("anon".to_owned()) };
            let read = reading.parse(&minted.token, now()).unwrap();
            let token = read.token().unwrap();
            assert_eq!((&token.scope, token.expires_at), (&scope, Some(minted.expires_at)));
            assert_eq!(minted.expires_at.to_string(), "2026-11-29T12:00:00Z");
            assert_eq!(token.ends_soon(now()), Some(0));
            let error = Credential::parse(&minted.token, minted.expires_at).unwrap_err();
            assert!(
                error.code() == Code::Unauthorized && error.to_string().contains("session-sidecar token"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_and_no_lifetime_is_refused_and_not_repeated() {
        for (secret, ttl, says) in [
            ("hush-hush", DAY, "at least 32"),
            ("eyJhbGciOiJIUzI1NiJ9.hush-hush-hush-hush-hush.hush", DAY, "not the secret"),
            ("sb_secret_hush-hush-hush-hush-hush-hush", DAY, "not the secret"),
            (SECRET, Duration::ZERO, "--ttl is nothing"),
            (SECRET, Duration::from_millis(999), "--ttl is nothing"),
            (SECRET, 3654 * DAY, "10 years"),
            (SECRET, Duration::MAX, "10 years"),
        ] {
            let error = mint(secret, &Scope::Bucket, ttl, now()).map(|minted| minted.expires_at).unwrap_err();
            let text = error.to_string();
            assert!(error.code() == Code::Usage && text.contains(says) && !text.contains("hush"), "{text}");
        }
    }
}
