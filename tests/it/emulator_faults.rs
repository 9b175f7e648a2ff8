//! The emulator's faults, its directory across restarts, and its command.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use session_sidecar::emulator::{self, Emulator, Faults, Options};

use crate::wire::{self, Reply};

const OBJECT: &str = "/storage/v1/object/whatsapp-sessions/u/s/creds.json";
const LIST: &str = "/storage/v1/object/list-v2/whatsapp-sessions";

async fn start(dir: &Path) -> Emulator {
    emulator::start(Options { dir: dir.to_owned(), ..Options::default() }).await.unwrap()
}

async fn call(emulator: &Emulator, method: &str, path: &str, body: &str) -> io::Result<Reply> {
    let bearer = format!("Bearer {}", emulator.service_role_key());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    wire::send(emulator.addr(), method, path, &headers, body.as_bytes()).await
}

fn faults(text: &str) -> Faults {
    text.parse().unwrap()
}

async fn names(emulator: &Emulator, body: &Value) -> Vec<String> {
    let page = call(emulator, "POST", LIST, &body.to_string()).await.unwrap().json();
    page["objects"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_late_upload_is_reset_and_lands_over_what_has_the_name_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    emulator.set_faults(faults("late-uploads=1,late-by=20ms"));
    let error = call(&emulator, "POST", OBJECT, "1").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    emulator.set_faults(Faults::default());
    assert_eq!(call(&emulator, "PUT", OBJECT, "2").await.unwrap().status, 200);
    while emulator.uploads().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap().text(), "1");
    // The name is taken: then nothing comes late either.
    emulator.set_faults(faults("late-uploads=1"));
    assert_eq!(call(&emulator, "POST", OBJECT, "3").await.unwrap().short(), "400:409/KeyAlreadyExists");
}

#[tokio::test]
async fn errors_and_resets_come_before_or_after_the_call_took_effect() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    for (text, tries) in [("errors=1", 40), ("resets=1", 20)] {
        emulator.set_faults(faults(text));
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..tries {
            let path = format!("/storage/v1/object/whatsapp-sessions/{text}/{n}");
            seen.insert(match call(&emulator, "POST", &path, "1").await {
                Ok(reply) => reply.short(),
                Err(error) => error.kind().to_string(),
            });
        }
        emulator.set_faults(Faults::default());
        let landed = names(&emulator, &json!({ "prefix": text })).await.len();
        assert!(0 < landed && landed < tries, "{landed} of {tries}");
        if text == "resets=1" {
            assert_eq!(seen, [io::ErrorKind::ConnectionReset.to_string()].into());
            continue;
        }
        let wanted = ["400:423/ResourceLocked", "400:503/LockTimeout", "429:429/SlowDown", "502:/"];
        let wanted = wanted.into_iter().chain(["500:500/InternalError", "544:544/DatabaseTimeout"]);
        assert_eq!(seen, wanted.map(str::to_owned).collect());
    }
}

#[tokio::test]
async fn a_cut_body_is_shorter_than_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    call(&emulator, "POST", OBJECT, &"x".repeat(10_000)).await.unwrap();
    emulator.set_faults(faults("cut=1"));
    let error = call(&emulator, "GET", OBJECT, "").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_overwritten_object_is_read_as_it_was_while_info_and_lists_are_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    call(&emulator, "POST", OBJECT, "1").await.unwrap();
    emulator.set_faults(faults("stale=60s"));
    call(&emulator, "PUT", OBJECT, "22").await.unwrap();
    call(&emulator, "PUT", OBJECT, "333").await.unwrap();
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap().text(), "1");
    let info = OBJECT.replace("/object/", "/object/info/authenticated/");
    assert_eq!(call(&emulator, "GET", &info, "").await.unwrap().json()["size"], 3);
    emulator.set_faults(Faults::default());
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap().text(), "333");
}

#[tokio::test]
async fn lists_can_be_empty_or_unsorted_and_requests_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    for name in ["a", "b"] {
        call(&emulator, "POST", &format!("{OBJECT}/{name}"), "1").await.unwrap();
    }
    let newest = json!({ "limit": 1, "sortBy": { "column": "name", "order": "desc" } });
    assert_eq!(names(&emulator, &newest).await, ["u/s/creds.json/b"]);
    emulator.set_faults(faults("no-sort"));
    let page = call(&emulator, "POST", LIST, &newest.to_string()).await.unwrap().json();
    assert_eq!(page["objects"][0]["name"], "u/s/creds.json/a");
    assert_eq!(page["nextCursor"], "bDp1L3MvY3JlZHMuanNvbi9h", "the cursor names no order");
    emulator.set_faults(faults("empty-lists"));
    assert!(names(&emulator, &json!({})).await.is_empty());
    emulator.set_faults(faults("throttle=0.001:7s"));
    call(&emulator, "GET", OBJECT, "").await.unwrap();
    let reply = call(&emulator, "GET", OBJECT, "").await.unwrap();
    assert_eq!((reply.short().as_str(), reply.headers["retry-after"].as_str()), ("429:429/SlowDown", "7"));
    emulator.set_faults(faults("down"));
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(emulator.requests()["POST /object/list-v2/{bucket}"], 3);
}

#[tokio::test]
async fn keys_objects_and_the_log_of_uploads_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    let key = emulator.service_role_key().to_owned();
    call(&emulator, "POST", OBJECT, "1").await.unwrap();
    call(&emulator, "PUT", OBJECT, "2").await.unwrap();
    let gone = OBJECT.replace("creds", "gone");
    call(&emulator, "POST", &gone, "3").await.unwrap();
    call(&emulator, "DELETE", &gone, "").await.unwrap();
    let before = call(&emulator, "POST", LIST, "{}").await.unwrap().json();
    let other = Options { dir: dir.path().to_owned(), ..Options::default() };
    assert!(emulator::start(other).await.err().unwrap().to_string().contains("used by another emulator"));
    emulator.stop().await;

    let emulator = start(dir.path()).await;
    assert_eq!(emulator.service_role_key(), key);
    assert_eq!(call(&emulator, "POST", LIST, "{}").await.unwrap().json(), before);
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap().text(), "2");
    assert_eq!(emulator.uploads().len(), 3);
    let bucket = call(&emulator, "GET", "/storage/v1/bucket/whatsapp-sessions", "").await.unwrap().json();
    assert_eq!(bucket["file_size_limit"], 10_485_760);
    assert_eq!(bucket["allowed_mime_types"], json!(["application/json", "text/plain"]));
}

#[tokio::test]
async fn an_upload_that_outlives_its_server_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    let bearer = format!("Bearer {}", emulator.service_role_key());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let mut slow = wire::begin(emulator.addr(), "POST", OBJECT, &headers, 2, b"1").await.unwrap();
    while emulator.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(emulator);
    let emulator = start(dir.path()).await;
    slow.more(b"2").await.unwrap();
    assert_eq!(slow.finish().await.unwrap().short(), "500:500/InternalError");
    assert!(names(&emulator, &json!({})).await.is_empty());
    assert!(!dir.path().join("whatsapp-sessions").exists());
}

#[tokio::test]
async fn an_object_is_a_plain_file_and_an_edited_one_is_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    call(&emulator, "POST", OBJECT, "1").await.unwrap();
    let file = dir.path().join("whatsapp-sessions/u/s/creds.json");
    assert_eq!(emulator.object_path("whatsapp-sessions", "u/s/creds.json"), Some(file.clone()));
    let etag = call(&emulator, "GET", OBJECT, "").await.unwrap().headers["etag"].clone();
    emulator.stop().await;
    std::fs::write(&file, "edited").unwrap();
    let emulator = start(dir.path()).await;
    let reply = call(&emulator, "GET", OBJECT, "").await.unwrap();
    assert_eq!(reply.text(), "edited");
    assert_ne!(reply.headers["etag"], etag);
    // A file that is gone is a row without content.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(call(&emulator, "GET", OBJECT, "").await.unwrap().short(), "500:500/InternalError");
}

#[tokio::test]
async fn only_the_gateway_takes_a_new_key_and_the_bare_server_is_served_only_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let emulator = start(dir.path()).await;
    let new = [("apikey", emulator.secret_key())];
    let bucket = "/bucket/whatsapp-sessions";
    let hosted = format!("/storage/v1{bucket}");
    assert_eq!(wire::send(emulator.addr(), "GET", &hosted, &new, b"").await.unwrap().short(), "200");
    assert_eq!(wire::send(emulator.addr(), "GET", bucket, &new, b"").await.unwrap().status, 404);
    emulator.stop().await;
    let options = Options { dir: dir.path().to_owned(), bare: true, ..Options::default() };
    let emulator = emulator::start(options).await.unwrap();
    let new = [("apikey", emulator.secret_key())];
    let reply = wire::send(emulator.addr(), "GET", bucket, &new, b"").await.unwrap();
    assert_eq!(reply.short(), "400:400/InvalidRequest", "the bare server does not look at apikey");
    assert_eq!(call(&emulator, "GET", bucket, "").await.unwrap().short(), "200");
}

#[tokio::test]
async fn the_command_prints_what_a_client_needs() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().to_owned(), ..Options::default() };
    let mut out = Vec::new();
    emulator::run(options, &mut out, std::future::ready(())).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        ["SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_JWT_SECRET"]
    );
    assert!(text.starts_with("SUPABASE_URL=http://127.0.0.1:"));
}
