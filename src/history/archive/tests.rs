use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use tar::EntryType;

use super::*;
use crate::history::HistoryError;
use crate::history::commit::{Commit, Kind};
use crate::history::keys::Keys;
use crate::history::name::{CommitName, Name, Part};
use crate::history::testing::{Author, id, key};
use crate::tree::{Content, Entry, Hash, Meta};

fn author() -> Author {
    let mut author = Author::new();
    author.put("creds.json", b"{\"me\":1}").put("keys/pre-key-1.json", b"{}").put("empty", b"");
    author
}

fn unpack_all(bytes: &[u8], name: &CommitName) -> Result<BTreeMap<String, Vec<u8>>, HistoryError> {
    let mut files = BTreeMap::new();
    unpack(bytes, name, &key(), &Keys::off(), &mut |item, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let name = match item {
            Item::Put(entry) => entry.path.clone(),
            Item::Patch(patch) => format!("blocks of {}", patch.entry.path),
        };
        files.insert(name, bytes);
        Ok(())
    })?;
    Ok(files)
}

fn compress(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 3).unwrap()
}

/// One entry, spelled byte by byte: `tar::Builder` would refuse what an enemy writes.
fn raw(tar: &mut Vec<u8>, kind: EntryType, name: &[u8], content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn finish(mut tar: Vec<u8>) -> Vec<u8> {
    tar.extend_from_slice(&[0; 1024]);
    compress(&tar)
}

/// An archive of one announced file `a` with content `x`, changed by whoever calls.
fn hostile(
    change: impl FnOnce(&mut Commit, &mut Vec<u8>),
) -> Result<BTreeMap<String, Vec<u8>>, HistoryError> {
    let mut commit = Author::new().put("a", b"x").next(Kind::Base, None);
    let name = commit.name();
    let mut entries = Vec::new();
    raw(&mut entries, EntryType::Regular, b"files/a", b"x");
    change(&mut commit, &mut entries);
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    tar.extend_from_slice(&entries);
    unpack_all(&finish(tar), &name)
}

fn damage(result: Result<BTreeMap<String, Vec<u8>>, HistoryError>, what: &str) {
    match result {
        Err(error @ HistoryError::Damaged { .. }) if error.to_string().contains(what) => {}
        other => panic!("expected damage that says `{what}`, got {other:?}"),
    }
}

fn announce(commit: &mut Commit, path: &str, content: &[u8]) {
    let meta = Meta { size: content.len() as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(content) };
    commit.put.push(Entry { path: path.into(), meta });
}

#[test]
fn a_frozen_commit_unpacks_to_what_went_in() {
    let mut author = author();
    let long = format!("{}/{}.json", "deep".repeat(40), "long".repeat(60));
    author.put(&long, b"found again");
    let frozen = author.freeze(Kind::Base);
    let [(name, bytes)] = frozen.objects.as_slice() else { panic!("one object") };
    assert_eq!(*name, Name::Commit(frozen.commit.name()));
    let files = unpack_all(bytes, &frozen.commit.name()).unwrap();
    assert_eq!(files.len(), 4);
    assert_eq!(files[&long], b"found again");
    assert_eq!(header(&bytes[..], &frozen.commit.name(), &key(), &Keys::off()).unwrap(), frozen.commit);
}

#[test]
fn the_same_commit_is_packed_to_the_same_bytes() {
    assert_eq!(author().freeze(Kind::Base).objects, author().freeze(Kind::Base).objects);
}

#[test]
fn standard_tools_open_a_commit() {
    let mut author = author();
    author.put(&format!("{}/x", "d".repeat(200)), b"long");
    let frozen = author.freeze(Kind::Base);
    let dir = tempfile::tempdir().unwrap();
    let unpacked = zstd::decode_all(&frozen.objects[0].1[..]).unwrap();
    let mut tar = std::process::Command::new("tar")
        .args(["-x", "-f", "-", "-C"])
        .arg(dir.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&unpacked).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(std::fs::read(dir.path().join("files/creds.json")).unwrap(), b"{\"me\":1}");
    assert_eq!(std::fs::read(dir.path().join(format!("files/{}/x", "d".repeat(200)))).unwrap(), b"long");
    let json = std::fs::read(dir.path().join("commit.json")).unwrap();
    assert_eq!(Commit::from_json(id(1, 1), &json).unwrap(), frozen.commit);
}

#[test]
fn above_the_limit_a_commit_is_split_and_exactly_at_it_is_not() {
    let whole = author().freeze(Kind::Base);
    let size = whole.size();
    let limited = |limit| {
        let mut author = author();
        author.size_limit = Some(limit);
        author.freeze(Kind::Base).objects
    };
    assert_eq!(limited(size), whole.objects);
    let parts = limited(size - 1);
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].1.len() as u64, size - 1);
    let joined: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    assert_eq!(joined, whole.objects[0].1);
    let name = whole.commit.name();
    let second = Name::Commit(name.with_part(Some(Part { number: 2, of: 2 })));
    assert_eq!(parts[1].0, second);
    assert_eq!(limited(100).len() as u64, size.div_ceil(100));
}

#[test]
fn a_limit_that_needs_too_many_parts_is_an_error() {
    // Random digits: some 32,000 bytes after compression.
    let digits: Vec<u8> =
        (0..1000_u32).flat_map(|n| Hash::of(&n.to_le_bytes()).to_string().into_bytes()).collect();
    let mut author = Author::new();
    let commit = author.put("digits", &digits).next(Kind::Base, None);
    for limit in [0, 1, 20] {
        let error = freeze(commit.clone(), &author.contents, Some(limit), &Keys::off()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{limit}");
    }
    assert!(freeze(commit, &author.contents, Some(100), &Keys::off()).is_ok());
}

#[test]
fn a_commit_that_no_reader_would_take_is_not_frozen() {
    use io::ErrorKind::{InvalidData, InvalidInput};
    let refused = |change: fn(&mut Commit, &mut BTreeMap<String, Content>)| {
        let mut author = author();
        let mut commit = author.next(Kind::Base, None);
        change(&mut commit, &mut author.contents);
        freeze(commit, &author.contents, None, &Keys::off()).unwrap_err().kind()
    };
    assert_eq!(refused(|commit, _| commit.format = 2), InvalidInput);
    assert_eq!(refused(|commit, _| commit.id.epoch = 100_000_000), InvalidInput);
    assert_eq!(refused(|commit, _| commit.parent = Some(commit.id)), InvalidInput);
    assert_eq!(refused(|commit, _| commit.user = "..".into()), InvalidInput);
    assert_eq!(refused(|commit, _| commit.put[0].path = ".session-sidecar/x".into()), InvalidInput);
    assert_eq!(refused(|_, contents| drop(contents.remove("creds.json"))), InvalidInput);
    let replaced = |bytes: &'static [u8]| {
        let mut author = author();
        let commit = author.next(Kind::Base, None);
        author.contents.insert("creds.json".into(), Content::Bytes(Bytes::from_static(bytes)));
        freeze(commit, &author.contents, None, &Keys::off()).unwrap_err().kind()
    };
    assert_eq!(replaced(b"{\"me\":2}"), InvalidData, "other bytes of the same size");
    assert_eq!(replaced(b"{\"me\":1}more"), InvalidData, "more bytes");
    assert_eq!(replaced(b""), InvalidData, "fewer bytes");
}

#[test]
fn the_crafted_archive_is_fine_before_it_is_made_hostile() {
    assert_eq!(hostile(|_, _| ()).unwrap(), BTreeMap::from([("a".to_owned(), b"x".to_vec())]));
}

#[test]
fn entries_that_are_not_announced_are_damage() {
    for name in [
        "files/b",
        "files//a",
        "files/../a",
        "/files/a",
        "../x",
        "files/./a",
        "a",
        "files/",
        "files",
        "commit.json",
        "blocks/a",
    ] {
        damage(hostile(|_, tar| raw(tar, EntryType::Regular, name.as_bytes(), b"x")), "not announced");
    }
    damage(hostile(|_, tar| raw(tar, EntryType::Regular, b"files/a", b"x")), "comes twice");
    damage(hostile(|_, tar| raw(tar, EntryType::Regular, b"files/\xff", b"x")), "UTF-8");
}

#[test]
fn announced_paths_that_leave_the_tree_are_damage_even_when_they_are_there() {
    for path in ["/tmp/owned", "../owned", "a/../../owned", ".session-sidecar/state.json", "lost+found/a"] {
        let result = hostile(|commit, tar| {
            announce(commit, path, b"x");
            raw(tar, EntryType::Regular, format!("files/{path}").as_bytes(), b"x");
        });
        damage(result, "the path");
    }
}

#[test]
fn only_regular_files_are_entries() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::GNUSparse,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
        EntryType::new(b'V'),
    ] {
        damage(hostile(|_, tar| raw(tar, kind, b"files/a", b"")), "not a regular file");
        let instead = hostile(|_, tar| {
            tar.clear();
            raw(tar, kind, b"files/a", b"x");
        });
        damage(instead, "not a regular file");
    }
}

#[test]
fn a_long_name_is_bounded_single_and_followed_by_its_file() {
    let long = |length: usize| {
        hostile(|_, tar| {
            raw(tar, EntryType::GNULongName, b"././@LongLink", &vec![b'n'; length]);
            raw(tar, EntryType::Regular, b"files/a", b"x");
        })
    };
    damage(long(4000), "not announced");
    damage(long(5000), "not a regular file");
    damage(
        hostile(|_, tar| {
            raw(tar, EntryType::GNULongName, b"././@LongLink", b"files/b");
            raw(tar, EntryType::GNULongName, b"././@LongLink", b"files/a");
        }),
        "not a regular file",
    );
    damage(
        hostile(|_, tar| raw(tar, EntryType::GNULongName, b"././@LongLink", b"files/b")),
        "without a file",
    );
}

#[test]
fn contents_must_be_those_announced() {
    let replaced = |content: &[u8]| {
        hostile(|_, tar| {
            tar.clear();
            raw(tar, EntryType::Regular, b"files/a", content);
        })
    };
    damage(replaced(b"y"), "not the one announced");
    damage(replaced(b""), "size");
    damage(replaced(b"xx"), "size");
    damage(hostile(|_, tar| tar.clear()), "missing");
    damage(hostile(|commit, _| announce(commit, "b", b"")), "missing");
    damage(hostile(|commit, _| commit.put[0].meta.mode = 0o6777), "mode");
}

#[test]
fn what_unpacks_to_more_than_it_announces_is_stopped() {
    // A size that only the header knows, of a file that the commit calls small.
    let bomb = vec![0; 16 << 20];
    damage(
        hostile(|_, tar| {
            tar.clear();
            raw(tar, EntryType::Regular, b"files/a", &bomb);
        }),
        "size",
    );
    // Zeros behind the end of the archive, which no header announces.
    let mut tar = Vec::new();
    let commit = Author::new().next(Kind::Base, None);
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    tar.extend_from_slice(&bomb);
    damage(unpack_all(&compress(&tar), &commit.name()), "unpacks to more");
    // And in place of commit.json.
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"commit.json", &vec![b' '; 65 << 20]);
    damage(unpack_all(&finish(tar), &commit.name()), "begin with commit.json");
}

#[test]
fn sizes_that_overflow_are_damage() {
    damage(
        hostile(|commit, _| {
            announce(commit, "b", b"");
            commit.put[0].meta.size = u64::MAX;
        }),
        "overflow",
    );
}

#[test]
fn commit_json_comes_first() {
    let commit = Author::new().put("a", b"x").next(Kind::Base, None);
    let name = commit.name();
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"files/a", b"x");
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    damage(unpack_all(&finish(tar), &name), "begin with commit.json");
    damage(unpack_all(&finish(Vec::new()), &name), "begin with commit.json");
    damage(unpack_all(&compress(b""), &name), "begin with commit.json");
    damage(unpack_all(b"", &name), "incomplete frame");
    damage(unpack_all(b"<html>not what you asked for</html>", &name), "");
}

#[test]
fn every_truncation_and_every_flipped_byte_is_noticed() {
    let frozen = author().freeze(Kind::Base);
    let (name, bytes) = (frozen.commit.name(), &frozen.objects[0].1);
    for length in 0..bytes.len() {
        assert!(unpack_all(&bytes[..length], &name).unwrap_err().is_damage(), "{length} bytes");
    }
    let whole = unpack_all(bytes, &name).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x20;
        match unpack_all(&flipped, &name) {
            // Some bits of a zstd header carry nothing; what comes out is right all the same.
            Ok(files) => assert_eq!(files, whole, "byte {at}"),
            Err(error) => assert!(error.is_damage(), "byte {at}: {error}"),
        }
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let frozen = author().freeze(Kind::Base);
    let (name, bytes) = (frozen.commit.name(), frozen.objects[0].1.to_vec());
    damage(unpack_all(&[&bytes[..], b"x"].concat(), &name), "end of the compressed data");
    damage(unpack_all(&[&bytes[..], &bytes[..]].concat(), &name), "end of the compressed data");
    damage(unpack_all(&[&bytes[..], &compress(b"more")].concat(), &name), "end of the compressed data");
    let commit = Author::new().next(Kind::Base, None);
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    tar.extend_from_slice(&[0; 512]);
    raw(&mut tar, EntryType::Regular, b"files/hidden", b"x");
    damage(unpack_all(&finish(tar), &commit.name()), "end of the archive");
}

#[test]
fn a_window_that_needs_much_memory_is_refused() {
    let commit = Author::new().next(Kind::Base, None);
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    tar.extend_from_slice(&[0; 1024]);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&tar).unwrap();
    damage(unpack_all(&encoder.finish().unwrap(), &commit.name()), "memory");
}

#[test]
fn an_encrypted_object_is_refused_and_not_called_damaged() {
    let frozen = author().freeze(Kind::Base);
    let name = CommitName { encrypted: true, ..frozen.commit.name() };
    let error = unpack_all(&frozen.objects[0].1, &name).unwrap_err();
    assert!(matches!(error, HistoryError::NoIdentity { .. }) && !error.is_damage(), "{error}");
}

#[test]
fn a_failing_disk_is_not_called_damage() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::from_raw_os_error(5)),
                read => Ok(read),
            }
        }
    }
    let frozen = author().freeze(Kind::Base);
    let (name, bytes) = (frozen.commit.name(), &frozen.objects[0].1);
    let error = unpack(Broken(&bytes[..60]), &name, &key(), &Keys::off(), &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, HistoryError::Io { .. }), "{error}");
    let full =
        unpack(&bytes[..], &name, &key(), &Keys::off(), &mut |_, _| Err(io::ErrorKind::StorageFull.into()))
            .unwrap_err();
    assert_eq!(full.code(), crate::error::Code::DiskFull);
}

#[test]
fn parts_are_read_as_one_stream() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|n| dir.path().join(n.to_string())).collect();
    for (path, text) in paths.iter().zip(["one", "", "three"]) {
        std::fs::write(path, text).unwrap();
    }
    let mut text = String::new();
    Parts::new(paths.clone()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "onethree");
    std::fs::remove_file(&paths[2]).unwrap();
    assert!(Parts::new(paths).read_to_string(&mut text).is_err());
}

/// A base and a delta that patches `db`: 10,000 bytes, of which the first and the last, short block changed.
fn patching() -> (Author, Commit, Vec<u8>) {
    let mut author = Author::new();
    let mut bytes = vec![b'o'; 10_000];
    author.put("db", &bytes).put("a", b"x").next(Kind::Base, None);
    bytes[5] = b'n';
    bytes[9999] = b'n';
    let commit = author.patch("db", &bytes).put("a", b"y").next(Kind::Delta, None);
    let blocks = [&bytes[..4096], &bytes[8192..]].concat();
    (author, commit, blocks)
}

#[test]
fn of_a_patched_file_only_the_changed_blocks_are_packed() {
    let (author, commit, blocks) = patching();
    assert_eq!(commit.patch[0].runs, [(0, 1), (2, 1)]);
    let name = commit.name();
    let frozen = freeze(commit, &author.contents, None, &Keys::off()).unwrap();
    let items = unpack_all(&frozen.objects[0].1, &name).unwrap();
    assert_eq!(items, BTreeMap::from([("a".into(), b"y".to_vec()), ("blocks of db".into(), blocks)]));
}

#[test]
fn a_patch_of_other_contents_is_never_packed() {
    let (mut author, commit, _) = patching();
    // Also where it only differs in what is not sent.
    let mut other = author.contents["db"].bytes().unwrap().to_vec();
    other[5000] = b'?';
    author.contents.insert("db".into(), Content::Bytes(other.into()));
    let error = freeze(commit.clone(), &author.contents, None, &Keys::off()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    author.contents.remove("db");
    assert_eq!(
        freeze(commit, &author.contents, None, &Keys::off()).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

/// The archive of `patching`, with these blocks under this name, and the commit changed by whoever calls.
fn hostile_patch(
    name: &[u8],
    blocks: impl FnOnce(&[u8]) -> Vec<u8>,
    change: impl FnOnce(&mut Commit),
) -> Result<BTreeMap<String, Vec<u8>>, HistoryError> {
    let (_, mut commit, bytes) = patching();
    let of = commit.name();
    change(&mut commit);
    let mut tar = Vec::new();
    raw(&mut tar, EntryType::Regular, b"commit.json", &commit.to_json());
    raw(&mut tar, EntryType::Regular, b"files/a", b"y");
    raw(&mut tar, EntryType::Regular, name, &blocks(&bytes));
    unpack_all(&finish(tar), &of)
}

#[test]
fn blocks_are_exactly_as_long_as_their_runs() {
    let whole = |bytes: &[u8]| bytes.to_vec();
    hostile_patch(b"blocks/db", whole, |_| ()).unwrap();
    damage(hostile_patch(b"blocks/db", |bytes| bytes[1..].to_vec(), |_| ()), "size that is announced");
    damage(hostile_patch(b"blocks/db", |bytes| [bytes, b"x"].concat(), |_| ()), "size that is announced");
    damage(
        hostile_patch(b"blocks/db", whole, |commit| commit.patch[0].entry.meta.size += 1),
        "size that is announced",
    );
    damage(
        hostile_patch(b"blocks/db", whole, |commit| commit.patch[0].runs = vec![]),
        "size that is announced",
    );
}

#[test]
fn blocks_stand_under_their_own_name_and_for_a_patch_only() {
    let whole = |bytes: &[u8]| bytes.to_vec();
    damage(hostile_patch(b"files/db", whole, |_| ()), "not announced");
    damage(hostile_patch(b"blocks/a", whole, |_| ()), "not announced");
    damage(hostile_patch(b"db", whole, |_| ()), "not announced");
    damage(hostile_patch(b"blocks/db", whole, |commit| commit.patch.clear()), "not announced");
    damage(
        hostile(|commit, entries| {
            entries.clear();
            raw(entries, EntryType::Regular, b"blocks/a", b"x");
            assert_eq!(commit.put.len(), 1);
        }),
        "not announced",
    );
}

#[test]
fn a_patch_that_announces_less_than_it_unpacks_to_is_stopped() {
    // The size in its header is a lie as well: what comes beyond is cut off by the count of all that was announced.
    let bomb = |_: &[u8]| vec![0; 1 << 20];
    damage(hostile_patch(b"blocks/db", bomb, |_| ()), "size that is announced");
    damage(
        hostile_patch(b"blocks/db", <[u8]>::to_vec, |commit| {
            let mut second = commit.patch[0].clone();
            (second.entry.path, second.entry.meta.size) = ("huge".into(), u64::MAX);
            second.runs = vec![(0, u64::MAX / 4096)];
            commit.patch.push(second);
        }),
        "overflow",
    );
}
