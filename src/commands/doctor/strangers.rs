//! What those may not see who hold the keys that apps are given.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use uuid::Uuid;

use super::check::Check;
use super::objects::{Probe, names};
use crate::config::{RemoteConfig, Secret, environment, secret};
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::store::{self, Kind, Put, Store, StoreError};
use crate::supabase::{Credential, CredentialSource, Supabase};

/// Who is tried, and where.
const NAMES: [[&str; 2]; 2] =
    [["anon key on the history", "anon key on the mirror"], ["user on the history", "user on the mirror"]];
/// A token lives for the few calls that are made with it.
const TOKEN_SECONDS: i64 = 300;

/// What somebody did who should have been able to do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "four answers, none of which follows from another")]
struct Done {
    listed: bool,
    read: bool,
    wrote: bool,
    deleted: bool,
}

/// Tries the anon key and a user who has nothing to do with any session, in a history and in a mirror.
pub(super) async fn checks(remote: &RemoteConfig, ours: &Supabase, probe: &Probe) -> Vec<Check> {
    let keys = secret("SUPABASE_ANON_KEY", "SUPABASE_ANON_KEY_FILE", &environment).and_then(|anon| {
        Ok((anon, secret("SUPABASE_JWT_SECRET", "SUPABASE_JWT_SECRET_FILE", &environment)?))
    });
    let (anon, jwt_secret) = match keys {
        Ok((anon, jwt_secret)) => (anon.map(|found| found.0), jwt_secret.map(|found| found.0)),
        Err(error) => return vec![Check::error("anon key", &error, "unset it, or mend it")],
    };
    let Some(anon) = anon else {
        let advice =
            "set SUPABASE_ANON_KEY, the key that apps are given; and SUPABASE_JWT_SECRET to try a user too";
        return vec![Check::warn("anon key", "not tried what it can see", advice)];
    };
    let mut checks = Vec::new();
    for (names, user) in NAMES.into_iter().zip([false, true]) {
        let token = match (user, &jwt_secret) {
            (false, _) => None,
            (true, Some(jwt_secret)) => Some(token(jwt_secret, Real.now())),
            (true, None) => {
                let advice = "set SUPABASE_JWT_SECRET, where the project has one";
                checks.push(Check::warn("user", "not tried what a signed-in user can see", advice));
                continue;
            }
        };
        let stranger = match connect(remote, &anon, token.as_ref()) {
            Ok(stranger) => stranger,
            Err(error) => {
                let advice = "set SUPABASE_ANON_KEY to the anon or publishable key of this project: apps and browsers \
                              must never hold another one";
                return vec![Check::error("anon key", &error, advice)];
            }
        };
        let [on_history, on_mirror] = names;
        let mirror = probe.mirror.as_ref().map(|folder| (on_mirror, folder));
        if mirror.is_none() {
            let advice =
                "run `doctor` with a token that is for more than one session, or with the secret key";
            checks.push(Check::warn(
                on_mirror,
                "not tried: a probe would lie among the session's files",
                advice,
            ));
        }
        for (name, folder) in [(on_history, &probe.history)].into_iter().chain(mirror) {
            checks.push(check(name, &attempt(ours, &stranger, folder, &probe.how()).await));
        }
    }
    checks
}

fn connect(remote: &RemoteConfig, anon: &Secret, user: Option<&Secret>) -> Result<Supabase> {
    let credential = Credential::stranger(anon.expose(), user.map(Secret::expose))?;
    remote.connect_as(CredentialSource::fixed(credential), Arc::new(Real))
}

/// Of a user whom no session belongs to.
fn token(jwt_secret: &Secret, now: Timestamp) -> Secret {
    let key = EncodingKey::from_secret(jwt_secret.expose().as_bytes());
    let expires = now.as_second() + TOKEN_SECONDS;
    let claims =
        json!({ "role": "authenticated", "aud": "authenticated", "sub": Uuid::new_v4(), "exp": expires });
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
    Secret::new(token.expect("claims are a JSON object, and any bytes are a secret of HS256"))
}

/// All verbs on an object that we put there.
async fn attempt(
    ours: &dyn Store,
    stranger: &dyn Store,
    folder: &str,
    how: &Put,
) -> Result<Done, StoreError> {
    let [probe, forged] = ["probe", "forged"].map(|name| format!("{folder}{name}"));
    ours.put(&probe, Bytes::from_static(b"probe"), &Put { overwrite: true, ..how.clone() }).await?;
    // Row-level security makes a list shorter and refuses none: here an error says that the key itself is no good,
    // which would be refused everything, and prove nothing.
    let listed = names(stranger, folder).await?.contains(&probe);
    let read = passed(store::read(stranger, &probe).await)?;
    let wrote = passed(stranger.put(&forged, Bytes::from_static(b"forged"), how).await)?;
    let deleted = passed(stranger.remove(std::slice::from_ref(&probe)).await)?
        && matches!(ours.info(&probe).await, Err(error) if error.kind == Kind::NotFound);
    Ok(Done { listed, read, wrote, deleted })
}

/// Whether a call was let through; an error when it says nothing about rights.
fn passed<T>(result: Result<T, StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::NoBucket) => Ok(false),
        Err(error) => Err(error),
    }
}

fn check(name: &'static str, tried: &Result<Done, StoreError>) -> Check {
    let done = match tried {
        Ok(done) => done,
        Err(error) => {
            let error = Error::from(error.clone());
            let advice = "check SUPABASE_ANON_KEY and SUPABASE_JWT_SECRET, and try again";
            return Check::warn(name, format!("could not be tried: {error}"), advice);
        }
    };
    let done =
        [(done.listed, "listed"), (done.read, "read"), (done.wrote, "written"), (done.deleted, "deleted")];
    let done: Vec<_> = done.into_iter().filter_map(|(was, verb)| was.then_some(verb)).collect();
    if done.is_empty() {
        return Check::ok(name, "a probe could be neither seen nor changed");
    }
    let advice = "apply the SQL (`session-sidecar schema`), and remove or narrow the policies on storage.objects that \
                  reach the bucket";
    Check::fail(name, Code::BucketPublic, format!("objects of others can be {}", done.join(", ")), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn whoever_can_do_anything_is_a_failure() {
        let done = Done::default();
        assert_eq!(check("x", &Ok(done)).verdict, Verdict::Ok);
        for (done, verb) in [
            (Done { listed: true, ..done }, "listed"),
            (Done { read: true, ..done }, "read"),
            (Done { wrote: true, ..done }, "written"),
            (Done { deleted: true, ..done }, "deleted"),
        ] {
            let check = check("x", &Ok(done));
            assert!(check.code == Some(Code::BucketPublic) && check.found.ends_with(verb), "{check:?}");
        }
    }

    #[test]
    fn what_could_not_be_tried_is_no_success() {
        let refused = StoreError::new(Kind::Denied, "list", "no such key");
        assert_eq!(check("x", &Err(refused)).verdict, Verdict::Warn);
        let away = StoreError::new(Kind::Transient, "get", "away");
        assert!(passed::<()>(Err(away)).is_err());
        assert!(!passed::<()>(Err(StoreError::new(Kind::Denied, "get", "no"))).unwrap());
    }
}
