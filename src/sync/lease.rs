//! The right to acknowledge commits of a session ("One writer" in DESIGN.md).
//!
//! The bucket keeps it safe, a [`Lessor`] keeps the peace: whatever it grants is [claimed](claim) in the
//! bucket, and what decides is the list after that. [`Leases`] waits for grants and renews them, for all sessions of
//! a process.

mod claim;
mod counted;
pub mod courtesy;
mod leases;
mod postgres;
mod queue;
mod take;
#[cfg(test)]
mod tests;

pub use claim::{Claim, Claimant, claim};
pub use counted::Counted;
pub use leases::{Granted, Leases, Standing, Wait};
pub use postgres::PostgresLessor;
pub use take::{Held, LeaseError, Taking, is_ours, take};

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Code, Error};
use crate::history::{Id, name};
use crate::session::SessionKey;

/// Decides who waits and who is asked to give way. Never relied on for safety: it may lie.
///
/// Each call is one request, for at most [`AT_ONCE`](crate::supabase::AT_ONCE) sessions. Waiting and renewing are [`Leases`]' own.
#[async_trait]
pub trait Lessor: Send + Sync + Debug {
    /// Asks for new epochs. The same holder gets a new one too. A grant counts only once it is claimed. One answer
    /// for each of `asks`, in their order.
    async fn acquire(&self, asks: &[Ask], how: How) -> Result<Vec<Outcome>, Error>;

    /// Extends what is held, by `ttl` from now. A session that is missing from the answer is not lost: it was not
    /// answered for.
    async fn renew(&self, held: &[Grant], ttl: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error>;

    /// Gives back what is held, after the last flush was acknowledged.
    async fn release(&self, held: &[Grant]) -> Result<(), Error>;
}

/// A session that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The session.
    pub key: SessionKey,
    /// The holder id of this process.
    pub holder: String,
    /// The highest epoch that the bucket lists or the state kept: the grant is greater.
    pub above: u32,
}

/// How sessions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// How long a grant lasts if it is not renewed.
    pub ttl: Duration,
    /// Whether a refusal records the wish that the holder gives way: starts ask, quiet waiters and tools do not.
    pub ask: bool,
    /// One bot needs all of them: two pods with half of them each would wait for each other.
    pub all_or_none: bool,
}

/// What [`Lessor::acquire`] says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This epoch may be claimed.
    Granted {
        /// Greater than `above`.
        epoch: u32,
        /// The newest acknowledged commit that the row remembers.
        head: Option<Id>,
    },
    /// Another has it.
    Refused(Refused),
    /// An epoch that no start can have led to.
    Hostile {
        /// The highest epoch that the row knows.
        known: u32,
    },
}

/// Who has a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Its holder id; none: it is promised to whoever asked for it, or granted only together with others.
    pub holder: Option<String>,
    /// How long until it ends if it is not renewed, by the database's clock.
    pub expires_in: Option<Duration>,
}

/// A session that is held, as the lessor is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The session.
    pub key: SessionKey,
    /// The holder id that it was granted to.
    pub holder: String,
    /// The granted epoch.
    pub epoch: u32,
    /// The newest acknowledged commit, which the row remembers.
    pub head: Option<Id>,
}

/// What [`Lessor::renew`] says of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Still held, perhaps after it had run out.
    Held,
    /// Still held, and somebody asks for it.
    Wanted,
    /// Another was granted this epoch or a later one.
    Taken {
        /// Its epoch.
        epoch: u32,
    },
}

/// `--lease storage`: nobody waits, nobody is asked; the claim alone decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct StorageLessor;

#[async_trait]
impl Lessor for StorageLessor {
    async fn acquire(&self, asks: &[Ask], _: How) -> Result<Vec<Outcome>, Error> {
        asks.iter().map(next_epoch).collect()
    }

    async fn renew(&self, held: &[Grant], _: Duration) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        Ok(held.iter().map(|grant| (grant.key.clone(), Renewed::Held)).collect())
    }

    async fn release(&self, _: &[Grant]) -> Result<(), Error> {
        Ok(())
    }
}

fn next_epoch(ask: &Ask) -> Result<Outcome, Error> {
    let next = ask.above.checked_add(1).filter(|epoch| *epoch <= name::MAX);
    let epoch = next.ok_or_else(|| {
        let text =
            format!("session {}: no epoch is left above {}: something forged a claim", ask.key, ask.above);
        Error::new(Code::Damaged, text)
    })?;
    Ok(Outcome::Granted { epoch, head: None })
}
