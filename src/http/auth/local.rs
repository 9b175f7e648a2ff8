//! An API that is open on loopback: what keeps the web pages of strangers out of it.
//!
//! Every page that is open in a browser of this machine can send requests to 127.0.0.1, and a name that its owner
//! points there (DNS rebinding) even makes it the same origin.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri};

/// Whether a call comes from this machine and from no stranger's page: its `Host` is an address or `localhost`, and its
/// `Origin`, where it has one, is on this machine.
pub fn from_here(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    // An address cannot be pointed elsewhere: an emulator of a phone comes by 10.0.2.2.
    let host = named.is_none_or(|host| {
        let name = name_of(host);
        is_localhost(name) || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    });
    host && headers.get(ORIGIN).is_none_or(origin_is_local)
}

/// Whether the page that asks was served by this machine.
pub fn origin_is_local(origin: &HeaderValue) -> bool {
    let Ok(text) = origin.to_str() else { return false };
    let Some((_, rest)) = text.split_once("://") else { return false };
    let name = name_of(rest);
    is_localhost(name)
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An authority without its port.
fn name_of(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        from_here(&Uri::from_static("/api/health"), &headers)
    }

    #[test]
    fn pages_of_strangers_are_kept_out_of_an_open_loopback() {
        for (host, origin) in [
            ("127.0.0.1:3000", None),
            ("localhost:3000", Some("http://localhost:5173")),
            ("[::1]:3000", Some("http://[::1]:3000")),
            ("10.0.2.2:3000", None),
            ("app.localhost", Some("capacitor://localhost")),
        ] {
            assert!(here(host, origin), "{host} {origin:?}");
        }
        for (host, origin) in [
            ("127.0.0.1:3000", Some("https://evil.example")),
            ("127.0.0.1:3000", Some("null")),
            ("127.0.0.1:3000", Some("http://10.1.2.3")),
            ("rebound.evil.example:3000", None),
            ("localhost.evil.example", None),
            ("127.0.0.1.evil.example:3000", None),
            ("localhost:3000", Some("http://localhost.evil.example")),
        ] {
            assert!(!here(host, origin), "{host} {origin:?}");
        }
    }
}
