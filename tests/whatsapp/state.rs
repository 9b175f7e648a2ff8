//! What the server knows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::debug;
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::{Jid, Node};

use super::noise::Identity;
use super::passkey::Talk;
use super::peer::{Peer, Received};
use super::server::{Device, Seen};

pub(crate) struct Shared {
    pub identity: Mutex<Arc<Identity>>,
    pub state: Mutex<State>,
    pub changed: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    pub phones: HashMap<String, Account>,
    pub peers: HashMap<String, Peer>,
    pub received: Vec<(String, Received)>,
    pub connections: HashMap<u64, Connection>,
    pub next_connection: u64,
    pub refuse: Option<u16>,
    pub away: bool,
    pub seen: Vec<Seen>,
}

pub(crate) struct Account {
    pub jid: Jid,
    pub lid: Jid,
    pub name: String,
    pub identity: KeyPair,
    pub next_device: u16,
    pub passkey: bool,
    pub devices: BTreeMap<u16, Linked>,
    pub signal: Peer,
}

pub(crate) struct Linked {
    pub noise: [u8; 32],
    pub identity: [u8; 32],
    pub keys: Option<Keys>,
    pub has_app_state_key: bool,
    /// Delivered until the device acknowledges.
    pub inbox: Vec<(String, Node)>,
    pub connection: Option<u64>,
}

pub(crate) struct Keys {
    pub registration: u32,
    pub signed: (u32, [u8; 32], Vec<u8>),
    pub one_time: VecDeque<(u32, [u8; 32])>,
}

/// What a sender needs to start a session with a device.
pub(crate) struct Bundle {
    pub registration: u32,
    pub identity: [u8; 32],
    pub signed_id: u32,
    pub signed: [u8; 32],
    pub signature: Vec<u8>,
    pub one_time: Option<(u32, [u8; 32])>,
}

pub(crate) struct Connection {
    pub out: mpsc::UnboundedSender<Out>,
    pub noise: [u8; 32],
    pub refs: Vec<String>,
    pub code: Option<CodeLink>,
    pub talk: Option<Talk>,
    pub device: Option<Device>,
    pub active: bool,
    pub replies: HashMap<String, oneshot::Sender<Node>>,
}

/// A link by phone number that waits for its code to be typed.
pub(crate) struct CodeLink {
    pub number: String,
    pub reference: Vec<u8>,
    pub wrapped_ephemeral: Vec<u8>,
    pub finish: Option<oneshot::Sender<Node>>,
}

pub(crate) enum Out {
    Node(Node),
    Close,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn note(&self, seen: Seen) {
        debug!(?seen);
        self.state().seen.push(seen);
        self.changed.notify_waiters();
    }

    /// Puts a message into a device's inbox, and on its wire when it is listening.
    pub fn deliver(&self, to: &Device, id: String, node: Node) -> Result<()> {
        let mut state = self.state();
        let linked = state.linked(to).context("the device is not linked")?;
        linked.inbox.push((id, node.clone()));
        if let Some(connection) = linked.connection
            && state.connections.get(&connection).is_some_and(|c| c.active)
        {
            state.send(connection, node);
        }
        Ok(())
    }

    /// Takes one of a device's one-time keys.
    pub fn take_bundle(&self, device: &Device) -> Result<Bundle> {
        let mut state = self.state();
        let linked = state.linked(device).context("the device is not linked")?;
        let identity = linked.identity;
        let keys = linked.keys.as_mut().context("the device uploaded no keys")?;
        Ok(Bundle {
            registration: keys.registration,
            identity,
            signed_id: keys.signed.0,
            signed: keys.signed.1,
            signature: keys.signed.2.clone(),
            one_time: keys.one_time.pop_front(),
        })
    }

    /// Runs something on the linked device of a connection, if it has one.
    pub fn with_linked<T>(&self, id: u64, with: impl FnOnce(&mut Linked) -> T) -> Option<T> {
        let mut state = self.state();
        let device = state.connections.get(&id)?.device.clone()?;
        state.linked(&device).map(with)
    }
}

impl State {
    pub fn account(&mut self, number: &str) -> Result<&mut Account> {
        self.phones.get_mut(number).context("no such account")
    }

    /// Who writes from an address: a peer, or a phone to its own devices.
    pub fn writer(&self, jid: &Jid) -> Option<Peer> {
        let user = jid.user.as_str();
        let peer = self.peers.get(user);
        let phone = || {
            let of = |a: &&Account| a.jid.user == user || a.lid.user == user;
            self.phones.values().find(of).map(|account| &account.signal)
        };
        peer.or_else(phone).cloned()
    }

    pub fn linked(&mut self, device: &Device) -> Option<&mut Linked> {
        let account = self.phones.get_mut(device.jid.user.as_str())?;
        account.devices.get_mut(&device.jid.device)
    }

    pub fn send(&self, connection: u64, node: Node) {
        if let Some(open) = self.connections.get(&connection) {
            let _ = open.out.send(Out::Node(node));
        }
    }

    pub fn end(&self, connection: u64, last: Option<Node>) {
        if let Some(open) = self.connections.get(&connection) {
            if let Some(node) = last {
                let _ = open.out.send(Out::Node(node));
            }
            let _ = open.out.send(Out::Close);
        }
    }
}

impl Account {
    pub fn device(&self, id: u16) -> Device {
        Device { jid: self.jid.with_device(id), lid: self.lid.with_device(id) }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
