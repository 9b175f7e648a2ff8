//! Which certificates are believed.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{Code, Error};

/// The system's authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or where distributions keep them).
static SYSTEM: LazyLock<RootCertStore> =
    LazyLock::new(|| or_compiled_in(rustls_native_certs::load_native_certs().certs));

/// Slim images of Debian, and our own, have none: then those of Mozilla that are compiled in are taken, as browsers do.
fn or_compiled_in(found: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// TLS as a client: the system's authorities, and those of `ca_file`.
///
/// # Errors
/// [`Code::Usage`] when `ca_file` holds no certificates.
pub fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    with(SYSTEM.clone(), ca_file)
}

/// TLS for what is plain HTTP as far as we know: the system's authorities are many, and reading them takes longer than a
/// small command does.
///
/// # Errors
/// As those of [`tls`].
pub fn tls_apart(ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    with(RootCertStore::empty(), ca_file)
}

/// TLS that trusts nobody: for what never leaves this machine.
pub(super) fn nobody() -> ClientConfig {
    client(RootCertStore::empty())
}

fn with(mut roots: RootCertStore, ca_file: Option<&Path>) -> Result<ClientConfig, Error> {
    if let Some(file) = ca_file {
        let bad = |why: &str| Error::new(Code::Usage, format!("the CA file {} {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| bad("cannot be read").because(error))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let found = found.map_err(|_| bad("is not PEM"))?;
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(bad("holds no certificate"));
        }
    }
    Ok(client(roots))
}

fn client(roots: RootCertStore) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().expect("ring has the default versions of TLS");
    builder.with_root_certificates(roots).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_certificates_is_helped_out_and_one_with_its_own_is_not() {
        assert!(or_compiled_in(Vec::new()).len() > 50);
        let pem = include_bytes!("../../tests/fixtures/tls/ca.pem");
        let own = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(or_compiled_in(own.clone()).len(), own.len());
    }
}
