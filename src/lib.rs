//! A sidecar that makes a session directory survive anything.
//!
//! The map, from the outside in; dependencies point one way:
//!
//! | module | holds |
//! |---|---|
//! | [`cli`], [`config`] | flags and variables, checked once into a configuration without options left |
//! | [`commands`] | one thin file a subcommand |
//! | [`http`] | the API and its page, the probe listener, the control socket |
//! | `runner` | WhatsApp connections on `whatsapp-rust` (feature `runner`) |
//! | [`sync`] | per-session engine, supervisor, start table, lease, mirror, local state |
//! | [`history`] | names, commit format, chain, retention, replay |
//! | [`tree`] | scan, watch, filter, stable read, groups, guards, staging and publish |
//! | [`store`], [`supabase`] | the object store as a trait, and Supabase behind it |
//! | `emulator` | a Supabase on loopback, for `dev` and the tests (feature `dev`) |
//! | [`net`] | whom TLS trusts, and where names lead |
//! | [`session`], [`host`], [`error`], [`telemetry`] | ids and paths, clock and fault points, errors, logs |

pub mod cli;
pub mod commands;
pub mod config;
#[cfg(test)]
mod documents;
#[cfg(feature = "dev")]
pub mod emulator;
pub mod error;
pub mod history;
pub mod host;
pub mod http;
pub mod net;
#[cfg(feature = "runner")]
pub mod runner;
pub mod session;
pub mod store;
pub mod supabase;
pub mod sync;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod tree;

pub use commands::run;
