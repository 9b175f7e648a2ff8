//! HTTP/1.1 by hand: paths, headers and bodies go out as they are, and resets are seen as such.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body; null where there is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// `200`, or `400:404/NoSuchKey`: status, and what the body says of an error.
    pub fn short(&self) -> String {
        if self.status < 300 {
            return self.status.to_string();
        }
        let field = |name: &str| self.json()[name].as_str().unwrap_or_default().to_owned();
        format!("{}:{}/{}", self.status, field("statusCode"), field("code"))
    }
}

/// A request that is being sent.
pub struct Sending(TcpStream);

/// Sends the head of a request, and `body` of `length` bytes as far as it is given.
pub async fn begin(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: usize,
    body: &[u8],
) -> io::Result<Sending> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: emulator\r\nConnection: close\r\n");
    let line = |(name, value): &(&str, &str)| [*name, ": ", *value, "\r\n"].concat();
    head.extend(headers.iter().map(line));
    if headers.iter().all(|(name, _)| *name != "Transfer-Encoding") {
        head += &line(&("Content-Length", &length.to_string()));
    }
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all((head + "\r\n").as_bytes()).await?;
    stream.write_all(body).await?;
    Ok(Sending(stream))
}

impl Sending {
    /// More of the body.
    pub async fn more(&mut self, body: &[u8]) -> io::Result<()> {
        self.0.write_all(body).await
    }

    /// The answer. A body shorter than its length is an error.
    pub async fn finish(mut self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await?;
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = bytes.split_off(end + 4);
        let length = headers.get("content-length").and_then(|n| n.parse().ok());
        if length.is_some_and(|length: usize| length > body.len() && !body.is_empty()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Reply { status, headers, body })
    }
}

/// Sends a request and reads the answer.
pub async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    begin(addr, method, path, headers, body.len(), body).await?.finish().await
}
