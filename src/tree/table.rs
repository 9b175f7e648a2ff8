//! A tree as history has it: paths with mode, size and hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of what a hasher has seen.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl FromStr for Hash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Hash {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// One file, as a commit names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the session directory, `/` between the parts.
    pub path: String,
    /// Size, mode, time and hash.
    #[serde(flatten)]
    pub meta: Meta,
}

/// What history knows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Bytes.
    pub size: u64,
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970; zero for files before.
    pub mtime_ns: u64,
    /// Of the content.
    pub sha256: Hash,
}

/// The proof that a restore rebuilt what the writer meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Files in the tree.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// See [`Table::digest`].
    pub sha256: Hash,
}

/// All regular files and empty directories of one session at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// By path.
    pub files: BTreeMap<String, Meta>,
    /// Directories without any file or directory of the tree below.
    pub empty_dirs: BTreeSet<String>,
}

impl Table {
    /// SHA-256 over the sorted lines `path NUL mode NUL size NUL sha256 LF`, mode in decimal. (P1)
    #[must_use]
    pub fn digest(&self) -> Hash {
        let mut hasher = Sha256::new();
        for (path, meta) in &self.files {
            hasher.update(format!("{path}\0{}\0{}\0{}\n", meta.mode, meta.size, meta.sha256));
        }
        Hash::finish(hasher)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|meta| meta.size).sum()
    }

    /// Counts and digest.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { files: self.files.len() as u64, bytes: self.bytes(), sha256: self.digest() }
    }

    /// Whether both hold the same files with the same content. Modes do not count: a change of mode alone is no
    /// commit either.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let mut pairs = self.files.iter().zip(&other.files);
        self.files.len() == other.files.len()
            && pairs.all(|((path, meta), (same, theirs))| path == same && meta.sha256 == theirs.sha256)
    }

    /// Whether there is no regular file: what the start table calls an empty tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// Why a path cannot be part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Empty, or with an empty part, or with a slash at an end.
    #[error("has an empty part")]
    Empty,
    /// `.` or `..` as a part.
    #[error("has a part `.` or `..`")]
    Dots,
    /// A NUL or another control character that no session file has.
    #[error("holds a NUL byte")]
    Nul,
    /// The state directory, or `lost+found` at the top.
    #[error("is reserved")]
    Reserved,
    /// Over 4,096 bytes, or a part over 255.
    #[error("is too long")]
    Long,
}

/// Checks a path out of a commit or a bucket: what passes stays below any directory it is joined to.
pub fn check_path(path: &str) -> Result<(), BadPath> {
    if path.len() > 4096 {
        return Err(BadPath::Long);
    }
    if path.contains('\0') {
        return Err(BadPath::Nul);
    }
    for part in path.split('/') {
        match part {
            "" => return Err(BadPath::Empty),
            "." | ".." => return Err(BadPath::Dots),
            _ if part.len() > 255 => return Err(BadPath::Long),
            _ => {}
        }
    }
    let top = path.split('/').next().unwrap_or_default();
    if top == crate::session::STATE_DIR || top == crate::session::LOST_AND_FOUND {
        return Err(BadPath::Reserved);
    }
    Ok(())
}
