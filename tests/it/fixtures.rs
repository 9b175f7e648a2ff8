//! Trees that a real `useMultiFileAuthState` wrote (Baileys 7.0.0-rc13, with made-up contacts and keys that
//! belong to no account).

use std::fs::File;
use std::path::{Path, PathBuf};

/// 100 contacts: 1,257 files, 405,719 bytes.
pub const SMALL: &str = "baileys-100";
/// 1,000 contacts: 5,461 files, 3,151,624 bytes.
pub const LARGE: &str = "baileys-1000";

/// Unpacks a tree into a directory.
pub fn unpack(name: &str, into: &Path) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", &format!("{name}.tar.zst")].iter().collect();
    let unzipped = zstd::Decoder::new(File::open(path).unwrap()).unwrap();
    tar::Archive::new(unzipped).unpack(into).unwrap();
}
