//! The Baileys group: `creds.json` and the `pre-key-*.json` are committed from one moment or not at all.
//!
//! Baileys announces new pre-keys in `creds.json` and writes their files beside it, in either order and
//! without a transaction. Restored apart, creds newer than the pre-keys give `Invalid PreKey ID`, older ones
//! `Bad MAC` after the next top-up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::identity::{CREDS, Creds};

mod tracker;

pub use tracker::{Look, Tracker};

/// After this long a group is taken also between events, if it is whole.
pub const LONG_WAIT: Duration = Duration::from_secs(30);
/// A quiet group that is not whole waits for so many more quiet windows: its writer may only have stalled.
pub const STALL: u32 = 3;
/// A pre-key that is unfit and unchanged for this long does not hold the others any more.
pub const UNFIT_ALONE: Duration = Duration::from_mins(1);

/// A member of the group, named by its file in the auth directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// `creds.json`
    Creds,
    /// `pre-key-{id}.json`
    PreKey(u64),
}

impl Member {
    /// By file name; none for all other files of the directory.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == CREDS {
            return Some(Self::Creds);
        }
        let id = name.strip_prefix("pre-key-")?.strip_suffix(".json")?.parse().ok()?;
        // `pre-key-+7.json` and `pre-key-007.json` are not what Baileys writes for 7.
        let member = Self::PreKey(id);
        (member.file_name() == name).then_some(member)
    }

    /// The file name.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::Creds => CREDS.to_owned(),
            Self::PreKey(id) => format!("pre-key-{id}.json"),
        }
    }
}

/// A group at one moment; all times are ages.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// `creds.json` of the head, or [`Creds::ABSENT`].
    pub head: &'a Creds,
    /// `creds.json` on disk as it was read; [`Creds::UNREADABLE`] when it is held.
    pub disk: &'a Creds,
    /// Pre-keys on disk, fit or not.
    pub on_disk: &'a BTreeSet<u64>,
    /// Pre-keys that were on disk at some moment since the head, also those used and deleted by now.
    pub seen: &'a BTreeSet<u64>,
    /// Members that are not fit to commit, and for how long unchanged.
    pub held: &'a BTreeMap<Member, Duration>,
    /// The last event of each member.
    pub events: &'a BTreeMap<Member, Duration>,
    /// When this look began: before the directory was listed, and so before any member was read.
    pub began: Duration,
    /// How long the group has been kept back.
    pub waited: Duration,
    /// The quiet window.
    pub quiet_window: Duration,
    /// Whether no later commit will follow.
    pub last_flush: bool,
}

/// What happens to the written members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are committed, but those held alone.
    Take,
    /// All of them stay at the head's version; those the head lacks stay out.
    KeepHead(Wait),
}

/// What a group waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// A member that is not fit.
    Unfit,
    /// An event touched a member since this look began.
    Read,
    /// An event touched a member within the quiet window.
    Quiet,
    /// `creds.json` and the pre-keys do not belong together yet.
    Whole,
}

/// The decision on a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// On its written members.
    pub verdict: Verdict,
    /// Pre-keys that hold only themselves.
    pub alone: BTreeSet<u64>,
    /// Whether removals of pre-keys may be committed while the rest is kept: used ones are free, but those
    /// that went with an identity go with it.
    pub removals: bool,
}

impl Decision {
    /// Whether a file of the auth directory, by its name, stays at the head's version.
    #[must_use]
    pub fn holds(&self, name: &str, is_on_disk: bool) -> bool {
        match (Member::parse(name), self.verdict) {
            (Some(Member::PreKey(_)), Verdict::KeepHead(_)) if !is_on_disk => !self.removals,
            (Some(_), Verdict::KeepHead(_)) => true,
            (Some(Member::PreKey(id)), Verdict::Take) => self.alone.contains(&id),
            (None, _) | (Some(Member::Creds), Verdict::Take) => false,
        }
    }
}

/// Decides on a group.
///
/// Beyond the plain rule (quiet: take; waited, or last: take if whole) two things are weighed. A quiet group
/// that is not whole is a writer that stalls, or ids whose events were lost: it must be quiet for longer to be
/// believed. And at the last flush a first pairing is taken in any state that can be read:
/// without it there is nothing to restore at all.
#[must_use]
pub fn decide(moment: &Moment<'_>) -> Decision {
    let alone: BTreeSet<u64> = moment.held.iter().filter_map(held_alone).collect();
    let same_identity = moment.head.identity == moment.disk.identity;
    let first = !moment.head.identity.is_paired();
    let verdict = match wait(moment, &alone, first) {
        None => Verdict::Take,
        Some(wait) => Verdict::KeepHead(wait),
    };
    Decision { verdict, alone, removals: same_identity || first }
}

fn held_alone((member, unchanged): (&Member, &Duration)) -> Option<u64> {
    match member {
        Member::PreKey(id) if *unchanged >= UNFIT_ALONE => Some(*id),
        _ => None,
    }
}

fn wait(moment: &Moment<'_>, alone: &BTreeSet<u64>, first: bool) -> Option<Wait> {
    let holds_all = |member: &Member| !matches!(member, Member::PreKey(id) if alone.contains(id));
    if moment.held.keys().any(holds_all) {
        return Some(Wait::Unfit);
    }
    // Also of a pre-key that was not listed: it may have been written since.
    if moment.events.values().any(|age| *age <= moment.began) {
        return Some(Wait::Read);
    }
    // A pre-key that was gone by then was used: its removal is free.
    let is_written = |member: &Member| !matches!(member, Member::PreKey(id) if !moment.on_disk.contains(id));
    let last_event = moment.events.iter().filter(|(member, _)| is_written(member)).map(|(_, age)| *age).min();
    let quiet_for = |time: Duration| last_event.is_none_or(|age| age >= time);
    let quiet = quiet_for(moment.quiet_window);
    let long = moment.waited >= LONG_WAIT || moment.last_flush;
    let stall = moment.quiet_window * STALL;
    let settled = moment.waited >= stall && quiet_for(stall);
    let only_copy = first && moment.last_flush && moment.disk.identity.is_paired();
    match (quiet, is_whole(moment)) {
        (true, whole) if whole || first || settled || moment.last_flush => None,
        (true, _) => Some(Wait::Whole),
        (false, whole) if (whole && long) || only_copy => None,
        (false, true) => Some(Wait::Quiet),
        (false, false) => Some(if long { Wait::Whole } else { Wait::Quiet }),
    }
}

/// Whether creds and pre-keys belong together: no pre-key at or above `nextPreKeyId`, and every id up to it
/// was seen, from the head's on, or from the first one when the head has another identity or none.
fn is_whole(moment: &Moment<'_>) -> bool {
    let Some(next) = moment.disk.next_pre_key_id else { return moment.on_disk.is_empty() };
    moment.on_disk.range(next..).next().is_none()
        && lacking(moment.head, moment.disk, moment.on_disk, moment.seen).next().is_none()
}

/// Pre-keys that `creds.json` announced since the head and that nobody saw.
fn lacking<'a>(
    head: &Creds,
    disk: &Creds,
    on_disk: &'a BTreeSet<u64>,
    seen: &'a BTreeSet<u64>,
) -> impl Iterator<Item = u64> + 'a {
    let continues = head.identity.is_paired() && head.identity == disk.identity;
    let from = head.next_pre_key_id.filter(|_| continues).unwrap_or(1);
    let announced = from..disk.next_pre_key_id.unwrap_or(from);
    announced.filter(|id| !on_disk.contains(id) && !seen.contains(id))
}

#[cfg(test)]
mod tests;
