//! The probe listener and the control socket.
