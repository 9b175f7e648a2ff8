//! A user's own token: by the project's public keys, else by its JWT secret, else by asking the project.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::claims::{Claims, User};
use super::jwks::{Jwks, Pace};
use super::secret::SecretSource;
use super::{MayAsk, Refusal};
use crate::config::{Secret, UserTokens};
use crate::error::Result;
use crate::supabase::{Endpoint, Timeouts, connections};

/// How long the project may take to answer: a person waits.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the project's word about a token counts.
const REMEMBERED: Duration = Duration::from_mins(1);
/// More tokens are not remembered at once.
const MOST_REMEMBERED: usize = 10_000;
/// Longer ones are not looked at.
const LONGEST_TOKEN: usize = 16 * 1024;

/// The users of a project.
#[derive(Debug)]
pub struct Users {
    keys: Jwks,
    secret: Option<SecretSource>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    url: String,
    anon: Secret,
    http: reqwest::Client,
    /// By digest of the token.
    remembered: Mutex<HashMap<[u8; 32], (Instant, Word)>>,
}

/// The project's word about a token.
#[derive(Debug, Clone)]
enum Word {
    /// It is this user's.
    Of(User),
    /// It is nobody's.
    Nobodys,
}

const NOBODYS: Refusal = Refusal::Invalid("the token is not one of this project");

impl Users {
    /// Connects to nothing yet.
    pub fn new(tokens: &UserTokens) -> Result<Self> {
        Self::paced(tokens, Pace::default())
    }

    /// The same with another pace of fetching keys.
    pub(super) fn paced(tokens: &UserTokens, pace: Pace) -> Result<Self> {
        let endpoint = Endpoint::parse(&tokens.url)?;
        let http = connections(&endpoint, tokens.ca_file.as_deref(), &Timeouts::default())?;
        let keys = Jwks::new(format!("{}/.well-known/jwks.json", endpoint.auth()), http.clone(), pace);
        let asked = tokens.anon.clone().map(|anon| Asked {
            url: format!("{}/user", endpoint.auth()),
            anon,
            http,
            remembered: Mutex::default(),
        });
        Ok(Self { keys, secret: tokens.jwt_secret.clone().map(SecretSource::from), asked })
    }

    /// Whose token it is. `ask` is asked before the project is asked about it.
    pub async fn verify(&self, token: &str, now: Timestamp, ask: MayAsk<'_>) -> Result<User, Refusal> {
        if token.len() > LONGEST_TOKEN {
            return Err(NOBODYS);
        }
        // `none` is no algorithm here, and so not even a header.
        let header = decode_header(token).map_err(|_| NOBODYS)?;
        match header.alg {
            Algorithm::HS256 => {
                if let Some(secret) = &self.secret {
                    let key = DecodingKey::from_secret(secret.current().await.expose().as_bytes());
                    return signed(token, &key, Algorithm::HS256)?.user(now);
                }
            }
            Algorithm::HS384 | Algorithm::HS512 => return Err(NOBODYS),
            algorithm => {
                if let Some(kid) = &header.kid
                    && let Some(key) = self.keys.key(kid).await?
                {
                    // The algorithm is the key's, never the token's.
                    return if key.algorithm == algorithm {
                        signed(token, &key.key, key.algorithm)?.user(now)
                    } else {
                        Err(NOBODYS)
                    };
                }
            }
        }
        match &self.asked {
            Some(asked) => asked.user(token, now, ask).await,
            None => Err(NOBODYS),
        }
    }
}

fn signed(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, Refusal> {
    // Only the signature: what the token says is judged in one place, by one clock.
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    decode::<Claims>(token, key, &rules).map(|data| data.claims).map_err(|_| NOBODYS)
}

impl Asked {
    async fn user(&self, token: &str, now: Timestamp, ask: MayAsk<'_>) -> Result<User, Refusal> {
        // An answer can only be about these claims: what they rule out is not asked.
        let claimed = unsigned(token)?.user(now)?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        let word = match self.remembered(&digest) {
            Some(word) => word,
            None if !ask() => return Err(Refusal::NotAsked),
            None => {
                let same = self.ask(token).await?.is_some_and(|id| id == claimed.id);
                let word = if same { Word::Of(claimed) } else { Word::Nobodys };
                self.remember(digest, word.clone());
                word
            }
        };
        match word {
            // Remembered, but never past its end.
            Word::Of(user) if user.until > now => Ok(user),
            Word::Of(_) | Word::Nobodys => Err(NOBODYS),
        }
    }

    async fn ask(&self, token: &str) -> Result<Option<String>, Refusal> {
        let unavailable = |error: reqwest::Error| {
            tracing::warn!(error = %error.without_url(), "the project cannot be asked whose token it is");
            Refusal::Unavailable
        };
        let request = self.http.get(&self.url).header("apikey", self.anon.expose()).bearer_auth(token);
        let answer = request.timeout(PATIENCE).send().await.map_err(unavailable)?;
        match answer.status().as_u16() {
            200 => {
                let user: Whose = answer.json().await.map_err(unavailable)?;
                Ok(Some(user.id))
            }
            400 | 401 | 403 | 404 => Ok(None),
            status => {
                tracing::warn!(status, "the project does not say whose token it is");
                Err(Refusal::Unavailable)
            }
        }
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Word> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, word) = remembered.get(digest)?;
        (at.elapsed() < REMEMBERED).then(|| word.clone())
    }

    fn remember(&self, digest: [u8; 32], word: Word) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(digest, (Instant::now(), word));
        }
    }
}

#[derive(serde::Deserialize)]
struct Whose {
    id: String,
}

/// What a token says, believed by nobody yet.
fn unsigned(token: &str) -> Result<Claims, Refusal> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| NOBODYS)?;
    serde_json::from_slice(&payload).map_err(|_| NOBODYS)
}

#[cfg(test)]
mod tests;
