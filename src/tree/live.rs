//! Recognises formats that a running process keeps across several files, or mapped: copying them file by
//! file gives a torn copy.

use std::io::{self, Read as _};

use super::Dir;
use super::json::has_json_name;

/// What SQLite appends to a database's name.
const SIDES: [&str; 3] = ["-wal", "-shm", "-journal"];
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether the names of one directory are those of a `LevelDB`: `CURRENT` beside a `MANIFEST-*`.
pub(super) fn is_leveldb<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut current, mut manifest) = (false, false);
    for name in names {
        current |= name == "CURRENT";
        manifest |= name.starts_with("MANIFEST-");
    }
    current && manifest
}

/// Whether a file is a SQLite database, or a side file of one. `beside` tells whether a name exists in the
/// same directory.
///
/// # Errors
/// The database could not be looked at: it may be one.
pub(super) fn sqlite(top: &Dir, path: &str, beside: impl Fn(&str) -> bool) -> io::Result<bool> {
    // A JSON file is checked as such, and looking for side files of thousands costs more than reading them.
    if has_json_name(path) {
        return Ok(false);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let side = SIDES.iter().find_map(|side| path.strip_suffix(side).zip(name.strip_suffix(side)));
    if let Some((database, name)) = side.filter(|(_, name)| !name.is_empty()) {
        // An orphan is never copied either: a database of this name may be about to come back.
        return if beside(name) { is_database(top, database, true) } else { Ok(is_named_database(name)) };
    }
    let has_sides = SIDES.iter().any(|side| beside(&format!("{name}{side}")));
    if has_sides || is_named_database(name) { is_database(top, path, has_sides) } else { Ok(false) }
}

fn is_named_database(name: &str) -> bool {
    [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end))
        || [".sqlite-", ".sqlite3-"].iter().any(|part| name.contains(part))
}

/// By the header. An empty file counts when side files lie beside it: its first transaction is under way.
fn is_database(top: &Dir, path: &str, has_sides: bool) -> io::Result<bool> {
    let file = match top.read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut header = Vec::with_capacity(SQLITE_MAGIC.len());
    file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut header)?;
    Ok(header == SQLITE_MAGIC || (header.is_empty() && has_sides))
}
