//! The `tar.zst` of a commit: `commit.json`, then `files/<path>` and `blocks/<path>`. Standard tools open it; with
//! recipients it is inside of an `age` file.

mod read;
mod write;

pub(in crate::history) use read::{Checked, copy_packed};
pub use read::{Item, Parts, Visit, header, unpack};
pub(in crate::history) use write::split;
pub use write::{Frozen, freeze};

/// Name of the first entry.
const COMMIT: &str = "commit.json";
/// What stands before the path of a file.
const FILES: &str = "files/";
/// What stands before the path of a file that is patched.
const BLOCKS: &str = "blocks/";

#[cfg(test)]
mod tests;
