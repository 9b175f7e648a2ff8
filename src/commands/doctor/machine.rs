//! The machine below a root: its file system, its space, its limits.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags};
use rustix::fs::{statfs, statvfs};

use super::check::Check;
use crate::error::Error;

/// File systems on which changes of others are not told, or on which locks may not hold, by `f_type`.
const SHARED: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
];
const MEGABYTE: u64 = 1_000_000;

/// Free space of a file system.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    all: u64,
    /// Files that can still be made; of a file system without a limit none.
    files: Option<u64>,
}

/// All of it; `dirs` are to be watched.
pub(super) fn checks(path: &Path, dirs: u64) -> Vec<Check> {
    let mut checks = Vec::new();
    let cannot = |name, error: rustix::io::Errno| {
        let error = Error::io(format!("{} cannot be looked at", path.display()), error.into());
        Check::warn(name, error.to_string(), "check the mount")
    };
    checks.push(match statfs(path) {
        Ok(stat) => file_system(u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff),
        Err(error) => cannot("file system", error),
    });
    checks.push(match statvfs(path) {
        Ok(stat) => disk(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            all: stat.f_blocks.saturating_mul(stat.f_frsize),
            files: (stat.f_files > 0).then_some(stat.f_favail),
        }),
        Err(error) => cannot("disk", error),
    });
    let instance = inotify::init(CreateFlags::CLOEXEC).map(drop).map_err(io::Error::from);
    checks.push(watches(dirs, limit("max_user_watches"), limit("max_user_instances"), instance));
    checks
}

fn limit(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
}

fn file_system(kind: u64) -> Check {
    const NAME: &str = "file system";
    match SHARED.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Check::warn(
            NAME,
            format!(
                "the root lies on {name}: changes of other machines are noticed late, and locks may not hold"
            ),
            "use a local volume, and let one machine at a time work on it",
        ),
        None => Check::ok(NAME, "changes are told and locks hold, as on every local one"),
    }
}

fn disk(space: Space) -> Check {
    const NAME: &str = "disk";
    let Space { free, all, files } = space;
    let found = format!("{} of {} MB are free", free / MEGABYTE, all / MEGABYTE);
    if free < 200 * MEGABYTE || free < all / 10 {
        return Check::warn(NAME, found, "make room: a restore needs twice the size of a session");
    }
    match files {
        Some(files) if files < 10_000 => Check::warn(
            NAME,
            format!("{found}, but only {files} files can be made"),
            "remove files, or use a file system with more inodes: a session has thousands",
        ),
        _ => Check::ok(NAME, found),
    }
}

/// Watches are counted for each user of the machine: others may have used up half of them.
fn watches(dirs: u64, most: Option<u64>, instances: Option<u64>, instance: io::Result<()>) -> Check {
    const NAME: &str = "inotify";
    let shown = |limit: Option<u64>| limit.map_or("unknown".to_owned(), |limit| limit.to_string());
    let limits = format!(
        "{dirs} directories, max_user_watches {}, max_user_instances {}",
        shown(most),
        shown(instances)
    );
    let polls = "without it changes are found by looking, later and with more work";
    match instance {
        Err(error) => Check::warn(
            NAME,
            format!("changes cannot be watched: {error} ({limits})"),
            format!("raise fs.inotify.max_user_instances with sysctl on the node: {polls}"),
        ),
        Ok(()) if most.is_some_and(|most| dirs.saturating_mul(2) > most) => {
            let advice = format!(
                "raise fs.inotify.max_user_watches to {} with sysctl on the node: {polls}",
                dirs.saturating_mul(4)
            );
            Check::warn(NAME, limits, advice)
        }
        Ok(()) => Check::ok(NAME, limits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_shared_file_system_is_told_by_its_name() {
        assert!(file_system(0x6969).found.contains("NFS"));
        assert!(file_system(0x6573_5546).found.contains("FUSE"));
        assert_eq!(file_system(0xef53).verdict, Verdict::Ok);
    }

    #[test]
    fn a_disk_that_fills_up_is_told_in_time() {
        let verdict = |free, all, files| disk(Space { free, all, files }).verdict;
        assert_eq!(verdict(MEGABYTE * 1000, MEGABYTE * 2000, Some(100_000)), Verdict::Ok);
        assert_eq!(verdict(MEGABYTE * 1000, MEGABYTE * 2000, None), Verdict::Ok);
        assert_eq!(verdict(MEGABYTE * 199, MEGABYTE * 400, None), Verdict::Warn);
        assert_eq!(verdict(MEGABYTE * 1000, MEGABYTE * 20_000, None), Verdict::Warn);
        assert_eq!(verdict(MEGABYTE * 1000, MEGABYTE * 2000, Some(100)), Verdict::Warn);
    }

    #[test]
    fn limits_that_a_tree_comes_near_are_told() {
        let verdict = |dirs, most, instance| watches(dirs, most, Some(128), instance).verdict;
        assert_eq!(verdict(10, Some(8192), Ok(())), Verdict::Ok);
        assert_eq!(verdict(10, None, Ok(())), Verdict::Ok);
        assert_eq!(verdict(5000, Some(8192), Ok(())), Verdict::Warn);
        assert_eq!(verdict(10, Some(8192), Err(io::ErrorKind::Other.into())), Verdict::Warn);
    }
}
