//! A bot as Baileys writes, and what it believes to lie on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::session::STATE_DIR;

pub type Files = BTreeMap<String, Vec<u8>>;

/// How a `creds.json` is ruined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruin {
    Gone,
    Empty,
    Cut,
    Unpaired,
}

/// What a file of a bot says of itself, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// Of the writes of all bots; higher is newer.
    pub number: u64,
    /// Of `creds.json` and pre-keys: whose.
    pub account: Option<u64>,
    /// Of `creds.json`.
    pub next: Option<u64>,
}

impl Word {
    /// Of a file that a bot wrote; none for what it did not finish.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let paired = value.get("account").is_some() || value.get("key").is_some();
        Some(Self {
            number: value["number"].as_u64()?,
            account: value["registrationId"].as_u64().filter(|_| paired),
            next: value["nextPreKeyId"].as_u64(),
        })
    }
}

/// What all bots of a world share: numbers go up.
#[derive(Debug, Default)]
pub struct Scribe {
    pub number: u64,
    accounts: u64,
    /// When a path was last removed.
    pub removed: BTreeMap<String, u64>,
    /// Pre-keys that were used, by account and id.
    pub used: BTreeSet<(u64, u64)>,
    /// All that was ever written, by path.
    pub written: BTreeSet<(String, Vec<u8>)>,
}

/// A process that uses a tree.
#[derive(Debug)]
pub struct Bot {
    dir: PathBuf,
    pub files: Files,
    account: Option<u64>,
    next: u64,
    /// Of all that was done on this disk, the newest.
    pub number: u64,
}

impl Bot {
    /// Starts on what lies there.
    pub fn start(dir: PathBuf) -> Self {
        let files = read(&dir);
        let word = files.get("creds.json").and_then(|bytes| Word::of(bytes)).unwrap_or_default();
        let number = files.values().filter_map(|bytes| Word::of(bytes)).map(|word| word.number).max();
        let (account, next) = (word.account, word.next.unwrap_or(1));
        Self { dir, files, account, next, number: number.unwrap_or_default() }
    }

    pub fn account(&self) -> Option<u64> {
        self.account
    }

    /// The path, as an event names it.
    pub fn write(&mut self, scribe: &mut Scribe, path: &str, mut value: Value) -> String {
        scribe.number += 1;
        self.number = scribe.number;
        value["number"] = scribe.number.into();
        // Another size each time: no two writes look alike to `stat`, as ticks would tell them apart.
        value["pad"] = "x".repeat(usize::try_from(scribe.number % 997).unwrap()).into();
        let bytes = value.to_string().into_bytes();
        scribe.written.insert((path.to_owned(), bytes.clone()));
        self.put(path, bytes, scribe.number.is_multiple_of(2))
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>, rename: bool) -> String {
        let target = self.dir.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if rename {
            let temporary = self.dir.join(".new");
            fs::write(&temporary, &bytes).unwrap();
            fs::rename(&temporary, &target).unwrap();
        } else {
            fs::write(&target, &bytes).unwrap();
        }
        self.files.insert(path.to_owned(), bytes);
        path.to_owned()
    }

    pub fn remove(&mut self, scribe: &mut Scribe, path: &str) -> Option<String> {
        self.files.remove(path)?;
        fs::remove_file(self.dir.join(path)).unwrap();
        scribe.number += 1;
        self.number = scribe.number;
        scribe.removed.insert(path.to_owned(), scribe.number);
        Some(path.to_owned())
    }

    pub fn creds(&mut self, scribe: &mut Scribe) -> String {
        let mut creds = json!({ "noiseKey": "n", "nextPreKeyId": self.next });
        if let Some(account) = self.account {
            creds["registrationId"] = account.into();
            creds["me"] = json!({ "id": format!("55{account}:1@s.whatsapp.net") });
            creds["account"] = json!({ "details": account });
        }
        self.write(scribe, "creds.json", creds)
    }

    /// The files of a top-up; `creds.json` announces it before or after them.
    pub fn pre_keys(&mut self, scribe: &mut Scribe, ids: impl Iterator<Item = u64>) -> Vec<String> {
        let account = self.account.unwrap_or_default();
        ids.map(|id| {
            self.write(scribe, &format!("pre-key-{id}.json"), json!({ "key": id, "registrationId": account }))
        })
        .collect()
    }

    pub fn reserve(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += count;
        first..self.next
    }

    pub fn use_pre_key(&mut self, scribe: &mut Scribe) -> Option<String> {
        let id = self.own_pre_keys().next()?;
        scribe.used.insert((self.account.unwrap_or_default(), id));
        self.remove(scribe, &format!("pre-key-{id}.json"))
    }

    fn own_pre_keys(&self) -> impl Iterator<Item = u64> {
        let id = |path: &String| path.strip_prefix("pre-key-")?.strip_suffix(".json")?.parse().ok();
        let mut ids: Vec<u64> = self.files.keys().filter_map(id).collect();
        ids.sort_unstable();
        ids.into_iter()
    }

    /// Links another account: its pre-keys go, new ones come.
    pub fn pair(&mut self, scribe: &mut Scribe) -> Vec<String> {
        scribe.accounts += 1;
        self.account = Some(scribe.accounts);
        let old: Vec<u64> = self.own_pre_keys().collect();
        let mut events: Vec<String> =
            old.iter().filter_map(|id| self.remove(scribe, &format!("pre-key-{id}.json"))).collect();
        self.next = 1;
        let ids = self.reserve(3);
        events.extend(self.pre_keys(scribe, ids));
        events.push(self.creds(scribe));
        events
    }

    pub fn ruin(&mut self, scribe: &mut Scribe, ruin: Ruin) -> Option<String> {
        let good = self.files.get("creds.json")?.clone();
        match ruin {
            Ruin::Gone => self.remove(scribe, "creds.json"),
            Ruin::Empty => Some(self.put("creds.json", Vec::new(), false)),
            Ruin::Cut => Some(self.put("creds.json", good[..good.len() / 2].to_vec(), false)),
            Ruin::Unpaired => {
                let account = self.account.take();
                let event = self.creds(scribe);
                self.account = account;
                Some(event)
            }
        }
    }
}

/// All regular files below a tree.
pub fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(at) = left.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != STATE_DIR {
                left.push(path);
            } else if path.is_file() {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
