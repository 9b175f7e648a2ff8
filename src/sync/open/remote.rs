//! What the bucket has, by the list after the grant.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::Opening;
use super::local::Local;
use crate::error::Error;
use crate::history::chain::blocking;
use crate::history::{self, Chain, HistoryError, Id, Mark, Survey};
use crate::sync::mirror_fetch::{self, Fetched, fetch_mirror};
use crate::sync::points;
use crate::sync::start::{self, Mirror, Remote};
use crate::tree::identity::{Creds, creds_of, may_tell};
use crate::tree::staging::Staging;
use crate::tree::{Content, Dir, Hash, Table};

/// What the bucket has.
pub(super) struct There {
    /// The list after the grant.
    pub survey: Survey,
    /// The newest acknowledged commit that the lease row remembers.
    pub known_head: Option<Id>,
    /// The head's chain; none without a head.
    pub chain: Result<Option<Arc<Chain>>, HistoryError>,
    /// The credentials in the head's tree.
    pub creds: BTreeMap<String, Creds>,
    /// A mirror next to an empty history, with the directory it lies in.
    pub mirrored: Option<(Fetched, Staging)>,
    /// Where the chain's objects lie until they are extracted.
    _scratch: tempfile::TempDir,
}

/// Step 4, and what else the start table asks of the bucket.
pub(super) async fn look(opening: &Opening<'_>, mut survey: Survey) -> Result<There, Error> {
    let (env, key) = (opening.env, opening.key);
    let store = &*env.store;
    let scratch = env.root.scratch()?;
    let mut head = fetch(opening, &survey, &scratch).await;
    if matches!(head, Err(HistoryError::Gone { .. } | HistoryError::Missing { .. })) {
        // Retention of whoever went before may have been under way: list again, once.
        survey = history::survey(store, key, history::Depth::All, survey.head()).await?;
        head = fetch(opening, &survey, &scratch).await;
    }
    let (chain, creds) = match head {
        Ok((chain, creds)) => (Ok(chain), creds),
        Err(error) if error.is_damage() => (Err(error), BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut mirrored = None;
    if survey.commits.is_empty() && mirror_fetch::is_there(store, key).await.map_err(HistoryError::from)? {
        let staging = Staging::create(&opening.site, env.policy.owner, Arc::clone(&env.host));
        let staging = staging.map_err(|error| Error::io("a staging directory cannot be made", error))?;
        let fetched = fetch_mirror(store, key, staging.dir(), &|_, _| {}).await?;
        mirrored = Some((fetched, staging));
    }
    Ok(There { survey, known_head: None, chain, creds, mirrored, _scratch: scratch })
}

/// The head's chain, and the credentials in its tree.
async fn fetch(
    opening: &Opening<'_>,
    survey: &Survey,
    scratch: &tempfile::TempDir,
) -> Result<(Option<Arc<Chain>>, BTreeMap<String, Creds>), HistoryError> {
    let Some(head) = survey.head() else { return Ok((None, BTreeMap::new())) };
    let (access, progress) = (opening.access(), opening.attempt.progress);
    let chain = history::fetch(access, opening.key, survey, head, scratch.path(), progress).await?;
    let chain = Arc::new(chain);
    let creds = creds_in(&chain, scratch.path()).await?;
    Ok((Some(chain), creds))
}

/// The credentials that the newest tombstone ended: what was pinned before it.
pub(super) async fn ended_creds(opening: &Opening<'_>) -> Result<BTreeMap<String, Creds>, Error> {
    let (store, key) = (&*opening.env.store, opening.key);
    let survey = history::survey(store, key, history::Depth::All, None).await?;
    let ends = survey.pins.iter().filter(|pin| matches!(pin.reason.as_str(), "logout" | "delete"));
    let Some(id) = ends.map(|pin| pin.id).max() else { return Ok(BTreeMap::new()) };
    let scratch = opening.env.root.scratch()?;
    let progress = opening.attempt.progress;
    let chain = history::fetch(opening.access(), key, &survey, id, scratch.path(), progress).await?;
    Ok(creds_in(&Arc::new(chain), scratch.path()).await?)
}

/// The credentials in a chain's tree.
async fn creds_in(chain: &Arc<Chain>, scratch: &Path) -> Result<BTreeMap<String, Creds>, HistoryError> {
    let (read, scratch) = (Arc::clone(chain), scratch.to_owned());
    let work = move || {
        let names = read.table().files.keys().map(String::as_str);
        let paths: BTreeSet<String> =
            names.clone().filter(|path| may_tell(path)).map(str::to_owned).collect();
        let contents = read.read(&paths)?;
        let content = |path: &str| contents.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        creds_of(names, &scratch, content).map_err(|error| HistoryError::io("reading accounts", error))
    };
    blocking(work).await
}

impl There {
    /// The newest commit.
    pub fn head(&self) -> Option<Id> {
        self.survey.head()
    }

    /// The head's tree, where its chain is whole.
    pub fn table(&self) -> Option<&Table> {
        self.chain.as_ref().ok()?.as_deref().map(Chain::table)
    }

    /// The mark of a session that was ended; who goes back to where it began ends it, too.
    pub fn ended(&self) -> Option<Mark> {
        let chain = self.chain.as_ref().ok()?.as_deref()?;
        chain.head().mark.filter(|mark| *mark != Mark::Rewind || chain.table().is_empty())
    }

    /// As the start table sees it.
    pub fn remote(&self) -> Remote {
        match &self.chain {
            Ok(None) => Remote::Nothing,
            Ok(Some(_)) if self.ended().is_some() => Remote::Marked,
            Ok(Some(chain)) if chain.table().is_empty() => Remote::Emptied,
            Ok(Some(_)) if paired(&self.creds) => Remote::Commits(start::Chain::Paired),
            Ok(Some(_)) => Remote::Commits(start::Chain::Unpaired),
            Err(_) => Remote::Commits(start::Chain::Damaged),
        }
    }

    /// The mirror next to an empty history, compared with what lies here.
    pub fn mirror(&self, local: &Local, spool: &Path) -> Mirror {
        let Some((fetched, staging)) = &self.mirrored else { return Mirror::None };
        if fetched.table.same_content(&local.table) {
            return Mirror::Equal;
        }
        let paired = |creds: &BTreeMap<String, Creds>| -> BTreeSet<Hash> {
            creds.values().flat_map(|creds| creds.identity.paired()).collect()
        };
        let names = fetched.table.files.keys().map(String::as_str);
        // What cannot be told is another's.
        let there = creds_of(names, spool, |path| read_staged(staging.dir(), path));
        let there = there.map_or_else(|_| BTreeSet::from([Hash::of(b"")]), |creds| paired(&creds));
        let here = paired(&local.sight.creds);
        match (there.is_empty(), there == here) {
            (true, _) => Mirror::Unpaired,
            (false, true) => Mirror::SameIdentity,
            (false, false) => Mirror::OtherIdentity,
        }
    }

    /// The error of a damaged chain, naming what can still be restored.
    pub async fn damage(&self, opening: &Opening<'_>, error: &HistoryError) -> Error {
        let Some(head) = self.head() else { return Error::new(error.code(), error.to_string()) };
        let scratch = match opening.env.root.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return error,
        };
        let (access, progress) = (opening.access(), opening.attempt.progress);
        points::damage(access, opening.key, &self.survey, head, error, scratch.path(), progress).await
    }
}

/// A file of a tree in staging, which nobody else writes.
pub(super) fn read_staged(dir: &Dir, path: &str) -> io::Result<Content> {
    let mut bytes = Vec::new();
    dir.read(path)?.read_to_end(&mut bytes)?;
    Ok(Content::Bytes(bytes.into()))
}

/// Whether any account is linked.
pub(super) fn paired(creds: &BTreeMap<String, Creds>) -> bool {
    creds.values().any(|creds| creds.identity.is_paired())
}
