//! Integration tests: one binary, one module a concern.

#![allow(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[cfg(feature = "dev")]
mod access;
#[cfg(feature = "dev")]
mod baileys;
#[cfg(feature = "dev")]
mod chromium;
mod cli;
#[cfg(feature = "dev")]
mod commands;
#[cfg(feature = "dev")]
mod conflicts;
#[cfg(feature = "dev")]
mod deletion;
#[cfg(feature = "dev")]
mod disks;
#[cfg(feature = "dev")]
mod doctor;
#[cfg(feature = "dev")]
mod drills;
#[cfg(feature = "dev")]
mod emulator_faults;
#[cfg(feature = "dev")]
mod emulator_measured;
#[cfg(feature = "dev")]
mod emulator_policies;
#[cfg(feature = "dev")]
mod emulator_replay;
#[cfg(feature = "dev")]
mod emulator_rest;
#[cfg(feature = "dev")]
mod emulator_world;
#[cfg(feature = "dev")]
mod encryption;
mod examples;
mod fixtures;
#[cfg(feature = "dev")]
mod format;
#[cfg(feature = "dev")]
mod history_commands;
#[cfg(feature = "dev")]
mod identity;
#[cfg(feature = "runner")]
mod kubernetes;
mod lease_contract;
#[cfg(feature = "dev")]
mod leases;
#[cfg(feature = "dev")]
mod lives;
#[cfg(feature = "dev")]
mod main_job;
#[cfg(feature = "dev")]
mod many;
#[cfg(feature = "dev")]
mod metadata;
#[cfg(feature = "dev")]
mod metrics;
#[cfg(feature = "dev")]
mod migrate;
#[cfg(feature = "dev")]
mod outages;
mod page;
#[cfg(feature = "dev")]
mod patches;
#[cfg(all(feature = "dev", feature = "runner"))]
mod pod;
#[cfg(feature = "dev")]
mod processes;
mod reading;
#[cfg(feature = "dev")]
mod readme;
#[cfg(feature = "dev")]
mod refusals;
#[cfg(feature = "runner")]
mod runner;
#[cfg(all(feature = "dev", feature = "runner"))]
mod serve;
#[cfg(all(feature = "dev", feature = "runner"))]
mod serve_bad_input;
#[cfg(all(feature = "dev", feature = "runner"))]
mod serve_old_client;
#[cfg(all(feature = "dev", feature = "runner"))]
mod serve_schemathesis;
#[cfg(all(feature = "dev", feature = "runner"))]
mod serve_users;
mod sql;
#[cfg(all(feature = "dev", feature = "runner"))]
mod sqlite;
#[cfg(feature = "dev")]
mod stale;
#[cfg(feature = "dev")]
mod starts;
mod store_contract;
mod supabase_client;
mod support;
#[cfg(feature = "dev")]
mod webhooks;
#[cfg(feature = "runner")]
#[path = "../whatsapp/mod.rs"]
mod whatsapp;
#[cfg(feature = "dev")]
mod wire;
