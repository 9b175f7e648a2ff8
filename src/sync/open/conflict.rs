//! A mirrored `creds.json` that somebody else wrote: another service still works on this session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::Opening;
use super::remote::There;
use crate::error::{Code, Error};
use crate::history::HistoryError;
use crate::sync::journal::{Draft, blocking};
use crate::sync::mirror_fetch::{Foreign, foreign_creds};
use crate::sync::start::Side;
use crate::tree::identity::CREDS;
use crate::tree::{Content, Entry, Hash, Meta};

/// The reason of the pin on what was found in the mirror.
const PIN: &str = "mirror";

impl Opening<'_> {
    /// Keeps what was found in the mirror as a pinned commit, whoever wins; without `--on-conflict` the start
    /// ends there. // P4
    pub(super) async fn resolve_mirror(&mut self, there: There) -> Result<There, Error> {
        let Some(foreign) = self.foreign(&there).await? else { return Ok(there) };
        let side = self.env.policy.start.on_conflict;
        let seen = there.survey.pins.iter().any(|pin| pin.reason == PIN);
        if !seen || side == Some(Side::Remote) {
            self.keep_foreign(&there, foreign, side).await?;
        }
        match side {
            Some(Side::Local) => {
                warn!("the mirror's creds.json was written by someone else; history counts");
                self.ask().await
            }
            Some(Side::Remote) => {
                warn!("the mirror's creds.json was written by someone else; it counts");
                self.ask().await
            }
            None => Err(Error::new(
                Code::Conflict,
                format!(
                    "session {}: creds.json in the mirror was written by someone else and differs from history's: stop whatever \
                     else works on this session, then say which one counts: --on-conflict local (history) or remote (the mirror); \
                     what was found is kept as a pinned commit",
                    self.key
                ),
            )),
        }
    }

    async fn foreign(&self, there: &There) -> Result<Option<Foreign>, Error> {
        let Ok(Some(chain)) = &there.chain else { return Ok(None) };
        if !self.env.policy.mirror || !chain.table().files.contains_key(CREDS) {
            return Ok(None);
        }
        let (chain, wanted) = (Arc::clone(chain), BTreeSet::from([CREDS.to_owned()]));
        let contents = blocking(move || chain.read(&wanted)).await??;
        let Some(own) = contents.get(CREDS) else { return Ok(None) };
        let bytes = own.bytes().map_err(|error| Error::io("creds.json cannot be read back", error))?;
        let foreign = foreign_creds(&*self.env.store, self.key, &bytes).await.map_err(HistoryError::from)?;
        Ok(foreign)
    }

    /// What was found becomes a commit. If it is to win, the head; else one beside it, below a seal so that it is never
    /// taken for the head, and pinned.
    async fn keep_foreign(
        &mut self,
        there: &There,
        foreign: Foreign,
        side: Option<Side>,
    ) -> Result<(), Error> {
        let (Some(table), Some(head)) = (there.table(), there.head()) else { return Ok(()) };
        let Some(old) = table.files.get(CREDS).copied() else { return Ok(()) };
        let bytes = foreign.bytes;
        let meta = Meta { size: bytes.len() as u64, sha256: Hash::of(&bytes), ..old };
        let mut with_foreign = table.clone();
        with_foreign.files.insert(CREDS.to_owned(), meta);
        let draft = Draft {
            put: vec![Entry { path: CREDS.to_owned(), meta }],
            table: with_foreign,
            contents: BTreeMap::from([(CREDS.to_owned(), Content::Bytes(bytes.into()))]),
            restores: true,
            ..Draft::default()
        };
        if side == Some(Side::Remote) {
            let mut journal = self.journal(there).await?;
            self.seal(&mut journal, draft).await?;
            self.local.state = Some(journal.state().clone());
            return Ok(());
        }
        // The seal may count as this disk's own only if the head did.
        let ours = self.local.state.as_ref().is_some_and(|state| state.ours(head));
        let scratch = self.env.root.scratch()?;
        let mut journal = if ours {
            self.journal(there).await?
        } else {
            self.journal_at(there, scratch.path().join("state.json")).await?
        };
        let below = journal.reserve();
        self.seal_head(&mut journal, there, table).await?;
        if ours {
            self.local.state = Some(journal.state().clone());
        }
        let mut patience = self.patience();
        while let Err(lost) = journal.store_beside(below, head, draft.clone(), PIN).await {
            patience.bear(lost).await?;
        }
        Ok(())
    }
}
