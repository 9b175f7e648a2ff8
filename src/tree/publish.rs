//! Puts a staged tree in the place of the old one, so that a crash at any moment leaves the old tree or the
//! new one, and the old one in set-aside once the new one is there.
//!
//! A marker, durable before anything moves, says what moves where; [`recover`] finishes it or undoes it.
//! A session directory is exchanged in one step (`RENAME_EXCHANGE`). Which of the two trees is which
//! afterwards is told by a sentinel file in the new one, under a name that no tree can hold: inode
//! numbers are not stable on overlays and network file systems. Where there is no exchange, where
//! the root itself is the session, and where only some files are replaced, entries move one by one
//! (see [`moves`](super::moves)).

mod marker;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use self::marker::{Marker, Way};
use super::beneath::file_type;
use super::disk::{Disk, above};
use super::json::has_json_name;
use super::moves::{Move, Moves};
use super::sqlite::sides_of;
use super::staging::Staged;
use crate::host::{Host, Step};
use crate::session::{LOST_AND_FOUND, Layout, STATE_DIR, SessionKey};

/// The name of a marker in the state directory of its session.
pub const MARKER: &str = "publish.json";
/// The time in the name `{timestamp}-{n}` of a tree that was set aside, in UTC, for `strftime`.
pub const STAMP: &str = "%Y%m%dT%H%M%SZ";
const PRIVATE: u32 = 0o700;

/// Where a session lies and where its publish keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The root, absolute.
    pub root: PathBuf,
    /// The session directory, relative to the root; empty when the root is the session.
    pub session: PathBuf,
    /// The marker, relative to the root.
    pub marker: PathBuf,
    /// Where old trees of this session go, relative to the root.
    pub set_aside: PathBuf,
    /// Where the tree is read that lies elsewhere, absolute. Nothing is ever published there.
    pub elsewhere: Option<PathBuf>,
}

impl Site {
    /// Of a session below a root.
    #[must_use]
    pub fn new(root: &Path, layout: &Layout, key: &SessionKey) -> Self {
        let below = |part: &str| Path::new(STATE_DIR).join(part).join(key.user()).join(key.session());
        Self {
            root: root.to_path_buf(),
            session: layout.dir(Path::new(""), key),
            marker: below("sessions").join(MARKER),
            set_aside: below("set-aside"),
            elsewhere: None,
        }
    }

    /// The session directory, absolute.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        if let Some(elsewhere) = &self.elsewhere {
            return elsewhere.clone();
        }
        if self.is_root() { self.root.clone() } else { self.root.join(&self.session) }
    }

    /// Whether a publish was cut off here, so that [`recover`] must be called.
    pub fn is_cut_off(&self, host: &dyn Host) -> io::Result<bool> {
        Disk::open(&self.root, host)?.exists(&self.marker)
    }

    fn is_root(&self) -> bool {
        self.session.as_os_str().is_empty()
    }
}

/// What a publish left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where the old tree lies, absolute; none when there was nothing.
    pub set_aside: Option<PathBuf>,
}

/// What an earlier life left half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// Nothing.
    None,
    /// The new tree is in place, the old one set aside.
    Finished,
    /// The old tree is in place again.
    Undone,
}

/// Replaces the tree of a session by a staged one. (P1, P7)
///
/// The caller knows that no bot uses the tree and that the seal is acknowledged. Blocks.
///
/// # Errors
/// After an error the tree that is in place is whole (the old one, if it could be undone), unless
/// [`Site::is_cut_off`] says that [`recover`] must be called before it is read.
pub fn publish(site: &Site, staged: Staged, host: &dyn Host) -> io::Result<Published> {
    publish_on(&Disk::open(&site.root, host)?, site, staged)
}

fn publish_on(disk: &Disk<'_>, site: &Site, staged: Staged) -> io::Result<Published> {
    if site.is_root() {
        let old = top_level(disk, Path::new(""))?;
        let new = top_level(disk, staged.path())?;
        return move_entries(disk, site, staged, &old, &new);
    }
    disk.make_dirs(above(&site.session), staged.dir_mode, staged.owner)?;
    if !disk.exists(&site.session)? {
        // One step that is whole by itself: no marker.
        disk.rename(staged.path(), &site.session, Step("publish: move the new tree in"))?;
        let staged = staged.keep();
        disk.host().step(Step("publish: sync"))?;
        disk.sync_dir(above(&site.session))?;
        disk.sync_dir(above(&staged))?;
        return Ok(Published { set_aside: None });
    }
    let aside = fresh_aside(disk, site)?;
    disk.make_dirs(above(&aside), PRIVATE, None)?;
    let marker = Marker::new(site, Some(staged.path()), &aside, Way::Exchange);
    marker::begin(disk, site, marker, Some(staged))?;
    Ok(Published { set_aside: Some(disk.absolute(&aside)) })
}

/// Replaces some files of a tree, and removes some, all of them or none. What was there is set aside. (P1, P7)
///
/// For groups of which a part is unfit: every file of the staged tree goes to its place. Blocks; the errors
/// are those of [`publish`].
pub fn replace(
    site: &Site,
    staged: Staged,
    remove: &BTreeSet<String>,
    host: &dyn Host,
) -> io::Result<Published> {
    replace_on(&Disk::open(&site.root, host)?, site, staged, remove)
}

fn replace_on(
    disk: &Disk<'_>,
    site: &Site,
    staged: Staged,
    remove: &BTreeSet<String>,
) -> io::Result<Published> {
    let new = files(disk, staged.path(), Path::new(""))?;
    let mut old = new.clone();
    old.extend(remove.iter().map(PathBuf::from));
    // What lies beside an old database would be taken for the new one's. // P1
    let databases = new.iter().filter_map(|path| path.to_str()).filter(|path| !has_json_name(path));
    old.extend(databases.flat_map(sides_of).map(PathBuf::from));
    let mut present = Vec::new();
    for path in old {
        if disk.exists(&site.session.join(&path))? {
            present.push(path);
        }
    }
    for path in &new {
        disk.make_dirs(above(&site.session.join(path)), staged.dir_mode, staged.owner)?;
    }
    move_entries(disk, site, staged, &present, &new)
}

/// Moves the tree of a session away and puts nothing in its place. (P7)
///
/// Blocks; the errors are those of [`publish`].
pub fn set_aside(site: &Site, host: &dyn Host) -> io::Result<Published> {
    set_aside_on(&Disk::open(&site.root, host)?, site)
}

fn set_aside_on(disk: &Disk<'_>, site: &Site) -> io::Result<Published> {
    let mut moves = Moves::default();
    let aside = fresh_aside(disk, site)?;
    if site.is_root() {
        for name in top_level(disk, Path::new(""))? {
            moves.out.push(Move::new(&name, &aside.join(&name)));
        }
    } else if disk.exists(&site.session)? {
        moves.out.push(Move::new(&site.session, &aside));
    }
    move_all(disk, site, None, &aside, moves)
}

/// Finishes or undoes what a marker says. Every command does so before it reads a tree. (line 1 of the start table)
///
/// # Errors
/// Neither was possible, or the marker cannot be read: the marker stays.
pub fn recover(site: &Site, host: &dyn Host) -> io::Result<Recovered> {
    marker::recover(&Disk::open(&site.root, host)?, site)
}

/// Removes what a dead Chromium left to keep others out (`SingletonLock`, `SingletonCookie`, `SingletonSocket`):
/// it names the host of an earlier life, and Chromium does not start beside it. Returns how many.
///
/// # Errors
/// Of reading directories; the caller knows that no bot uses the tree. (P7)
pub fn remove_singletons(site: &Site, host: &dyn Host) -> io::Result<usize> {
    let disk = Disk::open(&site.root, host)?;
    if !disk.stat(&site.session)?.is_some_and(|stat| file_type(&stat).is_dir()) {
        return Ok(0);
    }
    let mut removed = 0;
    let mut left = vec![site.session.clone()];
    while let Some(dir) = left.pop() {
        for name in disk.names(&dir)? {
            let path = dir.join(&name);
            let Some(stat) = disk.stat(&path)? else { continue };
            if file_type(&stat).is_dir() {
                if !is_reserved(&path) {
                    left.push(path);
                }
            } else if name.as_encoded_bytes().starts_with(b"Singleton") {
                disk.remove_file(&path, Step("publish: remove a Chromium lock"))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Moves entries of the session out, others from staging in.
fn move_entries(
    disk: &Disk<'_>,
    site: &Site,
    staged: Staged,
    old: &[PathBuf],
    new: &[PathBuf],
) -> io::Result<Published> {
    let aside = fresh_aside(disk, site)?;
    let mut moves = Moves::default();
    for path in old {
        moves.out.push(Move::new(&site.session.join(path), &aside.join(path)));
    }
    for path in new {
        moves.into.push(Move::new(&staged.path().join(path), &site.session.join(path)));
    }
    move_all(disk, site, Some(staged), &aside, moves)
}

fn move_all(
    disk: &Disk<'_>,
    site: &Site,
    staged: Option<Staged>,
    aside: &Path,
    moves: Moves,
) -> io::Result<Published> {
    let set_aside = (!moves.out.is_empty()).then(|| disk.absolute(aside));
    if moves.out.is_empty() && moves.into.is_empty() {
        return Ok(Published { set_aside });
    }
    let parents: BTreeSet<&Path> = moves.out.iter().map(|step| above(&step.to)).collect();
    for parent in parents {
        disk.make_dirs(parent, PRIVATE, None)?;
    }
    let marker = Marker::new(site, staged.as_ref().map(Staged::path), aside, Way::Moves(moves));
    marker::begin(disk, site, marker, staged)?;
    Ok(Published { set_aside })
}

/// `{timestamp}-{n}`, free.
fn fresh_aside(disk: &Disk<'_>, site: &Site) -> io::Result<PathBuf> {
    let stamp = disk.host().now().strftime(STAMP).to_string();
    let mut n = 0_u32;
    loop {
        let path = site.set_aside.join(format!("{stamp}-{n}"));
        if !disk.exists(&path)? {
            return Ok(path);
        }
        n += 1;
    }
}

/// What of a directory is part of a tree: all but the state directory and what `mkfs` left.
fn top_level(disk: &Disk<'_>, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let names = disk.names(dir)?.into_iter().map(PathBuf::from);
    Ok(names.filter(|name| !is_reserved(name)).collect())
}

fn is_reserved(path: &Path) -> bool {
    path == Path::new(STATE_DIR) || path == Path::new(LOST_AND_FOUND)
}

/// All that is no directory, relative to the tree.
fn files(disk: &Disk<'_>, tree: &Path, below: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in disk.names(&tree.join(below))? {
        let path = below.join(name);
        match disk.stat(&tree.join(&path))? {
            Some(stat) if file_type(&stat).is_dir() => {
                found.extend(files(disk, tree, &path)?);
            }
            Some(_) => found.push(path),
            None => {}
        }
    }
    Ok(found)
}
