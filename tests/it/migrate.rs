//! `migrate` and `import`: what another program kept becomes a history, is proven by a restore, and only then removed.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::{Value, json};
use session_sidecar::emulator::BUCKET;

use crate::fixtures;
use crate::support::world::{Files, Running, SESSION, World, contents, eventually, files, finished, refused};

impl World {
    /// A migration without the mirror, which would be waited for.
    fn migrate(&self, root: &Path, more: &[&str]) -> Command {
        let mut command = self.bare("migrate", root);
        command.args(["--mirror", "off", "--lease", "storage", "--json"]).args(more);
        command
    }

    /// Its exit code and document.
    async fn migrated(&self, root: &Path, more: &[&str]) -> (i32, Value) {
        document(self.migrate(root, more)).await
    }

    fn import(&self, source: &Path, session: &str) -> Command {
        let mut command = self.bare("import", &self.root("nowhere"));
        command.args(["--mirror", "off", "--lease", "storage", "--json", "--session", session]).arg(source);
        command
    }

    async fn upload(&self, session: &str, name: &str, bytes: Vec<u8>) {
        self.post(&format!("/object/{BUCKET}/{session}/{name}"), bytes).await;
    }

    /// In the middle of a session's newest base, once there is one.
    async fn change_one_byte(&self, session: &str) {
        let base = || {
            let uploads = self.supabase.uploads().into_iter();
            let mut bases = uploads
                .filter(|upload| upload.key.contains(session) && upload.key.ends_with(".base.tar.zst"));
            bases.next_back()
        };
        eventually("there is a base", async || base().is_some()).await;
        let object = self.supabase.object_path(BUCKET, &base().unwrap().key).unwrap();
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&object, bytes).unwrap();
    }

    /// All that the project holds.
    fn stored(&self) -> Files {
        files(&self.root("supabase"))
    }
}

async fn document(command: Command) -> (i32, Value) {
    let output = finished(command).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no document: {stderr}"));
    (output.status.code().unwrap(), document)
}

/// The one session of a report, or its first.
fn first(report: &Value) -> &Value {
    &report["sessions"][0]
}

fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let sessions = report["sessions"].as_array().unwrap().iter();
    sessions.map(|one| (text(&one["session"]), text(&one["step"]))).collect()
}

/// A small account of its own: credentials, a few keys, written a long time ago.
fn account(dir: &Path, id: u64) {
    fs::create_dir_all(dir.join("keys/empty")).unwrap();
    let creds = json!({
        "noiseKey": {"private": id}, "me": {"id": format!("551190000{id:04}:1@s.whatsapp.net")},
        "account": {"details": "x"}, "registrationId": id, "nextPreKeyId": 31,
    });
    fs::write(dir.join("creds.json"), creds.to_string()).unwrap();
    for key in 1..4 {
        fs::write(dir.join(format!("pre-key-{key}.json")), format!("{{\"key\":{key}}}")).unwrap();
    }
    settle(dir);
}

/// Nobody wrote there of late.
fn settle(dir: &Path) {
    for name in files(dir).keys() {
        let file = File::options().append(true).open(dir.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    }
}

fn creds(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("creds.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_services_directory_is_planned_moved_proven_and_left_as_it_is() {
    let world = World::new().await;
    let (from, root) = (world.root("old"), world.root("root"));
    let first_one = from.join("4b1e6c54-1111-4222-8333-123456789abc/session_1712345678901_0a1b2c3d");
    account(&first_one, 1);
    account(&from.join("user-2/main"), 2);
    account(&from.join("user-2/a b"), 3);
    fs::write(from.join("server.log"), "x").unwrap();
    let (before, stored) = (files(&from), world.stored());
    let from_arg = from.to_str().unwrap();

    let (code, plan) = world.migrated(&root, &["--from", from_arg, "--dry-run"]).await;
    assert_eq!(code, 3, "a name that cannot be an id: {plan}");
    let key = "4b1e6c54-1111-4222-8333-123456789abc/session_1712345678901_0a1b2c3d";
    let expected = [("-", "refuse"), (key, "commit"), ("user-2/main", "commit")];
    assert_eq!(steps(&plan), expected.map(|(key, step)| (key.to_owned(), step.to_owned())));
    assert_eq!(plan["sessions"][0]["error"]["code"], "bad_session_id");
    assert_eq!(plan["ignored"][0]["path"], "server.log");
    assert!(world.stored() == stored && files(&from) == before && !root.exists(), "a dry run writes nothing");

    let (code, report) = world.migrated(&root, &["--from", from_arg]).await;
    assert_eq!(code, 3, "{report}");
    for one in &report["sessions"].as_array().unwrap()[1..] {
        assert_eq!((&one["verified"], &one["paired"]), (&json!(true), &json!(true)), "{one}");
    }
    assert!(world.head_of(key).await == files(&first_one));
    assert!(files(&from) == before && !from.join(".session-sidecar").exists() && !root.exists());

    let uploads = world.history_uploads();
    let (_, again) = world.migrated(&root, &["--from", from_arg, "--verify"]).await;
    let again: Vec<_> = again["sessions"].as_array().unwrap()[1..].to_vec();
    assert!(again.iter().all(|one| one["step"] == "skip" && one["verified"] == true), "{again:?}");
    assert_eq!(world.history_uploads(), uploads, "what is there is not uploaded again");

    // Its bot went on until it was stopped for good.
    fs::write(first_one.join("pre-key-31.json"), "{\"key\":31}").unwrap();
    fs::remove_file(first_one.join("pre-key-1.json")).unwrap();
    let (_, later) = world.migrated(&root, &["--from", from_arg]).await;
    assert_eq!(steps(&later)[1].1, "commit");
    assert_eq!(later["sessions"][1]["verified"], true, "{later}");
    assert!(world.head_of(key).await == files(&first_one));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_level_in_the_root_is_moved_cleaned_up_and_restored() {
    let world = World::new().await;
    let root = world.root("root");
    account(&root.join("main"), 1);
    fs::create_dir_all(root.join("main/cache")).unwrap();
    fs::write(root.join("main/cache/x"), "x").unwrap();
    let tree = files(&root.join("main"));
    let why = refused(world.migrate(&root, &[]), 2).await;
    assert!(why.contains("--user"), "{why}");
    let args = ["--user", "u1", "--exclude", "cache", "--cleanup"];
    let why = refused(world.migrate(&root, &args), 2).await;
    assert!(why.contains("--yes"), "{why}");
    assert_eq!(world.history_uploads(), 0);

    let (code, report) = world.migrated(&root, &[&args[..], &["--yes"]].concat()).await;
    let one = first(&report);
    assert_eq!(
        (code, &one["verified"], &one["removed"], &one["kept"]),
        (0, &json!(true), &json!(4), &json!(1)),
        "{one}"
    );
    assert_eq!(contents(&root), [("main/cache/x".to_owned(), b"x".to_vec())].into());
    // What is gone on with finds nothing more to do.
    let main = root.join("main");
    let again = [
        "--from",
        main.to_str().unwrap(),
        "--session",
        "u1/main",
        "--exclude",
        "cache",
        "--cleanup",
        "--yes",
    ];
    let (code, report) = world.migrated(&world.root("tool"), &again).await;
    let one = first(&report);
    assert_eq!(
        (code, &one["step"], &one["bucket"]["has"], &one["removed"], &one["kept"]),
        (0, &json!("skip"), &json!("more"), &json!(0), &json!(1)),
        "{one}"
    );

    let mut restore = world.bare("restore", &root);
    restore.args(["--user", "u1", "--exclude", "cache", "--lease", "storage", "--mirror", "off"]);
    let restored = finished(restore).await;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let back = files(&root.join("main"));
    assert!(tree.iter().all(|(path, file)| path == "cache/x" || back.get(path) == Some(file)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_contacts_killed_in_the_middle_and_run_again_are_complete() {
    let world = World::new().await;
    let from = world.root("old");
    account(&from.join("u1/a"), 1);
    fs::create_dir_all(from.join("u1/b")).unwrap();
    fixtures::unpack(fixtures::LARGE, &from.join("u1/b"));
    let root = world.root("root");
    let args = ["--from", from.to_str().unwrap()];
    world.supabase.set_faults("latency=150ms".parse().unwrap());
    let mut migrating = Running::spawn(world.migrate(&root, &args));
    eventually("the second is under way", async || {
        world.supabase.uploads().iter().any(|upload| upload.key.starts_with(".history/u1/b/"))
    })
    .await;
    migrating.0.kill().unwrap();
    assert!(!migrating.0.wait().unwrap().success());
    world.supabase.set_faults("".parse().unwrap());
    let bases =
        |world: &World| world.supabase.uploads().iter().filter(|upload| upload.key.contains("u1/a/")).count();
    let before = bases(&world);

    let (code, report) = world.migrated(&root, &args).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["sessions"][0]["step"], bases(&world)), (&json!("skip"), before), "{report}");
    assert_eq!(report["sessions"][1]["verified"], true, "{report}");
    let out = world.root("out");
    let mut export = world.bare("export", &root);
    export.arg("u1/b").arg("--to").arg(&out);
    assert!(finished(export).await.status.success());
    let diff = Command::new("diff").arg("-r").arg(from.join("u1/b")).arg(&out).status().unwrap();
    assert!(diff.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_removes_nothing_when_one_byte_in_the_bucket_is_changed() {
    let world = World::new().await;
    let root = world.root("root");
    account(&root.join("u1/s1"), 1);
    let (tree, copy) = (files(&root), world.root("copy"));
    account(&copy.join("u1/s1"), 1);
    let (code, report) = world.migrated(&root, &[]).await;
    assert_eq!((code, &first(&report)["verified"]), (0, &json!(true)), "{report}");
    world.change_one_byte("u1/s1").await;
    for from in [&root, &copy] {
        let args = ["--from", from.to_str().unwrap(), "--cleanup", "--yes"];
        let (code, report) = world.migrated(&root, &args).await;
        assert_eq!((code, &first(&report)["error"]["code"]), (6, &json!("damaged")), "{report}");
        assert!(files(from) == tree);
    }

    // Changed between the commit and its proof.
    account(&root.join("u1/s2"), 2);
    fs::remove_dir_all(root.join("u1/s1")).unwrap();
    let tree = files(&root);
    world.supabase.set_faults("latency=300ms".parse().unwrap());
    let migrating = world.migrate(&root, &["--cleanup", "--yes"]);
    let ((code, report), ()) = tokio::join!(document(migrating), world.change_one_byte("u1/s2"));
    assert_eq!((code, &first(&report)["error"]["code"]), (6, &json!("damaged")), "{report}");
    assert!(files(&root) == tree && first(&report)["commit"].is_string(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_leaves_a_tree_alone_whose_bot_is_at_work_or_whose_files_are_not_all_in_the_bucket() {
    let world = World::new().await;
    let root = world.root("root");
    for session in ["u1/held", "u1/live"] {
        account(&root.join(session), 1);
    }
    fs::write(root.join("u1/held/session-1.json"), "").unwrap();
    settle(&root.join("u1/held"));
    fs::write(root.join("u1/live/pre-key-4.json"), "{\"key\":4}").unwrap();
    let tree = files(&root);
    let (code, report) = world.migrated(&root, &["--cleanup", "--yes"]).await;
    assert_eq!(code, 3, "{report}");
    let why = |n: usize| report["sessions"][n]["error"]["message"].as_str().unwrap().to_owned();
    assert!(why(0).contains("session-1.json"), "{}", why(0));
    assert!(why(1).contains("within the last minute"), "{}", why(1));
    assert!(report["sessions"][1]["writing"] == true && report["sessions"][1]["verified"] == true);
    assert!(files(&root) == tree);

    // What was left out the first time is told again, also by a plan.
    for more in [&[][..], &["--dry-run"]] {
        let (code, again) = world.migrated(&root, more).await;
        let one = first(&again);
        assert_eq!(
            (code, &one["step"], &one["held"][0]["reason"]),
            (3, &json!("skip"), &json!("bad_json")),
            "{again}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_in_a_root_that_is_held_is_left_alone_wherever_that_root_begins() {
    let world = World::new().await;
    let from = world.root("data");
    account(&from.join("u1/s1"), 1);
    let lock = |root: &Path| {
        fs::create_dir_all(root.join(".session-sidecar")).unwrap();
        let lock = File::create(root.join(".session-sidecar/lock")).unwrap();
        lock.lock().unwrap();
        lock
    };
    let root = world.root("root");
    let users = from.join("u1");
    for inner in [users.clone(), users.join("s1")] {
        let held = lock(&inner);
        let (code, report) =
            world.migrated(&root, &["--from", from.to_str().unwrap(), "--cleanup", "--yes"]).await;
        let error = &first(&report)["error"];
        assert_eq!((code, &error["code"]), (2, &json!("root_locked")), "{report}");
        assert!(error["message"].as_str().unwrap().contains(inner.to_str().unwrap()), "{error}");
        drop(held);
    }
    let _held = lock(&from);
    let args = ["--from", users.to_str().unwrap(), "--user", "u1", "--cleanup", "--yes"];
    let why = refused(world.migrate(&root, &args), 2).await;
    assert!(why.contains("it commits what lies there already"), "{why}");
    assert!(world.history_uploads() == 0 && users.join("s1/creds.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_bot_still_writes_is_moved_with_keys_of_one_moment() {
    let world = World::new().await;
    let from = world.root("old");
    let dir = from.join("u1/s1");
    account(&dir, 1);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let bot = std::thread::spawn(move || {
        let mut key = 30;
        // Bursts, as when keys run low: new keys, and some time later the credentials that name them.
        while ended
            .recv_timeout(Duration::from_millis(900))
            .is_err_and(|error| error == RecvTimeoutError::Timeout)
        {
            for _ in 0..5 {
                key += 1;
                fs::write(dir.join(format!("pre-key-{key}.json")), "{}").unwrap();
                if ended.recv_timeout(Duration::from_millis(60)).is_ok() {
                    return;
                }
                let mut creds = creds(&dir);
                creds["nextPreKeyId"] = json!(key + 1);
                fs::write(dir.join("creds.json"), creds.to_string()).unwrap();
            }
        }
    });
    for _ in 0..2 {
        let (code, report) = world.migrated(&world.root("root"), &["--from", from.to_str().unwrap()]).await;
        assert!([0, 3].contains(&code), "{report}");
        let head = world.head_of("u1/s1").await;
        let creds: Value = serde_json::from_slice(&head["creds.json"].1).unwrap();
        let keys =
            head.keys().filter_map(|name| name.strip_prefix("pre-key-")?.strip_suffix(".json")?.parse().ok());
        let newest: u64 = keys.max().unwrap();
        assert_eq!(creds["nextPreKeyId"], json!(newest.max(30) + 1), "{report}");
    }
    end.send(()).unwrap();
    bot.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ruined_credentials_links_and_owned_sessions_are_not_moved() {
    let world = World::new().await;
    let from = world.root("old");
    for session in ["u1/cut", "u1/linked"] {
        account(&from.join(session), 1);
    }
    let whole = fs::read(from.join("u1/cut/creds.json")).unwrap();
    fs::write(from.join("u1/cut/creds.json"), &whole[..whole.len() / 2]).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", from.join("u1/linked/session-2.json")).unwrap();
    let args = ["--from", from.to_str().unwrap()];
    let (code, report) = world.migrated(&world.root("root"), &args).await;
    assert_eq!(code, 3, "{report}");
    assert!(report["sessions"].as_array().unwrap().iter().all(|one| one["step"] == "refuse"), "{report}");
    assert!(world.supabase.uploads().is_empty());

    let (owner, copy) = (world.root("owner"), world.root("copy"));
    account(&owner, 1);
    let running = Running::start(&world, &owner, &["--mirror", "off"]).await;
    account(&copy, 1);
    fs::write(copy.join("pre-key-9.json"), "{}").unwrap();
    let mut command = world.command("migrate", &copy);
    command.args(["--on-conflict", "local", "--mirror", "off", "--json"]);
    let (code, report) = document(command).await;
    assert_eq!(code, 7, "{report}");
    let (code, _) = document({
        let mut command = world.command("migrate", &owner);
        command.arg("--json");
        command
    })
    .await;
    assert_eq!(code, 2, "a process keeps that root");
    for (root, code) in [("elsewhere", 7), ("owner", 2)] {
        let mut import = world.command("import", &world.root(root));
        import.args(["--mirror", "off", "--json"]).arg(&copy);
        assert_eq!(document(import).await.0, code, "{root}");
    }
    assert!(world.head_of(SESSION).await == files(&owner));
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sqlite_file_of_whatsmeow_is_moved_with_what_is_in_its_wal() {
    let world = World::new().await;
    let dir = world.root("bot");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.yml"), "x").unwrap();
    let path = dir.join("store.db");
    let bot = Connection::open(&path).unwrap();
    bot.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE whatsmeow_device(jid TEXT, registration_id INTEGER, noise_key BLOB);
         INSERT INTO whatsmeow_device VALUES ('5511900000001.0:1@s.whatsapp.net', 7, x'01');",
    )
    .unwrap();
    let before = files(&dir);
    // A scratch directory beside one file is in nobody's way.
    let args = ["--from", path.to_str().unwrap(), "--session", "u1/wm", "--scratch", dir.to_str().unwrap()];
    let (code, report) = world.migrated(&world.root("root"), &args).await;
    let one = first(&report);
    assert_eq!((code, &one["format"], &one["verified"]), (0, &json!("whatsmeow"), &json!(true)), "{report}");
    let head = world.head_of("u1/wm").await;
    assert_eq!(head.keys().collect::<Vec<_>>(), ["store.db"]);
    let after = files(&dir);
    assert!(after["store.db"] == before["store.db"] && after["store.db-wal"] == before["store.db-wal"]);
    let copy = world.root("copy.db");
    fs::write(&copy, &head["store.db"].1).unwrap();
    let rows: i64 = Connection::open(&copy)
        .unwrap()
        .query_row("SELECT count(*) FROM whatsmeow_device", [], |r| r.get(0))
        .unwrap();
    assert_eq!(rows, 1);
    let (code, report) =
        world.migrated(&world.root("root"), &[&args[..], &["--cleanup", "--yes"]].concat()).await;
    assert_eq!(code, 3, "its bot has it open: {report}");
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_whatsapp_web_js_is_moved_without_its_caches() {
    let world = World::new().await;
    let bot = world.root("bot");
    let profile = bot.join(".wwebjs_auth/session-shop");
    for file in ["Local State", "Default/Preferences", "Default/Local Storage/x", "Default/Cache/data_0"] {
        fs::create_dir_all(profile.join(file).parent().unwrap()).unwrap();
        fs::write(profile.join(file), "{}").unwrap();
    }
    std::os::unix::fs::symlink("host-1", profile.join("SingletonLock")).unwrap();
    let args = ["--from", bot.to_str().unwrap(), "--user", "u1"];
    let (code, report) = world.migrated(&world.root("root"), &args).await;
    let one = first(&report);
    assert_eq!(
        (code, &one["format"], &one["verified"]),
        (0, &json!("whatsapp-web.js"), &json!(true)),
        "{report}"
    );
    let head = world.head_of("u1/session-shop").await;
    assert_eq!(head.keys().collect::<Vec<_>>(), ["Default/Local Storage/x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_plain_files_becomes_a_history_and_its_age_is_told() {
    let world = World::new().await;
    let source = world.root("source");
    account(&source, 1);
    for (name, bytes) in contents(&source) {
        world.upload("u1/s1", &name, bytes).await;
    }
    let (root, stored) = (world.root("root"), world.stored());
    let (code, plan) = world.migrated(&root, &["--from-mirror", "--dry-run"]).await;
    let one = first(&plan);
    assert_eq!(
        (code, &one["step"], &one["bucket"]["has"]),
        (0, &json!("adopt_mirror"), &json!("mirror")),
        "{plan}"
    );
    assert!(one["bucket"]["age_seconds"].is_u64() && one["path"].is_null(), "{one}");
    assert!(world.stored() == stored);

    let (code, report) = world.migrated(&root, &[]).await;
    assert_eq!((code, &first(&report)["verified"]), (0, &json!(true)), "no tree lies here: {report}");
    let head = world.head_of("u1/s1").await;
    let head: std::collections::BTreeMap<_, _> =
        head.into_iter().map(|(name, (_, bytes))| (name, bytes)).collect();
    assert!(head == contents(&source) && !root.exists());
    let (code, again) = world.migrated(&root, &["--from-mirror"]).await;
    assert_eq!((code, &again["error"]["code"]), (3, &json!("no_session")), "all have a history: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_and_a_mirror_of_another_account_are_a_persons_decision() {
    let world = World::new().await;
    let (root, other) = (world.root("root"), world.root("other"));
    account(&root.join("u1/s1"), 1);
    account(&other, 2);
    for (name, bytes) in contents(&other) {
        world.upload("u1/s1", &name, bytes).await;
    }
    let (code, report) = world.migrated(&root, &[]).await;
    assert_eq!((code, &first(&report)["error"]["code"]), (3, &json!("conflict")), "{report}");
    assert!(first(&report)["error"]["message"].as_str().unwrap().contains("--on-conflict local"));
    assert_eq!(world.history_uploads(), 0);
    // With the mirror on, what is there afterwards is ours: the next start is no conflict.
    let mut command = world.bare("migrate", &root);
    command.args(["--lease", "storage", "--json", "--on-conflict", "local"]);
    let (code, report) = document(command).await;
    assert_eq!((code, &first(&report)["verified"]), (0, &json!(true)), "{report}");
    assert!(world.head_of("u1/s1").await == files(&root.join("u1/s1")));
    let mut restore = world.bare("restore", &world.root("elsewhere"));
    restore.args(["--lease", "storage"]);
    let restored = finished(restore).await;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));

    // The bucket's may be kept, too; then nothing of this tree is proven.
    let args = ["--from", other.to_str().unwrap(), "--session", "u1/s1", "--on-conflict", "remote"];
    let (code, report) = world.migrated(&world.root("tool"), &args).await;
    let one = first(&report);
    assert_eq!((code, &one["step"], &one["verified"]), (0, &json!("keep_bucket"), &Value::Null), "{report}");
    let (code, report) =
        world.migrated(&world.root("tool"), &[&args[..], &["--cleanup", "--yes"]].concat()).await;
    assert_eq!((code, &first(&report)["error"]["code"]), (3, &json!("held")), "{report}");
    assert!(other.join("creds.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_is_imported_and_replaces_no_account_by_none() {
    let world = World::new().await;
    let (root, archive) = (world.root("root"), world.root("s1.tar.zst"));
    account(&root.join("u1/s1"), 1);
    let (code, _) = world.migrated(&root, &[]).await;
    assert_eq!(code, 0);
    let mut export = world.bare("export", &root);
    export.arg("u1/s1").arg("--to").arg(&archive);
    assert!(finished(export).await.status.success());

    let (code, report) = document(world.import(&archive, "u2/copy")).await;
    assert_eq!((code, &first(&report)["verified"]), (0, &json!(true)), "{report}");
    let tree = files(&root.join("u1/s1"));
    assert!(world.head_of("u2/copy").await == tree);
    let (_, again) = document(world.import(&archive, "u2/copy")).await;
    assert_eq!(first(&again)["step"], "skip");

    // Over another tree of the session: what it was is pinned.
    let newer = world.root("newer");
    account(&newer, 1);
    let mut changed = creds(&newer);
    changed["nextPreKeyId"] = json!(40);
    fs::write(newer.join("creds.json"), changed.to_string()).unwrap();
    let (code, report) = document(world.import(&newer, "u2/copy")).await;
    assert_eq!((code, &first(&report)["step"]), (0, &json!("commit")), "{report}");
    assert!(world.head_of("u2/copy").await == files(&newer));
    let mut piped = world.import(Path::new("-"), "u2/copy");
    piped.stdin(Stdio::from(File::open(&archive).unwrap()));
    let (code, report) = document(piped).await;
    assert_eq!(code, 0, "{report}");
    assert!(world.head_of("u2/copy").await == tree);
    let mut history = world.bare("history", &root);
    history.args(["u2/copy", "--json"]);
    let (_, history) = document(history).await;
    let points = history["points"].as_array().unwrap().iter();
    let pins = points.filter(|point| point["pins"].as_array().unwrap().contains(&json!("conflict")));
    assert_eq!(pins.count(), 2, "{history}");

    changed["me"] = json!(null);
    fs::write(newer.join("creds.json"), changed.to_string()).unwrap();
    let (code, report) = document(world.import(&newer, "u2/copy")).await;
    assert_eq!((code, &first(&report)["error"]["code"]), (3, &json!("held")), "{report}");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let (code, report) = document(world.import(&archive, "u2/copy")).await;
    assert_eq!((code, &report["error"]["code"]), (6, &json!("damaged")), "{report}");
    assert!(world.head_of("u2/copy").await == tree);
}
