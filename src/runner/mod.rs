//! WhatsApp connections on `whatsapp-rust`, one a session.
//!
//! | module | holds |
//! |---|---|
//! | [`port`] | what others see of it: states, events, calls |
//! | [`manager`] | the connections of this process: start, stop, and what is asked of them |
//! | [`settings`] | where WhatsApp is, and what must not be connected to |
//! | [`service`] | the lifecycle above them: opened, connected, committed, handed over |
//! | `slot` | one session's place among them |
//! | `life` | one connection from its start to its end: clients, one after another |
//! | `state` | what follows from what happens, as a pure machine; when a logout is believed |
//! | `signal` | the crate's events in the machine's words |
//! | `traced` | the crate's tasks in the session's span |
//! | `dial`, `fetch` | the way to WhatsApp's socket, and to its current version |
//! | `files` | the database's files: other libraries' accounts, void ones, closed ones |

mod dial;
mod fetch;
mod files;
mod life;
pub mod manager;
pub mod port;
pub mod service;
pub mod settings;
mod signal;
mod slot;
mod state;
mod traced;

pub use manager::{Hooks, Runner};
pub use service::Service;
pub use settings::Settings;

/// The database of a session's connection, in the session's directory.
pub const DATABASE: &str = "whatsapp.db";

/// What `status` calls the library.
const ENGINE: &str = "whatsapp-rust";
