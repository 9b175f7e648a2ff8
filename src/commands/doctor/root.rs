//! The root: whether it can be worked on, and by whom.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::check::Check;
use super::machine;
use crate::commands::holder;
use crate::error::{Code, Error};
use crate::session::{LOST_AND_FOUND, STATE_DIR};

/// More than these are not looked at.
const MOST: u64 = 500_000;

/// Everything about the root and the machine below it. Blocks; makes nothing.
pub(super) fn checks(root: &Path) -> Vec<Check> {
    let root = match std::path::absolute(root) {
        Ok(root) => root,
        Err(error) => {
            return vec![Check::error("root", &Error::io("the root has no path", error), "--root DIR")];
        }
    };
    // The root itself, or what it would be made in.
    let there = root.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let uid = rustix::process::geteuid().as_raw();
    let mut checks = vec![usable(&root, there, fs::metadata(there), uid), held(&root)];
    let mut tree = Tree::default();
    if there == root && root.is_dir() {
        // What root makes can be anybody's: then the root's owner is the measure.
        let owner = if uid == 0 { fs::metadata(&root).map_or(uid, |stat| stat.uid()) } else { uid };
        tree.walk(&root, owner);
        checks.push(owners(&tree, owner));
    }
    checks.extend(machine::checks(there, tree.dirs));
    checks
}

fn usable(root: &Path, there: &Path, stat: io::Result<fs::Metadata>, uid: u32) -> Check {
    const NAME: &str = "root";
    let (shown, part) = (root.display(), there.display());
    let failed = |found, advice| Check::fail(NAME, Code::BadRoot, found, advice);
    let stat = match stat {
        Ok(stat) => stat,
        Err(error) => {
            return failed(format!("{part} cannot be followed: {error}"), "give another --root".to_owned());
        }
    };
    if !stat.is_dir() {
        return failed(
            format!("{part} is a file"),
            "--root must be a directory: give another one".to_owned(),
        );
    }
    if let Err(error) = access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let found = format!("{part} cannot be written: {}", io::Error::from(error));
        let owner = stat.uid();
        return failed(
            found,
            format!("it belongs to uid {owner}, and this is uid {uid}: use one uid for all"),
        );
    }
    if there == root {
        return Check::ok(NAME, format!("{shown} can be written, and belongs to uid {}", stat.uid()));
    }
    Check::ok(NAME, format!("{shown} does not exist yet, and can be made"))
}

fn held(root: &Path) -> Check {
    const NAME: &str = "process";
    match holder::find(root) {
        Ok(Some(_)) => Check::ok(NAME, "a session-sidecar holds this root: `status` asks it"),
        Ok(None) => Check::ok(NAME, "no session-sidecar answers for this root"),
        Err(error) => Check::error(NAME, &error, "run this as the user that the sidecar runs as"),
    }
}

/// What lies below the root.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tree {
    /// Directories that are watched.
    dirs: u64,
    /// Everything.
    entries: u64,
    /// Of others.
    foreign: u64,
    /// The first of these.
    example: Option<PathBuf>,
    /// Directories that could not be read.
    closed: u64,
}

impl Tree {
    fn walk(&mut self, root: &Path, owner: u32) {
        let mut left = vec![root.to_path_buf()];
        while let Some(dir) = left.pop() {
            self.dirs += 1;
            let Ok(entries) = fs::read_dir(&dir) else {
                self.closed += 1;
                continue;
            };
            // What is removed meanwhile is nothing to count.
            let stats = entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?, entry)));
            for (stat, entry) in stats {
                if self.entries >= MOST {
                    return;
                }
                let name = entry.file_name();
                if name == LOST_AND_FOUND && dir == root {
                    continue;
                }
                self.entries += 1;
                if stat.uid() != owner {
                    self.foreign += 1;
                    self.example.get_or_insert_with(|| entry.path());
                }
                if stat.is_dir() && name != STATE_DIR {
                    left.push(entry.path());
                }
            }
        }
    }
}

fn owners(tree: &Tree, owner: u32) -> Check {
    const NAME: &str = "owner";
    let Tree { entries, foreign, closed, example, .. } = tree;
    let advice = format!(
        "run bot and sidecar with one uid, and give it all: `chown -R {owner}`. A tree that the bot cannot read is a lost \
         identity to it"
    );
    if let Some(example) = example {
        let found =
            format!("{foreign} of {entries} entries do not belong to uid {owner}: {}", example.display());
        return Check::warn(NAME, found, advice);
    }
    if *closed > 0 {
        return Check::warn(NAME, format!("{closed} directories cannot be read"), advice);
    }
    Check::ok(NAME, format!("all {entries} entries belong to uid {owner}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::commands::doctor::check::Verdict;

    fn root_check(root: &Path) -> Check {
        checks(root).swap_remove(0)
    }

    #[test]
    fn a_root_is_used_as_it_is_or_can_be_made_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(root_check(dir.path()).verdict, Verdict::Ok);
        let new = dir.path().join("a/b");
        assert!(root_check(&new).found.contains("can be made"));
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn a_root_that_cannot_be_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink("nowhere", &link).unwrap();
        for root in [file.clone(), file.join("below"), link] {
            assert_eq!(root_check(&root).code, Some(Code::BadRoot), "{}", root.display());
        }
    }

    #[test]
    fn files_of_another_uid_are_told_and_the_state_directory_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("u/s")).unwrap();
        fs::create_dir_all(dir.path().join(STATE_DIR).join("fence")).unwrap();
        fs::write(dir.path().join("u/s/creds.json"), "{}").unwrap();
        let uid = fs::metadata(dir.path()).unwrap().uid();
        let walked = |owner| {
            let mut tree = Tree::default();
            tree.walk(dir.path(), owner);
            tree
        };
        assert_eq!((walked(uid).dirs, walked(uid).entries, walked(uid).foreign), (3, 4, 0));
        assert_eq!(owners(&walked(uid), uid).verdict, Verdict::Ok);
        let foreign = owners(&walked(uid + 1), uid + 1);
        assert!(foreign.verdict == Verdict::Warn && foreign.found.starts_with("4 of 4"), "{foreign:?}");
    }
}
