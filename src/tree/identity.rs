//! The identities of a tree: what they are, and what a commit may do to them. (P4)
//!
//! Baileys keeps one in each `creds.json`, whatsapp-rust and whatsmeow keep any number in a database, WhatsApp Web one in
//! the profile of its browser. Each is told by the path of the file that holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::read::read_file;
use super::scan::scan;
use super::sqlite::snapshot::{Failure, Snapshot};
use super::sqlite::{Kind, Turn, has_database_name};
use super::{Content, Dir, Filter, Hash};

mod device;
mod profile;
mod verdict;

pub use device::accounts;
pub use profile::{lost_databases, profile_of};
pub use verdict::{IdentityVerdict, Judgement, Loss, identity_guard};

/// The file that holds an account; the directory it lies in is an auth directory.
pub const CREDS: &str = "creds.json";

/// What never changes after pairing (measured with Baileys 7.0.0-rc13): `me.id` keeps its device number until
/// the next pairing, while `me.lid` and `me.name` come and go.
const PARTS: [&str; 6] =
    ["noiseKey", "pairingEphemeralKeyPair", "signedIdentityKey", "registrationId", "advSecretKey", "account"];

/// The library that keeps an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Baileys: `creds.json`.
    Baileys,
    /// whatsapp-rust: the table `device`.
    WhatsappRust,
    /// whatsmeow: the table `whatsmeow_device`.
    Whatsmeow,
    /// whatsapp-web.js, wppconnect and the like: WhatsApp Web in a browser.
    WhatsappWebJs,
}

impl Format {
    /// The word that `status` uses; a contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baileys => "baileys",
            Self::WhatsappRust => "whatsapp-rust",
            Self::Whatsmeow => "whatsmeow",
            Self::WhatsappWebJs => "whatsapp-web.js",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose accounts a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// There is no such file, or no account's keys in it.
    Absent,
    /// There is one, but it cannot be read: empty, truncated, damaged.
    Unreadable,
    /// Keys that are not linked to a phone yet; `me.id` alone in a `creds.json` is a pairing code that was asked for.
    Unpaired,
    /// Paired; never without any. The hashes tell one identity from another; only a database holds several.
    Paired(BTreeSet<Hash>),
}

impl Identity {
    /// The identities of paired accounts.
    pub fn paired(&self) -> impl Iterator<Item = Hash> {
        let hashes = if let Self::Paired(hashes) = self { Some(hashes) } else { None };
        hashes.into_iter().flatten().copied()
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        matches!(self, Self::Paired(_))
    }
}

/// What is read from a `creds.json`, or from the device table of a database.
#[derive(Clone, PartialEq, Eq)]
pub struct Creds {
    /// The library; none while there is nothing to tell it by.
    pub format: Option<Format>,
    /// Whose account it is.
    pub identity: Identity,
    /// The id that the next pre-key will get.
    pub next_pre_key_id: Option<u64>,
    /// The phone number, digits only; never to be logged as it is.
    pub phone: Option<String>,
}

impl Creds {
    /// No account.
    pub const ABSENT: Self =
        Self { format: None, identity: Identity::Absent, next_pre_key_id: None, phone: None };
    /// A file that is there but cannot be read.
    pub const UNREADABLE: Self =
        Self { format: None, identity: Identity::Unreadable, next_pre_key_id: None, phone: None };

    /// Reads a `creds.json`; none when there is no such file. // P4
    #[must_use]
    pub fn parse(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::ABSENT };
        let Ok(creds @ Value::Object(_)) = serde_json::from_slice::<Value>(bytes) else {
            return Self::UNREADABLE;
        };
        let me = creds["me"]["id"].as_str().filter(|id| !id.is_empty());
        let account = creds["account"].as_object().filter(|account| !account.is_empty());
        let identity = match (me, account) {
            (Some(me), Some(_)) => Identity::Paired([identity_hash(&creds, me)].into()),
            _ => Identity::Unpaired,
        };
        let next_pre_key_id = creds["nextPreKeyId"].as_u64();
        Self { format: Some(Format::Baileys), identity, next_pre_key_id, phone: me.and_then(phone) }
    }
}

impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creds")
            .field("format", &self.format)
            .field("identity", &self.identity)
            .field("next_pre_key_id", &self.next_pre_key_id)
            .field("phone", &self.phone.as_ref().map(|_| "…"))
            .finish()
    }
}

/// `creds.json` of an auth directory.
#[must_use]
pub fn creds_path(dir: &str) -> String {
    if dir.is_empty() { CREDS.to_owned() } else { format!("{dir}/{CREDS}") }
}

/// The auth directory that a file is the `creds.json` of.
#[must_use]
pub fn auth_dir(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some((dir, CREDS)) => Some(dir),
        None if path == CREDS => Some(""),
        _ => None,
    }
}

/// Whether a file may hold accounts, by its name.
#[must_use]
pub fn may_hold(path: &str) -> bool {
    auth_dir(path).is_some() || has_database_name(path) || profile_of(path).is_some()
}

/// Whether [`creds_of`] reads a file: one that may hold accounts, or a part of one.
#[must_use]
pub fn may_tell(path: &str) -> bool {
    may_hold(path) || profile::is_part(path)
}

/// Whether a file belongs to the account that another one holds, and to no other.
#[must_use]
pub fn goes_with(path: &str, holder: &str) -> bool {
    let below =
        |dir: &str| dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    path == holder || auth_dir(holder).or_else(|| profile_of(holder)).is_some_and(below)
}

/// The credentials of a tree that nobody writes, by the file that holds them. Copies of databases go to `spool`.
///
/// # Errors
/// A copy cannot be made.
pub fn creds_of<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    spool: &Path,
    read: impl Fn(&str) -> io::Result<Content>,
) -> io::Result<BTreeMap<String, Creds>> {
    let mut found = BTreeMap::new();
    let paths: BTreeSet<&str> = paths.into_iter().filter(|path| may_tell(path)).collect();
    for path in paths.iter().copied().filter(|path| may_hold(path)) {
        let creds = match read(path) {
            Ok(_) if profile_of(path).is_some() => match profile::read(&paths, path, &read)? {
                Some(creds) => creds,
                None => continue,
            },
            Ok(content) if auth_dir(path).is_some() => {
                content.bytes().map_or(Creds::UNREADABLE, |bytes| Creds::parse(Some(&bytes)))
            }
            Ok(content) => match creds_in(&content, spool)? {
                Some(creds) => creds,
                None => continue,
            },
            Err(_) => Creds::UNREADABLE,
        };
        found.insert(path.to_owned(), creds);
    }
    Ok(found)
}

/// The credentials in a file that is named as a database; none where there are none.
fn creds_in(content: &Content, spool: &Path) -> io::Result<Option<Creds>> {
    let mut header = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(content.reader(), 32), &mut header)?;
    if matches!(Kind::of(&header), Kind::Other | Kind::Empty) {
        return Ok(None);
    }
    let snapshot = match Snapshot::of_content(content, spool) {
        Ok(snapshot) => snapshot,
        Err(Failure::Spool(error)) => return Err(error),
        Err(_) => return Ok(Some(Creds::UNREADABLE)),
    };
    let read = snapshot.open().and_then(|database| accounts(&database));
    Ok(read.unwrap_or(Some(Creds::UNREADABLE)))
}

/// Which libraries keep a paired account in a session directory that no bot uses.
///
/// # Errors
/// The directory, or a copy in `spool`, cannot be read.
pub fn engines(dir: &Path, filter: &Filter, spool: &Path) -> io::Result<BTreeSet<Format>> {
    let top = match Dir::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        opened => opened?,
    };
    let _turn = Turn::take(dir);
    let now = Timestamp::UNIX_EPOCH;
    let mut formats = BTreeSet::new();
    let files = scan(&top, filter)?.files;
    let mut contents = BTreeMap::new();
    for path in files.keys().filter(|path| may_tell(path)) {
        let content = read_file(&top, filter, path, now, spool)?;
        contents.extend(content.map(|(_, content)| (path.as_str(), content)));
    }
    let content = |path: &str| contents.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
    let creds = creds_of(contents.keys().copied(), spool, content)?;
    let paired = creds.into_values().filter(|creds| creds.identity.is_paired());
    formats.extend(paired.filter_map(|creds| creds.format));
    Ok(formats)
}

/// The directories that hold a `creds.json`, of these paths; the empty path is the top.
pub fn auth_dirs<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    paths.into_iter().filter_map(auth_dir).map(str::to_owned).collect()
}

/// `5511900000001:12@s.whatsapp.net` → `5511900000001`
fn phone(me: &str) -> Option<String> {
    let (user, server) = me.split_once('@')?;
    // whatsmeow: `5511900000001.0:12@s.whatsapp.net`
    let number = user.split(['.', ':']).next()?;
    let is_phone =
        server == "s.whatsapp.net" && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_phone.then(|| number.to_owned())
}

fn identity_hash(creds: &Value, me: &str) -> Hash {
    let mut hasher = Sha256::new();
    for part in PARTS {
        canonical(&creds[part], &mut hasher);
        hasher.update(b"\n");
    }
    hasher.update(me);
    Hash::finish(hasher)
}

/// JSON without spaces, keys sorted: another order of keys is the same identity.
fn canonical(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            hasher.update(b"{");
            for (key, value) in sorted {
                hasher.update(Value::from(key.as_str()).to_string());
                hasher.update(b":");
                canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(values) => {
            hasher.update(b"[");
            for value in values {
                canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        plain => hasher.update(plain.to_string()),
    }
}

#[cfg(test)]
mod tests;
