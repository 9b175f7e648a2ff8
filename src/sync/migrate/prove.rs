//! The proof that a session is safe: what is in the bucket is restored beside, and compared with the source.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::describe::held;
use super::{Manner, Source, temporary};
use crate::error::{Code, Error};
use crate::history::{self, Chain, Depth, HistoryError, Progress, Silent};
use crate::sync::env::Env;
use crate::sync::journal::blocking;
use crate::sync::look::{Eye, Want};
use crate::sync::open::Foreseen;
use crate::sync::points;
use crate::sync::report::HeldFile;
use crate::tree::{Content, Dir, Hash, Meta, Scan, Table};

/// What a restore beside gave.
#[derive(Debug)]
pub struct Proof {
    /// What came of it.
    pub verdict: Verdict,
    /// The source at that time.
    pub scan: Scan,
    /// Files of it that the restore gave, to their last byte.
    pub proven: BTreeSet<String>,
    /// What lies in the source and was not fit to be committed.
    pub held: Vec<HeldFile>,
}

/// What a comparison came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Byte for byte the same.
    Same,
    /// The source is another one by now, at these paths.
    Changed(Vec<String>),
}

/// Restores the head into a scratch directory, through the code of every restore, and compares it with the source as it
/// lies there now. With `whole`, the source must have all that was restored; else what it has must be in it. What the
/// commit left out is not compared.
///
/// # Errors
/// [`Code::Damaged`] when what is in the bucket cannot be read whole, or is not what was committed although nobody
/// touched the source.
pub(super) async fn prove(
    env: &Arc<Env>,
    source: &Source,
    seen: &Foreseen,
    whole: bool,
    left_out: &[HeldFile],
    manner: &Manner,
    progress: &dyn Progress,
) -> Result<Proof, Error> {
    let scratch = temporary(&manner.scratch)?;
    let restored = restore(env, source, scratch.path(), progress).await?;
    let Some(path) = source.path.clone() else { return against_mirror(seen, &restored) };
    let (filter, spool, now) = (Arc::clone(&seen.filter), scratch.path().to_owned(), env.host.now());
    let sight = blocking(move || {
        let mut eye = Eye::new(path, filter, spool);
        eye.look(&Want::Hashes, &BTreeSet::new(), &Table::default(), &BTreeMap::new(), now)
    });
    let sight = sight.await??;
    let held = held(&sight, env.host.now());
    let now: BTreeMap<String, Hash> =
        sight.metas.iter().map(|(path, meta)| (path.clone(), meta.sha256)).collect();
    let left_out: BTreeSet<&str> = left_out.iter().map(|held| held.path.as_str()).collect();
    let considered = |path: &str| sight.why_held(path).is_none() && !left_out.contains(path);
    let (before, after) = (&seen.sight.scan, &sight.scan);
    // What is only in a database's side files does not show in the database.
    let untouched = |path: &str| {
        before.files.get(path) == after.files.get(path)
            && before.databases.get(path) == after.databases.get(path)
    };
    let found = differences(&restored, &now, whole, considered);
    let (wrong, changed): (Vec<String>, Vec<String>) = found.into_iter().partition(|path| untouched(path));
    if let Some(path) = wrong.first() {
        let text = format!(
            "session {}: {} files restored from the bucket are not what lies here, {path} first, although nobody touched them",
            source.key,
            wrong.len()
        );
        return Err(Error::new(Code::Damaged, text));
    }
    let verdict = if changed.is_empty() { Verdict::Same } else { Verdict::Changed(changed) };
    let proven = proven(&restored, &sight.metas, &sight.scan);
    Ok(Proof { verdict, scan: sight.scan, proven, held })
}

/// The files of which a restore gave every byte that lies here: of a log that grew in the middle of a record, or a manifest,
/// it gave less. // P7
fn proven(restored: &BTreeMap<String, Hash>, here: &BTreeMap<String, Meta>, scan: &Scan) -> BTreeSet<String> {
    let same = |(path, meta): &(&String, &Meta)| {
        let size = scan.files.get(*path).map(|found| found.fingerprint.size);
        restored.get(*path) == Some(&meta.sha256) && size == Some(meta.size)
    };
    here.iter().filter(same).map(|(path, _)| path.clone()).collect()
}

/// What lies in one and not, or otherwise, in the other.
fn differences(
    restored: &BTreeMap<String, Hash>,
    now: &BTreeMap<String, Hash>,
    whole: bool,
    considered: impl Fn(&str) -> bool,
) -> Vec<String> {
    let here = now.iter().filter(|(path, hash)| restored.get(*path) != Some(hash)).map(|(path, _)| path);
    let gone = restored.keys().filter(|path| whole && !now.contains_key(*path));
    here.chain(gone).filter(|path| considered(path)).cloned().collect()
}

fn against_mirror(seen: &Foreseen, restored: &BTreeMap<String, Hash>) -> Result<Proof, Error> {
    let mirrored = seen.mirrored.as_ref().map(|mirrored| &mirrored.table);
    let mirrored = mirrored.ok_or_else(|| Error::new(Code::Internal, "a mirror that was not looked at"))?;
    let then: BTreeMap<String, Hash> =
        mirrored.files.iter().map(|(path, meta)| (path.clone(), meta.sha256)).collect();
    let changed = differences(restored, &then, true, |_| true);
    let verdict = if changed.is_empty() { Verdict::Same } else { Verdict::Changed(changed) };
    Ok(Proof { verdict, scan: Scan::default(), proven: BTreeSet::new(), held: Vec::new() })
}

/// What a restore gives, read back from the disk.
async fn restore(
    env: &Env,
    source: &Source,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Hash>, Error> {
    let (store, key) = (&*env.store, &source.key);
    // What it finds it has just committed, or would believe at a start.
    let access = env.access(None);
    let survey = history::survey(store, key, Depth::All, None).await?;
    let head = survey.head().ok_or_else(|| points::none(key))?;
    let into = temporary(scratch)?;
    let extracted = async {
        let chain = history::fetch(access, key, &survey, head, scratch, progress).await?;
        let extracted = history::chain::blocking(move || extract(&chain, &into).map(|()| (chain, into)));
        extracted.await
    };
    match extracted.await {
        Ok((chain, into)) => blocking(move || read_back(&chain, &into)).await?,
        Err(error) if error.is_damage() => {
            Err(points::damage(access, key, &survey, head, &error, scratch, &Silent).await)
        }
        Err(error) => Err(error.into()),
    }
}

fn extract(chain: &Chain, into: &TempDir) -> Result<(), HistoryError> {
    let dir =
        Dir::open(into.path()).map_err(|error| HistoryError::io("opening a scratch directory", error))?;
    chain.extract(&dir, &Silent)
}

fn read_back(chain: &Chain, from: &TempDir) -> Result<BTreeMap<String, Hash>, Error> {
    let read = || -> io::Result<BTreeMap<String, Hash>> {
        let dir = Dir::open(from.path())?;
        let hash = |path: &String| {
            let file = dir.read(path)?;
            let size = file.metadata()?.len();
            let hash = Content::Spooled { file: Arc::new(file), size }.hash()?;
            Ok((path.clone(), hash))
        };
        chain.table().files.keys().map(hash).collect()
    };
    read().map_err(|error| Error::io("what was restored beside cannot be read", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> BTreeMap<String, Hash> {
        files.iter().map(|(path, text)| ((*path).to_owned(), Hash::of(text.as_bytes()))).collect()
    }

    #[test]
    fn a_file_that_is_missing_or_another_on_either_side_is_a_difference() {
        let restored = tree(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let all = |_: &str| true;
        assert!(differences(&restored, &restored, true, all).is_empty());
        let now = tree(&[("a", "1"), ("b", "other"), ("d", "4")]);
        assert_eq!(differences(&restored, &now, true, all), ["b", "d", "c"]);
        assert_eq!(differences(&restored, &now, false, all), ["b", "d"]);
        assert_eq!(differences(&restored, &now, true, |path| path != "b"), ["d", "c"]);
    }

    #[test]
    fn a_file_that_was_stored_to_its_last_whole_record_is_not_proven() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b.log", "c"] {
            std::fs::write(dir.path().join(name), "1234").unwrap();
        }
        let filter = crate::tree::Filter::new(None, &[], &[]).unwrap();
        let scan = crate::tree::scan::scan(&Dir::open(dir.path()).unwrap(), &filter).unwrap();
        let meta = |text: &str| Meta {
            size: text.len() as u64,
            mode: 0o600,
            mtime_ns: 0,
            sha256: Hash::of(text.as_bytes()),
        };
        let here = [("a", "1234"), ("b.log", "12"), ("c", "1234")];
        let here = here.map(|(path, text)| (path.to_owned(), meta(text))).into();
        let restored = tree(&[("a", "1234"), ("b.log", "12"), ("c", "other")]);
        assert_eq!(proven(&restored, &here, &scan), BTreeSet::from(["a".to_owned()]));
    }
}
