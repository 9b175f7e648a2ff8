//! Tokens of the role `session_sidecar`: made by the binary, and in place of the secret key.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use session_sidecar::emulator::{BUCKET, BucketOptions, Policy};
use session_sidecar::host::Real;
use session_sidecar::store::{Kind, Store as _};
use session_sidecar::supabase::{
    Credential, CredentialSource, Endpoint, Reading, Settings, Supabase, Timeouts, Wanted,
};

use crate::support::world::{Running, SESSION, World, eventually, files, finished, refused};

/// A bucket as `init` leaves it.
async fn world(policies: Vec<Policy>) -> World {
    let world = World::new().await;
    let types = ["application/zstd", "application/octet-stream", "application/json", "text/plain"];
    let options = BucketOptions {
        id: BUCKET.into(),
        public: false,
        file_size_limit: Some(50 * 1024 * 1024),
        allowed_mime_types: Some(types.map(str::to_owned).into()),
        policies,
    };
    world.supabase.put_bucket(options).unwrap();
    world
}

fn ours() -> Vec<Policy> {
    let closed = Policy::Closed { prefix: ".history/".into(), except: "service_role".into() };
    vec![Policy::OwnFolder, closed, Policy::Sidecar]
}

fn minting(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
    command.env_clear().env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
    command.arg("token").args(args).stdin(Stdio::null());
    command
}

async fn mint(world: &World, args: &[&str]) -> String {
    let output = finished(minting(world, args)).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(token.lines().count() == 1 && token.starts_with("eyJ"), "the token alone: {token}");
    token.trim().to_owned()
}

/// With the token, and without any other key.
fn with(mut command: Command, token: &str) -> Command {
    command.env_remove("SUPABASE_SERVICE_ROLE_KEY").env("SUPABASE_SIDECAR_TOKEN", token);
    command
}

async fn ok(command: Command) -> String {
    let called = format!("{:?}", command.get_args());
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{called}: {stderr}");
    let mut warnings = stderr.lines().filter(|line| line.contains("WARN"));
    assert!(warnings.all(|line| line.contains("the history is not encrypted")), "{called}: {stderr}");
    assert!(!stderr.contains("eyJ"), "{called}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

async fn document(mut command: Command) -> Value {
    command.arg("--json");
    serde_json::from_str(&ok(command).await).unwrap()
}

fn write(root: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(root).unwrap();
    std::fs::write(root.join(name), text).unwrap();
}

/// Of its row in the table.
fn rows(world: &World) -> Vec<String> {
    let rows = world.supabase.tables().sessions.into_iter();
    rows.map(|row| format!("{}/{}", row["user_id"].as_str().unwrap(), row["session_id"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_with_a_token_for_its_session_does_the_whole_job() {
    let world = world(ours()).await;
    // Somebody else's, with the secret key.
    let foreign = world.root("foreign");
    write(&foreign, "a.json", "1");
    let mut sync = world.bare("sync", &foreign);
    sync.args(["--session", "u2/s1"]);
    assert!(finished(sync).await.status.success());

    let token = mint(&world, &["--session", SESSION]).await;
    let (first, second) = (world.root("first"), world.root("second"));
    write(&first, "a.json", "1");
    let quick = ["--lease-ttl", "2s", "--min-hold", "0s", "--quiet-window", "50ms", "--listen", "off"];
    let up = world.root("up");
    let exec = |root: &Path, script: &str| {
        let mut command = with(world.command("exec", root), &token);
        command.args(quick).args(["--", "sh", "-c", script, "bot"]).arg(&up).current_dir(root);
        command
    };
    let bot = "trap 'exit 0' TERM; : > \"$1\"; while :; do sleep 0.05; done";
    let holder = Running::spawn(exec(&first, bot));
    eventually("the bot is up", async || up.exists()).await;
    write(&first, "b.json", "2");
    eventually("the head is the tree", async || world.head().await == files(&first)).await;
    let names = |root: &Path| -> BTreeMap<String, Vec<u8>> {
        files(root).into_iter().map(|(name, (_, bytes))| (name, bytes)).collect()
    };
    eventually("the mirror and the row are written", async || {
        let mirrored = world.supabase.object_path(BUCKET, &format!("{SESSION}/b.json"));
        mirrored.is_some() && rows(&world).contains(&SESSION.to_owned())
    })
    .await;
    write(&first, "c.json", "3");

    // The next pod asks for the session, gets all of it, and ends.
    std::fs::create_dir_all(&second).unwrap();
    ok(exec(&second, "cat c.json > d.json")).await;
    holder.terminate();
    assert_eq!(holder.ended().await, 0);
    let mut wanted = names(&first);
    wanted.insert("d.json".to_owned(), b"3".to_vec());
    assert_eq!(names(&second), wanted);

    let fresh = world.root("fresh");
    ok(with(world.command("restore", &fresh), &token)).await;
    assert_eq!(names(&fresh), wanted);
    let bare = |command: &str| with(world.bare(command, &world.root("bare")), &token);
    let mut all = bare("status");
    all.arg("--all");
    let all = document(all).await;
    let sessions: Vec<_> = all["sessions"].as_array().unwrap().iter().map(|one| &one["session"]).collect();
    assert_eq!(sessions, [SESSION], "{all}");
    for command in ["history", "verify"] {
        ok(bare(command)).await;
    }
    let mut export = bare("export");
    export.arg("--to").arg(world.root("exported"));
    ok(export).await;
    assert_eq!(names(&world.root("exported")), wanted);

    let mut delete = with(world.command("delete", &fresh), &token);
    delete.args(["--yes", "--mirror", "off"]);
    ok(delete).await;
    assert!(world.head().await.is_empty());
    assert_eq!(world.head_of("u2/s1").await.len(), 1, "nobody else's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_is_not_for_is_refused_with_a_sentence_and_never_a_new_session() {
    let world = world(ours()).await;
    for session in ["u2/s1", "u10/s1", "u1/s2"] {
        let mut sync = world.bare("sync", &world.tree(session));
        sync.args(["--session", session, "--mirror", "off"]);
        assert!(finished(sync).await.status.success());
    }
    let (one, user) = (mint(&world, &["--session", SESSION]).await, mint(&world, &["--user", "u1"]).await);
    for (token, session, made_for) in
        [(&one, "u2/s1", "session u1/s1"), (&one, "u1/s2", "session u1/s1"), (&user, "u10/s1", "user u1")]
    {
        let empty = world.root("empty");
        for (command, more) in [
            ("restore", &[][..]),
            ("restore", &["--lease", "storage"]),
            ("run", &["--probe-listen", "off"]),
            ("status", &[]),
            ("history", &[]),
            ("delete", &["--yes"]),
        ] {
            let mut command = with(world.bare(command, &empty), token);
            command.args(["--session", session]).args(more);
            let error = refused(command, 5).await;
            assert!(error.contains(made_for) && error.contains("session-sidecar token"), "{error}");
        }
        assert!(!empty.exists() || files(&empty).is_empty());
    }
    let mut other = with(world.bare("status", &world.root("empty")), &user);
    other.args(["--user", "u2"]);
    assert!(refused(other, 5).await.contains("user u1"));

    let mut init = with(Command::new(env!("CARGO_BIN_EXE_session-sidecar")), &user);
    init.arg("init").env("SUPABASE_URL", world.supabase.url()).stdin(Stdio::null());
    assert!(refused(init, 5).await.contains("SUPABASE_SERVICE_ROLE_KEY"));
    // A key that opens everything is no token.
    let root = world.root("empty");
    let error = refused(with(world.command("status", &root), world.supabase.service_role_key()), 5).await;
    assert!(error.contains("SUPABASE_SIDECAR_TOKEN"), "{error}");
    // A project without the SQL knows no such role.
    let without = BucketOptions { policies: vec![Policy::OwnFolder], ..BucketOptions::default() };
    world.supabase.put_bucket(without).unwrap();
    let error = refused(with(world.command("restore", &root), &one), 5).await;
    assert!(error.contains("session-sidecar schema"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_printed_alone_or_told_of_and_the_secret_never_shows() {
    let world = World::new().await;
    let report = document(minting(&world, &["--user", "u1", "--ttl", "30d"])).await;
    assert_eq!((&report["role"], &report["user"]), (&json!("session_sidecar"), &json!("u1")));
    assert_eq!(report["session"], Value::Null);
    let ends: Timestamp = report["expires_at"].as_str().unwrap().parse().unwrap();
    let days = ends.duration_since(Timestamp::now()).as_hours();
    assert!((29 * 24..=30 * 24).contains(&days), "{report}");
    assert!(report["token"].as_str().unwrap().starts_with("eyJ"));

    let file = world.root("secret");
    std::fs::write(&file, format!("{}\n", world.supabase.jwt_secret())).unwrap();
    let mut command = minting(&world, &["--jwt-secret-file", file.to_str().unwrap()]);
    command.env_remove("SUPABASE_JWT_SECRET");
    assert_eq!(document(command).await["user"], Value::Null);

    for (secret, args, says) in [
        ("", &[][..], "SUPABASE_JWT_SECRET"),
        ("hush-hush", &[], "at least 32"),
        (world.supabase.service_role_key(), &[], "not the secret"),
        (world.supabase.jwt_secret(), &["--ttl", "0s"], "--ttl"),
        (world.supabase.jwt_secret(), &["--ttl", "11years"], "10 years"),
        (world.supabase.jwt_secret(), &["--session", "u/s", "--user", "u"], "exclude each other"),
        (world.supabase.jwt_secret(), &["--user", ".history"], "dot"),
    ] {
        let mut command = minting(&world, args);
        command.env("SUPABASE_JWT_SECRET", secret);
        let error = refused(command, 2).await;
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("hush") && !error.contains(world.supabase.jwt_secret()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_says_so_and_its_file_is_read_again() {
    let world = world(ours()).await;
    let claims = |exp: i64| json!({ "role": "session_sidecar", "sidecar_user": "u1", "exp": exp });
    let file = world.root("token");
    std::fs::write(&file, world.supabase.jwt(&claims(1_000_000_000))).unwrap();
    // It was good when the process began.
    let reading = Reading { wanted: Wanted::Token, gateway: None };
    let credential = CredentialSource::file(&file, reading, Timestamp::UNIX_EPOCH).unwrap();
    let settings = Settings {
        endpoint: Endpoint::parse(&world.supabase.url()).unwrap(),
        credential,
        bucket: BUCKET.to_owned(),
        ca_file: None,
        timeouts: Timeouts::default(),
        host: Arc::new(Real),
    };
    let supabase = Supabase::new(settings).unwrap();
    let says = "the token expired: mint a new one with `session-sidecar token`";
    let error = supabase.bucket().await.unwrap_err();
    assert!(error.kind == Kind::Denied && error.message.contains(says), "{error}");
    let client = supabase.client();
    let report = |client: Arc<session_sidecar::supabase::Client>| async move {
        client.rpc::<Value>("session_sidecar_report", &json!({})).await
    };
    let error = report(Arc::clone(client)).await.unwrap_err();
    assert!(error.message.contains(says), "{error}");
    std::fs::write(&file, world.supabase.jwt(&claims(4_102_444_800))).unwrap();
    assert!(report(Arc::clone(client)).await.is_ok());
    supabase.bucket().await.unwrap();

    let expired = world.supabase.jwt(&claims(1_000_000_000));
    let error = refused(with(world.command("restore", &world.root("root")), &expired), 5).await;
    assert!(error.contains(says), "{error}");
    // One that lasts for a few days more works, and a process that runs with it says so once.
    let soon = mint(&world, &["--session", SESSION, "--ttl", "3d"]).await;
    let output = finished(with(world.command("restore", &world.root("root")), &soon)).await;
    let logs = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && logs.matches("ends soon").count() == 1, "{logs}");
    let parsed = Credential::parse(&soon, Timestamp::now()).unwrap();
    assert!(!logs.contains(parsed.secret()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tries_what_a_token_opens_beside() {
    let world = world(ours()).await;
    let mut sync = world.bare("sync", &world.tree("u2"));
    sync.args(["--session", "u2/s1", "--mirror", "off"]);
    assert!(finished(sync).await.status.success());
    let doctor = async |token: &str| {
        let mut command = with(world.bare("doctor", &world.root("root")), token);
        command.env("SUPABASE_ANON_KEY", world.supabase.anon_key()).arg("--json");
        command.env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
        let output = finished(command).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), report)
    };
    let line = |report: &Value, name: &str| {
        let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {report}")).clone()
    };
    for args in [&["--session", SESSION][..], &["--user", "u1"], &[]] {
        let (code, report) = doctor(&mint(&world, args).await).await;
        assert_eq!((code, &report["failed"]), (0, &json!(0)), "{args:?} {report}");
        for name in ["key", "objects", "reach of the token", "anon key on the history", "user on the history"]
        {
            assert_eq!(line(&report, name)["verdict"], "ok", "{args:?} {name} {report}");
        }
    }
    let soon = mint(&world, &["--user", "u1", "--ttl", "13d"]).await;
    let (code, report) = doctor(&soon).await;
    assert_eq!((code, &line(&report, "key")["verdict"]), (0, &json!("warn")), "{report}");

    // Somebody let the role into all of it.
    let mut policies = ours();
    policies.push(Policy::Role("session_sidecar".into()));
    let open = BucketOptions { policies, ..BucketOptions::default() };
    world.supabase.put_bucket(open).unwrap();
    let (code, report) = doctor(&mint(&world, &["--user", "u1"]).await).await;
    let reach = line(&report, "reach of the token");
    assert_eq!((code, &reach["code"]), (2, &json!("bucket_public")), "{report}");
    let left = world.store().list(&session_sidecar::store::Page::default()).await.unwrap().objects;
    assert!(left.iter().all(|object| !object.key.contains(".doctor")), "{left:?}");
}
