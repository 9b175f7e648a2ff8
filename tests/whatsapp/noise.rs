//! The responder's half of WhatsApp's Noise handshakes.

use anyhow::{Context, Result, bail};
use wacore::libsignal::protocol::KeyPair;
use wacore::noise::{NoiseCipher, NoiseHandshake};
use wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::{self as wa, HandshakeMessage, cert_chain, handshake_message};

use super::wire::Wire;

/// Which handshake a client came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// The client knew nothing about the server: first connect, pairing.
    Xx,
    /// The client had the server's key cached and logged in within the first message.
    Ik,
    /// The client tried [`Pattern::Ik`] with a key that is no longer the server's.
    XxFallback,
}

/// The server's long-term key and the certificates that vouch for it.
pub(crate) struct Identity {
    key: KeyPair,
    certificates: Vec<u8>,
}

/// A finished handshake.
pub(crate) struct Established {
    pub pattern: Pattern,
    /// The client's static Noise key: what the server knows a device by.
    pub client_key: [u8; 32],
    pub payload: wa::ClientPayload,
    pub send: NoiseCipher,
    pub receive: NoiseCipher,
}

impl Identity {
    pub fn generate() -> Self {
        let key = KeyPair::generate(&mut rand::rng());
        let certificates = certificates(key.public_key.public_key_bytes());
        Self { key, certificates }
    }

    pub async fn accept(&self, wire: &mut Wire) -> Result<Established> {
        let first = wire.receive().await.context("closed before the hello")?;
        let hello = HandshakeMessage::decode_from_slice(&first)?
            .client_hello
            .into_option()
            .context("first message is not a client hello")?;
        let client_ephemeral = key32(hello.ephemeral.as_deref())?;
        match (hello.r#static, hello.payload) {
            (Some(sealed_key), Some(sealed_payload)) => {
                match self.resume(wire, &client_ephemeral, &sealed_key, &sealed_payload).await? {
                    Some(done) => Ok(done),
                    None => self.full(wire, &client_ephemeral, Pattern::XxFallback).await,
                }
            }
            _ => self.full(wire, &client_ephemeral, Pattern::Xx).await,
        }
    }

    /// XX, and its fallback, which differs only in the protocol name.
    async fn full(
        &self,
        wire: &mut Wire,
        client_ephemeral: &[u8; 32],
        pattern: Pattern,
    ) -> Result<Established> {
        let name = match pattern {
            Pattern::XxFallback => NOISE_PATTERN_XXFALLBACK,
            _ => NOISE_PATTERN_XX,
        };
        let ephemeral = KeyPair::generate(&mut rand::rng());
        let mut noise = NoiseHandshake::new(name, &WA_CONN_HEADER)?;
        noise.authenticate(client_ephemeral);
        noise.authenticate(ephemeral.public_key.public_key_bytes());
        noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
        let sealed_key = noise.encrypt(self.key.public_key.public_key_bytes())?;
        noise.mix_shared_secret(self.key.private_key.serialize(), client_ephemeral)?;
        let sealed_certificates = noise.encrypt(&self.certificates)?;
        wire.send(&server_hello(&ephemeral, Some(sealed_key), sealed_certificates)).await?;

        let second = wire.receive().await.context("closed before the finish")?;
        let finish = HandshakeMessage::decode_from_slice(&second)?
            .client_finish
            .into_option()
            .context("second message is not a client finish")?;
        let client_key = key32(Some(&noise.decrypt(&finish.r#static.unwrap_or_default())?))?;
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
        let payload = noise.decrypt(&finish.payload.unwrap_or_default())?;
        established(pattern, noise, client_key, &payload)
    }

    /// IK. `None` when the client holds another server key than ours.
    async fn resume(
        &self,
        wire: &mut Wire,
        client_ephemeral: &[u8; 32],
        sealed_key: &[u8],
        sealed_payload: &[u8],
    ) -> Result<Option<Established>> {
        let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER)?;
        noise.authenticate(self.key.public_key.public_key_bytes());
        noise.authenticate(client_ephemeral);
        noise.mix_shared_secret(self.key.private_key.serialize(), client_ephemeral)?;
        let Ok(client_key) = noise.decrypt(sealed_key) else {
            return Ok(None);
        };
        let client_key = key32(Some(&client_key))?;
        noise.mix_shared_secret(self.key.private_key.serialize(), &client_key)?;
        let payload = noise.decrypt(sealed_payload)?;

        let ephemeral = KeyPair::generate(&mut rand::rng());
        noise.authenticate(ephemeral.public_key.public_key_bytes());
        noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
        let sealed_certificates = noise.encrypt(&self.certificates)?;
        wire.send(&server_hello(&ephemeral, None, sealed_certificates)).await?;
        established(Pattern::Ik, noise, client_key, &payload).map(Some)
    }
}

fn established(
    pattern: Pattern,
    noise: NoiseHandshake,
    client_key: [u8; 32],
    payload: &[u8],
) -> Result<Established> {
    // The split is written from the initiator's side; ours is the mirror image.
    let (receive, send) = noise.finish()?;
    Ok(Established {
        pattern,
        client_key,
        payload: wa::ClientPayload::decode_from_slice(payload)?,
        send,
        receive,
    })
}

fn server_hello(ephemeral: &KeyPair, key: Option<Vec<u8>>, certificates: Vec<u8>) -> Vec<u8> {
    HandshakeMessage {
        server_hello: MessageField::some(handshake_message::ServerHello {
            ephemeral: Some(ephemeral.public_key.public_key_bytes().to_vec()),
            r#static: key,
            payload: Some(certificates),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A chain of the right shape whose signatures are zeros. The validity matters: a client only
/// tries IK while the certificates it cached are valid by its own clock.
fn certificates(server_key: &[u8]) -> Vec<u8> {
    let certificate = |serial, issuer_serial, key: &[u8]| {
        MessageField::some(cert_chain::NoiseCertificate {
            details: Some(
                cert_chain::noise_certificate::Details {
                    serial: Some(serial),
                    issuer_serial: Some(issuer_serial),
                    key: Some(key.to_vec()),
                    not_before: Some(0),
                    not_after: Some(253_402_300_799),
                }
                .encode_to_vec(),
            ),
            signature: Some(vec![0; 64]),
        })
    };
    wa::CertChain { intermediate: certificate(1, 0, &[9; 32]), leaf: certificate(2, 1, server_key) }
        .encode_to_vec()
}

pub(crate) fn key32(bytes: Option<&[u8]>) -> Result<[u8; 32]> {
    match bytes.map(<[u8; 32]>::try_from) {
        Some(Ok(key)) => Ok(key),
        _ => bail!("a key of 32 bytes is missing"),
    }
}
