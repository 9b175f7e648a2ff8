//! Entries that move one by one, old ones out and new ones in, in a way that can be taken up or taken
//! back after a crash, or a power cut that lost any of the renames that were not yet made durable.
//!
//! Nothing but the places of things is remembered. The moves have two phases with a barrier (all
//! directories durable) between. A move out is done when its target is there: set-aside is ours alone.
//! A move in is done when its source is gone: so is staging. A power cut takes back renames of the
//! phase that was under way only, and each of them is judged by itself, so their order does not matter.
//! The way back goes through the same places, so it may be turned round again as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Relative, above};
use crate::host::Step;

/// From where to where, relative to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it lies before.
    pub from: Relative,
    /// Where it lies after.
    pub to: Relative,
}

impl Move {
    /// From one path to another.
    #[must_use]
    pub fn new(from: &Path, to: &Path) -> Self {
        Self { from: Relative(from.to_path_buf()), to: Relative(to.to_path_buf()) }
    }
}

/// What moves in one publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// Out of the session, into set-aside.
    pub out: Vec<Move>,
    /// Out of staging, into the session.
    pub into: Vec<Move>,
}

impl Moves {
    /// A whole session directory, where the file system cannot exchange two.
    #[must_use]
    pub fn whole(session: &Path, aside: &Path, staged: &Path) -> Self {
        Self { out: vec![Move::new(session, aside)], into: vec![Move::new(staged, session)] }
    }

    /// Does what is not done yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] before anything moves when a new entry is lost.
    pub fn carry_out(&self, disk: &Disk<'_>, aside: &Path) -> io::Result<()> {
        let staying = self.staying(disk)?;
        let coming = present(disk, self.into.iter().map(|step| &*step.from))?;
        for step in &self.into {
            if !coming.contains(&*step.from) && (staying.contains(&*step.to) || !disk.exists(&step.to)?) {
                let text = format!("{} is lost", disk.absolute(&step.from).display());
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        }
        for step in self.out.iter().filter(|step| staying.contains(&*step.from)) {
            disk.rename(&step.from, &step.to, Step("publish: move an old entry out"))?;
        }
        barrier(disk, &self.out)?;
        for step in self.into.iter().filter(|step| coming.contains(&*step.from)) {
            move_in(disk, step, aside)?;
        }
        barrier(disk, &self.into)
    }

    /// Takes back what is done.
    pub fn undo(&self, disk: &Disk<'_>) -> io::Result<()> {
        let staying = self.staying(disk)?;
        let mut back = Vec::new();
        for step in &self.into {
            let moved = !disk.exists(&step.from)? && disk.exists(&step.to)? && !staying.contains(&*step.to);
            if moved {
                disk.make_dirs(above(&step.from), 0o700, None)?;
                disk.rename(&step.to, &step.from, Step("publish: move a new entry back"))?;
                back.push(step.clone());
            }
        }
        barrier(disk, &back)?;
        for step in self.out.iter().rev() {
            if !disk.exists(&step.to)? {
                continue;
            }
            match disk.rename(&step.to, &step.from, Step("publish: move an old entry back")) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    tracing::warn!(
                        found = %disk.absolute(&step.from).display(), kept = %disk.absolute(&step.to).display(),
                        "something was written while a publish was undone; the old entry stays in set-aside"
                    );
                }
                done => done?,
            }
        }
        barrier(disk, &self.out)
    }

    /// Old entries that were not moved out: their places still hold the old, not the new.
    fn staying(&self, disk: &Disk<'_>) -> io::Result<BTreeSet<&Path>> {
        let there = present(disk, self.out.iter().flat_map(|step| [&*step.from, &*step.to]))?;
        let stays = |step: &&Move| there.contains(&*step.from) && !there.contains(&*step.to);
        Ok(self.out.iter().filter(stays).map(|step| &*step.from).collect())
    }
}

/// Which of these are there. Every directory is read once: it may hold thousands of them, and to ask for each would
/// open all directories above it each time.
fn present<'a>(disk: &Disk<'_>, paths: impl Iterator<Item = &'a Path>) -> io::Result<BTreeSet<&'a Path>> {
    let mut dirs: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for path in paths {
        dirs.entry(above(path)).or_default().insert(path);
    }
    let mut present = BTreeSet::new();
    for (dir, asked) in dirs {
        for name in disk.names(dir)? {
            present.extend(asked.get(&*dir.join(name)));
        }
    }
    Ok(present)
}

/// Moves a new entry in. What a bot that should not run has put in its place is set aside as well.
fn move_in(disk: &Disk<'_>, step: &Move, aside: &Path) -> io::Result<()> {
    let rename = || disk.rename(&step.from, &step.to, Step("publish: move a new entry in"));
    match rename() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let name = step.to.file_name().unwrap_or_default().to_string_lossy();
            let mut found = aside.join(format!("{name}.found"));
            for n in 1.. {
                if !disk.exists(&found)? {
                    break;
                }
                found.set_file_name(format!("{name}.found-{n}"));
            }
            tracing::warn!(
                found = %disk.absolute(&step.to).display(), kept = %disk.absolute(&found).display(),
                "something was written during a publish: does a bot run already?"
            );
            disk.make_dirs(above(&found), 0o700, None)?;
            disk.rename(&step.to, &found, Step("publish: move a found entry out"))?;
            disk.sync_dir(above(&found))?;
            rename()
        }
        done => done,
    }
}

fn barrier(disk: &Disk<'_>, moves: &[Move]) -> io::Result<()> {
    disk.host().step(Step("publish: barrier"))?;
    let dirs: BTreeSet<&Path> = moves.iter().flat_map(|step| [above(&step.to), above(&step.from)]).collect();
    for dir in dirs {
        match disk.sync_dir(dir) {
            // Staging of a publish that is undone may be gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}
