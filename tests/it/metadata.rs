//! The table of sessions, as people and apps see it.

use std::path::Path;

use serde_json::{Value, json};
use session_sidecar::emulator::{Down, Faults};

use crate::support::world::{Running, SESSION, World, eventually, files, finished};

/// What a row says; null without one.
fn row(world: &World, session: &str) -> Value {
    let (user, id) = session.split_once('/').unwrap();
    let rows = world.supabase.tables().sessions;
    let row = rows.into_iter().find(|row| row["user_id"] == user && row["session_id"] == id);
    row.map(Value::Object).unwrap_or_default()
}

fn sidecar(world: &World) -> Value {
    row(world, SESSION)["session_data"]["sidecar"].clone()
}

/// Changes a row as an app does that uses the table.
fn set(world: &World, session: &str, values: &Value) {
    let (user, id) = session.split_once('/').unwrap();
    let mut tables = world.supabase.tables();
    let row = tables.sessions.iter_mut().find(|row| row["user_id"] == user && row["session_id"] == id);
    row.unwrap().extend(values.as_object().unwrap().clone());
    world.supabase.put_tables(tables).unwrap();
}

fn write(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("note.json"), text).unwrap();
}

fn database(world: &World, down: Down) {
    world.supabase.set_faults(Faults { down, ..Faults::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_shows_in_the_row_and_all_else_of_it_stays() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let (first, facts) = (row(&world, SESSION), sidecar(&world));
    let tree = files(&root);
    let head = world.json("history", &root).await["head"].clone();
    assert_eq!((&first["is_active"], &facts["head"]), (&json!(true), &head));
    assert_eq!(facts["files"], tree.len());
    assert_eq!(facts["bytes"], tree.values().map(|(_, bytes)| bytes.len()).sum::<usize>());
    assert_eq!((&facts["held"], &facts["state"]), (&json!(0), &json!("stopped")));
    let digits = |text: &Value| text.as_str().is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()));
    assert!(digits(&facts["phone"]), "{facts}");
    assert!(facts["last_sync_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{facts}");

    // An app has its own facts there, and takes the session out of its list.
    let theirs = json!({ "theirs": { "a": 1 }, "sidecar": { "desired": "WORKING" } });
    set(&world, SESSION, &json!({ "session_data": theirs, "is_active": false, "status": "connected" }));
    let running = Running::start(&world, &root, &[]).await;
    write(&root, "1");
    eventually("the commit shows", async || sidecar(&world)["files"] == tree.len() + 1).await;
    assert_eq!(sidecar(&world)["state"], "ready");
    assert_eq!(running.stop().await, 0);
    let last = row(&world, SESSION);
    assert_eq!((&last["is_active"], &last["status"]), (&json!(false), &json!("connected")));
    assert_eq!(last["created_at"], first["created_at"]);
    assert_eq!(last["session_data"]["theirs"], json!({ "a": 1 }));
    let facts = sidecar(&world);
    assert_eq!((&facts["desired"], &facts["state"]), (&json!("WORKING"), &json!("stopped")));
    assert_eq!(facts["head"], world.json("history", &root).await["head"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_holds_no_commit_up_and_the_row_is_right_later() {
    let world = World::new().await;
    let root = world.tree("root");
    database(&world, Down::Database);
    let running = Running::start(&world, &root, &["--lease", "storage"]).await;
    write(&root, "1");
    eventually("it is kept", async || world.head().await.contains_key("note.json")).await;
    assert_eq!(row(&world, SESSION), Value::Null);
    database(&world, Down::Nothing);
    eventually("it shows", async || sidecar(&world)["files"] == files(&root).len()).await;
    assert_eq!(row(&world, SESSION)["is_active"], true);
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_active_until_its_logout_and_again_once_it_begins_anew() {
    let world = World::new().await;
    let (root, new) = (world.tree("root"), world.root("new"));
    let running = Running::start(&world, &root, &[]).await;
    eventually("it is active", async || row(&world, SESSION)["is_active"] == true).await;
    world.ok("logout", &root, &[]).await;
    let is_over = |row: Value| row["is_active"] == false && row["status"] == "logged_out";
    eventually("it is over", async || is_over(row(&world, SESSION))).await;
    // The old account's tree still lies there.
    assert_eq!(running.stop().await, 3);

    world.ok("restore", &new, &[]).await;
    assert!(is_over(row(&world, SESSION)), "an empty session has not begun: {}", row(&world, SESSION));
    write(&new, "1");
    world.sync(&new).await;
    assert_eq!((&row(&world, SESSION)["is_active"], &sidecar(&world)["files"]), (&json!(true), &json!(1)));

    // By commands on their own.
    let output = world.run("logout", &new, &[]).await;
    assert!(
        is_over(row(&world, SESSION)),
        "{} {}",
        row(&world, SESSION),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(sidecar(&world)["files"], 0);
    let point = world.pinned(&new, "logout").await.unwrap();
    world.ok("restore", &new, &["--at", &point]).await;
    assert_eq!(row(&world, SESSION)["is_active"], true);
    world.ok("delete", &new, &["--yes"]).await;
    assert!(is_over(row(&world, SESSION)), "{}", row(&world, SESSION));
    world.ok("undelete", &new, &[]).await;
    assert_eq!(row(&world, SESSION)["is_active"], true);

    // A row that an app removed is not made again to say that there is nothing.
    let mut tables = world.supabase.tables();
    tables.sessions.clear();
    world.supabase.put_tables(tables).unwrap();
    world.ok("delete", &new, &["--yes", "--purge"]).await;
    assert_eq!(row(&world, SESSION), Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_table_nothing_is_asked_of_one() {
    let world = World::new().await;
    let root = world.tree("root");
    world.ok("sync", &root, &["--metadata", "off", "--lease", "storage"]).await;
    let storage = |name: &&str| name.contains("/object") || name.contains("/bucket");
    assert!(world.supabase.requests().keys().all(|name| storage(name)), "{:?}", world.supabase.requests());
    assert_eq!(row(&world, SESSION), Value::Null);

    // Where the SQL was not applied, one line says what to do, and all else goes on.
    world.supabase.set_schema(false);
    write(&root, "1");
    let output = world.run("sync", &root, &["--lease", "storage"]).await;
    assert!(output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("table")).collect();
    assert!(matches!(lines[..], [_]), "{log}");
    for way in ["init", "schema", "--metadata off"] {
        assert!(lines[0].contains(way), "{log}");
    }
    assert!(world.head().await.contains_key("note.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_leaves_out_what_the_table_calls_inactive_and_nothing_else() {
    let world = World::new().await;
    let old = world.root("old");
    for session in ["u1/active", "u1/inactive", "u1/unknown", "u2/here"] {
        write(&old.join(session), "1");
    }
    let output = finished(world.bare("sync", &old)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for session in ["u1/inactive", "u2/here"] {
        set(&world, session, &json!({ "is_active": false }));
    }
    set(&world, "u1/active", &json!({ "is_active": null }));
    let mut tables = world.supabase.tables();
    tables.sessions.retain(|row| row["session_id"] != "unknown");
    world.supabase.put_tables(tables).unwrap();

    let restored = async |name: &str| {
        let root = world.root(name);
        std::fs::create_dir_all(root.join("u2/here")).unwrap();
        let mut command = world.bare("restore", &root);
        command.args(["--select", "active", "--lease", "storage"]);
        let output = finished(command).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sessions = files(&root).into_keys().map(|path| path.replace("/note.json", ""));
        (sessions.collect::<Vec<_>>(), String::from_utf8(output.stderr).unwrap())
    };
    let (sessions, log) = restored("by-the-table").await;
    assert_eq!(sessions, ["u1/active", "u1/unknown", "u2/here"], "{log}");

    // Who cannot ask restores all, and says so.
    let all = ["u1/active", "u1/inactive", "u1/unknown", "u2/here"];
    world.supabase.set_schema(false);
    let (sessions, log) = restored("without-sql").await;
    assert_eq!(sessions, all);
    assert!(log.contains("all are restored"), "{log}");
    world.supabase.set_schema(true);
    database(&world, Down::Database);
    let (sessions, log) = restored("database-away").await;
    assert_eq!(sessions, all);
    assert!(log.contains("all are restored"), "{log}");
}
