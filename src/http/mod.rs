//! What answers over HTTP: the API and its page, the probe listener and the control socket.

pub mod api;
pub mod auth;
pub mod control;
mod page;
pub mod probe;
pub mod serve;
mod status;
