//! One turn: fence, look, plan, commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::{Alarm, Engine, Hold, LOOK_AGAIN, POLL};
use crate::history;
use crate::sync::journal::{Draft, Lost, blocking};
use crate::sync::look::{Eye, Sight, Want, member_of};
use crate::sync::plan::{Known, Plan, plan};
use crate::tree::baileys::{self, Decision, Member};
use crate::tree::identity::{Creds, auth_dir, auth_dirs, creds_path};
use crate::tree::{Content, Reason};

/// A look during which events came is repeated so often.
const LOOKS: usize = 3;

/// Why a turn is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A quiet window after changes, or something held may be fit.
    Window,
    /// Events cannot be relied on.
    Poll,
    /// Every five minutes, and after a loss of events.
    Reconcile,
    /// Somebody asked.
    Sync,
    /// No later turn will come.
    Last,
}

impl Occasion {
    fn is_full(self) -> bool {
        self != Self::Window
    }
}

/// What a turn did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    /// Whether a commit was made.
    pub committed: bool,
}

impl Engine {
    /// Looks, and commits what differs. What could not be committed stays marked.
    pub(super) async fn turn(&mut self, occasion: Occasion) -> Result<Turn, Lost> {
        self.journal.acknowledge().await?;
        self.tell_mirror();
        if occasion == Occasion::Reconcile {
            self.reconcile_history().await?;
        }
        if occasion.is_full() {
            self.next_poll = Instant::now() + POLL;
        }
        self.look_again = None;
        let result = self.commit_what_differs(occasion).await;
        if result.is_err() {
            self.mark_again(occasion);
        } else {
            self.taken.clear();
            self.set_alarm(Alarm::Behind, None);
            self.inbox.settled();
            if self.session_held.is_none() {
                self.unfit = false;
                self.last_success = Some(self.env.host.now());
            }
            if occasion == Occasion::Reconcile {
                self.next_reconcile = Instant::now() + self.env.policy.reconcile;
                if let Some(mirror) = &self.mirror {
                    mirror.reconciled();
                }
            }
            self.keep_house().await?;
            self.close_plaintext(occasion).await?;
        }
        result
    }

    /// What a turn took and did not store is marked again, also when it could not read anything, or was cut off.
    pub(super) fn mark_again(&mut self, occasion: Occasion) {
        // Of a path its newest event counts.
        for marks in self.taken.drain(..).rev() {
            self.inbox.put_back(marks);
        }
        if occasion.is_full() {
            self.inbox.rescan();
        }
    }

    async fn commit_what_differs(&mut self, occasion: Occasion) -> Result<Turn, Lost> {
        self.taken.extend(self.inbox.take());
        let fenced = self.fence.pass().await;
        self.taken.extend(self.inbox.take());
        let full = occasion.is_full()
            || !fenced
            || self.taken.iter().any(|marks| marks.rescan)
            || self.session_held.is_some()
            || self.logged_out.is_some();
        let events: BTreeMap<String, Instant> =
            self.taken.iter().flat_map(|marks| marks.paths.clone()).collect();
        self.note_events(&events, full && occasion != Occasion::Reconcile && !fenced);
        let mut dirty: BTreeSet<String> = events.into_keys().collect();
        let wants_base = self.weight.needs_base(Instant::now()).is_some();
        let mut want = match () {
            () if wants_base => Want::Contents,
            () if full => Want::All,
            () => Want::marked(dirty.iter().chain(self.held.keys()).cloned().collect()),
        };
        for round in 1.. {
            let before = self.inbox.generation();
            let sight = self.look(&want, &dirty).await?;
            let sensitive = !sight.gone.is_empty() || sight.full;
            if fenced && sensitive {
                // Events of what happened during the look may be on their way.
                self.fence.pass().await;
            }
            let disturbed = self.inbox.generation() != before;
            if disturbed && sensitive && round < LOOKS {
                // Removals, and whether a group is whole, are believed of a look during which nothing happened.
                let Some(more) = self.inbox.take() else { continue };
                for (path, at) in &more.paths {
                    self.note_event(path, *at);
                    dirty.insert(path.clone());
                }
                want = match want {
                    Want::Marked(_) if more.rescan => Want::All,
                    Want::Marked(paths) => Want::marked(paths.union(&dirty).cloned().collect()),
                    all => all,
                };
                self.taken.push(more);
                continue;
            }
            // What happened during the last look, too: a group that was written meanwhile is not whole.
            for (path, at) in self.inbox.peek().iter().flat_map(|marks| &marks.paths) {
                self.note_event(path, *at);
            }
            let plan = self.plan(&sight, occasion == Occasion::Last);
            if plan.base && want != Want::Contents {
                want = Want::Contents;
                continue;
            }
            if occasion == Occasion::Reconcile
                && fenced
                && plan.changes(&self.committed.table)
                && !self.fence.polling()
            {
                self.report_missed(&plan, &dirty);
            }
            return self.carry_out(plan, sight, wants_base).await;
        }
        unreachable!("the loop above ends by returning")
    }

    /// What is acknowledged is mirrored; what is stored and not owned is not.
    pub(super) fn tell_mirror(&mut self) {
        if let (Some(mirror), Some(head), false) =
            (&self.mirror, self.journal.acknowledged(), self.unmirrored.is_empty())
        {
            let changed = std::mem::take(&mut self.unmirrored);
            mirror.committed(head.to_string(), Arc::clone(&self.committed.table), changed);
        }
    }

    /// Hands what an event named to the groups; after a loss of events nobody can say that a group is quiet.
    fn note_events(&mut self, events: &BTreeMap<String, Instant>, lost: bool) {
        for (path, at) in events {
            self.note_event(path, *at);
        }
        if lost {
            let now = Instant::now();
            for dir in auth_dirs(self.committed.table.files.keys().map(String::as_str)) {
                self.groups.entry(dir).or_default().event(Member::Creds, now);
            }
        }
    }

    fn note_event(&mut self, path: &str, at: Instant) {
        if let Some((dir, member)) = member_of(path) {
            self.groups.entry(dir.to_owned()).or_default().event(member, at);
        }
    }

    async fn look(&mut self, want: &Want, dirty: &BTreeSet<String>) -> Result<Sight, Lost> {
        // Where a look was cut off, what it had hashed went with it.
        let mut eye = self.eye.take().unwrap_or_else(|| {
            Eye::new(self.env.dir(&self.key), Arc::clone(&self.filter), self.env.root.spool())
        });
        let (want, dirty) = (want.clone(), dirty.clone());
        let (table, creds) = (Arc::clone(&self.committed.table), Arc::clone(&self.committed.creds));
        let now = self.env.host.now();
        let (eye, sight) = blocking(move || {
            let sight = eye.look(&want, &dirty, &table, &creds, now);
            (eye, sight)
        })
        .await?;
        self.inbox.heed(eye.filter());
        self.eye = Some(eye);
        let sight = sight?;
        // Also of a look that is not committed: what it read is not read again for as long as it does not move.
        self.head_blocks.learn(&self.committed.table, &sight.metas, &sight.blocks);
        Ok(sight)
    }

    fn plan(&mut self, sight: &Sight, last: bool) -> Plan {
        let now = Instant::now();
        let mut groups = BTreeMap::new();
        if sight.full {
            for dir in sight.creds.keys().filter_map(|path| auth_dir(path)) {
                groups.insert(dir.to_owned(), self.judge_group(dir, sight, now, last));
            }
        }
        let known = Known {
            table: &self.committed.table,
            creds: &self.committed.creds,
            logged_out: self.logged_out.as_ref(),
            accept_identity: self.accept_identity,
        };
        plan(known, sight, &groups, &mut self.guard, now)
    }

    fn judge_group(&mut self, dir: &str, sight: &Sight, now: Instant, last: bool) -> Decision {
        let absent = Creds::ABSENT;
        let holder = creds_path(dir);
        let head = self.committed.creds.get(&holder).unwrap_or(&absent);
        let written = sight.metas.iter().any(|(path, meta)| {
            let here = member_of(path).is_some_and(|(at, _)| at == dir);
            here && self.committed.table.files.get(path).is_none_or(|old| old.sha256 != meta.sha256)
        });
        let look = baileys::Look {
            head,
            disk: sight.creds.get(&holder).unwrap_or(&absent),
            on_disk: &sight.pre_keys(dir),
            held: &sight.unfit(dir),
            written,
            began: sight.began,
            quiet_window: self.env.policy.pace.quiet,
            last_flush: last,
        };
        self.groups.entry(dir.to_owned()).or_default().decide(now, &look)
    }

    /// A reconcile found what no event had announced. // P8
    fn report_missed(&self, plan: &Plan, dirty: &BTreeSet<String>) {
        let unannounced = |path: &&String| !dirty.contains(*path) && !self.held.contains_key(*path);
        let missed = plan.put.keys().chain(&plan.remove).filter(unannounced).count();
        if missed > 0 {
            self.fence.missed(&format!("{missed} changes came without an event"));
        }
    }

    async fn carry_out(&mut self, mut plan: Plan, sight: Sight, wants_base: bool) -> Result<Turn, Lost> {
        self.note_held(&plan);
        let changes = plan.changes(&self.committed.table) || self.weight.broken;
        if !changes || plan.session_held.is_some() {
            return Ok(Turn::default());
        }
        if let Some(reason) = plan.pin {
            self.journal.pin(reason).await?;
        }
        let mut contents = sight.contents;
        let base = (plan.base || wants_base) && self.complete_base(&plan, &mut contents).await?;
        let paths = plan.put.keys().chain(&plan.remove).cloned().collect();
        self.env.make_durable(&self.key, paths).await?;
        let draft = if base {
            Draft::base(plan.table.clone(), contents)
        } else {
            let (put, patch) = self.head_blocks.split(&self.committed.table, &plan.put, &sight.blocks);
            Draft {
                put,
                patch,
                remove: plan.remove.iter().cloned().collect(),
                table: plan.table.clone(),
                contents,
                ..Draft::default()
            }
        };
        let began = Instant::now();
        let id = self.journal.store(draft).await?;
        self.weigh(base);
        self.retention_due |= base;
        let (puts, removals) = (plan.put.len(), plan.remove.len());
        let creds = std::mem::take(&mut plan.creds);
        self.note_committed(std::mem::take(&mut plan.table), creds);
        self.head_blocks.learn(&self.committed.table, &sight.metas, &sight.blocks);
        for (dir, tracker) in &mut self.groups {
            if let Some(head) = self.committed.creds.get(&creds_path(dir)) {
                tracker.committed(head);
            }
        }
        self.unmirrored.extend(plan.put.into_keys().chain(plan.remove));
        self.journal.acknowledge().await?;
        if self.logged_out.take().is_some() {
            // Another account is in place: the tombstone is no longer what a restart must come back to.
            self.journal.settle(self.committed.table.digest(), |_| {})?;
        }
        info!(%id, base, puts, removals, took_ms = crate::telemetry::millis(began.elapsed()), "committed");
        self.tell_mirror();
        Ok(Turn { committed: true })
    }

    /// Whether contents hold every file of the tree after the commit: what is held comes from history, never from
    /// disk. If something cannot be had, the base waits for the next commit, unless the identity is another.
    async fn complete_base(
        &mut self,
        plan: &Plan,
        contents: &mut BTreeMap<String, Content>,
    ) -> Result<bool, Lost> {
        let missing = |contents: &BTreeMap<String, Content>| -> BTreeSet<String> {
            let lacks = |path: &&String| !contents.contains_key(*path) || plan.held.contains_key(*path);
            plan.table.files.keys().filter(lacks).cloned().collect()
        };
        let wanted = missing(contents);
        if !wanted.is_empty() {
            match self.read_from_history(&wanted).await {
                Ok(found) => contents.extend(found),
                Err(error) => {
                    warn!(%error, "held files cannot be read from history: the base waits");
                    return Ok(false);
                }
            }
        }
        let fits = |(path, meta): (&String, &crate::tree::Meta)| {
            contents.get(path).is_some_and(|c| c.size() == meta.size)
        };
        Ok(plan.table.files.iter().all(fits))
    }

    /// Whatever is held shows, each once. // P8
    fn note_held(&mut self, plan: &Plan) {
        let now = self.env.host.now();
        let old = std::mem::take(&mut self.held);
        let mut new: BTreeMap<Reason, Vec<&String>> = BTreeMap::new();
        for (path, reason) in &plan.held {
            let since = old.get(path).filter(|hold| hold.reason == *reason).map(|hold| hold.since);
            if since.is_none() {
                new.entry(*reason).or_default().push(path);
            }
            self.held.insert(path.clone(), Hold { reason: *reason, since: since.unwrap_or(now) });
        }
        for (reason, paths) in new {
            say_held(reason, &paths);
        }
        if plan.session_held != self.session_held {
            if let Some(why) = &plan.session_held {
                error!("session held: {why}");
            } else {
                info!("session no longer held");
            }
            self.session_held.clone_from(&plan.session_held);
        }
        self.set_alarm(Alarm::Guard, plan.alarm.clone());
        // What only an event can mend is not looked at again by the clock.
        let waits = |hold: &Hold| {
            let lasts = matches!(hold.reason, Reason::NotUtf8 | Reason::Identity);
            !lasts && !is_databases(hold.reason)
        };
        let database = self.held.values().map(|hold| hold.reason).find(|reason| is_databases(*reason));
        self.set_alarm(
            Alarm::Database,
            database.map(|reason| format!("a file {reason}; it is not committed")),
        );
        if self.held.values().any(waits) {
            let again =
                Instant::now() + self.env.policy.pace.quiet.max(Duration::from_millis(100)).min(LOOK_AGAIN);
            self.look_again = Some(plan.look_again.map_or(again, |until| until.max(again)));
        }
    }

    async fn read_from_history(&self, paths: &BTreeSet<String>) -> Result<BTreeMap<String, Content>, Lost> {
        let Some(head) = self.journal.head() else { return Ok(BTreeMap::new()) };
        let survey = history::survey(&*self.env.store, &self.key, history::Depth::Chain, Some(head)).await?;
        let scratch = self.env.root.scratch()?;
        let chain =
            history::fetch(self.access(), &self.key, &survey, head, scratch.path(), &history::Silent).await?;
        let paths = paths.clone();
        Ok(blocking(move || chain.read(&paths)).await??)
    }
}

/// What holds a database until a person does something about it.
fn is_databases(reason: Reason) -> bool {
    matches!(reason, Reason::SqliteDamaged | Reason::SqliteOwner | Reason::LevelDb)
}

/// A whole tree may be held at once: some of it is named.
fn say_held(reason: Reason, paths: &[&String]) {
    const NAMED: usize = 5;
    let named = paths.iter().take(NAMED).map(|path| crate::telemetry::Masked(path).to_string());
    let (named, files) = (named.collect::<Vec<_>>().join(", "), paths.len());
    match reason {
        Reason::Changing | Reason::Group | Reason::BadJson => debug!(files, named, %reason, "held"),
        _ => warn!(files, named, "held: it {reason}"),
    }
}
