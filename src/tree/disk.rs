//! Changes below a root that survive a crash: by paths relative to an open directory, never through a
//! link, each announced to the host first and told to it when it is durable.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Dir;
use super::staging::Owner;
use crate::host::{Host, Step};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A root and the machine it lies on. All paths given to it are relative to the root.
#[derive(Debug)]
pub struct Disk<'a> {
    root: Dir,
    host: &'a dyn Host,
    /// Whether `renameat2` takes flags here; tests turn it off to be on such a file system.
    pub(super) flags: bool,
}

impl<'a> Disk<'a> {
    /// Opens the root; this path may contain links.
    pub fn open(root: &Path, host: &'a dyn Host) -> io::Result<Self> {
        Ok(Self { root: Dir::open(root)?, host, flags: true })
    }

    /// The machine.
    #[must_use]
    pub fn host(&self) -> &'a dyn Host {
        self.host
    }

    /// For messages and for what must be told by name.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        // Joining nothing would add a slash.
        let root = self.root.path();
        if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) }
    }

    /// `lstat`; none when there is nothing. An empty path is the root itself.
    pub fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        let Some(name) = last(path)? else {
            return Ok(Some(fs::fstat(&self.root)?));
        };
        let found = self.parent(path).and_then(|dir| Ok(fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something of any type is there.
    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Names directly below a directory; none at all when it is not there.
    pub fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let dir = match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Moves an entry onto a name that is free: [`io::ErrorKind::AlreadyExists`] when it is not.
    pub fn rename(&self, from: &Path, to: &Path, step: Step) -> io::Result<()> {
        self.host.step(step)?;
        let done = if self.flags {
            self.rename_with(from, to, RenameFlags::NOREPLACE)
        } else {
            Err(Errno::INVAL.into())
        };
        match done {
            // Network file systems know no flags; the lock keeps other processes of ours away.
            Err(error) if unsupported(&error) => {
                if self.exists(to)? {
                    return Err(about(to, Errno::EXIST.into()));
                }
                self.rename_with(from, to, RenameFlags::empty())
            }
            done => done,
        }
        .map_err(|error| about(from, error))
    }

    /// Swaps two entries in one step. [`unsupported`] tells when the file system cannot.
    pub fn exchange(&self, one: &Path, other: &Path, step: Step) -> io::Result<()> {
        self.host.step(step)?;
        if !self.flags {
            return Err(Errno::INVAL.into());
        }
        self.rename_with(one, other, RenameFlags::EXCHANGE)
    }

    /// Makes a directory and those above it where they are missing, durably, with this mode whatever the umask is.
    pub fn make_dirs(&self, path: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let mut at = PathBuf::new();
        let mut dir = fs::openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        for name in parts(path)? {
            let below = match fs::openat(&dir, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    self.host.step(Step("disk: make directory"))?;
                    match fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
                        // Another session of the same user was faster.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(about(path, error.into())),
                    }
                    let new = fs::openat(&dir, name, DIRECTORY, Mode::empty())?;
                    // The set-group bit comes from the parent and is kept.
                    let kept = fs::fstat(&new)?.st_mode & 0o2000;
                    fs::fchmod(&new, Mode::from_raw_mode(mode | kept))?;
                    if let Some(owner) = owner {
                        owner.give(&new)?;
                    }
                    self.sync_dir(&at)?;
                    new
                }
                other => other.map_err(|error| about(path, error.into()))?,
            };
            dir = below;
            at.push(name);
        }
        Ok(())
    }

    /// Makes the entries of a directory durable.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match fs::fsync(self.directory(path)?) {
            // Not every file system has it for directories; there is nothing else to ask for.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(about(path, error.into())),
        }
        self.host.synced(&self.absolute(path));
        Ok(())
    }

    /// Replaces a file as a whole, durably: the old bytes or the new ones, whenever the power goes.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = self.parent(path)?;
        let name = last(path)?.ok_or(io::ErrorKind::InvalidInput)?;
        let mut temporary = name.to_os_string();
        temporary.push(".tmp");

        self.host.step(Step("disk: write file"))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        file.sync_all()?;
        self.host.synced(&self.absolute(&path.with_file_name(&temporary)));

        self.host.step(Step("disk: rename file"))?;
        fs::renameat(&dir, &temporary, &dir, name)?;
        self.host.step(Step("disk: sync directory"))?;
        self.sync_dir(above(path))
    }

    /// All bytes of a regular file; none when it is not there.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = last(path)?.ok_or(io::ErrorKind::InvalidInput)?;
        let opened = self.parent(path).and_then(|dir| Ok(fs::openat(&dir, name, flags, Mode::empty())?));
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => File::from(other?),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Removes a file, durably.
    pub fn remove_file(&self, path: &Path, step: Step) -> io::Result<()> {
        self.host.step(step)?;
        let name = last(path)?.ok_or(io::ErrorKind::InvalidInput)?;
        match fs::unlinkat(self.parent(path)?, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(about(path, error.into())),
        }
        self.sync_dir(above(path))
    }

    /// Removes an entry and all below it; what is not there is removed already.
    pub fn remove_all(&self, path: &Path, step: Step) -> io::Result<()> {
        self.host.step(step)?;
        let dir = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let name = last(path)?.ok_or(io::ErrorKind::InvalidInput)?;
        // `std` removes beneath descriptors and follows no link; the path up to here is pinned by ours.
        let pinned = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        let removed = match fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => std::fs::remove_dir_all(pinned),
            Ok(_) => Ok(fs::unlinkat(&dir, name, AtFlags::empty())?),
            Err(error) => Err(error.into()),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about(path, error)),
            _ => Ok(()),
        }
    }

    /// Opens a directory; an empty path is the root.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut dir = fs::openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        for name in parts(path)? {
            dir = fs::openat(&dir, name, DIRECTORY, Mode::empty()).map_err(|e| about(path, e.into()))?;
        }
        Ok(dir)
    }

    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        self.directory(above(path))
    }

    fn rename_with(&self, from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
        let (old_name, new_name) = (last(from)?, last(to)?);
        let (Some(old_name), Some(new_name)) = (old_name, new_name) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (old, new) = (self.parent(from)?, self.parent(to)?);
        if flags.is_empty() {
            fs::renameat(old, old_name, new, new_name)?;
        } else {
            fs::renameat_with(old, old_name, new, new_name, flags)?;
        }
        Ok(())
    }
}

/// Whether an error says that the file system does not know the flags of `renameat2`.
#[must_use]
pub fn unsupported(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// The directory of a path; empty for what lies directly below the root.
#[must_use]
pub fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Names the path in an error, and keeps its kind.
fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Named { path: path.to_path_buf(), source: error })
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
struct Named {
    path: PathBuf,
    source: io::Error,
}

fn last(path: &Path) -> io::Result<Option<&OsStr>> {
    Ok(parts(path)?.last())
}

fn parts(path: &Path) -> io::Result<impl Iterator<Item = &OsStr>> {
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !normal {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path that leaves its directory"));
    }
    Ok(path.iter())
}

/// A path relative to the root in a JSON file: text, or its bytes where it is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Relative(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Written> for Relative {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

impl From<Relative> for Written {
    fn from(path: Relative) -> Self {
        match path.0.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.0.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl std::ops::Deref for Relative {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}
