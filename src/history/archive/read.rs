//! Reading a commit's archive as if an enemy had written it.
//!
//! Nothing is believed before it is checked: not the sizes, not the names, not that there is an end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::rc::Rc;

use age::stream::StreamReader;
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{BLOCKS, COMMIT, FILES};
use crate::history::HistoryError;
use crate::history::commit::{Commit, Patch};
use crate::history::keys::{Keys, Locked};
use crate::history::name::{CommitName, Id};
use crate::session::SessionKey;
use crate::tree::{Entry, Hash, Meta};

/// Largest `commit.json` in bytes: a tree of some 300,000 files.
const MAX_COMMIT: u64 = 64 << 20;
/// Longest name in a GNU long-name entry, with `files/` or `blocks/` and the NUL.
const MAX_NAME: u64 = 4096 + 16;
/// What an entry takes beside its content: two headers, a long name, two paddings.
const OVERHEAD: u64 = 512 + 512 + MAX_NAME + 512 + 512;
/// What may follow the last entry: zero blocks, up to the record size of common tar programs.
const TRAILER: u64 = 64 << 10;
/// Largest header of an `age` file, with what is read ahead of it: more than all recipients that are taken. It is parsed
/// again with every line, so that a long one would cost a day.
const MAX_HEADER: u64 = 20 << 10;
/// Largest zstd window, as a power of two: 8 MiB of memory, the most that levels up to 19 use.
const WINDOW: u32 = 23;

/// What an archive holds beside `commit.json`.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A whole file.
    Put(&'a Entry),
    /// The blocks of a patch. No hash proves them alone: only the file that they are put into has one.
    Patch(&'a Patch),
}

impl<'a> Item<'a> {
    /// What its entry in the archive is called, in two parts.
    fn name(self) -> (&'static str, &'a str) {
        match self {
            Self::Put(entry) => (FILES, &entry.path),
            Self::Patch(patch) => (BLOCKS, &patch.entry.path),
        }
    }

    fn size(self) -> u64 {
        match self {
            Self::Put(entry) => entry.meta.size,
            Self::Patch(patch) => patch.weight(),
        }
    }
}

/// What is done with an item: called once for each, with exactly its bytes.
pub type Visit<'a> = dyn FnMut(Item<'_>, &mut dyn Read) -> io::Result<()> + 'a;

/// Reads `commit.json` and checks it against the name and place of the object; the rest stays unread.
pub fn header(
    input: impl Read,
    name: &CommitName,
    key: &SessionKey,
    keys: &Keys,
) -> Result<Commit, HistoryError> {
    let mut opened = Opened::new(input, name, keys)?;
    let faults = opened.faults.clone();
    let mut entries = opened.entries()?;
    first(&mut entries, &faults, name, key)
}

/// Reads all of it, hands every item to `visit`, and checks everything: that the archive holds exactly what
/// `commit.json` announces, with equal sizes and hashes, and nothing else at all.
///
/// `visit` sees bytes before their hash is proven; what it wrote counts for nothing unless this returns `Ok`.
pub fn unpack(
    input: impl Read,
    name: &CommitName,
    key: &SessionKey,
    keys: &Keys,
    visit: &mut Visit<'_>,
) -> Result<Commit, HistoryError> {
    let mut opened = Opened::new(input, name, keys)?;
    let faults = opened.faults.clone();
    let mut entries = opened.entries()?;
    let commit = first(&mut entries, &faults, name, key)?;
    faults.allow(announced(&commit).ok_or_else(|| faults.damaged("its sizes overflow"))?);

    // A path is named once in a commit.
    let mut pending: BTreeMap<&str, Item<'_>> = items(&commit).map(|item| (item.name().1, item)).collect();
    while let Some((name, mut raw)) = next(&mut entries, &faults)? {
        let (prefix, path) = name.split_at(name.find('/').map_or(0, |slash| slash + 1));
        let item = pending.remove(path).filter(|item| item.name().0 == prefix).ok_or_else(|| {
            faults.damaged(format!("the entry {} is not announced, or comes twice", name.escape_debug()))
        })?;
        read_item(&mut raw, item, &faults, visit)?;
    }
    if let Some(path) = pending.keys().next() {
        let what = format!("{} announced files are missing, {} first", pending.len(), path.escape_debug());
        return Err(faults.damaged(what));
    }
    opened.finish()?;
    Ok(commit)
}

/// Copies what was packed, decrypted where it is encrypted, to its proven end. What it holds is not looked at.
pub(in crate::history) fn copy_packed(
    input: impl Read,
    name: &CommitName,
    keys: &Keys,
    into: &mut impl Write,
) -> Result<(), HistoryError> {
    let faults = Faults::new(name.id);
    let mut clear = Checked::new(Clear::new(input, name, keys, &faults)?);
    let copied = io::copy(&mut clear, into);
    if let Some(failed) = clear.failed.take() {
        return Err(faults.reading(&failed));
    }
    copied.map(drop).map_err(|error| HistoryError::io("cannot copy a fetched object", error))
}

/// All that may still be unpacked once the commit is known.
fn announced(commit: &Commit) -> Option<u64> {
    items(commit).try_fold(TRAILER, |sum, item| sum.checked_add(item.size())?.checked_add(OVERHEAD))
}

fn items(commit: &Commit) -> impl Iterator<Item = Item<'_>> {
    commit.put.iter().map(Item::Put).chain(commit.patch.iter().map(Item::Patch))
}

type Stream<R> = Capped<zstd::Decoder<'static, BufReader<Clear<R>>>>;

/// The compressed bytes, decrypted where they are encrypted.
enum Clear<R> {
    Plain(Watched<R>),
    Sealed(Box<StreamReader<BufReader<Watched<R>>>>),
}

impl<R: Read> Clear<R> {
    fn new(input: R, name: &CommitName, keys: &Keys, faults: &Faults) -> Result<Self, HistoryError> {
        let watched = Watched { input, faults: faults.clone() };
        if !name.encrypted {
            return Ok(Self::Plain(watched));
        }
        faults.head.set(MAX_HEADER);
        let opened = keys.open(name.id, BufReader::with_capacity(4 << 10, watched));
        faults.head.set(u64::MAX);
        match opened {
            Ok(stream) => Ok(Self::Sealed(Box::new(stream))),
            Err(Locked::History(error)) => Err(error),
            Err(Locked::Reading(error)) => Err(faults.reading(&error)),
        }
    }
}

impl<R: Read> Read for Clear<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Sealed(input) => input.read(buffer),
        }
    }
}

struct Opened<R: Read> {
    archive: tar::Archive<Stream<R>>,
    faults: Faults,
}

impl<R: Read> Opened<R> {
    fn new(input: R, name: &CommitName, keys: &Keys) -> Result<Self, HistoryError> {
        let faults = Faults::new(name.id);
        let clear = Clear::new(input, name, keys, &faults)?;
        let decoder = || {
            let input = BufReader::with_capacity(64 << 10, clear);
            let mut decoder = zstd::Decoder::with_buffer(input)?.single_frame();
            decoder.window_log_max(WINDOW)?;
            Ok(decoder)
        };
        let decoder = decoder().map_err(|error| HistoryError::io("open the decoder", error))?;
        let archive = tar::Archive::new(Capped { inner: decoder, faults: faults.clone() });
        Ok(Self { archive, faults })
    }

    /// Raw entries: long names are read here, with a limit; pax and sparse entries are not read at all.
    fn entries(&mut self) -> Result<tar::Entries<'_, Stream<R>>, HistoryError> {
        let entries = self.archive.entries().map_err(|error| self.faults.reading(&error))?;
        Ok(entries.raw(true))
    }

    /// Reads to the end of the frame, which proves its checksum, and makes sure that nothing follows.
    fn finish(self) -> Result<(), HistoryError> {
        let faults = self.faults;
        faults.allow(TRAILER);
        let mut stream = self.archive.into_inner();
        let mut block = [0; 4096];
        loop {
            match stream.read(&mut block).map_err(|error| faults.reading(&error))? {
                0 => break,
                n if block[..n].iter().all(|byte| *byte == 0) => {}
                _ => return Err(faults.damaged("bytes follow the end of the archive")),
            }
        }
        let mut rest = stream.inner.finish();
        let n = rest.read(&mut block).map_err(|error| faults.reading(&error))?;
        if n > 0 { Err(faults.damaged("bytes follow the end of the compressed data")) } else { Ok(()) }
    }
}

fn first<R: Read>(
    entries: &mut tar::Entries<'_, R>,
    faults: &Faults,
    name: &CommitName,
    key: &SessionKey,
) -> Result<Commit, HistoryError> {
    let (_, mut raw) = next(entries, faults)?
        .filter(|(path, raw)| path == COMMIT && raw.size() <= MAX_COMMIT)
        .ok_or_else(|| faults.damaged("it does not begin with commit.json"))?;
    let mut json = Vec::new();
    raw.read_to_end(&mut json).map_err(|error| faults.reading(&error))?;
    let commit = Commit::from_json(name.id, &json)?;
    commit.check(name, key)?;
    Ok(commit)
}

type Raw<'a, R> = tar::Entry<'a, R>;

/// The next file and its name.
fn next<'a, R: Read>(
    entries: &mut tar::Entries<'a, R>,
    faults: &Faults,
) -> Result<Option<(String, Raw<'a, R>)>, HistoryError> {
    let mut long = None;
    loop {
        let Some(raw) = entries.next() else {
            return if long.is_none() { Ok(None) } else { Err(faults.damaged("a name without a file")) };
        };
        let mut raw = raw.map_err(|error| faults.reading(&error))?;
        match raw.header().entry_type() {
            EntryType::GNULongName if long.is_none() && raw.size() <= MAX_NAME => {
                let mut name = Vec::new();
                raw.read_to_end(&mut name).map_err(|error| faults.reading(&error))?;
                long = Some(name.strip_suffix(&[0]).map(<[u8]>::to_vec).unwrap_or(name));
            }
            EntryType::Regular => {
                let name = long.unwrap_or_else(|| raw.path_bytes().into_owned());
                let name = String::from_utf8(name).map_err(|_| faults.damaged("a name that is not UTF-8"))?;
                return Ok(Some((name, raw)));
            }
            other => return Err(faults.damaged(format!("an entry that is not a regular file ({other:?})"))),
        }
    }
}

fn read_item<R: Read>(
    raw: &mut Raw<'_, R>,
    item: Item<'_>,
    faults: &Faults,
    visit: &mut Visit<'_>,
) -> Result<(), HistoryError> {
    let shown = || item.name().1.escape_debug();
    if raw.size() != item.size() {
        return Err(faults.damaged(format!("{} has not the size that is announced", shown())));
    }
    let mut content = Checked::new(raw);
    let visited = visit(item, &mut content);
    if let Some(failed) = content.failed.take() {
        return Err(faults.reading(&failed));
    }
    visited.map_err(|error| HistoryError::io(format!("cannot write {}", shown()), error))?;
    io::copy(&mut content, &mut io::sink()).map_err(|error| faults.reading(&error))?;
    let as_announced = match item {
        Item::Put(entry) => content.is(&entry.meta),
        Item::Patch(patch) => content.seen == patch.weight(),
    };
    if as_announced {
        Ok(())
    } else {
        Err(faults.damaged(format!("the content of {} is not the one announced", shown())))
    }
}

/// Counts and hashes, and remembers that it was the reading that failed, not what was done with the bytes.
pub(in crate::history) struct Checked<R> {
    inner: R,
    seen: u64,
    hasher: Sha256,
    /// The failure to read.
    pub(in crate::history) failed: Option<io::Error>,
}

impl<R> Checked<R> {
    pub(in crate::history) fn new(inner: R) -> Self {
        Self { inner, seen: 0, hasher: Sha256::new(), failed: None }
    }

    /// Whether what was read is all of this file.
    pub(in crate::history) fn is(self, meta: &Meta) -> bool {
        self.seen == meta.size && Hash::finish(self.hasher) == meta.sha256
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read(buffer) {
            Ok(read) => read,
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                return Err(kind.into());
            }
        };
        self.seen += read as u64;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// What the layers of one archive share: how much may still be unpacked, and whether the disk failed.
#[derive(Clone)]
struct Faults {
    id: Id,
    left: Rc<Cell<u64>>,
    /// What may still be read of the input; bounds what is held in memory of a header.
    head: Rc<Cell<u64>>,
    disk: Rc<RefCell<Option<io::Error>>>,
}

impl Faults {
    fn new(id: Id) -> Self {
        Self {
            id,
            left: Rc::new(Cell::new(MAX_COMMIT + OVERHEAD)),
            head: Rc::new(Cell::new(u64::MAX)),
            disk: Rc::new(RefCell::new(None)),
        }
    }

    fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }

    fn damaged(&self, what: impl Into<String>) -> HistoryError {
        HistoryError::damaged(self.id, what)
    }

    /// A failed read: our own disk's failure says nothing about the object.
    fn reading(&self, error: &io::Error) -> HistoryError {
        match self.disk.borrow_mut().take() {
            Some(disk) => HistoryError::io("cannot read a fetched object", disk),
            None => self.damaged(error.to_string()),
        }
    }
}

/// The compressed input: notes failures that are the disk's.
struct Watched<R> {
    input: R,
    faults: Faults,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(head) = self.faults.head.get().checked_sub(buffer.len() as u64) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the header of its age file has no end"));
        };
        self.faults.head.set(head);
        let result = self.input.read(buffer);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            let copy = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            *self.faults.disk.borrow_mut() = Some(copy);
        }
        result
    }
}

/// The unpacked stream: ends in an error once more comes out than was announced.
struct Capped<R> {
    inner: R,
    faults: Faults,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)? as u64;
        let left = self.faults.left.get().checked_sub(read);
        let Some(left) = left else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than it announces"));
        };
        self.faults.left.set(left);
        Ok(usize::try_from(read).expect("it was read into a buffer"))
    }
}

/// The parts of one object, read one after another.
#[derive(Debug)]
pub struct Parts {
    rest: std::vec::IntoIter<PathBuf>,
    current: Option<File>,
}

impl Parts {
    /// These files, in this order.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { rest: paths.into_iter(), current: None }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.current {
                let read = file.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            match self.rest.next() {
                Some(path) => self.current = Some(File::open(path)?),
                None => return Ok(0),
            }
        }
    }
}
