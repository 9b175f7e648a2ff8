//! The short list: whether a commit that storage confirmed is acknowledged.

use std::collections::BTreeSet;

use super::HistoryError;
use super::name::{Id, Name};
use super::survey::{Depth, Survey, first_page, survey};
use crate::session::SessionKey;
use crate::store::{Listing, Order, Store};

/// What the bucket says about our right to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Our newest commit is listed and nobody claimed a higher epoch: it counts.
    Acknowledged,
    /// Another process owns the session: stop committing, mirroring, and our bot.
    Taken {
        /// The epoch that is not ours; our own when somebody else wrote under it.
        epoch: u32,
    },
    /// The list does not show what was confirmed: nothing is known, ask again.
    Unclear,
}

/// Judges names in the light of what we wrote. `newest` is our newest confirmed commit, `pending` are ids of our
/// own attempts that may land above it.
fn judge(names: impl IntoIterator<Item = Name>, newest: Id, pending: &BTreeSet<Id>) -> Standing {
    let mut seen = false;
    let mut taken = None;
    for name in names {
        let id = match &name {
            Name::Commit(name) => Some(name.id),
            Name::Pin { id, .. } | Name::Time { id, .. } => Some(*id),
            Name::Claim(_) | Name::Temporary(_) => None,
        };
        // Pins and times name commits of any age; only their epoch speaks.
        let foreign = matches!(name, Name::Commit(_))
            && id.is_some_and(|id| id.epoch == newest.epoch && id > newest && !pending.contains(&id));
        if let Some(epoch) = name.epoch()
            && (epoch > newest.epoch || foreign)
        {
            taken = taken.max(Some(epoch));
        }
        seen |= id.is_some_and(|id| id >= newest);
    }
    match taken {
        Some(epoch) => Standing::Taken { epoch },
        None if seen => Standing::Acknowledged,
        None => Standing::Unclear,
    }
}

/// The rule, for a list of two names, newest first, that was sent after `newest` was confirmed. // P5
///
/// An order that is not proven may hide what is newest, so that only bad news can be taken from it. Two names are
/// asked for because our own claim stands before all of our commits.
#[must_use]
pub fn standing(listing: &Listing, key: &SessionKey, newest: Id, pending: &BTreeSet<Id>) -> Standing {
    let prefix = key.history_prefix();
    let names = listing.objects.iter().filter_map(|object| Name::parse(object.key.strip_prefix(&prefix)?));
    match judge(names, newest, pending) {
        Standing::Acknowledged if listing.order != Some(Order::Descending) => Standing::Unclear,
        standing => standing,
    }
}

/// The same rule for a whole list.
#[must_use]
pub fn standing_in(survey: &Survey, newest: Id, pending: &BTreeSet<Id>) -> Standing {
    let commits = survey.commits.values().map(|listed| Name::Commit(listed.name));
    let parts = survey.incomplete.iter().map(|(name, _)| Name::Commit(*name));
    let pins = survey.pins.iter().map(|pin| Name::Pin { id: pin.id, reason: pin.reason.clone() });
    let claims = survey.claims.keys().map(|epoch| Name::Claim(*epoch));
    let times = survey.times.iter().map(|(id, _)| Name::Time { id: *id, seconds: 0 });
    judge(commits.chain(parts).chain(pins).chain(times).chain(claims), newest, pending)
}

/// Asks with the short list; where that is not clear, with all pages.
pub async fn short_list(
    store: &dyn Store,
    key: &SessionKey,
    newest: Id,
    pending: &BTreeSet<Id>,
) -> Result<Standing, HistoryError> {
    let listing = store.list(&first_page(key, 2)).await?;
    match standing(&listing, key, newest, pending) {
        Standing::Unclear => {
            let survey = survey(store, key, Depth::All, Some(newest)).await?;
            Ok(standing_in(&survey, newest, pending))
        }
        standing => Ok(standing),
    }
}

#[cfg(test)]
mod tests;
