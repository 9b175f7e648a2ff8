//! The project as a whole: whether it answers, and to which key.

use jiff::Timestamp;

use super::check::Check;
use crate::config::{KeySource, RemoteConfig};
use crate::error::{Code, Result};
use crate::store::{Bucket, Kind, StoreError};
use crate::supabase::{Credential, CredentialKind, Endpoint};

/// Of a key that a sidecar could do without.
const MORE: &str = "; it opens the whole project, which is more than is needed: `session-sidecar token` makes a token that \
                    opens this bucket alone";

/// Whether Supabase is there, by its answer about the bucket.
pub(super) fn reached(endpoint: &Endpoint, answer: &Result<Bucket, StoreError>, advice: &str) -> Check {
    const NAME: &str = "project";
    match answer {
        Err(error) if error.kind != Kind::NoBucket => {
            let code = error.kind.code();
            let advice = match code {
                Code::Unauthorized => advice,
                Code::Unreachable => {
                    "check the network, the URL, Supabase's status page and whether the project is paused"
                }
                _ => "give the project's API URL, as its dashboard shows it",
            };
            let found = format!("{error}; nothing else of the project was tried");
            Check::fail(NAME, code, found, advice)
        }
        _ if !endpoint.is_https() && !endpoint.is_loopback() => Check::warn(
            NAME,
            format!("{endpoint} answers as Supabase does, over a connection that is not encrypted"),
            "give the https:// URL: the secret key and the sessions travel in the clear",
        ),
        _ => Check::ok(NAME, format!("{endpoint} answers as Supabase does")),
    }
}

/// What kind of key it is, and how it was given.
pub(super) fn key(remote: &RemoteConfig, now: Timestamp) -> Result<Check> {
    Ok(kind_of_key(&remote.credential(now)?, &remote.key_source, now))
}

fn kind_of_key(credential: &Credential, source: &KeySource, now: Timestamp) -> Check {
    const NAME: &str = "key";
    let (kind, more) = match (credential.token(), credential.kind()) {
        (Some(token), _) => {
            let ends = match token.expires_at {
                Some(end) => format!("until {}", end.strftime("%F %R UTC")),
                None => "for ever".to_owned(),
            };
            let found = format!("a token for {}, valid {ends}", token.scope);
            if token.expires_at.is_none() {
                let advice = "one that is lost opens the sessions for ever: make one that ends with `session-sidecar token`";
                return Check::warn(NAME, found, advice);
            }
            if let Some(days) = token.ends_soon(now) {
                let found = format!("{found}, which is in {days} days");
                return Check::warn(NAME, found, "make a new one with `session-sidecar token`");
            }
            (found, "")
        }
        (None, CredentialKind::Secret) => ("an sb_secret_ key".to_owned(), MORE),
        (None, CredentialKind::Jwt { role, .. }) if role == "service_role" => {
            ("the service_role key".to_owned(), MORE)
        }
        (None, CredentialKind::Jwt { role, .. }) => {
            let found = format!("a token of the database's role `{role}`");
            let advice = "the SQL opens functions, tables and .history/ to service_role and session_sidecar alone: make a \
                          token with `session-sidecar token`, or grant this role the same";
            return Check::warn(NAME, found, advice);
        }
    };
    match source {
        KeySource::Flag => Check::warn(
            NAME,
            format!("{kind}, given as a flag"),
            "everybody on this machine can see it in `ps`: use a variable (SUPABASE_SERVICE_ROLE_KEY, \
             SUPABASE_SIDECAR_TOKEN) or its _FILE",
        ),
        KeySource::Variable(name) => Check::ok(NAME, format!("{kind}, from {name}{more}")),
        KeySource::File(path) => Check::ok(NAME, format!("{kind}, from {}{more}", path.display())),
        KeySource::Own(_) => Check::ok(NAME, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;
    use crate::session::Scope;
    use crate::supabase::mint;

    #[test]
    fn a_missing_bucket_does_not_make_the_project_unreachable() {
        let endpoint = Endpoint::parse("https://abcdefghijklmnopqrst.supabase.co").unwrap();
        let answer =
            |kind| reached(&endpoint, &Err(StoreError::new(kind, "bucket", "said so")), "give another");
        assert_eq!(answer(Kind::NoBucket).verdict, Verdict::Ok);
        assert_eq!(answer(Kind::Transient).code, Some(Code::Unreachable));
        let denied = answer(Kind::Denied);
        assert_eq!((denied.code, denied.advice.as_deref()), (Some(Code::Unauthorized), Some("give another")));
        assert_eq!(answer(Kind::Protocol).code, Some(Code::NotSupabase));
    }

    #[test]
    fn a_connection_in_the_clear_is_told_but_not_on_this_machine() {
        let over = |url| reached(&Endpoint::parse(url).unwrap(), &Ok(Bucket::default()), "").verdict;
        assert_eq!(over("http://supabase.lan"), Verdict::Warn);
        assert_eq!(over("http://127.0.0.1:54321"), Verdict::Ok);
        assert_eq!(over("https://supabase.lan"), Verdict::Ok);
    }

    #[test]
    fn the_key_of_a_role_of_ones_own_and_one_that_shows_in_ps_are_told() {
        let jwt = |role: &str| {
            let claims = serde_json::json!({ "role": role });
            let key = jsonwebtoken::EncodingKey::from_secret(b"any");
            jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
        };
        let of = |key: &str, source: &KeySource| {
            let now = Timestamp::UNIX_EPOCH;
            kind_of_key(&Credential::parse(key, now).unwrap(), source, now)
        };
        let variable = KeySource::Variable("SUPABASE_SECRET_KEY");
        for key in [jwt("service_role").as_str(), "sb_secret_x"] {
            let check = of(key, &variable);
            assert!(
                check.verdict == Verdict::Ok && check.found.contains("session-sidecar token"),
                "{check:?}"
            );
            assert_eq!(of(key, &KeySource::Flag).verdict, Verdict::Warn);
        }
        let other = of(&jwt("sidecar"), &variable);
        assert!(other.verdict == Verdict::Warn && other.found.contains("`sidecar`"), "{other:?}");
        let endless = of(&jwt("session_sidecar"), &variable);
        assert!(endless.verdict == Verdict::Warn && endless.found.contains("for ever"), "{endless:?}");
    }

    #[test]
    fn a_token_that_ends_within_two_weeks_is_a_warning() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let of = |days: u64| {
            let ttl = std::time::Duration::from_hours(24 * days);
            let minted = mint(&"s".repeat(32), &Scope::User("u".into()), ttl, now).unwrap();
            let credential = Credential::parse(&minted.token, now).unwrap();
            kind_of_key(&credential, &KeySource::Variable("SUPABASE_SIDECAR_TOKEN"), now)
        };
        let check = of(13);
        assert!(check.verdict == Verdict::Warn && check.found.contains("in 13 days"), "{check:?}");
        let check = of(14);
        assert_eq!(check.verdict, Verdict::Ok);
        for says in ["the sessions of user u", "2026-12-12 12:00 UTC", "SUPABASE_SIDECAR_TOKEN"] {
            assert!(check.found.contains(says), "{check:?}");
        }
    }
}
