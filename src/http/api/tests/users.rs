//! Two users of one project: each has their own sessions, and nothing of the other's exists for them.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::super::*;
use super::fakes::runner::connection;
use super::fakes::{Sidecar, World, problem};
use crate::config::{ApiSettings, AuthSettings, KeySource, Secret};
use crate::host::Real;
use crate::http::auth::testing::{Project, claims, ec_jwk, rsa_jwk, token, users_of};
use crate::runner::port::State;

const OPERATOR: &str = "the-token-of-this-api";

async fn world() -> (World, Arc<Project>) {
    let project = Arc::new(Project::default());
    project.list(&[rsa_jwk("r"), ec_jwk("e")]);
    let url = project.start().await;
    let auth = AuthSettings::Guarded {
        token: Some((Secret::new(OPERATOR), KeySource::Flag)),
        users: Some(users_of(&url, true, false)),
    };
    let settings = ApiSettings { listen: None, auth, max_sessions_per_user: 3 };
    let auth = Auth::new(&settings, Arc::new(Real)).unwrap();
    let sidecar = Sidecar::default().with("u1/s1", |_| ()).with("u2/s2", |_| ());
    let world = World::with(sidecar, |config| config.auth = auth);
    world.phone.put("u2/s2", connection(State::ScanQrCode));
    (world, project)
}

fn of(user: &str) -> String {
    token(Algorithm::ES256, Some("e"), &claims(user))
}

#[tokio::test]
async fn a_user_reaches_their_own_sessions_and_an_operator_all() {
    let (world, _project) = world().await;
    for (path, bearer) in [
        ("/api/sessions/u1", of("u1")),
        ("/api/whatsapp/status/u2/s2", of("u2")),
        ("/api/sessions/u1", token(Algorithm::RS256, Some("r"), &claims("u1"))),
        ("/api/sessions/u1", token(Algorithm::HS256, None, &claims("u1"))),
        ("/api/sessions/u1", OPERATOR.to_owned()),
        ("/api/sessions/u2", OPERATOR.to_owned()),
    ] {
        let (status, value) = world.call_as("GET", path, "", Some(&bearer)).await;
        assert_eq!(status, 200, "{path} {value}");
    }
}

#[tokio::test]
async fn a_users_token_on_anothers_path_finds_nothing_at_all() {
    let (world, _project) = world().await;
    let document = world.ok("GET", "/openapi.json", "").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.contains("{user}") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            // Another user each time: how often one may call is tested on its own.
            let bearer = of(&format!("u1-{method}-{}", path.len()));
            let theirs = path.replace("{user}", "u2").replace("{session}", "s2");
            let nobodys = path.replace("{user}", "nobody").replace("{session}", "s2");
            let (status, value) = world.call_as(&method, &theirs, "", Some(&bearer)).await;
            assert_eq!(problem(status, &value), (404, "not_found".to_owned()), "{method} {theirs}");
            let same = world.call_as(&method, &nobodys, "", Some(&bearer)).await;
            assert_eq!(same, (status, value), "{method} {path}: whether there is a user does not show");
        }
    }
    assert!(world.phone.asked().is_empty() && world.sidecar.asked().is_empty());
}

#[tokio::test]
async fn tokens_that_do_not_count_are_401_on_every_path() {
    let (world, _project) = world().await;
    let with = |claim: &str, value: Value| {
        let mut claims = claims("u1");
        claims[claim] = value;
        token(Algorithm::ES256, Some("e"), &claims)
    };
    for (why, bearer) in [
        ("expired", with("exp", json!(1_000_000_000))),
        ("no end", with("exp", Value::Null)),
        ("wrong audience", with("aud", json!("other"))),
        ("anon", with("role", json!("anon"))),
        ("service_role", with("role", json!("service_role"))),
        ("unknown key", token(Algorithm::RS256, Some("unknown"), &claims("u1"))),
        ("no token", "not-a-token".to_owned()),
    ] {
        let (status, value) = world.call_as("GET", "/api/sessions/u1", "", Some(&bearer)).await;
        assert_eq!(problem(status, &value), (401, "unauthorized".to_owned()), "{why}");
        assert!(!value.to_string().contains(&bearer), "{why}: a token is never repeated");
    }
    let (status, value) = world.call("GET", "/api/whatsapp/status/u1", "").await;
    assert_eq!(problem(status, &value), (401, "unauthorized".to_owned()));
}

#[tokio::test]
async fn a_project_that_does_not_answer_is_503_and_the_operator_is_let_in() {
    let (world, project) = world().await;
    project.keys.lock().unwrap().take();
    let (status, value) = world.call_as("GET", "/api/sessions/u1", "", Some(&of("u1"))).await;
    assert_eq!(problem(status, &value), (503, "auth_unavailable".to_owned()));
    assert_eq!(world.call_as("GET", "/api/sessions/u1", "", Some(OPERATOR)).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_ends_with_the_token_that_opened_it() {
    use futures_util::StreamExt as _;
    // By secret: no socket is waited for while time stands still.
    let auth =
        AuthSettings::Guarded { token: None, users: Some(users_of("http://127.0.0.1:9", true, false)) };
    let settings = ApiSettings { listen: None, auth, max_sessions_per_user: 3 };
    let auth = Auth::new(&settings, Arc::new(Real)).unwrap();
    let world = World::with(Sidecar::default().with("u1/s1", |_| ()), |config| config.auth = auth);
    let mut short = claims("u1");
    short["exp"] = json!(Real.now().as_second() + 600);
    let bearer = format!("Bearer {}", token(Algorithm::HS256, None, &short));
    let request = axum::http::Request::get("/api/whatsapp/events/u1").header("authorization", bearer);
    let response = world.ask(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let begun = tokio::time::Instant::now();
    let mut body = response.into_body().into_data_stream();
    let rest = async { while body.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(700), rest).await.expect("the stream ends");
    assert!(begun.elapsed() > Duration::from_secs(590), "{:?}", begun.elapsed());
}
