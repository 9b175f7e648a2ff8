//! What the code asks of the machine it runs on: the wall clock, durability, and points at which tests crash it.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use jiff::Timestamp;

/// A moment of publish, commit or recovery at which a crash leaves a state of its own.
///
/// Tests end a life there; the real host lets every step pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step(pub &'static str);

/// The machine: replaced in tests, so that time can be set and power cut.
pub trait Host: Send + Sync + Debug {
    /// The wall clock. Only for names, logs and figures that people read: no promise rests on it.
    fn now(&self) -> Timestamp;

    /// A step that a test may end the life at.
    ///
    /// # Errors
    /// Only in tests: the process counts as dead and nothing may be written after it.
    fn step(&self, _: Step) -> io::Result<()> {
        Ok(())
    }

    /// Called after a file or a directory was made durable (`fsync`): a power cut in a test rolls back what was not.
    fn synced(&self, _: &Path) {}

    /// Called after everything on the file system of a path was (`syncfs`).
    fn synced_all(&self, _: &Path) {}
}

/// The real machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Host for Real {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
