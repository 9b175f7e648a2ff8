//! What was promised so far, and whether it still holds.

use std::collections::{BTreeMap, BTreeSet};

use super::bot::{Bot, Files, Scribe, Word};
use super::pod::Site;
use crate::history::name::Name;
use crate::history::{Access, Depth, Id, Silent, fetch, survey};
use crate::sync::supervisor::testing::key;
use crate::tree::Content;

/// A tree that was acknowledged whole.
#[derive(Debug, Clone, Default)]
struct Kept {
    at: Option<Id>,
    /// No write of a bot so far is newer.
    number: u64,
    files: BTreeMap<String, Word>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: BTreeSet<Id>,
    kept: Kept,
    /// The account of the newest acknowledged commit.
    account: Option<(Id, u64)>,
    accounts: BTreeMap<Id, Option<u64>>,
    /// What a person went back to.
    next: Option<(u32, Files)>,
    /// What an earlier epoch keeps does not count.
    anew: u32,
    /// A logout may have been stored: what follows may be a new session.
    pub logged_out: bool,
    /// A power cut may leave a group whose members are not of one moment.
    pub torn: bool,
}

impl Ledger {
    /// P1, P2, P4: a commit was acknowledged.
    pub async fn acknowledge(&mut self, site: &Site, scribe: &Scribe, id: Id) {
        if !self.acknowledged.insert(id) {
            return;
        }
        let files = tree_at(site, id).await;
        for (path, bytes) in &files {
            assert!(
                scribe.written.contains(&(path.clone(), bytes.clone())),
                "P1: {id} has a {path} that no bot ever wrote"
            );
        }
        let account = account_of(&files);
        self.accounts.insert(id, account);
        if let (Some(account), false) = (account, self.torn) {
            whole(scribe, id, account, &files);
        }
        match (self.account, account) {
            (Some((last, _)), _) if last > id => {}
            (Some(_), None) => assert!(self.logged_out, "P4: {id} replaces a paired identity by none"),
            (Some((_, was)), Some(is)) if was != is => {
                // Its pin stands on a commit that has it.
                let pinned = self.pins(site).await;
                assert!(pinned.contains(&was), "P4: account {was} was replaced in {id} and is not pinned");
                self.account = Some((id, is));
            }
            (_, Some(is)) => {
                self.account = Some((id, is));
                self.logged_out = false;
            }
            (None, None) => {}
        }
    }

    async fn pins(&mut self, site: &Site) -> BTreeSet<u64> {
        let list = survey(&*site.memory, &key(), Depth::All, None).await.unwrap();
        let mut accounts = BTreeSet::new();
        for pin in &list.pins {
            let account = match self.accounts.get(&pin.id) {
                Some(known) => *known,
                None => account_of(&tree_at(site, pin.id).await),
            };
            accounts.extend(account);
        }
        accounts
    }

    /// All that lay on a disk was acknowledged in this commit.
    pub async fn keep(&mut self, site: &Site, id: Id, bot: &Bot) {
        let files = tree_at(site, id).await;
        for path in files.keys().chain(bot.files.keys()) {
            assert!(files.get(path) == bot.files.get(path), "P1: {id} has another {path} than the disk had");
        }
        if self.kept.at < Some(id) && id.epoch >= self.anew {
            let files = files.iter().filter_map(|(path, bytes)| Some((path.clone(), Word::of(bytes)?)));
            self.kept = Kept { at: Some(id), number: bot.number, files: files.collect() };
        }
    }

    /// A person ends the session or goes back, under this epoch or a new one: nothing that was kept must be there any
    /// more.
    pub fn begin_anew(&mut self, epoch: Option<u32>) {
        let newest = self.acknowledged.last().map_or(0, |id| id.epoch);
        self.anew = epoch.unwrap_or(newest + 1);
        self.logged_out = true;
        self.kept = Kept::default();
        self.account = None;
        self.next = None;
    }

    /// A person went back: the next that starts has this tree, or another pod was faster.
    pub fn go_back(&mut self, epoch: u32, tree: Files) {
        self.next = Some((epoch, tree));
    }

    /// Some acknowledged commit.
    pub fn one_of(&self, back: u8) -> Option<Id> {
        self.acknowledged.iter().rev().nth(usize::from(back) % self.acknowledged.len().max(1)).copied()
    }

    /// P2, P4: a bot starts under this epoch; its tree is no older than any that was kept, with the account that
    /// history has.
    pub fn starts(&mut self, epoch: u32, scribe: &Scribe, bot: &Bot) {
        let newest = self.account.map(|(id, _)| id).max(self.kept.at);
        if newest.is_some_and(|id| id.epoch > epoch) {
            // It was ready before another pod took the session over.
            return;
        }
        let tree = &bot.files;
        let may_be_new = self.logged_out || self.account.is_none();
        assert!(
            bot.account().is_some() || may_be_new,
            "P4: a bot starts without the account that history has"
        );
        if let Some((_, wanted)) = self.next.take_if(|(at, _)| *at < epoch) {
            assert!(
                wanted == *tree,
                "P2: {:?} was gone back to, and {:?} is there",
                wanted.keys(),
                tree.keys()
            );
        }
        for (path, kept) in &self.kept.files {
            let found = tree.get(path).map(|bytes| Word::of(bytes).unwrap_or_default().number);
            let removed = scribe.removed.get(path).is_some_and(|number| *number > kept.number);
            assert!(
                found.is_some_and(|number| number >= kept.number) || (found.is_none() && removed),
                "P2: {path} was kept at {} in {:?}, and is {found:?}",
                kept.number,
                self.kept.at
            );
        }
        for (path, bytes) in tree.iter().filter(|(path, _)| !self.kept.files.contains_key(*path)) {
            // What a power cut left of a write says nothing.
            let Some(word) = Word::of(bytes) else { continue };
            assert!(
                self.kept.at.is_none() || word.number > self.kept.number,
                "P2: {path} ({}) was removed before {:?} was kept ({}), and is back",
                word.number,
                self.kept.at,
                self.kept.number
            );
        }
    }

    /// P2, P3, P5, P6, on everything that was ever uploaded.
    pub async fn settle(&self, site: &Site) {
        let prefix = key().history_prefix();
        let parents: BTreeMap<Id, Option<Id>> = site
            .memory
            .log()
            .iter()
            .filter_map(|upload| match Name::parse(upload.key.strip_prefix(&prefix)?)? {
                Name::Commit(commit) => Some((commit.id, commit.parent)),
                _ => None,
            })
            .collect();
        let list = survey(&*site.memory, &key(), Depth::All, None).await.unwrap();
        let mut line = BTreeSet::new();
        let mut at = list.head();
        while let Some(id) = at {
            line.insert(id);
            at = parents.get(&id).copied().flatten();
        }
        for id in &self.acknowledged {
            assert!(
                line.contains(id),
                "P2: {id} was acknowledged, and {:?} does not build on it",
                list.head()
            );
        }
        let claims = |key: &String| key.contains(".claim");
        let rewritten: Vec<String> =
            site.memory.rewritten(&prefix).into_iter().filter(|key| !claims(key)).collect();
        assert!(rewritten.is_empty(), "P3: {rewritten:?} had more than one content");
        for pin in &list.pins {
            // A pin may be written before the commit that it protects from, and outlive a cut-off conflict.
            if list.commits.contains_key(&pin.id) {
                tree_at(site, pin.id).await;
            }
        }
        let newest = self.acknowledged.last().copied();
        assert!(list.head() >= newest, "P2: {newest:?} was acknowledged, and the head is {:?}", list.head());
    }
}

/// `creds.json` and its pre-keys are of one moment.
fn whole(scribe: &Scribe, id: Id, account: u64, files: &Files) {
    let next = files.get("creds.json").and_then(|bytes| Word::of(bytes)?.next).unwrap_or_default();
    let pre_key = |path: &String| path.strip_prefix("pre-key-")?.strip_suffix(".json")?.parse::<u64>().ok();
    let there: BTreeSet<u64> = files.keys().filter_map(pre_key).collect();
    assert!(there.range(next..).next().is_none(), "P1: {id} announces up to {next}, and has {there:?}");
    for pre_key in 1..next {
        assert!(
            there.contains(&pre_key) || scribe.used.contains(&(account, pre_key)),
            "P1: {id} lacks pre-key {pre_key} below {next}: it has {there:?}"
        );
    }
}

fn account_of(files: &Files) -> Option<u64> {
    Word::of(files.get("creds.json")?)?.account
}

/// The files of a commit, from its chain, with every check of a restore.
pub async fn tree_at(site: &Site, id: Id) -> Files {
    let scratch = tempfile::tempdir().unwrap();
    let list = survey(&*site.memory, &key(), Depth::All, None).await.unwrap();
    let chain =
        fetch(Access::new(&*site.memory, &site.keys), &key(), &list, id, scratch.path(), &Silent).await;
    let chain = chain.unwrap_or_else(|error| panic!("P6: {id} cannot be restored: {error}"));
    let paths: BTreeSet<String> = chain.table().files.keys().cloned().collect();
    let contents: BTreeMap<String, Content> = chain.read(&paths).unwrap();
    contents.into_iter().map(|(path, content)| (path, content.bytes().unwrap().to_vec())).collect()
}
