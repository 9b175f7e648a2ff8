//! Row-level security as it was measured on a real Supabase Storage (`rls2.*.summary`).

use serde_json::{Value, json};
use session_sidecar::emulator::Policy;

use crate::emulator_measured::measured;
use crate::emulator_world::{USER, World};
use crate::wire::Reply;

/// Every verb of a user, of nobody and of the service key against history, under three sets of
/// policies. Left out: signed URLs, resumable uploads and the S3 endpoint, and what depends on their effects.
#[tokio::test]
async fn policies_decide_every_verb_as_on_the_real_server() {
    let closed = || Policy::Closed { prefix: ".history/".into(), except: "session_sidecar".into() };
    let sets = [
        ("seed", vec![Policy::OwnFolder], vec!["user", "anon"]),
        ("careless", vec![Policy::EveryUser], vec!["user"]),
        ("restrict", vec![Policy::EveryUser, closed()], vec!["user", "anon", "service"]),
        ("restrictpublic", vec![Policy::EveryUser, closed()], vec!["user", "anon", "service"]),
    ];
    for (set, policies, roles) in sets {
        for role in roles {
            let wanted = measured(&format!("rls2.{set}.{role}.summary"));
            let world = World::new().await;
            world.bucket("wr", policies.clone());
            world.bucket("rl", vec![]);
            for (verb, got) in verbs(&world, role).await {
                assert_eq!(wanted[verb], got, "{verb} of {role} under {set}");
            }
        }
    }
}

async fn verbs(world: &World, role: &str) -> Vec<(&'static str, String)> {
    const BASE: &str = ".history/u/s/00000001-00000001-aaaaaaaa.base.tar.zst";
    const EVIL: &str = ".history/u/s/99999999-00000001-evil";
    let (token, own) = match role {
        "user" => (world.emulator.user_jwt(USER), USER),
        "anon" => (world.emulator.anon_key().to_owned(), "anonplace"),
        _ => (world.emulator.service_role_key().to_owned(), USER),
    };
    world.put(&format!("wr/{BASE}"), "application/octet-stream", "secret").await;
    world.put(&format!("wr/{own}/mine.json"), "application/json", "{}").await;
    let json_type = ("Content-Type", "application/json");
    let call = async |method: &str, path: &str, upsert: bool, body: Value| {
        let upsert = upsert.to_string();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        world.call(&token, method, path, &[json_type, ("x-upsert", &upsert)], body.as_bytes()).await
    };
    let object = |key: &str| format!("/object/wr/{key}");
    let (mine, stolen) = (format!("{own}/mine.json"), format!("{own}/stolen"));
    let ends = |from: &str, to: &str| json!({ "bucketId": "wr", "sourceKey": from, "destinationKey": to });
    let rows =
        |reply: &Reply, items: &Value| format!("{} rows={}", reply.short(), items.as_array().unwrap().len());
    let texts = |items: &Value, field: &str| {
        let texts: Vec<_> =
            items.as_array().unwrap().iter().map(|i| format!("'{}'", i[field].as_str().unwrap())).collect();
        format!("[{}]", texts.join(", "))
    };
    let mut said: Vec<(&'static str, String)> = Vec::new();

    said.push((
        "get",
        call("GET", &format!("/object/authenticated/wr/{BASE}"), false, json!(null)).await.short(),
    ));
    said.push(("get2", call("GET", &object(BASE), false, json!(null)).await.short()));
    let head = call("HEAD", &format!("/object/authenticated/wr/{BASE}"), false, json!(null)).await;
    said.push(("head", head.short()));
    let info = call("GET", &format!("/object/info/authenticated/wr/{BASE}"), false, json!(null)).await;
    said.push(("info", info.short()));
    let list = call("POST", "/object/list/wr", false, json!({ "prefix": ".history/u/s" })).await;
    said.push(("list1", rows(&list, &list.json())));
    let list = call("POST", "/object/list/wr", false, json!({ "prefix": "" })).await;
    said.push(("list1root", format!("{} {}", list.short(), texts(&list.json(), "name"))));
    let list = call("POST", "/object/list-v2/wr", false, json!({ "prefix": ".history/" })).await;
    said.push(("list2", rows(&list, &list.json()["objects"])));
    let list = call("POST", "/object/list-v2/wr", false, json!({ "prefix": "" })).await;
    let all = texts(&list.json()["objects"], "name");
    let history = all.matches("'.history/").count();
    let sees_own = if all.contains(&mine) { "True" } else { "False" };
    said.push(("list2all", format!("{} history={history} own={sees_own}", list.short())));
    let list =
        call("POST", "/object/list-v2/wr", false, json!({ "prefix": "", "with_delimiter": true })).await;
    said.push(("list2delim", format!("{} folders={}", list.short(), texts(&list.json()["folders"], "name"))));

    let evil = || json!("evil");
    said.push(("post", call("POST", &object(EVIL), false, evil()).await.short()));
    said.push(("post.upsert.new", call("POST", &object(EVIL), true, evil()).await.short()));
    said.push(("put", call("PUT", &object(BASE), false, evil()).await.short()));
    said.push(("post.upsert", call("POST", &object(BASE), true, evil()).await.short()));
    said.push(("post.double", call("POST", "/object/wr//.history/u/s/evil", false, evil()).await.short()));
    said.push(("post.case", call("POST", "/object/wr/.HISTORY/u/s/evil", false, evil()).await.short()));

    said.push(("move.in", call("POST", "/object/move", false, ends(&mine, EVIL)).await.short()));
    said.push(("move.out", call("POST", "/object/move", false, ends(BASE, &stolen)).await.short()));
    said.push(("move.on", call("POST", "/object/move", false, ends(BASE, EVIL)).await.short()));
    let mut away = ends(BASE, &stolen);
    away["destinationBucket"] = "rl".into();
    said.push(("move.out.bucket", call("POST", "/object/move", false, away).await.short()));
    said.push(("copy.in", call("POST", "/object/copy", false, ends(&mine, EVIL)).await.short()));
    said.push(("copy.in.upsert", call("POST", "/object/copy", true, ends(&mine, BASE)).await.short()));
    said.push(("copy.out", call("POST", "/object/copy", false, ends(BASE, &stolen)).await.short()));
    said.push(("delete1", call("DELETE", &object(BASE), false, json!(null)).await.short()));
    let bulk = call("DELETE", "/object/wr", false, json!({ "prefixes": [BASE] })).await;
    said.push(("bulk", rows(&bulk, &bulk.json())));
    if role == "service" {
        said.push(("empty", call("POST", "/bucket/wr/empty", false, json!(null)).await.short()));
        return said;
    }
    said.push((
        "public.get",
        call("GET", &format!("/object/public/wr/{BASE}"), false, json!(null)).await.short(),
    ));
    said.push(("empty", call("POST", "/bucket/wr/empty", false, json!(null)).await.short()));
    said.push(("bucket.public", call("PUT", "/bucket/wr", false, json!({ "public": true })).await.short()));
    said.push(("bucket.delete", call("DELETE", "/bucket/wr", false, json!(null)).await.short()));
    said.push(("own.post", call("POST", &object(&format!("{own}/o1.json")), true, evil()).await.short()));
    said.push((
        "own.get",
        call("GET", &format!("/object/authenticated/wr/{mine}"), false, json!(null)).await.short(),
    ));
    said
}
