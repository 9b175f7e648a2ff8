//! What our functions take: one JSON value, refused whole (`PT400`) when it is malformed.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::PgError;
use super::lease_table::micros;

/// The highest epoch that eight digits hold.
pub(super) const LAST_EPOCH: i64 = 99_999_999;
/// Keys or rows of one call.
const MOST: usize = 500;

/// A request of the lease functions; what one does not take it does not look at.
#[derive(Deserialize)]
pub(super) struct Request {
    pub(super) bucket: String,
    ttl: Option<f64>,
    ask: Option<bool>,
    all_or_none: Option<bool>,
    pub(super) keys: Vec<Key>,
}

#[derive(Deserialize)]
pub(super) struct Key {
    pub(super) user: String,
    pub(super) session: String,
    pub(super) holder: String,
    above: Option<u64>,
    #[serde(default)]
    pub(super) epoch: i64,
    pub(super) head: Option<String>,
}

/// Reads the request of a function.
pub(super) fn parse<T: DeserializeOwned>(request: Value) -> Result<T, PgError> {
    serde_json::from_value(request).map_err(|e| PgError::request(format!("malformed request: {e}")))
}

/// Refuses a call with too many keys or rows.
pub(super) fn few<T>(items: &[T]) -> Result<(), PgError> {
    if items.len() <= MOST { Ok(()) } else { Err(PgError::request(format!("more than {MOST} in a call"))) }
}

impl Request {
    /// Reads a request, `with_epoch` where every key must have one.
    pub(super) fn read(request: Value, with_epoch: bool) -> Result<Self, PgError> {
        let request: Self = parse(request)?;
        few(&request.keys)?;
        let fits = |text: &str, longest| (1..=longest).contains(&text.chars().count());
        if !fits(&request.bucket, 100) {
            return Err(PgError::request("bucket is no name"));
        }
        let good = |key: &Key| {
            fits(&key.user, 128)
                && fits(&key.session, 128)
                && fits(&key.holder, 200)
                && key.head.as_ref().is_none_or(|head| head.chars().count() <= 200)
                && (!with_epoch || (1..=LAST_EPOCH).contains(&key.epoch))
        };
        if !request.keys.iter().all(good) {
            return Err(PgError::request("a key is malformed"));
        }
        let names: BTreeSet<_> = request.keys.iter().map(|key| (&key.user, &key.session)).collect();
        if names.len() < request.keys.len() {
            return Err(PgError::request("a key stands there twice"));
        }
        Ok(request)
    }

    pub(super) fn ask(&self) -> bool {
        self.ask.unwrap_or_default()
    }

    pub(super) fn all_or_none(&self) -> bool {
        self.all_or_none.unwrap_or_default()
    }

    /// The end of a lease that is granted now.
    pub(super) fn until(&self, now: Timestamp) -> Result<Timestamp, PgError> {
        let ttl = self.ttl.filter(|ttl| (1.0..=3600.0).contains(ttl));
        let ttl = ttl.ok_or_else(|| PgError::request("ttl is no number of 1 to 3600 seconds"))?;
        Ok(micros(now + SignedDuration::from_secs_f64(ttl)))
    }
}

impl Key {
    pub(super) fn above(&self) -> i64 {
        self.above.unwrap_or_default().try_into().unwrap_or(i64::MAX)
    }
}
