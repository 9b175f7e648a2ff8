//! Commits that a person asks for while no process watches: a logout, a rewind.

use std::sync::Arc;

use super::env::Env;
use super::journal::{Draft, Journal, blocking};
use super::points::{Wanted, find};
use super::state::LocalState;
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

/// A tombstone: the session restores as a new one. What lies on this disk is set aside by the next start.
pub async fn log_out(env: &Arc<Env>, key: &SessionKey) -> Result<Written, Error> {
    let before = env.list(key, Depth::Chain).await?;
    let pinned = before.head().ok_or_else(|| {
        Error::new(Code::NoSession, format!("session {key} has no history: there is nothing to log out"))
    })?;
    let mut journal = take(env, key, &before).await?;
    let commit = write(&mut journal, key, Draft::empty(Some(Mark::Logout)), "logout").await?;
    env.note_end(key);
    Ok(Written { commit, pinned: Some(pinned) })
}

/// Goes back to an earlier point: it becomes the new head; the old one is pinned. The restore itself is the next start's.
pub async fn rewind(env: &Arc<Env>, key: &SessionKey, wanted: Wanted) -> Result<Written, Error> {
    let survey = env.list(key, Depth::All).await?;
    let target = find(&survey, key, wanted)?;
    let scratch = env.root.scratch()?;
    let chain = history::fetch(&*env.store, key, &survey, target, scratch.path(), &history::Silent).await?;
    let table = chain.table().clone();
    let paths = table.files.keys().cloned().collect();
    let contents = blocking(move || chain.read(&paths)).await??;
    let draft = Draft { mark: Some(Mark::Rewind), ..Draft::base(table, contents) };
    // Only once it is there to go back to: a claim stops whoever has the session.
    let mut journal = take(env, key, &survey).await?;
    let pinned = journal.head();
    // The tree is going to be replaced: whoever goes back has stopped the bot.
    journal.update_state(|state| state.ready = None)?;
    let commit = write(&mut journal, key, draft, "rewind").await?;
    env.note_return(key);
    Ok(Written { commit, pinned })
}

async fn take(env: &Arc<Env>, key: &SessionKey, before: &Survey) -> Result<Journal, Error> {
    let state_file = env.root.state_file(key);
    let project = &env.project;
    let known = LocalState::load(&state_file, &project.url, &project.bucket, &*env.host)?;
    let mut state = env.state(known);
    let held = env.take(key, before, &mut state, env.wait()).await?;
    env.journal(key, state, state_file, held.survey.head()).await
}

async fn write(journal: &mut Journal, key: &SessionKey, draft: Draft, reason: &str) -> Result<Id, Error> {
    journal.pin(reason).await.map_err(|lost| lost.into_error(key))?;
    journal.append(draft).await.map_err(|lost| lost.into_error(key))
}
