//! The runner against a WhatsApp on loopback.
