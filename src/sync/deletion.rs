//! Deleting a session, and bringing it back.
//!
//! A deletion is a commit first, a tombstone under a new epoch: from there on every start, also one with an old disk, is
//! that of a new session, and what an older epoch still uploads sorts below. Only then anything is removed; a crash
//! leaves a deleted session of which something is left, and the next deletion removes that.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::env::Env;
use super::journal::{Draft, Journal, blocking};
use super::mark::{self, Written};
use super::report::{DeleteReport, UndeleteReport};
use super::state::LocalState;
use super::{mirror, mirror_fetch, points};
use crate::error::{Code, Error};
use crate::history::{self, Depth, Id, Mark, Silent, Survey, clean, retention};
use crate::session::SessionKey;
use crate::tree::Table;
use crate::tree::publish::set_aside;

/// Looks at most: an upload in flight brings a name back once, a process that goes on writing again and again.
const LOOKS: usize = 8;

/// Deletes a session: the tombstone, then the local tree, the mirror, and the history but for what pins need; with
/// `purge` also the pins, and nothing is set aside. Whoever deletes has stopped the bot, here and elsewhere.
///
/// # Errors
/// [`Code::NoSession`] where nothing is known of it; [`Code::LeaseLost`] where its bot may live or another process
/// took it meanwhile; [`Code::Conflict`] where only a mirror would be destroyed, or something goes on writing. After
/// any of them it can be called again.
pub async fn delete(env: &Arc<Env>, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
    let known = env.known(key)?;
    spare_a_bot(env, key, known.as_ref())?;
    let before = env.list(key, Depth::All).await?;
    is_there(env, key, known.as_ref(), &before, purge).await?;
    let (mut journal, survey) = mark::take(env, key, &before).await?;
    let Written { commit, pinned } = bury(env, key, &mut journal, &survey, purge).await?;
    let set_aside = remove_tree(env, key, purge).await?;
    journal.settle(Table::default().digest(), |state| state.ready = None)?;
    let mirror_removed =
        until_nothing_is_left(|| async { Ok(mirror::clear(&*env.store, key).await?) }).await?;
    let history_removed = until_nothing_is_left(|| erase(env, key, &journal, commit, purge)).await?;
    mark::give_back(env, key, commit).await;
    Ok(DeleteReport {
        session: key.to_string(),
        commit: commit.to_string(),
        pinned: pinned.map(|id| id.to_string()),
        set_aside: set_aside.map(|path| path.display().to_string()),
        history_removed,
        mirror_removed,
    })
}

/// Brings back what the newest deletion ended: its tree becomes the head again. The restore itself is the next start's.
///
/// # Errors
/// [`Code::NoSession`] for a session without history, [`Code::NotFound`] where no pin of the deletion is left.
pub async fn undelete(env: &Arc<Env>, key: &SessionKey) -> Result<UndeleteReport, Error> {
    let survey = env.list(key, Depth::All).await?;
    let head = survey.head().ok_or_else(|| points::none(key))?;
    let report = |commit: Id, restored: Option<Id>| UndeleteReport {
        session: key.to_string(),
        commit: commit.to_string(),
        restored: restored.map(|id| id.to_string()),
    };
    if mark_of(env, key, &survey, head).await? != Some(Mark::Delete) {
        return Ok(report(head, None));
    }
    let target = last_life(&survey, key)?;
    let written = mark::go_back(env, key, &survey, target).await?;
    mark::give_back(env, key, written.commit).await;
    Ok(report(written.commit, Some(target)))
}

/// What the session was before it was deleted.
fn last_life(survey: &Survey, key: &SessionKey) -> Result<Id, Error> {
    let ends = [Mark::Logout, Mark::Delete].map(Mark::as_str);
    let pin = survey.pins.iter().filter(|pin| ends.contains(&&*pin.reason)).max_by_key(|pin| pin.id);
    let text = match pin {
        Some(pin) if pin.reason == Mark::Delete.as_str() => return Ok(pin.id),
        Some(pin) => format!(
            "session {key} was logged out before it was deleted, and its keys are void: `restore --at {}` goes back to \
             them all the same",
            pin.id
        ),
        None => format!("session {key} is deleted for good: it was purged, or --pin-keep is over"),
    };
    Err(Error::new(Code::NotFound, text))
}

/// A bot that was started in this life of the pod may still be at work. Without `POD_UID` nobody can tell. // P7
fn spare_a_bot(env: &Env, key: &SessionKey, known: Option<&LocalState>) -> Result<(), Error> {
    let may_live = known.is_some_and(|state| state.same_life(&env.place, true));
    if env.place.pod_uid.is_none() || !may_live {
        return Ok(());
    }
    let text = format!(
        "session {key} was made ready in this pod, and its bot may still be using the tree: stop the pod and delete \
         from elsewhere"
    );
    Err(Error::new(Code::LeaseLost, text))
}

/// A mistyped name is no success, and what no history keeps is not destroyed by a command that can be undone.
async fn is_there(
    env: &Env,
    key: &SessionKey,
    known: Option<&LocalState>,
    before: &Survey,
    purge: bool,
) -> Result<(), Error> {
    let history = !(before.commits.is_empty() && before.incomplete.is_empty() && before.pins.is_empty());
    let mirror = mirror_fetch::is_there(&*env.store, key).await?;
    if mirror && before.head().is_none() && !purge {
        let text = format!(
            "session {key} has no history, only files in the bucket, which nothing would keep: `sync` or `restore` \
             makes a history of them first, `delete --purge` removes them for good"
        );
        return Err(Error::new(Code::Conflict, text));
    }
    let local = known.is_some_and(|state| state.head.is_some() || !state.pending.is_empty());
    if history || mirror || local { Ok(()) } else { Err(points::none(key)) }
}

/// Writes the tombstone; what it ends is pinned, if it is worth it. Each call writes one of its own: the epoch of the
/// newest is above whatever came since the last. // P2 P4 P5
async fn bury(
    env: &Env,
    key: &SessionKey,
    journal: &mut Journal,
    survey: &Survey,
    purge: bool,
) -> Result<Written, Error> {
    let ended = match journal.head() {
        Some(head) => match mark_of(env, key, survey, head).await {
            Ok(mark) => matches!(mark, Some(Mark::Logout | Mark::Delete)),
            Err(error) if error.code() == Code::Unreachable => return Err(error),
            // Another version, or another key, may read it.
            Err(_) => false,
        },
        None => true,
    };
    let draft = Draft::empty(Some(Mark::Delete));
    let written = if ended || purge {
        let commit = journal.append(draft).await.inspect(|_| journal.note(Mark::Delete));
        commit.map(|commit| Written { commit, pinned: None })
    } else {
        mark::write(journal, Mark::Delete, draft).await
    };
    written.map_err(|lost| lost.into_error(key))
}

/// What a commit does beside changing files. Marks stand on bases alone.
pub(super) async fn mark_of(
    env: &Env,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
) -> Result<Option<Mark>, Error> {
    if !survey.commits.get(&id).is_some_and(|listed| listed.name.base) {
        return Ok(None);
    }
    let scratch = env.root.scratch()?;
    let chain = history::fetch(env.access(None), key, survey, id, scratch.path(), &Silent).await?;
    Ok(chain.head().mark)
}

/// The local tree goes to set-aside, like every tree that is replaced; with `purge` all that was set aside goes.
async fn remove_tree(env: &Arc<Env>, key: &SessionKey, purge: bool) -> Result<Option<PathBuf>, Error> {
    let site = env.root.site(&env.layout, key);
    let (root, host, owned) = (Arc::clone(&env.root), Arc::clone(&env.host), key.clone());
    let removed = blocking(move || {
        let aside = set_aside(&site, &*host)?.set_aside;
        if !purge {
            return Ok(aside);
        }
        root.remove_set_aside(&owned).map(|()| None)
    });
    removed.await?.map_err(|error| Error::io("the local tree cannot be removed", error))
}

/// One look at the history: how much of it is to go, and how much is gone. // P5 P6
async fn erase(
    env: &Env,
    key: &SessionKey,
    journal: &Journal,
    tombstone: Id,
    purge: bool,
) -> Result<(usize, u64), Error> {
    let survey = history::survey(&*env.store, key, Depth::All, Some(tombstone)).await?;
    // The list that is planned on must itself prove that we may.
    journal.prove().await.map_err(|lost| lost.into_error(key))?;
    if !survey.commits.contains_key(&tombstone) {
        let text =
            format!("session {key} is deleted, but the bucket's list does not show it yet: delete it again");
        return Err(Error::new(Code::Unreachable, text));
    }
    // Without the server's clock nothing is old.
    let now = survey.date.unwrap_or(Timestamp::MIN);
    let plan = retention::erasure(&survey, now, tombstone.epoch, purge);
    Ok((plan.delete.len(), clean::clean(&*env.store, &plan).await?))
}

/// Removes until a look finds nothing to remove: an upload in flight can bring a name back after its removal.
async fn until_nothing_is_left<L>(mut look: impl FnMut() -> L) -> Result<u64, Error>
where
    L: Future<Output = Result<(usize, u64), Error>>,
{
    let mut gone = 0;
    for _ in 0..LOOKS {
        match look().await? {
            (0, _) => return Ok(gone),
            (_, removed) => gone += removed,
        }
    }
    let (code, text) = match gone {
        0 => (Code::Unauthorized, "nothing can be removed: this key may not delete objects in the bucket"),
        _ => (
            Code::Conflict,
            "objects come back as fast as they are removed: stop whatever still writes the session, and delete it again",
        ),
    };
    Err(Error::new(code, text))
}
