//! The probe listener and the control socket.

pub mod control;
pub mod probe;
