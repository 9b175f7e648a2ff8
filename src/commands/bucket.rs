//! Commands that read the bucket on their own, without a lease: what they share.

use std::path::Path;

use super::output::Output;
use super::{progress, setup};
use crate::cli::Look;
use crate::config::{Place, RemoteConfig, environment};
use crate::error::{Code, Error, Result};
use crate::history::{self, Access, Chain, Depth, HistoryError, Keys, Survey};
use crate::session::SessionKey;
use crate::store::SharedStore;
use crate::sync::journal::Terms;
use crate::sync::{discover, points};

/// A bucket that answered, and which of its sessions is meant.
pub(super) struct Bucket {
    /// The bucket.
    pub(super) store: SharedStore,
    /// The session that was named.
    pub(super) named: Option<SessionKey>,
    keys: Keys,
    place: Place,
}

impl Bucket {
    /// Connects. What it lists may be believed: the bucket is there, private, and open to our key.
    pub(super) async fn open(look: &Look) -> Result<Self> {
        let place = Place::new(&look.place)?;
        let named = place.target(look.key.as_ref())?;
        let remote = RemoteConfig::new(&look.remote, &environment)?;
        let (store, _) = setup::store(&remote)?;
        Terms::of(&remote.bucket, store.bucket().await)?;
        Ok(Self { store, named, keys: remote.keys, place })
    }

    /// How history is read.
    pub(super) fn access(&self) -> Access<'_> {
        Access::new(&*self.store, &self.keys)
    }

    /// The sessions that are meant: the named one, or all that the bucket has below this root.
    pub(super) async fn sessions(&self) -> Result<Vec<SessionKey>> {
        if let Some(key) = &self.named {
            return Ok(vec![key.clone()]);
        }
        let found = discover::remote(&*self.store, &self.place.layout).await.map_err(HistoryError::from)?;
        Ok(found.into_iter().collect())
    }

    /// The one session that is meant.
    pub(super) async fn session(&self) -> Result<SessionKey> {
        let mut found = self.sessions().await?;
        match (found.pop(), found.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => {
                Err(Error::new(Code::NoSession, "the bucket has no session: check its name and the user"))
            }
            (Some(_), more) => Err(Error::new(
                Code::Usage,
                format!("the bucket has {} sessions: name one as USER/ID", more + 1),
            )),
        }
    }
}

/// A point of history, fetched and verified as far as its tree.
pub(super) async fn fetch(
    access: Access<'_>,
    key: &SessionKey,
    at: Option<points::Wanted>,
    scratch: &Path,
    out: Output,
) -> Result<Chain> {
    let progress = progress::listener(out, &format!("fetching {key}"));
    let survey = history::survey(access.store, key, Depth::All, None).await?;
    let id = points::find(&survey, key, at.unwrap_or(points::Wanted::Newest))?;
    match history::fetch(access, key, &survey, id, scratch, &*progress).await {
        Err(error) => Err(explain(access, key, &survey, id, error).await),
        Ok(chain) => Ok(chain),
    }
}

/// An error that says which point can still be had, where this one is damaged.
pub(super) async fn explain(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    id: history::Id,
    error: HistoryError,
) -> Error {
    if !error.is_damage() {
        return error.into();
    }
    match tempfile::tempdir() {
        Ok(scratch) => {
            points::damage(access, key, survey, id, &error, scratch.path(), &history::Silent).await
        }
        Err(_) => error.into(),
    }
}
