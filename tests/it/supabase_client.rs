//! The client on the wire, against a server that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use session_sidecar::host::Real;
use session_sidecar::session::Scope;
use session_sidecar::store::{Kind, Page, Policy, Put, Store, StoreError, read, stack};
use session_sidecar::supabase::{
    Credential, CredentialSource, Endpoint, Reading, Settings, Supabase, Timeouts, Wanted, mint,
};

use super::support::scripted::{Scripted, Seen, Step, answer, json, read_request, serve, with};

const BUCKET: &str =
    r#"{"id":"b","name":"b","public":false,"file_size_limit":null,"allowed_mime_types":null}"#;
const DENIED: &str =
    r#"{"statusCode":"403","error":"Unauthorized","message":"Invalid Compact JWS","code":"AccessDenied"}"#;
const KEY: &str = "sb_secret_first";

fn settings(url: &str) -> Settings {
    Settings {
        endpoint: Endpoint::parse(url).unwrap(),
        credential: CredentialSource::fixed(Credential::parse(KEY, jiff::Timestamp::UNIX_EPOCH).unwrap()),
        bucket: "b".into(),
        ca_file: None,
        timeouts: Timeouts::default(),
        host: Arc::new(Real),
    }
}

fn connect(server: &Scripted) -> Supabase {
    Supabase::new(settings(&server.url)).unwrap()
}

/// Answers the probe for the base, and the rest as the script says.
async fn storage(script: impl Fn(usize, &Seen) -> Step + Send + Sync + 'static) -> Scripted {
    serve(move |n, request| if n == 0 { json(200, BUCKET) } else { script(n, request) }).await
}

async fn failure(store: &Supabase) -> StoreError {
    read(store, "k").await.expect_err("this ought to fail")
}

#[tokio::test]
async fn every_request_carries_the_key_and_asks_for_bytes_as_they_are() {
    let server = storage(|_, request| match request.route() {
        "POST /storage/v1/object/b/.history/u%40x/s/1" => json(200, r#"{"Key":"b/k","Id":"1"}"#),
        "GET /storage/v1/object/authenticated/b/k" => with(200, "", "body"),
        "POST /storage/v1/object/list-v2/b" => with(
            200,
            "date: Tue, 24 Nov 2026 15:02:51 GMT\r\n",
            r#"{"hasNext":false,"folders":[],"objects":[]}"#,
        ),
        other => json(400, &format!(r#"{{"statusCode":"400","message":"{other}"}}"#)),
    })
    .await;
    let supabase = connect(&server);
    let how = Put {
        content_type: "application/zstd".into(),
        overwrite: true,
        metadata: Some(serde_json::json!({ "head": "x" })),
    };
    supabase.put(".history/u@x/s/1", Bytes::from_static(b"bytes"), &how).await.unwrap();
    assert_eq!(read(&supabase, "k").await.unwrap(), b"body");
    assert_eq!(read(&supabase, "k").await.unwrap(), b"body");
    let listing = supabase.list(&Page::default()).await.unwrap();
    assert_eq!(listing.date.unwrap().to_string(), "2026-11-24T15:02:51Z");

    let seen = server.seen();
    assert_eq!(seen[0].route(), "GET /storage/v1/bucket/b", "one probe for the base");
    assert_eq!(seen.len(), 5);
    for request in &seen {
        assert_eq!(request.header("apikey"), KEY);
        assert_eq!(request.header("authorization"), format!("Bearer {KEY}"));
        assert_eq!(request.header("accept-encoding"), "identity");
        assert_eq!(request.header("user-agent"), concat!("session-sidecar/", env!("CARGO_PKG_VERSION")));
    }
    let upload = &seen[1];
    assert_eq!((upload.header("x-upsert"), upload.header("cache-control")), ("true", "no-store"));
    assert_eq!(upload.header("content-type"), "application/zstd");
    assert_eq!((upload.header("x-metadata"), upload.body.as_str()), ("eyJoZWFkIjoieCJ9", "bytes"));
    assert_ne!(seen[2].head, seen[3].head, "each read has a query of its own");
    let asked: serde_json::Value = serde_json::from_str(&seen[4].body).unwrap();
    assert_eq!(asked["sortBy"], serde_json::json!({ "column": "name", "order": "asc" }));
}

#[tokio::test]
async fn a_cut_download_is_transient_and_a_retry_reads_it_whole() {
    let server = storage(|n, _| match n {
        1 => Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234".into()),
        2 => Step::Reset,
        3 => Step::Send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n".into()),
        _ => with(200, "", "0123456789"),
    })
    .await;
    let supabase = connect(&server);
    for _ in 0..3 {
        let error = failure(&supabase).await;
        assert_eq!(error.kind, Kind::Transient, "{error}");
        assert!(!error.to_string().contains("?v="), "{error}");
    }
    assert_eq!(read(&supabase, "k").await.unwrap(), b"0123456789");

    let server = storage(|n, _| match n {
        1 | 2 => Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234".into()),
        _ => with(200, "", "0123456789"),
    })
    .await;
    let (store, metrics) = stack(connect(&server), Policy::default(), 4);
    assert_eq!(read(&*store, "k").await.unwrap(), b"0123456789");
    assert_eq!(metrics.started(), 3);
}

#[tokio::test]
async fn retry_after_is_read_as_seconds_and_as_a_date() {
    let server = storage(|n, _| {
        let after = if n == 1 { "7" } else { "Tue, 24 Nov 2026 15:03:00 GMT" };
        let headers = format!("date: Tue, 24 Nov 2026 15:02:51 GMT\r\nretry-after: {after}\r\n");
        with(429, &headers, r#"{"statusCode":"429","error":"too_many_connections","code":"SlowDown"}"#)
    })
    .await;
    let supabase = connect(&server);
    for seconds in [7, 9] {
        let error = failure(&supabase).await;
        assert_eq!((error.kind, error.retry_after), (Kind::Throttled, Some(Duration::from_secs(seconds))));
    }
}

#[tokio::test]
async fn a_token_goes_through_the_gateway_with_the_anon_key_also_once_it_was_renewed() {
    let server = serve(|count, _| if count == 0 { json(400, DENIED) } else { json(200, BUCKET) }).await;
    let token = |user: &str| {
        let now = jiff::Timestamp::now();
        let scope = Scope::User(user.to_owned());
        mint(&"s".repeat(32), &scope, Duration::from_hours(24), now).unwrap().token
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let (old, new) = (token("old"), token("new"));
    std::fs::write(&file, &old).unwrap();
    let reading = Reading { wanted: Wanted::Token, gateway: Some("sb_publishable_x".to_owned()) };
    let credential = CredentialSource::file(&file, reading, jiff::Timestamp::now()).unwrap();
    let supabase = Supabase::new(Settings { credential, ..settings(&server.url) }).unwrap();
    std::fs::write(&file, &new).unwrap();
    supabase.bucket().await.unwrap();
    for (request, token) in server.seen().iter().zip([old, new]) {
        assert_eq!(request.header("apikey"), "sb_publishable_x");
        assert_eq!(request.header("authorization"), format!("Bearer {token}"));
    }
}

#[tokio::test]
async fn a_refused_key_is_renewed_from_its_file_once() {
    let server = serve(|_, request| match request.header("apikey") {
        "sb_secret_second" => json(200, BUCKET),
        _ => json(400, DENIED),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let credential = CredentialSource::file(&file, Reading::KEY, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let supabase = Supabase::new(Settings { credential, ..settings(&server.url) }).unwrap();
    let error = supabase.bucket().await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.message.contains("Invalid Compact JWS"));
    assert_eq!(server.seen().len(), 1, "the probe is the call, and is not repeated");

    std::fs::write(&file, "sb_secret_second\n").unwrap();
    supabase.bucket().await.unwrap();
    supabase.bucket().await.unwrap();
    let keys: Vec<String> = server.seen().iter().map(|request| request.header("apikey").to_owned()).collect();
    assert_eq!(keys[1..], [KEY, "sb_secret_second", "sb_secret_second"]);
}

#[tokio::test]
async fn a_page_where_storage_should_be_is_named_with_its_url() {
    let page = || with(200, "content-type: text/html\r\n", "<!doctype html><title>Welcome</title>");
    let server = serve(move |_, _| page()).await;
    let supabase = connect(&server);
    for error in [
        supabase.bucket().await.unwrap_err(),
        supabase.list(&Page::default()).await.unwrap_err(),
        supabase
            .put("k", Bytes::new(), &Put { content_type: "text/plain".into(), ..Put::default() })
            .await
            .unwrap_err(),
        supabase.rename("a", "b").await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Protocol, "{error}");
        assert!(error.message.contains(&server.url), "{error}");
    }
    let server = serve(|_, _| json(404, r#"{"message":"no Route matched with those values"}"#)).await;
    let error = connect(&server).bucket().await.unwrap_err();
    assert_eq!(error.kind, Kind::Protocol);
    assert!(error.message.contains(&server.url), "{error}");
}

#[tokio::test]
async fn a_storage_server_without_a_gateway_is_found_by_its_unknown_route() {
    let server = serve(|_, request| match request.route() {
        "GET /bucket/b" => json(200, BUCKET),
        route => json(
            404,
            &format!(r#"{{"statusCode":"404","error":"Not Found","message":"Route {} not found","code":"InvalidRequest"}}"#, route.replace(' ', ":")),
        ),
    })
    .await;
    let supabase = connect(&server);
    supabase.bucket().await.unwrap();
    supabase.bucket().await.unwrap();
    let routes: Vec<String> = server.seen().iter().map(|request| request.route().to_owned()).collect();
    assert_eq!(routes, ["GET /storage/v1/bucket/b", "GET /bucket/b", "GET /bucket/b"]);
}

#[tokio::test]
async fn an_outage_during_the_probe_settles_nothing() {
    let server = serve(|n, _| if n == 0 { with(502, "", "<html>") } else { json(200, BUCKET) }).await;
    let supabase = connect(&server);
    assert_eq!(supabase.bucket().await.unwrap_err().kind, Kind::Transient);
    supabase.bucket().await.unwrap();
}

#[tokio::test]
async fn every_silence_ends() {
    // The connect timeout counts towards the first byte.
    let timeouts = Timeouts {
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(200),
        idle: Duration::from_millis(200),
        slowest: 1 << 20,
    };
    let server = storage(|n, _| match n {
        1 => Step::Stall("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234".into()),
        _ => Step::Stall(String::new()),
    })
    .await;
    let supabase = Supabase::new(Settings { timeouts, ..settings(&server.url) }).unwrap();
    for word in ["stalled", "did not answer"] {
        let error = failure(&supabase).await;
        assert_eq!(error.kind, Kind::Transient);
        assert!(error.message.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_closed_port_is_an_outage_that_says_so() {
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = Supabase::new(settings(&url)).unwrap().bucket().await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains(&format!("no connection to {url}")), "{error}");
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn what_something_in_between_did_to_an_answer_is_refused() {
    let server = storage(|n, _| match n {
        1 => with(200, "content-encoding: gzip\r\n", "\u{1f}zipped"),
        2 => with(302, "location: http://127.0.0.1:1/login\r\n", ""),
        _ => with(206, "content-range: bytes 0-3/10\r\n", "0123"),
    })
    .await;
    let supabase = connect(&server);
    for word in ["compressed", "redirects", "206"] {
        let error = failure(&supabase).await;
        assert_eq!(error.kind, Kind::Protocol, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_a_server_repeats_is_not_passed_on() {
    let server = storage(|_, request| {
        let body =
            format!(r#"{{"statusCode":"500","message":"bad header {}"}}"#, request.header("authorization"));
        json(500, &body)
    })
    .await;
    let supabase = connect(&server);
    let error = failure(&supabase).await;
    assert!(error.message.contains("bad header Bearer [key]"), "{error}");
    assert!(!format!("{supabase:?}").contains(KEY));
}

#[tokio::test]
async fn a_key_of_another_project_is_recognised() {
    let claims = "eyJyb2xlIjoic2VydmljZV9yb2xlIiwicmVmIjoiYWFhYWFhYWFhYWFhYWFhYWFhYWEifQ";
    let key = Credential::parse(&format!("e30.{claims}.c2ln"), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let other = settings("https://bbbbbbbbbbbbbbbbbbbb.supabase.co");
    let error = Supabase::new(Settings { credential: CredentialSource::fixed(key), ..other }).unwrap_err();
    assert!(error.to_string().contains("aaaaaaaaaaaaaaaaaaaa"), "{error}");
}

mod proxies {
    use super::*;

    const ASKED: &str = "SIDECAR_TEST_ASKED";

    /// Not a test of its own: what a process does whose environment names a proxy.
    #[tokio::test]
    async fn asks_for_the_bucket_when_told_to() {
        let Ok(url) = std::env::var(ASKED) else { return };
        Supabase::new(settings(&url)).unwrap().bucket().await.unwrap();
    }

    async fn ask(url: &str, proxy: &str) -> bool {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "supabase_client::proxies::asks_for_the_bucket_when_told_to"]);
        command.env(ASKED, url).env("http_proxy", proxy).env_remove("no_proxy").env_remove("NO_PROXY");
        command.output().await.unwrap().status.success()
    }

    #[tokio::test]
    async fn the_environments_proxy_is_asked_but_never_for_this_machine() {
        let server = serve(|_, _| json(200, BUCKET)).await;
        assert!(ask("http://project.invalid", &server.url).await);
        assert_eq!(server.seen()[0].route(), "GET http://project.invalid/storage/v1/bucket/b");

        let direct = serve(|_, _| json(200, BUCKET)).await;
        assert!(ask(&direct.url, &server.url).await);
        assert_eq!(direct.seen().len(), 1);
        assert_eq!(server.seen().len(), 1, "the proxy saw only the first process");
    }
}

mod tls {
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
    }

    /// Answers every request with the bucket.
    async fn serve_tls() -> String {
        let chain = CertificateDer::pem_file_iter(fixture("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                if read_request(&mut stream).await.is_ok_and(|request| request.is_some()) {
                    answer(&mut stream, &json(200, BUCKET)).await.ok();
                }
            }
        });
        url
    }

    #[tokio::test]
    async fn an_authority_of_ones_own_is_trusted_besides_the_systems() {
        let url = serve_tls().await;
        let ca_file = Some(fixture("ca.pem"));
        let supabase = Supabase::new(Settings { ca_file, ..settings(&url) }).unwrap();
        supabase.bucket().await.unwrap();
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_an_outage_that_names_the_flag() {
        let url = serve_tls().await;
        // An authority that did not sign: a machine without any has no client to try.
        let ca_file = Some(fixture("server.pem"));
        let supabase = Supabase::new(Settings { ca_file, ..settings(&url) }).unwrap();
        let error = supabase.bucket().await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient);
        assert!(error.message.contains("--ca-file"), "{error}");
    }

    #[test]
    fn an_unusable_authority_file_is_named() {
        for (name, word) in [("missing.pem", "cannot be read"), ("server.key", "holds no certificate")] {
            let ca_file = Some(fixture(name));
            let error = Supabase::new(Settings { ca_file, ..settings("https://127.0.0.1:1") }).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(word), "{text}");
        }
    }
}
