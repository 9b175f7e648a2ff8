//! What the bots of a session told of their writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::support::world::{Files, eventually};

/// Hashes of files by name.
pub type Tree = BTreeMap<String, String>;

pub struct Diary(PathBuf);

impl Diary {
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("diary");
        std::fs::write(&path, "").unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.0).unwrap();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        // The last one may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(words).collect()
    }

    pub fn count(&self, word: &str) -> usize {
        self.lines().iter().filter(|line| line[0] == word).count()
    }

    /// Waits until bots have begun this often.
    pub async fn ups(&self, count: usize) {
        eventually(&format!("bot {count} is up"), async || self.count("up") >= count).await;
        assert_eq!(self.count("up"), count);
    }

    /// Waits for another round of writes that touches `creds.json`.
    pub async fn more(&self) {
        let creds = || self.lines().iter().filter(|line| line[0] == "put" && line[1] == "creds.json").count();
        let before = creds();
        eventually("the bot writes on", async || creds() > before).await;
    }

    /// What bots had fsynced when the newest one began, and what it found.
    fn newest_start(&self) -> (Tree, Tree) {
        let lines = self.lines();
        let start = lines.iter().rposition(|line| line[0] == "start").unwrap();
        let has = lines[start..].iter().filter(|line| line[0] == "has");
        let found = has.map(|line| (line[1].clone(), line[2].clone())).collect();
        (replayed(&lines[..start]), found)
    }

    /// All that was written.
    pub fn tree(&self) -> Tree {
        replayed(&self.lines())
    }

    /// The newest bot began with exactly what was fsynced before it.
    pub fn nothing_is_lost(&self) {
        let (written, found) = self.newest_start();
        assert_eq!(found, written);
    }

    /// The newest bot began with every file at least as new as it was acknowledged. What came later it may lack.
    pub fn nothing_acknowledged_is_lost(&self, acknowledged: &Tree) {
        let (_, found) = self.newest_start();
        assert!(self.holds(&found, acknowledged), "{found:?} is older than {acknowledged:?}");
        assert!(found.contains_key("creds.json"));
    }

    /// Whether a tree has every file of another in that version or a later one, or it was removed since.
    pub fn holds(&self, tree: &Tree, other: &Tree) -> bool {
        let lines = self.lines();
        let written = |name: &str, sha: &str| {
            let is_it = |line: &Vec<String>| line[0] == "put" && line[1] == name && line[2] == sha;
            lines.iter().rposition(is_it).expect("a version that no bot wrote")
        };
        other.iter().all(|(name, sha)| {
            let then = written(name, sha);
            match tree.get(name) {
                Some(sha) => written(name, sha) >= then,
                None => lines[then..].iter().any(|line| line[0] == "remove" && line[1] == *name),
            }
        })
    }
}

fn replayed(lines: &[Vec<String>]) -> Tree {
    let mut tree = Tree::new();
    for (at, line) in lines.iter().enumerate() {
        match line[0].as_str() {
            // What was lost with a node is no longer expected.
            "start" => {
                let has = lines[at + 1..].iter().take_while(|line| line[0] == "has");
                tree = has.map(|line| (line[1].clone(), line[2].clone())).collect();
            }
            "put" => {
                tree.insert(line[1].clone(), line[2].clone());
            }
            "remove" => {
                tree.remove(&line[1]);
            }
            _ => {}
        }
    }
    tree
}

/// The same of files.
pub fn hashed(files: &Files) -> Tree {
    let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    files.iter().map(|(name, (_, bytes))| (name.clone(), hash(bytes))).collect()
}
