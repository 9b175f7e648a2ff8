//! Making what was read durable before history may know of it.

use std::io;

use rustix::fs::fsync;

use super::Dir;
use crate::host::Host;

/// Above this many files one `syncfs` is cheaper than an `fsync` each.
const FSYNC_MAX: usize = 64;

/// Step 0 of a commit: a power cut must not roll the disk back behind history, or the restart would take an
/// older tree for its own newer one. // P2
///
/// What vanished or cannot be opened any more is passed over: it will be looked at again.
pub fn make_durable<'a>(
    dir: &Dir,
    paths: impl ExactSizeIterator<Item = &'a str>,
    host: &dyn Host,
) -> io::Result<()> {
    if paths.len() > FSYNC_MAX {
        dir.sync_filesystem()?;
        host.synced_all(dir.path());
        return Ok(());
    }
    for path in paths {
        let opened = dir.read(path);
        if let Ok(file) = opened {
            fsync(&file)?;
            host.synced(&dir.path().join(path));
        }
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        if let Ok(above) = dir.dir(above) {
            above.sync()?;
        }
    }
    Ok(())
}
