//! What several modules of tests need.

pub mod browser;
pub mod postgres;
pub mod scripted;
#[cfg(feature = "dev")]
pub mod world;
