//! A bucket and the keys to it: the one way by which objects of history become bytes again.

use super::HistoryError;
use super::keys::Keys;
use super::name::Id;
use super::survey::{Depth, Survey, survey};
use crate::session::SessionKey;
use crate::store::Store;

/// Where history is read, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The bucket.
    pub store: &'a dyn Store,
    /// What opens its objects.
    pub keys: &'a Keys,
    /// The first commit that this disk knows to be encrypted: from it on, plaintext is not believed.
    pub since: Option<Id>,
}

impl<'a> Access<'a> {
    /// Of somebody who knows nothing of the session yet.
    #[must_use]
    pub fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        Self { store, keys, since: None }
    }

    /// Refuses what cannot be opened and what must not be believed, before anything is downloaded.
    pub(super) async fn admit(
        &self,
        key: &SessionKey,
        listed: &Survey,
        ids: &[Id],
    ) -> Result<(), HistoryError> {
        // Whether something older is encrypted stands in the pages that a short look leaves out.
        let plain = ids.iter().any(|id| listed.commits.get(id).is_some_and(|one| !one.name.encrypted));
        let on = self.keys.encrypts() || self.since.is_some();
        if plain && on && !listed.complete {
            let all = survey(self.store, key, Depth::All, listed.head()).await?;
            return judge(self.keys, self.since, &all, ids);
        }
        judge(self.keys, self.since, listed, ids)
    }
}

/// Whether these commits may be read, by a list of all of them: no downgrade.
///
/// Who can write into the bucket can put plaintext there, and must not be believed. But a history that was plaintext
/// before must be readable, or encryption could never be turned on. So, without `--accept-plaintext`:
///
/// - with identities alone (a reader) no plaintext is read at all;
/// - with a recipient, plaintext is read only if it is older than all that is encrypted: than every encrypted object
///   listed, and than the first one that this disk remembers, should all of them have been removed. Turning encryption on
///   keeps to that order at every moment: it begins at the newest end;
/// - without any key nothing was asked for, so nothing is refused; but a disk that remembers encryption asks first.
pub(super) fn judge(keys: &Keys, since: Option<Id>, survey: &Survey, ids: &[Id]) -> Result<(), HistoryError> {
    let of = |encrypted: bool| {
        let listed = ids.iter().filter_map(|id| survey.commits.get(id));
        listed.filter(move |one| one.name.encrypted == encrypted).map(|one| one.name.id)
    };
    if let Some(id) = of(true).next().filter(|_| !keys.can_open()) {
        return Err(HistoryError::NoIdentity { id });
    }
    if keys.accepts_plaintext() || !keys.is_on() && since.is_none() {
        return Ok(());
    }
    let reader = keys.can_open() && !keys.encrypts();
    let oldest = since.into_iter().chain(survey.oldest_encrypted()).min();
    match of(false).find(|id| reader || since == Some(*id) || oldest.is_some_and(|oldest| *id > oldest)) {
        Some(id) => Err(HistoryError::Plaintext { id }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
