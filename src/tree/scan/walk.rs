//! The walk. Directories are opened one after the other by their path from the top, never through a link.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Dir, Filter, Found, Reason, Scan, itself_and_above};
use crate::tree::beneath::file_type;
use crate::tree::json::has_json_name;
use crate::tree::leveldb;
use crate::tree::sqlite::{self, Database, Sides};
use crate::tree::table::check_path;

/// Scans a whole tree.
///
/// # Errors
/// When the top itself cannot be listed, or was deleted behind the open descriptor: nothing is known then,
/// and nothing may be concluded. Open the directory anew for every scan. Whatever cannot be read below the
/// top is held instead.
pub fn scan(dir: &Dir, filter: &Filter) -> io::Result<Scan> {
    let mut scan = Scan::default();
    Walk::new(dir, filter, &mut scan).all_below(dir, "", dir.names()?);
    still_there(dir)?;
    Ok(scan)
}

/// Scans some paths of a tree: files one by one, directories with all below them. Paths that no tree can
/// hold are passed over.
///
/// # Errors
/// As for [`scan`].
pub fn scan_some(dir: &Dir, filter: &Filter, paths: &BTreeSet<String>) -> io::Result<Scan> {
    if paths.contains("") {
        return scan(dir, filter);
    }
    let mut scan = Scan { scope: Some(BTreeSet::new()), ..Scan::default() };
    let mut walk = Walk::new(dir, filter, &mut scan);
    // What happens to a side file happens to its database.
    let databases = paths.iter().filter_map(|path| sqlite::database_of(path)).collect::<BTreeSet<_>>();
    for path in paths.iter().map(String::as_str).chain(databases) {
        if check_path(path).is_ok() && !walk.scan.covers(path) && !walk.scan.is_held(path) {
            walk.one_or_its_database(path);
        }
    }
    still_there(dir)?;
    Ok(scan)
}

/// A deleted directory answers every `lstat` below it with `ENOENT`: all files would seem gone.
fn still_there(dir: &Dir) -> io::Result<()> {
    match rustix::fs::fstat(dir)?.st_nlink {
        0 => Err(Errno::NOENT.into()),
        _ => Ok(()),
    }
}

/// Whether a path of the head is no file of the tree any more: the second look at a removal. Excluded
/// paths and side files of databases are not in the tree, nor is what lies where a link or another file stands now.
///
/// # Errors
/// Whatever is not absence: the path is to be held.
pub fn absent(dir: &Dir, filter: &Filter, path: &str) -> io::Result<bool> {
    if !filter.includes(path) {
        return Ok(true);
    }
    match dir.stat(path) {
        Ok(stat) if Found::of(&stat).is_none() => Ok(true),
        Ok(_) => sqlite::is_side(dir, filter, path, |database| sqlite::Kind::sniff(dir, database)),
        Err(error) if is_absence(&error) => Ok(true),
        Err(_) if above_is_no_directory(dir, path) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether a file or link stands where a directory above this path would have to be.
fn above_is_no_directory(dir: &Dir, path: &str) -> bool {
    itself_and_above(path)
        .skip(1)
        .filter(|above| !above.is_empty())
        .any(|above| dir.stat(above).is_ok_and(|stat| file_type(&stat) != FileType::Directory))
}

/// What stands under a name.
enum Kind {
    /// Nothing, or nothing that belongs to the tree.
    Out,
    Directory,
    File(Found),
    Link,
    Special,
    /// Something, but only that is known.
    Unreadable,
}

struct Walk<'a> {
    top: &'a Dir,
    filter: &'a Filter,
    scan: &'a mut Scan,
    /// Directories that [`Walk::is_leveldb`] has looked at.
    no_leveldb: HashSet<String>,
    /// What the headers of files say that were opened for that.
    kinds: RefCell<HashMap<String, sqlite::Kind>>,
}

impl<'a> Walk<'a> {
    fn new(top: &'a Dir, filter: &'a Filter, scan: &'a mut Scan) -> Self {
        Self { top, filter, scan, no_leveldb: HashSet::new(), kinds: RefCell::default() }
    }

    /// Everything below a directory whose names are known. Iterative, with one directory open at a time: a
    /// hostile depth costs neither stack nor descriptors.
    fn all_below(&mut self, dir: &Dir, path: &str, names: Vec<OsString>) {
        let mut ahead = Vec::new();
        self.directory(dir, path, names, &mut ahead);
        while let Some(path) = ahead.pop() {
            match self.top.dir(&path).and_then(|dir| Ok((dir.names()?, dir))) {
                Ok((names, dir)) => self.directory(&dir, &path, names, &mut ahead),
                Err(error) if is_absence(&error) => {}
                Err(_) => self.hold(path, Reason::Unreadable),
            }
        }
    }

    /// One directory; those below are left for later.
    fn directory(&mut self, dir: &Dir, path: &str, names: Vec<OsString>, ahead: &mut Vec<String>) {
        let mut known = HashSet::with_capacity(names.len());
        let mut bare = true;
        for name in names {
            match name.into_string() {
                Ok(name) => drop(known.insert(name)),
                Err(name) => bare &= !self.nameless(path, name.as_bytes()),
            }
        }
        if leveldb::is_leveldb(known.iter().map(String::as_str))
            && self.filter.includes(&join(path, leveldb::CURRENT))
            && !path.is_empty()
        {
            self.scan.leveldbs.insert(path.to_owned(), leveldb::blobs_of(path));
            known.retain(|name| !leveldb::is_scrap(name));
        }
        for name in &known {
            let path = join(path, name);
            match self.kind(dir, name, &path) {
                Kind::Out => {}
                Kind::Link => self.scan.links += 1,
                Kind::Special => self.scan.special += 1,
                Kind::Directory => {
                    bare = false;
                    ahead.push(path);
                }
                Kind::File(found) => {
                    bare = false;
                    self.file(path, found, |name| known.contains(name));
                }
                Kind::Unreadable => {
                    bare = false;
                    self.hold(path, Reason::Unreadable);
                }
            }
        }
        if bare && !path.is_empty() {
            self.scan.empty_dirs.insert(path.to_owned());
        }
    }

    /// One path of a dirty set. What happens to a file of a `LevelDB` happens to all of it: its files are one whole.
    fn one_or_its_database(&mut self, path: &str) {
        let beside = leveldb::database_of_blob(path);
        let above = itself_and_above(path).filter(|dir| !dir.is_empty() && !has_json_name(dir));
        let above = above.map(str::to_owned);
        match beside.into_iter().chain(above).find(|dir| self.is_leveldb(dir)) {
            Some(dir) => {
                let blobs = leveldb::blobs_of(&dir);
                std::iter::once(dir).chain(blobs).for_each(|dir| self.one(&dir));
                if !self.scan.covers(path) {
                    self.one(path);
                }
            }
            None => self.one(path),
        }
    }

    fn one(&mut self, path: &str) {
        if let Some(scope) = &mut self.scan.scope {
            scope.insert(path.to_owned());
        }
        match self.kind(self.top, path, path) {
            Kind::Out => self.glance_above(path),
            Kind::Link => {
                self.scan.links += 1;
                self.glance_above(path);
            }
            Kind::Special => {
                self.scan.special += 1;
                self.glance_above(path);
            }
            Kind::Directory => match self.top.dir(path).and_then(|dir| Ok((dir.names()?, dir))) {
                Ok((names, dir)) => self.all_below(&dir, path, names),
                Err(error) if is_absence(&error) => self.glance_above(path),
                Err(_) => self.hold(path.to_owned(), Reason::Unreadable),
            },
            Kind::File(found) => {
                let (top, above) = (self.top, above(path));
                // Whatever is not absent may lie there.
                let beside =
                    |name: &str| !top.stat(&join(above, name)).is_err_and(|error| is_absence(&error));
                self.file(path.to_owned(), found, beside);
            }
            Kind::Unreadable if above_is_no_directory(self.top, path) => self.glance_above(path),
            Kind::Unreadable => self.hold(path.to_owned(), Reason::Unreadable),
        }
    }

    fn kind(&self, dir: &Dir, name: &str, path: &str) -> Kind {
        if !self.filter.enters(path) {
            return Kind::Out;
        }
        // A path that is too long for history is too long to be opened by its name, too.
        if check_path(path).is_err() {
            return Kind::Unreadable;
        }
        let stat = match dir.stat(name) {
            Ok(stat) => stat,
            Err(error) if is_absence(&error) => return Kind::Out,
            Err(_) => return Kind::Unreadable,
        };
        match (file_type(&stat), Found::of(&stat)) {
            (_, Some(_)) if !self.filter.includes(path) => Kind::Out,
            (_, Some(found)) => match sqlite::is_side(self.top, self.filter, path, |of| self.sniff(of)) {
                Ok(false) => Kind::File(found),
                Ok(true) => Kind::Out,
                Err(_) => Kind::Unreadable,
            },
            (FileType::Directory, _) => Kind::Directory,
            (FileType::Symlink, _) => Kind::Link,
            _ => Kind::Special,
        }
    }

    /// A regular file, and whether a running SQLite may be at it.
    fn file(&mut self, path: String, found: Found, beside: impl Fn(&str) -> bool) {
        match self.database(&path, &found, beside) {
            Ok(database) => {
                self.scan.databases.extend(database.map(|database| (path.clone(), database)));
                self.scan.files.insert(path, found);
            }
            Err(_) => self.hold(path, Reason::Unreadable),
        }
    }

    /// A database with side files, by its header; one that is live, without a look at it. What has no side files is
    /// read as other files are, and told by what was read.
    fn database(
        &self,
        path: &str,
        found: &Found,
        beside: impl Fn(&str) -> bool,
    ) -> io::Result<Option<Database>> {
        let live = self.filter.is_live(path);
        // Looking for side files of thousands of JSON files costs more than reading them.
        if !live && has_json_name(path) {
            return Ok(None);
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        if !live && !sqlite::sides_of(name).any(|side| beside(&side)) {
            return Ok(None);
        }
        let kind = match found.fingerprint.size {
            _ if live => None,
            0 => Some(sqlite::Kind::Empty),
            _ => Some(self.sniff(path)?),
        };
        if kind == Some(sqlite::Kind::Other) {
            return Ok(None);
        }
        let uid = self.top.stat(path)?.st_uid;
        Ok(Some(Database { sides: Sides::of(self.top, path)?, kind, uid }))
    }

    fn sniff(&self, path: &str) -> io::Result<sqlite::Kind> {
        if let Some(kind) = self.kinds.borrow().get(path) {
            return Ok(*kind);
        }
        let kind = sqlite::Kind::sniff(self.top, path)?;
        self.kinds.borrow_mut().insert(path.to_owned(), kind);
        Ok(kind)
    }

    /// A name that is not UTF-8; returns whether it could be part of the tree.
    fn nameless(&mut self, above: &str, name: &[u8]) -> bool {
        let counts = self.filter.includes(&join(above, &String::from_utf8_lossy(name)));
        if counts {
            self.scan.not_utf8 += 1;
            self.hold(join(above, &name.escape_ascii().to_string()), Reason::NotUtf8);
        }
        counts
    }

    /// Whether a directory is a `LevelDB`.
    fn is_leveldb(&mut self, dir: &str) -> bool {
        if self.no_leveldb.contains(dir) {
            return false;
        }
        // Most directories have no such name, and listing each of them for every event would be slow.
        let current = join(dir, leveldb::CURRENT);
        let may_be =
            dir.ends_with(".leveldb") || dir.ends_with("/leveldb") || self.top.stat(&current).is_ok();
        let is = may_be && self.filter.includes(&current) && {
            let names = self.top.dir(dir).and_then(|dir| dir.names()).unwrap_or_default();
            leveldb::is_leveldb(names.iter().filter_map(|name| name.to_str()))
        };
        if !is {
            self.no_leveldb.insert(dir.to_owned());
        }
        is
    }

    /// After something vanished: whether the directories above are empty now, or gone as well.
    fn glance_above(&mut self, path: &str) {
        for above in itself_and_above(path).skip(1).filter(|above| !above.is_empty()) {
            let names = match self.top.dir(above).and_then(|dir| Ok((dir.names()?, dir))) {
                Ok(listed) => Some(listed),
                Err(error) if is_absence(&error) || above_is_no_directory(self.top, path) => None,
                Err(_) => return,
            };
            self.scan.glanced.insert(above.to_owned());
            if let Some((names, dir)) = names {
                if self.is_bare(&dir, above, &names) {
                    self.scan.empty_dirs.insert(above.to_owned());
                }
                return;
            }
        }
    }

    fn is_bare(&self, dir: &Dir, path: &str, names: &[OsString]) -> bool {
        names.iter().all(|name| match name.to_str() {
            Some(name) => {
                matches!(self.kind(dir, name, &join(path, name)), Kind::Out | Kind::Link | Kind::Special)
            }
            None => !self.filter.includes(&join(path, &name.to_string_lossy())),
        })
    }

    fn hold(&mut self, path: String, reason: Reason) {
        self.scan.held.insert(path, reason);
    }
}

/// Only this error is absence; all others mean that something may be there. (P2)
fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}
