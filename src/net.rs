//! How other machines are reached: whom to trust, and where a name leads.

pub mod names;
mod trust;

use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
pub use trust::tls;

/// What an HTTP client starts from: HTTP/1.1, our names, the authorities of the system and of `ca_file`.
///
/// # Errors
/// [`crate::error::Code::Usage`] when `ca_file` holds no certificates.
pub fn http(ca_file: Option<&Path>) -> Result<reqwest::ClientBuilder, Error> {
    let mut tls = tls(ca_file)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Cloudflare ends HTTP/2 connections after some 200 requests, with calls under way.
    let builder = reqwest::Client::builder().http1_only().tls_backend_preconfigured(tls);
    Ok(builder.dns_resolver(Arc::new(names::Names)))
}

/// The same for plain HTTP to another process of this machine or pod, past every proxy.
pub fn nearby() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().http1_only().tls_backend_preconfigured(trust::no_tls());
    builder.no_proxy().dns_resolver(Arc::new(names::Names))
}
