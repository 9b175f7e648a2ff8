//! `history`, `verify`, `export` and `init` against a bucket on loopback.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use session_sidecar::emulator::{self, BucketOptions, Emulator, Options};
use session_sidecar::history::{self, Commit, Id, Keys, Kind, Writer, upload};
use session_sidecar::host::Real;
use session_sidecar::session::SessionKey;
use session_sidecar::store::{Page, Put, Store};
use session_sidecar::supabase::{Credential, CredentialSource, Endpoint, Settings, Supabase, Timeouts};
use session_sidecar::tree::{Content, Entry, Hash, Meta, Table};

const NOW: &str = "2026-11-23T21:00:00Z";

struct World {
    dir: tempfile::TempDir,
    emulator: Emulator,
    store: Supabase,
    key: SessionKey,
}

impl World {
    async fn new(bucket: Option<BucketOptions>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().join("supabase"), bucket, ..Options::default() };
        let emulator = emulator::start(options).await.unwrap();
        let credential = Credential::parse(emulator.service_role_key(), NOW.parse().unwrap()).unwrap();
        let store = Supabase::new(Settings {
            endpoint: Endpoint::parse(&emulator.url()).unwrap(),
            credential: CredentialSource::fixed(credential),
            bucket: "whatsapp-sessions".to_owned(),
            ca_file: None,
            timeouts: Timeouts::default(),
            host: Arc::new(Real),
        });
        Self { dir, emulator, store: store.unwrap(), key: "u/s".parse().unwrap() }
    }

    /// Commits a base with these files.
    async fn commit(&self, seq: u32, parent: Option<Id>, files: &[(&str, &[u8])]) -> Id {
        let id = Id::new(1, seq, seq).unwrap();
        let (mut table, mut contents) = (Table::default(), BTreeMap::new());
        for (path, bytes) in files {
            let meta = Meta {
                size: bytes.len() as u64,
                mode: 0o640,
                mtime_ns: 1_000_000_000,
                sha256: Hash::of(bytes),
            };
            table.files.insert((*path).to_owned(), meta);
            contents.insert((*path).to_owned(), Content::Bytes(Bytes::copy_from_slice(bytes)));
        }
        table.empty_dirs.insert("keys".to_owned());
        let put = table.files.iter().map(|(path, meta)| Entry { path: path.clone(), meta: *meta }).collect();
        let commit = Commit {
            format: 1,
            user: self.key.user().to_owned(),
            session: self.key.session().to_owned(),
            id,
            parent,
            kind: Kind::Base,
            created_at: NOW.parse().unwrap(),
            writer: Writer { holder: "h".to_owned(), version: "1".to_owned(), label: None },
            mark: None,
            recipients: Vec::new(),
            put,
            patch: Vec::new(),
            remove: Vec::new(),
            empty_dirs: vec!["keys".to_owned()],
            tree: table.summary(),
        };
        let frozen = history::freeze(commit, &contents, None, &Keys::off()).unwrap();
        upload::upload(&self.store, &self.key, &frozen, "application/json").await.unwrap();
        id
    }

    /// What the binary leaves behind.
    async fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        command.args(args).arg("--json").env_clear().stdin(Stdio::null()).current_dir(self.dir.path());
        command
            .env("SUPABASE_URL", self.emulator.url())
            .env("SUPABASE_SECRET_KEY", self.emulator.secret_key());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The binary's exit code and its JSON document.
    async fn run(&self, args: &[&str]) -> (i32, Value) {
        let output = self.output(args).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let document = serde_json::from_slice(&output.stdout);
        (output.status.code().unwrap(), document.unwrap_or_else(|_| panic!("no document: {stderr}")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_point_is_listed_verified_and_exported() {
    let world = World::new(Some(BucketOptions::default())).await;
    let first = world.commit(1, None, &[("creds.json", b"{\"n\":1}")]).await;
    let second =
        world.commit(2, Some(first), &[("creds.json", b"{\"n\":2}"), ("keys2/a b.json", b"{}")]).await;

    let (code, history) = world.run(&["history"]).await;
    assert_eq!((code, &history["head"]), (0, &Value::from(second.to_string())));
    assert_eq!(history["points"][1]["id"], first.to_string());
    assert_eq!(history["points"][1]["in_chain"], true);

    let (code, status) = world.run(&["status"]).await;
    assert_eq!((code, &status["running"]), (0, &Value::from(false)));
    let session = &status["sessions"][0];
    assert_eq!((&session["state"], &session["files"]), (&Value::from("stopped"), &Value::from(2)));

    let (code, verified) = world.run(&["verify"]).await;
    assert_eq!((code, &verified["sessions"][0]["files"]), (0, &Value::from(2)));

    let (code, _) = world.run(&["export", "--to", "out/new"]).await;
    assert_eq!(code, 0);
    let exported = world.dir.path().join("out/new");
    assert_eq!(std::fs::read(exported.join("keys2/a b.json")).unwrap(), b"{}");
    assert!(exported.join("keys").is_dir());
    let names = std::fs::read_dir(world.dir.path().join("out")).unwrap().count();
    assert_eq!(names, 1, "nothing temporary stays");

    let id = first.to_string();
    let (code, report) = world.run(&["export", "u/s", "--to", "old.tar.zst", "--at", &id]).await;
    assert_eq!((code, &report["id"]), (0, &Value::from(id)));
    assert_eq!(unpacked(&world.dir.path().join("old.tar.zst")), "{\"n\":1}");

    let (code, error) = world.run(&["export", "--to", "old.tar.zst"]).await;
    assert_eq!((code, &error["error"]["code"]), (2, &Value::from("usage")));
    for to in ["old.tar.gz", "/proc/nowhere/x"] {
        let (code, error) = world.run(&["export", "--to", to]).await;
        assert_eq!((code, &error["error"]["code"]), (2, &Value::from("usage")), "{to}");
    }
    assert!(!world.dir.path().join("old.tar.gz").exists());
    let piped = world.output(&["export", "--to", "-"]).await;
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    let archive = world.dir.path().join("piped");
    std::fs::write(&archive, piped.stdout).unwrap();
    assert_eq!(unpacked(&archive), "{\"n\":2}");
    let (code, error) = world.run(&["export", "--to", "x", "--at", "2001-01-01T00:00:00Z"]).await;
    assert_eq!((code, &error["error"]["code"]), (2, &Value::from("not_found")));
    world.emulator.stop().await;
}

/// What standard tools make of an archive.
fn unpacked(archive: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    let pipe = format!("zstd -dc {} | tar -x -C {}", archive.display(), dir.path().display());
    assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
    std::fs::read_to_string(dir.path().join("creds.json")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_is_exit_6_and_names_the_point_that_verifies() {
    let world = World::new(Some(BucketOptions::default())).await;
    let first = world.commit(1, None, &[("creds.json", b"{\"n\":1}")]).await;
    let second = world.commit(2, Some(first), &[("creds.json", b"{\"n\":2}")]).await;
    let key = format!(".history/u/s/{second}.base.from.{first}.tar.zst");
    let object = world.emulator.object_path("whatsapp-sessions", &key).unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&object, bytes).unwrap();
    for args in [&["verify"][..], &["export", "--to", "out"]] {
        let (code, error) = world.run(args).await;
        assert_eq!((code, &error["error"]["code"]), (6, &Value::from("damaged")), "{error}");
        assert!(error["error"]["message"].as_str().unwrap().contains(&first.to_string()), "{error}");
    }
    assert!(!world.dir.path().join("out").exists());
    world.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_not_there_is_no_success() {
    let world = World::new(Some(BucketOptions::default())).await;
    let (code, error) = world.run(&["export", "--to", "out"]).await;
    assert_eq!((code, &error["error"]["code"]), (3, &Value::from("no_session")));
    world.commit(1, None, &[("creds.json", b"{}")]).await;
    for args in [&["verify", "u/typo"][..], &["history", "u/typo"], &["verify", "--session", "u/typo"]] {
        let (code, error) = world.run(args).await;
        assert_eq!((code, &error["error"]["code"]), (3, &Value::from("no_session")), "{args:?}");
    }
    let (code, error) = world.run(&["verify", "--bucket", "whatsapp-session"]).await;
    assert_eq!((code, &error["error"]["code"]), (2, &Value::from("bucket_missing")));
    world.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_creates_a_private_bucket_and_mends_an_old_one() {
    let world = World::new(None).await;
    let (code, report) = world.run(&["init"]).await;
    assert_eq!((code, &report["created"]), (0, &Value::from(true)));
    assert!(!world.store.bucket().await.unwrap().public);

    world.emulator.put_bucket(BucketOptions { public: true, ..BucketOptions::default() }).unwrap();
    let (code, report) = world.run(&["init"]).await;
    assert_eq!((code, report["changed"].as_array().unwrap().len()), (0, 3));
    let bucket = world.store.bucket().await.unwrap();
    assert!(!bucket.public && bucket.types.unwrap().contains(&"application/zstd".to_owned()));
    let (_, report) = world.run(&["init"]).await;
    assert_eq!((&report["created"], report["changed"].as_array().unwrap().len()), (&Value::from(false), 0));
    world.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_the_whole_project_shows_every_history_and_needs_no_disk() {
    let mut world = World::new(Some(BucketOptions::default())).await;
    let mut heads = Vec::new();
    for key in ["u/s", "u/t", "v/s"] {
        world.key = key.parse().unwrap();
        heads.push(world.commit(1, None, &[("creds.json", b"{}"), ("note.json", key.as_bytes())]).await);
    }
    let damaged = world.commit(2, Some(heads[2]), &[("creds.json", b"{}")]).await;
    let key = format!("{}{damaged}.base.from.{}.tar.zst", world.key.history_prefix(), heads[2]);
    let object = world.emulator.object_path("whatsapp-sessions", &key).unwrap();
    std::fs::write(object, b"no archive").unwrap();
    // A mirror alone is no history.
    let how = Put { content_type: "application/json".to_owned(), ..Put::default() };
    world.store.put("w/s/creds.json", "{}".into(), &how).await.unwrap();
    let before = world.store.list(&Page::default()).await.unwrap();

    let (code, report) = world.run(&["status", "--all", "--root", "nowhere"]).await;
    assert_eq!(code, 0, "{report}");
    let sessions = report["sessions"].as_array().unwrap();
    let named: Vec<&str> = sessions.iter().map(|one| one["session"].as_str().unwrap()).collect();
    assert_eq!(named, ["u/s", "u/t", "v/s"]);
    assert_eq!(sessions[1]["head"], heads[1].to_string());
    assert_eq!((&sessions[1]["files"], &sessions[1]["bytes"]), (&2.into(), &5.into()));
    assert!(sessions[1]["last_commit_at"].is_string() && sessions[1]["alarms"] == Value::Array(vec![]));
    assert!(sessions[2]["alarms"][0].as_str().unwrap().contains("damaged"), "{}", sessions[2]);
    assert_eq!(
        world.store.list(&Page::default()).await.unwrap().objects,
        before.objects,
        "no lease is taken"
    );
    assert!(!world.dir.path().join("nowhere").exists());
}
