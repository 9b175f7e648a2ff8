//! What was measured on a real Supabase Storage and is no single call: races, late uploads, paging.
//! Each test names the cases that it repeats.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::emulator_replay::{MEASURED, cases};
use crate::emulator_world::{World, history};
use crate::wire::{self, Reply, Sending};

const UPLOAD: &str = "POST /object/{bucket}/{key}";

/// What was measured under `id`.
pub fn measured(id: &str) -> Value {
    assert!(MEASURED.iter().any(|prefix| id.starts_with(prefix)), "{id} is not listed");
    let case = cases().into_iter().find(|case| case["id"] == id);
    case.unwrap_or_else(|| panic!("{id} is not in the record"))["response"].clone()
}

impl World {
    /// Begins uploads and waits until the server has looked whether the name is free.
    async fn begin(&self, path: &str, bodies: &[&str], upsert: bool) -> Vec<Sending> {
        let before = self.emulator.requests().get(UPLOAD).copied().unwrap_or(0);
        let bearer = format!("Bearer {}", self.emulator.service_role_key());
        let upsert = upsert.to_string();
        let headers = [("Authorization", bearer.as_str()), ("x-upsert", upsert.as_str())];
        let mut uploads = Vec::new();
        for body in bodies {
            let begun = wire::begin(self.emulator.addr(), "POST", path, &headers, body.len(), &[]).await;
            uploads.push(begun.unwrap());
        }
        while self.emulator.requests().get(UPLOAD).copied().unwrap_or(0) < before + bodies.len() as u64 {
            tokio::task::yield_now().await;
        }
        uploads
    }

    async fn get(&self, path: &str) -> Reply {
        let path = format!("/object/authenticated/{path}");
        self.call(self.emulator.service_role_key(), "GET", &path, &[], b"").await
    }

    async fn mv(&self, bucket: &str, from: &str, to: &str) -> Reply {
        let ends = json!({ "bucketId": bucket, "sourceKey": from, "destinationKey": to });
        self.json("POST", "/object/move", &ends).await
    }

    async fn names(&self, bucket: &str, body: &Value) -> Vec<String> {
        let reply = self.json("POST", &format!("/object/list-v2/{bucket}"), body).await.json();
        let names = reply["objects"].as_array().unwrap().iter();
        names.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// `race.post.*`, `v2.late.samename`
#[tokio::test]
async fn uploads_of_one_new_name_all_succeed_and_the_last_one_stays() {
    for (id, writers, upsert) in [
        ("race.post.noupsert", 8, false),
        ("race.post.noupsert.2", 2, false),
        ("race.post.upsert", 8, true),
        ("race.post.upsert.32", 32, true),
    ] {
        assert!(measured(id)["successes_per_round"][writers.to_string()].is_u64(), "{id}");
        let world = World::new().await;
        world.bucket("r", vec![]);
        let bodies: Vec<_> = (0..writers).map(|n| format!("{n:02}")).collect();
        let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
        let uploads = world.begin("/object/r/k", &bodies, upsert).await;
        for (mut upload, body) in uploads.into_iter().zip(&bodies).rev() {
            upload.more(body.as_bytes()).await.unwrap();
            assert_eq!(upload.finish().await.unwrap().short(), "200", "{id}");
        }
        assert_eq!(world.get("r/k").await.text(), "00", "{id}");
        let contents: BTreeSet<_> = world.emulator.uploads().into_iter().map(|u| u.sha256).collect();
        assert_eq!(contents.len(), writers, "the log of uploads shows every one");
    }
}

/// `race.post.noupsert.existing`
#[tokio::test]
async fn an_upload_onto_an_existing_name_is_refused() {
    let wanted = &measured("race.post.noupsert.existing")["statuses"];
    let world = World::new().await;
    world.bucket("r", vec![]);
    world.put("r/k", "text/plain", "first").await;
    let key = world.emulator.service_role_key();
    let replies = join_all((0..8).map(|_| world.call(key, "POST", "/object/r/k", &[], b"x"))).await;
    assert!(replies.iter().all(|reply| wanted[reply.short()].is_u64()), "{wanted}");
    assert_eq!(world.get("r/k").await.text(), "first");
}

/// `race.move`, `race.move.losers`, `race.move.take`, `claim.race16`
#[tokio::test]
async fn one_of_many_moves_onto_a_free_name_wins() {
    assert_eq!(measured("race.move")["successes_per_round"]["1"], 200);
    assert_eq!(measured("claim.race16")["successes_per_round"]["1"], 200);
    let world = World::new().await;
    world.bucket("r", vec![]);
    for movers in [8, 16] {
        let target = format!("{movers:08}.claim");
        for n in 0..movers {
            world.put(&format!("r/.claim-{n}"), "text/plain", &n.to_string()).await;
        }
        let names: Vec<_> = (0..movers).map(|n| format!(".claim-{n}")).collect();
        let replies = join_all(names.iter().map(|name| world.mv("r", name, &target))).await;
        let winners: Vec<_> = (0..movers).filter(|n| replies[*n].status == 200).collect();
        let [winner] = winners[..] else { panic!("{winners:?} won") };
        assert_eq!(world.get(&format!("r/{target}")).await.text(), winner.to_string());
        for (n, reply) in replies.iter().enumerate().filter(|(n, _)| *n != winner) {
            assert_eq!(reply.short(), "400:409/ResourceAlreadyExists");
            assert_eq!(world.get(&format!("r/.claim-{n}")).await.text(), n.to_string());
        }
    }
    // And the other way round: one source, many targets.
    assert_eq!(measured("race.move.take")["successes"]["1"], 50);
    world.put("r/one", "text/plain", "1").await;
    let targets: Vec<_> = (0..8).map(|n| format!("to-{n}")).collect();
    let replies = join_all(targets.iter().map(|target| world.mv("r", "one", target))).await;
    let short: Vec<_> = replies.iter().map(Reply::short).filter(|short| short != "200").collect();
    assert_eq!(short, vec!["400:404/NoSuchKey"; 7]);
}

/// `race.delete`, `race.bulkdelete`, `race.bucket`
#[tokio::test]
async fn one_of_many_deletes_and_one_of_many_creations_succeeds() {
    for id in ["race.delete", "race.bucket"] {
        assert!(measured(id)["successes_per_round"]["1"].is_u64(), "{id}");
    }
    assert!(measured("race.bulkdelete")["rows_per_round"]["1"].is_u64());
    let world = World::new().await;
    let create = json!({ "name": "r" });
    let replies = join_all((0..8).map(|_| world.json("POST", "/bucket", &create))).await;
    let count =
        |replies: &[Reply], short: &str| replies.iter().filter(|reply| reply.short() == short).count();
    assert_eq!((count(&replies, "200"), count(&replies, "400:409/BucketAlreadyExists")), (1, 7));
    world.put("r/k", "text/plain", "x").await;
    let replies = join_all((0..8).map(|_| world.json("DELETE", "/object/r/k", &Value::Null))).await;
    assert_eq!((count(&replies, "200"), count(&replies, "400:404/NoSuchKey")), (1, 7));
    world.put("r/k", "text/plain", "x").await;
    let many = json!({ "prefixes": ["k"] });
    let replies = join_all((0..8).map(|_| world.json("DELETE", "/object/r", &many))).await;
    assert_eq!(replies.iter().filter(|reply| reply.json() != json!([])).count(), 1);
}

/// `v2.desc.page.*`, `v2.asc.page.1000`, `v2.limit.*`
#[tokio::test]
async fn pages_neither_skip_nor_repeat() {
    let world = World::new().await;
    world.bucket("wl", vec![]);
    let mut names = history();
    for name in &names {
        world.put(&format!("wl/{name}"), "text/plain", "x").await;
    }
    names.sort();
    let path = "/object/list-v2/wl";
    for (id, order, limit) in [
        ("v2.desc.page.1", "desc", json!(1)),
        ("v2.desc.page.2", "desc", json!(2)),
        ("v2.desc.page.7", "desc", json!(7)),
        ("v2.desc.page.1000", "desc", json!(1000)),
        ("v2.desc.page.None", "desc", json!(null)),
        ("v2.desc.page.5000", "desc", json!(5000)),
        ("v2.asc.page.1000", "asc", json!(1000)),
    ] {
        let (mut found, mut calls) = (Vec::new(), 0);
        let mut body = json!({ "prefix": ".history/u/s/", "sortBy": { "column": "name", "order": order } });
        if !limit.is_null() {
            body["limit"] = limit;
        }
        loop {
            let page = world.json("POST", path, &body).await.json();
            calls += 1;
            let objects = page["objects"].as_array().unwrap().iter();
            found.extend(objects.map(|object| object["name"].as_str().unwrap().to_owned()));
            if page["hasNext"] == false {
                break;
            }
            body["cursor"] = page["nextCursor"].clone();
        }
        assert_eq!(measured(id)["calls"], calls, "{id}");
        if order == "desc" {
            found.reverse();
        }
        assert!(found == names, "{id}");
    }
    for limit in ["0", "-1", "1001", "5000", "1", "1.5"] {
        let wanted = measured(&format!("v2.limit.{limit}"));
        let body = json!({ "prefix": "", "limit": serde_json::from_str::<Value>(limit).unwrap() });
        let reply = world.json("POST", path, &body).await;
        let status = wanted["status"].as_str().map_or_else(|| wanted["status"].to_string(), str::to_owned);
        assert_eq!(reply.short(), status, "limit {limit}");
        let rows = reply.json()["objects"].as_array().map_or(0, Vec::len);
        assert_eq!(wanted["objects"], rows, "limit {limit}");
    }
}

/// `v2.late.slow`, `v2.late.short`, `v2.late.deleted`, `v2.late.claim`
#[tokio::test]
async fn an_upload_takes_effect_with_its_last_byte_and_over_whatever_has_the_name_then() {
    let world = World::new().await;
    world.bucket("late", vec![]);
    let there = |name: &'static str| {
        let world = &world;
        async move {
            let key = world.emulator.service_role_key();
            world.call(key, "GET", &format!("/object/info/authenticated/late/{name}"), &[], b"").await
        }
    };
    let mut slow = world.begin("/object/late/slow", &["AAAA"], false).await.remove(0);
    slow.more(b"AAA").await.unwrap();
    world.put("late/fast", "text/plain", "x").await;
    assert_eq!(there("slow").await.short(), "400:404/NoSuchKey");
    assert_eq!(world.names("late", &json!({})).await, ["fast"]);
    let gone = world.json("DELETE", "/object/late", &json!({ "prefixes": ["slow"] })).await.json();
    assert_eq!(gone.as_array().unwrap().len(), measured("v2.late.deleted")["delete_rows"]);
    slow.more(b"A").await.unwrap();
    assert_eq!(slow.finish().await.unwrap().status, 200);
    // It came into being when it was complete.
    let created = |reply: Reply| reply.json()["created_at"].as_str().unwrap().to_owned();
    assert!(created(there("slow").await) > created(there("fast").await));

    let mut slow = world.begin("/object/late/00000001.claim", &["AAAA"], false).await.remove(0);
    world.put("late/.claim-1", "text/plain", "mine").await;
    assert_eq!(
        world.mv("late", ".claim-1", "00000001.claim").await.short(),
        measured("v2.late.claim")["move"]
    );
    slow.more(b"AAAA").await.unwrap();
    assert_eq!(slow.finish().await.unwrap().status, 200);
    assert_eq!(world.get("late/00000001.claim").await.text(), "AAAA");

    let mut short = world.begin("/object/late/short", &["AAAA"], false).await.remove(0);
    short.more(b"AAA").await.unwrap();
    drop(short);
    world.put("late/after", "text/plain", "x").await;
    assert_eq!(there("short").await.short(), "400:404/NoSuchKey");
    assert_eq!(measured("v2.late.short")["never"], 50);
    assert_eq!(measured("v2.late.slow")["answer_status"], "HTTP/1.1 200 OK");
    assert_eq!(measured("v2.late.samename")["fast"], "200");
}

/// `v2.clock.times`, `v2.clock.headers`, `hist.order`
#[tokio::test]
async fn rows_keep_their_birth_through_overwrites_and_moves() {
    let world = World::new().await;
    world.bucket("ck", vec![]);
    let row = async |name: &str| {
        let reply = world.json("POST", "/object/list-v2/ck", &json!({ "prefix": name })).await;
        assert!(reply.headers.contains_key("date"));
        let row = reply.json()["objects"][0].clone();
        (row["id"].clone(), row["created_at"].clone(), row["updated_at"].clone())
    };
    world.put("ck/a", "text/plain", "1").await;
    let first = row("a").await;
    world.put("ck/a", "text/plain", "2").await;
    let overwritten = row("a").await;
    world.mv("ck", "a", "b").await;
    let moved = row("b").await;
    let ends = json!({ "bucketId": "ck", "sourceKey": "b", "destinationKey": "c" });
    assert!(world.json("POST", "/object/copy", &ends).await.headers.contains_key("date"));
    let copied = row("c").await;
    assert_eq!((&first.0, &first.1), (&overwritten.0, &overwritten.1));
    assert_eq!((&first.0, &first.1), (&moved.0, &moved.1));
    assert!(first.2 != overwritten.2 && overwritten.2 != moved.2);
    assert!(copied.0 != first.0 && copied.1 != first.1);
    assert!(world.get("ck/none").await.headers.contains_key("date"));
    let times = measured("v2.clock.times");
    assert_eq!(times[0][1], times[3][1]);
    assert_eq!(measured("v2.clock.headers")["error"], true);

    world.bucket("order", vec![]);
    let wanted = measured("hist.order");
    for name in wanted.as_array().unwrap() {
        world.put(&format!("order/{}", name.as_str().unwrap()), "text/plain", "x").await;
    }
    let body = json!({ "sortBy": { "column": "name", "order": "desc" } });
    assert_eq!(json!(world.names("order", &body).await), wanted);
}

/// `hist.type.*.back`
#[tokio::test]
async fn bytes_come_back_as_they_were_whatever_their_type_is_called() {
    let world = World::new().await;
    world.bucket("wa2", vec![]);
    let body: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let key = world.emulator.service_role_key();
    let backs =
        |case: &Value| case["id"].as_str().unwrap().starts_with("hist.type") && case["response"].is_array();
    for case in cases().into_iter().filter(backs) {
        let mime = case["request"]["content_type"].as_str().unwrap();
        world.call(key, "PUT", "/object/wa2/x", &[("Content-Type", mime)], &body).await;
        for round in case["response"].as_array().unwrap() {
            let accepts = round[0].as_str().map(|accepts| ("Accept-Encoding", accepts));
            let headers: Vec<_> = accepts.into_iter().collect();
            let reply = world.call(key, "GET", "/object/authenticated/wa2/x", &headers, b"").await;
            assert_eq!((reply.status, &reply.body), (200, &body), "{mime}");
            assert_eq!(reply.headers["content-type"], round[3], "{mime}");
            assert_eq!(reply.headers.get("content-encoding"), None);
        }
    }
}
