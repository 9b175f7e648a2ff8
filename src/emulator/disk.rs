//! Objects as plain files, and the journal of what is known of them.
//!
//! ```text
//! DIR/{bucket}/{key}            the bytes; `cat` and `tar` may read them, an editor may damage them
//! DIR/.emulator/keys.json       the project's keys (0600)
//! DIR/.emulator/journal.jsonl   one line a change, appended; the index is rebuilt from it
//! DIR/.emulator/tables.json     the rows of the database's tables
//! DIR/.emulator/partial/        uploads that are not yet complete
//! ```
//!
//! A key's segments are the file's path. `~` is in no key, so it marks what a file system cannot say: an empty
//! segment (`a//b`, a leading or trailing slash) is `~`, and an object that is also a folder (`fd/x` beside
//! `fd/x/y`) is `x~`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use md5::Md5;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::index::{BucketRow, Row};

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
}

/// Bytes that were written beside the objects, and what they are.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    pub(super) print: Print,
}

/// What tells one content from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Print {
    pub(super) size: u64,
    /// The MD5 in hex: the etag of the file backend.
    pub(super) etag: String,
    pub(super) sha256: String,
    /// Of the file, in nanoseconds: whether somebody else wrote it since.
    mtime_ns: i64,
}

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Bucket(BucketRow),
    NoBucket { id: String },
    Put { bucket: String, key: String, row: Row },
    Gone { bucket: String, key: String },
    Moved { from: (String, String), to: (String, String), row: Row },
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directory, and takes it for as long as the file is open.
    pub(super) fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(self.root.join(".emulator"))?;
        let file = File::create(self.root.join(".emulator/lock"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            let dir = self.root.display();
            io::Error::new(e.kind(), format!("{dir} is used by another emulator ({e})"))
        })?;
        Ok(file)
    }

    /// Forgets uploads that no one completed.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.partial()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => fs::create_dir_all(self.partial()),
        }
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.root.join(".emulator/keys.json")
    }

    pub(super) fn tables(&self) -> PathBuf {
        self.root.join(".emulator/tables.json")
    }

    fn partial(&self) -> PathBuf {
        self.root.join(".emulator/partial")
    }

    /// Opens the journal for appending and gives what it holds. A last line that a kill tore off is cut away.
    pub(super) fn journal(&self) -> io::Result<(File, Vec<Entry>)> {
        let path = self.root.join(".emulator/journal.jsonl");
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut entries = Vec::new();
        let (mut reader, mut line, mut whole) = (BufReader::new(&file), String::new(), 0);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                break;
            }
            entries.push(serde_json::from_str(&line).map_err(io::Error::other)?);
            whole += read as u64;
        }
        file.set_len(whole)?;
        Ok((file, entries))
    }

    /// Writes bytes beside the objects; [`Disk::publish`] gives them their name.
    pub(super) fn stage(&self, bytes: &[u8]) -> io::Result<Staged> {
        let path = self.partial().join(Uuid::new_v4().to_string());
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        Ok(Staged { path, print: Print::of(bytes, &file.metadata()?) })
    }

    pub(super) fn publish(&self, staged: &Staged, bucket: &str, key: &str) -> io::Result<()> {
        fs::rename(&staged.path, self.place(bucket, key)?)
    }

    /// The file of an object that is (or was) there.
    pub(super) fn find(&self, bucket: &str, key: &str) -> PathBuf {
        let plain = self.plain(bucket, key);
        if plain.is_file() { plain } else { aside(&plain) }
    }

    /// Whether the file is still what `print` says; else what it is now. None: it is gone.
    pub(super) fn changed(&self, bucket: &str, key: &str, print: &Print) -> io::Result<Option<Print>> {
        let path = self.find(bucket, key);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == print.size && mtime_ns(&meta) == print.mtime_ns => Ok(None),
            Ok(meta) => Ok(Some(Print::of(&fs::read(&path)?, &meta))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives an object's file a second name.
    pub(super) fn link(&self, from: (&str, &str), to: (&str, &str)) -> io::Result<()> {
        let target = self.place(to.0, to.1)?;
        // What an earlier life left there belongs to no object.
        let _ = fs::remove_file(&target);
        fs::hard_link(self.find(from.0, from.1), target)
    }

    /// Removes an object's file and the folders that are empty now.
    pub(super) fn remove(&self, bucket: &str, key: &str) {
        // A file that is not there is what we want; one that cannot be removed has no row any more.
        let _ = fs::remove_file(self.find(bucket, key));
        let (plain, bucket) = (self.plain(bucket, key), self.bucket(bucket));
        let _ = fs::remove_dir(&plain);
        for folder in plain.ancestors().skip(1).take_while(|folder| **folder != bucket) {
            // While `x~` is there, the folder tells it from `x`.
            if aside(folder).exists() || fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    pub(super) fn remove_bucket(&self, bucket: &str) {
        let _ = fs::remove_dir_all(self.bucket(bucket));
    }

    fn bucket(&self, bucket: &str) -> PathBuf {
        // `.`, `..` and our own directory are names that a bucket may have.
        let mark = if bucket.starts_with('.') { "~" } else { "" };
        self.root.join(format!("{mark}{bucket}"))
    }

    fn plain(&self, bucket: &str, key: &str) -> PathBuf {
        let mut path = self.bucket(bucket);
        path.extend(key.split('/').map(|segment| if segment.is_empty() { "~" } else { segment }));
        path
    }

    /// Where a new object's file goes; makes its folders.
    fn place(&self, bucket: &str, key: &str) -> io::Result<PathBuf> {
        let plain = self.plain(bucket, key);
        let folder = plain.parent().expect("a key has at least one segment");
        if !folder.is_dir() {
            for folder in folder.ancestors().collect::<Vec<_>>().into_iter().rev() {
                if folder.is_file() {
                    fs::rename(folder, aside(folder))?;
                }
            }
            fs::create_dir_all(folder)?;
        }
        Ok(if plain.is_dir() { aside(&plain) } else { plain })
    }
}

/// The name of a file whose plain name is a folder's.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

fn mtime_ns(meta: &fs::Metadata) -> i64 {
    meta.mtime() * 1_000_000_000 + meta.mtime_nsec()
}

impl Print {
    fn of(bytes: &[u8], meta: &fs::Metadata) -> Self {
        Self {
            size: bytes.len() as u64,
            etag: hex::encode(Md5::digest(bytes)),
            sha256: hex::encode(Sha256::digest(bytes)),
            mtime_ns: mtime_ns(meta),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        disk.prepare().unwrap();
        let keys = [
            "fd/x", "fd/x/y", "a//b", "a/b", "/k/z", "k/z", "k/z/", "case/AbC", "case/abc", "fd", "..hidden",
        ];
        for key in keys {
            disk.publish(&disk.stage(key.as_bytes()).unwrap(), "b", key).unwrap();
        }
        for key in keys {
            assert_eq!(fs::read(disk.find("b", key)).unwrap(), key.as_bytes(), "{key}");
        }
        assert_eq!(fs::read(dir.path().join("b/fd/x/y")).unwrap(), b"fd/x/y");
        for key in keys {
            disk.remove("b", key);
            assert!(!disk.find("b", key).exists(), "{key}");
        }
        assert_eq!(fs::read_dir(dir.path().join("b")).unwrap().count(), 0, "no folder is left behind");
    }

    #[test]
    fn a_torn_last_line_of_the_journal_is_cut_away() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path());
        disk.prepare().unwrap();
        let (mut file, _) = disk.journal().unwrap();
        file.write_all(b"{\"no_bucket\":{\"id\":\"a\"}}\n{\"no_buck").unwrap();
        assert_eq!(disk.journal().unwrap().1.len(), 1);
        file.write_all(b"{\"no_bucket\":{\"id\":\"b\"}}\n").unwrap();
        assert_eq!(disk.journal().unwrap().1.len(), 2);
    }
}
