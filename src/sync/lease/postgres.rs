//! `--lease postgres`: the lease functions of `supabase/migrations`, over PostgREST.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Ask, Grant, How, Lessor, Outcome, Refused, Renewed};
use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::supabase::Client;

/// A call that takes longer is as good as none: a third of the default TTL.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lease rows of one bucket's sessions.
pub struct PostgresLessor {
    client: Arc<Client>,
    bucket: String,
}

impl fmt::Debug for PostgresLessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresLessor({})", self.bucket)
    }
}

#[derive(Serialize)]
struct Request<'a, K> {
    bucket: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all_or_none: Option<bool>,
    keys: Vec<K>,
}

#[derive(Serialize)]
struct AskRow<'a> {
    user: &'a str,
    session: &'a str,
    holder: &'a str,
    above: u32,
}

#[derive(Serialize)]
struct GrantRow<'a> {
    user: &'a str,
    session: &'a str,
    holder: &'a str,
    epoch: u32,
    head: Option<String>,
}

#[derive(Deserialize)]
struct Answer<R> {
    leases: Vec<R>,
}

#[derive(Deserialize)]
struct Acquired {
    user: String,
    session: String,
    granted: bool,
    reason: Option<String>,
    epoch: u32,
    head: Option<String>,
    holder: Option<String>,
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct RenewedRow {
    user: String,
    session: String,
    state: String,
    epoch: u32,
}

#[derive(Deserialize)]
struct Released {}

impl PostgresLessor {
    /// For the sessions of a bucket: another bucket's of the same name are others.
    #[must_use]
    pub fn new(client: Arc<Client>, bucket: String) -> Self {
        Self { client, bucket }
    }

    async fn call<R: for<'de> Deserialize<'de>>(
        &self,
        function: &'static str,
        request: &impl Serialize,
    ) -> Result<Vec<R>, Error> {
        let answer = timeout(PATIENCE, self.client.rpc::<Answer<R>>(function, request)).await;
        let answer = answer.map_err(|_| {
            Error::new(
                Code::Unreachable,
                format!("the database does not answer: {function} took over {PATIENCE:?}"),
            )
        })?;
        Ok(answer?.leases)
    }

    fn grants<'a>(&'a self, held: &'a [Grant], ttl: Option<Duration>) -> Request<'a, GrantRow<'a>> {
        let row = |grant: &'a Grant| GrantRow {
            user: grant.key.user(),
            session: grant.key.session(),
            holder: &grant.holder,
            epoch: grant.epoch,
            head: grant.head.map(|head| head.to_string()),
        };
        Request {
            bucket: &self.bucket,
            ttl: ttl.map(|ttl| ttl.as_secs_f64()),
            ask: None,
            all_or_none: None,
            keys: held.iter().map(row).collect(),
        }
    }
}

#[async_trait]
impl Lessor for PostgresLessor {
    async fn acquire(&self, asks: &[Ask], how: How) -> Result<Vec<Outcome>, Error> {
        let keys = asks.iter().map(|ask| AskRow {
            user: ask.key.user(),
            session: ask.key.session(),
            holder: &ask.holder,
            above: ask.above,
        });
        let request = Request {
            bucket: &self.bucket,
            ttl: Some(how.ttl.as_secs_f64()),
            ask: Some(how.ask),
            all_or_none: Some(how.all_or_none),
            keys: keys.collect(),
        };
        let rows: Vec<Acquired> = self.call("acquire_session_leases", &request).await?;
        let named = |row: Acquired| Some((SessionKey::new(&row.user, &row.session).ok()?, outcome(row)));
        let mut outcomes: BTreeMap<SessionKey, Outcome> = rows.into_iter().filter_map(named).collect();
        let of = |ask: &Ask| {
            outcomes.remove(&ask.key).ok_or_else(|| {
                let text = format!("session {}: acquire_session_leases said nothing of it", ask.key);
                Error::new(Code::NotSupabase, text)
            })
        };
        asks.iter().map(of).collect()
    }

    async fn renew(&self, held: &[Grant], ttl: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        let request = self.grants(held, Some(ttl));
        let rows: Vec<RenewedRow> = self.call("renew_session_leases", &request).await?;
        let mut renewed = BTreeMap::new();
        for row in rows {
            let Ok(key) = SessionKey::new(&row.user, &row.session) else { continue };
            let state = match row.state.as_str() {
                "held" => Renewed::Held,
                "wanted" => Renewed::Wanted,
                "taken" => Renewed::Taken { epoch: row.epoch },
                // "free": a release overtook this call.
                _ => continue,
            };
            renewed.insert(key, state);
        }
        Ok(renewed)
    }

    async fn release(&self, held: &[Grant]) -> Result<(), Error> {
        self.call::<Released>("release_session_leases", &self.grants(held, None)).await.map(drop)
    }
}

fn outcome(row: Acquired) -> Outcome {
    if row.granted {
        // A head that is none of ours says nothing.
        return Outcome::Granted { epoch: row.epoch, head: row.head.and_then(|head| head.parse().ok()) };
    }
    if row.reason.as_deref() == Some("hostile") {
        return Outcome::Hostile { known: row.epoch };
    }
    let seconds = row.expires_in.filter(|seconds| seconds.is_finite()).map(|seconds| seconds.max(0.0));
    let expires_in = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Outcome::Refused(Refused { holder: row.holder, expires_in })
}
