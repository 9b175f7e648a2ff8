//! Frames on a WebSocket: three bytes of length, then the message.

use anyhow::{Result, ensure};
use bytes::{Buf, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_websockets::{Message, WebSocketStream};
use wacore_binary::consts::WA_CONN_HEADER;

/// One client's socket. Frames may be split over WebSocket messages or share one.
pub(crate) struct Wire {
    socket: WebSocketStream<TcpStream>,
    buffer: BytesMut,
    greeted: bool,
}

impl Wire {
    pub fn new(socket: WebSocketStream<TcpStream>) -> Self {
        Self { socket, buffer: BytesMut::new(), greeted: false }
    }

    /// The next frame; an error when the peer is gone. Safe to drop while it waits.
    pub async fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            let message = self.socket.next().await;
            let message = message.ok_or_else(|| anyhow::anyhow!("closed"))??;
            if message.is_binary() {
                self.buffer.extend_from_slice(message.as_payload());
            } else {
                ensure!(!message.is_close(), "closed");
            }
        }
    }

    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(frame.len() + 3);
        out.extend_from_slice(&u32::try_from(frame.len())?.to_be_bytes()[1..]);
        out.extend_from_slice(frame);
        Ok(self.socket.send(Message::binary(out)).await?)
    }

    pub async fn close(&mut self) {
        let _ = self.socket.close().await;
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        if !self.greeted {
            // `ED 0 1`, length and routing data may come before the header.
            if self.buffer.starts_with(b"ED\x00\x01") {
                let Some(length) = prefix(&self.buffer[4..]) else {
                    return Ok(None);
                };
                if self.buffer.len() < 7 + length {
                    return Ok(None);
                }
                self.buffer.advance(7 + length);
            }
            if self.buffer.len() < WA_CONN_HEADER.len() {
                return Ok(None);
            }
            ensure!(self.buffer.starts_with(&WA_CONN_HEADER), "not a WhatsApp client");
            self.buffer.advance(WA_CONN_HEADER.len());
            self.greeted = true;
        }
        match prefix(&self.buffer) {
            Some(length) if self.buffer.len() >= 3 + length => {
                self.buffer.advance(3);
                Ok(Some(self.buffer.split_to(length).to_vec()))
            }
            _ => Ok(None),
        }
    }
}

fn prefix(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [a, b, c, ..] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
        _ => None,
    }
}
