//! Webhooks for the few events that need a person: something is held, lost, damaged, or not stored.
//!
//! They follow the Standard Webhooks specification (<https://www.standardwebhooks.com>). Nothing waits for them: what is to
//! be told is read off the sessions as they stand, waits in a bounded queue, and a receiver that is slow or dead costs
//! neither a commit nor the end of the process more than a moment.
//!
//! | module | holds |
//! |---|---|
//! | `event` | what is told, and its JSON |
//! | `conditions` | what there is to tell: a pure look at sessions and connections |
//! | `edges` | each condition once, however often it is looked at; never a storm |
//! | `sign` | the signature |
//! | `deliver` | the receiver, tries and their end |
//! | `watcher` | the task that looks when something changed |

mod conditions;
mod deliver;
mod edges;
mod event;
mod sign;
mod watcher;

pub use deliver::{Deliveries, Receiver};
pub use event::Kind;
pub use sign::Key;
pub use watcher::{Sources, Webhooks};
