//! The project's public keys: fetched when needed, kept, and fetched again when they are rotated.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Refusal;

/// A set of keys has a handful.
const MOST_KEYS: usize = 32;

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Again after this long: a key that was withdrawn counts no longer.
    pub known: Duration,
    /// At most this often for key ids that nobody knows: whoever makes them up must not make us ask.
    pub unknown: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { known: Duration::from_mins(10), unknown: Duration::from_secs(30) }
    }
}

/// A public key and the one algorithm it is for.
pub struct Key {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

/// The keys of a project.
pub struct Jwks {
    url: String,
    http: reqwest::Client,
    pace: Pace,
    known: RwLock<Known>,
    /// Held while keys are fetched, so that one call fetches for all that wait. When it was last tried.
    fetching: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<Key>>,
    fetched: Option<Instant>,
}

impl Jwks {
    /// The keys that lie at `url`. Fetches nothing yet.
    pub fn new(url: String, http: reqwest::Client, pace: Pace) -> Self {
        Self { url, http, pace, known: RwLock::default(), fetching: Mutex::default() }
    }

    /// The key with this id; none: the project has no such key.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the keys were never fetched.
    pub async fn key(&self, kid: &str) -> Result<Option<Arc<Key>>, Refusal> {
        if let (Some(key), true) = self.look(kid) {
            return Ok(Some(key));
        }
        let mut tried = self.fetching.lock().await;
        // Somebody else may have fetched while this call waited.
        let (found, fresh) = self.look(kid);
        if found.is_some() && fresh {
            return Ok(found);
        }
        if tried.is_none_or(|at| at.elapsed() >= self.pace.unknown) {
            *tried = Some(Instant::now());
            match self.fetch().await {
                Ok(keys) => {
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    *known = Known { keys, fetched: Some(Instant::now()) };
                }
                Err(error) => tracing::warn!(%error, "the project's public keys cannot be fetched"),
            }
        }
        match self.look(kid).0 {
            // Keys that could not be fetched again count on: an outage signs nobody out.
            Some(key) => Ok(Some(key)),
            None if self.was_fetched() => Ok(None),
            None => Err(Refusal::Unavailable),
        }
    }

    fn look(&self, kid: &str) -> (Option<Arc<Key>>, bool) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.fetched.is_some_and(|at| at.elapsed() < self.pace.known);
        (known.keys.get(kid).cloned(), fresh)
    }

    fn was_fetched(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).fetched.is_some()
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<Key>>, reqwest::Error> {
        let answer = self.http.get(&self.url).timeout(super::users::PATIENCE).send().await;
        let set: Set = answer
            .and_then(reqwest::Response::error_for_status)
            .map_err(reqwest::Error::without_url)?
            .json()
            .await
            .map_err(reqwest::Error::without_url)?;
        Ok(set.keys.into_iter().take(MOST_KEYS).filter_map(usable).collect())
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

/// One key of a kind that nobody knows yet must not hide the others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A public key for signatures, with its id. A secret in a public list is no key at all.
fn usable(jwk: Value) -> Option<(String, Arc<Key>)> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = algorithm(&jwk)?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(Key { algorithm, key })))
}

/// The one algorithm of a key: the one it names, if that fits its kind, else the usual one of its kind.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let fitting: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => return None,
    };
    let named = |named: KeyAlgorithm| Algorithm::from_str(&named.to_string()).ok();
    match jwk.common.key_algorithm {
        Some(word) => named(word).filter(|algorithm| fitting.contains(algorithm)),
        None => fitting.first().copied(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{RSA, ec_jwk, rsa_jwk};
    use super::*;

    #[test]
    fn only_public_keys_for_signatures_are_keys() {
        assert_eq!(usable(rsa_jwk("r")).unwrap().1.algorithm, Algorithm::RS256);
        assert_eq!(usable(ec_jwk("e")).unwrap().1.algorithm, Algorithm::ES256);
        let mut bare = ec_jwk("e");
        bare.as_object_mut().unwrap().remove("alg");
        assert_eq!(usable(bare).unwrap().1.algorithm, Algorithm::ES256);
        let with = |name: &str, value: Value| {
            let mut jwk = rsa_jwk("r");
            jwk[name] = value;
            jwk
        };
        for bad in [
            json!({"kty": "oct", "kid": "x", "alg": "HS256", "k": "c2VjcmV0"}),
            json!({"kty": "oct", "kid": "x", "k": RSA}),
            json!({"kty": "AKP", "kid": "x", "pub": "y"}),
            with("alg", json!("HS256")),
            with("alg", json!("ES256")),
            with("alg", json!("RSA-OAEP")),
            with("use", json!("enc")),
            with("kid", Value::Null),
            json!("nonsense"),
        ] {
            assert!(usable(bad.clone()).is_none(), "{bad}");
        }
    }
}
