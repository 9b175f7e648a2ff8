//! Where a name leads: `/etc/hosts`, then the servers of `/etc/resolv.conf`.
//!
//! Not the C library's lookup: a static binary would need the shared libraries of the machine it was built on. It is used
//! everywhere, so that what is tested is what ships.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ServerOrderingStrategy};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The files that say where names lead: a change counts at the next lookup.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
/// For one question to one server.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody asks again for a name that is not there: it may be there in a moment.
const ABSENT: Duration = Duration::from_secs(5);

type Stamp = [Option<SystemTime>; 2];

/// The one that is in use, and what it was made from. Keeps answers for as long as their servers allow.
static CURRENT: Mutex<Option<(Stamp, TokioResolver)>> = Mutex::new(None);

/// The addresses of a host, IPv4 first: where IPv6 leads nowhere, most attempts would begin with a wait.
///
/// # Errors
/// The name is unknown, or no server answers.
pub async fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = current()?.lookup_ip(host).await;
    let found = found.map_err(|error| {
        let why =
            if error.is_no_records_found() { "the name is not known".to_owned() } else { error.to_string() };
        io::Error::new(io::ErrorKind::NotFound, format!("DNS: {host}: {why}"))
    })?;
    Ok(found.iter().collect())
}

fn current() -> io::Result<TokioResolver> {
    let stamp = FILES.map(|file| Path::new(file).metadata().and_then(|metadata| metadata.modified()).ok());
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, resolver)) = &*current
        && *of == stamp
    {
        return Ok(resolver.clone());
    }
    let resolver = resolver().map_err(io::Error::other)?;
    *current = Some((stamp, resolver.clone()));
    Ok(resolver)
}

fn resolver() -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = match TokioResolver::builder_tokio() {
        Ok(builder) => builder,
        // No servers: /etc/hosts, `localhost` and plain addresses are still known.
        Err(_) => {
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.timeout = options.timeout.min(PATIENCE);
    options.negative_max_ttl = Some(ABSENT);
    builder.build()
}

/// For reqwest.
#[derive(Debug, Clone, Copy)]
pub struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = lookup(name.as_str()).await?;
            // The port is filled in by whoever connects.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_not_there_is_soon_asked_for_again() {
        assert_eq!(resolver().unwrap().options().negative_max_ttl, Some(Duration::from_secs(5)));
    }

    #[tokio::test]
    async fn this_machine_and_plain_addresses_are_known_without_a_server() {
        let found = lookup("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert_eq!(lookup("192.0.2.7").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(lookup("[::1]").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_said_with_its_name() {
        let error = lookup("nowhere.invalid").await.unwrap_err().to_string();
        assert!(error.starts_with("DNS: nowhere.invalid: "), "{error}");
    }
}
