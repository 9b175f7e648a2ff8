//! Where a restore is put together: on the same file system as the session, out of the bot's sight.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Uid};
use uuid::Uuid;

use super::Dir;
use super::disk::Disk;
use super::publish::Site;
use crate::error::{Code, Error};
use crate::host::{Host, Step};
use crate::session::STATE_DIR;

/// What a new session directory gets when there is nothing to copy.
const DIR_MODE: u32 = 0o755;
/// Only we look inside before the publish.
const PRIVATE: u32 = 0o700;

/// Who restored files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// `--chown` decides; else, as root, the owner of the root; else files stay ours (none).
    /// A tree that the bot cannot read is a lost identity to it.
    #[must_use]
    pub fn decide(chown: Option<Self>, root: &Stat, own_uid: u32) -> Option<Self> {
        chown.or((own_uid == 0).then_some(Self { uid: root.st_uid, gid: root.st_gid }))
    }

    pub(super) fn give(self, fd: impl AsFd) -> io::Result<()> {
        Ok(fs::fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        // The highest id means "leave as it is" to the kernel.
        match ids {
            Some((uid, gid)) if uid != u32::MAX && gid != u32::MAX => Ok(Self { uid, gid }),
            _ => Err(Error::new(
                Code::Usage,
                format!("--chown `{}` is not UID:GID, two numbers with a colon between", text.escape_debug()),
            )),
        }
    }
}

/// A tree in the making. Removed when it is dropped before its publish.
#[derive(Debug)]
pub struct Staging {
    scratch: Scratch,
    dir: Dir,
    owner: Option<Owner>,
    dir_mode: u32,
}

impl Staging {
    /// Makes a fresh directory, open to us alone.
    ///
    /// At the end its directories get the mode of the session directory that is there, else 0755 with the
    /// group's write bit and the set-group bit of the root (a pod's `fsGroup` sets both).
    pub fn create(site: &Site, chown: Option<Owner>, host: Arc<dyn Host>) -> io::Result<Self> {
        let disk = Disk::open(&site.root, host.as_ref())?;
        let root = disk.stat(Path::new(""))?.ok_or(io::ErrorKind::NotFound)?;
        let session = disk.stat(&site.session)?.filter(|stat| file_type(stat).is_dir());
        let dir_mode = session.map_or(DIR_MODE | (root.st_mode & 0o2020), |stat| stat.st_mode & 0o2777);
        let path = Path::new(STATE_DIR).join("staging").join(Uuid::new_v4().to_string());
        disk.make_dirs(&path, PRIVATE, None)?;
        let dir = Dir::open(&disk.absolute(&path))?;
        let owner = Owner::decide(chown, &root, rustix::process::geteuid().as_raw());
        Ok(Self {
            scratch: Scratch { root: site.root.clone(), path: Some(path), host },
            dir,
            owner,
            dir_mode,
        })
    }

    /// Where the tree is put together.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Gives everything its owner, directories their mode, and makes all of it durable.
    pub fn finish(self) -> io::Result<Staged> {
        let Self { scratch, dir, owner, dir_mode } = self;
        // A set-group bit comes from the parent and is of no harm; a directory we could not enter again is.
        let mode = Mode::from_raw_mode(dir_mode | PRIVATE);
        scratch.host.step(Step("staging: owner and modes"))?;
        settle(&dir, mode, owner)?;
        scratch.host.step(Step("staging: sync"))?;
        dir.sync_filesystem()?;
        scratch.host.synced_all(&scratch.root);
        Ok(Staged { scratch, owner, dir_mode: dir_mode | PRIVATE })
    }
}

/// Children first: a directory that is given away may be closed to us.
fn settle(dir: &Dir, mode: Mode, owner: Option<Owner>) -> io::Result<()> {
    for name in dir.names()? {
        let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
        let stat = dir.stat(name)?;
        if file_type(&stat).is_dir() {
            settle(&dir.dir(name)?, mode, owner)?;
        } else if let Some(Owner { uid, gid }) = owner
            // Thousands of files, each of which would be written to disk again.
            && (uid, gid) != (stat.st_uid, stat.st_gid)
        {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    if let Some(owner) = owner {
        owner.give(dir)?;
    }
    Ok(fs::fchmod(dir, mode)?)
}

fn file_type(stat: &Stat) -> FileType {
    super::beneath::file_type(stat)
}

/// A whole tree, durable, ready to be published.
#[derive(Debug)]
pub struct Staged {
    scratch: Scratch,
    pub(super) owner: Option<Owner>,
    pub(super) dir_mode: u32,
}

impl Staged {
    /// Relative to the root.
    pub(super) fn path(&self) -> &Path {
        self.scratch.path.as_deref().expect("taken only by `keep`, which consumes it")
    }

    /// From here on the publish and its marker answer for the directory: it may hold the old tree.
    pub(super) fn keep(mut self) -> PathBuf {
        self.scratch.path.take().expect("taken only here")
    }
}

#[derive(Debug)]
struct Scratch {
    root: PathBuf,
    path: Option<PathBuf>,
    host: Arc<dyn Host>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        let removed = Disk::open(&self.root, self.host.as_ref())
            .and_then(|disk| disk.remove_all(path, Step("staging: remove")));
        if let Err(error) = removed {
            tracing::warn!(%error, "staging was not removed; the next start does it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::host::Real;
    use crate::session::{Layout, SessionKey};
    use crate::tree::publish::publish;

    fn site(root: &Path) -> Site {
        Site::new(root, &Layout::Many, &SessionKey::new("u", "s").unwrap())
    }

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!("10001:0".parse::<Owner>().unwrap(), Owner { uid: 10001, gid: 0 });
        for bad in ["", "1", "1:", ":1", "node:node", "1:2:3", "-1:0", "4294967295:0"] {
            assert_eq!(bad.parse::<Owner>().unwrap_err().code(), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn files_get_the_configured_owner_or_as_root_that_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let stat = fs::stat(dir.path()).unwrap();
        let chown = Owner { uid: 5, gid: 6 };
        assert_eq!(Owner::decide(Some(chown), &stat, 1000), Some(chown));
        assert_eq!(Owner::decide(None, &stat, 1000), None);
        assert_eq!(Owner::decide(None, &stat, 0), Some(Owner { uid: stat.st_uid, gid: stat.st_gid }));
    }

    #[test]
    fn all_of_a_restored_tree_belongs_to_the_owner_and_files_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        // Only root may give files away.
        let is_root = rustix::process::geteuid().is_root();
        let me = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let owner = if is_root { Owner { uid: 12_345, gid: 54_321 } } else { me };
        let site = site(dir.path());
        let staging = Staging::create(&site, Some(owner), Arc::new(Real)).unwrap();
        std_fs::create_dir(staging.dir().path().join("keys")).unwrap();
        std_fs::write(staging.dir().path().join("keys/a"), "").unwrap();
        let mode = std_fs::Permissions::from_mode(0o600);
        std_fs::set_permissions(staging.dir().path().join("keys/a"), mode).unwrap();
        publish(&site, staging.finish().unwrap(), &Real).unwrap();
        for (path, mode) in [("u", 0o755), ("u/s", 0o755), ("u/s/keys", 0o755), ("u/s/keys/a", 0o600)] {
            let stat = std_fs::metadata(dir.path().join(path)).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (owner.uid, owner.gid), "{path}");
            assert_eq!(stat.mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn a_group_that_may_write_the_root_may_write_what_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        // A pod's `fsGroup` does so.
        std_fs::set_permissions(dir.path(), std_fs::Permissions::from_mode(0o2775)).unwrap();
        let site = site(dir.path());
        let staging = Staging::create(&site, None, Arc::new(Real)).unwrap();
        std_fs::create_dir(staging.dir().path().join("keys")).unwrap();
        publish(&site, staging.finish().unwrap(), &Real).unwrap();
        for path in ["u/s", "u/s/keys"] {
            let mode = std_fs::metadata(dir.path().join(path)).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o2775, "{path}");
        }
    }

    #[test]
    fn staging_is_private_and_gone_when_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::create(&site(dir.path()), None, Arc::new(Real)).unwrap();
        let path = staging.dir().path().to_path_buf();
        assert_eq!(std_fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std_fs::write(path.join("creds.json"), "").unwrap();
        drop(staging);
        assert!(!path.exists());
        let staged = Staging::create(&site(dir.path()), None, Arc::new(Real)).unwrap().finish().unwrap();
        let path = dir.path().join(staged.path());
        assert!(path.exists());
        drop(staged);
        assert!(!path.exists());
    }
}
