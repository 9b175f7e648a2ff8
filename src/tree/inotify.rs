//! The watches of a tree: which directory each one is of, and what its events say.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::sqlite::database_of;
use super::watch::Notice;
use crate::session::{LOST_AND_FOUND, STATE_DIR};

/// All that writes, and nothing that only reads: our own scans must not make events.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
const COMES_OR_GOES: ReadFlags =
    ReadFlags::CREATE.union(ReadFlags::DELETE).union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);
/// What also happens to a file that is opened for writing and never written. SQLite opens the side files of a database so
/// even to read it, and as root gives them to their owner: our own look at one must not wake us, again and again.
const NOTHING_WRITTEN: ReadFlags = ReadFlags::CLOSE_WRITE.union(ReadFlags::ATTRIB);
const BUFFER: usize = 64 * 1024;

/// How it stands with the watches after a call.
#[derive(Debug)]
pub(super) enum Placed {
    /// Nothing was tried that could change it.
    Same,
    /// Every directory is watched.
    All,
    /// Some directory is not, for want of watches.
    Failed(io::Error),
    /// The root is not where it was.
    RootLost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    /// A directory of the tree, relative to the root.
    Tree(PathBuf),
    Fences,
}

/// An inotify and its watches.
pub(super) struct Watches {
    fd: Arc<OwnedFd>,
    root: PathBuf,
    /// Where fences are made.
    fences: PathBuf,
    /// Device and inode of the root.
    root_id: (u64, u64),
    by_descriptor: HashMap<i32, Of>,
    /// Says which directories are watched.
    notice: Arc<dyn Notice>,
    /// Directories that we may not read. A scan holds them; they are tried again.
    closed: BTreeSet<PathBuf>,
}

impl Watches {
    /// An inotify without watches.
    pub(super) fn new(root: &Path, fences: &Path, notice: Arc<dyn Notice>) -> io::Result<Self> {
        let root_id = id(root)?;
        let fd = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let (by_descriptor, closed) = Default::default();
        let (root, fences) = (root.to_path_buf(), fences.to_path_buf());
        Ok(Self { fd, root, fences, root_id, by_descriptor, notice, closed })
    }

    /// To wait on.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Whether this is still the directory that is watched.
    pub(super) fn is_root(&self, root: &Path) -> bool {
        id(root).is_ok_and(|id| id == self.root_id)
    }

    /// Whether events of fences can come.
    pub(super) fn has_fences(&self) -> bool {
        self.by_descriptor.values().any(|of| *of == Of::Fences)
    }

    /// Watches the root and all directories below it; those that are watched stay so.
    pub(super) fn place_all(&mut self) -> Placed {
        self.closed.clear();
        self.prune();
        // Fences first: they work also where the rest finds no watches any more.
        let placed = self.place_fences().and_then(|()| self.place(Path::new("")));
        match placed {
            Ok(()) => Placed::All,
            Err(error) => Placed::Failed(error),
        }
    }

    /// Tries again what could not be watched before, and fences whose directory was made anew.
    pub(super) fn retry(&mut self) -> Placed {
        self.prune();
        let mut placed = self.place_fences();
        for closed in std::mem::take(&mut self.closed) {
            placed = placed.and_then(|()| self.place(&closed));
        }
        placed.map_or_else(Placed::Failed, |()| Placed::Same)
    }

    /// Reads and tells all events that are there, in their order.
    pub(super) fn read(
        &mut self,
        touched: &dyn Fn(&Path),
        rescan: &dyn Fn(&str),
        fence: &dyn Fn(&OsStr),
    ) -> io::Result<Placed> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let fd = Arc::clone(&self.fd);
        let mut reader = inotify::Reader::new(&*fd, &mut buffer);
        let mut result = Placed::Same;
        loop {
            let (descriptor, flags, name) = match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    (event.wd(), event.events(), name)
                }
                Err(Errno::WOULDBLOCK) => return Ok(result),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // First of all: it has no descriptor and no path, and what was lost may be anything.
            let placed = if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                let placed = self.place_all();
                rescan("events were lost: the queue of inotify overflowed");
                placed
            } else {
                self.event(descriptor, flags, name, touched, rescan, fence)
            };
            if matches!(placed, Placed::RootLost) {
                return Ok(placed);
            }
            if !matches!(placed, Placed::Same) {
                result = placed;
            }
        }
    }

    fn event(
        &mut self,
        descriptor: i32,
        flags: ReadFlags,
        name: Option<OsString>,
        touched: &dyn Fn(&Path),
        rescan: &dyn Fn(&str),
        fence: &dyn Fn(&OsStr),
    ) -> Placed {
        // Of a watch that was given up; what it was of is told by its parent.
        let Some(of) = self.by_descriptor.get(&descriptor) else { return Placed::Same };
        let dir = match of {
            Of::Tree(dir) => dir.clone(),
            Of::Fences => {
                if flags.contains(ReadFlags::IGNORED) {
                    self.by_descriptor.remove(&descriptor);
                } else if let Some(name) = name
                    && flags.contains(ReadFlags::CREATE)
                {
                    fence(&name);
                }
                return Placed::Same;
            }
        };
        let is_root = dir.as_os_str().is_empty();
        if flags.contains(ReadFlags::IGNORED) {
            self.by_descriptor.remove(&descriptor);
        }
        let Some(name) = name else {
            let gone =
                ReadFlags::IGNORED | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT;
            // Another directory's parent tells of it, with a name.
            return if is_root && flags.intersects(gone) { Placed::RootLost } else { Placed::Same };
        };
        if is_root && name == LOST_AND_FOUND {
            return Placed::Same;
        }
        if is_root && name == STATE_DIR {
            if !flags.intersects(COMES_OR_GOES) {
                return Placed::Same;
            }
            let placed = self.place_fences();
            rescan("the state directory was removed or replaced");
            return placed.map_or_else(Placed::Failed, |()| Placed::Same);
        }
        if NOTHING_WRITTEN.contains(flags) && name.to_str().is_some_and(|name| database_of(name).is_some()) {
            return Placed::Same;
        }
        let path = dir.join(name);
        let mut placed = Ok(());
        if flags.contains(ReadFlags::ISDIR) {
            if flags.intersects(COMES_OR_GOES) {
                // After an exchange a directory goes that is there already: always look at what is there now.
                self.forget(&path);
                placed = self.place(&path);
            } else if self.closed.remove(&path) {
                placed = self.place(&path);
            }
        }
        touched(&path);
        placed.map_or_else(Placed::Failed, |()| Placed::Same)
    }

    /// Gives up what is not wanted any more.
    fn prune(&mut self) {
        let (fd, notice) = (&self.fd, &self.notice);
        self.by_descriptor.retain(|descriptor, of| {
            let wanted = match of {
                Of::Tree(dir) => dir.as_os_str().is_empty() || notice.watches(dir),
                Of::Fences => true,
            };
            if !wanted {
                // Of a directory that is gone it is gone already.
                let _ = inotify::remove_watch(fd, *descriptor);
            }
            wanted
        });
    }

    /// Watches a directory and those below it: each is watched before it is listed.
    fn place(&mut self, dir: &Path) -> io::Result<()> {
        let mut left = vec![dir.to_path_buf()];
        while let Some(dir) = left.pop() {
            let is_root = dir.as_os_str().is_empty();
            if !is_root && !self.notice.watches(&dir) {
                continue;
            }
            let path = if is_root { self.root.clone() } else { self.root.join(&dir) };
            let follow = if is_root { WatchFlags::empty() } else { WatchFlags::DONT_FOLLOW };
            let listed = self.add(&path, CHANGES | follow).map_err(io::Error::from);
            let listed = listed.and_then(|descriptor| {
                self.by_descriptor.insert(descriptor, Of::Tree(dir.clone()));
                subdirectories(&path)
            });
            match listed {
                Ok(names) => {
                    let names = names
                        .into_iter()
                        .filter(|name| !is_root || (name != STATE_DIR && name != LOST_AND_FOUND));
                    left.extend(names.map(|name| dir.join(name)));
                }
                Err(error) => match error.kind() {
                    // Gone again, or no directory any more: an event of its parent follows.
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !is_root => {}
                    io::ErrorKind::PermissionDenied if !is_root => {
                        tracing::warn!(path = %path.display(), "a directory cannot be read and is not watched");
                        self.closed.insert(dir);
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn place_fences(&mut self) -> io::Result<()> {
        let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match self.add(&self.fences, flags) {
            Ok(descriptor) => {
                self.by_descriptor.retain(|_, of| *of != Of::Fences);
                self.by_descriptor.insert(descriptor, Of::Fences);
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
                self.by_descriptor.retain(|_, of| *of != Of::Fences);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn add(&self, path: &Path, flags: WatchFlags) -> rustix::io::Result<i32> {
        #[cfg(test)]
        if limits::are_used_up(&self.root, self.by_descriptor.len()) {
            return Err(Errno::NOSPC);
        }
        inotify::add_watch(&self.fd, path, flags)
    }

    /// Gives up the watches of a directory and of those below it.
    fn forget(&mut self, dir: &Path) {
        let fd = &self.fd;
        self.by_descriptor.retain(|descriptor, of| {
            let below = matches!(of, Of::Tree(path) if path.starts_with(dir));
            if below {
                // Of a directory that is gone it is gone already.
                let _ = inotify::remove_watch(fd, *descriptor);
            }
            !below
        });
        self.closed.retain(|path| !path.starts_with(dir));
    }
}

fn subdirectories(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => names.push(entry.file_name()),
            _ => {}
        }
    }
    Ok(names)
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::stat(path)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The limit of the machine is one for all; tests have one of their own for a root.
#[cfg(test)]
pub(super) mod limits {
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    static LIMITS: Mutex<Vec<(PathBuf, usize)>> = Mutex::new(Vec::new());

    pub(in crate::tree) fn set(root: &Path, limit: usize) {
        LIMITS.lock().unwrap().insert(0, (root.to_path_buf(), limit));
    }

    pub(super) fn are_used_up(root: &Path, used: usize) -> bool {
        LIMITS.lock().unwrap().iter().find(|(of, _)| of == root).is_some_and(|(_, limit)| used >= *limit)
    }
}
