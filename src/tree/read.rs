//! Reads a file that a bot may be writing, so that what was read is what stood there at one moment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::beneath::is_dir;
use super::scan::Found;
use super::{Content, Dir, Hash, Meta, Reason};

mod batch;
mod cache;
mod databases;
mod leveldbs;

pub use batch::{Batch, Job, read_all};
pub use cache::{HashCache, Known};
pub use databases::read_file;

/// Contents up to this size stay in memory, larger ones go to a private copy on disk.
pub const IN_MEMORY: u64 = 8 << 20;
/// How often a file that moved is read again before it is held to the next window.
pub const RETRIES: u32 = 3;
/// Kernels before 6.13 stamp files once per tick, and some file systems once in two seconds: a write that
/// close to another may leave the same times.
const RACY_NS: i128 = 2_000_000_000;

/// What a stable read asks of the disk; replaced in tests.
pub trait Disk {
    /// `lstat`; none for anything but a regular file.
    fn stat(&self, path: &str) -> io::Result<Option<Found>>;

    /// Opens for reading, and `fstat` of what was opened.
    fn open(&self, path: &str) -> io::Result<(Option<Found>, Box<dyn Read + '_>)>;

    /// The names in a directory, in no order.
    fn names(&self, _dir: &str) -> io::Result<Vec<OsString>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a directory of this name lies there.
    fn is_dir(&self, _path: &str) -> bool {
        false
    }

    /// The directory itself, where there is one: databases are read by SQLite.
    fn dir(&self) -> Option<&Dir> {
        None
    }
}

impl Disk for Dir {
    fn stat(&self, path: &str) -> io::Result<Option<Found>> {
        Dir::stat(self, path).map(|stat| Found::of(&stat))
    }

    fn open(&self, path: &str) -> io::Result<(Option<Found>, Box<dyn Read + '_>)> {
        let file = self.read(path)?;
        let found = Found::of(&rustix::fs::fstat(&file)?);
        Ok((found, Box::new(file)))
    }

    fn names(&self, dir: &str) -> io::Result<Vec<OsString>> {
        Dir::dir(self, dir)?.names()
    }

    fn is_dir(&self, path: &str) -> bool {
        is_dir(self, path)
    }

    fn dir(&self) -> Option<&Dir> {
        Some(self)
    }
}

/// How a stable read ended.
#[derive(Debug)]
pub enum Outcome {
    /// The file as it stood at one moment.
    Stable(Stable),
    /// There is no such file.
    Gone,
    /// It stays at the head's version.
    Held(Reason),
}

/// A file as it stood at one moment.
#[derive(Debug, Clone)]
pub struct Stable {
    /// What history will know of it.
    pub meta: Meta,
    /// Its bytes.
    pub content: Content,
    /// What `lstat` said before and after the read.
    pub found: Found,
    /// A later write may have left the same fingerprint: to be hashed again at the next scan.
    pub racy: bool,
}

/// Reads a file: stat, read, stat, and again when anything moved. `now` is the wall clock at or before the
/// call; `spool` is a directory for private copies of large files, outside every tree.
///
/// # Errors
/// Only those of the private copy, such as a full disk. What is wrong with the file is an [`Outcome`].
pub fn read(disk: &dyn Disk, path: &str, now: Timestamp, spool: &Path) -> io::Result<Outcome> {
    for _ in 0..=RETRIES {
        match attempt(disk, path, spool) {
            Ok(Some((found, content, sha256))) => {
                let size = content.size();
                let meta = Meta { size, mode: found.mode, mtime_ns: found.mtime_ns(), sha256 };
                return Ok(Outcome::Stable(Stable { meta, content, found, racy: is_racy(&found, now) }));
            }
            Ok(None) => {}
            Err(Failure::Spool(error)) => return Err(error),
            Err(Failure::File(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Gone),
            Err(Failure::File(_)) => return Ok(Outcome::Held(Reason::Unreadable)),
        }
    }
    Ok(Outcome::Held(Reason::Changing))
}

/// Whether a write after the read could have left the same times. A time that lies ahead says that the clock
/// was set back, and then any time may come again.
#[must_use]
pub fn is_racy(found: &Found, now: Timestamp) -> bool {
    let latest = found.fingerprint.mtime_ns.max(found.fingerprint.ctime_ns);
    latest >= now.as_nanosecond() - RACY_NS
}

enum Failure {
    File(io::Error),
    Spool(io::Error),
}

/// One try; none when the file moved. A rename onto the path shows in the second `lstat`, a write in it and
/// in the number of bytes, and a file that was not the one looked at first in `fstat`.
fn attempt(disk: &dyn Disk, path: &str, spool: &Path) -> Result<Option<(Found, Content, Hash)>, Failure> {
    let Some(before) = disk.stat(path).map_err(Failure::File)? else { return Ok(None) };
    let (opened, reader) = disk.open(path).map_err(Failure::File)?;
    if opened != Some(before) {
        return Ok(None);
    }
    let size = before.fingerprint.size;
    // One byte more than there should be tells of a file that grew.
    let (content, sha256) = load(reader.take(size.saturating_add(1)), size, spool)?;
    let after = disk.stat(path).map_err(Failure::File)?;
    Ok((after == Some(before) && content.size() == size).then_some((before, content, sha256)))
}

fn load(mut reader: impl Read, size: u64, spool: &Path) -> Result<(Content, Hash), Failure> {
    if size <= IN_MEMORY {
        let mut bytes = Vec::with_capacity(usize::try_from(size + 1).unwrap_or(0));
        reader.read_to_end(&mut bytes).map_err(Failure::File)?;
        let sha256 = Hash::of(&bytes);
        return Ok((Content::Bytes(bytes.into()), sha256));
    }
    let mut copy = tempfile::tempfile_in(spool).map_err(Failure::Spool)?;
    let (size, sha256) = copy_hashed(&mut reader, &mut copy)?;
    copy.rewind().map_err(Failure::Spool)?;
    Ok((Content::Spooled { file: Arc::new(copy), size }, sha256))
}

fn copy_hashed(from: &mut impl Read, to: &mut File) -> Result<(u64, Hash), Failure> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((size, Hash::finish(hasher))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::File(error)),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(Failure::Spool)?;
        size += read as u64;
    }
}

#[cfg(test)]
mod tests;
