//! Steps 5 to 10: staging, seal, publish, and the last look before the bot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::remote::{There, paired, read_staged};
use super::{Opening, Owned, Patience};
use crate::error::{Code, Error};
use crate::history::{Chain, ChainWeight, Id, Why};
use crate::sync::engine::Committed;
use crate::sync::journal::{Draft, Journal, blocking};
use crate::sync::plan::LoggedOut;
use crate::sync::start::{self, Action, Decision, Line};
use crate::sync::state::LocalState;
use crate::tree::identity::{Creds, Identity, creds_of};
use crate::tree::publish::{Published, publish, remove_singletons, replace};
use crate::tree::staging::{Staged, Staging};
use crate::tree::{Content, Reason, Table};

/// What is in place after the publish.
#[derive(Default)]
pub(super) struct Placed {
    pub table: Table,
    pub creds: BTreeMap<String, Creds>,
    /// The seal is a base of it.
    pub based: bool,
    /// An account that was logged out, whose bot may still use its tree.
    pub logged_out: Option<LoggedOut>,
    pub alarm: Option<String>,
}

impl Opening<'_> {
    /// Does what the table says.
    pub(super) async fn apply(mut self, decision: Decision, mut there: There) -> Result<Owned, Error> {
        use Action as A;
        let action = decision.action;
        let mut journal = self.journal(&there).await?;
        if action.replaces_tree() && journal.state().ready.is_some() {
            // No bot lives, or nothing would be replaced: a start that follows a crash must not think that one does.
            journal.update_state(|state| state.ready = None)?;
        }
        self.pin_new_label(&mut journal).await?;
        let placed = match action {
            A::Restore | A::ConflictRemote => self.restore(&mut journal, &there, false).await?,
            A::RestoreHealed => self.restore(&mut journal, &there, true).await?,
            A::RestoreMirror => self.restore_mirror(&mut journal, &mut there).await?,
            A::New => self.begin(&mut journal, &there, false).await?,
            A::SetAsideNew => self.begin(&mut journal, &there, true).await?,
            A::KeepLocal | A::AdoptEqual => self.keep(&mut journal, &there).await?,
            A::KeepHealHeld => {
                self.heal(&there).await?;
                self.keep(&mut journal, &there).await?
            }
            A::Adopt { mirror_first } => {
                if mirror_first {
                    self.commit_mirror(&mut journal, &mut there).await?;
                }
                self.adopt(&mut journal, None).await?
            }
            A::ConflictLocal => {
                self.seal_pin(&mut journal, "conflict").await?;
                self.adopt(
                    &mut journal,
                    Some("the local tree won a conflict; the head before it is pinned".to_owned()),
                )
                .await?
            }
            A::KeepRebase => self.rebase(&mut journal, &there).await?,
            A::Recover | A::FinishRestoring | A::Exit(_) | A::KeepAsking | A::StartNotOwned => {
                return Err(Error::new(Code::Internal, "a decision that leaves nothing to apply"));
            }
        };
        if let Some(granted) = self.granted.filter(|_| action.replaces_tree() && action != A::SetAsideNew) {
            self.env.counters.restore_seconds.observe(granted.elapsed().as_secs_f64());
        }
        let weight = weigh(&journal, &there, placed.based);
        self.make_ready(journal, decision.line, placed, weight).await
    }

    /// Step 10, and the state that says that a bot may live now.
    async fn make_ready(
        self,
        mut journal: Journal,
        line: Line,
        placed: Placed,
        weight: ChainWeight,
    ) -> Result<Owned, Error> {
        let mut patience = self.patience();
        let digest = placed.table.digest();
        let (ready, label) = (self.life(), self.env.policy.label.clone());
        let change = |state: &mut LocalState| {
            state.ready = Some(ready);
            state.label = label;
        };
        match placed.logged_out {
            None => journal.settle(digest, change)?,
            // The tombstone's tree is not what lies there.
            Some(_) => journal.update_state(change)?,
        }
        while let Err(lost) = journal.prove().await {
            patience.bear(lost).await?;
        }
        if let Some(alarm) = &placed.alarm {
            error!("{alarm}");
        }
        info!(
            head = journal.head().map(tracing::field::display),
            files = placed.table.files.len(),
            line = line.number(),
            "ready"
        );
        // Beside a bot nothing was put back. A bot that is about to start would take the tree for a new account. // P4 P7
        let lost = paired(&placed.creds) && !paired(&self.local.sight.creds);
        let starts_bots = self.env.policy.start.command == start::Command::Run && !self.attempt.in_use;
        let unfit = lost && starts_bots && line == Line::SameLifeOurs && placed.logged_out.is_none();
        if unfit {
            error!(
                "the identity was lost here while a bot may be at work, so nothing was put back, and no other bot is to start: \
                 stop the bot and run `restore`, or link the account again"
            );
        }
        Ok(Owned {
            unfit,
            committed: Committed {
                table: Arc::new(placed.table),
                creds: Arc::new(placed.creds),
                at: Some(self.env.host.now()),
            },
            weight,
            logged_out: placed.logged_out,
            filter: Arc::clone(&self.local.filter),
            alarm: placed.alarm,
            journal,
        })
    }

    /// Who waits for an outage at all does so for ever; others for `--outage-wait`, which the caller measures.
    pub(super) fn patience(&self) -> Patience<'_> {
        let bounded = !self.env.policy.start.command.owns_its_bot();
        Patience::new(self.key, bounded.then_some(self.env.policy.outage_wait))
    }

    /// Step 7. A failed attempt is repeated under a new id; the seal is acknowledged before anything is published. // P2 P5
    pub(super) async fn seal(&self, journal: &mut Journal, draft: Draft) -> Result<Id, Error> {
        let mut patience = self.patience();
        loop {
            let sealed = match journal.unacknowledged() {
                Some(id) => journal.acknowledge().await.map(|()| id),
                None => journal.append(draft.clone()).await,
            };
            match sealed {
                Ok(id) => return Ok(id),
                Err(lost) => patience.bear(lost).await?,
            }
        }
    }

    /// Seals the head's own tree with an empty delta; where the chain has become long, with a base: a bot that crashes at
    /// each of its starts makes no other commits. Whether it is a base.
    ///
    /// Also where the recipients are others than the head's: every commit of this epoch builds on the seal.
    pub(super) async fn seal_head(
        &self,
        journal: &mut Journal,
        there: &There,
        table: &Table,
    ) -> Result<bool, Error> {
        let now = Instant::now();
        let why = there.head().and_then(|head| ChainWeight::of(&there.survey, head, now).needs_base(now));
        let long = matches!(why, Some(Why::Long | Why::Heavy));
        let chain = there.chain.as_ref().ok().and_then(Option::as_ref);
        // What is encrypted for others than before, or not any more, begins anew: nobody needs two keys for one chain.
        let turned = |chain: &Arc<Chain>| chain.head().recipients != self.env.keys.fingerprints();
        let Some(chain) = chain.filter(|chain| long || turned(chain)) else {
            self.seal(journal, Draft::seal(table)).await?;
            return Ok(false);
        };
        let (chain, paths) = (Arc::clone(chain), table.files.keys().cloned().collect());
        let contents = blocking(move || chain.read(&paths)).await??;
        self.seal(journal, Draft::base(table.clone(), contents)).await?;
        Ok(true)
    }

    pub(super) async fn seal_pin(&self, journal: &mut Journal, reason: &str) -> Result<(), Error> {
        let mut patience = self.patience();
        while let Err(lost) = journal.pin(reason).await {
            patience.bear(lost).await?;
        }
        Ok(())
    }

    /// A start with a new label pins what the old version of the bot left: going back to it must be possible. // P6
    async fn pin_new_label(&self, journal: &mut Journal) -> Result<(), Error> {
        let label = &self.env.policy.label;
        let old = self.local.state.as_ref().and_then(|state| state.label.as_ref());
        if label.is_some() && label.as_ref() != old && journal.head().is_some() {
            self.seal_pin(journal, "label").await?;
        }
        Ok(())
    }

    async fn restore(&mut self, journal: &mut Journal, there: &There, heals: bool) -> Result<Placed, Error> {
        let (Ok(Some(chain)), Some(head)) = (&there.chain, there.head()) else {
            return Err(Error::new(Code::Internal, "a restore without a chain"));
        };
        let staging = self.staging()?;
        let extracted = {
            let chain = Arc::clone(chain);
            blocking(move || chain.extract(staging.dir(), &crate::history::Silent).map(|()| staging)).await?
        };
        let staging = match extracted {
            Err(error) if error.is_damage() => return Err(there.damage(self, &error).await),
            extracted => extracted?,
        };
        let staged = finish(staging).await?;
        let (table, now) = (chain.table().clone(), self.env.host.now());
        let digest = table.digest();
        journal.update_state(|state| {
            state.restoring = Some(head);
            state.digest = Some(digest);
            if heals {
                state.healed_from(digest, now);
            }
        })?;
        let based = self.seal_head(journal, there, &table).await?;
        self.publish(staged).await?;
        let alarm = heals.then(|| {
            "the local identity was lost (creds.json or the database gone, empty, truncated or unpaired): the tree was restored from history".to_owned()
        });
        Ok(Placed { table, creds: there.creds.clone(), based, alarm, ..Placed::default() })
    }

    async fn restore_mirror(&mut self, journal: &mut Journal, there: &mut There) -> Result<Placed, Error> {
        let (fetched, staging) = there
            .mirrored
            .take()
            .ok_or_else(|| Error::new(Code::Internal, "a mirror that was not fetched"))?;
        let age = fetched.age();
        let (table, creds, contents) = self.read_staged(&staging, &fetched.table).await?;
        if creds.values().any(|creds| creds.identity == Identity::Unreadable) {
            // P4
            let text = format!(
                "session {}: there is no history, and creds.json (or the database) in the mirror is empty or cut off: a bot would start as a new \
                 account on it. Repair or remove that object in the bucket, then start again",
                self.key
            );
            return Err(Error::new(Code::Conflict, text));
        }
        let staged = finish(staging).await?;
        self.seal(journal, Draft { restores: true, ..Draft::base(table.clone(), contents) }).await?;
        self.publish(staged).await?;
        let age = age.map_or("unknown".to_owned(), |age| format!("{} hours", age.as_hours()));
        let alarm = format!(
            "restored from a mirror that another service filled; its newest file is {age} old: its keys may be behind the phone's"
        );
        Ok(Placed { table, creds, based: true, alarm: Some(alarm), ..Placed::default() })
    }

    /// Line 10: what the mirror has becomes a commit of its own, pinned, before the local tree is adopted.
    async fn commit_mirror(&mut self, journal: &mut Journal, there: &mut There) -> Result<(), Error> {
        let Some((fetched, staging)) = there.mirrored.take() else { return Ok(()) };
        let (table, _, contents) = self.read_staged(&staging, &fetched.table).await?;
        self.seal(journal, Draft::base(table, contents)).await?;
        self.seal_pin(journal, "mirror").await
    }

    /// The contents of a tree in staging, which nobody else writes.
    async fn read_staged(
        &self,
        staging: &Staging,
        table: &Table,
    ) -> Result<(Table, BTreeMap<String, Creds>, BTreeMap<String, Content>), Error> {
        let failed = |error| Error::io("staging cannot be read", error);
        let dir = staging.dir().dir("").map_err(failed)?;
        let table = table.clone();
        let paths: Vec<String> = table.files.keys().cloned().collect();
        let contents = blocking(move || -> std::io::Result<BTreeMap<String, Content>> {
            let read = |path: String| read_staged(&dir, &path).map(|content| (path, content));
            paths.into_iter().map(read).collect()
        });
        let contents = contents.await?.map_err(failed)?;
        let names = table.files.keys().map(String::as_str);
        let content =
            |path: &str| contents.get(path).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into());
        let creds = creds_of(names, &self.env.root.spool(), content).map_err(failed)?;
        Ok((table, creds, contents))
    }

    /// Line 13: what would be held is replaced from the head, whole groups.
    async fn heal(&self, there: &There) -> Result<(), Error> {
        let (Ok(Some(chain)), Some(head)) = (&there.chain, there.table()) else { return Ok(()) };
        let sight = &self.local.sight;
        let unfit = |path: &&String| {
            let why = sight.why_held(path);
            matches!(
                why,
                Some(Reason::BadJson | Reason::Unreadable | Reason::SqliteDamaged | Reason::LevelDb)
            )
        };
        let mut paths: BTreeSet<String> = head.files.keys().filter(unfit).cloned().collect();
        let groups: BTreeSet<String> = paths
            .iter()
            .filter_map(|path| crate::sync::look::member_of(path))
            .map(|(dir, _)| dir.to_owned())
            .collect();
        let in_group = |path: &&String| {
            let broken = sight.why_held(path) == Some(Reason::LevelDb);
            broken || crate::sync::look::member_of(path).is_some_and(|(dir, _)| groups.contains(dir))
        };
        paths.extend(head.files.keys().filter(in_group).cloned());
        if paths.is_empty() {
            return Ok(());
        }
        // Members that the head does not know would not fit the head's others.
        let strangers: BTreeSet<String> = sight
            .scan
            .files
            .keys()
            .filter(in_group)
            .filter(|path| !head.files.contains_key(*path))
            .cloned()
            .collect();
        warn!(files = paths.len(), "unfit files are replaced from history");
        let staging = self.staging()?;
        let (chain, site, host) = (Arc::clone(chain), self.site.clone(), Arc::clone(&self.env.host));
        let replaced = blocking(move || -> Result<Published, Error> {
            chain.extract_some(staging.dir(), &paths)?;
            let staged = staging
                .finish()
                .map_err(|error| Error::io("the staged files cannot be made durable", error))?;
            replace(&site, staged, &strangers, &*host)
                .map_err(|error| Error::io("unfit files cannot be replaced", error))
        });
        say_aside(&replaced.await??);
        Ok(())
    }

    async fn publish(&self, staged: Staged) -> Result<(), Error> {
        let (site, host) = (self.site.clone(), Arc::clone(&self.env.host));
        let published = blocking(move || -> std::io::Result<Published> {
            let published = publish(&site, staged, &*host)?;
            remove_singletons(&site, &*host)?;
            Ok(published)
        })
        .await?;
        let published =
            published.map_err(|error| Error::io("the restored tree cannot be put in place", error))?;
        say_aside(&published);
        Ok(())
    }

    fn staging(&self) -> Result<Staging, Error> {
        Staging::create(&self.site, self.env.policy.owner, Arc::clone(&self.env.host))
            .map_err(|error| Error::io("a staging directory cannot be made", error))
    }
}

async fn finish(staging: Staging) -> Result<Staged, Error> {
    let staged = blocking(move || staging.finish()).await?;
    staged.map_err(|error| Error::io("the staged tree cannot be made durable", error))
}

/// The weight of the chain that the seal ends, or begins.
fn weigh(journal: &Journal, there: &There, based: bool) -> ChainWeight {
    let (sealed, now) = (journal.stored_bytes(), Instant::now());
    match there.head() {
        Some(head) if !based => {
            let mut weight = ChainWeight::of(&there.survey, head, now);
            weight.grow(sealed);
            weight
        }
        _ => ChainWeight::based(sealed, now),
    }
}

pub(super) fn say_aside(published: &Published) {
    if let Some(aside) = &published.set_aside {
        info!(set_aside = %aside.display(), "the old tree was set aside");
    }
}
