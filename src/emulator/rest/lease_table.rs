//! The table of leases.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a wish counts.
const WISH: SignedDuration = SignedDuration::from_secs(20);

/// A time as Postgres keeps it.
pub(super) fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A row of `session_sidecar_leases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The bucket of the session.
    pub bucket: String,
    /// Its user.
    pub user_id: String,
    /// Its id.
    pub session_id: String,
    /// Of the newest grant; 0: none yet.
    pub epoch: i64,
    /// Who has it, perhaps past its time.
    pub holder: Option<String>,
    /// When it runs out.
    pub expires_at: Option<Timestamp>,
    /// When this epoch was granted.
    pub granted_at: Option<Timestamp>,
    /// The newest acknowledged commit that a holder told of.
    pub head: Option<String>,
    /// Who asked for it last.
    pub wish_by: Option<String>,
    /// And when.
    pub wish_at: Option<Timestamp>,
    /// When the row was written last.
    pub updated_at: Timestamp,
}

impl Lease {
    pub(super) fn is_free(&self, asker: &str, now: Timestamp) -> bool {
        self.holder.as_deref().is_none_or(|holder| holder == asker) || self.expires_at <= Some(now)
    }

    /// Whether somebody other than `holder` asked a moment ago.
    pub(super) fn is_wanted(&self, holder: &str, now: Timestamp) -> bool {
        self.wish_by.as_deref().is_some_and(|by| by != holder) && self.wish_at > Some(now - WISH)
    }

    pub(super) fn expires_in(&self, now: Timestamp) -> Option<f64> {
        self.expires_at.map(|at| at.duration_since(now).as_secs_f64())
    }

    /// As if `by` had passed.
    pub(in crate::emulator) fn age(&mut self, by: Duration) {
        for time in [&mut self.granted_at, &mut self.expires_at, &mut self.wish_at] {
            *time = time.map(|time| time - by);
        }
    }

    pub(super) fn raise_head(&mut self, head: Option<String>) {
        // The order of `String` is that of bytes, as `collate "C"`.
        self.head = self.head.take().max(head);
    }
}

/// The table of leases, by bucket, user and session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Lease>", into = "Vec<Lease>")]
pub struct LeaseTable(BTreeMap<(String, String, String), Lease>);

impl From<Vec<Lease>> for LeaseTable {
    fn from(rows: Vec<Lease>) -> Self {
        let key = |row: &Lease| (row.bucket.clone(), row.user_id.clone(), row.session_id.clone());
        Self(rows.into_iter().map(|row| (key(&row), row)).collect())
    }
}

impl From<LeaseTable> for Vec<Lease> {
    fn from(table: LeaseTable) -> Self {
        table.0.into_values().collect()
    }
}

impl LeaseTable {
    /// A row.
    #[must_use]
    pub fn get(&self, bucket: &str, user: &str, session: &str) -> Option<&Lease> {
        self.0.get(&(bucket.to_owned(), user.to_owned(), session.to_owned()))
    }

    /// All rows in the order of their keys.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Lease> {
        self.0.values()
    }

    pub(in crate::emulator) fn get_mut(
        &mut self,
        bucket: &str,
        user: &str,
        session: &str,
    ) -> Option<&mut Lease> {
        self.0.get_mut(&(bucket.to_owned(), user.to_owned(), session.to_owned()))
    }

    /// The row of a key, made if it is missing.
    pub(super) fn row(&mut self, bucket: &str, user: &str, session: &str, now: Timestamp) -> &mut Lease {
        let key = (bucket.to_owned(), user.to_owned(), session.to_owned());
        let (bucket, user_id, session_id) = key.clone();
        self.0.entry(key).or_insert(Lease {
            bucket,
            user_id,
            session_id,
            epoch: 0,
            holder: None,
            expires_at: None,
            granted_at: None,
            head: None,
            wish_by: None,
            wish_at: None,
            updated_at: now,
        })
    }
}
