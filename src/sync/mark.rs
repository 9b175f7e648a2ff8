//! Commits that a person asks for: a logout, a rewind; and, with [`deletion`](super::deletion), a delete.

use std::sync::Arc;

use futures_util::future::join;

use super::env::Env;
use super::journal::{Draft, Journal, Lost, blocking};
use super::points::{Wanted, find};
use super::report::MarkReport;
use crate::error::{Code, Error};
use crate::history::{self, Depth, Id, Mark, Survey};
use crate::session::SessionKey;

/// What was written, and the pin before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The new head.
    pub commit: Id,
    /// What was the head.
    pub pinned: Option<Id>,
}

impl Written {
    /// For whoever asked.
    #[must_use]
    pub fn report(self, key: &SessionKey) -> MarkReport {
        MarkReport {
            session: key.to_string(),
            commit: self.commit.to_string(),
            pinned: self.pinned.map(|id| id.to_string()),
        }
    }
}

/// A tombstone: the session restores as a new one. What lies on this disk is set aside by the next start.
pub async fn log_out(env: &Arc<Env>, key: &SessionKey) -> Result<Written, Error> {
    let before = env.list(key, Depth::Chain).await?;
    if before.head().is_none() {
        let text = format!("session {key} has no history: there is nothing to log out");
        return Err(Error::new(Code::NoSession, text));
    }
    let (mut journal, _) = take(env, key, &before).await?;
    let written = write(&mut journal, Mark::Logout, Draft::empty(None)).await;
    let written = written.map_err(|lost| lost.into_error(key))?;
    give_back(env, key, written.commit).await;
    Ok(written)
}

/// Goes back to an earlier point: it becomes the new head; the old one is pinned. The restore itself is the next start's.
pub async fn rewind(env: &Arc<Env>, key: &SessionKey, wanted: Wanted) -> Result<Written, Error> {
    let survey = env.list(key, Depth::All).await?;
    let target = find(&survey, key, wanted)?;
    go_back(env, key, &survey, target).await
}

/// The same, to a listed commit.
pub(super) async fn go_back(
    env: &Arc<Env>,
    key: &SessionKey,
    survey: &Survey,
    target: Id,
) -> Result<Written, Error> {
    let scratch = env.root.scratch()?;
    let known = env.known(key)?;
    let chain =
        history::fetch(env.access(known.as_ref()), key, survey, target, scratch.path(), &history::Silent)
            .await?;
    let table = chain.table().clone();
    let paths = table.files.keys().cloned().collect();
    let contents = blocking(move || chain.read(&paths)).await??;
    // Only once it is there to go back to: a claim stops whoever has the session.
    let (mut journal, _) = take(env, key, survey).await?;
    // The tree is going to be replaced: whoever goes back has stopped the bot.
    journal.update_state(|state| state.ready = None)?;
    let written = write(&mut journal, Mark::Rewind, Draft::base(table, contents)).await;
    written.map_err(|lost| lost.into_error(key))
}

/// Takes the session: the journal of a fresh grant, and the list that it begins at.
pub(super) async fn take(
    env: &Arc<Env>,
    key: &SessionKey,
    before: &Survey,
) -> Result<(Journal, Survey), Error> {
    // What is written without keys would not be believed by whoever has them.
    let sealed = before.head().filter(|id| before.commits.get(id).is_some_and(|head| head.name.encrypted));
    if let Some(id) = sealed.filter(|_| !env.keys.encrypts() && !env.keys.accepts_plaintext()) {
        return Err(history::HistoryError::NoIdentity { id }.into());
    }
    let mut state = env.state(env.known(key)?);
    let held = env.take(key, before, &mut state, env.wait()).await?;
    let journal = env.journal(key, state, env.root.state_file(key), held.survey.head()).await?;
    Ok((journal, held.survey))
}

/// Pins the head, then writes the commit that ends it or takes its place. // P2
pub(super) async fn write(journal: &mut Journal, mark: Mark, draft: Draft) -> Result<Written, Lost> {
    let pinned = journal.head();
    journal.pin(mark.as_str()).await?;
    let commit = journal.append(Draft { mark: Some(mark), ..draft }).await?;
    journal.note(mark);
    Ok(Written { commit, pinned })
}

/// The lease's row remembers the commit, and whoever waits for the session need not wait for the lease to run out.
pub(super) async fn give_back(env: &Env, key: &SessionKey, head: Id) {
    env.leases.note_head(key, head);
    join(env.leases.release(std::slice::from_ref(key)), env.last_notes()).await;
}
