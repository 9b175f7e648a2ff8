//! What to commit: a pure function from what history has and what a look found.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::look::Sight;
use crate::tree::baileys::{self, Decision};
use crate::tree::guard::{MassDelete, Size, Verdict};
use crate::tree::identity::{
    Creds, IdentityVerdict, Loss, goes_with, identity_guard, lost_databases, may_tell, profile_of,
};
use crate::tree::leveldb::CURRENT;
use crate::tree::{Hash, Meta, Reason, Table};

/// What history has.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The head's tree.
    pub table: &'a Table,
    /// The credentials in it, by the file that holds them.
    pub creds: &'a BTreeMap<String, Creds>,
    /// An account that was logged out and may still lie on disk.
    pub logged_out: Option<&'a LoggedOut>,
    /// A person said that what is on disk counts, whatever identity it has.
    pub accept_identity: bool,
}

/// An account that was logged out. Its keys may lie on disk for as long as the bot likes (P7); committed again
/// they would come back to life with the next restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOut {
    identities: BTreeSet<Hash>,
}

impl LoggedOut {
    /// The accounts in these credentials.
    #[must_use]
    pub fn of(creds: &BTreeMap<String, Creds>) -> Self {
        Self { identities: creds.values().flat_map(|creds| creds.identity.paired()).collect() }
    }

    /// Whether the tree on disk is still that account's; of a format without a known identity: until it is empty.
    fn lies_there(&self, sight: &Sight) -> bool {
        if self.identities.is_empty() {
            return !sight.scan.files.is_empty();
        }
        let on_disk = sight.creds.values();
        on_disk.flat_map(|creds| creds.identity.paired()).any(|identity| self.identities.contains(&identity))
    }
}

/// What a commit would do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// New and changed files.
    pub put: BTreeMap<String, Meta>,
    /// Files that are gone.
    pub remove: BTreeSet<String>,
    /// The tree after the commit.
    pub table: Table,
    /// The credentials after the commit.
    pub creds: BTreeMap<String, Creds>,
    /// What stays at the head's version, and why.
    pub held: BTreeMap<String, Reason>,
    /// The whole session is held: for people.
    pub session_held: Option<String>,
    /// The commit is a base of what is on disk.
    pub base: bool,
    /// The head is pinned first, for this reason.
    pub pin: Option<&'static str>,
    /// What a person should look at.
    pub alarm: Option<String>,
    /// When something that is held may be fit.
    pub look_again: Option<Instant>,
}

impl Plan {
    /// Whether the tree after the commit is another one. A change of mode alone is none.
    #[must_use]
    pub fn changes(&self, head: &Table) -> bool {
        !self.put.is_empty() || !self.remove.is_empty() || self.table.empty_dirs != head.empty_dirs
    }

    fn hold_put(&mut self, reason: Reason, which: impl Fn(&str) -> bool) {
        let paths: Vec<String> = self.put.keys().filter(|path| which(path)).cloned().collect();
        for path in paths {
            self.put.remove(&path);
            self.held.entry(path).or_insert(reason);
        }
    }

    fn hold_remove(&mut self, reason: Reason, which: impl Fn(&str) -> bool) {
        let (held, remove) = std::mem::take(&mut self.remove).into_iter().partition(|path| which(path));
        self.remove = remove;
        let held: BTreeSet<String> = held;
        for path in held {
            self.held.entry(path).or_insert(reason);
        }
    }

    fn hold_all(&mut self, reason: Reason) {
        self.hold_put(reason, |_| true);
        self.hold_remove(reason, |_| true);
    }
}

/// Groups first, then the identity guard, then the mass-delete guard; what they hold stays at the head's version.
#[must_use]
pub fn plan(
    known: Known<'_>,
    sight: &Sight,
    groups: &BTreeMap<String, Decision>,
    guard: &mut MassDelete,
    now: Instant,
) -> Plan {
    let mut plan = candidates(known.table, sight);
    let accepted = known.accept_identity;
    if known.logged_out.is_some_and(|ended| ended.lies_there(sight)) {
        plan.hold_all(Reason::LoggedOut);
        return Plan { table: known.table.clone(), creds: known.creds.clone(), ..plan };
    }
    if !accepted {
        for (dir, decision) in groups {
            hold_group(&mut plan, sight, dir, decision);
        }
    }
    let lost = !lost_databases(known.table, &table_after(known.table, &plan)).is_empty();
    let judgement = identity_guard(known.creds, &sight.creds).with_lost_databases(lost);
    let held = match &judgement.verdict {
        IdentityVerdict::Hold { why } => !accepted || *why == Loss::Unreadable,
        _ => false,
    };
    plan.alarm = judgement.verdict.alarm();
    if held {
        plan.session_held.clone_from(&plan.alarm);
        plan.hold_all(Reason::Identity);
        return finish(plan, known, sight);
    }
    if !accepted {
        for holder in judgement.held.keys() {
            // The other keys of an account lie beside its credentials.
            let with_it = |path: &str| goes_with(path, holder);
            plan.hold_put(Reason::Identity, with_it);
            plan.hold_remove(Reason::Identity, with_it);
        }
    }
    let accepts = accepted && matches!(judgement.verdict, IdentityVerdict::Hold { .. });
    if accepts || judgement.verdict.pins() {
        let waits = |decision: &Decision| decision.verdict != baileys::Verdict::Take;
        // Of a browser's profile the keys lie in another database than the account.
        let moving = sight.scan.leveldbs.keys().any(|dir| sight.why_held(dir) == Some(Reason::Changing));
        if !accepted && (moving || groups.values().any(waits)) {
            // Other files of the new account must not come before its keys.
            plan.alarm = None;
            plan.hold_all(Reason::Group);
            return finish(plan, known, sight);
        }
        plan.pin = Some("identity");
        plan.base = accepts || judgement.verdict.wants_base();
    }
    let same_identity = !plan.base;
    if plan.base {
        // What is unfit now is not taken from the other identity's tree: it comes with the next commit.
        let gone = known.table.files.keys().filter(|path| !sight.metas.contains_key(*path));
        plan.remove = gone.cloned().collect();
    }
    let after = size_after(known.table, &plan);
    // What a database does not need any more goes with what it wrote instead.
    let counts = |path: &str| sight.scan.leveldb_of(path).is_none();
    match guard.judge(now, after, !plan.remove.is_empty(), same_identity) {
        Verdict::Go => {}
        Verdict::HoldRemovals { until } => {
            plan.hold_remove(Reason::MassDelete, counts);
            plan.look_again = Some(until);
        }
        Verdict::HoldEmptied => {
            plan.hold_remove(Reason::MassDelete, counts);
            plan.alarm.get_or_insert_with(|| {
                "the tree was emptied: its files are kept in history; --allow-mass-delete, `logout` or a restart decides".into()
            });
        }
    }
    finish(plan, known, sight)
}

fn candidates(head: &Table, sight: &Sight) -> Plan {
    let differs =
        |(path, meta): &(&String, &Meta)| head.files.get(*path).is_none_or(|old| old.sha256 != meta.sha256);
    Plan {
        put: sight.metas.iter().filter(differs).map(|(path, meta)| (path.clone(), *meta)).collect(),
        remove: sight.gone.clone(),
        held: sight
            .scan
            .held
            .iter()
            .chain(&sight.held)
            .map(|(path, reason)| (path.clone(), *reason))
            .collect(),
        ..Plan::default()
    }
}

fn hold_group(plan: &mut Plan, sight: &Sight, dir: &str, decision: &Decision) {
    let holds = |path: &str, on_disk: bool| {
        let (at, name) = path.rsplit_once('/').unwrap_or(("", path));
        at == dir && decision.holds(name, on_disk)
    };
    plan.hold_put(Reason::Group, |path| holds(path, true));
    plan.hold_remove(Reason::Group, |path| holds(path, sight.scan.files.contains_key(path)));
}

fn finish(mut plan: Plan, known: Known<'_>, sight: &Sight) -> Plan {
    plan.table =
        if plan.session_held.is_some() { known.table.clone() } else { table_after(known.table, &plan) };
    if plan.session_held.is_none() {
        plan.table.empty_dirs = sight.scan.empty_dirs_after(known.table);
        // A directory whose files are held is not empty in the tree that history has.
        let files = &plan.table.files;
        let has_files = |dir: &String| {
            let below = format!("{dir}/");
            files.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
        };
        plan.table.empty_dirs.retain(|dir| !has_files(dir));
    }
    plan.creds = known.creds.clone();
    for (path, creds) in &sight.creds {
        // Of a profile the file that tells of it stays the same, and those beside it change.
        let told_by = |changed: &String| match profile_of(path) {
            Some(_) => may_tell(changed) && changed.starts_with(path.trim_end_matches(CURRENT)),
            None => changed == path,
        };
        if plan.put.keys().chain(&plan.remove).any(told_by) {
            plan.creds.insert(path.clone(), creds.clone());
        }
    }
    plan.creds.retain(|_, creds| *creds != Creds::ABSENT);
    plan
}

fn table_after(head: &Table, plan: &Plan) -> Table {
    let mut table = head.clone();
    table.files.retain(|path, _| !plan.remove.contains(path));
    table.files.extend(plan.put.iter().map(|(path, meta)| (path.clone(), *meta)));
    table
}

fn size_after(head: &Table, plan: &Plan) -> Size {
    Size::of(&table_after(head, plan))
}

#[cfg(test)]
mod tests;
