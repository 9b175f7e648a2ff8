//! The bucket as the code's own functions read it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use session_sidecar::history::retention::{self, Policy};
use session_sidecar::history::standing::{standing, standing_in};
use session_sidecar::history::survey::{Listed, Pin};
use session_sidecar::history::{CommitName, Id, Name, Standing, Survey};
use session_sidecar::session::SessionKey;
use session_sidecar::store::{Listing, Object, Order};

use crate::rules::Rules;
use crate::state::{Commit, Doomed, Epochs, Ix, Ixs, State, bit};

static KEY: LazyLock<SessionKey> = LazyLock::new(|| SessionKey::new("u", "s").unwrap());
const OLD: Option<Timestamp> = Some(Timestamp::UNIX_EPOCH);
const PIN: &str = "pin";

impl State {
    fn name(&self, commit: &Commit) -> CommitName {
        let parent = commit.parent.map(|parent| self.commit(parent).id);
        CommitName { id: commit.id, parent, base: commit.base, part: None, encrypted: false }
    }

    fn pins(&self) -> impl Iterator<Item = Id> {
        self.stored().filter(|(_, commit)| commit.pinned).map(|(_, commit)| commit.id)
    }

    /// A whole list. Everything but the pins is so old that its age protects nothing.
    pub fn survey(&self) -> Survey {
        let listed = |(_, commit): (Ix, &Commit)| {
            let name = self.name(commit);
            (
                commit.id,
                Listed {
                    name,
                    objects: vec![object(String::new(), OLD)],
                    ambiguous: false,
                    plain: vec![],
                    older: None,
                },
            )
        };
        Survey {
            commits: self.stored().map(listed).collect(),
            pins: self
                .pins()
                .map(|id| Pin { id, reason: PIN.into(), object: object(id.to_string(), None) })
                .collect(),
            claims: epochs(self.claims).map(|epoch| (epoch, object(epoch.to_string(), OLD))).collect(),
            complete: true,
            ..Survey::default()
        }
    }

    /// The commit with this id.
    pub fn at(&self, id: Id) -> Ix {
        let found = self.stored().find(|(_, commit)| commit.id == id);
        found.expect("a list shows what is stored").0
    }

    /// The two newest names; sorted by what decides the order of their bytes.
    fn short_list(&self) -> Listing {
        let commits =
            self.stored().map(|(_, c)| ((c.id.epoch, 0, Some(c.id), 0), Name::Commit(self.name(c))));
        let pins = self.pins().map(|id| ((id.epoch, 0, Some(id), 1), Name::Pin { id, reason: PIN.into() }));
        let claims = epochs(self.claims).map(|epoch| ((epoch, 1, None, 0), Name::Claim(epoch)));
        let mut names: Vec<_> = commits.chain(pins).chain(claims).collect();
        names.sort_unstable_by_key(|(order, _)| std::cmp::Reverse(*order));
        let prefix = KEY.history_prefix();
        let objects = names.iter().take(2).map(|(_, name)| object(format!("{prefix}{name}"), OLD)).collect();
        Listing { objects, order: Some(Order::Descending), ..Listing::default() }
    }

    /// The short list, and where that is not clear the whole one.
    pub fn standing(&self, newest: Ix, pending: Ixs) -> Standing {
        let pending = self.all().filter(|(ix, _)| pending & bit(*ix) != 0).map(|(_, commit)| commit.id);
        let (newest, pending) = (self.commit(newest).id, pending.collect());
        match standing(&self.short_list(), &KEY, newest, &pending) {
            Standing::Unclear => standing_in(&self.survey(), newest, &pending),
            clear => clear,
        }
    }

    /// What retention deletes under an epoch.
    pub fn doomed(&self, rules: &Rules, epoch: u32) -> Doomed {
        let mut survey = self.survey();
        if !rules.keep_chain {
            for listed in survey.commits.values_mut().filter(|listed| !listed.name.base) {
                listed.name.parent = None;
            }
        }
        let policy = Policy { epoch, history_keep: SignedDuration::ZERO, pin_keep: SignedDuration::ZERO };
        let plan = retention::plan(&survey, late(), &policy);
        let claims = plan.delete.iter().filter_map(|key| key.parse().ok());
        let all =
            if rules.keep_claims { 0 } else { epochs(self.claims).filter(|e| *e <= epoch).fold(0, add) };
        let commits = if rules.two_bases { self.all_but(&plan.keep) } else { self.all_but_newest(epoch) };
        Doomed { commits, claims: claims.fold(all, add) }
    }

    /// The same, keeping one base only, where the code keeps two.
    fn all_but_newest(&self, epoch: u32) -> Ixs {
        let newest = self.stored().filter(|(_, c)| c.base).max_by_key(|(_, c)| c.id);
        let pins = self.stored().filter(|(_, c)| c.pinned);
        let roots = newest.into_iter().chain(pins).map(|(ix, _)| ix).chain(self.head());
        let keep = roots.fold(0, |keep, ix| keep | self.chain(ix));
        let doomed = self.stored().filter(|(ix, c)| c.id.epoch <= epoch && keep & bit(*ix) == 0);
        doomed.fold(0, |set, (ix, _)| set | bit(ix))
    }

    /// What `delete` removes under an epoch, once its tombstone is acknowledged.
    pub fn erased(&self, epoch: u32) -> Ixs {
        self.all_but(&retention::erasure(&self.survey(), late(), epoch, false).keep)
    }

    fn all_but(&self, keep: &BTreeSet<Id>) -> Ixs {
        let doomed = self.stored().filter(|(_, commit)| !keep.contains(&commit.id));
        doomed.fold(0, |set, (ix, _)| set | bit(ix))
    }
}

fn object(key: String, created_at: Option<Timestamp>) -> Object {
    Object { key, size: 0, etag: None, created_at }
}

/// Long after all that is old.
fn late() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365)
}

fn epochs(set: Epochs) -> impl Iterator<Item = u32> {
    (0..Epochs::BITS).filter(move |epoch| set & 1 << epoch != 0)
}

fn add(set: Epochs, epoch: u32) -> Epochs {
    set | 1 << epoch
}
