use super::*;
use crate::history::testing::Author;

fn damage(result: Result<(), HistoryError>, what: &str) {
    let error = result.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains(what), "{error}");
}

#[test]
fn a_replay_leads_to_the_tree_of_the_last_commit() {
    let mut author = Author::new();
    let mut replay = Replay::default();
    replay.apply(&author.put("a", b"1").put("keys/b", b"2").next(Kind::Base, None)).unwrap();
    replay.apply(&author.put("a", b"11").next(Kind::Delta, None)).unwrap();
    author.remove("keys/b").table.empty_dirs.insert("keys".into());
    replay.apply(&author.put("c", b"3").next(Kind::Delta, None)).unwrap();
    replay.verify().unwrap();
    assert_eq!(*replay.table(), author.table);
    let versions: Vec<_> = replay.versions().iter().map(|(path, id)| (path.as_str(), id.seq)).collect();
    assert_eq!(versions, [("a", 2), ("c", 3)]);
}

#[test]
fn commits_must_follow_one_another() {
    let mut author = Author::new();
    let base = author.put("a", b"1").next(Kind::Base, None);
    let skipped = author.put("a", b"2").next(Kind::Delta, None);
    let delta = author.put("a", b"3").next(Kind::Delta, None);
    let mut replay = Replay::default();
    damage(replay.clone().apply(&skipped), "follow");
    replay.apply(&base).unwrap();
    damage(replay.clone().apply(&delta), "follow");
    damage(replay.clone().apply(&base), "follow");
}

#[test]
fn removing_what_is_not_there_is_damage() {
    let mut author = Author::new();
    let mut replay = Replay::default();
    replay.apply(&author.put("a", b"1").next(Kind::Base, None)).unwrap();
    damage(replay.apply(&author.remove("b").next(Kind::Delta, None)), "not there");
}

#[test]
fn every_commit_must_lead_to_the_counts_it_announces_and_the_last_to_the_digest() {
    let mut author = Author::new();
    let base = author.put("a", b"1").next(Kind::Base, None);
    let wrong = |change: fn(&mut crate::history::Commit)| {
        let mut commit = base.clone();
        change(&mut commit);
        let mut replay = Replay::default();
        replay.apply(&commit).and_then(|()| replay.verify())
    };
    wrong(|_| ()).unwrap();
    damage(wrong(|commit| commit.tree.files += 1), "leads to");
    damage(wrong(|commit| commit.tree.bytes += 1), "leads to");
    damage(wrong(|commit| commit.tree.sha256 = crate::tree::Hash::of(b"")), "writer meant");
    damage(wrong(|commit| commit.put[0].meta.mode = 0o644), "writer meant");
    damage(
        wrong(|commit| {
            let mut second = commit.put[0].clone();
            second.path = "b".into();
            second.meta.size = u64::MAX;
            commit.put.push(second);
        }),
        "overflow",
    );
}

#[test]
fn a_path_that_is_a_file_and_a_directory_is_damage() {
    let mut author = Author::new();
    let commit = author.put("a", b"1").put("a-b", b"1").put("a/b/c", b"2").next(Kind::Base, None);
    let mut replay = Replay::default();
    replay.apply(&commit).unwrap();
    damage(replay.verify(), "a file and a directory");
    let mut author = Author::new();
    author.put("a", b"1").table.empty_dirs.insert("a".into());
    assert!(check_shape(&author.table).is_err());
    let mut author = Author::new();
    author.put("a", b"1").table.empty_dirs.insert("a/b".into());
    assert!(check_shape(&author.table).is_err());
}

#[test]
fn a_patch_needs_the_version_it_was_made_of_and_all_blocks_beyond_its_end() {
    let mut author = Author::new();
    let base = author.put("db", &[0; 10_000]).put("a", b"1").next(Kind::Base, None);
    let patch = author.patch("db", &vec![1; 20_000]).next(Kind::Delta, None);
    let applied = |change: fn(&mut crate::history::Commit)| {
        let mut patch = patch.clone();
        change(&mut patch);
        let mut replay = Replay::default();
        replay.apply(&base)?;
        replay.apply(&patch)?;
        replay.verify()
    };
    applied(|_| ()).unwrap();
    damage(applied(|commit| commit.patch[0].of = crate::tree::Hash::of(b"another")), "not there");
    damage(applied(|commit| commit.patch[0].entry.path = "absent".into()), "not there");
    damage(applied(|commit| commit.patch[0].runs = vec![(2, 2)]), "lacks blocks");
    damage(applied(|commit| commit.patch[0].runs = vec![(3, 2)]), "lacks blocks");
    damage(applied(|commit| commit.patch[0].entry.meta.mode = 0o600), "writer meant");
    damage(applied(|commit| commit.patch[0].entry.meta.size = 15_000), "leads to");
}

#[test]
fn a_replay_knows_which_patches_lead_to_the_newest_bytes() {
    let mut author = Author::new();
    let mut replay = Replay::default();
    replay.apply(&author.put("a", b"1").put("b", b"1").put("c", b"1").next(Kind::Base, None)).unwrap();
    author.patch("a", b"22").patch("b", b"22").patch("c", b"22");
    replay.apply(&author.next(Kind::Delta, None)).unwrap();
    replay.apply(&author.patch("a", b"3").put("b", b"3").remove("c").next(Kind::Delta, None)).unwrap();
    replay.verify().unwrap();
    let patches: Vec<_> = replay.patches().iter().map(|(path, ids)| (path.as_str(), ids.len())).collect();
    assert_eq!(patches, [("a", 2)]);
    assert_eq!(replay.versions()["a"].seq, 1);
    assert_eq!(replay.versions()["b"].seq, 3);
    assert_eq!(replay.patched().len(), 3);
}
