//! Packing a commit, once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{BLOCKS, COMMIT, FILES};
use crate::history::commit::{Commit, FORMAT};
use crate::history::keys::Keys;
use crate::history::name::{CommitName, MAX_PARTS, Name, Part};
use crate::session::SessionKey;
use crate::tree::{Content, Entry, Hash};

/// Fast, and within a few percent of the higher levels on key material.
const LEVEL: i32 = 3;

/// A commit as it is uploaded: its bytes never change again, so that every try sends the same. (P3)
#[derive(Debug, Clone)]
pub struct Frozen {
    /// What is inside.
    pub commit: Commit,
    /// All parts in order, by their names below the history prefix.
    pub objects: Vec<(Name, Bytes)>,
}

impl Frozen {
    /// Bytes of all parts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}

/// Packs a commit, and encrypts it for the recipients there are; `contents` holds the bytes of every file it puts or
/// patches, all of them, `size_limit` is that of the bucket.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a commit that a reader would refuse, and
/// [`InvalidData`](io::ErrorKind::InvalidData) for contents that are not what the commit says: nothing that
/// cannot be restored is ever uploaded.
pub fn freeze(
    mut commit: Commit,
    contents: &BTreeMap<String, Content>,
    size_limit: Option<u64>,
    keys: &Keys,
) -> io::Result<Frozen> {
    commit.recipients = keys.fingerprints();
    check(&commit)?;
    let encrypted = keys.encrypts();
    // Packed and encrypted in one go: there is one copy of it.
    let bytes = if encrypted {
        pack(&commit, contents, keys.seal(Vec::new())?)?.finish()?
    } else {
        pack(&commit, contents, Vec::new())?
    };
    let name = CommitName { encrypted, ..commit.name() };
    let objects = split(name, bytes.into(), size_limit)?;
    Ok(Frozen { commit, objects })
}

fn check(commit: &Commit) -> io::Result<()> {
    let name = commit.name();
    if commit.format != FORMAT || Name::parse(&name.to_string()) != Some(Name::Commit(name)) {
        return Err(invalid(format!("{name} cannot be the name of a commit of format {FORMAT}")));
    }
    let key = SessionKey::new(&commit.user, &commit.session).map_err(|error| invalid(error.to_string()))?;
    commit.check(&name, &key).map_err(|error| invalid(error.to_string()))
}

fn pack<W: Write>(commit: &Commit, contents: &BTreeMap<String, Content>, output: W) -> io::Result<W> {
    let mut zstd = zstd::Encoder::new(output, LEVEL)?;
    zstd.include_checksum(true)?;
    let mut tar = tar::Builder::new(zstd);
    let json = commit.to_json();
    let seconds = u64::try_from(commit.created_at.as_second()).unwrap_or(0);
    tar.append_data(&mut entry_header(json.len() as u64, 0o644, seconds), COMMIT, json.as_slice())?;
    let content_of = |path: &str| {
        contents.get(path).ok_or_else(|| invalid(format!("no content for {}", path.escape_debug())))
    };
    for Entry { path, meta } in &commit.put {
        let content = content_of(path)?;
        let mut reader = Hashing { inner: content.reader().take(meta.size), seen: 0, hasher: Sha256::new() };
        let mut header = entry_header(meta.size, meta.mode, meta.mtime_ns / 1_000_000_000);
        tar.append_data(&mut header, format!("{FILES}{path}"), &mut reader)?;
        let same = content.size() == meta.size
            && reader.seen == meta.size
            && Hash::finish(reader.hasher) == meta.sha256;
        if !same {
            return Err(other_content(path));
        }
    }
    for patch in &commit.patch {
        let Entry { path, meta } = &patch.entry;
        let content = content_of(path)?;
        // All of it: what is not sent is in the hash, too.
        if content.size() != meta.size || content.hash()? != meta.sha256 {
            return Err(other_content(path));
        }
        let mut header = entry_header(patch.weight(), meta.mode, meta.mtime_ns / 1_000_000_000);
        let rest = patch.ranges().collect::<Vec<_>>().into_iter();
        let blocks = Ranges { content, rest, current: Box::new(io::empty()) };
        tar.append_data(&mut header, format!("{BLOCKS}{path}"), blocks)?;
    }
    tar.into_inner()?.finish()
}

fn other_content(path: &str) -> io::Error {
    let what = format!("the content of {} is not what its commit says", path.escape_debug());
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Parts of a content, one after another.
struct Ranges<'a> {
    content: &'a Content,
    rest: std::vec::IntoIter<(u64, u64)>,
    current: Box<dyn Read + Send>,
}

impl Read for Ranges<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.rest.next() {
                Some((at, len)) => self.current = self.content.range(at, len),
                None => return Ok(0),
            }
        }
    }
}

/// The same bytes for the same commit, wherever it is packed.
fn entry_header(size: u64, mode: u32, seconds: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(seconds);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Parts that fit into the bucket, by their names.
pub(in crate::history) fn split(
    name: CommitName,
    packed: Bytes,
    size_limit: Option<u64>,
) -> io::Result<Vec<(Name, Bytes)>> {
    let limit = size_limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if packed.len() <= limit {
        return Ok(vec![(Name::Commit(name), packed)]);
    }
    let of = (limit > 0).then(|| packed.len().div_ceil(limit));
    let of = of.and_then(|of| u16::try_from(of).ok()).filter(|of| *of <= MAX_PARTS).ok_or_else(|| {
        let size = packed.len();
        invalid(format!(
            "{size} bytes do not fit into {MAX_PARTS} parts of the bucket's limit, {limit} bytes"
        ))
    })?;
    let part = |number: u16| {
        let start = usize::from(number - 1) * limit;
        let end = packed.len().min(start + limit);
        (Name::Commit(name.with_part(Some(Part { number, of }))), packed.slice(start..end))
    };
    Ok((1..=of).map(part).collect())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

struct Hashing<R> {
    inner: R,
    seen: u64,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.seen += read as u64;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
