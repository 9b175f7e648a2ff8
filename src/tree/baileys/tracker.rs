//! What must be remembered of a group between two commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Creds, Decision, LONG_WAIT, Member, Moment, Verdict, decide, lacking};

/// Remembers events, pre-key ids and waiting of one auth directory.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    events: BTreeMap<Member, Instant>,
    seen: BTreeSet<u64>,
    unfit: BTreeMap<Member, Instant>,
    /// Pre-keys that were announced and that nobody has seen, and since when.
    lacking: BTreeMap<u64, Instant>,
    waiting: Option<Instant>,
    /// Whether the last decision kept written members back.
    kept: bool,
}

/// Lacking pre-keys that are remembered: `nextPreKeyId` may be anything. A top-up has some hundred.
const LACKING: usize = 4096;

/// A group as a scan and its reads found it.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// `creds.json` of the head, or [`Creds::ABSENT`].
    pub head: &'a Creds,
    /// `creds.json` on disk; [`Creds::UNREADABLE`] when it is held.
    pub disk: &'a Creds,
    /// Pre-keys on disk, fit or not.
    pub on_disk: &'a BTreeSet<u64>,
    /// Members that are not fit to commit.
    pub held: &'a BTreeSet<Member>,
    /// Whether any member on disk differs from the head.
    pub written: bool,
    /// When this look began: before the directory was listed, and so before any member was read.
    pub began: Instant,
    /// The quiet window.
    pub quiet_window: Duration,
    /// Whether no later commit will follow.
    pub last_flush: bool,
}

impl Tracker {
    /// Notes an event of a member, whatever it was. When events were lost, note one of `creds.json`: then
    /// nobody can say that the group is quiet.
    pub fn event(&mut self, member: Member, now: Instant) {
        self.events.insert(member, now);
        self.unfit.remove(&member);
        if let Member::PreKey(id) = member {
            self.seen.insert(id);
        }
    }

    /// Decides on the group as it was found, and notes whether it waits.
    pub fn decide(&mut self, now: Instant, look: &Look<'_>) -> Decision {
        self.seen.extend(look.on_disk);
        self.unfit.retain(|member, _| look.held.contains(member));
        for member in look.held {
            self.unfit.entry(*member).or_insert(now);
        }
        self.events.retain(|member, since| match member {
            Member::Creds => true,
            Member::PreKey(id) => look.on_disk.contains(id) || *since >= look.began,
        });
        if !look.written {
            self.waiting = None;
        }
        self.give_up_lacking(now, look);
        let age = |since: &Instant| now.saturating_duration_since(*since);
        let ages = |map: &BTreeMap<Member, Instant>| map.iter().map(|(m, since)| (*m, age(since))).collect();
        let decision = decide(&Moment {
            head: look.head,
            disk: look.disk,
            on_disk: look.on_disk,
            seen: &self.seen,
            held: &ages(&self.unfit),
            events: &ages(&self.events),
            began: age(&look.began),
            waited: self.waiting.as_ref().map_or(Duration::ZERO, age),
            quiet_window: look.quiet_window,
            last_flush: look.last_flush,
        });
        self.kept = look.written && decision.verdict != Verdict::Take;
        if self.kept {
            self.waiting.get_or_insert(now);
        }
        decision
    }

    /// A pre-key that was made and used up while nobody looked comes no more, and a busy bot is never quiet for long enough to be
    /// believed: its group would never be committed. What has not come for so long, with its writer at work, was used.
    fn give_up_lacking(&mut self, now: Instant, look: &Look<'_>) {
        let lacking: BTreeSet<u64> =
            lacking(look.head, look.disk, look.on_disk, &self.seen).take(LACKING).collect();
        self.lacking.retain(|id, _| lacking.contains(id));
        for id in lacking {
            let since = *self.lacking.entry(id).or_insert(now);
            if now.saturating_duration_since(since) >= LONG_WAIT {
                self.seen.insert(id);
            }
        }
    }

    /// Notes a commit, with the `creds.json` of the new head. One that went without the group, because the
    /// last decision kept it, does not end its waiting: other files are committed all the time.
    pub fn committed(&mut self, head: &Creds) {
        if !self.kept {
            self.waiting = None;
        }
        if let Some(next) = head.next_pre_key_id {
            self.seen.retain(|id| *id >= next);
        }
    }
}
