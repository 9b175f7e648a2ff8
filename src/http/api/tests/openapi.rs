use std::collections::BTreeSet;

use serde_json::Value;

use super::fakes::{Sidecar, World};
use crate::session::check_id;

#[tokio::test]
async fn every_documented_call_is_answered_by_the_router() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()));
    let document = world.ok("GET", "/openapi.json", "").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            count += 1;
            // A malformed body, so that no handler begins to work; it comes to a handler all the same.
            let filled = path.replace("{user}", "u1").replace("{session}", "s1");
            let (status, value) = match method.as_str() {
                "get" if path.contains("/events/") => continue,
                "get" => world.call("GET", &filled, "").await,
                other => world.call(&other.to_uppercase(), &filled, "{").await,
            };
            assert!(!matches!(status.as_u16(), 404 | 405 | 500), "{method} {path}: {status} {value}");
            for parameter in ["user", "session"] {
                let named = operation["parameters"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["name"] == parameter && one["in"] == "path"));
                assert_eq!(named, path.contains(&format!("{{{parameter}}}")), "{method} {path} {parameter}");
            }
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            assert!(operation["responses"]["200"]["content"].is_object(), "{method} {path}");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            assert_eq!(operation["security"].is_array(), path != "/api/health", "{method} {path}");
        }
    }
    assert!(count >= 35, "{count}");
}

#[tokio::test]
async fn every_schema_that_is_named_is_there() {
    fn named(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(name) = object.get("$ref").and_then(Value::as_str) {
                    into.insert(name.to_owned());
                }
                object.values().for_each(|value| named(value, into));
            }
            Value::Array(array) => array.iter().for_each(|value| named(value, into)),
            _ => {}
        }
    }
    let world = World::new(Sidecar::default());
    let document = world.ok("GET", "/openapi.json", "").await;
    let mut references = BTreeSet::new();
    named(&document, &mut references);
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    assert_eq!(document["components"]["securitySchemes"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn the_calls_of_the_old_service_and_ours_are_all_documented() {
    let world = World::new(Sidecar::default());
    let document = world.ok("GET", "/openapi.json", "").await;
    for (method, path) in [
        ("get", "/api/health"),
        ("get", "/api/sessions/{user}"),
        ("delete", "/api/sessions/{user}/{session}"),
        ("post", "/api/sessions/{user}/{session}/sync"),
        ("post", "/api/sessions/{user}/{session}/restore"),
        ("post", "/api/sessions/{user}/{session}/logout"),
        ("get", "/api/sessions/{user}/{session}/history"),
        ("get", "/api/whatsapp/status/{user}"),
        ("post", "/api/whatsapp/connect/{user}"),
        ("post", "/api/whatsapp/disconnect/{user}"),
        ("get", "/api/whatsapp/qr/{user}"),
        ("get", "/api/whatsapp/generate-qr/{user}"),
        ("post", "/api/whatsapp/generate-qr/{user}"),
        ("post", "/api/whatsapp/clean-session/{user}"),
        ("post", "/api/whatsapp/logout/{user}"),
        ("post", "/api/whatsapp/pairing-code/{user}"),
        ("post", "/api/whatsapp/send/{user}"),
        ("get", "/api/whatsapp/events/{user}"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
        if path.starts_with("/api/whatsapp") {
            let longer = format!("{path}/{{session}}");
            assert!(document["paths"][&longer][method].is_object(), "{method} {longer}");
        }
    }
}

#[tokio::test]
async fn the_rule_for_ids_is_that_of_the_document() {
    let world = World::new(Sidecar::default());
    let document = world.ok("GET", "/openapi.json", "").await;
    let id = &document["paths"]["/api/sessions/{user}"]["get"]["parameters"][0]["schema"];
    let longest = usize::try_from(id["maxLength"].as_u64().unwrap()).unwrap();
    assert_eq!(id["pattern"], "^[A-Za-z0-9_@+=-][A-Za-z0-9_.@+=-]*$");
    let first = |c: char| c.is_ascii_alphanumeric() || "_@+=-".contains(c);
    for c in (0..128_u8).map(char::from) {
        assert_eq!(check_id("user", &c.to_string()).is_ok(), first(c), "{c:?}");
        assert_eq!(check_id("user", &format!("x{c}")).is_ok(), first(c) || c == '.', "{c:?}");
    }
    assert!(check_id("user", &"x".repeat(longest)).is_ok());
    assert!(check_id("user", &"x".repeat(longest + 1)).is_err() && check_id("user", "").is_err());
}
