//! Integration tests: one binary, one module a concern.

#![allow(clippy::unwrap_used, reason = "tests and their helpers may panic")]

mod cli;
#[cfg(feature = "dev")]
mod commands;
#[cfg(feature = "dev")]
mod e2e;
#[cfg(feature = "dev")]
mod emulator_faults;
#[cfg(feature = "dev")]
mod emulator_measured;
#[cfg(feature = "dev")]
mod emulator_policies;
#[cfg(feature = "dev")]
mod emulator_replay;
#[cfg(feature = "dev")]
mod emulator_world;
mod fixtures;
#[cfg(feature = "dev")]
mod history_commands;
#[cfg(feature = "dev")]
mod main_job;
mod reading;
mod store_contract;
mod supabase_client;
mod support;
#[cfg(feature = "dev")]
mod wire;
