//! Answers to what clients ask.

use std::sync::Arc;

use anyhow::{Context, Result};
use sha1::{Digest as _, Sha1};
use wacore::libsignal::protocol::GenericSignedPreKey as _;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::node::{SERVER, attribute, bytes, content, new_id, number, unix_time};
use super::noise::key32;
use super::server::Seen;
use super::state::{Account, CodeLink, Keys, Linked, Shared};

pub(crate) async fn query(shared: &Arc<Shared>, id: u64, node: &Node) -> Result<()> {
    let Some(query) = attribute(node, "id") else {
        return Ok(());
    };
    let kind = attribute(node, "type").unwrap_or_default();
    if kind == "result" || kind == "error" {
        let mut state = shared.state();
        let connection = state.connections.get_mut(&id);
        if let Some(reply) = connection.and_then(|c| c.replies.remove(&query)) {
            let _ = reply.send(node.clone());
        }
        return Ok(());
    }
    let namespace = attribute(node, "xmlns").unwrap_or_default();
    let child = node.children().and_then(|children| children.first());
    let tag = child.map(|child| child.tag.to_string()).unwrap_or_default();
    let name = format!("{namespace} {tag}").trim().to_owned();
    shared.note(Seen::Query(name.clone()));

    let mut answer = Vec::new();
    let mut error = None;
    let mut after = After::Nothing;
    match (namespace.as_str(), kind.as_str(), tag.as_str()) {
        ("encrypt", "get", "count") => {
            let left = shared.with_linked(id, |l| l.keys.as_ref().map_or(0, |k| k.one_time.len()));
            let count = NodeBuilder::new("count").attr("value", left.unwrap_or(0).to_string());
            answer.push(count.build());
        }
        ("encrypt", "get", "digest") => match shared.with_linked(id, digest).flatten() {
            Some(digest) => answer.push(digest),
            None => error = Some((404, "item-not-found")),
        },
        ("encrypt", "get", "key") => answer.push(peer_bundles(shared, child).await),
        ("encrypt", "set", "rotate") => {
            let key = child.and_then(|rotate| rotate.get_optional_child("skey"));
            let signed = signed_key(key)?;
            shared.with_linked(id, |linked| {
                if let Some(keys) = &mut linked.keys {
                    keys.signed = signed;
                }
            });
        }
        ("encrypt", "set", _) => {
            let keys = uploaded_keys(node)?;
            let count = keys.one_time.len();
            shared.with_linked(id, |linked| linked.keys = Some(keys));
            shared.note(Seen::UploadedKeys(count));
            after = After::ShareAppStateKey;
        }
        ("passive", "set", "active") => after = After::DeliverInbox,
        ("w:sync:app:state", "set", "sync") => answer.push(empty_collections(child)),
        ("abt", "get", _) => answer.push(
            NodeBuilder::new("props")
                .attr("protocol", "1")
                .attr("hash", "mock")
                .attr("refresh", "86400")
                .build(),
        ),
        ("blocklist", "get", _) => answer.push(NodeBuilder::new("list").build()),
        ("privacy", "get", _) => answer.push(privacy()),
        ("usync", "get", "usync") => answer.push(shared.usync(child)),
        ("md", "set", "remove-companion-device") => after = After::Remove,
        ("md", "set", "link_code_companion_reg") => {
            let link = child.context("empty link")?;
            if let Some(node) = link_by_code(shared, id, link) {
                answer.push(node);
            }
        }
        ("md", "get", "ref") => {
            let reference = new_id();
            let mut state = shared.state();
            let connection = state.connections.get_mut(&id);
            if let Some(talk) = connection.and_then(|c| c.talk.as_mut()) {
                talk.reference.clone_from(&reference);
            }
            answer.push(bytes("ref", reference.as_bytes()));
        }
        ("md", "set", "passkey_prologue" | "companion_nonce" | "encrypted_pairing_request") => {
            let state = shared.state();
            let talk = state.connections.get(&id).and_then(|c| c.talk.as_ref());
            if let (Some(talk), Some(child)) = (talk, child) {
                let _ = talk.steps.send(child.clone());
            }
        }
        ("w:p" | "urn:xmpp:ping" | "passive", ..) => {}
        _ => shared.note(Seen::UnknownQuery(name)),
    }
    let mut result = NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("id", query)
        .attr("type", if error.is_some() { "error" } else { "result" });
    if let Some((code, text)) = error {
        let node = NodeBuilder::new("error").attr("code", code.to_string());
        result = result.children([node.attr("text", text).build()]);
    } else if !answer.is_empty() {
        result = result.children(answer);
    }
    shared.state().send(id, result.build());
    follow_up(shared, id, after).await
}

/// What a query sets off once it is answered.
enum After {
    Nothing,
    DeliverInbox,
    ShareAppStateKey,
    Remove,
}

async fn follow_up(shared: &Arc<Shared>, id: u64, after: After) -> Result<()> {
    let device = {
        let state = shared.state();
        state.connections.get(&id).and_then(|c| c.device.clone())
    };
    let Some(device) = device else {
        return Ok(());
    };
    match after {
        After::Nothing => {}
        After::DeliverInbox => {
            let mut state = shared.state();
            let linked = state.linked(&device);
            let inbox = linked.map_or_else(Vec::new, |linked| linked.inbox.clone());
            let count = inbox.len().to_string();
            let note = |tag| NodeBuilder::new("ib").children([tag]).build();
            let preview = NodeBuilder::new("offline_preview")
                .attr("count", count.clone())
                .attr("message", count.clone());
            state.send(id, note(preview.build()));
            for (index, (_, mut node)) in inbox.into_iter().enumerate() {
                node.attrs.insert("offline", index.to_string());
                state.send(id, node);
            }
            let end = NodeBuilder::new("offline").attr("count", count).build();
            state.send(id, note(end));
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.active = true;
            }
        }
        After::ShareAppStateKey => {
            // Without it a fresh device waits ten seconds before it calls itself connected.
            let phone = {
                let mut state = shared.state();
                let linked = state.linked(&device);
                let first = linked.is_some_and(|l| !std::mem::replace(&mut l.has_app_state_key, true));
                let account = state.phones.get(device.jid.user.as_str());
                account.filter(|_| first).map(|account| account.signal.clone())
            };
            if let Some(phone) = phone {
                let share = super::peer::app_state_key_share();
                phone.send(&device, &share, Some("peer")).await?;
            }
        }
        After::Remove => {
            let mut state = shared.state();
            if let Some(account) = state.phones.get_mut(device.jid.user.as_str()) {
                account.devices.remove(&device.jid.device);
            }
            state.end(id, None);
            drop(state);
            shared.note(Seen::Removed(device.jid));
        }
    }
    Ok(())
}

impl Shared {
    /// Device lists: an account's own devices, and device 0 for everybody else.
    fn usync(&self, request: Option<&Node>) -> Node {
        let state = self.state();
        let asked = request
            .and_then(|usync| usync.get_optional_child("list"))
            .and_then(Node::children)
            .unwrap_or_default();
        let users = asked.iter().filter_map(|user| {
            let jid: Jid = attribute(user, "jid")?.parse().ok()?;
            let of = |a: &&Account| a.jid.user == jid.user || a.lid.user == jid.user;
            let account = state.phones.values().find(of);
            let own = account.into_iter().flat_map(|account| account.devices.keys());
            let ids: Vec<u16> = std::iter::once(0).chain(own.copied()).collect();
            Some(device_list(&jid, &ids))
        });
        let list = NodeBuilder::new("list").children(users).build();
        let mut usync = NodeBuilder::new("usync");
        for name in ["sid", "mode", "context", "index", "last"] {
            if let Some(value) = request.and_then(|request| attribute(request, name)) {
                usync = usync.attr(name, value);
            }
        }
        let result = NodeBuilder::new("result").children([NodeBuilder::new("devices").build()]).build();
        usync.children([result, list]).build()
    }
}

fn device_list(jid: &Jid, ids: &[u16]) -> Node {
    let device = |id: &u16| {
        let device = NodeBuilder::new("device").attr("id", id.to_string());
        match id {
            0 => device.build(),
            id => device.attr("key-index", id.to_string()).build(),
        }
    };
    let list = NodeBuilder::new("device-list").children(ids.iter().map(device)).build();
    let indexes: Vec<u32> = ids.iter().map(|id| u32::from(*id)).collect();
    let details = wa::ADVKeyIndexList {
        raw_id: Some(1),
        timestamp: Some(unix_time()),
        current_index: indexes.iter().max().copied(),
        valid_indexes: indexes,
        ..Default::default()
    };
    let signed = wa::ADVSignedKeyIndexList { details: Some(details.encode_to_vec()), ..Default::default() };
    let keys = NodeBuilder::new("key-index-list")
        .attr("ts", unix_time().to_string())
        .bytes(signed.encode_to_vec())
        .build();
    let devices = NodeBuilder::new("devices").children([list, keys]).build();
    NodeBuilder::new("user").attr("jid", jid).children([devices]).build()
}

/// Remembers who waits for a code, or hands the end of such a link to the phone.
fn link_by_code(shared: &Shared, id: u64, link: &Node) -> Option<Node> {
    let mut state = shared.state();
    let connection = state.connections.get_mut(&id)?;
    if attribute(link, "stage").as_deref() == Some("companion_finish") {
        let finish = connection.code.as_mut()?.finish.take()?;
        let _ = finish.send(link.clone());
        return None;
    }
    let number: Jid = attribute(link, "jid")?.parse().ok()?;
    let ephemeral = link.get_optional_child("link_code_pairing_wrapped_companion_ephemeral_pub")?;
    let reference = new_id().into_bytes();
    connection.code = Some(CodeLink {
        number: number.user.to_string(),
        reference: reference.clone(),
        wrapped_ephemeral: content(ephemeral).to_vec(),
        finish: None,
    });
    let node = NodeBuilder::new("link_code_companion_reg").attr("stage", "companion_hello");
    let node = node.children([bytes("link_code_pairing_ref", &reference)]);
    Some(node.build())
}

/// The keys of peers, for a client that wants to write first.
async fn peer_bundles(shared: &Arc<Shared>, asked: Option<&Node>) -> Node {
    let mut users = Vec::new();
    for user in asked.and_then(Node::children).unwrap_or_default() {
        let Some(jid) = attribute(user, "jid").and_then(|jid| jid.parse::<Jid>().ok()) else {
            continue;
        };
        let peer = shared.state().writer(&jid);
        let Some(peer) = peer.filter(|_| jid.device == 0) else {
            continue;
        };
        let mut store = peer.store.lock().await;
        let mut nodes = vec![
            bytes("registration", &store.identity.registration.to_be_bytes()),
            bytes("type", &[5]),
            bytes("identity", store.identity.own.public_key().public_key_bytes()),
        ];
        if !std::mem::replace(&mut store.taken, true)
            && let Some((id, record)) = store.one_time.0.iter().next()
            && let Ok(key) = record.public_key()
        {
            nodes.push(key_node("key", u32::from(*id), key.public_key_bytes(), None));
        }
        let signed = &store.signed.0;
        if let (Ok(key), Ok(signature)) = (signed.public_key(), signed.signature()) {
            nodes.push(key_node("skey", 1, key.public_key_bytes(), Some(&signature)));
        }
        users.push(NodeBuilder::new("user").attr("jid", &jid).children(nodes).build());
    }
    NodeBuilder::new("list").children(users).build()
}

fn uploaded_keys(node: &Node) -> Result<Keys> {
    let registration = node.get_optional_child("registration").map(content);
    let registration = number(registration.context("no registration")?);
    let list = node.get_optional_child("list").and_then(Node::children);
    let one_time = list.unwrap_or_default().iter().map(|key| {
        let value = key.get_optional_child("value").map(content);
        Ok((key_id(key)?, key32(value)?))
    });
    Ok(Keys {
        registration,
        signed: signed_key(node.get_optional_child("skey"))?,
        one_time: one_time.collect::<Result<_>>()?,
    })
}

fn signed_key(node: Option<&Node>) -> Result<(u32, [u8; 32], Vec<u8>)> {
    let node = node.context("no signed key")?;
    let value = node.get_optional_child("value").map(content);
    let signature = node.get_optional_child("signature").map(content);
    let signature = signature.context("no signature")?.to_vec();
    Ok((key_id(node)?, key32(value)?, signature))
}

fn key_id(node: &Node) -> Result<u32> {
    let id = node.get_optional_child("id").map(content);
    Ok(number(id.context("a key without an id")?))
}

/// What the server holds of a device's keys, for the device to compare.
fn digest(linked: &mut Linked) -> Option<Node> {
    let keys = linked.keys.as_ref()?;
    let (id, signed, signature) = &keys.signed;
    let mut hash = Sha1::new();
    hash.update(linked.identity);
    hash.update(signed);
    hash.update(signature);
    keys.one_time.iter().for_each(|(_, key)| hash.update(key));
    let ids = keys.one_time.iter().map(|(id, _)| bytes("id", &id.to_be_bytes()[1..]));
    let nodes = [
        bytes("registration", &keys.registration.to_be_bytes()),
        bytes("type", &[5]),
        bytes("identity", &linked.identity),
        key_node("skey", *id, signed, Some(signature)),
        NodeBuilder::new("list").children(ids).build(),
        bytes("hash", &hash.finalize()),
    ];
    Some(NodeBuilder::new("digest").children(nodes).build())
}

fn empty_collections(sync: Option<&Node>) -> Node {
    let asked = sync.and_then(Node::children).unwrap_or_default();
    let collections = asked.iter().map(|collection| {
        NodeBuilder::new("collection")
            .attr("name", attribute(collection, "name").unwrap_or_default())
            .attr("version", "0")
            .attr("has_more_patches", "false")
            .build()
    });
    NodeBuilder::new("sync").children(collections).build()
}

fn privacy() -> Node {
    let category = |name| NodeBuilder::new("category").attr("name", name).attr("value", "all").build();
    let all = ["last", "online", "profile", "status", "groupadd", "readreceipts", "calladd"];
    NodeBuilder::new("privacy").children(all.map(category)).build()
}

fn key_node(tag: &'static str, id: u32, key: &[u8], signature: Option<&[u8]>) -> Node {
    let mut nodes = vec![bytes("id", &id.to_be_bytes()[1..]), bytes("value", key)];
    nodes.extend(signature.map(|signature| bytes("signature", signature)));
    NodeBuilder::new(tag).children(nodes).build()
}
