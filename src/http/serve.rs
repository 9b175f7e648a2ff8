//! The listener of the API: limits on what is not a request yet, and an end that waits for those that are.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::probe;
use crate::error::{Code, Error, Result};

/// A request whose headers take longer is no request.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// Headers of a request.
const HEADERS: usize = 64;
/// Bytes that are read before a request is whole; more than its headers may have, which a layer tells politely.
const BUFFER: usize = 64 << 10;
/// Connections at once: each takes a file descriptor.
const CONNECTIONS: usize = 1024;
/// After a failure to accept (no descriptor is left): not at once again.
const PAUSE: Duration = Duration::from_millis(200);
/// What requests under way get when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Opens the listener of the API; an IPv6 wildcard also takes IPv4, and is one of IPv4 where there is no IPv6.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let opened = match probe::open(address) {
        Err(error)
            if address.ip().is_unspecified()
                && address.is_ipv6()
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            probe::open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        opened => opened,
    };
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            Code::AddressInUse,
            format!(
                "another process listens at {address}: give another address (--listen, SIDECAR_LISTEN, PORT)"
            ),
        ),
        _ => Error::new(Code::Usage, format!("cannot listen at {address} (--listen, SIDECAR_LISTEN, PORT)"))
            .because(error),
    })
}

/// Answers until `stop`; then requests under way get a few seconds.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (place.await, listener.accept().await) } => accepted,
            () = stop.cancelled() => break,
        };
        let (place, (stream, peer)) = match accepted {
            (Ok(place), Ok(connection)) => (place, connection),
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            (Err(_), _) => break,
        };
        let connection = graceful.watch(connection(stream, peer, router.clone()));
        tokio::spawn(async move {
            // What a peer does wrong before its request is whole is its own business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the process stopped");
    }
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Peer>>;

fn connection(stream: TcpStream, peer: SocketAddr, router: Router) -> Connection {
    // Small answers at once; a peer that vanished does not matter here.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(Peer { router, peer }))
}

/// The router, told who is at the other end.
#[derive(Clone)]
struct Peer {
    router: Router,
    peer: SocketAddr,
}

impl tower_service::Service<hyper::Request<hyper::body::Incoming>> for Peer {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = axum::routing::future::RouteFuture<std::convert::Infallible>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::result::Result<(), Self::Error>> {
        // A router is always ready.
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        tower_service::Service::call(&mut self.router, request)
    }
}
