//! The project as a whole: whether it answers, and to which key.

use jiff::Timestamp;

use super::check::Check;
use crate::config::{KeySource, RemoteConfig};
use crate::error::{Code, Result};
use crate::store::{Bucket, Kind, StoreError};
use crate::supabase::{Credential, CredentialKind, Endpoint};

/// Whether Supabase is there, by its answer about the bucket.
pub(super) fn reached(endpoint: &Endpoint, answer: &Result<Bucket, StoreError>) -> Check {
    const NAME: &str = "project";
    match answer {
        Err(error) if error.kind != Kind::NoBucket => {
            let code = error.kind.code();
            let advice = match code {
                Code::Unauthorized => "give the secret (service_role) key of this very project",
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
    let credential = Credential::parse(remote.key.expose(), now)?;
    Ok(kind_of_key(credential.kind(), &remote.key_source))
}

fn kind_of_key(kind: &CredentialKind, source: &KeySource) -> Check {
    const NAME: &str = "key";
    let kind = match kind {
        CredentialKind::Secret => "an sb_secret_ key".to_owned(),
        CredentialKind::Jwt { role, .. } if role == "service_role" => "the service_role key".to_owned(),
        CredentialKind::Jwt { role, .. } => {
            let found = format!("a token of the database's role `{role}`");
            let advice = "the SQL opens functions, tables and .history/ to service_role alone: use its key, or grant \
                          this role the same";
            return Check::warn(NAME, found, advice);
        }
    };
    match source {
        KeySource::Flag => Check::warn(
            NAME,
            format!("{kind}, given as a flag"),
            "everybody on this machine can see it in `ps`: use SUPABASE_SERVICE_ROLE_KEY or its _FILE",
        ),
        KeySource::Variable(name) => Check::ok(NAME, format!("{kind}, from {name}")),
        KeySource::File(path) => Check::ok(NAME, format!("{kind}, from {}", path.display())),
        KeySource::Own(_) => Check::ok(NAME, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_missing_bucket_does_not_make_the_project_unreachable() {
        let endpoint = Endpoint::parse("https://abcdefghijklmnopqrst.supabase.co").unwrap();
        let answer = |kind| reached(&endpoint, &Err(StoreError::new(kind, "bucket", "said so")));
        assert_eq!(answer(Kind::NoBucket).verdict, Verdict::Ok);
        assert_eq!(answer(Kind::Transient).code, Some(Code::Unreachable));
        assert_eq!(answer(Kind::Denied).code, Some(Code::Unauthorized));
        assert_eq!(answer(Kind::Protocol).code, Some(Code::NotSupabase));
    }

    #[test]
    fn a_connection_in_the_clear_is_told_but_not_on_this_machine() {
        let over = |url| reached(&Endpoint::parse(url).unwrap(), &Ok(Bucket::default())).verdict;
        assert_eq!(over("http://supabase.lan"), Verdict::Warn);
        assert_eq!(over("http://127.0.0.1:54321"), Verdict::Ok);
        assert_eq!(over("https://supabase.lan"), Verdict::Ok);
    }

    #[test]
    fn the_key_of_a_role_of_ones_own_and_one_that_shows_in_ps_are_told() {
        let role = |role: &str| CredentialKind::Jwt { role: role.to_owned(), project: None };
        let variable = KeySource::Variable("SUPABASE_SECRET_KEY");
        assert_eq!(kind_of_key(&role("service_role"), &variable).verdict, Verdict::Ok);
        assert_eq!(kind_of_key(&CredentialKind::Secret, &variable).verdict, Verdict::Ok);
        assert!(kind_of_key(&role("sidecar"), &variable).found.contains("`sidecar`"));
        assert_eq!(kind_of_key(&CredentialKind::Secret, &KeySource::Flag).verdict, Verdict::Warn);
    }
}
