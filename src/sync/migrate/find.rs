//! Which sessions lie below a directory that another program filled.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::clean::LEAVING;
use crate::error::{Code, Error};
use crate::session::{LOST_AND_FOUND, STATE_DIR, SessionKey};
use crate::tree::beneath::{file_type, is_dir};
use crate::tree::{Dir, filter};

/// Where whatsapp-web.js keeps its profiles unless it is told otherwise; the name itself cannot be an id.
const WWEBJS: &str = ".wwebjs_auth";
/// What stands at the top of a Chromium profile, beside what [`filter::detect`] knows.
const PROFILE: [&str; 2] = ["Default/IndexedDB", "Default/Local Storage"];

/// How sessions lie below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// To be found by looking.
    Auto,
    /// `{dir}/{session}/`, all of one user.
    One,
    /// `{dir}/{user}/{session}/`
    Two,
}

/// Whose sessions lie there, as far as a person said.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// How they lie.
    pub levels: Levels,
    /// All are this user's.
    pub user: Option<&'a str>,
    /// The directory itself is this one session.
    pub session: Option<&'a SessionKey>,
}

/// A directory that is a session, or would be one.
#[derive(Debug)]
pub struct Candidate {
    /// Relative to where it was looked.
    pub name: String,
    /// Absolute.
    pub path: PathBuf,
    /// The session, or why it can be none.
    pub key: Result<SessionKey, Error>,
}

/// What lies below a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Sessions, by name.
    pub candidates: Vec<Candidate>,
    /// What is no session, and why.
    pub ignored: Vec<(String, String)>,
}

/// Looks for sessions; reads names only.
///
/// # Errors
/// [`Code::Usage`] where only a person can say whose sessions they are; [`Code::BadRoot`] for a directory that cannot be
/// read.
pub fn find(top: &Path, said: Said<'_>) -> Result<Found, Error> {
    if let Some(key) = said.session {
        let candidate = Candidate { name: ".".to_owned(), path: top.to_owned(), key: Ok(key.clone()) };
        return Ok(Found { candidates: vec![candidate], ignored: Vec::new() });
    }
    let failed = |error: io::Error| {
        let error = Error::io(format!("{} cannot be read", top.display()), error);
        Error::new(Code::BadRoot, error.to_string())
    };
    let mut looking = Looking { dir: Dir::open(top).map_err(failed)?, top, found: Found::default() };
    let levels = looking.levels(said).map_err(failed)?;
    match (levels, said.user) {
        (Levels::One, Some(user)) => {
            looking.sessions("", user, said.levels == Levels::One)?;
            if is_dir(&looking.dir, WWEBJS) {
                looking.sessions(WWEBJS, user, false)?;
            }
        }
        (Levels::One, None) => {
            return Err(Error::new(
                Code::Usage,
                format!("the sessions lie directly below {}: name their user with --user", top.display()),
            ));
        }
        (Levels::Auto, _) => {
            return Err(Error::new(
                Code::Usage,
                format!(
                    "{} looks like one session itself: name it with --session USER/ID (or say --layout one, or two)",
                    top.display()
                ),
            ));
        }
        (Levels::Two, Some(_)) => {
            return Err(Error::new(
                Code::Usage,
                "--user names the user of sessions that lie one level deep, and --layout two has users as directories: \
                 leave one of them out",
            ));
        }
        (Levels::Two, None) => looking.users(said.levels == Levels::Two)?,
    }
    let mut found = looking.found;
    found.candidates.sort_by(|a, b| a.name.cmp(&b.name));
    found.ignored.sort();
    Ok(found)
}

struct Looking<'a> {
    top: &'a Path,
    dir: Dir,
    found: Found,
}

impl Looking<'_> {
    /// How sessions lie; [`Levels::Auto`]: the directory itself is one.
    fn levels(&self, said: Said<'_>) -> io::Result<Levels> {
        match (said.levels, said.user) {
            (Levels::Auto, Some(_)) => return Ok(Levels::One),
            (Levels::Auto, None) => {}
            (levels, _) => return Ok(levels),
        }
        if looks_like_one(&self.dir)? {
            return Ok(Levels::Auto);
        }
        let mut one = is_dir(&self.dir, WWEBJS);
        for name in self.directories("")? {
            let dir = self.dir.dir(&name)?;
            for below in names(&dir)?.iter().filter(|below| is_dir(&dir, below)) {
                if dir.dir(below).and_then(|dir| looks_like_one(&dir)).unwrap_or(false) {
                    return Ok(Levels::Two);
                }
            }
            one |= looks_like_one(&dir)?;
        }
        Ok(if one { Levels::One } else { Levels::Two })
    }

    fn users(&mut self, all: bool) -> Result<(), Error> {
        for name in self.directories("").map_err(|error| self.unreadable("", error))? {
            let dir = self.dir.dir(&name).map_err(|error| self.unreadable(&name, error))?;
            let has_one = |below: &String| {
                is_dir(&dir, below) && dir.dir(below).and_then(|dir| looks_like_one(&dir)).unwrap_or(false)
            };
            let below = names(&dir).map_err(|error| self.unreadable(&name, error))?;
            if !all && looks_like_one(&dir).unwrap_or(false) && !below.iter().any(has_one) {
                let why = "looks like a session, one level deep: --layout one --user ID takes those";
                self.ignore(name, why);
                continue;
            }
            self.sessions(&name, &name, all)?;
        }
        self.strays("")
    }

    /// The directories below one are sessions; `all`: also those that nothing tells.
    fn sessions(&mut self, above: &str, user: &str, all: bool) -> Result<(), Error> {
        let dirs = self.directories(above).map_err(|error| self.unreadable(above, error))?;
        for session in dirs {
            let name = join(above, &session);
            let looks = self.dir.dir(&name).and_then(|dir| looks_like_one(&dir));
            match looks {
                Ok(false) if !all => {
                    let why = "nothing in it tells a session; --layout one or two takes every directory";
                    self.ignore(name, why);
                    continue;
                }
                // What cannot be read is refused with its own line, once it is read.
                _ => {}
            }
            let key = SessionKey::new(user, session);
            self.found.candidates.push(Candidate { path: self.top.join(&name), name, key });
        }
        self.strays(above)
    }

    /// Directories, and nothing that only leads to one.
    fn directories(&self, above: &str) -> io::Result<Vec<String>> {
        let dir = self.dir.dir(above)?;
        let names = names(&dir)?.into_iter();
        Ok(names.filter(|name| is_dir(&dir, name) && !Self::is_ours(above, name)).collect())
    }

    fn is_ours(above: &str, name: &str) -> bool {
        above.is_empty() && (name == STATE_DIR || name == LOST_AND_FOUND || name == WWEBJS)
    }

    /// Files and links that lie where only sessions should.
    fn strays(&mut self, above: &str) -> Result<(), Error> {
        let dir = self.dir.dir(above).map_err(|error| self.unreadable(above, error))?;
        let names = dir.names().map_err(|error| self.unreadable(above, error))?;
        for name in names.iter().map(|name| name.to_string_lossy()) {
            let Ok(stat) = dir.stat(&name) else { continue };
            let kind = file_type(&stat);
            if kind.is_dir() {
                continue;
            }
            let why = if kind.is_symlink() {
                "is a link: links are not followed"
            } else {
                "is a file outside every session"
            };
            self.ignore(join(above, &name), why);
        }
        Ok(())
    }

    fn ignore(&mut self, name: String, why: &str) {
        self.found.ignored.push((name, why.to_owned()));
    }

    fn unreadable(&self, below: &str, error: io::Error) -> Error {
        let error = Error::io(format!("{} cannot be read", self.top.join(below).display()), error);
        Error::new(Code::BadRoot, error.to_string())
    }
}

fn names(dir: &Dir) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        dir.names()?.into_iter().map(OsString::into_string).filter_map(Result::ok).collect();
    names.sort();
    Ok(names)
}

/// Whether a directory is a session by what lies directly in it.
fn looks_like_one(dir: &Dir) -> io::Result<bool> {
    let names = names(dir)?;
    let here = names.iter().filter(|name| !is_dir(dir, name)).map(String::as_str);
    // Or was one, until a cleanup that did not come to its end.
    let mut dirs = PROFILE.iter().chain([&LEAVING]);
    Ok(filter::detect(here).is_some() || dirs.any(|path| is_dir(dir, path)))
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Said<'_> = Said { levels: Levels::Auto, user: None, session: None };

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for path in paths {
            let path = top.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        top
    }

    fn found(top: &tempfile::TempDir, said: Said<'_>) -> Vec<String> {
        let found = find(top.path(), said).unwrap();
        let key = |candidate: Candidate| {
            candidate.key.map_or_else(|e| e.code().as_str().to_owned(), |k| k.to_string())
        };
        found.candidates.into_iter().map(key).collect()
    }

    #[test]
    fn two_levels_are_found_by_looking() {
        let top = tree(&["u1/a/creds.json", "u1/b/store.db", "u2/c/creds.json", "u2/notes/x.txt", "x.log"]);
        assert_eq!(found(&top, AUTO), ["u1/a", "u1/b", "u2/c"]);
        let ignored = find(top.path(), AUTO).unwrap().ignored;
        let names: Vec<&str> = ignored.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["u2/notes", "x.log"]);
        let two = Said { levels: Levels::Two, ..AUTO };
        assert_eq!(found(&top, two), ["u1/a", "u1/b", "u2/c", "u2/notes"]);
    }

    #[test]
    fn sessions_of_one_level_need_their_user() {
        let top = tree(&["a/creds.json", ".wwebjs_auth/session-b/Default/IndexedDB/x/CURRENT"]);
        let error = find(top.path(), AUTO).unwrap_err();
        assert!(error.code() == Code::Usage && error.to_string().contains("--user"), "{error}");
        let of_u = Said { user: Some("u"), ..AUTO };
        assert_eq!(found(&top, of_u), ["u/session-b", "u/a"]);
    }

    #[test]
    fn a_directory_that_is_a_session_needs_its_name() {
        let top = tree(&["creds.json"]);
        let error = find(top.path(), AUTO).unwrap_err();
        assert!(error.code() == Code::Usage && error.to_string().contains("--session"), "{error}");
        let key = "u/s".parse().unwrap();
        assert_eq!(found(&top, Said { session: Some(&key), ..AUTO }), ["u/s"]);
    }

    #[test]
    fn a_name_that_cannot_be_an_id_and_a_link_are_told() {
        let top = tree(&["u/a b/creds.json", "u/ok/.session-sidecar/leaving/database/CURRENT"]);
        std::os::unix::fs::symlink(top.path().join("u/ok"), top.path().join("u/link")).unwrap();
        assert_eq!(found(&top, AUTO), ["bad_session_id", "u/ok"]);
        let ignored = find(top.path(), AUTO).unwrap().ignored;
        assert_eq!(ignored, [("u/link".to_owned(), "is a link: links are not followed".to_owned())]);
    }
}
