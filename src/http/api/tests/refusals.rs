use serde_json::Value;

use super::super::*;
use super::fakes::{Sidecar, World};

fn world() -> World {
    World::new(Sidecar::default().with("u1/s1", |_| ()))
}

/// Every method and path of the document, its parameters filled in.
async fn calls(world: &World, user: &str, session: &str) -> Vec<(String, String)> {
    let document = world.ok("GET", "/openapi.json", "").await;
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            calls.push((method.to_uppercase(), path.replace("{user}", user).replace("{session}", session)));
        }
    }
    calls
}

#[tokio::test]
async fn malformed_ids_are_refused_on_every_path() {
    let world = world();
    let long = "x".repeat(129);
    for bad in ["..%2F..%2Fetc", ".hidden", "a%20b", "a%00b", "%ff", "a%2Fb", "%E2%80%AE", &long] {
        for (method, path) in calls(&world, bad, "s1").await.into_iter().chain(calls(&world, "u1", bad).await)
        {
            if !path.contains(bad) {
                continue;
            }
            let refused = world.refused(&method, &path, "").await;
            assert_eq!(refused, (400, "bad_session_id".to_owned()), "{method} {path}");
        }
    }
    assert!(world.phone.asked().is_empty() && world.sidecar.asked().is_empty());
}

#[tokio::test]
async fn malformed_sessions_in_query_and_body_are_refused_too() {
    let world = world();
    let by_query = world.refused("GET", "/api/whatsapp/status/u1?sessionId=..%2Fx", "").await;
    assert_eq!(by_query, (400, "bad_session_id".to_owned()));
    let by_body = world.refused("POST", "/api/whatsapp/connect/u1", r#"{"sessionId":"a/b"}"#).await;
    assert_eq!(by_body, (400, "bad_session_id".to_owned()));
    let number = world.refused("POST", "/api/whatsapp/connect/u1", r#"{"sessionId":7}"#).await;
    assert_eq!(number, (400, "bad_request".to_owned()));
}

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_refused_on_every_path() {
    let world = world();
    for (method, path) in calls(&world, "u1", "s1").await {
        if method == "GET" {
            continue;
        }
        for bad in ["{", "[1]", "\"x\"", "a=b", "{\"a\":1}x"] {
            let refused = world.refused(&method, &path, bad).await;
            assert_eq!(refused, (400, "bad_json".to_owned()), "{method} {path} {bad}");
        }
        let large = " ".repeat(BODY_LIMIT + 1);
        assert_eq!(
            world.refused(&method, &path, &large).await,
            (413, "too_large".to_owned()),
            "{method} {path}"
        );
    }
    assert!(world.phone.asked().is_empty() && world.sidecar.asked().is_empty());
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_with_a_stable_code() {
    let world = world();
    for (method, path, body, code) in [
        ("GET", "/api/whatsapp/qr/u1?format=gif", "", "bad_format"),
        ("POST", "/api/sessions/u1/s1/restore", r#"{"at":"yesterday"}"#, "bad_request"),
        ("POST", "/api/sessions/u1/s1/restore?at=yesterday", "", "bad_request"),
        ("POST", "/api/sessions/u1/s1/restore", r#"{"at":5}"#, "bad_request"),
        ("DELETE", "/api/sessions/u1/s1?purge=maybe", "", "bad_request"),
        ("POST", "/api/whatsapp/connect/u1", r#"{"isDefault":"yes"}"#, "bad_request"),
        ("POST", "/api/whatsapp/connect/u1", r#"{"sessionName":"two\nlines"}"#, "bad_request"),
        ("POST", "/api/whatsapp/pairing-code/u1", "", "bad_request"),
        ("POST", "/api/whatsapp/pairing-code/u1", r#"{"phoneNumber":"hello"}"#, "bad_request"),
        ("POST", "/api/whatsapp/pairing-code/u1", r#"{"phoneNumber":"1234567890123456"}"#, "bad_request"),
        ("POST", "/api/whatsapp/passkey/u1", "", "bad_request"),
        ("POST", "/api/whatsapp/send/u1", r#"{"to":"5511999990000"}"#, "bad_request"),
        ("POST", "/api/whatsapp/send/u1", r#"{"to":" ","text":"x"}"#, "bad_request"),
    ] {
        let refused = world.refused(method, path, body).await;
        assert_eq!(refused, (400, code.to_owned()), "{method} {path} {body}");
    }
    assert!(world.phone.asked().is_empty());
    let request = axum::http::Request::get("/api/whatsapp/qr/u1").header("accept", "video/mp4");
    let response = world.ask(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 406);
}

#[tokio::test]
async fn a_session_too_many_is_refused_also_when_all_come_at_once() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()).with("u1/gone", |entry| {
        entry.is_active = false;
        entry.here = None;
    }));
    let connect =
        async |session: &str| world.call("POST", &format!("/api/whatsapp/connect/u1/{session}"), "").await;
    let answers = tokio::join!(connect("a"), connect("b"), connect("c"), connect("d"), connect("s1"));
    let answers: Vec<(u16, Value)> = [answers.0, answers.1, answers.2, answers.3]
        .into_iter()
        .map(|(status, value)| (status.as_u16(), value))
        .collect();
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 2, "{answers:?}");
    for (status, value) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, &value["code"]), (409, &Value::from("too_many_sessions")));
    }
    for path in ["/api/whatsapp/generate-qr/u1/e", "/api/whatsapp/pairing-code/u1/e"] {
        let refused = world.refused("POST", path, r#"{"phoneNumber":"5511999990000"}"#).await;
        assert_eq!(refused, (409, "too_many_sessions".to_owned()), "{path}");
    }
    assert_eq!(connect("s1").await.0, 200, "one that is there is no new one");
}
