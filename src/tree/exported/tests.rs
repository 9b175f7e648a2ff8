use std::fs;
use std::path::Path;

use super::*;
use crate::tree::scan::scan;
use crate::tree::{Filter, read};

/// A tree on disk, and its archive.
fn exported() -> (tempfile::TempDir, Vec<u8>) {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("keys/empty")).unwrap();
    fs::write(top.path().join("creds.json"), "{}").unwrap();
    fs::write(top.path().join("keys").join("k".repeat(200)), "long").unwrap();
    let dir = Dir::open(top.path()).unwrap();
    let mut archive = Vec::new();
    pack(&table(top.path()), &dir, &mut archive).unwrap();
    (top, archive)
}

fn table(path: &Path) -> Table {
    let (dir, filter) = (Dir::open(path).unwrap(), Filter::new(None, &[], &[]).unwrap());
    let found = scan(&dir, &filter).unwrap();
    let meta = |file: &String| {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let (meta, _) = read::read_file(&dir, &filter, file, now, path).unwrap().unwrap();
        (file.clone(), meta)
    };
    Table { files: found.files.keys().map(meta).collect(), empty_dirs: found.empty_dirs }
}

fn into_fresh(archive: &[u8]) -> Result<(tempfile::TempDir, Summary), Refused> {
    let fresh = tempfile::tempdir().unwrap();
    let tree = unpack(archive, &Dir::open(fresh.path()).unwrap())?;
    Ok((fresh, tree))
}

/// The archive with other entries behind the announcement of `files` files of `bytes` bytes.
fn forged(files: u64, bytes: u64, entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
    let tree = Summary { files, bytes, sha256: Hash::of(b"") };
    let comment = record("comment", &Announced { tree, empty_dirs: 1 }.to_string());
    let mut tar = tar::Builder::new(Vec::new());
    let mut all = vec![(EntryType::XGlobalHeader, HEADER, comment.as_bytes())];
    all.extend(entries);
    for (kind, name, content) in all {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        // Also names that the library would refuse.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    zstd::encode_all(&*tar.into_inner().unwrap(), 1).unwrap()
}

#[test]
fn what_is_exported_is_unpacked_as_it_was() {
    let (top, archive) = exported();
    let (fresh, tree) = into_fresh(&archive).unwrap();
    assert_eq!(tree, table(top.path()).summary());
    assert_eq!(table(fresh.path()).summary(), tree);
    assert!(fresh.path().join("keys/empty").is_dir());
}

#[test]
fn a_changed_or_cut_archive_is_refused() {
    let (top, archive) = exported();
    let whole = table(top.path()).summary();
    for cut in [0, 10, archive.len() / 2, archive.len() - 1] {
        assert!(matches!(into_fresh(&archive[..cut]), Err(Refused::Archive(_))), "{cut}");
    }
    let mut refused = 0;
    for at in (0..archive.len()).step_by(7) {
        let mut other = archive.clone();
        other[at] ^= 1;
        // Some bits of the compression mean nothing.
        match into_fresh(&other) {
            Err(_) => refused += 1,
            Ok((_, tree)) => assert_eq!(tree, whole, "{at}"),
        }
    }
    assert!(refused > archive.len() / 7 - 5, "{refused} of {}", archive.len());
    assert!(into_fresh(&[&archive[..], b"x"].concat()).is_err());
}

#[test]
fn what_an_enemy_packs_is_refused() {
    let regular = EntryType::Regular;
    for (what, archive) in [
        ("a name above", forged(1, 1, &[(regular, "../x", b"1")])),
        ("a name from the top", forged(1, 1, &[(regular, "/etc/x", b"1")])),
        ("the state directory", forged(1, 1, &[(regular, ".session-sidecar/lock", b"1")])),
        ("a name twice", forged(2, 2, &[(regular, "x", b"1"), (regular, "x", b"1")])),
        ("a file below a file", forged(2, 2, &[(regular, "x", b"1"), (regular, "x/y", b"1")])),
        ("a link", forged(1, 1, &[(EntryType::Symlink, "x", b"")])),
        ("a device", forged(1, 1, &[(EntryType::Char, "x", b"")])),
        ("more bytes", forged(1, 1, &[(regular, "x", b"12")])),
        ("more files", forged(0, 9, &[(regular, "x", b"")])),
        ("another tree", forged(1, 1, &[(regular, "x", b"1")])),
        ("no announcement", zstd::encode_all(&[0_u8; 1024][..], 1).unwrap()),
    ] {
        assert!(matches!(into_fresh(&archive), Err(Refused::Archive(_))), "{what}");
    }
}
