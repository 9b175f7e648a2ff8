//! History in the bucket: names, commit format, chain, retention, replay.
//!
//! | module | holds |
//! |---|---|
//! | [`name`] | ids and the names of objects |
//! | [`commit`] | `commit.json`, and what a commit must be to be believed |
//! | [`archive`] | the `tar.zst` of a commit: written once, read as if it were hostile |
//! | [`mod@survey`], [`standing`] | what a list says: head and chain; whether a commit is acknowledged |
//! | [`replay`] | the tree that a chain leads to |
//! | [`chain`], [`intact`] | fetching a chain, extracting it, finding the newest point that verifies |
//! | [`upload`], [`pin`] | writing commits and pins |
//! | [`keys`], [`access`], [`reseal`] | encryption: what opens objects, what is believed, and plaintext that gets encrypted |
//! | [`base`], [`retention`], [`clean`] | when to write a base, what to delete, and deleting it |

pub mod access;
pub mod archive;
pub mod base;
pub mod chain;
pub mod clean;
pub mod commit;
mod error;
pub mod intact;
pub mod keys;
pub mod name;
pub mod pin;
pub mod replay;
pub mod reseal;
pub mod retention;
pub mod standing;
pub mod survey;
#[cfg(test)]
pub(crate) mod testing;
pub mod upload;

pub use access::Access;
pub use archive::{Frozen, freeze};
pub use base::{ChainWeight, Why};
pub use chain::{Chain, Progress, Silent, fetch};
pub use commit::{Commit, Kind, Mark, Writer};
pub use error::HistoryError;
pub use keys::Keys;
pub use name::{CommitName, Id, Name, Part};
pub use standing::{Standing, short_list};
pub use survey::{Depth, Survey, survey};
