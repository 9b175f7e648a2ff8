//! `doctor` on projects in good and in bad health.

use serde_json::{Value, json};
use session_sidecar::emulator::{BUCKET, BucketOptions, Policy};
use session_sidecar::store::{Page, Store as _};

use crate::support::world::{Running, World, finished};

fn closed() -> Policy {
    Policy::Closed { prefix: ".history/".into(), except: "service_role".into() }
}

/// A bucket as `init` leaves it.
fn bucket(world: &World, public: bool, policies: Vec<Policy>) {
    let types = ["application/zstd", "application/octet-stream", "application/json", "text/plain"];
    let options = BucketOptions {
        id: BUCKET.into(),
        public,
        file_size_limit: Some(50 * 1024 * 1024),
        allowed_mime_types: Some(types.map(str::to_owned).into()),
        policies,
    };
    world.supabase.put_bucket(options).unwrap();
}

/// The exit code and the report; no probe is left.
async fn doctor(world: &World, more: &[(&str, &str)]) -> (i32, Value) {
    let mut command = world.bare("doctor", &world.root("root"));
    command.arg("--json").env("SUPABASE_ANON_KEY", world.supabase.anon_key());
    command.env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
    command.envs(more.iter().copied());
    let output = finished(command).await;
    assert!(!world.root("root").exists(), "the doctor makes no root");
    let left = world.store().list(&Page::default()).await.unwrap().objects;
    assert!(left.iter().all(|object| !object.key.contains(".doctor")), "{left:?}");
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The lines about one thing.
fn lines<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name).collect()
}

fn line<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = lines(report, name);
    assert_eq!(found.len(), 1, "{name} in {report}");
    found[0]
}

/// All lines but those about this machine.
fn of_project(report: &Value) -> Vec<&Value> {
    let machine = ["root", "process", "owner", "file system", "disk", "inotify"];
    let checks = report["checks"].as_array().unwrap().iter();
    checks.filter(|check| !machine.iter().any(|name| check["name"] == *name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_project_passes_every_check() {
    let world = World::new().await;
    bucket(&world, false, vec![Policy::OwnFolder, closed()]);
    let (code, report) = doctor(&world, &[]).await;
    assert_eq!((code, &report["failed"]), (0, &Value::from(0)), "{report}");
    for check in of_project(&report) {
        assert_eq!((&check["verdict"], &check["advice"]), (&"ok".into(), &Value::Null), "{check}");
    }
    let names = [
        "project",
        "key",
        "bucket",
        "database",
        "table",
        "history policy",
        "clock",
        "objects",
        "anon key on the history",
        "anon key on the mirror",
        "user on the history",
        "user on the mirror",
        "root",
        "process",
        "file system",
        "disk",
        "inotify",
    ];
    for name in names {
        line(&report, name);
    }
    assert_eq!(lines(&report, "policy").len(), 5, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_the_sql_fails_and_is_told_how_to_go_on() {
    let world = World::new().await;
    bucket(&world, false, vec![Policy::OwnFolder, closed()]);
    world.supabase.set_schema(false);
    let (code, report) = doctor(&world, &[]).await;
    let database = line(&report, "database");
    assert_eq!((code, &database["code"]), (2, &"schema_missing".into()), "{report}");
    let advice = database["advice"].as_str().unwrap();
    for way in ["init --database-url", "schema", "--lease storage"] {
        assert!(advice.contains(way), "{advice}");
    }
    assert_eq!(report["failed"], 1, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_bucket_fails_and_one_that_init_would_widen_is_a_warning() {
    let world = World::new().await;
    let (code, report) = doctor(&world, &[]).await;
    assert_eq!((code, &line(&report, "bucket")["verdict"]), (0, &"warn".into()), "{report}");
    bucket(&world, true, vec![Policy::OwnFolder, closed()]);
    let (code, report) = doctor(&world, &[]).await;
    let check = line(&report, "bucket");
    assert_eq!((code, &check["code"]), (2, &"bucket_public".into()), "{report}");
    assert!(check["advice"].as_str().unwrap().contains("session-sidecar init"), "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_see_the_history_or_a_mirror_is_found_out_by_trying() {
    let world = World::new().await;
    bucket(&world, false, vec![Policy::EveryUser]);
    let (code, report) = doctor(&world, &[]).await;
    assert_eq!(code, 2, "{report}");
    for name in ["user on the history", "user on the mirror"] {
        let check = line(&report, name);
        assert_eq!(check["code"], "bucket_public", "{check}");
        let found = check["found"].as_str().unwrap();
        for verb in ["listed", "read", "written", "deleted"] {
            assert!(found.contains(verb), "{found}");
        }
    }
    for name in ["anon key on the history", "anon key on the mirror"] {
        assert_eq!(line(&report, name)["verdict"], "ok");
    }
    // Without the restrictive one, a permissive policy that is not bound to a folder is named.
    assert_eq!(line(&report, "history policy")["verdict"], "warn");
    let policy = line(&report, "policy");
    assert!(
        policy["verdict"] == "warn" && policy["found"].as_str().unwrap().contains("every user"),
        "{policy}"
    );

    bucket(&world, false, vec![Policy::EveryUser, closed()]);
    let (code, report) = doctor(&world, &[]).await;
    assert_eq!((code, &line(&report, "user on the history")["verdict"]), (2, &"ok".into()), "{report}");
    assert_eq!(line(&report, "user on the mirror")["verdict"], "fail", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_tried_says_which_key_it_needs() {
    let world = World::new().await;
    bucket(&world, false, vec![closed()]);
    let (code, report) = doctor(&world, &[("SUPABASE_ANON_KEY", ""), ("SUPABASE_JWT_SECRET", "")]).await;
    let check = line(&report, "anon key");
    assert_eq!((code, &check["verdict"]), (0, &"warn".into()), "{report}");
    assert!(check["advice"].as_str().unwrap().contains("SUPABASE_ANON_KEY"), "{check}");
    let (code, report) = doctor(&world, &[("SUPABASE_JWT_SECRET", "")]).await;
    assert_eq!((code, &line(&report, "user")["verdict"]), (0, &"warn".into()), "{report}");
    // A token that nobody takes proves nothing.
    let (code, report) = doctor(&world, &[("SUPABASE_JWT_SECRET", "another project's")]).await;
    assert_eq!((code, &line(&report, "user on the history")["verdict"]), (0, &"warn".into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_key_in_place_of_the_anon_key_fails() {
    let world = World::new().await;
    bucket(&world, false, vec![closed()]);
    let key = world.supabase.service_role_key().to_owned();
    let (code, report) = doctor(&world, &[("SUPABASE_ANON_KEY", &key)]).await;
    assert_eq!((code, &line(&report, "anon key")["code"]), (2, &"usage".into()), "{report}");
    assert!(!report.to_string().contains(&key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_does_not_answer_is_one_line_and_exit_4() {
    let world = World::new().await;
    let (code, report) = doctor(&world, &[("SUPABASE_URL", "http://127.0.0.1:9")]).await;
    assert_eq!((code, &line(&report, "project")["code"]), (4, &"unreachable".into()), "{report}");
    let names: Vec<_> = of_project(&report).into_iter().map(|check| &check["name"]).collect();
    assert_eq!(names, ["project", "key"], "nothing else was asked, and the machine still was");
    line(&report, "disk");

    let mut command = world.bare("doctor", &world.root("root"));
    command.env("SUPABASE_URL", "http://127.0.0.1:9");
    let output = finished(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.starts_with("fail  project: ") && text.contains(" -> check the network"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_or_of_the_wrong_kind_is_exit_5() {
    let world = World::new().await;
    let (code, report) = doctor(&world, &[("SUPABASE_SERVICE_ROLE_KEY", world.supabase.anon_key())]).await;
    assert_eq!((code, &line(&report, "configuration")["code"]), (5, &"unauthorized".into()), "{report}");
    let other = World::new().await;
    let key = other.supabase.service_role_key();
    let (code, report) = doctor(&world, &[("SUPABASE_SERVICE_ROLE_KEY", key)]).await;
    assert_eq!((code, &line(&report, "project")["code"]), (5, &"unauthorized".into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_reaches_only_a_part_of_the_bucket_fails_and_cleans_up_what_it_could_write() {
    let world = World::new().await;
    bucket(&world, false, vec![Policy::Role("bot".into()), closed()]);
    let key = world.supabase.jwt(&json!({ "role": "bot" }));
    let (code, report) = doctor(&world, &[("SUPABASE_SERVICE_ROLE_KEY", &key)]).await;
    assert_eq!((code, &line(&report, "objects")["code"]), (5, &"unauthorized".into()), "{report}");
    assert_eq!(line(&report, "key")["verdict"], "warn");
    assert_eq!(line(&report, "anon key on the history")["verdict"], "warn", "no probe, no proof: {report}");
    assert_eq!(line(&report, "anon key on the mirror")["verdict"], "ok", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_in_use_is_looked_at_and_left_alone() {
    let world = World::new().await;
    let root = world.tree("kept");
    let running = Running::start(&world, &root, &[]).await;
    let report = world.json("doctor", &root).await;
    assert!(line(&report, "process")["found"].as_str().unwrap().contains("holds this root"), "{report}");
    assert_eq!(line(&report, "owner")["verdict"], "ok", "{report}");
    assert_eq!(world.status(&root).await["state"], "ready");
    assert_eq!(running.stop().await, 0);
}
