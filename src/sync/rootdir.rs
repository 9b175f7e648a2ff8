//! The root and its state directory `{root}/.session-sidecar/`: one process a root, and a place for everything
//! that is not part of a tree.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::state::Place;
use crate::error::{Code, Error, Result};
use crate::host::{Host, Step};
use crate::session::{Layout, STATE_DIR, SessionKey};
use crate::tree::disk::Disk;
use crate::tree::publish::{self, MARKER, Recovered, STAMP, Site};

const PRIVATE: u32 = 0o700;
const LOCK: &str = "lock";
const SOCKET: &str = "control.sock";
const DAYS_KEPT: i64 = 7;
const MOST_KEPT: usize = 10;
/// How often a lock is tried whose directory is being removed at the same time.
const TRIES: usize = 10;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A root that this process, and no other, works on.
#[derive(Debug)]
pub struct RootDir {
    root: PathBuf,
    host: Arc<dyn Host>,
    lock: Mutex<File>,
    recovered: Vec<(SessionKey, Recovered)>,
}

impl RootDir {
    /// Makes root and state directory where they are missing, takes the lock, finishes or undoes what a crash
    /// left of a publish, and cleans up. Blocks.
    ///
    /// # Errors
    /// [`Code::BadRoot`], [`Code::DiskFull`]; [`Code::RootLocked`] when another process, or a child that
    /// outlived one, has the root.
    pub fn open(root: &Path, host: Arc<dyn Host>) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| Error::io("the root has no path", error))?;
        make_root(&root)?;
        make_state_dir(&root)?;
        let lock = lock(&root)?;
        let mut made = Self { root, host, lock: Mutex::new(lock), recovered: Vec::new() };
        // Before anything is cleaned: what is half done may be needed to finish it.
        made.recovered = made.recover()?;
        made.clean();
        Ok(made)
    }

    /// The root, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the start finished or undid. (line 1 of the start table)
    #[must_use]
    pub fn recovered(&self) -> &[(SessionKey, Recovered)] {
        &self.recovered
    }

    /// Where a session lies and is published.
    #[must_use]
    pub fn site(&self, layout: &Layout, key: &SessionKey) -> Site {
        Site::new(&self.root, layout, key)
    }

    /// Where the local state of a session is kept; its directory is made by the first save.
    #[must_use]
    pub fn state_file(&self, key: &SessionKey) -> PathBuf {
        self.root.join(STATE_DIR).join("sessions").join(key.user()).join(key.session()).join("state.json")
    }

    /// Where private copies of large files go, on the root's own file system; nothing there outlives a start.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.root.join(STATE_DIR).join("staging")
    }

    /// A fresh directory there, removed when it is dropped.
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.spool())
            .map_err(|error| Error::io("a scratch directory cannot be made", error))
    }

    /// Where we are: what a holder id is bound to.
    ///
    /// The directory is the state directory. A session's own is another one after every publish; a copy of a
    /// root copies this one with it, to another inode.
    pub fn place(&self, pod_uid: Option<String>) -> Result<Place> {
        let what = "the place of the root cannot be told";
        let boot_id = std::fs::read_to_string(BOOT_ID).map_err(|error| Error::io(what, error))?;
        let stat = std::fs::metadata(self.root.join(STATE_DIR)).map_err(|error| Error::io(what, error))?;
        Ok(Place { boot_id: boot_id.trim().to_owned(), pod_uid, dev: stat.dev(), ino: stat.ino() })
    }

    /// The lock for a child to inherit: as long as one copy is open the root is locked, also when we are
    /// gone. It is not closed on `exec`: open it right before the child is started, drop it right after.
    pub fn lock_for_child(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::dup(&*self.lock.lock().unwrap_or_else(PoisonError::into_inner))?)
    }

    /// Whether the state directory is still the one that we locked, with all it needs. A bot may run `rm -rf`.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let state = self.root.join(STATE_DIR);
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        is_named(&lock, &state.join(LOCK)) && state.join("fence").is_dir()
    }

    /// Makes a lost state directory again, with a new lock where the old one is gone. Blocks.
    ///
    /// # Errors
    /// Those of [`RootDir::open`]: another process may have been faster.
    pub fn remake(&self) -> Result<()> {
        make_root(&self.root)?;
        make_state_dir(&self.root)?;
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_named(&held, &self.root.join(STATE_DIR).join(LOCK)) {
            *held = lock(&self.root)?;
        }
        Ok(())
    }

    /// Removes old trees that were set aside: those of more than seven days, and all but the newest ten of a
    /// session. Blocks; what cannot be removed is logged.
    pub fn prune(&self) {
        for (key, dir) in self.sessions("set-aside") {
            if let Err(error) = self.prune_session(&dir) {
                tracing::warn!(%error, session = %key, "old trees that were set aside were not removed");
            }
        }
    }

    /// Removes all old trees of a session that were set aside. Blocks.
    pub fn remove_set_aside(&self, key: &SessionKey) -> io::Result<()> {
        let dir = Path::new(STATE_DIR).join("set-aside").join(key.user()).join(key.session());
        Disk::open(&self.root, self.host.as_ref())?.remove_all(&dir, Step("root: remove what was set aside"))
    }

    fn prune_session(&self, dir: &Path) -> io::Result<()> {
        let disk = Disk::open(&self.root, self.host.as_ref())?;
        // `{timestamp}-{n}`: by name is by time; the newest last.
        let mut kept: Vec<(Timestamp, u32, PathBuf)> = Vec::new();
        for name in disk.names(dir)? {
            if disk.names(&dir.join(&name)).is_ok_and(|names| names.is_empty()) {
                // Made for a publish that did not come to it.
                disk.remove_all(&dir.join(&name), Step("root: remove what was set aside"))?;
                continue;
            }
            // What is not ours to judge stays.
            let Some((stamp, n)) = name.to_str().and_then(parse_aside) else { continue };
            kept.push((stamp, n, dir.join(name)));
        }
        kept.sort();
        let oldest = self.host.now().saturating_sub(SignedDuration::from_hours(24 * DAYS_KEPT));
        let oldest = oldest.unwrap_or(Timestamp::MIN);
        let surplus = kept.len().saturating_sub(MOST_KEPT);
        for (at, (stamp, _, path)) in kept.iter().enumerate() {
            if at < surplus || *stamp < oldest {
                disk.remove_all(path, Step("root: remove what was set aside"))?;
            }
        }
        Ok(())
    }

    fn recover(&self) -> Result<Vec<(SessionKey, Recovered)>> {
        let mut recovered = Vec::new();
        for (key, dir) in self.sessions("sessions") {
            // Everything that matters is in the marker, relative to the root.
            let site = Site { marker: dir.join(MARKER), ..Site::new(&self.root, &Layout::Many, &key) };
            let what = publish::recover(&site, self.host.as_ref())
                .map_err(|error| Error::io(format!("a publish of session {key} was cut off"), error))?;
            if what != Recovered::None {
                tracing::warn!(session = %key, outcome = ?what, "an earlier life ended during a publish");
                recovered.push((key, what));
            }
        }
        Ok(recovered)
    }

    /// All of staging and all fences were left by a crash: nobody else works here.
    fn clean(&self) {
        let cleaned = Disk::open(&self.root, self.host.as_ref()).and_then(|disk| {
            for part in ["staging", "fence"] {
                let dir = Path::new(STATE_DIR).join(part);
                for name in disk.names(&dir)? {
                    disk.remove_all(&dir.join(name), Step("root: clean up"))?;
                }
            }
            Ok(())
        });
        if let Err(error) = cleaned {
            tracing::warn!(%error, "what an earlier life left in the state directory was not removed");
        }
        self.prune();
    }

    /// `{part}/{user}/{session}` for all sessions that have it, relative to the root.
    fn sessions(&self, part: &str) -> Vec<(SessionKey, PathBuf)> {
        let list = || -> io::Result<Vec<(SessionKey, PathBuf)>> {
            let disk = Disk::open(&self.root, self.host.as_ref())?;
            let top = Path::new(STATE_DIR).join(part);
            let mut found = Vec::new();
            for user in disk.names(&top)? {
                for session in disk.names(&top.join(&user))? {
                    let key = user.to_str().zip(session.to_str()).map(|(u, s)| SessionKey::new(u, s));
                    if let Some(Ok(key)) = key {
                        found.push((key, top.join(&user).join(&session)));
                    }
                }
            }
            Ok(found)
        };
        list().unwrap_or_else(|error| {
            tracing::warn!(%error, part, "the state directory cannot be listed");
            Vec::new()
        })
    }
}

/// Where the control socket of a root is bound and reached, however long the root's path is: a socket's address has
/// 108 bytes, so it goes through the open directory's name in `/proc`. Valid while this value lives.
#[derive(Debug)]
pub struct ControlAddress {
    path: PathBuf,
    _dir: OwnedFd,
}

impl ControlAddress {
    /// Of a root that has a state directory; no lock is needed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when no process ever worked on the root.
    pub fn of(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::open(root.join(STATE_DIR), flags, Mode::empty())?;
        Ok(Self { path: format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into(), _dir: dir })
    }

    /// Whether a process that looks below the root finds the socket that is bound here.
    #[must_use]
    pub fn leads_to(&self, root: &Path) -> bool {
        let named = root.join(STATE_DIR).join(SOCKET);
        is_same(std::fs::symlink_metadata(&self.path), std::fs::symlink_metadata(named))
    }

    /// To bind, connect or unlink; in this process only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make_root(root: &Path) -> Result<()> {
    let shown = root.display();
    match std::fs::metadata(root) {
        Ok(stat) if stat.is_dir() => Ok(()),
        Ok(_) => Err(Error::new(Code::BadRoot, format!("{shown} is a file, and --root must be a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(root).map_err(|error| {
                match error.kind() {
                    // A dangling link, or a file in the middle.
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Error::new(
                        Code::BadRoot,
                        format!(
                            "--root {shown} cannot be made: a part of the path is a file or a dangling link"
                        ),
                    ),
                    _ => Error::io(format!("--root {shown} cannot be made"), error),
                }
            })
        }
        Err(error) => Err(Error::io(format!("--root {shown} cannot be used"), error)),
    }
}

fn make_state_dir(root: &Path) -> Result<()> {
    let state = root.join(STATE_DIR);
    let failed = |error: io::Error| {
        Error::io(
            format!("--root {} must be writable for its state directory {STATE_DIR}", root.display()),
            error,
        )
    };
    for dir in [state.clone(), state.join("fence"), state.join("staging")] {
        match fs::mkdir(&dir, Mode::from_raw_mode(PRIVATE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let stat = std::fs::symlink_metadata(&dir).map_err(failed)?;
        if !stat.is_dir() {
            let text = format!("{} is not a directory: remove it", dir.display());
            return Err(Error::new(Code::BadRoot, text));
        }
        let me = rustix::process::geteuid().as_raw();
        if me != 0 && stat.uid() != me {
            let text = format!(
                "{} belongs to uid {}, and this process is uid {me}: run everything that works on a root with one uid",
                dir.display(),
                stat.uid(),
            );
            return Err(Error::new(Code::BadRoot, text));
        }
        if stat.mode() & 0o777 != PRIVATE {
            // The set-group bit of a pod's `fsGroup` is of no harm.
            let mode = Mode::from_raw_mode(PRIVATE | (stat.mode() & 0o2000));
            fs::chmod(&dir, mode).map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

/// Whether a process works on this root. Nothing is made or kept.
pub fn is_locked(root: &Path) -> Result<bool> {
    let path = root.join(STATE_DIR).join(LOCK);
    let failed = |error: Errno| Error::io(format!("{} cannot be looked at", path.display()), error.into());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::open(&path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        opened => opened.map_err(failed)?,
    };
    match fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(failed(error)),
    }
}

/// The nearest directory, this one or one above it, that a process works on as its root. `own` is not asked: its lock is
/// this process's.
pub fn locked_above(path: &Path, own: Option<&Path>) -> Result<Option<PathBuf>> {
    for dir in path.ancestors().filter(|dir| Some(*dir) != own) {
        if is_locked(dir)? {
            return Ok(Some(dir.to_owned()));
        }
    }
    Ok(None)
}

/// Takes the lock, and makes sure that it is the one that the next process will find.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(STATE_DIR).join(LOCK);
    let failed = |error: Errno| Error::io(format!("{} cannot be locked", path.display()), error.into());
    for _ in 0..TRIES {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match fs::open(&path, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::NOENT) => {
                make_state_dir(root)?;
                continue;
            }
            other => File::from(other.map_err(failed)?),
        };
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let text = format!(
                    "another session-sidecar, or a bot that it started, works on {}: stop it, or use another --root",
                    root.display()
                );
                return Err(Error::new(Code::RootLocked, text));
            }
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let text = format!(
                    "the file system of {} has no locks, so two processes could work on it: use a local volume",
                    root.display()
                );
                return Err(Error::new(Code::BadRoot, text));
            }
            Err(error) => return Err(failed(error)),
        }
        if is_named(&file, &path) {
            return Ok(file);
        }
    }
    Err(Error::new(Code::BadRoot, format!("{} is removed again and again: who does it?", path.display())))
}

fn is_named(file: &File, path: &Path) -> bool {
    is_same(file.metadata(), std::fs::symlink_metadata(path))
}

/// Whether two looks found one and the same file.
fn is_same(one: io::Result<Metadata>, other: io::Result<Metadata>) -> bool {
    matches!((one, other), (Ok(one), Ok(other)) if (one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn parse_aside(name: &str) -> Option<(Timestamp, u32)> {
    let (stamp, n) = name.rsplit_once('-')?;
    let time = DateTime::strptime(STAMP, stamp).ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some((time.timestamp(), n.parse().ok()?))
}

#[cfg(test)]
mod tests;
