//! `/healthz`, `/readyz`, `/leasez`: for the platform, without a credential, and without ids or phones.
//! [`/metrics`](super::metrics) stands beside them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Probe;
use crate::error::{Code, Error};
use crate::sync::health::{Health, Why};

/// Kubelet and people: a handful of connections at a time.
const BACKLOG: u32 = 64;

/// Opens the listener: an IPv6 wildcard also takes IPv4.
pub fn bind(probe: Probe) -> Result<TcpListener, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            Code::AddressInUse,
            format!(
                "another process listens at {}: give another address or `off` (--probe-listen, SIDECAR_PROBE_LISTEN)",
                probe.listen
            ),
        ),
        _ => Error::new(Code::Usage, format!("cannot listen at {} (--probe-listen)", probe.listen))
            .because(error),
    };
    match open(probe.listen) {
        // A machine without IPv6 refuses the socket or the address.
        Err(error) if probe.by_default && error.kind() != io::ErrorKind::AddrInUse => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, probe.listen.port()))).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Whatever `net.ipv6.bindv6only` says: kubelet may come by either family.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A container that starts again must not wait for the connections of its last life.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The three probes.
pub fn router(health: watch::Receiver<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/leasez", get(leasez))
        .with_state(health)
}

type Answer = (StatusCode, String);

async fn healthz(State(health): State<watch::Receiver<Health>>) -> Answer {
    let health = now(&health);
    answer(health.alive, &health)
}

async fn readyz(State(health): State<watch::Receiver<Health>>) -> Answer {
    let health = now(&health);
    answer(health.alive && health.ready, &health)
}

async fn leasez(State(health): State<watch::Receiver<Health>>) -> Answer {
    let health = now(&health);
    answer(!health.lease_lost, &health)
}

/// The last word; where nobody is left to say another one, the process is dead.
pub(super) fn now(receiver: &watch::Receiver<Health>) -> Health {
    let mut health = receiver.borrow().clone();
    if receiver.has_changed().is_err() && !health.why.contains(&Why::Stopping) {
        health.alive = false;
        health.why.insert(Why::WorkerDied);
    }
    health
}

fn answer(well: bool, health: &Health) -> Answer {
    if well {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let why: Vec<String> = health.why.iter().map(ToString::to_string).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ok: {}\n", why.join(" ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    async fn asked(address: SocketAddr, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn loopback() -> Probe {
        Probe { listen: "127.0.0.1:0".parse().unwrap(), by_default: false }
    }

    #[tokio::test]
    async fn the_probes_follow_the_health_of_the_process() {
        let (sender, receiver) = watch::channel(Health::default());
        let listener = bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router(receiver), stop.clone()));

        assert_eq!(asked(address, "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(asked(address, "/readyz").await, (503, "not ok: starting\n".to_owned()));
        assert_eq!(asked(address, "/leasez").await.0, 200);

        sender.send_replace(Health { alive: true, ready: true, lease_lost: false, why: BTreeSet::new() });
        assert_eq!(asked(address, "/readyz").await.0, 200);

        let why = BTreeSet::from([Why::Taken, Why::Held]);
        sender.send_replace(Health { alive: true, ready: false, lease_lost: true, why });
        assert_eq!(asked(address, "/leasez").await, (503, "not ok: held taken\n".to_owned()));
        assert_eq!(asked(address, "/healthz").await.0, 200);
        assert_eq!(asked(address, "/nothing").await.0, 404);

        drop(sender);
        assert_eq!(asked(address, "/healthz").await, (503, "not ok: held taken worker_died\n".to_owned()));

        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_a_line_that_says_what_to_do() {
        let first = bind(loopback()).unwrap();
        let listen = first.local_addr().unwrap();
        let error = bind(Probe { listen, by_default: false }).unwrap_err();
        assert_eq!((error.code(), error.code().exit()), (Code::AddressInUse, 2));
        assert!(error.to_string().contains("--probe-listen"), "{error}");
        let elsewhere = Probe { listen: "192.0.2.1:3081".parse().unwrap(), by_default: false };
        assert_eq!(bind(elsewhere).unwrap_err().code(), Code::Usage);
    }

    #[tokio::test]
    async fn the_wildcard_answers_both_families() {
        let listener = bind(Probe { listen: "[::]:0".parse().unwrap(), by_default: true }).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
