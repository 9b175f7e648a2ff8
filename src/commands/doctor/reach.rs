//! What a token of ours reaches beyond what it is for, by trying.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;

use super::check::Check;
use super::objects::Probe;
use crate::config::RemoteConfig;
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::session::{HISTORY, Scope};
use crate::store::{Kind, Page, Put, Store, StoreError};
use crate::supabase::{CredentialSource, Reply, Request, RestError, RestKind, Supabase};

const NAME: &str = "reach of the token";
/// Names of one list: enough to find a policy that opens too much.
const LOOK: usize = 1000;

/// Tries it; nothing for a key that is meant to open everything.
pub(super) async fn check(remote: &RemoteConfig, table: &str, content_type: String) -> Option<Check> {
    let credential = match remote.credential(Real.now()) {
        Ok(credential) => credential,
        Err(error) => return Some(Check::error(NAME, &error, "make another with `session-sidecar token`")),
    };
    let scope = credential.token()?.scope.clone();
    // Refusals must be those of the server.
    let server = remote.connect_as(CredentialSource::fixed(credential.unguarded()), Arc::new(Real));
    let found = async {
        let server = server?;
        let mut found = objects(&server, &scope, content_type).await?;
        found.extend(buckets(&server).await?);
        found.extend(rows(&server, &scope, "session_sidecar_leases").await?);
        found.extend(rows(&server, &scope, table).await?);
        Ok::<_, Error>(found)
    };
    Some(judge(&scope, found.await))
}

fn judge(scope: &Scope, found: Result<Vec<String>>) -> Check {
    match found {
        Err(error) => Check::warn(NAME, format!("could not be tried: {error}"), "mend that, and try again"),
        Ok(found) if found.is_empty() => {
            Check::ok(NAME, format!("it is for {scope}, and nothing else was found that it opens"))
        }
        Ok(found) => Check::fail(
            NAME,
            Code::BucketPublic,
            format!("it is for {scope} and opens also {}", found.join("; ")),
            "apply the SQL again (`session-sidecar schema`), which keeps the role session_sidecar to its own, and look for \
             what was granted to it, or to everybody, beside",
        ),
    }
}

/// Other sessions' objects of the bucket, seen or written.
async fn objects(server: &Supabase, scope: &Scope, content_type: String) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for prefix in [String::new(), format!("{HISTORY}/")] {
        let page = Page { prefix, limit: LOOK, ..Page::default() };
        let listed = server.list(&page).await?;
        if let Some(foreign) = listed.objects.iter().find(|object| !scope.reaches(&object.key)) {
            found.push(format!("objects of others in the bucket ({})", foreign.key));
            break;
        }
    }
    let probe = Probe::beyond(content_type);
    let key = format!("{}forged", probe.history);
    if scope.reaches(&key) {
        // All of the bucket: there is no beyond.
        return Ok(found);
    }
    match server.put(&key, Bytes::from_static(b"forged"), &Put { overwrite: false, ..probe.how() }).await {
        Ok(()) => {
            found.push("the history of others, to write into".to_owned());
            // Another role made it possible to write, and may have made it possible to clean up, too.
            let _ = server.remove(&[key]).await;
        }
        Err(error) if is_refusal(&error) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(found)
}

fn is_refusal(error: &StoreError) -> bool {
    matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::NoBucket)
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// Buckets that are not ours.
async fn buckets(server: &Supabase) -> Result<Option<String>> {
    let client = server.client();
    let url = server.bucket_url().await?;
    let Some((all, _)) = url.rsplit_once('/') else { return Ok(None) };
    let op = "buckets";
    match client.send(&Request::new(op, Method::GET, all.to_owned())).await? {
        Reply::Refusal(answer) => {
            let error = client.refusal(op, &answer);
            if is_refusal(&error) { Ok(None) } else { Err(error.into()) }
        }
        Reply::Success(response) => {
            let answer = client.read(op, response).await?;
            let all: Vec<Named> =
                serde_json::from_slice(&answer.body).map_err(|_| client.foreign(op, "buckets"))?;
            let other = all.into_iter().find(|bucket| bucket.id != server.name());
            Ok(other.map(|bucket| format!("bucket `{}`", bucket.id)))
        }
    }
}

#[derive(Deserialize)]
struct Row {
    user_id: Option<String>,
    session_id: Option<String>,
}

/// Rows of others in a table.
async fn rows(server: &Supabase, scope: &Scope, table: &str) -> Result<Option<String>> {
    let query = format!("select=user_id,session_id&limit={LOOK}");
    match server.client().rows::<Row>(table, &query).await {
        Ok(rows) => {
            let covered = |row: &Row| {
                let id = |id: &Option<String>| id.clone().unwrap_or_default();
                scope.covers(&id(&row.user_id), &id(&row.session_id))
            };
            Ok(rows.iter().any(|row| !covered(row)).then(|| format!("rows of others in the table {table}")))
        }
        // No such table, or none for this role.
        Err(RestError { kind: RestKind::Denied | RestKind::Missing | RestKind::Refused, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_token_that_opens_more_fails_and_one_that_could_not_be_tried_is_no_success() {
        let scope = Scope::User("u".to_owned());
        assert_eq!(judge(&scope, Ok(Vec::new())).verdict, Verdict::Ok);
        let more = judge(&scope, Ok(vec!["bucket `avatars`".to_owned()]));
        assert_eq!((more.verdict, more.code), (Verdict::Fail, Some(Code::BucketPublic)));
        assert!(more.found.contains("avatars") && more.found.contains("user u"), "{}", more.found);
        assert_eq!(judge(&scope, Err(Error::new(Code::Unreachable, "away"))).verdict, Verdict::Warn);
    }
}
