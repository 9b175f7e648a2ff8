//! The identity of a Baileys tree: what it is, and what a commit may do to it. (P4)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Hash;

mod verdict;

pub use verdict::{IdentityVerdict, Judgement, Loss, identity_guard};

/// The file that holds an account; the directory it lies in is an auth directory.
pub const CREDS: &str = "creds.json";

/// What never changes after pairing (measured with Baileys 7.0.0-rc13): `me.id` keeps its device number until
/// the next pairing, while `me.lid` and `me.name` come and go.
const PARTS: [&str; 6] =
    ["noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey", "registrationId", "advSecretKey", "account"];

/// Whose account a `creds.json` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// There is no `creds.json`.
    Absent,
    /// There is one, but it cannot be read, is empty, or is no JSON object.
    Unreadable,
    /// Baileys made it and has not paired yet; `me.id` alone is a pairing code that was asked for.
    Unpaired,
    /// Paired: `me.id` and `account` are there. The hash tells one identity from another.
    Paired(Hash),
}

impl Identity {
    /// The identity of a paired account.
    #[must_use]
    pub fn paired(self) -> Option<Hash> {
        match self {
            Self::Paired(hash) => Some(hash),
            _ => None,
        }
    }
}

/// What is read from a `creds.json`.
#[derive(Clone, PartialEq, Eq)]
pub struct Creds {
    /// Whose account it is.
    pub identity: Identity,
    /// The id that the next pre-key will get.
    pub next_pre_key_id: Option<u64>,
    /// The phone number, digits only; never to be logged as it is.
    pub phone: Option<String>,
}

impl Creds {
    /// No `creds.json`.
    pub const ABSENT: Self = Self { identity: Identity::Absent, next_pre_key_id: None, phone: None };
    /// One that is there but cannot be read.
    pub const UNREADABLE: Self = Self { identity: Identity::Unreadable, next_pre_key_id: None, phone: None };

    /// Reads a `creds.json`; none when there is no such file. // P4
    #[must_use]
    pub fn parse(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::ABSENT };
        let Ok(creds @ Value::Object(_)) = serde_json::from_slice::<Value>(bytes) else {
            return Self::UNREADABLE;
        };
        let me = creds["me"]["id"].as_str().filter(|id| !id.is_empty());
        let account = creds["account"].as_object().filter(|account| !account.is_empty());
        let identity = match (me, account) {
            (Some(me), Some(_)) => Identity::Paired(identity_hash(&creds, me)),
            _ => Identity::Unpaired,
        };
        let next_pre_key_id = creds["nextPreKeyId"].as_u64();
        Self { identity, next_pre_key_id, phone: me.and_then(phone) }
    }
}

impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creds")
            .field("identity", &self.identity)
            .field("next_pre_key_id", &self.next_pre_key_id)
            .field("phone", &self.phone.as_ref().map(|_| "…"))
            .finish()
    }
}

/// `creds.json` of an auth directory.
#[must_use]
pub fn creds_path(dir: &str) -> String {
    if dir.is_empty() { CREDS.to_owned() } else { format!("{dir}/{CREDS}") }
}

/// The credentials of a tree whose files can be read, by auth directory.
pub fn creds_of<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    read: impl Fn(&str) -> io::Result<Bytes>,
) -> BTreeMap<String, Creds> {
    let creds = |dir: String| {
        let creds = read(&creds_path(&dir)).map_or(Creds::UNREADABLE, |bytes| Creds::parse(Some(&bytes)));
        (dir, creds)
    };
    auth_dirs(paths).into_iter().map(creds).collect()
}

/// The directories that hold a `creds.json`, of these paths; the empty path is the top.
pub fn auth_dirs<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let dir = |path: &'a str| match path.rsplit_once('/') {
        Some((dir, CREDS)) => Some(dir.to_owned()),
        None if path == CREDS => Some(String::new()),
        _ => None,
    };
    paths.into_iter().filter_map(dir).collect()
}

/// `5511900000001:12@s.whatsapp.net` → `5511900000001`
fn phone(me: &str) -> Option<String> {
    let (user, server) = me.split_once('@')?;
    let number = user.split(':').next()?;
    let is_phone =
        server == "s.whatsapp.net" && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_phone.then(|| number.to_owned())
}

fn identity_hash(creds: &Value, me: &str) -> Hash {
    let mut hasher = Sha256::new();
    for part in PARTS {
        canonical(&creds[part], &mut hasher);
        hasher.update(b"\n");
    }
    hasher.update(me);
    Hash::finish(hasher)
}

/// JSON without spaces, keys sorted: another order of keys is the same identity.
fn canonical(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            hasher.update(b"{");
            for (key, value) in sorted {
                hasher.update(Value::from(key.as_str()).to_string());
                hasher.update(b":");
                canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(values) => {
            hasher.update(b"[");
            for value in values {
                canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        plain => hasher.update(plain.to_string()),
    }
}

#[cfg(test)]
mod tests;
