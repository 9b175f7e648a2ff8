//! What Signal needs kept, in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use wacore::libsignal::protocol::{
    Direction, GenericSignedPreKey as _, IdentityChange, IdentityKey, IdentityKeyPair, IdentityKeyStore,
    KeyPair, PreKeyId, PreKeyRecord, PreKeyStore, ProtocolAddress, SessionRecord, SessionStore,
    SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore, Timestamp,
};
use wacore_binary::Jid;

type Signal<T> = std::result::Result<T, SignalProtocolError>;

/// What a peer keeps: one store a trait, because libsignal borrows them separately.
pub(crate) struct Store {
    pub identity: Identities,
    pub sessions: Sessions,
    pub one_time: OneTimeKeys,
    pub signed: SignedKey,
    /// Whether somebody took the one-time key already; it is handed out once.
    pub taken: bool,
}

impl Store {
    pub fn new(identity: &KeyPair) -> Self {
        let signed = KeyPair::generate(&mut rand::rng());
        let signature = identity
            .private_key
            .calculate_signature(&signed.public_key.serialize(), &mut rand::rng())
            .expect("a generated key signs");
        let one_time = KeyPair::generate(&mut rand::rng());
        let created = Timestamp::from_epoch_millis(0);
        Self {
            identity: Identities {
                own: IdentityKeyPair::new(
                    IdentityKey::new(identity.public_key),
                    identity.private_key.clone(),
                ),
                registration: rand::random::<u32>() >> 2 | 1,
                known: HashMap::new(),
            },
            sessions: Sessions::default(),
            one_time: OneTimeKeys(HashMap::from([(1.into(), PreKeyRecord::new(1.into(), &one_time))])),
            signed: SignedKey(SignedPreKeyRecord::new(1.into(), created, &signed, &signature)),
            taken: false,
        }
    }
}

/// `rand::rng()` is bound to its thread and cannot live across an await.
pub(crate) fn rng() -> rand::rngs::StdRng {
    rand::make_rng()
}

pub(crate) fn address(jid: &Jid) -> ProtocolAddress {
    ProtocolAddress::new(&jid.to_non_ad_string(), u32::from(jid.device).into())
}

pub(crate) struct Identities {
    pub own: IdentityKeyPair,
    pub registration: u32,
    known: HashMap<String, IdentityKey>,
}

/// Kept as records: a record that went through bytes burns counters that it had reserved.
#[derive(Default)]
pub(crate) struct Sessions(HashMap<String, SessionRecord>);
pub(crate) struct OneTimeKeys(pub HashMap<PreKeyId, PreKeyRecord>);
pub(crate) struct SignedKey(pub SignedPreKeyRecord);

impl Sessions {
    pub fn forget(&mut self, address: &ProtocolAddress) {
        self.0.remove(address.as_str());
    }
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> Signal<IdentityKeyPair> {
        Ok(self.own.clone())
    }

    async fn get_local_registration_id(&self) -> Signal<u32> {
        Ok(self.registration)
    }

    async fn save_identity(
        &mut self,
        address: &ProtocolAddress,
        identity: &IdentityKey,
    ) -> Signal<IdentityChange> {
        match self.known.insert(address.as_str().to_owned(), *identity) {
            Some(old) if old != *identity => Ok(IdentityChange::ReplacedExisting),
            _ => Ok(IdentityChange::NewOrUnchanged),
        }
    }

    async fn is_trusted_identity(&self, _: &ProtocolAddress, _: &IdentityKey, _: Direction) -> Signal<bool> {
        Ok(true)
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> Signal<Option<IdentityKey>> {
        Ok(self.known.get(address.as_str()).copied())
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Signal<Option<SessionRecord>> {
        Ok(self.0.get(address.as_str()).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> Signal<bool> {
        Ok(self.0.contains_key(address.as_str()))
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> Signal<()> {
        self.0.insert(address.as_str().to_owned(), record);
        Ok(())
    }
}

#[async_trait]
impl PreKeyStore for OneTimeKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Signal<PreKeyRecord> {
        let key = self.0.get(&id).cloned();
        key.ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Signal<()> {
        self.0.insert(id, record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Signal<()> {
        self.0.remove(&id);
        Ok(())
    }
}

#[async_trait]
impl SignedPreKeyStore for SignedKey {
    async fn get_signed_pre_key(&self, _: SignedPreKeyId) -> Signal<SignedPreKeyRecord> {
        Ok(self.0.clone())
    }

    async fn save_signed_pre_key(&mut self, _: SignedPreKeyId, record: &SignedPreKeyRecord) -> Signal<()> {
        self.0 = record.clone();
        Ok(())
    }
}
