//! Making what was read durable before history may know of it.

use std::collections::BTreeSet;
use std::io;

use rustix::fs::fsync;

use super::json::has_json_name;
use super::leveldb::is_of_leveldb;
use super::sqlite::Sides;
use super::{Dir, Filter};
use crate::host::Host;

/// Above this many files one `syncfs` is cheaper than an `fsync` each.
const FSYNC_MAX: usize = 64;

/// Step 0 of a commit: a power cut must not roll the disk back behind history, or the restart would take an
/// older tree for its own newer one. // P2
///
/// `paths` are those written and those removed: a removal that comes undone is an older tree, too. What vanished or
/// cannot be opened any more is passed over: it will be looked at again. A database is never opened for it, and its
/// content may lie in a WAL that its writer did not sync: with one, everything is synced.
pub fn make_durable<'a>(
    dir: &Dir,
    filter: &Filter,
    paths: impl ExactSizeIterator<Item = &'a str> + Clone,
    host: &dyn Host,
) -> io::Result<()> {
    let in_use = |path: &str| {
        let has_sides = || Sides::of(dir, path).is_ok_and(|sides| sides != Sides::default());
        // What a database has moved to another file since must be there, too.
        filter.is_live(path) || is_of_leveldb(path) || (!has_json_name(path) && has_sides())
    };
    if paths.len() > FSYNC_MAX || paths.clone().any(in_use) {
        dir.sync_filesystem()?;
        host.synced_all(dir.path());
        return Ok(());
    }
    let mut dirs = BTreeSet::from([""]);
    for path in paths {
        if let Ok(file) = dir.read(path) {
            fsync(&file)?;
            host.synced(&dir.path().join(path));
        }
        dirs.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    // A name is durable with all that lead to it.
    for below in dirs.into_iter().rev() {
        if let Ok(opened) = dir.dir(below) {
            opened.sync()?;
            host.synced(&dir.path().join(below));
        }
    }
    Ok(())
}
