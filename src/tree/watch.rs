//! Watches a root: events only say that a path may have changed.
//!
//! One thread reads the events and places the watches, so each has its order: a new directory is
//! watched first and told after, and whoever walks it then misses nothing. It speaks inotify itself.
//! `notify` 8 asks for `OPEN` too, so that our own reading of a large tree fills the queue; ends the
//! placing of watches silently at the first directory that vanishes; and loses a directory that is exchanged
//! for another, which is how we publish.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;

use super::fence::{Fence, Waiting};
use super::inotify::{Placed, Watches};
use crate::session::STATE_DIR;

/// Who is told of changes. Called on the thread of the watch: it must neither block nor wait.
pub trait Notice: Send + Sync {
    /// This path, relative to the root, may have changed, appeared or gone; a directory: all below it.
    fn touched(&self, relative: &Path);
    /// Whether what happens in this directory, relative to the root, is to be told. Asked again every few seconds of those
    /// that are watched.
    fn watches(&self, _relative: &Path) -> bool {
        true
    }
    /// Anything may have changed: events were lost, or something was watched only from now on.
    fn rescan(&self, why: &str);
    /// Changes may go by untold from now on; see [`Watch::polling`].
    fn degraded(&self, why: &str);
}

/// A root being watched. Ends when it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    fence: Fence,
    thread: JoinHandle<()>,
}

struct Shared {
    notice: Arc<dyn Notice>,
    asked: Mutex<Asked>,
    /// Wakes the thread for what is asked.
    wake: OwnedFd,
    /// Some directory is not watched.
    incomplete: AtomicBool,
    /// Events do not come although watches are placed (network file systems).
    distrusted: AtomicBool,
}

#[derive(Debug, Default)]
struct Asked {
    check: bool,
    renew: Option<String>,
    stop: bool,
}

impl Watch {
    /// Places watches on the root and all directories below it; when it returns they are there, and a
    /// scan that begins now misses nothing. What cannot be watched is told to the notice.
    ///
    /// Not watched are the state directory, but for its fences, `lost+found`, and what the notice does not want.
    ///
    /// # Errors
    /// Of making an event descriptor or a thread; not of watching.
    pub fn start(root: &Path, notice: Arc<dyn Notice>) -> io::Result<Self> {
        Self::start_beside(root, root, notice)
    }

    /// The same for a tree whose state directory, with the fences, lies below another root: nothing is written into
    /// the tree.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_beside(tree: &Path, root: &Path, notice: Arc<dyn Notice>) -> io::Result<Self> {
        let fences = std::path::absolute(root)?.join(STATE_DIR).join("fence");
        let root = std::path::absolute(tree)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            notice,
            asked: Mutex::default(),
            wake,
            incomplete: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
        });
        let waiting = Arc::new(Waiting::default());
        let fence = Fence::new(fences.clone(), Arc::clone(&waiting));
        let mut worker = Worker { shared: Arc::clone(&shared), waiting, watches: None, root, fences };
        worker.place();
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || worker.run())?;
        Ok(Self { shared, fence, thread })
    }

    /// Fences in this watch.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Whether changes may go by untold, so that somebody must look.
    #[must_use]
    pub fn polling(&self) -> bool {
        self.shared.incomplete.load(Ordering::Acquire) || self.shared.distrusted.load(Ordering::Acquire)
    }

    /// Asks for a look whether the watch is alive: the root still the same directory, all watched. What was
    /// lost is placed again and a rescan told. Cheap; to be called every few seconds.
    pub fn check(&self) {
        if self.thread.is_finished() {
            self.shared.degrade("the thread of the watch ended");
            return;
        }
        self.shared.ask(|asked| asked.check = true);
    }

    /// Asks for all watches to be placed anew, followed by a rescan.
    pub fn renew(&self, why: &str) {
        self.shared.ask(|asked| asked.renew = Some(why.to_owned()));
    }

    /// A scan found what no event announced: from now on it polls.
    pub fn distrust(&self, why: &str) {
        if !self.shared.distrusted.swap(true, Ordering::AcqRel) {
            self.shared.notice.degraded(why);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not joined: the notice may be waiting for whoever drops this.
        self.shared.ask(|asked| asked.stop = true);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("fence", &self.fence)
            .field("polling", &self.polling())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn ask(&self, what: impl FnOnce(&mut Asked)) {
        what(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        // Full means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn degrade(&self, why: &str) {
        if !self.incomplete.swap(true, Ordering::AcqRel) {
            self.notice.degraded(why);
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
    /// None: inotify itself is not to be had, or the root is gone.
    watches: Option<Watches>,
    root: PathBuf,
    fences: PathBuf,
}

impl Worker {
    fn run(mut self) {
        loop {
            let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
            fds.extend(self.watches.as_ref().map(|watches| PollFd::new(watches.fd(), PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.shared.degrade(&format!("waiting for events failed: {error}"));
                    return;
                }
            }
            self.events();
            let _ = rustix::io::read(&self.shared.wake, &mut [0_u8; 8]);
            let asked =
                std::mem::take(&mut *self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner));
            if asked.stop {
                return;
            }
            if let Some(why) = asked.renew {
                self.watches = None;
                self.place();
                self.shared.notice.rescan(&why);
            } else if asked.check {
                self.check();
            }
        }
    }

    /// Tells what came.
    fn events(&mut self) {
        let Some(watches) = &mut self.watches else { return };
        let notice = &self.shared.notice;
        let waiting = &self.waiting;
        match watches
            .read(&|path| notice.touched(path), &|why| notice.rescan(why), &|name| waiting.passed(name))
        {
            Ok(placed) => self.judge(&placed),
            Err(error) => {
                self.watches = None;
                self.place();
                self.shared.notice.rescan(&format!("reading events failed: {error}"));
            }
        }
    }

    /// Places all watches, with a new inotify where there is none.
    fn place(&mut self) {
        let new = || Watches::new(&self.root, &self.fences, Arc::clone(&self.shared.notice));
        let mut watches = match self.watches.take().map_or_else(new, Ok) {
            Ok(watches) => watches,
            Err(error) => {
                self.waiting.watched.store(false, Ordering::Release);
                self.shared.degrade(&reason(&self.root, &error));
                return;
            }
        };
        let placed = watches.place_all();
        self.watches = Some(watches);
        self.judge(&placed);
    }

    fn judge(&mut self, placed: &Placed) {
        let fences = self.watches.as_ref().is_some_and(Watches::has_fences);
        self.waiting.watched.store(fences, Ordering::Release);
        match placed {
            Placed::Same => {}
            Placed::All => self.shared.incomplete.store(false, Ordering::Release),
            Placed::Failed(error) => self.shared.degrade(&reason(&self.root, error)),
            Placed::RootLost => {
                self.watches = None;
                self.waiting.watched.store(false, Ordering::Release);
                self.place();
                self.shared.notice.rescan("the root was removed, moved or mounted over");
            }
        }
    }

    fn check(&mut self) {
        let lost = self.watches.as_ref().is_none_or(|watches| !watches.is_root(&self.root));
        if lost {
            self.watches = None;
            self.place();
            if self.watches.is_some() {
                self.shared.notice.rescan("the root is another directory, or is watched only from now on");
            }
        } else if self.shared.incomplete.load(Ordering::Acquire) {
            self.place();
            if !self.shared.incomplete.load(Ordering::Acquire) {
                self.shared.notice.rescan("everything is watched again");
            }
        } else if let Some(watches) = &mut self.watches {
            let placed = watches.retry();
            self.judge(&placed);
        }
    }
}

fn reason(root: &Path, error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOSPC) => "no inotify watches are left (fs.inotify.max_user_watches): polling. \
             The limit is one for the whole host and user and cannot be raised inside a container"
            .to_owned(),
        Some(rustix::io::Errno::MFILE) => "no inotify instances are left (fs.inotify.max_user_instances, or \
             open files): polling. The limit is one for the whole host and user and cannot be raised inside a container"
            .to_owned(),
        _ => format!("{} cannot be watched: {error}; polling", root.display()),
    }
}
