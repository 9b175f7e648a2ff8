//! An offline WhatsApp: the server, the phones, and the people who write.
//!
//! Real: Noise (XX, IK and the fallback between them), the binary node format, the ADV chain that a pairing is
//! proven with, one-time pre-keys, the double ratchet, redelivery of what was not acknowledged, one connection a
//! device. Not there: a certificate chain that WhatsApp signed (a client must be built with
//! `danger-skip-cert-chain-verify` until its store has logged in once), TLS, groups, media, history sync, app
//! state with content. The assertion of a passkey is recorded and not checked.
//!
//! | module | holds |
//! |---|---|
//! | `server` | what tests use: [`Server`], its history ([`Seen`]), faults |
//! | `phone`, `passkey` | [`Phone`]: scans a QR code, types a pairing code, demands a passkey |
//! | `peer`, `signal` | `Peer`: writes to a device, opens what it sends, sends again on a retry receipt |
//! | `connection`, `answers` | login, acknowledgements and redelivery, the answer to each query |
//! | `noise`, `wire`, `node` | the handshakes as responder; frames on a WebSocket; nodes |

mod answers;
mod connection;
mod node;
mod noise;
mod passkey;
mod peer;
mod phone;
mod server;
mod signal;
mod state;
mod wire;

pub use noise::Pattern;
pub use phone::Phone;
pub use server::{Device, Seen, Server};
