//! Encrypted histories: turning it on, other programs that open it, other identities, and what must not be believed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use session_sidecar::emulator::{BUCKET, BucketOptions};
use session_sidecar::history::{self, Commit, Id, Keys, Kind, Writer};
use session_sidecar::store::{Page, Store as _};
use session_sidecar::tree::{Content, Entry, Hash, Meta, Table};

use crate::support::world::{SESSION, World, contents, files, finished, refused};

/// A pair as `age-keygen` of another project makes it.
struct Pair {
    recipient: String,
    file: PathBuf,
}

impl Pair {
    fn new(world: &World, name: &str) -> Self {
        let file = world.root(&format!("{name}.key"));
        let made = Command::new("age-keygen").arg("-o").arg(&file).output().unwrap();
        assert!(made.status.success());
        let public = Command::new("age-keygen").arg("-y").arg(&file).output().unwrap();
        Self { recipient: String::from_utf8(public.stdout).unwrap().trim().to_owned(), file }
    }

    fn identity(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }
}

fn with(mut command: Command, pair: &Pair) -> Command {
    command.args(["--recipient", &pair.recipient, "--identity-file", pair.file.to_str().unwrap()]);
    command
}

async fn ok(command: Command) -> String {
    let called = format!("{command:?}");
    let output = finished(command).await;
    assert!(output.status.success(), "{called}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// All names below a prefix.
async fn names(world: &World, prefix: &str) -> Vec<String> {
    let page = Page { prefix: prefix.to_owned(), limit: 1000, ..Page::default() };
    let listing = world.store().list(&page).await.unwrap();
    listing.objects.into_iter().map(|object| object.key).collect()
}

async fn commits(world: &World) -> Vec<String> {
    let all = names(world, ".history/").await;
    all.into_iter().filter(|name| name.contains(".tar.zst")).collect()
}

async fn exported(world: &World, command: Command, name: &str) -> BTreeMap<String, Vec<u8>> {
    let (mut command, to) = (command, world.root(name));
    command.arg("--to").arg(&to);
    ok(command).await;
    contents(&to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_with_a_pin_is_encrypted_whole_and_the_standard_tools_open_it() {
    let world = World::new().await;
    let pair = Pair::new(&world, "mine");
    let root = world.root("root");
    write(&root, "a.json", "{\"v\":1}");
    write(&root, "keys/b.json", "{}");
    world.ok("sync", &root, &["--label", "one"]).await;
    write(&root, "a.json", "{\"v\":2}");
    world.ok("sync", &root, &["--label", "two"]).await;
    let old = world.pinned(&root, "label").await.unwrap();
    let (first, tree) = (world.point(&old).await, contents(&root));
    assert_eq!(first["a.json"].1, b"{\"v\":1}");
    world.post(&format!("/object/{BUCKET}/{SESSION}/notes.json"), b"{}".to_vec()).await;
    assert_eq!(names(&world, "u1/").await.len(), 3, "the mirror, and a file of somebody's");

    ok(with(world.command("sync", &root), &pair)).await;

    let left = commits(&world).await;
    assert!(left.len() > 1 && left.iter().all(|name| name.ends_with(".tar.zst.age")), "{left:?}");
    assert_eq!(names(&world, "u1/").await, [format!("{SESSION}/notes.json")], "no commit has it");
    let verified = ok({
        let mut verify = with(world.command("verify", &root), &pair);
        verify.arg("--json");
        verify
    });
    let verified: Value = serde_json::from_str(&verified.await).unwrap();
    let counted = &verified["sessions"][0];
    assert_eq!(counted["plaintext_objects"], 0);
    assert_eq!(counted["encrypted_objects"], left.len());

    // What was pinned, and the newest: by us, and by programs that know nothing of us.
    assert_eq!(exported(&world, with(world.command("export", &root), &pair), "newest").await, tree);
    let mut at = with(world.command("export", &root), &pair);
    at.args(["--at", &old]);
    let point = exported(&world, at, "old").await;
    assert_eq!(point, first.iter().map(|(path, (_, bytes))| (path.clone(), bytes.clone())).collect());
    let opened = world.root("opened");
    std::fs::create_dir(&opened).unwrap();
    let base =
        left.iter().find(|name| name.contains(&old) && name.contains(".base")).or(left.last()).unwrap();
    let script = format!(
        "age -d -i {} {} | tar --zstd -x -C {}",
        pair.file.display(),
        world.supabase.object_path(BUCKET, base).unwrap().display(),
        opened.display()
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success(), "{script}");
    assert!(opened.join("commit.json").is_file() && opened.join("files").is_dir());

    // A new machine, with the identity in a variable.
    let restored = world.root("restored");
    let mut restore = world.command("restore", &restored);
    restore.args(["--recipient", &pair.recipient]).env("SIDECAR_IDENTITY", pair.identity());
    ok(restore).await;
    assert_eq!(contents(&restored), tree);
    let mut doctor = with(world.command("doctor", &root), &pair);
    doctor.arg("--json");
    let report: Value = serde_json::from_slice(&finished(doctor).await.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let line = checks.iter().find(|check| check["name"] == "encryption").unwrap();
    assert!(line["found"].as_str().unwrap().contains("0 objects of commits and 1 of mirrors"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_commit_in_parts_opens_with_the_standard_tools() {
    let world = World::new().await;
    let bucket = BucketOptions { file_size_limit: Some(4 << 10), ..BucketOptions::default() };
    world.supabase.put_bucket(bucket).unwrap();
    let (pair, root) = (Pair::new(&world, "mine"), world.root("root"));
    let mut noise = vec![0; 10_000];
    rand::rngs::StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("noise.bin"), &noise).unwrap();
    ok(with(world.command("sync", &root), &pair)).await;

    let mut parts = commits(&world).await;
    parts.retain(|name| name.contains("-of-003."));
    parts.sort();
    assert_eq!(parts.len(), 3, "{parts:?}");
    let paths = parts.iter().map(|name| world.supabase.object_path(BUCKET, name).unwrap());
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    let opened = world.root("opened");
    std::fs::create_dir(&opened).unwrap();
    let (key, to) = (pair.file.display(), opened.display());
    let script = format!("cat {} | age -d -i {key} | tar --zstd -x -C {to}", paths.join(" "));
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success(), "{script}");
    assert!(std::fs::read(opened.join("files/noise.bin")).unwrap() == noise);
    ok(with(world.command("restore", &world.root("restored")), &pair)).await;
    assert!(contents(&world.root("restored")) == contents(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_or_none_is_a_matter_of_configuration_and_changes_nothing() {
    let world = World::new().await;
    let (mine, other) = (Pair::new(&world, "mine"), Pair::new(&world, "other"));
    let root = world.root("root");
    write(&root, "a.json", "{}");
    ok(with(world.command("sync", &root), &mine)).await;
    write(&root, "a.json", "{\"not\":\"committed\"}");
    let before = (names(&world, "").await, files(&root));
    for command in ["sync", "restore", "run", "export", "verify"] {
        let mut call = world.command(command, &root);
        match command {
            "export" => drop(call.arg("--to").arg(world.root("never"))),
            "run" => drop(call.args(["--probe-listen", "off"])),
            _ => {}
        }
        let wrong = refused(with(call, &other), 2).await;
        assert!(wrong.contains("another identity"), "{command}: {wrong}");
    }
    let none = refused(world.command("sync", &root), 2).await;
    assert!(none.contains("--identity-file"), "{none}");
    // A plain tombstone on an encrypted history would be believed by nobody who has the keys.
    for command in [&["logout", SESSION][..], &["delete", SESSION, "--yes"]] {
        let mut call = world.bare(command[0], &world.root("elsewhere"));
        call.args(&command[1..]);
        let none = refused(call, 2).await;
        assert!(none.contains("--identity-file"), "{command:?}: {none}");
    }
    for (flags, says) in [
        (vec!["--recipient", &mine.recipient], "no identity"),
        (vec!["--identity-file", mine.file.to_str().unwrap()], "no recipient"),
        (
            vec!["--recipient", &mine.recipient, "--identity-file", other.file.to_str().unwrap()],
            "no identity opens",
        ),
    ] {
        let mut command = world.command("sync", &root);
        command.args(flags);
        let error = refused(command, 2).await;
        assert!(error.contains(says), "{error}");
    }
    let mut mirrored = with(world.command("sync", &root), &mine);
    mirrored.args(["--mirror", "on"]);
    assert!(refused(mirrored, 2).await.contains("--mirror"));
    assert_eq!(before, (names(&world, "").await, files(&root)));
    ok(with(world.command("sync", &root), &mine)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_recipients_begin_a_base_and_old_points_open_for_the_old_identity() {
    let world = World::new().await;
    let (old, new) = (Pair::new(&world, "old"), Pair::new(&world, "new"));
    let root = world.root("root");
    write(&root, "a.json", "{\"v\":1}");
    ok(with(world.command("sync", &root), &old)).await;
    let point = world.json("history", &root).await["head"].as_str().unwrap().to_owned();
    let both = Pair { recipient: new.recipient.clone(), file: world.root("both.key") };
    std::fs::write(&both.file, format!("{}\n{}", new.identity(), old.identity())).unwrap();
    write(&root, "a.json", "{\"v\":2}");
    ok(with(world.command("sync", &root), &both)).await;
    // Nobody needs the old identity for what is newest.
    let newest = exported(&world, with(world.command("export", &root), &new), "newest").await;
    assert_eq!(newest, contents(&root));
    let at = |pair: &Pair| {
        let mut command = with(world.command("export", &root), pair);
        command.args(["--at", &point]);
        command
    };
    let mut refused_at = at(&new);
    refused_at.arg("--to").arg(world.root("never"));
    assert!(refused(refused_at, 2).await.contains("another identity"));
    assert_eq!(exported(&world, at(&both), "old").await["a.json"], b"{\"v\":1}");

    // And back: a person says so, and then no key is needed any more.
    let mut off = world.command("sync", &root);
    off.args(["--accept-plaintext", "--mirror", "off", "--identity-file", both.file.to_str().unwrap()]);
    ok(off).await;
    assert_eq!(exported(&world, world.command("export", &root), "plain").await, contents(&root));
}

/// A commit that somebody with the right to write puts on top.
async fn inject(world: &World, text: &str) -> Id {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let meta = Meta { size: bytes.len() as u64, mode: 0o600, mtime_ns: 0, sha256: Hash::of(&bytes) };
    let mut table = Table::default();
    table.files.insert("a.json".to_owned(), meta);
    let id = Id { epoch: 900, seq: 1, nonce: 7 };
    let commit = Commit {
        format: history::commit::FORMAT,
        user: "u1".to_owned(),
        session: "s1".to_owned(),
        id,
        parent: None,
        kind: Kind::Base,
        created_at: jiff::Timestamp::now(),
        writer: Writer { holder: "enemy".to_owned(), version: "0.1.0".to_owned(), label: None },
        mark: None,
        recipients: Vec::new(),
        put: vec![Entry { path: "a.json".to_owned(), meta }],
        patch: Vec::new(),
        remove: Vec::new(),
        empty_dirs: Vec::new(),
        tree: table.summary(),
    };
    let contents = BTreeMap::from([("a.json".to_owned(), Content::Bytes(bytes))]);
    let frozen = history::freeze(commit, &contents, None, &Keys::off()).unwrap();
    let key = SESSION.parse().unwrap();
    history::upload::upload(&world.store(), &key, &frozen, "text/plain").await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_that_somebody_puts_on_an_encrypted_history_is_not_believed() {
    let world = World::new().await;
    let pair = Pair::new(&world, "mine");
    let root = world.root("root");
    write(&root, "a.json", "{\"ours\":1}");
    ok(with(world.command("sync", &root), &pair)).await;
    let forged = inject(&world, "{\"forged\":1}").await;
    let before = names(&world, "").await;
    // A disk that knows the session, an empty one, and one that only reads.
    let fresh = world.root("fresh");
    for (command, at) in [("sync", &root), ("restore", &fresh)] {
        let error = refused(with(world.command(command, at), &pair), 2).await;
        assert!(error.contains(&forged.to_string()) && error.contains("--accept-plaintext"), "{error}");
    }
    let mut reader = world.command("verify", &root);
    reader.args(["--identity-file", pair.file.to_str().unwrap()]);
    assert!(refused(reader, 2).await.contains("not encrypted"));
    assert_eq!(
        (names(&world, "").await, contents(&root)["a.json"].as_slice()),
        (before, &b"{\"ours\":1}"[..])
    );
    assert!(files(&fresh).is_empty());
    // Also where all that was encrypted is removed: the disk remembers.
    let mut hidden: Vec<String> = commits(&world).await;
    hidden.retain(|name| name.ends_with(".tar.zst.age"));
    world.store().remove(&hidden).await.unwrap();
    let error = refused(with(world.command("sync", &root), &pair), 2).await;
    assert!(error.contains("--accept-plaintext"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_never_sees_the_identity_and_who_has_none_is_told_once_who_reads_along() {
    let world = World::new().await;
    let pair = Pair::new(&world, "mine");
    let exec = |more: &[&str]| {
        let mut command = world.command("exec", &world.root("root"));
        command.args(more).args(["--", "env"]);
        command
    };
    let output = finished(exec(&["--mirror", "off"])).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(log.matches("not encrypted").count(), 1, "{log}");
    let mut encrypted = exec(&["--recipient", &pair.recipient, "--pass-supabase-env"]);
    encrypted.env("SIDECAR_IDENTITY", pair.identity());
    let output = finished(encrypted).await;
    let (seen, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && seen.contains("SUPABASE_URL"), "{log}");
    assert!(!seen.contains("SIDECAR_IDENTITY") && !seen.contains("AGE-SECRET-KEY"), "{seen}");
    assert!(!log.contains("AGE-SECRET-KEY") && !log.contains("not encrypted"), "{log}");
}
