//! A store of whatsapp-rust, open here like in a bot, and the sidecar in a process of its own beside it.

use std::path::Path;

use rusqlite::Connection;
use whatsapp_rust::store::SqliteStore;

use crate::support::world::{Running, World, eventually};

/// A device row with whatever the library's schema asks for.
fn add_device(database: &Connection) {
    let rows: i64 = database.query_row("SELECT count(*) FROM device", [], |row| row.get(0)).unwrap();
    if rows > 0 {
        return;
    }
    let mut columns = database.prepare("SELECT name, type FROM pragma_table_info('device')").unwrap();
    let columns =
        columns.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let value = |(name, kind): (String, String)| {
        let value = match kind.as_str() {
            "BLOB" => "x'01'",
            "TEXT" => "''",
            _ => "1",
        };
        (name, value)
    };
    let (names, values): (Vec<String>, Vec<&str>) = columns.map(|column| value(column.unwrap())).unzip();
    let insert = format!("INSERT INTO device({}) VALUES ({})", names.join(", "), values.join(", "));
    database.execute(&insert, []).unwrap();
    database.execute("UPDATE device SET account = NULL", []).unwrap();
}

fn add_notes(database: &Connection, notes: i64) {
    database.execute_batch("CREATE TABLE IF NOT EXISTS notes(n INTEGER)").unwrap();
    for note in 0..notes {
        database.execute("INSERT INTO notes VALUES (?1)", [note]).unwrap();
    }
}

fn notes(path: &Path) -> i64 {
    let database = Connection::open(path).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    database.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap()
}

async fn sync_changes(world: &World, root: &Path) -> bool {
    let report: serde_json::Value = serde_json::from_str(&world.ok("sync", root, &["--json"]).await).unwrap();
    report["sessions"][0]["changed"].as_bool().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_store_of_whatsapp_rust_is_committed_guarded_and_restored_elsewhere() {
    let world = World::new().await;
    let (root, there) = (world.root("root"), world.root("there"));
    std::fs::create_dir(&root).unwrap();
    let path = root.join("whatsapp.db");
    let store = SqliteStore::new(path.to_str().unwrap()).await.unwrap();
    let bot = Connection::open(&path).unwrap();
    add_device(&bot);
    let running = Running::start(&world, &root, &["--mirror", "off"]).await;
    world.ok("sync", &root, &[]).await;
    let identity = world.status(&root).await["identity"].clone();
    assert_eq!(
        (identity["format"].as_str(), identity["paired"].as_bool()),
        (Some("whatsapp-rust"), Some(false))
    );
    assert_eq!(world.head().await.keys().collect::<Vec<_>>(), ["whatsapp.db"], "no side file");

    bot.execute("UPDATE device SET pn = '5511900000001:1@s.whatsapp.net', account = x'02'", []).unwrap();
    eventually("the pairing is committed", async || world.status(&root).await["identity"]["paired"] == true)
        .await;
    add_notes(&bot, 200);
    sync_changes(&world, &root).await;
    for _ in 0..2 {
        assert!(!sync_changes(&world, &root).await, "nothing was written");
    }
    let paired = world.head().await["whatsapp.db"].1.clone();

    bot.execute("UPDATE device SET account = NULL", []).unwrap();
    assert_eq!(world.run("sync", &root, &[]).await.status.code(), Some(3));
    assert_eq!(world.status(&root).await["state"], "held");
    assert!(world.head().await["whatsapp.db"].1 == paired, "an unpaired row never replaces a paired one");
    bot.execute("UPDATE device SET account = x'02'", []).unwrap();
    world.ok("sync", &root, &[]).await;
    assert_eq!(running.stop().await, 0);

    world.ok("restore", &there, &[]).await;
    let names: Vec<_> = std::fs::read_dir(&there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("whatsapp.db-")), "{names:?}");
    assert_eq!(notes(&there.join("whatsapp.db")), 200);
    assert!(SqliteStore::new(there.join("whatsapp.db").to_str().unwrap()).await.is_ok());
    drop((bot, store));
}
