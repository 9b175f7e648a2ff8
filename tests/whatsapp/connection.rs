//! One client's connection, from its handshake to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_websockets::ServerBuilder;
use tracing::{debug, info, warn};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, marshal::unmarshal_ref, util::unpack};

use super::answers::query;
use super::node::{attribute, bytes, new_id, query_from_server, stream_error, unix_time};
use super::noise::Established;
use super::peer::Received;
use super::server::Seen;
use super::state::{Connection, Out, Shared, lock};
use super::wire::Wire;

const HANDSHAKE: Duration = Duration::from_secs(20);
const REFS: usize = 6;

pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(shared, stream).await {
                        debug!("connection ended: {error:#}");
                    }
                });
            }
            Err(error) => {
                warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) -> Result<()> {
    if shared.state().away {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let (_, socket) = ServerBuilder::new().accept(stream).await?;
    let mut wire = Wire::new(socket);
    let identity = lock(&shared.identity).clone();
    let done = tokio::time::timeout(HANDSHAKE, identity.accept(&mut wire)).await??;
    shared.note(Seen::Handshake(done.pattern));

    let (out, mut queue) = mpsc::unbounded_channel();
    let id = {
        let mut state = shared.state();
        let id = state.next_connection;
        state.next_connection += 1;
        let connection = Connection {
            out,
            noise: done.client_key,
            refs: Vec::new(),
            code: None,
            talk: None,
            device: None,
            active: false,
            replies: HashMap::new(),
        };
        state.connections.insert(id, connection);
        id
    };
    greet(&shared, id, &done);
    let result = pump(&shared, id, &mut wire, &done, &mut queue).await;
    wire.close().await;
    let device = {
        let mut state = shared.state();
        let device = state.connections.remove(&id).and_then(|c| c.device);
        if let Some(linked) = device.as_ref().and_then(|device| state.linked(device)) {
            linked.connection = linked.connection.filter(|open| *open != id);
        }
        device
    };
    shared.note(Seen::Disconnected(device.map(|device| device.jid)));
    result
}

async fn pump(
    shared: &Arc<Shared>,
    id: u64,
    wire: &mut Wire,
    keys: &Established,
    queue: &mut mpsc::UnboundedReceiver<Out>,
) -> Result<()> {
    let (mut sent, mut received) = (0, 0);
    loop {
        tokio::select! {
            frame = wire.receive() => {
                let mut frame = frame?;
                keys.receive.decrypt_in_place_with_counter(received, &mut frame)?;
                received += 1;
                let plain = unpack(&frame)?;
                let node = unmarshal_ref(&plain)?.to_owned();
                debug!(connection = id, ?node, "received");
                handle(shared, id, &node).await?;
            }
            next = queue.recv() => match next {
                Some(Out::Node(node)) => {
                    debug!(connection = id, ?node, "sending");
                    let plain = wacore_binary::marshal(&node)?;
                    let frame = keys.send.encrypt_with_counter(sent, &plain)?;
                    sent += 1;
                    wire.send(&frame).await?;
                }
                Some(Out::Close) | None => return Ok(()),
            },
        }
    }
}

/// Answers the payload of the handshake: with codes for a new device, or with a login.
fn greet(shared: &Shared, id: u64, done: &Established) {
    let Some(user) = done.payload.username else {
        let refs: Vec<String> = (0..REFS).map(|_| format!("2@{}", new_id())).collect();
        let nodes = refs.iter().map(|text| bytes("ref", text.as_bytes()));
        let pair = NodeBuilder::new("pair-device").children(nodes).build();
        let mut state = shared.state();
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.refs = refs;
        }
        state.send(id, query_from_server(&new_id(), pair));
        drop(state);
        shared.note(Seen::AskedToPair);
        return;
    };
    let number = user.to_string();
    let device = u16::try_from(done.payload.device.unwrap_or_default()).unwrap_or_default();
    let mut state = shared.state();
    let refuse = state.refuse;
    let account = state.phones.get_mut(&number);
    let known = account.and_then(|account| {
        let found = account.device(device);
        let linked = account.devices.get_mut(&device)?;
        (linked.noise == done.client_key).then(|| (linked.connection.replace(id), found))
    });
    match known {
        Some((before, device)) if refuse.is_none() => {
            if let Some(before) = before {
                state.end(before, Some(stream_error(None, Some("replaced"))));
            }
            let success = NodeBuilder::new("success")
                .attr("t", unix_time().to_string())
                .attr("lid", &device.lid)
                .attr("location", "mock")
                .build();
            state.send(id, success);
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.device = Some(device.clone());
            }
            drop(state);
            info!(jid = %device.jid, "logged in");
            shared.note(Seen::LoggedIn(device.jid));
        }
        _ => {
            let reason = refuse.unwrap_or(401);
            if let Some(linked) =
                known.and_then(|(before, device)| state.linked(&device).map(|linked| (linked, before)))
            {
                linked.0.connection = linked.1;
            }
            let mut failure =
                NodeBuilder::new("failure").attr("reason", reason.to_string()).attr("location", "mock");
            if reason == 402 {
                failure = failure.attr("code", "101").attr("expire", "3600");
            }
            state.end(id, Some(failure.build()));
            drop(state);
            shared.note(Seen::Refused(reason));
        }
    }
}

async fn handle(shared: &Arc<Shared>, id: u64, node: &Node) -> Result<()> {
    match node.tag.as_ref() {
        "iq" => query(shared, id, node).await?,
        "ack" if attribute(node, "class").as_deref() == Some("message") => {
            acknowledged(shared, id, node);
        }
        "receipt" => {
            let kind = attribute(node, "type");
            if kind.as_deref() == Some("retry") {
                asked_again(shared, id, node).await?;
            } else {
                acknowledged(shared, id, node);
            }
            let mut ack = NodeBuilder::new("ack")
                .attr("class", "receipt")
                .attr("id", attribute(node, "id").unwrap_or_default())
                .attr("from", attribute(node, "to").unwrap_or_default());
            if let Some(kind) = kind {
                ack = ack.attr("type", kind);
            }
            shared.state().send(id, ack.build());
        }
        "message" => message(shared, id, node).await?,
        _ => {}
    }
    Ok(())
}

/// A receipt names one message, and after an offline batch all the others in a list.
fn acknowledged(shared: &Shared, id: u64, node: &Node) {
    let list = node.get_optional_child("list").and_then(Node::children);
    let others = list.unwrap_or_default();
    let ids = std::iter::once(node).chain(others);
    let ids: Vec<_> = ids.filter_map(|node| attribute(node, "id")).collect();
    for message in ids {
        let known = shared.with_linked(id, |linked| {
            let before = linked.inbox.len();
            linked.inbox.retain(|(pending, _)| *pending != message);
            linked.inbox.len() < before
        });
        if known == Some(true) {
            shared.note(Seen::Acknowledged(message));
        }
    }
}

/// Lets the sender of a message that a device could not open send it again.
async fn asked_again(shared: &Arc<Shared>, id: u64, node: &Node) -> Result<()> {
    let message = attribute(node, "id").unwrap_or_default();
    let to: Jid = attribute(node, "to").unwrap_or_default().parse()?;
    shared.note(Seen::AskedAgain(message.clone()));
    shared.with_linked(id, |linked| {
        linked.inbox.retain(|(pending, _)| *pending != message);
    });
    let (peer, device) = {
        let state = shared.state();
        let device = state.connections.get(&id).and_then(|c| c.device.clone());
        (state.writer(&to), device)
    };
    if let (Some(peer), Some(device)) = (peer, device) {
        peer.send_again(&device, &message).await?;
    }
    Ok(())
}

/// Opens a text that the client sent to one of the peers.
async fn message(shared: &Arc<Shared>, id: u64, node: &Node) -> Result<()> {
    let message = attribute(node, "id").unwrap_or_default();
    let to: Jid = attribute(node, "to").unwrap_or_default().parse()?;
    let (peer, from) = {
        let state = shared.state();
        let device = state.connections.get(&id).and_then(|c| c.device.clone());
        (state.peers.get(to.user.as_str()).cloned(), device)
    };
    if let (Some(peer), Some(from)) = (peer, from) {
        let participants = node.get_optional_child("participants");
        let nested = participants
            .into_iter()
            .flat_map(|list| list.children().unwrap_or_default())
            .filter(|to| attribute(to, "jid").is_some_and(|jid| is_for(&jid, &peer.jid)))
            .find_map(|to| to.get_optional_child("enc"));
        if let Some(enc) = nested.or_else(|| node.get_optional_child("enc")) {
            match peer.open(&from.jid, enc).await {
                Ok(opened) => {
                    if let Some(text) = super::peer::text(&opened) {
                        let id = message.clone();
                        let to = peer.jid.user.to_string();
                        let received = (to, Received { id, text });
                        shared.state().received.push(received);
                    }
                }
                Err(error) => {
                    warn!("{} cannot open {message}: {error:#}", peer.name);
                    shared.note(Seen::Unreadable(message.clone()));
                }
            }
        }
    }
    let ack = NodeBuilder::new("ack")
        .attr("class", "message")
        .attr("id", message)
        .attr("from", &to)
        .attr("t", unix_time().to_string())
        .build();
    shared.state().send(id, ack);
    shared.changed.notify_waiters();
    Ok(())
}

fn is_for(jid: &str, peer: &Jid) -> bool {
    jid.parse::<Jid>().is_ok_and(|jid| jid.user == peer.user)
}
