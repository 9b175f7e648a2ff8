//! What a list of a session's history says: which commits exist, which one is the head, what leads to it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::HistoryError;
use super::name::{CommitName, Id, Name};
use crate::session::SessionKey;
use crate::store::{Kind, Listing, Object, Op, Order, Page, Store, StoreError};

/// Names a page: the server's maximum.
const PAGE: usize = 1000;

/// How far a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Newest first, until the head's chain meets its base.
    Chain,
    /// All of it.
    All,
}

/// One commit as a list shows it, all parts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, that of the first part without the part.
    pub name: CommitName,
    /// Its objects: the parts in order.
    pub objects: Vec<Object>,
    /// Whether another complete object claims the same id: then neither can be believed.
    pub ambiguous: bool,
    /// The plaintext beside an encrypted commit: a step of turning encryption on was cut off. It is not read.
    pub plain: Vec<Object>,
    /// When the commit came into being, where its objects were written again later.
    pub older: Option<Timestamp>,
}

impl Listed {
    /// Bytes of all parts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// When its last part came into being, by the database's clock.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        let times: Option<Vec<Timestamp>> = self.objects.iter().map(|object| object.created_at).collect();
        times?.into_iter().max().map(|at| self.older.map_or(at, |older| older.min(at)))
    }

    /// Its objects, and those that they replaced.
    pub fn all_objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().chain(&self.plain)
    }
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The commit that is kept.
    pub id: Id,
    /// Why.
    pub reason: String,
    /// The pin itself.
    pub object: Object,
}

/// What a list says. Only names count; nothing is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The commits that exist.
    pub commits: BTreeMap<Id, Listed>,
    /// Parts of commits of which another part is missing, and what else claims an id that exists.
    pub incomplete: Vec<(CommitName, Object)>,
    /// Claimed epochs.
    pub claims: BTreeMap<u32, Object>,
    /// Pins, newest commit first or last as listed.
    pub pins: Vec<Pin>,
    /// When commits came into being that were encrypted later.
    pub times: Vec<(Id, Object)>,
    /// Leftovers of claims.
    pub temporaries: Vec<Object>,
    /// Names that no version of the format writes; they are left alone.
    pub unknown: u64,
    /// The server's clock at the first page (whole seconds).
    pub date: Option<Timestamp>,
    /// Whether all pages were read.
    pub complete: bool,
}

impl Survey {
    /// Sorts names out. `objects` in any order, their keys below the session's prefix.
    #[must_use]
    pub fn of(key: &SessionKey, objects: &[Object]) -> Self {
        let prefix = key.history_prefix();
        let mut survey = Self::default();
        let mut parts: BTreeMap<Id, Vec<(CommitName, &Object)>> = BTreeMap::new();
        let mut older: BTreeMap<Id, Timestamp> = BTreeMap::new();
        for object in objects {
            match object.key.strip_prefix(&prefix).and_then(Name::parse) {
                Some(Name::Commit(name)) => parts.entry(name.id).or_default().push((name, object)),
                Some(Name::Claim(epoch)) => {
                    survey.claims.insert(epoch, object.clone());
                }
                Some(Name::Pin { id, reason }) => {
                    survey.pins.push(Pin { id, reason, object: object.clone() });
                }
                Some(Name::Time { id, seconds }) => {
                    survey.times.push((id, object.clone()));
                    if let Ok(at) = Timestamp::from_second(seconds.into()) {
                        older.entry(id).and_modify(|known| *known = at.min(*known)).or_insert(at);
                    }
                }
                Some(Name::Temporary(_)) => survey.temporaries.push(object.clone()),
                None => survey.unknown += 1,
            }
        }
        for (id, parts) in parts {
            let (listed, rest) = assemble(parts);
            survey.incomplete.extend(rest);
            let listed = listed.map(|listed| Listed { older: older.get(&id).copied(), ..listed });
            survey.commits.extend(listed.map(|listed| (id, listed)));
        }
        survey
    }

    /// The newest commit that exists.
    #[must_use]
    pub fn head(&self) -> Option<Id> {
        self.commits.keys().next_back().copied()
    }

    /// The oldest commit of which anything encrypted is listed.
    #[must_use]
    pub fn oldest_encrypted(&self) -> Option<Id> {
        let commits = self.commits.values().map(|listed| listed.name);
        let parts = self.incomplete.iter().map(|(name, _)| *name);
        commits.chain(parts).filter(|name| name.encrypted).map(|name| name.id).min()
    }

    /// The base that the head is built on, where all of the head's chain is encrypted.
    #[must_use]
    pub fn encrypted_base(&self) -> Option<Id> {
        let chain = self.chain(self.head()?).ok()?;
        let encrypted =
            chain.iter().all(|id| self.commits.get(id).is_some_and(|listed| listed.name.encrypted));
        chain.first().copied().filter(|_| encrypted)
    }

    /// Objects of commits, whole or not: encrypted ones, and plaintext.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let commits = self.commits.values().flat_map(|listed| {
            let encrypted = listed.name.encrypted;
            let plain = listed.plain.iter().map(|_| false);
            listed.objects.iter().map(move |_| encrypted).chain(plain)
        });
        let parts = self.incomplete.iter().map(|(name, _)| name.encrypted);
        commits.chain(parts).fold(
            (0, 0),
            |(sealed, plain), encrypted| {
                if encrypted { (sealed + 1, plain) } else { (sealed, plain + 1) }
            },
        )
    }

    /// The highest epoch that any name speaks of, claims, pins and incomplete commits included: whoever wrote
    /// the name once had that epoch.
    #[must_use]
    pub fn newest_epoch(&self) -> u32 {
        let commits = self.head().map(|id| id.epoch);
        let parts = self.incomplete.iter().map(|(name, _)| name.id.epoch);
        let pins = self.pins.iter().map(|pin| pin.id.epoch);
        let claims = self.claims.keys().copied();
        let times = self.times.iter().map(|(id, _)| id.epoch);
        let pins = pins.chain(times);
        commits.into_iter().chain(parts).chain(pins).chain(claims).max().unwrap_or(0)
    }

    /// From the base of a commit to the commit itself.
    ///
    /// # Errors
    /// [`HistoryError::Missing`] names the first link that is not listed, [`HistoryError::Damaged`] one that two
    /// objects claim to be.
    pub fn chain(&self, id: Id) -> Result<Vec<Id>, HistoryError> {
        let mut chain = Vec::new();
        let mut at = Some(id);
        while let Some(id) = at {
            let listed = self.commits.get(&id).ok_or(HistoryError::Missing { id })?;
            if listed.ambiguous {
                return Err(HistoryError::damaged(id, "two objects have this id"));
            }
            chain.push(id);
            // A parent has a lower id, or the name would not have parsed: this ends.
            at = if listed.name.base { None } else { listed.name.parent };
        }
        chain.reverse();
        Ok(chain)
    }

    /// All ids of an epoch that are listed, complete or not.
    pub fn in_epoch(&self, epoch: u32) -> impl Iterator<Item = Id> {
        let parts = self.incomplete.iter().map(|(name, _)| name.id);
        self.commits.keys().copied().chain(parts).filter(move |id| id.epoch == epoch)
    }
}

type Rest = Vec<(CommitName, Object)>;

/// What of the objects of one id makes a commit, and what does not.
fn assemble(mut parts: Vec<(CommitName, &Object)>) -> (Option<Listed>, Rest) {
    // Objects of one commit differ in the part only, and agree on how many there are.
    let kind =
        |name: &CommitName| (name.parent, name.base, name.encrypted, name.part.map_or(1, |part| part.of));
    parts.sort_by_key(|(name, _)| (kind(name), name.part.map(|part| part.number)));
    let (mut listed, mut rest): (Option<Listed>, Rest) = (None, Vec::new());
    for variant in parts.chunk_by(|(a, _), (b, _)| kind(a) == kind(b)) {
        let name = variant[0].0;
        let complete = variant.len() == name.part.map_or(1, |part| usize::from(part.of));
        let objects = variant.iter().map(|(_, object)| Object::clone(object));
        match &mut listed {
            None if complete => {
                let objects = objects.collect();
                let (plain, older) = (Vec::new(), None);
                listed = Some(Listed { name: name.with_part(None), objects, ambiguous: false, plain, older });
            }
            // The same commit, encrypted: it counts, and the plaintext is what is left of an older time.
            Some(plain)
                if complete
                    && !plain.ambiguous
                    && plain.name == (CommitName { encrypted: false, part: None, ..name })
                    && name.encrypted =>
            {
                plain.plain = std::mem::replace(&mut plain.objects, objects.collect());
                plain.name = name.with_part(None);
            }
            Some(listed) if complete => {
                listed.ambiguous = true;
                listed.objects.extend(objects);
            }
            _ => rest.extend(variant.iter().map(|(name, object)| (*name, Object::clone(object)))),
        }
    }
    (listed, rest)
}

/// Lists a session's history. `known`: the newest commit that we know to exist.
///
/// Only an answer that provably descends, and begins at or above `known`, is read in part; of any other all
/// pages are read.
pub async fn survey(
    store: &dyn Store,
    key: &SessionKey,
    depth: Depth,
    known: Option<Id>,
) -> Result<Survey, HistoryError> {
    let mut page = first_page(key, PAGE);
    let mut listing = store.list(&page).await?;
    let date = listing.date;
    let mut may_stop = depth == Depth::Chain && descends_from(&listing, key, known);
    let mut objects = std::mem::take(&mut listing.objects);
    loop {
        may_stop &= listing.order == Some(Order::Descending);
        let complete = listing.next.is_none();
        if complete || may_stop {
            let survey = Survey { date, complete, ..Survey::of(key, &objects) };
            if complete || survey.head().is_some_and(|head| survey.chain(head).is_ok()) {
                return Ok(survey);
            }
        }
        (page, listing) = next_page(store, page, &listing).await?;
        objects.append(&mut listing.objects);
    }
}

/// The first page, newest first.
pub(super) fn first_page(key: &SessionKey, limit: usize) -> Page {
    Page { prefix: key.history_prefix(), order: Order::Descending, limit, cursor: None, delimiter: false }
}

async fn next_page(
    store: &dyn Store,
    page: Page,
    listing: &Listing,
) -> Result<(Page, Listing), HistoryError> {
    if listing.next == page.cursor {
        let message = "the list does not go on: a page names itself as the next";
        return Err(StoreError::new(Kind::Protocol, Op::List.as_str(), message).at(page.prefix).into());
    }
    let page = Page { cursor: listing.next.clone(), ..page };
    let listing = store.list(&page).await?;
    Ok((page, listing))
}

/// Whether a first page really is newest first.
fn descends_from(listing: &Listing, key: &SessionKey, known: Option<Id>) -> bool {
    let known = known.map(|id| format!("{}{id}", key.history_prefix()));
    let first = listing.objects.first().map(|object| object.key.as_str());
    listing.order == Some(Order::Descending)
        && known.is_none_or(|known| first.is_some_and(|first| first >= &*known))
}

#[cfg(test)]
mod tests;
