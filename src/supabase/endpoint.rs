//! The project's URL, however it was pasted.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::error::{Code, Error};

/// What people paste after the project's URL: the client adds its own.
const SERVICES: [&str; 7] =
    ["/rest/v1", "/storage/v1/s3", "/storage/v1", "/auth/v1", "/realtime/v1", "/functions/v1", "/graphql/v1"];

/// Where a project answers: scheme, host, port and perhaps a path, without a slash at the end.
///
/// ```
/// use session_sidecar::supabase::Endpoint;
/// let endpoint = Endpoint::parse(" 'https://abcdefghijklmnopqrst.supabase.co/rest/v1/' ")?;
/// assert_eq!(endpoint.to_string(), "https://abcdefghijklmnopqrst.supabase.co");
/// # Ok::<(), session_sidecar::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// Checks and normalises what a person configured.
    ///
    /// # Errors
    /// [`Code::Usage`], saying what to paste. What was given is never repeated: it may be a key or hold a
    /// password.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || "\"'`<>".contains(c));
        let bad = |why: &str| {
            Err(Error::new(
                Code::Usage,
                format!("the Supabase URL {why}: give the project's URL, like https://REF.supabase.co"),
            ))
        };
        if text.is_empty() {
            return bad("is empty");
        }
        if text.starts_with("eyJ") || text.starts_with("sb_") {
            return bad("is a key");
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return bad("has no scheme (https:// or http://)");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => {}
            "postgres" | "postgresql" => return bad("is the database's connection string"),
            _ => return bad("has a scheme other than https:// and http://"),
        }
        let Ok(mut url) = Url::parse(text) else { return bad("is malformed") };
        if !url.username().is_empty() || url.password().is_some() {
            return bad("holds a user name or password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return bad("has a query (`?…` or `#…`)");
        }
        if matches!(
            url.host_str(),
            Some("supabase.com" | "www.supabase.com" | "app.supabase.com" | "app.supabase.io")
        ) {
            let reference = url.path_segments().and_then(|mut parts| parts.find(|part| is_reference(part)));
            return match reference {
                Some(reference) => bad(&format!(
                    "is the dashboard's; this project answers at https://{reference}.supabase.co"
                )),
                None => bad("is the dashboard's"),
            };
        }
        // The host for large uploads serves storage only; tables and functions are at the project's own.
        if let Some(reference) = url.host_str().and_then(|host| host.strip_suffix(".storage.supabase.co")) {
            let host = format!("{reference}.supabase.co");
            if url.set_host(Some(&host)).is_err() {
                return bad("is malformed");
            }
        }
        let path = url.path().trim_end_matches('/');
        let path = SERVICES.iter().find_map(|service| path.strip_suffix(service)).unwrap_or(path);
        let path = path.trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { url })
    }

    /// The URL without a slash at its end, to which paths are appended.
    #[must_use]
    pub fn base(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// `PostgREST`: tables and functions.
    #[must_use]
    pub fn rest(&self) -> String {
        format!("{}/rest/v1", self.base())
    }

    /// The auth server: users and their tokens.
    #[must_use]
    pub fn auth(&self) -> String {
        format!("{}/auth/v1", self.base())
    }

    /// Whether it is this machine: no proxy is asked then.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// The URL itself.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The project's reference, where the host names it (hosted, without a domain of one's own).
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.url.host_str()?.strip_suffix(".supabase.co").filter(|name| is_reference(name))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base())
    }
}

/// Whether a URL is of this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

fn is_reference(name: &str) -> bool {
    name.len() == 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REF: &str = "abcdefghijklmnopqrst";

    #[test]
    fn pasted_forms_are_normalised() {
        let hosted = format!("https://{REF}.supabase.co");
        for (given, base) in [
            (hosted.clone(), hosted.as_str()),
            (format!("{hosted}/"), &hosted),
            (format!(" \"{hosted}/\"\n"), &hosted),
            (format!("{hosted}/rest/v1/"), &hosted),
            (format!("{hosted}/storage/v1"), &hosted),
            (format!("{hosted}/storage/v1/s3"), &hosted),
            (format!("HTTPS://{REF}.SUPABASE.CO"), &hosted),
            (format!("https://{REF}.storage.supabase.co/storage/v1/s3"), &hosted),
            ("http://127.0.0.1:54321".into(), "http://127.0.0.1:54321"),
            ("http://kong:8000/storage/v1/".into(), "http://kong:8000"),
            ("https://example.com/supabase//".into(), "https://example.com/supabase"),
        ] {
            assert_eq!(Endpoint::parse(&given).unwrap().base(), base, "{given}");
        }
        let endpoint = Endpoint::parse(&hosted).unwrap();
        assert_eq!(endpoint.reference(), Some(REF));
        assert_eq!(endpoint.rest(), format!("{hosted}/rest/v1"));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_paste_and_never_repeated() {
        for (given, word) in [
            ("", "empty"),
            (" ' ' ", "empty"),
            ("sekret.supabase.co", "scheme"),
            ("localhost:54321", "scheme"),
            ("postgresql://postgres:sekret@db.sekret.supabase.co:5432/postgres", "connection string"),
            ("https://user:sekret@example.com", "password"),
            ("https://example.com/?apikey=sekret", "query"),
            ("https://exa mple.com/sekret", "malformed"),
            ("eyJhbGciOiJIUzI1NiJ9.sekret.sekret", "is a key"),
            ("sb_secret_sekret", "is a key"),
            ("s3://sekret", "scheme"),
            (
                "https://supabase.com/dashboard/project/abcdefghijklmnopqrst/settings",
                "https://abcdefghijklmnopqrst.supabase.co",
            ),
            ("https://supabase.com/dashboard", "dashboard"),
        ] {
            let error = Endpoint::parse(given).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            let text = error.to_string();
            assert!(text.contains(word), "{given}: {text}");
            assert!(!text.contains("sekret"), "{text}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (given, loopback) in [
            ("http://localhost:1", true),
            ("http://a.localhost", true),
            ("http://127.9.9.9:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("https://localhost.example.com", false),
        ] {
            assert_eq!(Endpoint::parse(given).unwrap().is_loopback(), loopback, "{given}");
        }
    }
}
