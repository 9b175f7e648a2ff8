//! What no client should send, to the real `serve`: refused with a stable code, and never a bug.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::service::{Service, serve};
use crate::support::world::World;
use crate::whatsapp::Server;

/// A process that answers everybody, and how often is not counted.
async fn open() -> (World, Server, Service) {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let service = Service::start(&world, &mock, &world.root("r"), &["--auth", "none"]).await;
    (world, mock, service)
}

/// It goes on, has logged no panic, and nothing came of it.
async fn unmoved(world: &World, service: &Service) {
    assert_eq!(service.ok("GET", "/api/health", "", None).await["status"], "healthy");
    let log = service.log();
    let bad = |line: &&Value| line["level"] == "ERROR" || line.to_string().contains("panicked");
    assert_eq!(log.iter().filter(bad).collect::<Vec<_>>(), Vec::<&Value>::new());
    assert!(world.supabase.tables().sessions.is_empty());
    let left: Vec<_> =
        std::fs::read_dir(world.root("r")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".session-sidecar"]);
}

/// Every method and path of the document.
async fn calls(service: &Service) -> Vec<(String, String)> {
    let document = service.ok("GET", "/openapi.json", "", None).await;
    let paths = document["paths"].as_object().unwrap().iter();
    let calls = paths.flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    calls.collect()
}

async fn refused(service: &Service, method: &str, path: &str, body: &str, wanted: (u16, &str)) {
    let (status, answer) = service.call(method, path, body, None).await;
    let shown: String = path.chars().take(80).collect();
    assert_eq!((status, answer["code"].as_str().unwrap_or_default()), wanted, "{method} {shown}: {answer}");
    assert_eq!(
        (&answer["success"], &answer["statusCode"]),
        (&Value::from(false), &Value::from(status)),
        "{shown}"
    );
    assert!(answer["error"].is_string() && answer["error"] == answer["message"], "{answer}");
}

#[tokio::test]
async fn ids_and_bodies_that_are_none_are_refused_on_every_path() {
    let (world, _mock, service) = open().await;
    let (long, large) = ("x".repeat(129), format!("{{\"a\":\"{}\"}}", "x".repeat(64 << 10)));
    for (method, path) in calls(&service).await {
        if !path.contains("{user}") {
            continue;
        }
        let good = path.replace("{user}", "u1").replace("{session}", "s1");
        for bad in [
            "..%2F..%2Fetc",
            "%2e%2e%2f",
            ".hidden",
            "a%20b",
            "a%00b",
            "%ff",
            "a%2Fb",
            "%E2%80%AE",
            "%25",
            &long,
        ] {
            refused(
                &service,
                &method,
                &path.replace("{user}", bad).replace("{session}", "s1"),
                "",
                (400, "bad_session_id"),
            )
            .await;
            let session = good.replacen("/s1", &format!("/{bad}"), 1);
            let named = if session == good { format!("{good}?sessionId={bad}") } else { session };
            refused(&service, &method, &named, "", (400, "bad_session_id")).await;
        }
        if method != "GET" {
            for bad in ["{", "[1]", "\"x\"", "a=b", "{\"a\":1}x", "\u{0}", "{\"sessionId\":\"s1\",}"] {
                refused(&service, &method, &good, bad, (400, "bad_json")).await;
            }
            refused(&service, &method, &good, &large, (413, "too_large")).await;
        }
        refused(&service, "PATCH", &good, "", (405, "method_not_allowed")).await;
    }
    unmoved(&world, &service).await;
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_where_they_are_given() {
    let (world, _mock, service) = open().await;
    for (method, path, body, wanted) in [
        ("GET", "/api/whatsapp/qr/u1?format=gif", "", (400, "bad_format")),
        ("GET", "/api/whatsapp/qr/u1?format=png", "", (404, "no_qr_code")),
        ("GET", "/api/whatsapp/status/u1?sessionId=..%2Fx", "", (400, "bad_session_id")),
        ("POST", "/api/whatsapp/connect/u1", r#"{"sessionId":"a/b"}"#, (400, "bad_session_id")),
        ("POST", "/api/whatsapp/connect/u1", r#"{"sessionId":7}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/connect/u1", r#"{"isDefault":"yes"}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/connect/u1", r#"{"sessionName":"two\nlines"}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/connect/u1", r#"{"sessionName":["x"]}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/pairing-code/u1", "", (400, "bad_request")),
        ("POST", "/api/whatsapp/pairing-code/u1", r#"{"phoneNumber":"hello"}"#, (400, "bad_request")),
        (
            "POST",
            "/api/whatsapp/pairing-code/u1",
            r#"{"phoneNumber":"1234567890123456"}"#,
            (400, "bad_request"),
        ),
        ("POST", "/api/whatsapp/passkey/u1/s1", "", (400, "bad_request")),
        ("POST", "/api/whatsapp/send/u1", r#"{"to":"5511999990000"}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/send/u1", r#"{"to":" ","text":"x"}"#, (400, "bad_request")),
        ("POST", "/api/whatsapp/send/u1/s1", r#"{"to":"5511999990000","text":"x"}"#, (409, "not_connected")),
        ("POST", "/api/sessions/u1/s1/restore", r#"{"at":"yesterday"}"#, (400, "bad_request")),
        ("POST", "/api/sessions/u1/s1/restore", r#"{"at":5}"#, (400, "bad_request")),
        ("POST", "/api/sessions/u1/s1/sync", "", (404, "not_found")),
        ("DELETE", "/api/sessions/u1/s1?purge=maybe", "", (400, "bad_request")),
        ("GET", "/api/nothing", "", (404, "not_found")),
        ("GET", "/api//sessions/u1", "", (404, "not_found")),
        ("GET", "/api/sessions/u1/s1/history/x", "", (404, "not_found")),
        ("DELETE", "/openapi.json", "", (405, "method_not_allowed")),
    ] {
        refused(&service, method, path, body, wanted).await;
    }
    let code = "x".repeat(40 << 10);
    refused(&service, "GET", &format!("/api/sessions/u1?x={code}"), "", (431, "headers_too_large")).await;
    unmoved(&world, &service).await;
}

/// What is sent as it stands; the status line of the answer, empty where the connection was closed without one.
async fn raw(service: &Service, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).await.unwrap();
    // It may be hung up on before it is through.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_is_hardly_http_ends_its_own_connection_and_nothing_else() {
    let (world, _mock, service) = open().await;
    let many = "x-a: 1\r\n".repeat(200);
    let post = "POST /api/whatsapp/connect/u1 HTTP/1.1\r\nhost: x\r\n";
    for (what, request) in [
        ("no HTTP", "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned()),
        ("many headers", format!("GET /api/health HTTP/1.1\r\nhost: x\r\n{many}\r\n")),
        ("a path that climbs", "GET /api/sessions/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("no path", "GET api HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("half a body", format!("{post}content-length: 100\r\n\r\n{{\"sessionId\":")),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
        ("a length that is none", format!("{post}content-length: -1\r\n\r\n{{}}")),
        ("a chunk that is none", format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n")),
        ("an endless header", format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(100 << 10))),
    ] {
        let answer = raw(&service, request.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        assert!(
            answer.is_empty() || status.is_some_and(|status: u16| (400..500).contains(&status)),
            "{what}: {answer}"
        );
    }
    unmoved(&world, &service).await;
}

#[tokio::test]
async fn tokens_that_are_none_are_401_and_never_repeated() {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let mut command = serve(&world, &mock, &world.root("r"));
    command.env("API_TOKEN", "the-token-of-this-api").env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
    let service = Service::spawn(command).await;
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSIsInJvbGUiOiJhdXRoZW50aWNhdGVkIn0.";
    let long = format!("eyJ{}", "x".repeat(20 << 10));
    for bad in ["the-token-of-this-ap", "the-token-of-this-api2", "a.b.c", "....", "eyJ", unsigned, &long] {
        let (status, answer) = service.call("GET", "/api/sessions/u1", "", Some(bad)).await;
        assert_eq!((status, &answer["code"]), (401, &Value::from("unauthorized")), "{answer}");
        assert!(!answer.to_string().contains(bad));
    }
    let logged = service.log().iter().map(Value::to_string).collect::<String>();
    for secret in ["the-token-of-this-ap", unsigned, world.supabase.jwt_secret()] {
        assert!(!logged.contains(secret), "{secret} is in the log");
    }
    // Many that are wrong do not keep out who has the right one.
    for _ in 0..30 {
        let (status, _) = service.call("GET", "/api/sessions/u1", "", Some("wrong")).await;
        assert!([401, 429].contains(&status), "{status}");
    }
    service.ok("GET", "/api/sessions/u1", "", Some("the-token-of-this-api")).await;
    unmoved(&world, &service).await;
}
