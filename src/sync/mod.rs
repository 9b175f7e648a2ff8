//! The per-session engine, the supervisor, the start table, mirror, lease and local state.

pub mod backoff;
pub mod control;
pub mod deletion;
pub mod discover;
pub mod engine;
pub mod env;
pub mod health;
pub mod inbox;
pub mod journal;
pub mod lease;
pub mod look;
pub mod mark;
pub mod metadata;
pub mod mirror;
pub mod mirror_fetch;
pub mod mirror_key;
pub mod mirror_plan;
pub mod mirroring;
pub mod open;
pub mod plan;
pub mod points;
pub mod report;
pub mod rootdir;
pub mod start;
pub mod state;
pub mod supervisor;
