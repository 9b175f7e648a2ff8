//! What answers over HTTP: the API, its page, the probe listener and the control socket.

pub mod auth;
pub mod control;
pub mod probe;
mod status;
