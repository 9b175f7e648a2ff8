//! A machine whose clock is the test's, that can die at any step or call, and whose power can be cut.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::SmallRng;

use crate::host::{Host, Step};
use crate::store::{Fault, Late};
use crate::sync::supervisor::testing::Clock;

/// Where a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Before the n-th step on the disk.
    Step(u32),
    /// Before the n-th call to the store has an effect.
    Before(u32),
    /// After its effect, and before its answer.
    After(u32),
    /// While its upload is under way, which may land whenever it likes.
    Late(u32),
}

/// A file or a directory, by path; what a file held when its name was made durable.
#[derive(Debug, Clone)]
struct Kept {
    mode: u32,
    file: Option<(u64, Vec<u8>)>,
}

type Names = BTreeMap<PathBuf, Kept>;

#[derive(Debug)]
pub struct Machine {
    clock: Clock,
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    death: Option<Death>,
    dead: bool,
    /// As after the last `fsync` of a directory: file systems write names in order, whichever directory it was.
    names: Names,
    /// By inode, as after its last `fsync`.
    contents: BTreeMap<u64, Vec<u8>>,
}

impl Machine {
    /// Whatever lies in the root is durable.
    pub fn new(clock: Clock, root: PathBuf) -> Self {
        let machine = Self { clock, root, state: Mutex::default() };
        machine.synced_all(&machine.root);
        machine
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same machine, with what it knows to be durable, for another life.
    pub fn revived(&self) -> Arc<Self> {
        let state = self.state();
        let (names, contents) = (state.names.clone(), state.contents.clone());
        let state = Mutex::new(State { names, contents, ..State::default() });
        Arc::new(Self { clock: self.clock, root: self.root.clone(), state })
    }

    pub fn doom(&self, death: Death) {
        self.state().death = Some(death);
    }

    pub fn kill(&self) {
        self.state().dead = true;
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// What becomes of a call to the store, if it is not for the weather to decide.
    pub fn call(&self) -> Option<Fault> {
        let mut state = self.state();
        if state.dead {
            return Some(Fault::HangBefore);
        }
        let left = match &mut state.death {
            Some(Death::Before(left) | Death::After(left) | Death::Late(left)) => left,
            Some(Death::Step(_)) | None => return None,
        };
        *left = left.checked_sub(1).unwrap_or_default();
        if *left > 0 {
            return None;
        }
        state.dead = true;
        match state.death {
            Some(Death::After(_)) => Some(Fault::HangAfter),
            Some(Death::Late(_)) => Some(Fault::Late(Late::Called)),
            _ => Some(Fault::HangBefore),
        }
    }

    /// Writes what a disk holds after a power cut to another directory: what was made durable, and of the rest
    /// whatever had reached it.
    pub fn cut_power(&self, random: &mut SmallRng, to: &Path) {
        let state = self.state();
        let names = if random.random_bool(0.5) { state.names.clone() } else { snapshot(&self.root) };
        lay_out(names, to, |inode, then| match state.contents.get(&inode) {
            _ if random.random_bool(0.5) => then,
            Some(durable) => durable.clone(),
            None => Vec::new(),
        });
    }
}

impl Host for Machine {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn step(&self, _: Step) -> io::Result<()> {
        let mut state = self.state();
        if let Some(Death::Step(left)) = &mut state.death {
            *left = left.saturating_sub(1);
            state.dead |= *left == 0;
        }
        if state.dead { Err(io::Error::other("the life has ended")) } else { Ok(()) }
    }

    fn synced(&self, path: &Path) {
        let mut state = self.state();
        if state.dead {
            return;
        }
        if path.is_dir() {
            state.names = snapshot(&self.root);
        } else if let Ok(stat) = fs::symlink_metadata(path) {
            state.contents.insert(stat.ino(), fs::read(path).unwrap());
        }
    }

    fn synced_all(&self, _: &Path) {
        let names = snapshot(&self.root);
        let mut state = self.state();
        if state.dead {
            return;
        }
        state.contents.extend(names.values().filter_map(|kept| kept.file.clone()));
        state.names = names;
    }
}

fn snapshot(root: &Path) -> Names {
    let mut names = Names::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(root).unwrap().to_path_buf();
            let file = if stat.is_file() { Some((stat.ino(), fs::read(&path).unwrap())) } else { None };
            if stat.is_dir() {
                left.push(path);
            } else if !stat.is_file() {
                continue;
            }
            names.insert(relative, Kept { mode: stat.mode() & 0o7777, file });
        }
    }
    names
}

/// An older copy of a disk, or a younger one.
pub fn copy(from: &Path, to: &Path) {
    lay_out(snapshot(from), to, |_, bytes| bytes);
}

fn lay_out(names: Names, to: &Path, mut content: impl FnMut(u64, Vec<u8>) -> Vec<u8>) {
    for (path, Kept { mode, file }) in names {
        let target = to.join(path);
        match file {
            None => fs::create_dir_all(&target).unwrap(),
            Some((inode, bytes)) => fs::write(&target, content(inode, bytes)).unwrap(),
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
    }
}
