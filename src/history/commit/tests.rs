use super::*;
use crate::error::Code;
use crate::history::testing::{Author, id, key};

/// As it stands in DESIGN.md.
const DESIGN: &str = r#"{ "format": 1, "user": "u", "session": "s", "id": "00000003-00000042-1b20c7d9", "parent": "00000003-00000041-9f3c01ab", "kind": "delta",
  "created_at": "2026-11-23T21:00:00Z", "writer": {"holder": "h", "version": "0.1.0", "label": "bot:1.4.2"}, "mark": null,
  "put":    [{"path": "creds.json", "size": 1893, "mode": 384, "mtime_ns": 0, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}],
  "patch":  [{"path": "whatsapp.db", "size": 52428800, "mode": 384, "mtime_ns": 0, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
              "of": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", "block": 4096, "runs": [[12, 3]]}],
  "remove": ["pre-key-17.json"], "empty_dirs": ["keys"],
  "tree":   {"files": 5461, "bytes": 3151624, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"} }"#;

fn read(json: &str) -> Result<Commit, HistoryError> {
    Commit::from_json(id(3, 42), json.as_bytes())
}

fn checked(change: impl FnOnce(&mut Commit)) -> Result<(), HistoryError> {
    let mut commit = Author::new().put("creds.json", b"{}").put("keys/a.json", b"{}").next(Kind::Base, None);
    let name = commit.name();
    change(&mut commit);
    commit.check(&name, &key())
}

#[test]
fn the_commit_of_the_design_is_read_and_written_alike() {
    let commit = read(DESIGN).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&commit.to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(DESIGN).unwrap());
    assert_eq!(commit.put[0].meta.mode, 0o600);
}

#[test]
fn unknown_fields_are_tolerated() {
    let json = DESIGN.replacen('{', r#"{"later": {"a": [1]}, "#, 1);
    assert_eq!(read(&json).unwrap(), read(DESIGN).unwrap());
}

#[test]
fn a_newer_format_asks_for_an_upgrade_and_is_not_called_damaged() {
    let error = read(r#"{"format": 2, "everything": "else"}"#).unwrap_err();
    assert!(matches!(&error, HistoryError::Refused(text) if text.contains("upgrade")), "{error}");
    assert_eq!(error.code(), Code::Usage);
    assert!(read(r#"{"format": "#).unwrap_err().is_damage());
}

#[test]
fn a_patch_of_the_design_is_taken() {
    let commit = read(DESIGN).unwrap();
    assert_eq!(commit.patch[0].ranges().collect::<Vec<_>>(), [(12 * 4096, 3 * 4096)]);
    commit.check(&commit.name(), &key()).unwrap();
    let hash = DESIGN.replace("60303ae22b998861", "60303AE22B99886x");
    assert!(read(&hash).unwrap_err().is_damage(), "`of` is no hash");
}

fn patched(change: impl FnOnce(&mut Commit)) -> Result<(), HistoryError> {
    let mut author = Author::new();
    author.put("db", &[0; 10_000]).put("keys/a.json", b"{}").next(Kind::Base, None);
    let mut commit = author.patch("db", &[1; 10_000]).put("creds.json", b"{}").next(Kind::Delta, None);
    let name = commit.name();
    change(&mut commit);
    commit.check(&name, &key())
}

#[test]
fn a_patch_keeps_the_rules_of_a_put() {
    let refused = |change: fn(&mut Commit)| assert!(patched(change).unwrap_err().is_damage());
    patched(|_| ()).unwrap();
    refused(|commit| commit.patch[0].entry.path = "../db".into());
    refused(|commit| commit.patch[0].entry.path = ".session-sidecar/state.json".into());
    refused(|commit| commit.patch[0].entry.meta.mode = 0o4600);
    refused(|commit| commit.patch[0].entry.path = "creds.json".into());
    refused(|commit| commit.patch.push(commit.patch[0].clone()));
    refused(|commit| commit.remove.push("db".into()));
    refused(|commit| commit.patch[0].block = 4095);
    refused(|commit| commit.patch[0].runs.push((0, 1)));
    refused(|commit| commit.patch[0].runs = vec![(2, 2)]);
}

#[test]
fn a_base_patches_nothing() {
    let mut author = Author::new();
    author.put("db", b"0").next(Kind::Base, None);
    let delta = author.patch("db", b"1").next(Kind::Delta, None);
    let refused = checked(|commit| commit.patch = delta.patch).unwrap_err();
    assert!(refused.to_string().contains("base that patches"), "{refused}");
}

#[test]
fn a_commit_must_agree_with_its_name_and_place() {
    checked(|_| ()).unwrap();
    assert!(checked(|commit| commit.id = id(1, 2)).unwrap_err().is_damage());
    assert!(checked(|commit| commit.parent = Some(id(1, 0))).unwrap_err().is_damage());
    assert!(checked(|commit| commit.kind = Kind::Delta).unwrap_err().is_damage());
    assert!(checked(|commit| commit.user = "v".into()).unwrap_err().is_damage());
    assert!(checked(|commit| commit.session = "t".into()).unwrap_err().is_damage());
}

#[test]
fn paths_that_leave_the_session_or_are_reserved_are_refused() {
    let long = "a/".repeat(2100) + "a";
    for path in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "",
        ".",
        "a\0b",
        ".session-sidecar/state.json",
        "lost+found/x",
        &long,
    ] {
        assert!(checked(|commit| commit.put[0].path = path.into()).unwrap_err().is_damage(), "put {path:?}");
        let removed = checked(|commit| {
            commit.kind = Kind::Delta;
            commit.remove.push(path.into());
        });
        assert!(removed.unwrap_err().is_damage(), "remove {path:?}");
        assert!(
            checked(|commit| commit.empty_dirs.push(path.into())).unwrap_err().is_damage(),
            "dir {path:?}"
        );
    }
}

#[test]
fn a_path_is_named_once_and_modes_stay_below_0777() {
    assert!(checked(|commit| commit.put[0].path = commit.put[1].path.clone()).unwrap_err().is_damage());
    assert!(checked(|commit| commit.put[0].meta.mode = 0o4755).unwrap_err().is_damage());
    assert!(
        checked(|commit| commit.remove.push("gone".into())).unwrap_err().is_damage(),
        "a base removes nothing"
    );
}

#[test]
fn a_file_may_become_an_empty_directory_in_one_commit() {
    let mut author = Author::new();
    author.put("keys", b"").put("creds.json", b"{}").next(Kind::Base, None);
    author.remove("keys").table.empty_dirs.insert("keys".into());
    let commit = author.next(Kind::Delta, None);
    commit.check(&commit.name(), &key()).unwrap();
}
