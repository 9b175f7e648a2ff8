//! A tree as one archive: what `export` writes and `import` reads.
//!
//! It is a plain `tar.zst` of the tree. What proves it stands in front, in the comment of a pax header for the whole
//! archive, which every tar program passes over.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::str::FromStr;

use rustix::fs::{Mode, Timespec, Timestamps, fchmod, futimens};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::table::check_path;
use super::{Dir, Hash, Meta, Summary, Table};

const LEVEL: i32 = 3;
/// The first words of the comment.
const WORD: &str = "session-sidecar export 1";
/// What the header that is no file is called, as git calls its own.
const HEADER: &str = "pax_global_header";
/// Largest header, in bytes.
const MAX_HEADER: u64 = 1024;
/// Longest name with the NUL.
const MAX_NAME: u64 = 4096 + 16;
/// What may follow the last entry: zeros, up to the record size of common tar programs.
const TRAILER: u64 = 64 << 10;
/// Largest zstd window, as a power of two: 8 MiB of memory, the most that levels up to 19 use.
const WINDOW: u32 = 23;
/// What a bot's own `mkdir` asks for; the umask takes its part.
const DIRECTORY_MODE: u32 = 0o777;

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none of ours, or was changed since it was written.
    #[error("{0}")]
    Archive(String),
    /// The disk failed.
    #[error("it cannot be unpacked: {0}")]
    Disk(io::Error),
}

/// What an archive says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    tree: Summary,
    empty_dirs: u64,
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tree: Summary { files, bytes, sha256 }, empty_dirs } = self;
        write!(f, "{WORD} files={files} bytes={bytes} dirs={empty_dirs} sha256={sha256}")
    }
}

impl FromStr for Announced {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.strip_prefix(WORD).ok_or(())?.split_ascii_whitespace();
        let mut field = |name: &str| {
            fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('=')).ok_or(())
        };
        let files = field("files")?.parse().map_err(drop)?;
        let bytes = field("bytes")?.parse().map_err(drop)?;
        let empty_dirs = field("dirs")?.parse().map_err(drop)?;
        let sha256 = field("sha256")?.parse().map_err(drop)?;
        Ok(Self { tree: Summary { files, bytes, sha256 }, empty_dirs })
    }
}

/// Packs an extracted tree: sorted, without owners, so that the same point gives the same archive.
pub fn pack(table: &Table, dir: &Dir, into: &mut impl Write) -> io::Result<()> {
    let mut zstd = zstd::Encoder::new(into, LEVEL)?;
    zstd.include_checksum(true)?;
    let mut tar = tar::Builder::new(zstd);
    let header = |kind: EntryType, mode: u32, size: u64, seconds: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(seconds);
        header
    };
    let announced = Announced { tree: table.summary(), empty_dirs: table.empty_dirs.len() as u64 };
    let comment = record("comment", &announced.to_string());
    let mut global = tar::Header::new_ustar();
    global.set_entry_type(EntryType::XGlobalHeader);
    global.set_mode(0o600);
    global.set_size(comment.len() as u64);
    tar.append_data(&mut global, HEADER, comment.as_bytes())?;
    for path in &table.empty_dirs {
        tar.append_data(&mut header(EntryType::Directory, 0o700, 0, 0), format!("{path}/"), io::empty())?;
    }
    for (path, meta) in &table.files {
        let seconds = meta.mtime_ns / 1_000_000_000;
        let mut header = header(EntryType::Regular, meta.mode, meta.size, seconds);
        tar.append_data(&mut header, path, dir.read(path)?)?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

/// A line of a pax header: its length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// Unpacks an archive below an empty directory, as if an enemy had written it: only regular files and empty directories,
/// each name once and below the directory, no more than it announces, and in the end exactly the tree that it announces.
///
/// # Errors
/// `into` may hold anything then.
pub fn unpack(from: impl Read, into: &Dir) -> Result<Summary, Refused> {
    let decoder = || {
        let mut decoder = zstd::Decoder::with_buffer(BufReader::new(from))?.single_frame();
        decoder.window_log_max(WINDOW)?;
        Ok(decoder)
    };
    let mut archive = tar::Archive::new(decoder().map_err(Refused::Disk)?);
    let mut entries = archive.entries().map_err(|error| unreadable(&error))?.raw(true);
    let announced = first(entries.next())?;
    let (mut table, mut bytes, mut long) = (Table::default(), 0, None);
    for entry in entries {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        if kind == EntryType::GNULongName && size <= MAX_NAME && long.is_none() {
            let mut name = Vec::new();
            entry.read_to_end(&mut name).map_err(|error| unreadable(&error))?;
            long = Some(name.strip_suffix(&[0]).map(<[u8]>::to_vec).unwrap_or(name));
            continue;
        }
        let name = long.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let name = String::from_utf8(name).map_err(|_| refused("a name in it is not UTF-8"))?;
        match kind {
            EntryType::Regular if (table.files.len() as u64) < announced.tree.files => {
                bytes += size;
                if bytes > announced.tree.bytes {
                    return Err(refused("it unpacks to more than it announces"));
                }
                let meta = file(&mut entry, &name, into)?;
                table.files.insert(name, meta);
            }
            EntryType::Directory if size == 0 && (table.empty_dirs.len() as u64) < announced.empty_dirs => {
                let path = name.strip_suffix('/').unwrap_or(&name);
                sound(path)?;
                into.make_dir_all(path, DIRECTORY_MODE).map_err(|error| placed(path, error))?;
                table.empty_dirs.insert(path.to_owned());
            }
            EntryType::Regular | EntryType::Directory => {
                return Err(refused("it holds more than it announces"));
            }
            other => {
                return Err(refused(format!("an entry in it is neither file nor directory ({other:?})")));
            }
        }
    }
    end(archive.into_inner())?;
    let tree = table.summary();
    if tree == announced.tree && table.empty_dirs.len() as u64 == announced.empty_dirs {
        Ok(tree)
    } else {
        Err(refused("its files are not those that it announces: it was changed or cut off"))
    }
}

fn first<R: Read>(entry: Option<io::Result<tar::Entry<'_, R>>>) -> Result<Announced, Refused> {
    let none = || {
        refused(
            "it is no archive of `export` (of this version or later): unpack it with tar, look at it, and import the directory",
        )
    };
    let mut entry = entry.ok_or_else(none)?.map_err(|error| unreadable(&error))?;
    if entry.header().entry_type() != EntryType::XGlobalHeader || entry.size() > MAX_HEADER {
        return Err(none());
    }
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(|_| none())?;
    let (_, comment) = text.trim_end_matches('\n').split_once(" comment=").ok_or_else(none)?;
    comment.parse().map_err(|()| none())
}

fn file<R: Read>(entry: &mut tar::Entry<'_, R>, path: &str, into: &Dir) -> Result<Meta, Refused> {
    sound(path)?;
    let mode = entry.header().mode().map_err(|error| unreadable(&error))?;
    if mode > 0o777 {
        return Err(refused(format!("{} has a mode that no file of a session has", path.escape_debug())));
    }
    let seconds = entry.header().mtime().map_err(|error| unreadable(&error))?;
    if let Some((dir, _)) = path.rsplit_once('/') {
        into.make_dir_all(dir, DIRECTORY_MODE).map_err(|error| placed(path, error))?;
    }
    // Private until it is whole: the mode is set last.
    let mut file = into.create(path, 0o600).map_err(|error| placed(path, error))?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 << 10]);
    loop {
        let read = entry.read(&mut buffer).map_err(|error| unreadable(&error))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
        file.write_all(&buffer[..read]).map_err(Refused::Disk)?;
    }
    let disk = |error: rustix::io::Errno| Refused::Disk(error.into());
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(disk)?;
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    futimens(&file, &Timestamps { last_access: time, last_modification: time }).map_err(disk)?;
    let mtime_ns = seconds.saturating_mul(1_000_000_000);
    Ok(Meta { size, mode, mtime_ns, sha256: Hash::finish(hasher) })
}

/// Reads to the end of the frame, which proves its checksum, and makes sure that nothing follows.
fn end<R: io::BufRead>(mut stream: zstd::Decoder<'_, R>) -> Result<(), Refused> {
    let (mut block, mut left) = ([0; 4096], TRAILER);
    loop {
        let read = stream.read(&mut block).map_err(|error| unreadable(&error))?;
        let zeros = block[..read].iter().all(|byte| *byte == 0);
        left = match left.checked_sub(read as u64) {
            _ if read == 0 => break,
            Some(left) if zeros => left,
            _ => return Err(refused("bytes follow its end")),
        };
    }
    match stream.finish().read(&mut block) {
        Ok(0) => Ok(()),
        Ok(_) => Err(refused("bytes follow its end")),
        Err(error) => Err(unreadable(&error)),
    }
}

fn sound(path: &str) -> Result<(), Refused> {
    check_path(path).map_err(|bad| refused(format!("a name in it ({}) {bad}", path.escape_debug())))
}

/// What is there already was written by this archive.
fn placed(path: &str, error: io::Error) -> Refused {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            refused(format!("{} stands in it twice", path.escape_debug()))
        }
        _ => Refused::Disk(error),
    }
}

fn refused(what: impl Into<String>) -> Refused {
    Refused::Archive(what.into())
}

fn unreadable(error: &io::Error) -> Refused {
    refused(format!("it is damaged, cut off, or no archive: {error}"))
}

#[cfg(test)]
mod tests;
