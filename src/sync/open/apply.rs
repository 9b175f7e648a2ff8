//! Steps 5 to 10: staging, seal, publish, and the last look before the bot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::local::{look_with, table_of};
use super::remote::There;
use super::{Opening, Owned, Patience};
use crate::error::{Code, Error};
use crate::history::{ChainWeight, Id};
use crate::sync::engine::Committed;
use crate::sync::journal::{Draft, Journal, blocking};
use crate::sync::look::Want;
use crate::sync::plan::creds_path;
use crate::sync::start::{Action, Decision};
use crate::tree::durable::make_durable;
use crate::tree::identity::Creds;
use crate::tree::publish::{Published, publish, remove_singletons, replace, set_aside};
use crate::tree::staging::{Staged, Staging};
use crate::tree::{Content, Dir, Reason, Table};

/// What is in place after the publish.
struct Placed {
    table: Table,
    creds: BTreeMap<String, Creds>,
    aside: Option<PathBuf>,
    alarm: Option<String>,
}

impl Opening<'_> {
    /// Does what the table says.
    pub(super) async fn apply(mut self, decision: Decision, mut there: There) -> Result<Owned, Error> {
        use Action as A;
        let action = decision.action;
        let needs_chain = matches!(
            action,
            A::Restore
                | A::RestoreHealed
                | A::ConflictRemote
                | A::KeepLocal
                | A::KeepHealHeld
                | A::AdoptEqual
        );
        if needs_chain && let Some(error) = there.damage(&self).await {
            return Err(error);
        }
        let mut journal = self.journal(&there);
        self.pin_new_label(&mut journal).await?;
        let placed = match action {
            A::Restore | A::ConflictRemote => self.restore(&mut journal, &there, false).await?,
            A::RestoreHealed => self.restore(&mut journal, &there, true).await?,
            A::RestoreMirror => self.restore_mirror(&mut journal, &mut there).await?,
            A::New => self.begin(&mut journal, false).await?,
            A::SetAsideNew => self.begin(&mut journal, true).await?,
            A::KeepLocal | A::AdoptEqual => self.keep(&mut journal, &there).await?,
            A::KeepHealHeld => {
                let aside = self.heal(&there).await?;
                Placed { aside, ..self.keep(&mut journal, &there).await? }
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
            A::KeepRebase => {
                self.adopt(
                    &mut journal,
                    Some("history: its chain is damaged; a base of the local tree was committed".to_owned()),
                )
                .await?
            }
            A::Recover | A::FinishRestoring | A::Exit(_) | A::KeepAsking | A::StartNotOwned => {
                return Err(Error::new(Code::Internal, "a decision that leaves nothing to apply"));
            }
        };
        self.make_ready(journal, decision, placed).await
    }

    /// Step 10, and the state that says that a bot may live now.
    async fn make_ready(
        self,
        mut journal: Journal,
        decision: Decision,
        placed: Placed,
    ) -> Result<Owned, Error> {
        let mut patience = self.patience();
        let digest = placed.table.digest();
        let (life, label) = (self.life(), self.env.policy.label.clone());
        journal.settle(digest, |state| {
            state.ready = Some(life);
            state.label = label;
        })?;
        while let Err(lost) = journal.prove().await {
            patience.bear(lost).await?;
        }
        if let Some(alarm) = &placed.alarm {
            error!(session = %self.shown(), "{alarm}");
        }
        info!(session = %self.shown(), head = journal.head().map(tracing::field::display), files = placed.table.files.len(), line = decision.line.number(), "ready");
        let weight = match journal.head() {
            Some(head) => {
                let survey = crate::history::survey(
                    &*self.env.store,
                    self.key,
                    crate::history::Depth::Chain,
                    Some(head),
                )
                .await?;
                ChainWeight::of(&survey, head)
            }
            None => ChainWeight::default(),
        };
        Ok(Owned {
            committed: Committed {
                table: Arc::new(placed.table),
                creds: Arc::new(placed.creds),
                at: Some(self.env.host.now()),
            },
            weight,
            filter: Arc::clone(&self.local.filter),
            logged_out: None,
            alarm: placed.alarm,
            line: decision.line,
            set_aside: placed.aside,
            journal,
        })
    }

    /// Who waits for an outage at all does so for ever; others for `--outage-wait`, which the caller measures.
    pub(super) fn patience(&self) -> Patience<'_> {
        let bounded = !self.env.policy.start.command.keeps_asking();
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
        let staged = {
            let chain = Arc::clone(chain);
            blocking(move || -> Result<Staged, Error> {
                chain.extract(staging.dir(), &crate::history::Silent)?;
                staging.finish().map_err(|error| Error::io("the staged tree cannot be made durable", error))
            })
            .await??
        };
        let (table, now) = (chain.table().clone(), self.env.host.now());
        let digest = table.digest();
        journal.update_state(|state| {
            state.restoring = Some(head);
            state.digest = Some(digest);
            if heals {
                state.healed_from(head, now);
            }
        })?;
        self.seal(journal, Draft::seal(&table)).await?;
        let aside = self.publish(staged).await?;
        let alarm = heals.then(|| {
            "the local identity was lost (creds.json gone, empty, truncated or unpaired): the tree was restored from history".to_owned()
        });
        Ok(Placed { table, creds: there.creds.clone(), aside, alarm })
    }

    async fn restore_mirror(&mut self, journal: &mut Journal, there: &mut There) -> Result<Placed, Error> {
        let (fetched, staging) = there
            .mirrored
            .take()
            .ok_or_else(|| Error::new(Code::Internal, "a mirror that was not fetched"))?;
        let age = fetched.age();
        let (table, creds, contents) = self.read_staged(&staging, &fetched.table).await?;
        let staged = blocking(move || staging.finish()).await?;
        let staged = staged.map_err(|error| Error::io("the staged tree cannot be made durable", error))?;
        self.seal(journal, Draft { restores: true, ..Draft::base(table.clone(), contents) }).await?;
        let aside = self.publish(staged).await?;
        let age = age.map_or("unknown".to_owned(), |age| format!("{} hours", age.as_hours()));
        let alarm = format!(
            "restored from a mirror that another service filled; its newest file is {age} old: its keys may be behind the phone's"
        );
        Ok(Placed { table, creds, aside, alarm: Some(alarm) })
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
        let dir = staging.dir().dir("").map_err(|error| Error::io("staging cannot be read", error))?;
        let table = table.clone();
        let contents = blocking({
            let table = table.clone();
            move || -> std::io::Result<BTreeMap<String, Content>> {
                let mut contents = BTreeMap::new();
                for path in table.files.keys() {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut dir.read(path)?, &mut bytes)?;
                    contents.insert(path.clone(), Content::Bytes(bytes.into()));
                }
                Ok(contents)
            }
        })
        .await?
        .map_err(|error| Error::io("staging cannot be read", error))?;
        let dirs = crate::tree::identity::auth_dirs(table.files.keys().map(String::as_str));
        let creds = dirs.into_iter().map(|dir| {
            let bytes = contents.get(&creds_path(&dir)).and_then(|content| content.bytes().ok());
            let creds = Creds::parse(bytes.as_deref());
            (dir, creds)
        });
        let creds = creds.collect();
        Ok((table, creds, contents))
    }

    /// A new session: an empty base. What lies there, if anything, is set aside after the seal.
    async fn begin(&mut self, journal: &mut Journal, aside: bool) -> Result<Placed, Error> {
        self.seal(journal, Draft::base(Table::default(), BTreeMap::new())).await?;
        let aside = if aside {
            let (site, host) = (self.site.clone(), Arc::clone(&self.env.host));
            let moved = blocking(move || set_aside(&site, &*host)).await?;
            moved.map_err(|error| Error::io("the old tree cannot be set aside", error))?.set_aside
        } else {
            None
        };
        Ok(Placed { table: Table::default(), creds: BTreeMap::new(), aside, alarm: None })
    }

    /// The tree stays as it is; what differs from the head is committed once the engine runs.
    async fn keep(&mut self, journal: &mut Journal, there: &There) -> Result<Placed, Error> {
        let table = there.table().cloned().unwrap_or_default();
        self.seal(journal, Draft::seal(&table)).await?;
        Ok(Placed { table, creds: there.creds.clone(), aside: None, alarm: None })
    }

    /// The seal is a base of what is there; what is not fit comes with a later commit.
    async fn adopt(&mut self, journal: &mut Journal, alarm: Option<String>) -> Result<Placed, Error> {
        let sight = look_with(self.env, &self.site, Arc::clone(&self.local.filter), Want::Contents).await?;
        let table = table_of(&sight);
        let (dir, host, paths) =
            (self.site.dir(), Arc::clone(&self.env.host), table.files.keys().cloned().collect::<Vec<_>>());
        let synced = blocking(move || match Dir::open(&dir) {
            Ok(dir) => make_durable(&dir, paths.iter().map(String::as_str), &*host),
            Err(_) => Ok(()),
        });
        synced.await?.map_err(|error| Error::io("the tree cannot be made durable", error))?;
        self.seal(journal, Draft::base(table.clone(), sight.contents)).await?;
        let creds =
            sight.creds.into_iter().filter(|(dir, _)| table.files.contains_key(&creds_path(dir))).collect();
        Ok(Placed { table, creds, aside: None, alarm })
    }

    /// Line 13: what would be held is replaced from the head, whole groups.
    async fn heal(&self, there: &There) -> Result<Option<PathBuf>, Error> {
        let (Ok(Some(chain)), Some(head)) = (&there.chain, there.table()) else { return Ok(None) };
        let sight = look_with(self.env, &self.site, Arc::clone(&self.local.filter), Want::Hashes).await?;
        let unfit =
            |path: &&String| matches!(sight.why_held(path), Some(Reason::BadJson | Reason::Unreadable));
        let mut paths: BTreeSet<String> = head.files.keys().filter(unfit).cloned().collect();
        let groups: BTreeSet<String> = paths
            .iter()
            .filter_map(|path| crate::sync::look::member_of(path))
            .map(|(dir, _)| dir.to_owned())
            .collect();
        let in_group =
            |path: &&String| crate::sync::look::member_of(path).is_some_and(|(dir, _)| groups.contains(dir));
        paths.extend(head.files.keys().filter(in_group).cloned());
        if paths.is_empty() {
            return Ok(None);
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
        warn!(session = %self.shown(), files = paths.len(), "unfit files are replaced from history");
        let staging = self.staging()?;
        let (chain, site, host) = (Arc::clone(chain), self.site.clone(), Arc::clone(&self.env.host));
        blocking(move || -> Result<Option<PathBuf>, Error> {
            chain.extract_some(staging.dir(), &paths)?;
            let staged = staging
                .finish()
                .map_err(|error| Error::io("the staged files cannot be made durable", error))?;
            let replaced = replace(&site, staged, &strangers, &*host);
            Ok(replaced.map_err(|error| Error::io("unfit files cannot be replaced", error))?.set_aside)
        })
        .await?
    }

    async fn publish(&self, staged: Staged) -> Result<Option<PathBuf>, Error> {
        let (site, host) = (self.site.clone(), Arc::clone(&self.env.host));
        let published = blocking(move || -> std::io::Result<Published> {
            let published = publish(&site, staged, &*host)?;
            remove_singletons(&site, &*host)?;
            Ok(published)
        })
        .await?;
        let published =
            published.map_err(|error| Error::io("the restored tree cannot be put in place", error))?;
        if let Some(aside) = &published.set_aside {
            info!(session = %self.shown(), set_aside = %aside.display(), "the old tree was set aside");
        }
        Ok(published.set_aside)
    }

    fn staging(&self) -> Result<Staging, Error> {
        Staging::create(&self.site, self.env.policy.owner, Arc::clone(&self.env.host))
            .map_err(|error| Error::io("a staging directory cannot be made", error))
    }
}
