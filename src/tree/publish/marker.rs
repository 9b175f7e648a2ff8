//! What moves where, kept on disk while it moves, and how it is finished or undone.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PRIVATE, Recovered, Site};
use crate::host::Step;
use crate::session::STATE_DIR;
use crate::tree::beneath::file_type;
use crate::tree::disk::{Disk, Relative, above, unsupported};
use crate::tree::moves::Moves;
use crate::tree::staging::Staged;

const FORMAT: u32 = 1;

/// What moves where; the file at [`Site::marker`]. Paths are relative to the root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// Also in the sentinel.
    id: Uuid,
    /// The staged tree; none when an old tree is only moved away.
    staged: Option<Relative>,
    session: Relative,
    /// Where the old tree goes.
    aside: Relative,
    way: Way,
}

impl Marker {
    pub(super) fn new(site: &Site, staged: Option<&Path>, aside: &Path, way: Way) -> Self {
        Self {
            format: FORMAT,
            id: Uuid::new_v4(),
            staged: staged.map(|path| Relative(path.to_path_buf())),
            session: Relative(site.session.clone()),
            aside: Relative(aside.to_path_buf()),
            way,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// Staged tree and session directory change places.
    Exchange,
    /// One by one.
    Moves(Moves),
}

/// Does what a marker says from its first step on. From the moment the marker is written it answers for the
/// staged tree, which may become the old one.
///
/// After an error the tree in place is whole, and the marker is gone if nothing is left to do.
pub(super) fn begin(
    disk: &Disk<'_>,
    site: &Site,
    mut marker: Marker,
    staged: Option<Staged>,
) -> io::Result<()> {
    if let (Way::Exchange, Some(staged)) = (&marker.way, &staged) {
        disk.replace(&sentinel(staged.path()), marker.id.to_string().as_bytes())?;
    }
    write(disk, site, &marker)?;
    let staged = staged.map(Staged::keep);
    let done = match (carry_out(disk, &marker), &staged) {
        (Err(error), Some(staged)) if matches!(marker.way, Way::Exchange) && unsupported(&error) => {
            marker.way = Way::Moves(Moves::whole(&marker.session, &marker.aside, staged));
            write(disk, site, &marker).and_then(|()| carry_out(disk, &marker))
        }
        (done, _) => done,
    };
    match done {
        Ok(()) => end(disk, site, &marker),
        Err(error) => {
            if let Err(second) = undo(disk, site, &marker) {
                tracing::error!(error = %second, "a failed publish could not be undone; the next start tries again");
            }
            Err(explain(error))
        }
    }
}

/// See [`recover`](super::recover).
pub(super) fn recover(disk: &Disk<'_>, site: &Site) -> io::Result<Recovered> {
    let Some(bytes) = disk.read(&site.marker)? else {
        return Ok(Recovered::None);
    };
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| {
        let path = disk.absolute(&site.marker);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} cannot be read ({error}): a publish was interrupted and cannot be finished. \
                 The trees are below {}; put the right one in place and remove the marker",
                path.display(),
                disk.absolute(Path::new(STATE_DIR)).display(),
            ),
        )
    })?;
    if marker.format != FORMAT {
        let text =
            format!("{} is of another version; finish with that one", disk.absolute(&site.marker).display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    match carry_out(disk, &marker) {
        Ok(()) => {
            end(disk, site, &marker)?;
            Ok(Recovered::Finished)
        }
        Err(error) => {
            tracing::warn!(%error, "an interrupted publish cannot be finished and is undone");
            undo(disk, site, &marker)?;
            Ok(Recovered::Undone)
        }
    }
}

/// Goes on from wherever the marker's way stands; doing it twice is doing it once.
fn carry_out(disk: &Disk<'_>, marker: &Marker) -> io::Result<()> {
    match (&marker.way, &marker.staged) {
        (Way::Moves(moves), _) => moves.carry_out(disk, &marker.aside)?,
        (Way::Exchange, Some(staged)) => {
            if has_sentinel(disk, staged, marker.id)? {
                exchange(disk, marker, staged)?;
            }
            if disk.exists(staged)? {
                disk.rename(staged, &marker.aside, Step("publish: set the old tree aside"))?;
            } else if !disk.exists(&marker.aside)? {
                let text = format!("{} is lost", disk.absolute(staged).display());
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            disk.host().step(Step("publish: sync"))?;
            disk.sync_dir(above(&marker.aside))?;
            disk.sync_dir(above(staged))?;
        }
        (Way::Exchange, None) => return Err(io::ErrorKind::InvalidData.into()),
    }
    if has_sentinel(disk, &marker.session, marker.id)? {
        disk.remove_file(&sentinel(&marker.session), Step("publish: remove the sentinel"))?;
    }
    Ok(())
}

fn exchange(disk: &Disk<'_>, marker: &Marker, staged: &Path) -> io::Result<()> {
    disk.exchange(staged, &marker.session, Step("publish: exchange"))?;
    disk.host().step(Step("publish: sync"))?;
    disk.sync_dir(above(&marker.session))?;
    disk.sync_dir(above(staged))
}

fn undo(disk: &Disk<'_>, site: &Site, marker: &Marker) -> io::Result<()> {
    match (&marker.way, &marker.staged) {
        (Way::Moves(moves), _) => moves.undo(disk)?,
        (Way::Exchange, Some(staged)) if has_sentinel(disk, &marker.session, marker.id)? => {
            if disk.exists(&marker.aside)? {
                disk.rename(&marker.aside, staged, Step("publish: take the old tree back"))?;
            }
            exchange(disk, marker, staged)?;
        }
        // Without the sentinel nobody knows what lies in staging: it may be the only copy of the old tree.
        (Way::Exchange, Some(staged)) if disk.exists(staged)? && !has_sentinel(disk, staged, marker.id)? => {
            let text =
                format!("{} is not told from the session: look at both", disk.absolute(staged).display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        (Way::Exchange, _) => {}
    }
    end(disk, site, marker)
}

/// The last step: nothing is half done any more. What is left in staging is no longer needed.
fn end(disk: &Disk<'_>, site: &Site, marker: &Marker) -> io::Result<()> {
    disk.remove_file(&site.marker, Step("publish: remove the marker"))?;
    if let Some(staged) = &marker.staged
        && let Err(error) = disk.remove_all(staged, Step("publish: remove staging"))
    {
        tracing::warn!(%error, "staging was not removed; the next start does it");
    }
    Ok(())
}

pub(super) fn write(disk: &Disk<'_>, site: &Site, marker: &Marker) -> io::Result<()> {
    disk.make_dirs(above(&site.marker), PRIVATE, None)?;
    disk.replace(&site.marker, &serde_json::to_vec(marker)?)
}

/// A file that only the new tree has while it is being exchanged; reserved, so no tree can hold it.
fn sentinel(tree: &Path) -> PathBuf {
    tree.join(STATE_DIR)
}

fn has_sentinel(disk: &Disk<'_>, tree: &Path, id: Uuid) -> io::Result<bool> {
    let path = sentinel(tree);
    // Not so the state directory, where the root is the session or once was.
    let is_file = |stat| file_type(&stat).is_file();
    let there = match disk.stat(&path) {
        // The session may be a file or a link.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
        stat => stat?.is_some_and(is_file),
    };
    Ok(there && disk.read(&path)?.is_some_and(|bytes| bytes == id.to_string().as_bytes()))
}

/// A mount below the root cannot be moved; say what to do.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy => io::Error::new(
            error.kind(),
            format!("{error}; something is mounted below the root: mount it as the root itself"),
        ),
        _ => error,
    }
}
