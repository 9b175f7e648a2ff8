//! One at a time at the databases of one tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static FREED: Condvar = Condvar::new();

/// Held while files of a tree may be opened: who opens and closes a database plainly while another thread copies it
/// drops the lock under which that happens. Locks belong to the process, and so do turns.
#[derive(Debug)]
pub struct Turn {
    dir: PathBuf,
}

impl Turn {
    /// Waits until nobody else of this process is at the tree in `dir`. Blocks.
    #[must_use]
    pub fn take(dir: &Path) -> Self {
        let mut taken = lock();
        while taken.contains(dir) {
            taken = FREED.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(dir.to_path_buf());
        Self { dir: dir.to_path_buf() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock().remove(&self.dir);
        FREED.notify_all();
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
