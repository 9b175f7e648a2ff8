//! Writing one file of a tree.

use std::io::{self, Read};

use rustix::fs::{Mode, Timespec, Timestamps, fchmod, futimens};

use crate::tree::{Dir, Meta};

/// What a bot's own `mkdir` asks for; the umask takes its part. Files keep their recorded modes.
pub(super) const DIRECTORY_MODE: u32 = 0o777;

/// Writes a file that must not exist, with mode and time as recorded.
pub(super) fn write(into: &Dir, path: &str, meta: &Meta, content: &mut dyn Read) -> io::Result<()> {
    if let Some((directory, _)) = path.rsplit_once('/') {
        into.make_dir_all(directory, DIRECTORY_MODE)?;
    }
    // Private until it is whole: the mode is set last.
    let mut file = into.create(path, 0o600)?;
    io::copy(content, &mut file)?;
    fchmod(&file, Mode::from_raw_mode(meta.mode & 0o777))?;
    futimens(&file, &times(meta.mtime_ns))?;
    Ok(())
}

fn times(mtime_ns: u64) -> Timestamps {
    let seconds = i64::try_from(mtime_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let nanoseconds = i64::try_from(mtime_ns % 1_000_000_000).unwrap_or(0);
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}
