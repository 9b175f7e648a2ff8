use std::sync::Arc;

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::super::testing::{
    Project, RSA_PUBLIC, SECRET, claims, ec_jwk, rsa_jwk, signed_with, token, users_of,
};
use super::*;

fn now() -> Timestamp {
    "2026-11-28T00:00:00Z".parse().unwrap()
}

/// Rotations are seen at once.
const EAGER: Pace = Pace { known: Duration::from_hours(1), unknown: Duration::ZERO };

async fn project(keys: &[Value]) -> (Arc<Project>, String) {
    let project = Arc::new(Project::default());
    project.list(keys);
    let url = project.start().await;
    (project, url)
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims("u1");
    claims[claim] = value;
    claims
}

#[tokio::test]
async fn a_token_counts_by_the_projects_public_keys() {
    let (project, url) = project(&[rsa_jwk("r"), ec_jwk("e")]).await;
    let users = Users::new(&users_of(&url, false, false)).unwrap();
    for good in
        [token(Algorithm::RS256, Some("r"), &claims("u1")), token(Algorithm::ES256, Some("e"), &claims("u1"))]
    {
        assert_eq!(users.verify(&good, now(), &|| true).await.unwrap().id, "u1");
    }
    assert_eq!(project.calls(), (1, 0), "one list serves all");
}

#[tokio::test]
async fn a_token_that_has_expired_or_is_for_something_else_is_refused() {
    let (_project, url) = project(&[rsa_jwk("r")]).await;
    let users = Users::new(&users_of(&url, true, true)).unwrap();
    for (claim, value) in [
        ("exp", json!(1_700_000_000)),
        ("exp", Value::Null),
        ("aud", json!("something-else")),
        ("role", json!("anon")),
        ("role", json!("service_role")),
        ("sub", Value::Null),
    ] {
        let claims = with(claim, value.clone());
        for bad in [token(Algorithm::RS256, Some("r"), &claims), token(Algorithm::HS256, None, &claims)] {
            let refused = users.verify(&bad, now(), &|| true).await;
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{claim} {value}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_is_the_keys_and_never_the_tokens() {
    let (_project, url) = project(&[rsa_jwk("r"), ec_jwk("e")]).await;
    let users = Users::new(&users_of(&url, true, false)).unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = |word: &str| format!("{}.{}.", part(&json!({"alg": word, "kid": "r"})), part(&claims("u1")));
    let public = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let rs512 = token(Algorithm::RS256, Some("r"), &claims("u1"));
    let relabelled = format!(
        "{}.{}",
        part(&json!({"alg": "RS512", "typ": "JWT", "kid": "r"})),
        rs512.split_once('.').unwrap().1
    );
    for bad in [
        none("none"),
        none("None"),
        none("NONE"),
        signed_with(Algorithm::HS256, Some("r"), &claims("u1"), &public),
        signed_with(Algorithm::HS256, None, &claims("u1"), &public),
        signed_with(Algorithm::HS512, None, &claims("u1"), &EncodingKey::from_secret(SECRET.as_bytes())),
        token(Algorithm::ES256, Some("r"), &claims("u1")),
        token(Algorithm::RS256, Some("e"), &claims("u1")),
        token(Algorithm::RS256, None, &claims("u1")),
        relabelled,
        "a.b.c".to_owned(),
        String::new(),
        "x".repeat(LONGEST_TOKEN + 1),
    ] {
        let refused = users.verify(&bad, now(), &|| true).await;
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{bad}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_counts_by_the_jwt_secret() {
    let (project, url) = project(&[]).await;
    let users = Users::new(&users_of(&url, true, true)).unwrap();
    let good = token(Algorithm::HS256, None, &claims("u1"));
    assert_eq!(users.verify(&good, now(), &|| true).await.unwrap().id, "u1");
    let forged = EncodingKey::from_secret(b"another secret of about that size");
    let forged = signed_with(Algorithm::HS256, None, &claims("u1"), &forged);
    assert_eq!(users.verify(&forged, now(), &|| true).await, Err(NOBODYS));
    assert_eq!(project.calls(), (0, 0), "where there is a secret nobody is asked");
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_withdrawn_one_counts_no_longer() {
    let (project, url) = project(&[rsa_jwk("old")]).await;
    let users = Users::paced(&users_of(&url, false, false), EAGER).unwrap();
    let old = token(Algorithm::RS256, Some("old"), &claims("u1"));
    let new = token(Algorithm::ES256, Some("new"), &claims("u1"));
    assert!(users.verify(&old, now(), &|| true).await.is_ok());
    assert_eq!(users.verify(&new, now(), &|| true).await, Err(NOBODYS));
    project.list(&[ec_jwk("new")]);
    assert!(users.verify(&new, now(), &|| true).await.is_ok());
    assert_eq!(users.verify(&old, now(), &|| true).await, Err(NOBODYS));
}

#[tokio::test]
async fn key_ids_that_are_made_up_do_not_make_us_ask_again_and_again() {
    let (project, url) = project(&[rsa_jwk("r")]).await;
    let users = Users::new(&users_of(&url, false, false)).unwrap();
    for kid in ["a", "b", "c", "d"] {
        let made_up = token(Algorithm::RS256, Some(kid), &claims("u1"));
        assert_eq!(users.verify(&made_up, now(), &|| true).await, Err(NOBODYS));
    }
    assert_eq!(project.calls(), (1, 0));
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_no_reason_to_call_a_token_bad() {
    let (project, url) = project(&[rsa_jwk("r")]).await;
    let keys = project.keys.lock().unwrap().take();
    let pace = Pace { known: Duration::ZERO, unknown: Duration::ZERO };
    let users = Users::paced(&users_of(&url, false, false), pace).unwrap();
    let good = token(Algorithm::RS256, Some("r"), &claims("u1"));
    assert_eq!(users.verify(&good, now(), &|| true).await, Err(Refusal::Unavailable));
    *project.keys.lock().unwrap() = keys;
    assert!(users.verify(&good, now(), &|| true).await.is_ok());
    // An outage signs nobody out.
    project.keys.lock().unwrap().take();
    assert!(users.verify(&good, now(), &|| true).await.is_ok());
}

#[tokio::test]
async fn without_key_or_secret_the_project_is_asked_once_a_minute_and_never_past_the_end() {
    let (project, url) = project(&[]).await;
    *project.user.lock().unwrap() = Some("u1".to_owned());
    let users = Users::new(&users_of(&url, false, true)).unwrap();
    let good = token(Algorithm::HS256, None, &with("exp", json!(now().as_second() + 30)));
    for _ in 0..3 {
        assert_eq!(users.verify(&good, now(), &|| true).await.unwrap().id, "u1");
    }
    assert_eq!(project.calls().1, 1);
    let later = now() + jiff::SignedDuration::from_secs(31);
    assert!(matches!(users.verify(&good, later, &|| true).await, Err(Refusal::Invalid(_))));

    // Whose it is must be who it says; and what is refused once is not asked again.
    let other = token(Algorithm::HS256, None, &claims("u2"));
    for _ in 0..3 {
        assert_eq!(users.verify(&other, now(), &|| true).await, Err(NOBODYS));
    }
    assert_eq!(project.calls().1, 2);
    let unknown = token(Algorithm::HS256, None, &claims("u3"));
    assert_eq!(users.verify(&unknown, now(), &|| false).await, Err(Refusal::NotAsked));
    assert_eq!(project.calls().1, 2);
}
