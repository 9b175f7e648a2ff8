//! What tests of all modules share.

/// A directory for hundreds of lives with an `fsync` at every step: in memory where there is such a file system.
pub fn memory_backed() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
