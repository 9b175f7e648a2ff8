//! Trees that stay where they are, and sessions that begin.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Opening;
use super::apply::{Placed, say_aside};
use super::local::{look, table_of};
use super::remote::{self, There, paired};
use crate::error::{Code, Error};
use crate::history::Mark;
use crate::sync::journal::{Draft, Journal, blocking};
use crate::sync::look::{Sight, Want};
use crate::sync::plan::LoggedOut;
use crate::sync::start;
use crate::tree::publish::set_aside;

/// How long a tree that is used may take to fall quiet, when its history is damaged.
const REBASE: Duration = Duration::from_secs(35);

impl Opening<'_> {
    /// A new session: an empty base. What lies there, if anything, is set aside after the seal.
    pub(super) async fn begin(
        &mut self,
        journal: &mut Journal,
        there: &There,
        aside: bool,
    ) -> Result<Placed, Error> {
        // Until something is committed the mark stays: the disk of an ended account may still turn up. // P2
        self.seal(journal, Draft::empty(there.ended())).await?;
        if aside {
            let (site, host) = (self.site.clone(), Arc::clone(&self.env.host));
            let moved = blocking(move || set_aside(&site, &*host)).await?;
            say_aside(&moved.map_err(|error| Error::io("the old tree cannot be set aside", error))?);
        }
        Ok(Placed { based: true, ..Placed::default() })
    }

    /// The tree stays as it is; what differs from the head is committed once the engine runs.
    pub(super) async fn keep(&mut self, journal: &mut Journal, there: &There) -> Result<Placed, Error> {
        if let Some(mark) = there.ended() {
            return self.keep_ended(journal, mark).await;
        }
        let table = there.table().cloned().unwrap_or_default();
        let based = self.seal_head(journal, there, &table).await?;
        Ok(Placed { table, creds: there.creds.clone(), based, ..Placed::default() })
    }

    /// The account was logged out while its bot ran: the tree stays where it is, and the tombstone stays the head
    /// until another account is in place. // P7
    async fn keep_ended(&mut self, journal: &mut Journal, mark: Mark) -> Result<Placed, Error> {
        // Settled, what lies there has grown since then.
        let settled = self.local.state.as_ref().is_none_or(|state| state.restoring.is_none());
        let logged_out = if settled { None } else { Some(LoggedOut::of(&remote::ended_creds(self).await?)) };
        self.seal(journal, Draft::empty(Some(mark))).await?;
        Ok(Placed { based: true, logged_out, ..Placed::default() })
    }

    /// The chain is damaged: the seal is a base of the local tree. Its bot may be writing (line 3), and there is no head
    /// that could stand in for what is not fit: the whole tree must be fit, and quiet. // P1 P4
    pub(super) async fn rebase(&mut self, journal: &mut Journal, there: &There) -> Result<Placed, Error> {
        let (quiet, until) = (self.env.policy.pace.quiet, Instant::now() + REBASE);
        let mut before = None;
        let sight = loop {
            let sight = self.look_at_contents().await?;
            let fit = sight.held.is_empty() && sight.scan.held.is_empty();
            let seen = (fit && paired(&sight.creds)).then(|| table_of(&sight).digest());
            if seen.is_some() && seen == before {
                break sight;
            }
            if Instant::now() > until {
                return Err(match &there.chain {
                    Err(error) => there.damage(self, error).await,
                    Ok(_) => Error::new(Code::Internal, "a chain that is whole was taken for a damaged one"),
                });
            }
            before = seen;
            sleep(quiet).await;
        };
        let alarm = "history: its chain is damaged; a base of the local tree was committed".to_owned();
        self.adopt_seen(journal, sight, Some(alarm)).await
    }

    async fn look_at_contents(&self) -> Result<Sight, Error> {
        look(self.env, &self.site, Arc::clone(&self.local.filter), Want::Contents).await
    }

    /// The seal is a base of what is there; what is not fit comes with a later commit.
    pub(super) async fn adopt(
        &mut self,
        journal: &mut Journal,
        alarm: Option<String>,
    ) -> Result<Placed, Error> {
        let sight = self.look_at_whole_groups().await?;
        self.adopt_seen(journal, sight, alarm).await
    }

    /// Beside a bot, keys that were written a moment ago may still lack others that belong to them, and no head has them
    /// whole: they are waited for as long as a commit waits. // P4
    async fn look_at_whole_groups(&self) -> Result<Sight, Error> {
        let (env, pace) = (self.env, self.env.policy.pace);
        let beside_a_bot = self.same_life || env.policy.start.command == start::Command::Watch;
        let until = Instant::now() + pace.max_wait;
        loop {
            let began = env.host.now();
            let sight = self.look_at_contents().await?;
            if !beside_a_bot || !sight.wrote_a_group(began, pace.quiet) || Instant::now() >= until {
                return Ok(sight);
            }
            sleep(pace.quiet).await;
        }
    }

    async fn adopt_seen(
        &mut self,
        journal: &mut Journal,
        sight: Sight,
        alarm: Option<String>,
    ) -> Result<Placed, Error> {
        let table = table_of(&sight);
        self.env.make_durable(self.key, table.files.keys().cloned().collect()).await?;
        self.seal(journal, Draft::base(table.clone(), sight.contents)).await?;
        let creds = sight.creds.into_iter().filter(|(path, _)| table.files.contains_key(path)).collect();
        Ok(Placed { table, creds, based: true, alarm, ..Placed::default() })
    }
}
