//! Small helpers around WhatsApp's nodes.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeContent};

pub(crate) const SERVER: &str = "s.whatsapp.net";

pub(crate) fn query_from_server(id: &str, child: Node) -> Node {
    NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("type", "set")
        .attr("id", id.to_owned())
        .attr("xmlns", "md")
        .children([child])
        .build()
}

pub(crate) fn stream_error(code: Option<&'static str>, conflict: Option<&'static str>) -> Node {
    let mut node = NodeBuilder::new("stream:error");
    if let Some(code) = code {
        node = node.attr("code", code);
    }
    if let Some(kind) = conflict {
        node = node.children([NodeBuilder::new("conflict").attr("type", kind).build()]);
    }
    node.build()
}

pub(crate) fn bytes(tag: &'static str, content: &[u8]) -> Node {
    NodeBuilder::new(tag).bytes(content.to_vec()).build()
}

pub(crate) fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

pub(crate) fn attribute(node: &Node, name: &str) -> Option<String> {
    node.attrs.get(name).map(|value| value.as_str().into_owned())
}

/// A node's bytes, none for anything else.
pub(crate) fn content(node: &Node) -> &[u8] {
    match &node.content {
        Some(NodeContent::Bytes(bytes)) => bytes,
        Some(NodeContent::String(text)) => text.as_bytes(),
        _ => &[],
    }
}

pub(crate) fn unix_time() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

pub(crate) fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
