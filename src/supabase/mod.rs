//! The HTTP client for Supabase: its URL and key, storage calls, errors by meaning.
//!
//! Retries are not made here: [`store::stack`](crate::store::stack) puts them around it.

mod client;
mod credential;
mod database;
mod endpoint;
mod meaning;
mod mint;
mod rest;
pub mod schema;
mod storage;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

pub use client::{Answer, Client, Reply, Request, Timeouts, connections, connections_to};
pub use credential::{Credential, CredentialKind, CredentialSource, Reading, SOON, Token, Wanted};
pub use database::Database;
pub use endpoint::Endpoint;
pub use meaning::meaning;
pub use mint::{Minted, mint};
pub use rest::{AT_ONCE, RestError, RestKind};
pub use storage::Supabase;

use crate::error::{Code, Error};
use crate::host::Host;

/// All that a connection to a project's bucket needs.
#[derive(Debug)]
pub struct Settings {
    /// The project.
    pub endpoint: Endpoint,
    /// Its key.
    pub credential: CredentialSource,
    /// The bucket's name.
    pub bucket: String,
    /// PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long is waited.
    pub timeouts: Timeouts,
    /// The clock that a renewed key is checked against.
    pub host: Arc<dyn Host>,
}

impl Supabase {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Code::Usage`] when the bucket cannot have this name, the key belongs to another project, or the CA
    /// file is unusable.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let Settings { endpoint, credential, bucket, ca_file, timeouts, host } = settings;
        // Slashes cannot be: they would be further segments of the path.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_!.*'() &$=@;:+,?-".contains(&b);
        if !(1..=100).contains(&bucket.len()) || !bucket.bytes().all(allowed) || bucket.starts_with('.') {
            let text =
                "the bucket's name is not one that Supabase takes: 1 to 100 letters, digits, `-`, `_`, `.`";
            return Err(Error::new(Code::Usage, text));
        }
        if let (Some(url), CredentialKind::Jwt { project: Some(key), .. }) =
            (endpoint.reference(), credential.current().kind())
            && url != key
        {
            let text = format!("the Supabase key belongs to project {key}, but the URL is that of {url}");
            return Err(Error::new(Code::Usage, text));
        }
        Ok(Self::of(Client::new(endpoint, credential, ca_file.as_deref(), timeouts, host)?, bucket))
    }
}
