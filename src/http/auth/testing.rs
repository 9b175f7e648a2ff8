//! A project's auth server and its tokens. The keys were made for these tests and open nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::config::{KeySource, Secret, UserTokens};

/// A private key for RS256: PKCS #1 as base64.
pub const RSA: &str = concat!(
    "MIIEowIBAAKCAQEAlJaZSkEKavybH6fsDEFU/ZkNUsGyxER41FcWR5Z5HMVx3pl5RZN3J2tJ5rh/nO9FcYweGUT4MprawDF+DJiu",
    "2ESfyGN+2V8iqBtOpzYiQ3cgalV2ty49yXoLpvHoJVnTXTsp1qEPPWa9fnjreHOajejkNGSE9A2gvzjTlT8oIJO2p4+9crCwPS1x",
    "XD650ojL347WW21YUO2tggZ3gjlVGSnRHn/Qzbjiv+kfmIiDfJboIaalWfoNdjoNsozPCxzqGh4VsYmIDyv9sanb9vxSkDgF8WvT",
    "eFQGb+8P4qYJiGQ/biKvqWpUY5ZocTNjq2rpngIkSzltPx+IpW5vcTYmSwIDAQABAoIBADSTzY4e0abl16Yt7zKu83oA7Fv6Ol2E",
    "tRS99B5EunpZy18vA2CBO8pxBmdjpZRMflAdepEKfKC7duhHGwkuBcB1F+z6d+pG5aaCcyRr3VfuEURPFYDgFfDzBKiANNrym/4D",
    "b1yJBTF+51KXSwsGLQxF+monn3wUTmsbmpLXFEXiNMTR3Sdn2zeX5UkZSCMeKHJprfk1r9Z0iGnCh3YIfMrk9JhV+KsrxU4jVuJ8",
    "C7HkB14po3G+qDpu+YUgvki7K3sP8D1ZHxJXRnDgG/fj9mkq+5HBU2gxOmiQicej03CTwy80rQq6NNm7EViHKG1aNPnE3hPFxwZQ",
    "yF60s1pSvdECgYEAyg0/XSJANmxI/oOOGgYPV1GpirkWQnl77V23+ZMujw7Zee2d/BRR3AbOWuxMuodZ8gU8pejkNz6Dy0WOazxO",
    "V/1SQbkNny3METKp72jjVAOrBMkq7L3jmm+uKEU+t9qowv/ZUEK770uxcj6KnCJrlm3yr1iP/ne3T614TKw4DM8CgYEAvEL8kQyr",
    "Wi8AK2O2PZbXsOkZukJ1Ax4RvmT2zgc9nHksNCkEFe5zwqJP/PmQbpHBaxpONJHCpTajjzxUb6t3HZRm2UcAjXWVbvTIRuZ03AzK",
    "EMIyZ6wDz6phPvSS49sXIu+fuAfcyVSRI9EFzr/KBhytXSPmAd1gmQ9PBex3xcUCgYEAroYC1U9gZ6Hg6vZ3J8NUPPgsmcaFk6Wb",
    "hcwNvWWEMc2By++TJsnma0b1t1Okcvm2l3YujKA9f/pfnJTYD4hno1kMU/ij63qDadd5MXJH6anBbsDUcukST7NnmyE0q1oTq1uT",
    "OeBqtKeM/kFHONYCWE1f8lVtC0Ac9pW/83pOb8ECgYB7M/dn0Xu+DC43Nw0Hp1TGgPYGUAGVpbME/7wIvvJSGXaVOBZlZ+S4BlME",
    "gipEQfzrY460loNkbaqCTYAQiIzufbUFEpNJAB9oOqdqxtzJOVFvwDcOY6Mm3yC++325wiKVCW5kGDkkRMSrRNphIGBMua2224xl",
    "wgO6hys2/Dax5QKBgD/wk+/xozPlxTOU20N9MR5q7vUu9erGo/HXglapCq4Rn25vFV1LLXfj0rKVWbazJ2avkzYwTJtQvJXbdgc9",
    "lS716r1u4OsTmzfBavKqyJmjEP2JiP2Zw3BNS+x0l5V0yll/fF3XervK7/p6yk8MlRT7nomchKICXCUkK1MC6RTu",
);
/// The modulus of its public half.
pub const RSA_MODULUS: &str = concat!(
    "lJaZSkEKavybH6fsDEFU_ZkNUsGyxER41FcWR5Z5HMVx3pl5RZN3J2tJ5rh_nO9FcYweGUT4MprawDF-DJiu2ESfyGN-",
    "2V8iqBtOpzYiQ3cgalV2ty49yXoLpvHoJVnTXTsp1qEPPWa9fnjreHOajejkNGSE9A2gvzjTlT8oIJO2p4-",
    "9crCwPS1xXD650ojL347WW21YUO2tggZ3gjlVGSnRHn_Qzbjiv-kfmIiDfJboIaalWfoNdjoNsozPCxzqGh4VsYmIDyv9sanb9vx",
    "SkDgF8WvTeFQGb-8P4qYJiGQ_biKvqWpUY5ZocTNjq2rpngIkSzltPx-IpW5vcTYmSw",
);
/// A private key for ES256: PKCS #8 as base64.
pub const EC: &str = concat!(
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg76UiAM7fFYLINHSnJobKpNlSploSjRAeC8iuAIhXq0GhRANCAASS",
    "INQeIvwmq72Fvwpw4yGexwa73+mFRJ1EbaU6hf++Bqv89byMsLXHxkVlxKZdOHupPR4HRBQ9Ec/vrWfItDXm",
);
/// The public half of [`RSA`] as everybody can download it.
pub const RSA_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlJaZSkEKavybH6fsDEFU\n\
/ZkNUsGyxER41FcWR5Z5HMVx3pl5RZN3J2tJ5rh/nO9FcYweGUT4MprawDF+DJiu\n\
2ESfyGN+2V8iqBtOpzYiQ3cgalV2ty49yXoLpvHoJVnTXTsp1qEPPWa9fnjreHOa\n\
jejkNGSE9A2gvzjTlT8oIJO2p4+9crCwPS1xXD650ojL347WW21YUO2tggZ3gjlV\n\
GSnRHn/Qzbjiv+kfmIiDfJboIaalWfoNdjoNsozPCxzqGh4VsYmIDyv9sanb9vxS\n\
kDgF8WvTeFQGb+8P4qYJiGQ/biKvqWpUY5ZocTNjq2rpngIkSzltPx+IpW5vcTYm\n\
SwIDAQAB\n\
-----END PUBLIC KEY-----\n\
";

/// The project's JWT secret.
pub const SECRET: &str = "a-jwt-secret-of-thirty-two-bytes!";

/// The public half of [`RSA`] as the project lists it.
pub fn rsa_jwk(kid: &str) -> Value {
    json!({"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "e": "AQAB", "n": RSA_MODULUS})
}

/// The public half of [`EC`] as the project lists it.
pub fn ec_jwk(kid: &str) -> Value {
    json!({
        "kty": "EC", "kid": kid, "alg": "ES256", "crv": "P-256", "use": "sig", "key_ops": ["verify"],
        "x": "kiDUHiL8Jqu9hb8KcOMhnscGu9_phUSdRG2lOoX_vgY",
        "y": "q_z1vIywtcfGRWXEpl04e6k9HgdEFD0Rz--tZ8i0NeY",
    })
}

/// What a signed-in user's token says.
pub fn claims(user: &str) -> Value {
    json!({"sub": user, "role": "authenticated", "aud": "authenticated", "exp": 4_102_444_800_u64})
}

/// A token that is signed with this key.
pub fn token(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let der = |text: &str| STANDARD.decode(text).unwrap();
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_der(&der(RSA)),
        Algorithm::ES256 => EncodingKey::from_ec_der(&der(EC)),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    };
    signed_with(algorithm, kid, claims, &key)
}

/// A token that is signed with any key.
pub fn signed_with(algorithm: Algorithm, kid: Option<&str>, claims: &Value, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

/// An auth server on loopback.
#[derive(Default)]
pub struct Project {
    /// What its list of keys says; none: it does not answer.
    pub keys: Mutex<Option<Value>>,
    /// How often that was asked for.
    pub fetches: AtomicUsize,
    /// Whose every token is, when it is asked; none: nobody's.
    pub user: Mutex<Option<String>>,
    /// How often it was asked.
    pub asked: AtomicUsize,
}

impl Project {
    /// Starts it; its URL.
    pub async fn start(self: &Arc<Self>) -> String {
        let router = Router::new()
            .route("/auth/v1/.well-known/jwks.json", get(keys))
            .route("/auth/v1/user", get(user))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// Lists these keys from now on.
    pub fn list(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    /// How often keys were fetched and tokens were asked about.
    pub fn calls(&self) -> (usize, usize) {
        (self.fetches.load(Ordering::SeqCst), self.asked.load(Ordering::SeqCst))
    }
}

async fn keys(State(project): State<Arc<Project>>) -> Response {
    project.fetches.fetch_add(1, Ordering::SeqCst);
    match project.keys.lock().unwrap().clone() {
        Some(keys) => Json(keys).into_response(),
        None => StatusCode::BAD_GATEWAY.into_response(),
    }
}

async fn user(State(project): State<Arc<Project>>, headers: HeaderMap) -> Response {
    project.asked.fetch_add(1, Ordering::SeqCst);
    assert_eq!(headers["apikey"], "sb_publishable_test");
    assert!(headers["authorization"].to_str().unwrap().starts_with("Bearer "));
    match project.user.lock().unwrap().clone() {
        Some(id) => Json(json!({"id": id, "email": "x@example.com"})).into_response(),
        None => (StatusCode::FORBIDDEN, Json(json!({"error_code": "bad_jwt"}))).into_response(),
    }
}

/// How users of the project at `url` are known.
pub fn users_of(url: &str, secret: bool, ask: bool) -> UserTokens {
    UserTokens {
        url: url.to_owned(),
        anon: ask.then(|| Secret::new("sb_publishable_test")),
        jwt_secret: secret.then(|| (Secret::new(SECRET), KeySource::Variable("SUPABASE_JWT_SECRET"))),
        ca_file: None,
    }
}
