//! How other machines are reached: whom to trust, and where a name leads.

pub mod names;
mod trust;

use std::sync::Arc;

use rustls::ClientConfig;
pub use trust::{tls, tls_apart};

/// What every HTTP client starts from: HTTP/1.1, and our names.
pub fn http(mut tls: ClientConfig) -> reqwest::ClientBuilder {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Cloudflare ends HTTP/2 connections after some 200 requests, with calls under way.
    let builder = reqwest::Client::builder().http1_only().tls_backend_preconfigured(tls);
    builder.dns_resolver(Arc::new(names::Names))
}

/// The same for plain HTTP to another process of this machine or pod, past every proxy.
pub fn nearby() -> reqwest::ClientBuilder {
    http(trust::nobody()).no_proxy()
}
