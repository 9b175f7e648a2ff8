//! An open directory, and access below it that never follows a link.
//!
//! Whatever comes out of a bucket is hostile until verified, and a bot's directory may hold links to
//! anywhere: every step of a path is opened with `O_NOFOLLOW` relative to the step before.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by name; this first path may contain links.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd = fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_path_buf() })
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below; an empty path is this directory again.
    pub fn dir(&self, relative: &str) -> io::Result<Self> {
        let mut fd = fs::openat(&self.fd, c".", DIRECTORY, Mode::empty())?;
        for part in parts(relative)? {
            fd = fs::openat(&fd, part, DIRECTORY, Mode::empty())?;
        }
        Ok(Self { fd, path: self.path.join(relative) })
    }

    /// Makes a directory and those above it, with this mode (less the umask) where they are missing.
    pub fn make_dir_all(&self, relative: &str, mode: u32) -> io::Result<Self> {
        let mut fd = fs::openat(&self.fd, c".", DIRECTORY, Mode::empty())?;
        for part in parts(relative)? {
            match fs::mkdirat(&fd, part, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            fd = fs::openat(&fd, part, DIRECTORY, Mode::empty())?;
        }
        Ok(Self { fd, path: self.path.join(relative) })
    }

    /// Opens a regular file for reading. Neither blocks on a pipe nor follows a link.
    pub fn read(&self, relative: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(self.at(relative, |dir, name| fs::openat(dir, name, flags, Mode::empty()))?))
    }

    /// Makes a new file for writing, which must not exist; its directory must.
    pub fn create(&self, relative: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(
            self.at(relative, |dir, name| fs::openat(dir, name, flags, Mode::from_raw_mode(mode)))?,
        ))
    }

    /// `lstat`.
    pub fn stat(&self, relative: &str) -> io::Result<Stat> {
        self.at(relative, |dir, name| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Removes a file or link.
    pub fn unlink(&self, relative: &str) -> io::Result<()> {
        self.at(relative, |dir, name| fs::unlinkat(dir, name, AtFlags::empty()))
    }

    /// Names directly below, without `.` and `..`, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_os_string());
            }
        }
        Ok(names)
    }

    /// Makes the directory's own entries durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    /// Makes the whole file system durable.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.fd)?)
    }

    /// Runs a call on the last step of a path and the open directory that holds it.
    fn at<T>(
        &self,
        relative: &str,
        call: impl FnOnce(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let mut steps: Vec<&str> = parts(relative)?.collect();
        let name = steps.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut above: Option<OwnedFd> = None;
        for step in steps {
            let from = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            above = Some(fs::openat(from, step, DIRECTORY, Mode::empty())?);
        }
        Ok(call(above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd), name)?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kind of a file.
#[must_use]
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether a directory of this name lies there; a link to one does not count.
#[must_use]
pub fn is_dir(dir: &Dir, relative: &str) -> bool {
    dir.stat(relative).is_ok_and(|stat| file_type(&stat) == FileType::Directory)
}

fn parts(relative: &str) -> io::Result<impl Iterator<Item = &str>> {
    let outside = relative.starts_with('/') || relative.split('/').any(|part| part == "..");
    if outside {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path that leaves its directory"));
    }
    Ok(relative.split('/').filter(|part| !part.is_empty() && *part != "."))
}
