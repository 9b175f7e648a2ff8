//! WhatsApp connections on `whatsapp-rust`, one a session.
//!
//! | module | holds |
//! |---|---|
//! | [`port`] | what others see of it: states, events, calls |

pub mod port;
