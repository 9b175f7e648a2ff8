//! The key: what kind it is, and where a fresh one is read.

use std::fmt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::session::{ROLE, SESSION_CLAIM, Scope, USER_CLAIM};

/// A key that may read and write all of a project, or of a role of ours. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    secret: String,
    kind: CredentialKind,
    /// What the gateway is shown, where it is another one.
    apikey: Option<String>,
    /// Of a token of our role.
    token: Option<Token>,
}

/// What a token of the role `session_sidecar` says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is for.
    pub scope: Scope,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Whether what it is not for is refused here already, where the server would show nothing.
    guarded: bool,
}

/// A token that ends sooner than this is worth a warning.
pub const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What kind of key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// A JWT with a role of the database.
    Jwt {
        /// `service_role`, or a role made for us.
        role: String,
        /// The project it belongs to, where it says so (keys of hosted projects).
        project: Option<String>,
    },
    /// `sb_secret_…`: opaque, exchanged by the gateway.
    Secret,
}

#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    exp: Option<f64>,
    #[serde(rename = "ref")]
    project: Option<String>,
    // A claim that is null is there, and narrows to nothing.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Which kind of key belongs in the place where one was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A secret key, or the token of any role that may write.
    Key,
    /// A token of the role `session_sidecar`, and nothing that opens more.
    Token,
}

/// How a key is read.
#[derive(Clone)]
pub struct Reading {
    /// What it must be.
    pub wanted: Wanted,
    /// What the gateway is shown in front of a token: the anon (or publishable) key, where one is known.
    pub gateway: Option<String>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Reading {
    /// Of a key, wherever it may come from.
    pub const KEY: Self = Self { wanted: Wanted::Key, gateway: None };

    /// Recognises a key, as [`Credential::parse`] does, and refuses what does not belong here.
    ///
    /// # Errors
    /// As those of [`Credential::parse`]; the text tells of `session-sidecar token` where a token is wanted.
    pub fn parse(&self, text: &str, now: Timestamp) -> Result<Credential, Error> {
        match self.wanted {
            Wanted::Key => Credential::parse(text, now),
            Wanted::Token => {
                let found = Credential::parse(text, now);
                // An expired token, or one for nothing, tells so itself.
                let is_token =
                    claims(trimmed(text)).is_some_and(|claims| claims.role.as_deref() == Some(ROLE));
                if !is_token {
                    return Err(Error::new(
                        Code::Unauthorized,
                        format!(
                            "SUPABASE_SIDECAR_TOKEN is no token of the role {ROLE}: make one with `session-sidecar token`; a \
                             secret key opens the whole project and belongs in SUPABASE_SERVICE_ROLE_KEY"
                        ),
                    ));
                }
                Ok(Credential { apikey: self.gateway.clone(), ..found? })
            }
        }
    }
}

impl Credential {
    /// Recognises a key; `now` decides whether it is expired. Signatures are the server's business.
    ///
    /// # Errors
    /// [`Code::Unauthorized`], saying which key to give; [`Code::Usage`] when there is none. The key is never
    /// repeated.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, Error> {
        let secret = trimmed(text);
        let refuse = |why: &str| {
            Err(Error::new(
                Code::Unauthorized,
                format!(
                    "the Supabase key {why}: give the service_role key or an sb_secret_ key as SUPABASE_SERVICE_ROLE_KEY"
                ),
            ))
        };
        if secret.is_empty() {
            return Err(Error::new(
                Code::Usage,
                "no Supabase key: give the service_role key as SUPABASE_SERVICE_ROLE_KEY",
            ));
        }
        if !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("holds characters that no key has");
        }
        if secret.starts_with("sb_publishable_") {
            return refuse("is the publishable key, which may not write");
        }
        if secret.starts_with("sb_secret_") {
            return Ok(Self {
                secret: secret.to_owned(),
                kind: CredentialKind::Secret,
                apikey: None,
                token: None,
            });
        }
        let Some(claims) = claims(secret) else { return refuse("is neither a JWT nor an sb_secret_ key") };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in an f64")]
        let expired = claims.exp.is_some_and(|exp| exp <= now.as_second() as f64);
        if claims.role.as_deref() == Some(ROLE) {
            let refuse = |why: &str| Err(Error::new(Code::Unauthorized, why));
            if expired {
                return refuse(EXPIRED);
            }
            let claim = |name: &str| claims.others.get(name);
            let Some(scope) = Scope::of_claims(claim(USER_CLAIM), claim(SESSION_CLAIM)) else {
                return refuse(
                    "the token names no user or session that there can be: make one with `session-sidecar token`",
                );
            };
            let token = Token { scope, expires_at: claims.exp.and_then(moment), guarded: true };
            let kind = CredentialKind::Jwt { role: ROLE.to_owned(), project: claims.project };
            return Ok(Self { secret: secret.to_owned(), kind, apikey: None, token: Some(token) });
        }
        if expired {
            return refuse("has expired");
        }
        match claims.role {
            None => refuse("is a JWT without a role"),
            Some(role) if role == "anon" => refuse("is the anon key, which may not write"),
            Some(role) if role == "authenticated" => {
                refuse("is a user's token, which opens that user's files alone")
            }
            Some(role) => Ok(Self {
                secret: secret.to_owned(),
                kind: CredentialKind::Jwt { role, project: claims.project },
                apikey: None,
                token: None,
            }),
        }
    }

    /// Of somebody who must see none of our objects, to try that they do not: the anon (or publishable) key, or the
    /// token of a signed-in user, which goes through the gateway with that key.
    ///
    /// # Errors
    /// [`Code::Usage`] when it is another key: one that may see everything proves nothing.
    pub fn stranger(anon: &str, user: Option<&str>) -> Result<Self, Error> {
        let claims = claims(anon);
        let is_anon = anon.starts_with("sb_publishable_")
            || claims.as_ref().is_some_and(|claims| claims.role.as_deref() == Some("anon"));
        if !is_anon || !anon.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(
                Code::Usage,
                "SUPABASE_ANON_KEY is neither an anon nor a publishable key",
            ));
        }
        let project = claims.and_then(|claims| claims.project);
        let role = if user.is_some() { "authenticated" } else { "anon" };
        Ok(Self {
            secret: user.unwrap_or(anon).to_owned(),
            kind: CredentialKind::Jwt { role: role.to_owned(), project },
            apikey: user.map(|_| anon.to_owned()),
            token: None,
        })
    }

    /// What it says of itself, where it is a token of our role.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The same, which leaves every refusal to the server: to try whether there is one.
    #[must_use]
    pub fn unguarded(mut self) -> Self {
        if let Some(token) = &mut self.token {
            token.guarded = false;
        }
        self
    }

    /// What a token is for, unless `fits`. To the server's row-level security all else is simply not there, and what is
    /// not there would be taken for a new session. // P1, P4
    pub(super) fn not_for(&self, fits: impl FnOnce(&Scope) -> bool) -> Option<&Scope> {
        self.token.as_ref().filter(|token| token.guarded && !fits(&token.scope)).map(|token| &token.scope)
    }

    /// What to do when the server refuses it.
    #[must_use]
    pub fn advice(&self, now: Timestamp) -> String {
        match &self.token {
            None => "give the service_role or an sb_secret_ key of this very project".to_owned(),
            Some(token) if token.expires_at.is_some_and(|end| end <= now) => EXPIRED.to_owned(),
            Some(_) => "the token must be signed with the JWT secret of this very project (`session-sidecar token`), whose \
                        database must know its role (`session-sidecar schema`, `init --database-url`)"
                .to_owned(),
        }
    }

    /// The key itself, for headers only.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What the gateway wants to see, in a header of its own.
    #[must_use]
    pub(super) fn apikey(&self) -> &str {
        self.apikey.as_deref().unwrap_or(&self.secret)
    }

    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> &CredentialKind {
        &self.kind
    }

    /// The text without the key, should a server or proxy have repeated it.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.secret, "[key]")
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// For people whose token ran out, before or while it was used.
const EXPIRED: &str = "the token expired: mint a new one with `session-sidecar token`";

impl Token {
    /// The whole days that are left, where they are few.
    #[must_use]
    pub fn ends_soon(&self, now: Timestamp) -> Option<i64> {
        let left = self.expires_at?.duration_since(now);
        (left < SOON).then(|| left.as_hours() / 24)
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "\"'".contains(c))
}

#[expect(clippy::cast_possible_truncation, reason = "a moment out of range is none, also after the cut")]
fn moment(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_second(seconds as i64).ok()
}

fn claims(jwt: &str) -> Option<Claims> {
    let mut parts = jwt.split('.');
    let (_, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if signature.is_empty() || parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Where the key comes from: fixed, or a file that is read again when the key is refused.
#[derive(Debug)]
pub struct CredentialSource {
    current: RwLock<Credential>,
    file: Option<(PathBuf, Reading)>,
}

impl CredentialSource {
    /// A key that stays.
    #[must_use]
    pub fn fixed(credential: Credential) -> Self {
        Self { current: RwLock::new(credential), file: None }
    }

    /// A key in a file, which may be replaced while we run.
    ///
    /// # Errors
    /// [`Code::Usage`] when the file cannot be read, and those of [`Reading::parse`].
    pub fn file(path: impl Into<PathBuf>, reading: Reading, now: Timestamp) -> Result<Self, Error> {
        let file = path.into();
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Error::new(Code::Usage, format!("the key file {} cannot be read", file.display())).because(error)
        })?;
        let current = RwLock::new(reading.parse(&text, now)?);
        Ok(Self { current, file: Some((file, reading)) })
    }

    /// The key to use now.
    #[must_use]
    pub fn current(&self) -> Credential {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After `refused` was refused: whether there is another key now. A file that is unreadable or
    /// half-written keeps the key there was.
    pub async fn renew(&self, refused: &Credential, now: Timestamp) -> bool {
        if self.current() != *refused {
            return true;
        }
        let Some((file, reading)) = &self.file else { return false };
        let fresh = match tokio::fs::read_to_string(file).await {
            Ok(text) => reading.parse(&text, now),
            Err(error) => Err(Error::io(format!("the key file {}", file.display()), error)),
        };
        match fresh {
            Ok(fresh) if fresh != *refused => {
                tracing::info!(file = %file.display(), "the Supabase key was refused; its file holds another one now");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, "the Supabase key was refused, and its file gives no other");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJIUzI1NiJ9.{}.c2VrcmV0", URL_SAFE_NO_PAD.encode(claims))
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn keys_that_may_write_are_taken_and_never_shown() {
        let service = jwt(r#"{"role":"service_role","ref":"abcdefghijklmnopqrst","exp":1983812996}"#);
        let parsed = Credential::parse(&format!("\n \"{service}\" \n"), now()).unwrap();
        assert_eq!(parsed.secret(), service);
        let project = Some("abcdefghijklmnopqrst".to_owned());
        assert_eq!(parsed.kind(), &CredentialKind::Jwt { role: "service_role".into(), project });
        assert!(!format!("{parsed:?}").contains("c2VrcmV0"));
        assert_eq!(parsed.redact(&format!("bad token {service}")), "bad token [key]");

        assert_eq!(Credential::parse("sb_secret_abc", now()).unwrap().kind(), &CredentialKind::Secret);
        assert!(Credential::parse(&jwt(r#"{"role":"session_sidecar"}"#), now()).is_ok());
    }

    #[test]
    fn keys_that_may_not_write_are_refused_with_the_one_to_give() {
        for (given, word) in [
            (jwt(r#"{"role":"anon"}"#), "anon key"),
            (jwt(r#"{"role":"authenticated","sub":"x"}"#), "user's token"),
            (jwt(r#"{"role":"service_role","exp":1000000000}"#), "expired"),
            (jwt(r#"{"sub":"x"}"#), "without a role"),
            ("sb_publishable_sekret".into(), "publishable"),
            ("sekret".into(), "neither"),
            ("a.sekret.c".into(), "neither"),
            ("sb_secret_sek\u{e9}t".into(), "characters"),
        ] {
            let error = Credential::parse(&given, now()).unwrap_err();
            assert_eq!(error.code(), Code::Unauthorized);
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("SUPABASE_SERVICE_ROLE_KEY"), "{text}");
            assert!(!text.contains(&given), "{text}");
        }
        assert_eq!(Credential::parse(" \n", now()).unwrap_err().code(), Code::Usage);
    }

    #[tokio::test]
    async fn a_refused_key_is_read_again_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sb_secret_old\n").unwrap();
        let source = CredentialSource::file(&path, Reading::KEY, now()).unwrap();
        let old = source.current();
        assert!(!source.renew(&old, now()).await, "nothing changed");
        std::fs::write(&path, "").unwrap();
        assert!(!source.renew(&old, now()).await, "half-written");
        std::fs::write(&path, "sb_secret_new\n").unwrap();
        assert!(source.renew(&old, now()).await);
        assert_eq!(source.current().secret(), "sb_secret_new");
        assert!(source.renew(&old, now()).await, "another task renewed it already");
    }

    #[test]
    fn only_keys_that_apps_are_given_are_those_of_strangers() {
        let anon = jwt(r#"{"role":"anon","ref":"abcdefghijklmnopqrst"}"#);
        let stranger = Credential::stranger(&anon, None).unwrap();
        assert_eq!((stranger.secret(), stranger.apikey()), (&*anon, &*anon));
        let user = Credential::stranger("sb_publishable_x", Some("token")).unwrap();
        assert_eq!((user.secret(), user.apikey()), ("token", "sb_publishable_x"));
        for secret in ["", "x", "sb_secret_x", &jwt(r#"{"role":"service_role"}"#)] {
            assert_eq!(Credential::stranger(secret, None).unwrap_err().code(), Code::Usage, "{secret}");
        }
    }
}
