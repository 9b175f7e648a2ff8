//! One content, one file: what SQLite counts in a header is no content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::Kind;

/// The part of a file that is touched.
const HEADER: usize = 100;
const CHANGES: usize = 24;
const COOKIE: usize = 40;
const VALID_FOR: usize = 92;
const WRITER: usize = 96;
/// A counter starts here in every database that SQLite makes.
const FIRST: [u8; 4] = 1_u32.to_be_bytes();
/// The first version of SQLite that writes headers like these, as SQLite numbers them.
const ANY_WRITER: [u8; 4] = 3_007_000_u32.to_be_bytes();

/// What became of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonical {
    /// The file is none, or was so already.
    Same,
    /// Some bytes of it were changed.
    Changed,
}

/// Sets the counter of changes and the version of the writer to fixed values, and the schema's cookie to the one that
/// is given: an online backup counts from one, a database that was closed after it goes on from where it was, and
/// both have the same content. A copy has no reader with a cache that these numbers could mislead.
///
/// A header whose size is not valid (of a writer before 2010) is left as it is.
pub fn make_canonical(file: &File, cookie: Option<i32>) -> io::Result<Canonical> {
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Canonical::Same),
        Err(error) => return Err(error),
    }
    let old = header;
    canonical_header(&mut header, cookie);
    if header == old {
        return Ok(Canonical::Same);
    }
    file.write_all_at(&header, 0)?;
    Ok(Canonical::Changed)
}

fn canonical_header(header: &mut [u8; HEADER], cookie: Option<i32>) {
    let is_database = matches!(Kind::of(header), Kind::Rollback | Kind::Wal);
    if !is_database || header[CHANGES..CHANGES + 4] != header[VALID_FOR..VALID_FOR + 4] {
        return;
    }
    let mut set = |at: usize, value: [u8; 4]| header[at..at + 4].copy_from_slice(&value);
    set(CHANGES, FIRST);
    set(VALID_FOR, FIRST);
    set(WRITER, ANY_WRITER);
    if let Some(cookie) = cookie {
        set(COOKIE, cookie.to_be_bytes());
    }
}
