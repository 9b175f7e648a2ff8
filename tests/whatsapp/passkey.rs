//! Linking an account that demands a passkey.
//!
//! The one thing that cannot be faked, the WebAuthn assertion, is recorded and not checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use wacore::libsignal::crypto::aes_256_gcm_decrypt;
use wacore::libsignal::protocol::KeyPair;
use wacore::shortcake::ShortcakeUtils;
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::node::{SERVER, bytes, content, new_id, unix_time};
use super::noise::key32;
use super::phone::{PATIENCE, Phone};
use super::server::{Device, Seen};

/// What the phone learns from a client that it is linking to.
pub(crate) struct Talk {
    /// The client's steps, as the queries that carry them.
    pub steps: mpsc::UnboundedSender<Node>,
    /// The reference that the client was given last.
    pub reference: String,
}

/// A client keeps the state of a step only once it heard that the step was taken; a server's next
/// word that overtakes this is lost on it. Real phones are never that quick.
const PAUSE: Duration = Duration::from_millis(100);

const OPTIONS: &str = r#"{"challenge":"bW9jay1jaGFsbGVuZ2U","rpId":"web.whatsapp.com","userVerification":"required","timeout":60000,"allowCredentials":[]}"#;

impl Phone {
    /// Goes on after the scan: asks for the assertion, agrees on a code, takes the client's keys.
    pub(crate) async fn link_with_passkey(&self, connection: u64) -> Result<Device> {
        let (steps, mut received) = mpsc::unbounded_channel();
        {
            let mut state = self.shared.state();
            let open = state.connections.get_mut(&connection);
            open.context("client left")?.talk = Some(Talk { steps, reference: String::new() });
        }
        self.notify(
            connection,
            "passkey_prologue_request",
            bytes("passkey_request_options", OPTIONS.as_bytes()),
        );
        let prologue = step(&mut received).await?;
        let assertion = prologue.get_optional_child("webauthn_assertion");
        let assertion = assertion.map(content).context("no assertion")?;
        let assertion = String::from_utf8_lossy(assertion).into_owned();
        self.shared.note(Seen::Assertion(assertion));
        let payload = prologue.get_optional_child("prologue_payload").map(content);
        let payload = wa::ProloguePayload::decode_from_slice(payload.context("no payload")?)?;
        let identity = payload.companion_ephemeral_identity.context("no identity")?;
        let commitment = payload.commitment.into_option().context("no commitment")?;
        let companion = wa::CompanionEphemeralIdentity::decode_from_slice(&identity)?;

        let ephemeral = KeyPair::generate(&mut rand::rng());
        let ours = key32(Some(ephemeral.public_key.public_key_bytes()))?;
        let our_nonce: [u8; 32] = rand::random();
        let primary =
            wa::PrimaryEphemeralIdentity { public_key: Some(ours.to_vec()), nonce: Some(our_nonce.to_vec()) };
        tokio::time::sleep(PAUSE).await;
        self.notify(
            connection,
            "crsc_continuation",
            bytes("primary_ephemeral_identity", &primary.encode_to_vec()),
        );
        let nonce = key32(Some(content(&step(&mut received).await?)))?;
        let revealed = ShortcakeUtils::commitment_hash(&identity, &nonce);
        ensure!(commitment.hash.as_deref() == Some(&revealed[..]), "broken commitment");
        let code = ShortcakeUtils::derive_verification_code(&nonce, &ours, &our_nonce);
        self.shared.note(Seen::PasskeyCode(code));

        let request = step(&mut received).await?;
        let request = wa::EncryptedPairingRequest::decode_from_slice(content(&request))?;
        let reference = {
            let state = self.shared.state();
            let talk = state.connections.get(&connection).and_then(|c| c.talk.as_ref());
            talk.context("client left")?.reference.clone()
        };
        let key = ShortcakeUtils::derive_encryption_key(
            &ephemeral,
            &key32(companion.public_key.as_deref())?,
            companion.device_type.context("no device type")?,
            &reference,
        )?;
        let nonce = request.iv.unwrap_or_default();
        let nonce = nonce.as_slice().try_into().context("odd nonce")?;
        let mut opened = Vec::new();
        let sealed = request.encrypted_payload.unwrap_or_default();
        aes_256_gcm_decrypt(&key, nonce, b"", &sealed, &mut opened)
            .map_err(|_| anyhow::anyhow!("the pairing request does not open"))?;
        let request = wa::PairingRequest::decode_from_slice(&opened)?;
        let noise = key32(request.companion_public_key.as_deref())?;
        let identity = key32(request.companion_identity_key.as_deref())?;
        let secret = request.adv_secret.context("no secret")?;
        tokio::time::sleep(PAUSE).await;
        self.link(connection, noise, identity, &secret).await
    }

    pub(crate) fn notify(&self, connection: u64, kind: &'static str, child: Node) {
        let notification = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", kind)
            .attr("id", new_id())
            .attr("t", unix_time().to_string())
            .children([child])
            .build();
        self.shared.state().send(connection, notification);
    }
}

async fn step(received: &mut mpsc::UnboundedReceiver<Node>) -> Result<Node> {
    let node = tokio::time::timeout(PATIENCE, received.recv()).await;
    node.context("the client took too long")?.context("client left")
}
