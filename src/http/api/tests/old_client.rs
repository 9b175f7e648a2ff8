//! The life of the mobile client of the service that came before: each of its calls, with and without a session, gets
//! every field that it reads.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};

use super::fakes::runner::{CODE, connection};
use super::fakes::{Sidecar, World};
use crate::error::Code;
use crate::runner::port::State;

fn row() -> Value {
    json!({
        "id": 7, "user_id": "u1", "session_id": "s1", "session_name": "Shop", "session_alias": null,
        "phone_number": null, "connection_type": "mobile", "max_connections": 5, "status": "connecting",
        "is_default": true, "is_active": true, "session_data": {}, "created_at": "2026-11-01T00:00:00Z",
        "last_activity": "2026-11-02T00:00:00Z",
    })
}

fn world() -> World {
    World::new(Sidecar::default().with("u1/s1", |entry| {
        entry.row = row();
        entry.is_default = true;
    }))
}

/// Both ways to name the session.
const WAYS: [&str; 3] = ["u1/s1", "u1", "u1?sessionId=s1"];

#[tokio::test]
async fn a_new_user_connects_scans_works_and_leaves() {
    let world = World::new(Sidecar::default());
    let none = world.ok("GET", "/api/whatsapp/status/u9", "").await;
    for (field, value) in [
        ("connected", json!(false)),
        ("connecting", json!(false)),
        ("qrCode", json!(null)),
        ("sessionId", json!("default")),
        ("message", json!("No active connection found")),
    ] {
        assert_eq!(none[field], value, "{field}: {none}");
    }
    assert_eq!(none["session"]["status"], "not_found");
    assert_eq!(none["data"]["status"], "not_found");

    let connect = world.ok("POST", "/api/whatsapp/connect/u9", "").await;
    assert_eq!(connect["success"], true);
    assert_eq!(connect["sessionId"], "default");
    assert_eq!(connect["message"], "WhatsApp connection initiated");
    assert_eq!(world.phone.asked(), ["connect u9/default"]);

    let qr = world.ok("GET", "/api/whatsapp/status/u9/default", "").await;
    assert_eq!(
        (&qr["connected"], &qr["connecting"], &qr["qrCode"]),
        (&json!(false), &json!(true), &json!(CODE))
    );
    assert_eq!(qr["session"], json!({"sessionId": "default", "userId": "u9", "status": "qr_generated"}));
    assert_eq!(qr["state"], "SCAN_QR_CODE");
    assert_eq!(qr["qr"]["code"], CODE);

    world.phone.put("u9/default", connection(State::Working));
    let on = world.ok("GET", "/api/whatsapp/status/u9/default", "").await;
    assert_eq!(
        (&on["connected"], &on["connecting"], &on["qrCode"]),
        (&json!(true), &json!(false), &json!(null))
    );
    let data = json!({"status": "connected", "connected": true, "sessionId": "default", "userId": "u9"});
    assert_eq!(on["data"], data);
    assert_eq!(on["me"]["id"], "5511999990000:3@s.whatsapp.net");

    let off = world.ok("POST", "/api/whatsapp/disconnect/u9", r#"{"sessionId":"default"}"#).await;
    assert_eq!(off["message"], "WhatsApp disconnected successfully");
    assert_eq!(world.phone.asked(), ["disconnect u9/default"], "and not logged out");
}

#[tokio::test]
async fn status_has_every_field_of_both_shapes_however_the_session_is_named() {
    let world = world();
    world.phone.put("u1/s1", connection(State::ScanQrCode));
    for way in WAYS {
        let status = world.ok("GET", &format!("/api/whatsapp/status/{way}"), "").await;
        for (field, value) in [
            ("success", json!(true)),
            ("connected", json!(false)),
            ("connecting", json!(true)),
            ("qrCode", json!(CODE)),
            ("sessionId", json!("s1")),
            ("sessionName", json!("Shop")),
            ("isDefault", json!(true)),
            ("connectionType", json!("mobile")),
            ("session", json!({"sessionId": "s1", "userId": "u1", "status": "qr_generated"})),
        ] {
            assert_eq!(status[field], value, "{way} {field}");
        }
        assert_eq!(status["data"]["connected"], false);
        assert_eq!(status["persistence"]["files"], 12);
        assert_eq!(status["persistence"]["healthy"], false, "something is held");
    }
    assert_eq!(
        world.sidecar.asked().iter().filter(|call| call.starts_with("sessions")).count(),
        1,
        "a client that asks each second does not make us ask the project each second"
    );
}

#[tokio::test]
async fn connect_takes_an_empty_body_a_name_and_a_session() {
    let world = world();
    for (path, body) in [
        ("u1/s1", ""),
        ("u1/s1", "{}"),
        ("u1", r#"{"sessionId":"s1"}"#),
        ("u1", r#"{"sessionId":"s1","sessionName":" Shop 2 ","isDefault":true}"#),
        ("u1", r#"{"sessionId":null,"unknown":[1]}"#),
        ("u1/s1", r#"{"sessionId":"another"}"#),
    ] {
        let answer = world.ok("POST", &format!("/api/whatsapp/connect/{path}"), body).await;
        assert_eq!((&answer["success"], &answer["sessionId"]), (&json!(true), &json!("s1")), "{body}");
        assert!(answer["message"].is_string());
    }
    let notes: Vec<_> = world.sidecar.asked().into_iter().filter(|call| call.starts_with("note")).collect();
    assert_eq!(notes, [r#"note u1/s1 Some("Shop 2") Some(true)"#]);
}

#[tokio::test]
async fn the_qr_code_comes_in_every_form() {
    let world = world();
    let none = world.ok("GET", "/api/whatsapp/qr/u1", "").await;
    assert_eq!((&none["success"], &none["message"]), (&json!(false), &json!("No QR code available")));
    world.phone.put("u1/s1", connection(State::ScanQrCode));
    for way in WAYS {
        let qr = world.ok("GET", &format!("/api/whatsapp/qr/{way}"), "").await;
        assert_eq!((&qr["success"], &qr["qrCode"]), (&json!(true), &json!(CODE)));
        assert!(qr["qrCodeDataURL"].as_str().unwrap().starts_with("data:image/png;base64,"));
    }
    for (format, accept, media, begin) in [
        ("", "image/png", "image/png", &b"\x89PNG"[..]),
        ("png", "*/*", "image/png", b"\x89PNG"),
        ("svg", "", "image/svg+xml", b"<?xml"),
        ("", "image/svg+xml", "image/svg+xml", b"<?xml"),
        ("text", "", "text/plain; charset=utf-8", "█".as_bytes()),
        ("raw", "", "text/plain; charset=utf-8", CODE.as_bytes()),
    ] {
        let request = Request::get(format!("/api/whatsapp/qr/u1?format={format}")).header("accept", accept);
        let response = world.ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &media.parse().unwrap())
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(bytes.starts_with(begin), "{format} {accept}");
    }
}

#[tokio::test]
async fn without_a_code_a_client_is_told_when_to_ask_again() {
    let world = world();
    let ask = async |path: &str| {
        let response = world.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        (response.status().as_u16(), response.headers().get("retry-after").cloned())
    };
    let again = Some("2".parse().unwrap());
    assert_eq!(ask("/api/whatsapp/qr/u1").await, (200, again.clone()));
    assert_eq!(ask("/api/whatsapp/qr/u1?format=png").await, (404, again));
}

#[tokio::test]
async fn generate_qr_connects_and_answers_with_the_code() {
    for (method, path) in [("POST", "u1/s1"), ("GET", "u1/s1"), ("POST", "u1"), ("GET", "u1")] {
        let world = world();
        let answer = world.ok(method, &format!("/api/whatsapp/generate-qr/{path}"), "").await;
        assert_eq!((&answer["success"], &answer["qrCode"]), (&json!(true), &json!(CODE)));
        assert_eq!(answer["data"], json!({"qrCode": CODE}));
        assert_eq!(world.phone.asked(), ["connect u1/s1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn generate_qr_says_why_there_is_none() {
    for state in [State::Working, State::Failed, State::PasskeyRequired, State::Starting] {
        let world = world();
        *world.phone.leads_to.lock().unwrap() = state;
        let begun = tokio::time::Instant::now();
        let answer = world.ok("POST", "/api/whatsapp/generate-qr/u1/s1", "").await;
        assert_eq!(answer["success"], false, "{state:?}");
        assert!(answer["message"].is_string(), "{answer}");
        let waited = begun.elapsed() > Duration::from_secs(1);
        assert_eq!(waited, state == State::Starting, "{state:?}");
    }
}

#[tokio::test]
async fn sessions_are_the_rows_of_the_table_with_ours_beside() {
    let world = World::new(
        Sidecar::default()
            .with("u1/s1", |entry| entry.row = row())
            .with("u1/gone", |entry| {
                entry.is_active = false;
                entry.here = None;
            })
            .with("u1/newer", |entry| entry.created_at = Some("2026-11-20T00:00:00Z".parse().unwrap()))
            .with("u2/theirs", |_| ()),
    );
    world.phone.put("u1/s1", connection(State::Working));
    let answer = world.ok("GET", "/api/sessions/u1", "").await;
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!(sessions.iter().map(|one| &one["session_id"]).collect::<Vec<_>>(), ["newer", "s1"]);
    let old = &sessions[1];
    for (column, value) in row().as_object().unwrap() {
        if column != "status" {
            assert_eq!(&old[column], value, "{column}");
        }
    }
    assert_eq!((&old["status"], &old["state"]), (&json!("connected"), &json!("WORKING")));
    assert_eq!((&old["files"], &old["bytes"]), (&json!(12), &json!(3456)));
    assert_eq!(old["held"][0]["path"], "creds.json");
    assert!(old["lastSyncAt"].is_string());
    // Without a row the columns that clients read are there all the same.
    for column in ["user_id", "session_id", "session_name", "status", "is_default", "is_active", "created_at"]
    {
        assert!(sessions[0].get(column).is_some(), "{column}");
    }
    assert_eq!(sessions[0]["state"], "STOPPED");
}

#[tokio::test]
async fn sync_restore_delete_and_clean_answer_as_before() {
    let world = world();
    let sync = world.ok("POST", "/api/sessions/u1/s1/sync", "").await;
    assert_eq!((&sync["success"], &sync["action"]), (&json!(true), &json!("uploaded")));
    let restore = world.ok("POST", "/api/sessions/u1/s1/restore", "").await;
    assert_eq!(
        (&restore["action"], &restore["downloaded"], &restore["failed"]),
        (&json!("restored"), &json!(12), &json!(0))
    );
    let nothing = world.ok("POST", "/api/sessions/u1/never-stored/restore", "").await;
    assert_eq!((&nothing["success"], nothing["error"].is_string()), (&json!(false), true));
    let deleted = world.ok("DELETE", "/api/sessions/u1/s1", "").await;
    assert_eq!(
        (&deleted["success"], &deleted["message"]),
        (&json!(true), &json!("Session deleted successfully"))
    );
    world.ok("DELETE", "/api/sessions/u1/s1?logout=false&purge=true", "").await;
    let clean = world.ok("POST", "/api/whatsapp/clean-session/u1", r#"{"sessionId":"s1"}"#).await;
    assert_eq!(clean["data"], json!({"userId": "u1", "sessionId": "s1"}));
    world.ok("POST", "/api/sessions/u1/s1/logout", "").await;
    world.ok("POST", "/api/whatsapp/logout/u1", "").await;
    assert_eq!(
        world.phone.asked(),
        [
            "restore u1/s1 None",
            "restore u1/never-stored None",
            "delete u1/s1 logout=true purge=false",
            "delete u1/s1 logout=false purge=true",
            "delete u1/s1 logout=true purge=false",
            "logout u1/s1",
            "logout u1/s1",
        ],
        "the bot is asked, which stops itself first"
    );
    let health = world.ok("GET", "/api/health", "").await;
    for field in ["status", "timestamp", "cloudStorage", "activeSessions"] {
        assert!(!health[field].is_null(), "{field}");
    }
}

#[tokio::test]
async fn what_is_gone_is_deleted_and_logged_out_without_an_error() {
    let world = world();
    *world.phone.fails.lock().unwrap() = Some((Code::NoSession, "nothing is known of it"));
    for (method, path) in [
        ("DELETE", "/api/sessions/u1/s1"),
        ("POST", "/api/sessions/u1/s1/logout"),
        ("POST", "/api/whatsapp/disconnect/u1/s1"),
        ("POST", "/api/whatsapp/clean-session/u1/s1"),
    ] {
        world.ok(method, path, "").await;
    }
    *world.phone.fails.lock().unwrap() = Some((Code::Conflict, "its bot is not ours to stop"));
    assert_eq!(world.refused("DELETE", "/api/sessions/u1/s1", "").await, (409, "conflict".to_owned()));
}

#[tokio::test]
async fn a_phone_is_paired_by_code_or_passkey_and_sends() {
    let world = world();
    let code =
        world.ok("POST", "/api/whatsapp/pairing-code/u1", r#"{"phoneNumber":"+55 (11) 99999-0000"}"#).await;
    assert_eq!(
        (&code["pairingCode"], &code["expiresAt"]),
        (&json!("ABCD-EFGH"), &json!("2026-11-27T12:03:00Z"))
    );

    let none = world.refused("GET", "/api/whatsapp/passkey/u1/s1/challenge", "").await;
    assert_eq!(none, (409, "conflict".to_owned()));
    world.phone.put("u1/s1", connection(State::PasskeyRequired));
    for path in ["u1/s1/challenge", "u1/s1", "u1"] {
        let step = world.ok("GET", &format!("/api/whatsapp/passkey/{path}"), "").await;
        assert_eq!((&step["step"], &step["options"]["challenge"]), (&json!("challenge"), &json!("AAAA")));
    }
    world.ok("POST", "/api/whatsapp/passkey/u1/s1", r#"{"id":"x","type":"public-key"}"#).await;
    world.ok("POST", "/api/whatsapp/passkey/u1", r#"{"sessionId":"s1","assertion":{"id":"x"}}"#).await;
    world.phone.put("u1/s1", connection(State::PasskeyConfirmationRequired));
    let step = world.ok("GET", "/api/whatsapp/passkey/u1/s1", "").await;
    assert_eq!((&step["step"], &step["code"]), (&json!("confirm"), &json!("ABCD-EFGH")));
    world.ok("POST", "/api/whatsapp/passkey/u1/s1/confirm", "").await;

    let sent = world.ok("POST", "/api/whatsapp/send/u1/s1", r#"{"to":"5511999990000","text":"hi"}"#).await;
    assert_eq!(sent["messageId"], "3EB0ABCDEF");
    assert_eq!(
        world.phone.asked(),
        [
            "pairing_code u1/s1 5511999990000",
            r#"answer_passkey u1/s1 {"id":"x","type":"public-key"}"#,
            r#"answer_passkey u1/s1 {"id":"x"}"#,
            "confirm_passkey u1/s1",
            "send u1/s1 5511999990000 hi",
        ]
    );
}
