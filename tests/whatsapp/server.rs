//! The server's outside: what a test sees of it and does to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wacore::libsignal::protocol::KeyPair;
use wacore_binary::{Jid, Node};

use super::connection::accept;
use super::node::stream_error;
use super::noise::{Identity, Pattern};
use super::peer::{Peer, Received};
use super::phone::Phone;
use super::state::{Account, Shared, lock};

/// Something that happened, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A client finished its Noise handshake.
    Handshake(Pattern),
    /// An unpaired client was given codes to show.
    AskedToPair,
    /// A client answered the demand for a passkey with this assertion.
    Assertion(String),
    /// The phone shows this code; the client has to show the same, with a dash in the middle.
    PasskeyCode(String),
    /// A device was linked.
    Paired(Jid),
    /// A linked device logged in.
    LoggedIn(Jid),
    /// A login was refused, with this reason.
    Refused(u16),
    /// A query: its namespace and the tag of its first child.
    Query(String),
    /// A query that the mock has no answer for; it got an empty result.
    UnknownQuery(String),
    /// A device uploaded this many one-time keys.
    UploadedKeys(usize),
    /// A device confirmed a message.
    Acknowledged(String),
    /// A device asked for a message to be sent again; it was.
    AskedAgain(String),
    /// A peer could not open what a device sent. A real one would ask for it again.
    Unreadable(String),
    /// A device removed itself.
    Removed(Jid),
    /// A connection ended.
    Disconnected(Option<Jid>),
}

/// A linked device, as its phone lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `<number>:<device>@s.whatsapp.net`
    pub jid: Jid,
    /// `<lid>:<device>@lid`
    pub lid: Jid,
}

/// A WhatsApp server on a loopback port, for as long as it is not dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            identity: Mutex::new(Arc::new(Identity::generate())),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn(accept(shared.clone(), listener));
        Ok(Self { shared, address, task })
    }

    /// What to point a client at.
    pub fn url(&self) -> String {
        format!("ws://{}/ws/chat", self.address)
    }

    /// The phone of an account; the first call creates it.
    pub fn phone(&self, number: &str, name: &str) -> Phone {
        let mut state = self.shared.state();
        state.phones.entry(number.to_owned()).or_insert_with(|| {
            let identity = KeyPair::generate(&mut rand::rng());
            let jid = Jid::pn(number);
            Account {
                lid: Jid::lid(format!("9{number}")),
                name: name.to_owned(),
                next_device: 1,
                passkey: false,
                devices: BTreeMap::new(),
                signal: Peer::new(self.shared.clone(), jid.clone(), name, &identity),
                identity,
                jid,
            }
        });
        Phone::new(self.shared.clone(), number)
    }

    /// Somebody to chat with; the first call creates them.
    pub fn peer(&self, number: &str, name: &str) -> Peer {
        let mut state = self.shared.state();
        let peer = state.peers.entry(number.to_owned()).or_insert_with(|| {
            let identity = KeyPair::generate(&mut rand::rng());
            Peer::new(self.shared.clone(), Jid::pn(number), name, &identity)
        });
        peer.clone()
    }

    /// All texts that clients sent to this peer so far.
    pub fn received_by(&self, peer: &Peer) -> Vec<Received> {
        let state = self.shared.state();
        let of_peer = |(to, _): &&(String, Received)| to.as_str() == peer.jid.user.as_str();
        let texts = state.received.iter().filter(of_peer);
        texts.map(|(_, received)| received.clone()).collect()
    }

    /// Everything that happened so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How often something happened so far.
    pub fn count(&self, what: &Seen) -> usize {
        let state = self.shared.state();
        state.seen.iter().filter(|seen| *seen == what).count()
    }

    /// Waits until the history satisfies a test.
    ///
    /// # Errors
    ///
    /// When it does not within `patience`.
    pub async fn wait_until(&self, patience: Duration, mut test: impl FnMut(&[Seen]) -> bool) -> Result<()> {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                // A copy, so that the test may ask the server more.
                if test(&self.seen()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(patience, wait).await.is_err() {
            bail!("not seen within {patience:?}; the history is {:?}", self.seen());
        }
        Ok(())
    }

    /// Whether a device has a logged-in connection.
    pub fn is_online(&self, device: &Device) -> bool {
        let mut state = self.shared.state();
        state.linked(device).is_some_and(|d| d.connection.is_some())
    }

    /// How many messages a device has not acknowledged yet.
    pub fn pending(&self, device: &Device) -> usize {
        let mut state = self.shared.state();
        state.linked(device).map_or(0, |linked| linked.inbox.len())
    }

    /// Unlinks a device, as its owner does on the phone.
    pub fn unlink(&self, device: &Device) {
        let mut state = self.shared.state();
        let account = state.phones.get_mut(device.jid.user.as_str());
        let linked = account.and_then(|account| account.devices.remove(&device.jid.device));
        if let Some(connection) = linked.and_then(|linked| linked.connection) {
            state.end(connection, Some(stream_error(Some("401"), Some("device_removed"))));
        }
    }

    /// Ends a device's connection because "somebody else" uses it.
    pub fn replace(&self, device: &Device) {
        self.end(device, Some(stream_error(None, Some("replaced"))));
    }

    /// Ends a device's connection with no word.
    pub fn drop_connection(&self, device: &Device) {
        self.end(device, None);
    }

    /// While set, logins fail with this reason: 401 logged out, 402 temporary ban, 405 outdated
    /// client, 503 try later.
    pub fn refuse_logins(&self, reason: Option<u16>) {
        self.shared.state().refuse = reason;
    }

    /// While set, new connections are closed at once and old ones are gone.
    pub fn go_away(&self, away: bool) {
        let mut state = self.shared.state();
        state.away = away;
        if away {
            let open: Vec<_> = state.connections.keys().copied().collect();
            for id in open {
                state.end(id, None);
            }
        }
    }

    /// Takes a new Noise key: clients that cached the old one have to fall back.
    pub fn rotate_key(&self) {
        *lock(&self.shared.identity) = Arc::new(Identity::generate());
    }

    fn end(&self, device: &Device, last: Option<Node>) {
        let mut state = self.shared.state();
        if let Some(id) = state.linked(device).and_then(|linked| linked.connection) {
            state.end(id, last);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let state = self.shared.state();
        let open: Vec<_> = state.connections.keys().copied().collect();
        for id in open {
            state.end(id, None);
        }
    }
}
