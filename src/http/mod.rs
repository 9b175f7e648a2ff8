//! What answers over HTTP: the API and its page, the probe listener and the control socket.

#[cfg_attr(not(feature = "runner"), allow(dead_code, reason = "without connections less of it is used"))]
pub mod api;
pub mod auth;
pub mod control;
pub mod metrics;
mod page;
pub mod probe;
pub mod serve;
mod status;
