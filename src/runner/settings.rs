//! Where WhatsApp is, and what must not be connected to.

use std::time::Duration;

use url::{Host, Url};
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::wacore::handshake::HandshakeUtils;
use whatsapp_rust::wacore::net::WHATSAPP_WEB_WS_URL;
use whatsapp_rust::waproto::whatsapp::{CertChain, cert_chain};

use crate::error::{Code, Error};

/// How connections are made. Checked once: see [`Settings::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The socket; none: WhatsApp's own.
    pub url: Option<String>,
    /// The version of WhatsApp Web that is claimed; none: the current one is fetched, once a day.
    pub version: Option<(u32, u32, u32)>,
    /// The name that the phone lists the linked device by.
    pub device_name: String,
    /// A client that has no socket after this time is given up for a fresh one; grows while it fails.
    pub connect_deadline: Duration,
    /// How long is waited after the first and after the second word that the link is gone, before it is asked again.
    pub ask_again: [Duration; 2],
    /// One-time keys in an upload; none: as many as WhatsApp Web makes.
    pub pre_keys: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            version: None,
            device_name: "session-sidecar".to_owned(),
            connect_deadline: Duration::from_mins(1),
            ask_again: [Duration::from_secs(10), Duration::from_mins(1)],
            pre_keys: None,
        }
    }
}

impl Settings {
    /// What may be connected to.
    ///
    /// # Errors
    /// [`Code::Usage`] for what is no WebSocket URL, for `ws://` off loopback, and for anything off loopback when this
    /// build does not check WhatsApp's certificate.
    pub fn check(self) -> Result<Self, Error> {
        self.check_with(skips_certificate_check())
    }

    /// The socket.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(WHATSAPP_WEB_WS_URL)
    }

    fn check_with(self, skip: bool) -> Result<Self, Error> {
        let wrong = |why: &str| Error::new(Code::Usage, format!("WHATSAPP_URL {why}"));
        let url = Url::parse(self.url()).map_err(|error| wrong("is not a URL").because(error))?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(wrong("is not a WebSocket: give wss://HOST/PATH"));
        }
        let loopback = is_loopback(&url);
        if url.scheme() == "ws" && !loopback {
            return Err(wrong("is ws:// to another machine: give wss://, or a loopback address"));
        }
        if skip && !loopback {
            return Err(Error::new(
                Code::Usage,
                "this build does not check WhatsApp's certificate (it was made for tests) and connects to loopback \
                 only: build it with `cargo build --release`",
            ));
        }
        Ok(self)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether this build takes any server for WhatsApp's: asked of the check itself, with a chain that nobody signed.
#[must_use]
pub fn skips_certificate_check() -> bool {
    const KEY: [u8; 32] = [9; 32];
    let certificate = |serial, issuer_serial| {
        let details = cert_chain::noise_certificate::Details {
            serial: Some(serial),
            issuer_serial: Some(issuer_serial),
            key: Some(KEY.to_vec()),
            not_before: Some(0),
            not_after: Some(u64::MAX >> 1),
        };
        MessageField::some(cert_chain::NoiseCertificate {
            details: Some(details.encode_to_vec()),
            signature: Some(vec![0; 64]),
        })
    };
    let chain = CertChain { intermediate: certificate(1, 0), leaf: certificate(2, 1) };
    HandshakeUtils::verify_server_cert(&chain.encode_to_vec(), &KEY).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Settings {
        Settings { url: Some(url.to_owned()), ..Settings::default() }
    }

    #[test]
    fn a_build_that_checks_certificates_connects_to_whatsapp() {
        assert!(Settings::default().check_with(false).is_ok());
        assert!(at("wss://relay.example/ws").check_with(false).is_ok());
    }

    #[test]
    fn plain_sockets_lead_to_loopback_only() {
        for url in ["ws://127.0.0.1:1/ws/chat", "ws://[::1]:1/ws", "ws://localhost:8080/ws"] {
            assert!(at(url).check_with(false).is_ok(), "{url}");
        }
        for url in
            ["ws://web.whatsapp.com/ws/chat", "ws://127.0.0.1.example/ws", "https://web.whatsapp.com", "x"]
        {
            assert_eq!(at(url).check_with(false).unwrap_err().code(), Code::Usage, "{url}");
        }
    }

    /// A test build has the skip, by a dev-dependency: it must never meet the real WhatsApp.
    #[test]
    fn a_build_that_skips_the_certificate_check_refuses_all_but_loopback() {
        assert!(skips_certificate_check());
        let error = Settings::default().check().unwrap_err();
        assert_eq!(error.code(), Code::Usage);
        assert!(error.to_string().contains("does not check WhatsApp's certificate"), "{error}");
        assert!(at("wss://relay.example/ws").check().is_err());
        assert!(at("ws://127.0.0.1:1/ws/chat").check().is_ok());
    }
}
