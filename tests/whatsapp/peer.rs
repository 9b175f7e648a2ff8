//! Somebody who writes to the device under test, with a real double ratchet.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::Mutex;
use wacore::libsignal::protocol::{
    CiphertextMessage, CiphertextMessageType, DeviceId, IdentityKey, KeyPair, PreKeyBundle,
    PreKeySignalMessage, PublicKey, SessionStore as _, SignalMessage, UsePQRatchet, message_decrypt,
    message_encrypt, process_prekey_bundle,
};
use wacore::messages::MessageUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp as wa;

use super::node::{attribute, content, unix_time};
use super::server::Device;
use super::signal::{Store, address, rng};
use super::state::Shared;

/// A text that the client under test sent to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message's id.
    pub id: String,
    /// What it says.
    pub text: String,
}

/// A chat partner: a phone with one device, a name and a Signal identity.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
    /// Its address on WhatsApp.
    pub(crate) jid: Jid,
    pub(crate) name: String,
    pub(crate) store: Arc<Mutex<Store>>,
    sent: Arc<Mutex<HashMap<String, Sent>>>,
}

/// Kept for a device that asks for a message again.
#[derive(Clone)]
struct Sent {
    message: wa::Message,
    category: Option<&'static str>,
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>, jid: Jid, name: &str, identity: &KeyPair) -> Self {
        Self {
            shared,
            jid,
            name: name.to_owned(),
            store: Arc::new(Mutex::new(Store::new(identity))),
            sent: Arc::default(),
        }
    }

    /// Sends a text and returns its message id. A device that is offline gets it at its next login.
    ///
    /// # Errors
    ///
    /// When the device never uploaded its keys.
    pub async fn send_text(&self, to: &Device, text: &str) -> Result<String> {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        self.send(to, &message, None).await
    }

    pub(crate) async fn send(
        &self,
        to: &Device,
        message: &wa::Message,
        category: Option<&'static str>,
    ) -> Result<String> {
        let id = format!("3EB0{:016X}", rand::random::<u64>());
        let sent = Sent { message: message.clone(), category };
        self.sent.lock().await.insert(id.clone(), sent.clone());
        self.post(to, &id, &sent).await?;
        Ok(id)
    }

    /// Answers a retry receipt: a new session, and the message once more under its old id.
    pub(crate) async fn send_again(&self, to: &Device, id: &str) -> Result<()> {
        let sent = self.sent.lock().await.get(id).cloned();
        let sent = sent.context("never sent")?;
        self.store.lock().await.sessions.forget(&address(&to.jid));
        self.post(to, id, &sent).await
    }

    async fn post(&self, to: &Device, id: &str, sent: &Sent) -> Result<()> {
        let sealed = self.seal(to, &sent.message).await?;
        let kind = match sealed.message_type() {
            CiphertextMessageType::PreKey => "pkmsg",
            _ => "msg",
        };
        let mut node = NodeBuilder::new("message")
            .attr("from", &self.jid)
            .attr("id", id.to_owned())
            .attr("t", unix_time().to_string())
            .attr("type", "text")
            .attr("notify", self.name.clone());
        if let Some(category) = sent.category {
            node = node.attr("category", category);
        }
        let sealed =
            NodeBuilder::new("enc").attr("v", "2").attr("type", kind).bytes(sealed.serialize().to_vec());
        self.shared.deliver(to, id.to_owned(), node.children([sealed.build()]).build())
    }

    async fn seal(&self, to: &Device, message: &wa::Message) -> Result<CiphertextMessage> {
        let address = address(&to.jid);
        let mut store = self.store.lock().await;
        let store = &mut *store;
        if !store.sessions.has_session(&address).await? {
            let keys = self.shared.take_bundle(to)?;
            let bundle = PreKeyBundle::new(
                keys.registration,
                DeviceId::from(u32::from(to.jid.device)),
                match keys.one_time {
                    Some((id, key)) => Some((id.into(), PublicKey::from_djb_public_key_bytes(&key)?)),
                    None => None,
                },
                keys.signed_id.into(),
                PublicKey::from_djb_public_key_bytes(&keys.signed)?,
                keys.signature,
                IdentityKey::new(PublicKey::from_djb_public_key_bytes(&keys.identity)?),
            )?;
            process_prekey_bundle(
                &address,
                &mut store.sessions,
                &mut store.identity,
                &bundle,
                &mut rng(),
                UsePQRatchet::No,
            )
            .await?;
        }
        let padded = MessageUtils::encode_and_pad(message);
        Ok(message_encrypt(&padded, &address, &mut store.sessions, &mut store.identity).await?)
    }

    /// Opens what a device sent, `enc` being the node that carries the ciphertext for this peer.
    pub(crate) async fn open(&self, from: &Jid, enc: &Node) -> Result<wa::Message> {
        let address = address(from);
        let sealed = content(enc);
        let sealed = match attribute(enc, "type").as_deref() {
            Some("pkmsg") => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(sealed)?),
            Some("msg") => CiphertextMessage::SignalMessage(SignalMessage::try_from(sealed)?),
            other => bail!("ciphertext of type {other:?}"),
        };
        let mut store = self.store.lock().await;
        let store = &mut *store;
        let opened = message_decrypt(
            &sealed,
            &address,
            &mut store.sessions,
            &mut store.identity,
            &mut store.one_time,
            &store.signed,
            &mut rng(),
            UsePQRatchet::No,
        )
        .await?;
        let padding = opened.plaintext.last().copied().context("empty message")?;
        let length = opened
            .plaintext
            .len()
            .checked_sub(usize::from(padding))
            .context("padding is longer than the message")?;
        Ok(wa::Message::decode_from_slice(&opened.plaintext[..length])?)
    }
}

/// The text of a message, also when it comes wrapped for one's own other devices.
pub(crate) fn text(message: &wa::Message) -> Option<String> {
    let extended = |m: &wa::Message| m.extended_text_message.as_option().and_then(|e| e.text.clone());
    message.conversation.clone().or_else(|| extended(message))
}

/// A message from a phone that gives its companion the key for app state.
pub(crate) fn app_state_key_share() -> wa::Message {
    use wa::message::{
        AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
        AppStateSyncKeyShare, ProtocolMessage, protocol_message::Type,
    };
    let key = AppStateSyncKey {
        key_id: MessageField::some(AppStateSyncKeyId { key_id: Some(rand::random::<[u8; 6]>().to_vec()) }),
        key_data: MessageField::some(AppStateSyncKeyData {
            key_data: Some(rand::random::<[u8; 32]>().to_vec()),
            fingerprint: MessageField::some(AppStateSyncKeyFingerprint {
                raw_id: Some(1),
                current_index: Some(0),
                device_indexes: vec![0, 1],
            }),
            timestamp: i64::try_from(unix_time()).ok(),
        }),
    };
    wa::Message {
        protocol_message: MessageField::some(ProtocolMessage {
            r#type: Some(Type::APP_STATE_SYNC_KEY_SHARE),
            app_state_sync_key_share: MessageField::some(AppStateSyncKeyShare { keys: vec![key] }),
            ..Default::default()
        }),
        ..Default::default()
    }
}
