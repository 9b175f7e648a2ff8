//! The runner against a WhatsApp on loopback: the real crate, real Noise and Signal, no network.

mod ends;
mod linking;
mod network;
pub mod support;
mod working;
