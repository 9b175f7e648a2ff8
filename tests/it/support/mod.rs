//! What several modules of tests need.

pub mod browser;
pub mod postgres;
pub mod scripted;
#[cfg(all(feature = "dev", feature = "runner"))]
pub mod service;
#[cfg(feature = "dev")]
pub mod world;
