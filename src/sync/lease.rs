//! The right to acknowledge commits of a session ("One writer" in DESIGN.md).
//!
//! The bucket keeps it safe, a [`Lessor`] keeps the peace: whatever it grants is [claimed](claim) in the
//! bucket, and what decides is the list after that.

mod claim;
mod take;
#[cfg(test)]
mod tests;

pub use claim::{Claim, Claimant, claim};
pub use take::{Held, LeaseError, is_ours, take};

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::{Code, Error};
use crate::history::name;
use crate::session::SessionKey;

/// Decides who waits and who is asked to give way. Never relied on for safety: it may lie.
///
/// Waiting is the caller's: a start calls [`acquire`](Lessor::acquire) again (through [`take`]) until its
/// `--lease-wait` is over, a quiet waiter for ever. Whether a refused call also *asks* the holder to give way is a
/// property of the lessor that makes the call, because starts ask and quiet waiters and tools do not. An
/// implementation may gather calls that arrive together into one request.
#[async_trait]
pub trait Lessor: Send + Sync + Debug {
    /// Asks for a new epoch, greater than `above`, which is the highest that the bucket lists or the state kept.
    /// The same holder gets a new one too. The grant counts only once it is claimed.
    async fn acquire(&self, key: &SessionKey, above: u32) -> Result<Outcome, Error>;

    /// Extends what is held. A session that is missing from the answer is not lost: it was not answered for.
    async fn renew(&self, held: &[Grant]) -> Result<BTreeMap<SessionKey, Renewed>, Error>;

    /// Gives back what is held, after the last flush was acknowledged.
    async fn release(&self, held: &[Grant]) -> Result<(), Error>;
}

/// What [`Lessor::acquire`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This epoch may be claimed.
    Granted {
        /// Greater than `above`.
        epoch: u32,
    },
    /// Another has it.
    Refused {
        /// Its holder id.
        holder: String,
        /// When it ends if it is not renewed, by the database's clock.
        expires: Timestamp,
    },
}

/// A session that is held, as the lessor is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The session.
    pub key: SessionKey,
    /// The claimed epoch.
    pub epoch: u32,
    /// The newest acknowledged commit, which the row remembers: its id as text.
    pub head: Option<String>,
}

/// What [`Lessor::renew`] says of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Still held, perhaps after it had run out.
    Held,
    /// Still held, and somebody asks for it.
    Wanted,
    /// Another was granted a later epoch.
    Taken,
}

/// `--lease storage`: nobody waits, nobody is asked; the claim alone decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct StorageLessor;

#[async_trait]
impl Lessor for StorageLessor {
    async fn acquire(&self, key: &SessionKey, above: u32) -> Result<Outcome, Error> {
        let Some(epoch) = above.checked_add(1).filter(|epoch| *epoch <= name::MAX) else {
            let text = format!("session {key}: no epoch is left above {above}: something forged a claim");
            return Err(Error::new(Code::Damaged, text));
        };
        Ok(Outcome::Granted { epoch })
    }

    async fn renew(&self, held: &[Grant]) -> Result<BTreeMap<SessionKey, Renewed>, Error> {
        Ok(held.iter().map(|grant| (grant.key.clone(), Renewed::Held)).collect())
    }

    async fn release(&self, _: &[Grant]) -> Result<(), Error> {
        Ok(())
    }
}
