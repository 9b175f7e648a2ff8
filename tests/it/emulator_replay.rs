//! The emulator against the recorded cases of a real Supabase Storage: same status, same body, same headers.
//!
//! The record is a sample of a longer session, so what earlier, unrecorded calls had made is made by [`given`].
//! Measurements of a real server (races, late uploads, policies verb by verb) are repeated in
//! `emulator_measured`; what stands for neither is in [`SKIPPED`], with the reason.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::emulator_world::{USER, World, given};
use crate::wire::{self, Reply};

/// Cases that are not replayed: a prefix of their ids, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("rls.insonly", "a policy for one verb"),
    ("del.bulk.n", "the recorded body is cut off"),
    ("rw.", "the file backend fails reads during overwrites; faults stand for it"),
    ("race.signed", "signed URLs"),
    ("claim.cut", "fates of requests in flight on a real socket; faults stand for it"),
    ("v2.late.cut", "as before"),
    ("v2.late.close", "as before"),
    ("hist.retry.cut", "as before"),
    ("v2.big", "speed of a real database"),
    ("claim.role.cost", "speed of a real database"),
    ("hist.base", "speed of a real server"),
    ("v2.desc.churn", "paging under load of a real database"),
    ("v2.afterwrite", "reads after writes under load of a real database"),
    ("v2.clock.skew", "clocks of a real server"),
    ("claim.role.0", "grants of Postgres, step by step"),
    ("claim.role.1", "as before"),
    ("claim.role.2", "as before"),
    ("claim.role.3", "as before"),
    ("claim.role.4", "as before"),
    ("claim.role.5", "as before"),
    ("claim.role.6.bucketpolicy.summary", "its calls are replayed"),
    ("claim.role.7", "grants of Postgres, step by step"),
    ("claim.role.8", "as before"),
    ("claim.role.9", "as before"),
    ("claim.role.restrictpublic", "a policy for everybody"),
    ("claim.role.jwt", "roles of Postgres itself"),
    ("rls2.customrole", "a policy for everybody"),
    ("rls2.restrict.user.sign", "signed URLs"),
    ("rls2.seed.user.sign", "signed URLs"),
    ("rls2.signed", "signed URLs"),
    ("rls2.restrict.user.tus", "resumable uploads"),
    ("rls2.seed.user.tus", "resumable uploads"),
    ("hist.marker.foreign", "a call of supabase-js"),
];

/// Cases that `emulator_measured` repeats, by prefix.
pub const MEASURED: &[&str] = &[
    "race.post",
    "race.move",
    "race.delete",
    "race.bulkdelete",
    "race.bucket",
    "claim.race16",
    "v2.desc.page",
    "v2.asc.page",
    "v2.limit",
    "v2.late.slow",
    "v2.late.short",
    "v2.late.samename",
    "v2.late.deleted",
    "v2.late.claim",
    "v2.clock.times",
    "v2.clock.headers",
    "hist.order",
    "hist.type",
    "rls2.seed.user.summary",
    "rls2.seed.anon.summary",
    "rls2.careless.user.summary",
    "rls2.restrict.user.summary",
    "rls2.restrict.anon.summary",
    "rls2.restrict.service.summary",
    "rls2.restrictpublic",
];

/// Of bodies that were recorded by their length only.
const UNKNOWN: [&str; 2] = ["6a9e07b00f020cca11c97a49047db55b", "6e10962bd706cf1f9472344fd9b9a725"];

pub fn cases() -> Vec<Value> {
    let text = include_str!("../fixtures/supabase-storage.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl World {
    /// The token that a recorded `Authorization` stands for.
    fn authorization(&self, id: &str, recorded: &str) -> String {
        let keys = &self.emulator;
        let (bearer, token) = match recorded.strip_prefix("Bearer ") {
            Some(token) => ("Bearer ", token),
            None => ("", recorded),
        };
        let token = match token {
            "<service_role jwt>" => keys.service_role_key().to_owned(),
            "<anon jwt>" => keys.anon_key().to_owned(),
            "<user U1 jwt>" => keys.user_jwt(USER),
            "<session_sidecar jwt>" => {
                keys.jwt(&json!({ "role": "session_sidecar", "exp": 4_102_444_800_u64 }))
            }
            // A token of that day: the same claims, signed here, not yet run out where it was not then.
            token if token.starts_with("eyJ") => {
                let claims = token.split('.').nth(1).unwrap();
                let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
                let mut claims: Value = serde_json::from_slice(&claims).unwrap();
                claims["exp"] = if id.starts_with("auth.expired") { 1 } else { 4_102_444_800_u64 }.into();
                let token = keys.jwt(&claims);
                if id.starts_with("auth.wrongsecret") { foreign(&token) } else { token }
            }
            token => token.to_owned(),
        };
        format!("{bearer}{token}")
    }

    async fn replay(&self, case: &Value) -> Result<(), String> {
        let id = case["id"].as_str().unwrap();
        let (request, wanted) = (&case["request"], &case["response"]);
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in request["headers"].as_object().unwrap() {
            let value = value.as_str().unwrap();
            let auth = name == "Authorization";
            headers.push((name.clone(), if auth { self.authorization(id, value) } else { value.to_owned() }));
        }
        let mut body = request["body"].as_str().unwrap_or_default().as_bytes().to_vec();
        if id == "lim.over.chunked" {
            // The record names neither token nor type of this one.
            headers.push(("Authorization".into(), format!("Bearer {}", self.emulator.service_role_key())));
            headers.push(("Content-Type".into(), "application/json".into()));
            body = format!("7d1\r\n{}\r\n0\r\n\r\n", "1".repeat(2001)).into_bytes();
        } else if let Some(size) = bytes_of(&String::from_utf8_lossy(&body)) {
            body = vec![b'z'; size];
        }
        let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        if let Some(since) = headers.iter().position(|(name, _)| name == "If-Modified-Since") {
            // Meant is the object's own time.
            let reply = self.call(self.emulator.service_role_key(), method, path, &[], b"").await;
            headers[since].1.clone_from(&reply.headers["last-modified"]);
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = wire::send(self.emulator.addr(), method, path, &headers, &body).await;
        compare(&reply.map_err(|e| e.to_string())?, wanted)
    }
}

/// The same token with another signature.
fn foreign(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{other}{}", &signature[1..])
}

/// `<150000 bytes>`.
fn bytes_of(text: &str) -> Option<usize> {
    text.strip_prefix('<')?.strip_suffix(" bytes>")?.parse().ok()
}

/// Leaves of a body that differ from day to day, made equal.
fn steady(value: &mut Value, unknown: Option<&str>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| steady(item, unknown)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match name.as_str() {
            "version" | "id" | "Id" if field.as_str().is_some_and(|s| s.len() == 36) => {
                *field = "uuid".into();
            }
            "created_at" | "updated_at" | "last_accessed_at" | "lastModified" | "last_modified"
                if field.as_str().is_some_and(|s| s.parse::<Timestamp>().is_ok() && s.len() == 24) =>
            {
                *field = "time".into();
            }
            // Carries a time, or names of that day.
            "nextCursor" if field.as_str().is_some_and(|s| s.len() > 50) => *field = "cursor".into(),
            "nextCursorKey" | "name" if field.as_str().is_some_and(|s| s.contains(".from.")) => {
                *field = "commit".into();
            }
            "message" if field.as_str().is_some_and(|s| s.ends_with("contains dot path segment")) => {
                *field = "dots".into();
            }
            _ => steady(field, unknown),
        }),
        Value::String(text) if unknown.is_some_and(|etag| text.contains(etag)) => {
            *text = "etag".into();
        }
        _ => {}
    }
}

/// All names of fields in a text that may be cut off.
fn fields(text: &str) -> BTreeSet<&str> {
    text.match_indices("\":").filter_map(|(at, _)| text[..at].rsplit('"').next()).collect()
}

fn compare(reply: &Reply, wanted: &Value) -> Result<(), String> {
    let equal = |what: &str, got: &str, wanted: &str| {
        if got == wanted { Ok(()) } else { Err(format!("{what}: {got} instead of {wanted}")) }
    };
    equal("status", &reply.status.to_string(), &wanted["status"].to_string())?;
    let text = wanted["body"].as_str().unwrap_or_default();
    let known = !UNKNOWN.iter().any(|etag| wanted.to_string().contains(etag));
    let names = ["content-type", "content-range", "cache-control", "accept-ranges", "x-robots-tag"];
    for name in names.into_iter().chain(known.then_some("etag")) {
        if let Some(value) = wanted["headers"][name].as_str() {
            equal(name, reply.headers.get(name).map_or("", String::as_str), value)?;
        }
    }
    for name in ["last-modified", "etag"] {
        if wanted["headers"][name].is_string() && !reply.headers.contains_key(name) {
            return Err(format!("no {name}"));
        }
    }
    if let Some(size) = bytes_of(text) {
        return equal("length", &reply.body.len().to_string(), &size.to_string());
    }
    let cut_off = text.ends_with(" bytes)") || text.ends_with(" bytes]");
    // The message about dots holds the real server's own path.
    let exact = !cut_off && !text.contains("contains dot path segment");
    if let Some(length) = wanted["headers"]["content-length"].as_str().filter(|_| exact) {
        equal("content-length", reply.headers.get("content-length").map_or("", String::as_str), length)?;
    }
    if cut_off {
        let (got, wanted) = (reply.text(), fields(text));
        let missing: Vec<_> = wanted.difference(&fields(&got)).copied().collect();
        return if missing.is_empty() { Ok(()) } else { Err(format!("fields {missing:?} in {got}")) };
    }
    let Ok(mut wanted) = serde_json::from_str::<Value>(text) else {
        return equal("body", &reply.text(), text);
    };
    let mut got = reply.json();
    let own = reply.headers.get("etag").map(|etag| etag.trim_matches('"'));
    let unknown = UNKNOWN.iter().find(|etag| text.contains(**etag));
    steady(&mut wanted, unknown.copied());
    steady(&mut got, own.filter(|_| unknown.is_some()));
    // The order of fields says nothing.
    if got == wanted { Ok(()) } else { equal("body", &got.to_string(), &wanted.to_string()) }
}

#[tokio::test]
async fn recorded_cases_are_answered_as_by_the_real_server() {
    let world = World::new().await;
    let (mut replayed, mut failed) = (0, Vec::new());
    for case in cases() {
        let id = case["id"].as_str().unwrap();
        let skipped = SKIPPED.iter().any(|(prefix, _)| id.starts_with(prefix));
        let measured =
            MEASURED.iter().any(|prefix| id.starts_with(prefix)) && case["request"]["method"].is_null();
        if skipped || measured {
            assert!(!(skipped && measured), "{id} is named twice");
            continue;
        }
        given(&world, id).await;
        replayed += 1;
        if let Err(what) = world.replay(&case).await {
            failed.push(format!("{id}: {what}"));
        }
    }
    assert!(failed.is_empty(), "{} of {replayed} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(replayed >= 380, "{replayed}");
}
