//! Phones: they link devices, by QR code or by a code that is typed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::sync::oneshot;
use wacore::libsignal::crypto::{aes_256_gcm_decrypt, hmac_sha256};
use wacore::libsignal::protocol::{KeyPair, PublicKey};
use wacore::pair_code::PairCodeUtils;
use wacore_binary::builder::NodeBuilder;
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::node::{attribute, bytes, content, new_id, query_from_server, stream_error, unix_time};
use super::noise::key32;
use super::server::{Device, Seen};
use super::state::{Connection, Linked, Shared};

/// How long a phone waits for the device that it links to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An account's phone: it links devices and unlinks them.
#[derive(Clone)]
pub struct Phone {
    pub(crate) shared: Arc<Shared>,
    number: String,
}

impl Phone {
    pub(crate) fn new(shared: Arc<Shared>, number: &str) -> Self {
        Self { shared, number: number.to_owned() }
    }

    /// Scans a QR code, given as the text in it, and returns the device once it is linked.
    ///
    /// # Errors
    ///
    /// When the code is malformed or of no waiting client, or when the client rejects the link.
    pub async fn scan_qr(&self, qr: &str) -> Result<Device> {
        let fields = qr.rsplit('#').next().unwrap_or(qr);
        let fields: Vec<_> = fields.split(',').collect();
        let [reference, noise, identity, secret, _client_type, ..] = fields[..] else {
            bail!("a QR code has five fields, this one {}", fields.len());
        };
        let connection = {
            let state = self.shared.state();
            let waits = |c: &Connection| c.refs.iter().any(|r| r == reference);
            let found = state.connections.iter().find(|(_, c)| waits(c));
            *found.context("no client shows this code")?.0
        };
        if self.shared.state().account(&self.number)?.passkey {
            return self.link_with_passkey(connection).await;
        }
        let noise = key32(Some(&BASE64.decode(noise)?))?;
        let identity = key32(Some(&BASE64.decode(identity)?))?;
        let secret = BASE64.decode(secret)?;
        self.link(connection, noise, identity, &secret).await
    }

    /// Types the code that a client shows for a link by phone number.
    ///
    /// # Errors
    ///
    /// When no client waits for this number, or the code is not the one it shows.
    pub async fn enter_code(&self, code: &str) -> Result<Device> {
        let ephemeral = KeyPair::generate(&mut rand::rng());
        let (connection, noise, reference, wrapped, identity, finish) = {
            let mut state = self.shared.state();
            let identity = state.account(&self.number)?.identity.clone();
            let of_us = |c: &Connection| c.code.as_ref().is_some_and(|l| l.number == self.number);
            let found = state.connections.iter_mut().find(|(_, c)| of_us(c));
            let (id, connection) = found.context("no client waits for this number")?;
            let link = connection.code.as_mut().context("no code")?;
            let (sender, finish) = oneshot::channel();
            link.finish = Some(sender);
            let reference = link.reference.clone();
            let wrapped = link.wrapped_ephemeral.clone();
            (*id, connection.noise, reference, wrapped, identity, finish)
        };
        // The two sides wrap their keys alike, so the client's helper opens its own message.
        let theirs = PairCodeUtils::decrypt_primary_ephemeral_pub(&wrapped, code)?;
        let ours = key32(Some(ephemeral.public_key.public_key_bytes()))?;
        let hello = NodeBuilder::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .children([
                bytes(
                    "link_code_pairing_wrapped_primary_ephemeral_pub",
                    &PairCodeUtils::encrypt_ephemeral_pub(&ours, code),
                ),
                bytes("primary_identity_pub", identity.public_key.public_key_bytes()),
                bytes("link_code_pairing_ref", &reference),
            ])
            .build();
        self.notify(connection, "link_code_companion_reg", hello);

        let finish = tokio::time::timeout(PATIENCE, finish).await??;
        let sealed = finish
            .get_optional_child("link_code_pairing_wrapped_key_bundle")
            .map(content)
            .context("no key bundle")?;
        let companion = finish.get_optional_child("companion_identity_public");
        let companion = key32(companion.map(content))?;
        ensure!(sealed.len() > 44, "key bundle of {} bytes", sealed.len());
        let (salt, rest) = sealed.split_at(32);
        let (nonce, rest) = rest.split_at(12);
        let shared =
            ephemeral.private_key.calculate_agreement(&PublicKey::from_djb_public_key_bytes(&theirs)?)?;
        let mut key = [0; 32];
        hkdf(&shared, Some(salt), b"link_code_pairing_key_bundle_encryption_key", &mut key)?;
        let mut bundle = Vec::new();
        aes_256_gcm_decrypt(&key, &nonce.try_into()?, b"", rest, &mut bundle)
            .map_err(|_| anyhow::anyhow!("the code is not the one that the client shows"))?;
        ensure!(bundle.len() == 96, "key bundle of {} bytes", bundle.len());
        let identities =
            identity.private_key.calculate_agreement(&PublicKey::from_djb_public_key_bytes(&companion)?)?;
        let secrets = [&shared[..], &identities[..], &bundle[64..]].concat();
        let mut secret = [0; 32];
        hkdf(&secrets, None, b"adv_secret", &mut secret)?;
        self.link(connection, noise, companion, &secret).await
    }

    /// Whether the account demands a passkey before it links a device. The scan then goes on for as
    /// long as the client takes to answer and to confirm the code.
    pub fn demand_passkey(&self, demand: bool) {
        if let Ok(account) = self.shared.state().account(&self.number) {
            account.passkey = demand;
        }
    }

    /// The devices that are linked now.
    pub fn devices(&self) -> Vec<Device> {
        let state = self.shared.state();
        let Some(account) = state.phones.get(&self.number) else {
            return Vec::new();
        };
        account.devices.keys().map(|id| account.device(*id)).collect()
    }

    /// Signs a device in, with the secret that only the device and the phone share.
    pub(crate) async fn link(
        &self,
        connection: u64,
        noise: [u8; 32],
        identity: [u8; 32],
        secret: &[u8],
    ) -> Result<Device> {
        let query = new_id();
        let (device, details, account_key, reply) = {
            let mut state = self.shared.state();
            let account = state.account(&self.number)?;
            let number = account.next_device;
            account.next_device += 1;
            let device = account.device(number);
            let details = wa::ADVDeviceIdentity {
                raw_id: Some(1),
                timestamp: Some(unix_time()),
                key_index: Some(u32::from(number)),
                account_type: Some(wa::ADVEncryptionType::E2EE),
                device_type: Some(wa::ADVEncryptionType::E2EE),
            }
            .encode_to_vec();
            let account_key = account.identity.public_key.public_key_bytes().to_vec();
            let proof = [&[6, 0], &details[..], &identity].concat();
            let signature = account.identity.calculate_signature(&proof, &mut rand::rng())?;
            let signed = wa::ADVSignedDeviceIdentity {
                details: Some(details.clone()),
                account_signature_key: Some(account_key.clone()),
                account_signature: Some(signature.to_vec()),
                ..Default::default()
            }
            .encode_to_vec();
            let sealed = wa::ADVSignedDeviceIdentityHMAC {
                hmac: Some(hmac_sha256(secret, &signed).to_vec()),
                details: Some(signed),
                account_type: Some(wa::ADVEncryptionType::E2EE),
            }
            .encode_to_vec();
            let success = NodeBuilder::new("pair-success")
                .children([
                    bytes("device-identity", &sealed),
                    NodeBuilder::new("biz").attr("name", account.name.clone()).build(),
                    NodeBuilder::new("device").attr("jid", &device.jid).attr("lid", &device.lid).build(),
                    NodeBuilder::new("platform").attr("name", "android").build(),
                ])
                .build();
            let (sender, reply) = oneshot::channel();
            let open = state.connections.get_mut(&connection).context("client left")?;
            open.replies.insert(query.clone(), sender);
            state.send(connection, query_from_server(&query, success));
            (device, details, account_key, reply)
        };
        let reply = tokio::time::timeout(PATIENCE, reply).await??;
        if attribute(&reply, "type").as_deref() == Some("error") {
            bail!("the client rejected the link: {reply:?}");
        }
        let signed = reply
            .get_optional_child("pair-device-sign")
            .and_then(|sign| sign.get_optional_child("device-identity"))
            .map(content)
            .context("no device identity in the client's answer")?;
        let signed = wa::ADVSignedDeviceIdentity::decode_from_slice(signed)?;
        let proof = [&[6, 1], &details[..], &identity, &account_key].concat();
        let by = PublicKey::from_djb_public_key_bytes(&identity)?;
        let signature = signed.device_signature.unwrap_or_default();
        ensure!(by.verify_signature(&proof, &signature), "bad device signature");

        let mut state = self.shared.state();
        let linked = Linked {
            noise,
            identity,
            keys: None,
            has_app_state_key: false,
            inbox: Vec::new(),
            connection: None,
        };
        let account = state.account(&self.number)?;
        account.devices.insert(device.jid.device, linked);
        state.seen.push(Seen::Paired(device.jid.clone()));
        state.end(connection, Some(stream_error(Some("515"), None)));
        self.shared.changed.notify_waiters();
        Ok(device)
    }
}

fn hkdf(secret: &[u8], salt: Option<&[u8]>, info: &[u8], out: &mut [u8]) -> Result<()> {
    wacore::crypto::hkdf_sha256_into(secret, salt, info, out)
        .map_err(|_| anyhow::anyhow!("key derivation failed"))
}
