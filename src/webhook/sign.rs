//! The signature of the Standard Webhooks specification.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Code, Error};

/// How a secret of the specification begins.
const PREFIX: &str = "whsec_";

/// What webhooks are signed with: one key, or two while it is rotated.
#[derive(Clone)]
pub struct Key(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// Reads `whsec_<base64>`, or any other text, which is taken as it is; several, apart by spaces, sign each.
    ///
    /// # Errors
    /// [`Code::Usage`] for what begins with `whsec_` and is not base64.
    pub fn parse(secret: &str) -> Result<Self, Error> {
        let keys: Vec<_> = secret.split_whitespace().map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(Error::new(
                Code::Usage,
                "the webhook secret is empty: give whsec_ and 24 to 64 bytes as base64",
            ));
        }
        Ok(Self(keys))
    }

    /// The header `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn key(text: &str) -> Result<Hmac<Sha256>, Error> {
    let bytes = match text.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
            Error::new(Code::Usage, "the webhook secret begins with whsec_, and what follows is not base64")
        })?,
        None => text.as_bytes().to_vec(),
    };
    Hmac::new_from_slice(&bytes)
        .map_err(|_| Error::new(Code::Usage, "the webhook secret cannot be used as a key: give another one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the tests of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn signed(secret: &str) -> String {
        let key = Key::parse(secret).unwrap();
        key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
    }

    #[test]
    fn the_known_vector_of_the_specification_comes_out() {
        assert_eq!(signed(SECRET), SIGNATURE);
    }

    #[test]
    fn while_a_secret_is_rotated_both_sign() {
        let both = signed(&format!("any-other-text {SECRET}"));
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!((first, second), (signed("any-other-text").as_str(), SIGNATURE));
    }

    #[test]
    fn a_secret_that_cannot_be_one_is_refused_without_being_repeated() {
        for bad in ["", "  ", "whsec_no base64!", "whsec_%%%"] {
            let error = Key::parse(bad).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(!error.to_string().contains("%%%"), "{error}");
        }
        assert_eq!(format!("{:?}", Key::parse(SECRET).unwrap()), "Key(***)");
    }
}
