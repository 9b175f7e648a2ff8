use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::super::*;
use super::fakes::{HEAD, Sidecar, World, config};
use crate::error::Code;
use crate::sync::health::Why;

/// Of a process that runs no connections.
fn sidecar_alone(sidecar: Arc<Sidecar>) -> Router {
    let (_, config) = config();
    api(
        sidecar,
        #[cfg(feature = "runner")]
        None,
        config,
    )
}

#[tokio::test]
async fn a_sync_answers_with_the_commit_and_what_is_held() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()));
    let answer = world.ok("POST", "/api/sessions/u1/s1/sync", "").await;
    assert_eq!(answer["action"], "uploaded");
    assert_eq!(answer["commit"], HEAD);
    assert_eq!((&answer["uploaded"], &answer["failed"]), (&json!(12), &json!(1)));
    assert_eq!(answer["held"][0]["path"], "creds.json");
    let unknown = world.refused("POST", "/api/sessions/u1/unknown/sync", "").await;
    assert_eq!(unknown, (404, "not_found".to_owned()));
    *world.sidecar.fails.lock().unwrap() = Some((Code::NotFlushed, "not stored in time"));
    let late = world.refused("POST", "/api/sessions/u1/s1/sync", "").await;
    assert_eq!(late, (504, "not_durable".to_owned()));
}

#[tokio::test]
async fn a_process_without_connections_serves_sessions_alone() {
    let sidecar = Arc::new(Sidecar::default().with("u1/s1", |_| ()));
    let router = sidecar_alone(sidecar.clone());
    let ask = async |method: &str, path: &str, body: &'static str| {
        use tower::ServiceExt as _;
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        super::fakes::read(router.clone().oneshot(request).await.unwrap()).await
    };
    let (status, sessions) = ask("GET", "/api/sessions/u1", "").await;
    assert_eq!((status.as_u16(), &sessions["sessions"][0]["session_id"]), (200, &json!("s1")));
    assert_eq!(sessions["sessions"][0]["state"], json!(null), "nobody here knows the bot");
    // P7: the bot beside it may be using the tree.
    for (method, path) in [
        ("POST", "/api/sessions/u1/s1/restore"),
        ("POST", "/api/sessions/u1/s1/logout"),
        ("DELETE", "/api/sessions/u1/s1?purge=true"),
    ] {
        let (status, answer) = ask(method, path, "").await;
        assert_eq!((status.as_u16(), &answer["code"]), (409, &json!("conflict")), "{path}: {answer}");
    }
    assert_eq!(ask("GET", "/api/whatsapp/status/u1", "").await.0.as_u16(), 404);
    let (_, document) = ask("GET", "/openapi.json", "").await;
    assert!(document["paths"]["/api/sessions/{user}"].is_object());
    assert!(document["paths"]["/api/whatsapp/status/{user}"].is_null());
    let destroys = |call: &String| ["restore", "logout", "delete"].iter().any(|word| call.starts_with(word));
    assert!(!sidecar.asked().iter().any(destroys), "{:?}", sidecar.asked());
}

#[tokio::test]
async fn the_control_calls_behind_the_api_destroy_nothing_without_a_token() {
    use tower::ServiceExt as _;
    let sidecar = Arc::new(Sidecar::default().with("u1/s1", |_| ()));
    let router = sidecar_alone(sidecar.clone());
    for (path, wanted) in [("open", 200), ("sync", 200), ("restore", 401), ("delete", 401)] {
        let request = Request::builder().method("POST").uri(format!("/control/{path}"));
        let request = request.body(Body::from(r#"{"session":"u1/s1"}"#)).unwrap();
        assert_eq!(router.clone().oneshot(request).await.unwrap().status().as_u16(), wanted, "{path}");
    }
}

#[tokio::test]
async fn what_another_process_holds_is_a_conflict_and_not_a_success() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()));
    *world.sidecar.fails.lock().unwrap() = Some((Code::LeaseHeld, "another process holds the session"));
    let refused = world.refused("POST", "/api/sessions/u1/s1/sync", "").await;
    assert_eq!(refused, (409, "lease_held".to_owned()));
    *world.sidecar.fails.lock().unwrap() = Some((Code::Damaged, "an object is damaged"));
    assert_eq!(world.refused("GET", "/api/sessions/u1/s1/history", "").await, (500, "damaged".to_owned()));
}

#[tokio::test]
async fn sessions_are_listed_while_the_project_is_away() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()).with("u2/s2", |_| ()));
    *world.sidecar.fails.lock().unwrap() = Some((Code::Unreachable, "no connection"));
    let answer = world.ok("GET", "/api/sessions/u1", "").await;
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{answer}");
    assert_eq!((&sessions[0]["session_id"], &sessions[0]["files"]), (&json!("s1"), &json!(12)));
}

#[tokio::test]
async fn health_is_always_200_and_says_what_is_wrong() {
    let world = World::new(Sidecar::default());
    let well = world.ok("GET", "/api/health", "").await;
    assert_eq!((&well["status"], &well["cloudStorage"]), (&json!("healthy"), &json!("enabled")));
    assert_eq!(well["activeSessions"], json!(0));
    let stamp = well["timestamp"].as_str().unwrap();
    assert!(stamp.len() == 24 && stamp.ends_with('Z'), "ISO with milliseconds: {stamp}");
    world.health.send_modify(|health| {
        health.ready = false;
        health.why.insert(Why::Unreachable);
    });
    let away = world.ok("GET", "/api/health", "").await;
    assert_eq!((&away["status"], &away["cloudStorage"]), (&json!("degraded"), &json!("degraded")));
    assert_eq!(world.call("GET", "/readyz", "").await.0.as_u16(), 503);
    let local = World::with(Sidecar::default(), |config| config.cloud = CloudStorage::Disabled);
    assert_eq!(local.ok("GET", "/api/health", "").await["cloudStorage"], "disabled");
}
