//! The way to WhatsApp's socket: every address of the name is tried, and what happens is told.
//!
//! The client says nothing of a connect that fails, and its own dialling tries only the first address: a pod whose
//! IPv6 leads nowhere would never connect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::header::{HeaderValue, ORIGIN};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_websockets::ClientBuilder;
use url::Url;
use whatsapp_rust::anyhow::{self, Context as _};
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::async_trait;
use whatsapp_rust::transport::{
    Connector, Transport, TransportEvent, TransportFactory, default_tls_connector, from_websocket,
};
use whatsapp_rust::wacore::net::WHATSAPP_WEB_ORIGIN;

use super::fetch::innermost;
use super::life::Note;
use crate::net::names;

/// How much later than the one before an address is tried (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// For TLS and the upgrade. The client gives the whole 20 s.
const GREETING: Duration = Duration::from_secs(15);

/// One session's way to the socket.
pub(super) struct Dialler {
    url: String,
    notes: mpsc::UnboundedSender<Note>,
}

impl Dialler {
    pub(super) fn new(url: &str, notes: mpsc::UnboundedSender<Note>) -> Self {
        Self { url: url.to_owned(), notes }
    }

    async fn dial(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let url = Url::parse(&self.url)?;
        let host = url.host_str().context("the URL has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = url.scheme() == "wss";
        let port = url.port().unwrap_or(if secure { 443 } else { 80 });
        let addresses = names::lookup(host).await?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let stream = connect(in_turn(addresses)).await?;
        stream.set_nodelay(true)?;
        let connector = if secure { default_tls_connector() } else { Connector::Plain };
        let builder = ClientBuilder::new().uri(&self.url)?;
        let builder = builder.add_header(ORIGIN, HeaderValue::from_static(WHATSAPP_WEB_ORIGIN))?;
        let greet = async {
            let stream = connector.wrap(host, stream).await?;
            builder.connect_on(stream).await
        };
        let (socket, _) = timeout(GREETING, greet).await.context("no answer in time")??;
        Ok(from_websocket(socket))
    }
}

#[async_trait]
impl TransportFactory for Dialler {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let _ = self.notes.send(Note::Dialling);
        let dialled = self.dial().await;
        let _ = self.notes.send(match &dialled {
            Ok(_) => Note::Dialled,
            Err(error) => Note::NotDialled(innermost(error)),
        });
        dialled
    }
}

/// The families in turn, the first one first.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut other) = (first.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [first.next(), other.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// The first address that answers; each starts a little after the one before, or when all before have failed.
async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(TcpStream::connect(address));
        }
        let head_start = async {
            if waiting.len() == 0 {
                std::future::pending::<()>().await;
            }
            sleep(HEAD_START).await;
        };
        tokio::select! {
            next = under_way.next() => match next {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = head_start => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_both_families_take_turns() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(address);
        let turns = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(address);
        assert_eq!(in_turn(given.to_vec()), turns);
    }

    /// The crate's own dialling stops at the first address.
    #[tokio::test]
    async fn an_address_that_refuses_does_not_hide_one_that_answers() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = there.local_addr().unwrap();
        let stream = connect(vec![gone, gone, live]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert_eq!(connect(vec![gone]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_had_is_told_with_the_reason() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (sender, mut notes) = mpsc::unbounded_channel();
        let dialler = Dialler::new(&format!("ws://{gone}/ws/chat"), sender);
        assert!(dialler.create_transport().await.is_err());
        assert!(matches!(notes.recv().await, Some(Note::Dialling)));
        let Some(Note::NotDialled(why)) = notes.recv().await else { panic!("nothing told") };
        assert!(why.contains("refused"), "{why}");
    }
}
