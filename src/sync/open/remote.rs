//! What the bucket has, by the list after the grant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Opening;
use super::local::Local;
use crate::error::{Code, Error};
use crate::history::{self, Chain, HistoryError, Id, Mark, Survey};
use crate::sync::journal::{Terms, blocking};
use crate::sync::lease::Held;
use crate::sync::mirror_fetch::{self, Fetched, fetch_mirror};
use crate::sync::start::{self, Mirror, Remote};
use crate::tree::identity::{Creds, auth_dirs};
use crate::tree::staging::Staging;
use crate::tree::{Content, Table};

/// What the bucket has.
pub(super) struct There {
    /// What the bucket makes of our commits.
    pub terms: Terms,
    /// The claimed epoch.
    pub epoch: u32,
    /// The list after the grant.
    pub survey: Survey,
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
pub(super) async fn look(opening: &Opening<'_>, held: Held) -> Result<There, Error> {
    let Held { epoch, mut survey } = held;
    let (env, key) = (opening.env, opening.key);
    let store = &*env.store;
    let scratch = env.root.scratch()?;
    let mut chain = fetch(opening, &survey, &scratch).await;
    if matches!(chain, Err(HistoryError::Gone { .. } | HistoryError::Missing { .. })) {
        // Retention of whoever went before may have been under way: list again, once.
        survey = history::survey(store, key, history::Depth::All, survey.head()).await?;
        chain = fetch(opening, &survey, &scratch).await;
    }
    let chain = match chain {
        Err(error) if !error.is_damage() => return Err(error.into()),
        other => other,
    };
    let creds = match &chain {
        Ok(Some(chain)) => creds_of(chain).await?,
        _ => BTreeMap::new(),
    };
    let mut mirrored = None;
    if survey.commits.is_empty() && mirror_fetch::is_there(store, key).await.map_err(HistoryError::from)? {
        let staging = Staging::create(&opening.site, env.policy.owner, Arc::clone(&env.host));
        let staging = staging.map_err(|error| Error::io("a staging directory cannot be made", error))?;
        let fetched = fetch_mirror(store, key, staging.dir(), &|_, _| {}).await?;
        mirrored = Some((fetched, staging));
    }
    Ok(There { terms: env.terms().await?.clone(), epoch, survey, chain, creds, mirrored, _scratch: scratch })
}

async fn fetch(
    opening: &Opening<'_>,
    survey: &Survey,
    scratch: &tempfile::TempDir,
) -> Result<Option<Arc<Chain>>, HistoryError> {
    let Some(head) = survey.head() else { return Ok(None) };
    let (store, progress) = (&*opening.env.store, opening.attempt.progress);
    history::fetch(store, opening.key, survey, head, scratch.path(), progress).await.map(Arc::new).map(Some)
}

/// The credentials in a chain's tree.
pub(super) async fn creds_of(chain: &Arc<Chain>) -> Result<BTreeMap<String, Creds>, Error> {
    let dirs = auth_dirs(chain.table().files.keys().map(String::as_str));
    let paths: BTreeSet<String> = dirs.iter().map(|dir| crate::sync::plan::creds_path(dir)).collect();
    let chain = Arc::clone(chain);
    let contents = blocking(move || chain.read(&paths)).await??;
    let parse = |dir: String| {
        let bytes = contents.get(&crate::sync::plan::creds_path(&dir)).map(Content::bytes);
        let creds = match bytes {
            Some(Ok(bytes)) => Creds::parse(Some(&bytes)),
            _ => Creds::UNREADABLE,
        };
        (dir, creds)
    };
    Ok(dirs.into_iter().map(parse).collect())
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

    /// As the start table sees it.
    pub fn remote(&self) -> Remote {
        match &self.chain {
            Ok(None) => Remote::Nothing,
            Ok(Some(chain)) => match chain.head().mark {
                Some(Mark::Logout | Mark::Delete) => Remote::Marked,
                _ if chain.table().is_empty() => Remote::Emptied,
                _ if paired(&self.creds) => Remote::Commits(start::Chain::Paired),
                _ => Remote::Commits(start::Chain::Unpaired),
            },
            Err(_) => Remote::Commits(start::Chain::Damaged),
        }
    }

    /// The mirror next to an empty history, compared with what lies here.
    pub fn mirror(&self, local: &Local) -> Mirror {
        let Some((fetched, staging)) = &self.mirrored else { return Mirror::None };
        if fetched.is_tree(&local.table) {
            return Mirror::Equal;
        }
        let dirs = auth_dirs(fetched.table.files.keys().map(String::as_str));
        let read = |dir: &String| {
            let path = crate::sync::plan::creds_path(dir);
            let bytes = staging.dir().read(&path).and_then(std::io::read_to_string);
            Creds::parse(bytes.ok().as_deref().map(str::as_bytes)).identity.paired()
        };
        let there: BTreeSet<_> = dirs.iter().filter_map(read).collect();
        let here: BTreeSet<_> = local.creds.values().filter_map(|creds| creds.identity.paired()).collect();
        match (there.is_empty(), there == here) {
            (true, _) => Mirror::Unpaired,
            (false, true) => Mirror::SameIdentity,
            (false, false) => Mirror::OtherIdentity,
        }
    }

    /// The error of a damaged chain, naming what can still be restored.
    pub async fn damage(&self, opening: &Opening<'_>) -> Option<Error> {
        let error = self.chain.as_ref().err()?;
        let head = self.head()?;
        let scratch = opening.env.root.scratch().ok()?;
        let intact = history::intact::newest_intact(
            &*opening.env.store,
            opening.key,
            &self.survey,
            head,
            scratch.path(),
            opening.attempt.progress,
        )
        .await;
        let advice = match intact {
            Ok(Some(id)) => format!(
                "the newest point of its chain that verifies is {id}: `session-sidecar restore --at {id}` goes back to it"
            ),
            _ => "no point of its chain verifies: `session-sidecar history` lists others".to_owned(),
        };
        Some(Error::new(Code::Damaged, format!("session {}: {error}; {advice}", opening.key)))
    }
}

fn paired(creds: &BTreeMap<String, Creds>) -> bool {
    creds.values().any(|creds| creds.identity.paired().is_some())
}
