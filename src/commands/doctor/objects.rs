//! Objects that are written to see what happens, and removed again.

use bytes::Bytes;
use uuid::Uuid;

use super::check::Check;
use crate::error::Code;
use crate::session::Scope;
use crate::store::{self, Kind, Page, Put, Store, StoreError};

/// The folder of all history.
pub(super) const HISTORY: &str = ".history/";

/// Names that no session can have: no id starts with a dot.
#[derive(Debug)]
pub(super) struct Probe {
    /// A folder where histories lie.
    pub(super) history: String,
    /// A folder where the mirrors of users lie. None where it would lie in a session that may be at work.
    pub(super) mirror: Option<String>,
    /// A type that the bucket accepts.
    pub(super) content_type: String,
}

/// A step that went wrong.
#[derive(Debug)]
pub(super) struct Broken {
    code: Code,
    what: String,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self { code: error.kind.code(), what: error.to_string() }
    }
}

fn wrong(what: &str) -> Broken {
    Broken { code: Code::NotSupabase, what: what.to_owned() }
}

const FILES: [&str; 4] = ["first", "second", "probe", "forged"];

impl Probe {
    /// New names, where a key reaches: all of the bucket, or what a token is for.
    pub(super) fn new(content_type: String, scope: Option<&Scope>) -> Self {
        let folder = scope.map(Scope::folder).unwrap_or_default();
        let name = format!("{folder}.doctor-{}/", Uuid::new_v4());
        let mirror = (!matches!(scope, Some(Scope::Session(_)))).then(|| name.clone());
        Self { history: format!("{HISTORY}{name}"), mirror, content_type }
    }

    /// New names that no token for a user or a session reaches.
    pub(super) fn beyond(content_type: String) -> Self {
        Self::new(content_type, None)
    }

    /// How probes are written.
    pub(super) fn how(&self) -> Put {
        Put { content_type: self.content_type.clone(), ..Put::default() }
    }

    /// All that history is made of: writes, lists, reads, moves (never onto what is there) and deletes.
    pub(super) async fn round_trip(&self, store: &dyn Store) -> Result<(), Broken> {
        let [first, second] = [FILES[0], FILES[1]].map(|name| format!("{}{name}", self.history));
        let content = Bytes::from(Uuid::new_v4().to_string());
        store.put(&first, content.clone(), &self.how()).await?;
        if !names(store, &self.history).await?.contains(&first) {
            return Err(wrong("what was written is not in the list"));
        }
        if store::read(store, &first).await? != content {
            return Err(wrong("other bytes were read than were written"));
        }
        store.rename(&first, &second).await?;
        store.put(&first, content, &self.how()).await?;
        match store.rename(&first, &second).await {
            Err(error) if error.kind == Kind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
            // Two writers would both believe that a name is theirs.
            Ok(()) => return Err(wrong("a move replaced an object that was there")),
        }
        store.remove(&[first, second]).await?;
        if !names(store, &self.history).await?.is_empty() {
            return Err(wrong("what was deleted is still in the list"));
        }
        Ok(())
    }

    /// Removes all that this or anybody else may have made of them; a line only when that fails.
    pub(super) async fn clean(&self, store: &dyn Store) -> Option<Check> {
        let folders = || [Some(&self.history), self.mirror.as_ref()].into_iter().flatten();
        let keys = folders().flat_map(|folder| FILES.map(|name| format!("{folder}{name}")));
        let error = store.remove(&keys.collect::<Vec<_>>()).await.err()?;
        let left: Vec<_> = folders().map(String::as_str).collect();
        let found = format!("probes may be left below {}: {error}", left.join(" and "));
        Some(Check::warn("clean up", found, "delete what lies there in the dashboard"))
    }
}

/// The keys below a folder.
pub(super) async fn names(store: &dyn Store, folder: &str) -> Result<Vec<String>, StoreError> {
    let page = Page { prefix: folder.to_owned(), ..Page::default() };
    Ok(store.list(&page).await?.objects.into_iter().map(|object| object.key).collect())
}

/// What came of the round trip.
pub(super) fn check(result: Result<(), Broken>) -> Check {
    const NAME: &str = "objects";
    let Err(Broken { code, what }) = result else {
        return Check::ok(NAME, "an object was written, listed, read, moved and deleted");
    };
    let advice = match code {
        Code::Unauthorized => {
            "give the secret (service_role) key or a token of `session-sidecar token`, or let policies open the bucket to \
             your own role"
        }
        Code::Unreachable => "try again; if it stays, see Supabase's status page and the project's logs",
        Code::BucketRefuses => "run `session-sidecar init`: it widens what the bucket takes",
        _ => "see whether a proxy or a cache changes what lies between, and which version of Storage answers",
    };
    Check::fail(NAME, code, what, advice)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::commands::doctor::check::Verdict;
    use crate::host::Real;
    use crate::store::Memory;

    #[tokio::test]
    async fn a_store_that_works_passes_and_nothing_is_left() {
        let (store, probe) = (Memory::new(Arc::new(Real)), Probe::new("text/plain".to_owned(), None));
        assert_eq!(check(probe.round_trip(&store).await).verdict, Verdict::Ok);
        for folder in [&probe.history, probe.mirror.as_ref().unwrap()] {
            for name in FILES {
                store.put(&format!("{folder}{name}"), Bytes::new(), &probe.how()).await.unwrap();
            }
        }
        assert_eq!(probe.clean(&store).await, None);
        assert!(names(&store, "").await.unwrap().is_empty());
    }

    #[test]
    fn probes_lie_where_a_token_reaches_and_never_in_the_mirror_of_one_session() {
        let of = |scope: &Scope| Probe::new("text/plain".to_owned(), Some(scope));
        for scope in [Scope::Bucket, Scope::User("u".into()), Scope::Session("u/s".parse().unwrap())] {
            let probe = of(&scope);
            assert!(scope.reaches(&probe.history) && probe.mirror.iter().all(|mirror| scope.reaches(mirror)));
            assert_eq!(probe.mirror.is_none(), matches!(scope, Scope::Session(_)));
            let beyond = Probe::beyond("text/plain".to_owned());
            assert_eq!(scope.reaches(&beyond.history), scope == Scope::Bucket);
        }
    }

    #[test]
    fn a_failure_keeps_its_meaning() {
        let denied = StoreError::new(Kind::Denied, "put", "no");
        assert_eq!(check(Err(denied.into())).code, Some(Code::Unauthorized));
        assert_eq!(check(Err(wrong("x"))).code, Some(Code::NotSupabase));
    }
}
