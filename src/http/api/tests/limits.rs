use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;

use super::super::*;
use super::fakes::{Sidecar, World, config, problem, read};
use crate::config::{ApiSettings, AuthSettings, KeySource, Secret};
use crate::error::Code;
use crate::host::Real;
use crate::sync::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionStatus,
    StatusReport, SyncReport,
};

fn get(path: &str) -> axum::http::request::Builder {
    Request::builder().uri(path)
}

async fn refused(world: &World, request: Request<Body>) -> (u16, String) {
    let (status, value) = read(world.ask(request).await).await;
    problem(status, &value)
}

fn guarded() -> World {
    let token = Some((Secret::new("the-token-of-this-api"), KeySource::Variable("API_TOKEN")));
    let auth = AuthSettings::Guarded { token, users: None };
    let settings = ApiSettings { listen: None, auth, max_sessions_per_user: 3 };
    let auth = Auth::new(&settings, Arc::new(Real)).unwrap();
    World::with(Sidecar::default().with("u1/s1", |_| ()), |config| config.auth = auth)
}

#[tokio::test]
async fn only_the_token_opens_the_api_and_only_in_a_header() {
    let world = guarded();
    let none = Body::empty;
    let path = "/api/sessions/u1";
    let with = |name: &str, value: &str| get(path).header(name, value).body(none()).unwrap();
    assert_eq!(world.ask(with("authorization", "Bearer the-token-of-this-api")).await.status(), 200);
    assert_eq!(world.ask(with("x-api-key", "the-token-of-this-api")).await.status(), 200);
    let refused_401 = (401, "unauthorized".to_owned());
    for bad in [
        with("authorization", "Bearer the-token-of-this-ap"),
        with("authorization", "Basic dGhlLXRva2VuLW9mLXRoaXMtYXBp"),
        with("cookie", "token=the-token-of-this-api"),
        get("/api/sessions/u1?token=the-token-of-this-api").body(none()).unwrap(),
        get("/api/sessions/u1?apikey=the-token-of-this-api").body(none()).unwrap(),
        get(path).body(none()).unwrap(),
    ] {
        assert_eq!(refused(&world, bad).await, refused_401);
    }
    let response = world.ask(get(path).body(none()).unwrap()).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(response.headers()["cache-control"], "no-store");
    for open in ["/api/health", "/openapi.json", "/healthz", "/", "/page.js"] {
        assert_eq!(world.ask(get(open).body(none()).unwrap()).await.status(), 200, "{open}");
    }
}

#[tokio::test]
async fn whoever_guesses_tokens_is_told_to_wait_and_whoever_knows_one_is_not() {
    let world = guarded();
    let mut codes = Vec::new();
    for _ in 0..30 {
        let bad = get("/api/sessions/u1").header("x-api-key", "guess").body(Body::empty()).unwrap();
        codes.push(refused(&world, bad).await.0);
    }
    assert_eq!((codes[0], codes[29]), (401, 429), "{codes:?}");
    let good =
        get("/api/sessions/u1").header("x-api-key", "the-token-of-this-api").body(Body::empty()).unwrap();
    assert_eq!(world.ask(good).await.status(), 200);
}

#[tokio::test]
async fn a_flood_of_one_credential_is_told_when_to_come_again() {
    let world = guarded();
    let mut waits = 0;
    for _ in 0..100 {
        let call =
            get("/api/sessions/u1").header("x-api-key", "the-token-of-this-api").body(Body::empty()).unwrap();
        let response = world.ask(call).await;
        if response.status() == 429 {
            waits += 1;
            assert_eq!(response.headers()["retry-after"], "1");
        }
    }
    assert!((1..=40).contains(&waits), "{waits}");
}

#[tokio::test]
async fn another_origin_may_call_with_its_token_and_never_with_a_cookie() {
    let world = guarded();
    let preflight = Request::options("/api/sessions/u1/s1/sync")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .body(Body::empty())
        .unwrap();
    let response = world.ask(preflight).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("DELETE"));
    assert!(!headers.contains_key("access-control-allow-credentials"));
    let call =
        get("/api/sessions/u1").header("origin", "https://app.example.com").body(Body::empty()).unwrap();
    let response = world.ask(call).await;
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "*",
        "a page reads also why it was refused"
    );
}

#[tokio::test]
async fn an_open_loopback_answers_this_machine_and_no_page_of_a_stranger() {
    let world = World::with(Sidecar::default().with("u1/s1", |_| ()), |config| config.auth = Auth::Local);
    let call = |host: &str, origin: Option<&str>| {
        let mut request = get("/api/sessions/u1").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(world.ask(call("127.0.0.1:3000", None)).await.status(), 200);
    let own = world.ask(call("localhost:3000", Some("http://localhost:5173"))).await;
    assert_eq!(
        (own.status().as_u16(), &own.headers()["access-control-allow-origin"]),
        (200, &"http://localhost:5173".parse().unwrap())
    );
    for (host, origin) in [("127.0.0.1:3000", Some("https://evil.example")), ("rebound.evil.example", None)] {
        let response = world.ask(call(host, origin)).await;
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{host}");
        let (status, value) = read(response).await;
        assert_eq!(problem(status, &value), (403, "foreign_origin".to_owned()));
    }
}

#[tokio::test]
async fn what_is_too_large_or_nowhere_is_said_in_the_same_shape() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()));
    let large = format!(r#"{{"at":"{}"}}"#, "x".repeat(BODY_LIMIT));
    assert_eq!(
        world.refused("POST", "/api/sessions/u1/s1/restore", &large).await,
        (413, "too_large".to_owned())
    );
    let header = get("/api/sessions/u1").header("x-large", "x".repeat(40_000)).body(Body::empty()).unwrap();
    assert_eq!(refused(&world, header).await, (431, "headers_too_large".to_owned()));
    for nowhere in ["/api", "/api/nothing", "/nothing", "/api/sessions", "/api/sessions/u1/s1/s2/s3"] {
        assert_eq!(world.refused("GET", nowhere, "").await, (404, "not_found".to_owned()), "{nowhere}");
    }
    for (method, path) in
        [("PUT", "/api/sessions/u1"), ("GET", "/api/sessions/u1/s1/sync"), ("POST", "/api/health")]
    {
        let wrong = world.refused(method, path, "").await;
        assert_eq!(wrong, (405, "method_not_allowed".to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_bug_in_a_handler_is_an_answer_that_gives_nothing_away() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()));
    *world.sidecar.panics.lock().unwrap() = true;
    for (method, path) in [("GET", "/api/sessions/u1"), ("POST", "/api/sessions/u1/s1/sync")] {
        let (status, value) = world.call(method, path, "").await;
        assert_eq!(problem(status, &value), (500, "internal".to_owned()));
        assert!(!value.to_string().contains("a bug: a"), "{value}");
    }
}

/// A process that never answers.
struct Stuck;

#[async_trait::async_trait]
impl Control for Stuck {
    async fn status(&self) -> Result<StatusReport, Error> {
        std::future::pending().await
    }

    async fn sync(&self, _: Option<SessionKey>, _: Duration) -> Result<SyncReport, Error> {
        std::future::pending().await
    }

    async fn logout(&self, _: &SessionKey) -> Result<MarkReport, Error> {
        std::future::pending().await
    }

    async fn accept_identity(&self, _: &SessionKey) -> Result<MarkReport, Error> {
        std::future::pending().await
    }

    async fn history(&self, _: &SessionKey) -> Result<HistoryReport, Error> {
        std::future::pending().await
    }

    async fn sessions(&self, _: &str) -> Result<Vec<SessionEntry>, Error> {
        std::future::pending().await
    }

    async fn open(&self, _: &SessionKey) -> Result<SessionStatus, Error> {
        std::future::pending().await
    }

    async fn restore(&self, _: &SessionKey, _: Option<String>) -> Result<RestoreReport, Error> {
        std::future::pending().await
    }

    async fn delete(&self, _: &SessionKey, _: bool) -> Result<DeleteReport, Error> {
        std::future::pending().await
    }

    async fn give_way(&self, _: &SessionKey) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn note(&self, _: &SessionKey, _: BotFacts) -> Result<(), Error> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_ever() {
    use tower::ServiceExt as _;
    let (_health, config) = config();
    let router = api(
        Arc::new(Stuck),
        #[cfg(feature = "runner")]
        None,
        config,
    );
    for (method, path, seconds) in
        [("GET", "/api/sessions/u1/s1/history", 30), ("POST", "/api/sessions/u1/s1/sync", 70)]
    {
        let begun = tokio::time::Instant::now();
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (status, value) = read(router.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(problem(status, &value), (504, "timeout".to_owned()));
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_files() {
    let world = World::new(Sidecar::default());
    let response = world.ask(get("/").body(Body::empty()).unwrap()).await;
    let headers = response.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
}

#[tokio::test]
async fn the_listener_tells_the_api_who_calls_and_stops_with_the_process() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = guarded();
    let listener = crate::http::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(crate::http::serve::bind(address).unwrap_err().code(), Code::AddressInUse);
    let server = tokio::spawn(crate::http::serve::serve(listener, world.router.clone(), world.stop.clone()));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /api/sessions/u1 HTTP/1.1\r\nhost: x\r\nx-api-key: the-token-of-this-api\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    world.stop.cancel();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
