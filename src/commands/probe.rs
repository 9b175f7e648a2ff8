//! `probe`: asks the process that runs in this container how it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::output::Output;
use crate::cli::Probe;
use crate::cli::values::{Listen, ProbePath};
use crate::config::environment;
use crate::error::{Code, Error, Result};
use crate::net;

/// For one answer: a kubelet gives a second, Docker thirty.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where the probes are when nobody says where; then where the API of a sidecar and of a service is.
const KNOWN: [u16; 3] = [3081, 3080, 3000];

#[derive(Serialize)]
struct Report {
    well: bool,
    says: String,
}

/// Asks; the exit code.
pub(super) async fn run(args: &Probe, out: Output) -> Result<u8> {
    let path = match args.path {
        ProbePath::Healthz => "healthz",
        ProbePath::Readyz => "readyz",
        ProbePath::Leasez => "leasez",
    };
    let port = environment("PORT").and_then(|port| port.to_str()?.trim().parse().ok());
    let client = net::nearby().timeout(PATIENCE).build();
    let client =
        client.map_err(|error| Error::new(Code::Internal, "cannot make an HTTP client").because(error))?;
    let mut report = Report { well: false, says: "nothing of ours answers here".to_owned() };
    for address in places(args.probe_listen, args.listen, port) {
        if let Some(found) = ask(&client, address, path).await {
            report = found;
            break;
        }
    }
    out.result(&report, |report| report.says.clone())?;
    Ok(u8::from(!report.well))
}

/// Where the probes may be, the likeliest first. Where the process was told to have them, they are.
fn places(probes: Option<Listen>, api: Option<Listen>, port: Option<u16>) -> Vec<SocketAddr> {
    if let Some(Listen::At(address)) = probes {
        return vec![reached(address)];
    }
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let told = match api {
        Some(Listen::At(address)) => Some(reached(address)),
        _ => port.map(here),
    };
    let known = KNOWN.map(here);
    let (own, apis) = known.split_at(1);
    let own = own.iter().filter(|_| probes.is_none());
    own.copied().chain(told).chain(apis.iter().copied()).collect()
}

/// The way to an address that listens everywhere.
fn reached(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        // It takes IPv4 as well, which every machine has.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The answer of a process of ours; none of anybody else, such as a bot at PORT. Whoever listens there and says nothing is
/// taken for ours.
async fn ask(client: &reqwest::Client, address: SocketAddr, path: &str) -> Option<Report> {
    let answer = match client.get(format!("http://{address}/{path}")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => {
            return Some(Report { well: false, says: format!("no answer within {} s", PATIENCE.as_secs()) });
        }
        Err(_) => return None,
    };
    let well = answer.status().is_success();
    let says = answer.text().await.ok()?.trim_end().to_owned();
    let ours = if well { says == "ok" } else { says.starts_with("not ok") };
    ours.then_some(Report { well, says })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(probes: Option<&str>, api: Option<&str>, port: Option<u16>) -> Vec<String> {
        let listen = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        places(listen(probes), listen(api), port).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_probes_are_looked_for_where_the_process_was_told_to_have_them() {
        assert_eq!(asked(Some("4000"), Some("5000"), Some(6000)), ["127.0.0.1:4000"]);
        assert_eq!(asked(Some("[::1]:4000"), None, None), ["[::1]:4000"]);
        let all = ["127.0.0.1:3081", "127.0.0.1:6000", "127.0.0.1:3080", "127.0.0.1:3000"];
        assert_eq!(asked(None, None, Some(6000)), all);
        assert_eq!(asked(Some("off"), Some("0.0.0.0:5000"), Some(6000))[0], "127.0.0.1:5000");
        assert_eq!(asked(None, None, None), ["127.0.0.1:3081", "127.0.0.1:3080", "127.0.0.1:3000"]);
    }
}
