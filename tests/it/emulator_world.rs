//! An emulator to call, and what a real server held when the recorded cases were taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use session_sidecar::emulator::{self, BucketOptions, Emulator, Options, Policy};
use session_sidecar::host::{Host, Step};

use crate::wire::{self, Reply};

pub const USER: &str = "11111111-1111-4111-8111-111111111111";
const BASE: &str = ".history/u/s/00000001-00000001-aaaaaaaa.base.tar.zst";

/// A clock that no two calls find at the same time.
#[derive(Debug)]
struct Ticking(AtomicI64);

impl Host for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    fn step(&self, _: Step) -> std::io::Result<()> {
        Ok(())
    }

    fn synced(&self, _: &std::path::Path) {}
}

/// An emulator in a directory of its own, without a bucket, at `/` too.
pub struct World {
    pub emulator: Emulator,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Arc::new(Ticking(AtomicI64::new(1_795_469_000_000)));
        let path = dir.path().to_owned();
        let options = Options { dir: path, bare: true, bucket: None, host, ..Options::default() };
        Self { emulator: emulator::start(options).await.unwrap(), _dir: dir }
    }

    /// A call with a token.
    pub async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(more);
        wire::send(self.emulator.addr(), method, path, &headers, body).await.unwrap()
    }

    /// A call with the service key and a JSON body.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        let headers = [("Content-Type", "application/json")];
        let body = body.to_string();
        self.call(self.emulator.service_role_key(), method, path, &headers, body.as_bytes()).await
    }

    /// Uploads with the service key; what is there is replaced.
    pub async fn put(&self, path: &str, mime: &str, body: &str) {
        let headers = [("Content-Type", mime), ("x-upsert", "true")];
        let key = self.emulator.service_role_key();
        let reply = self.call(key, "POST", &format!("/object/{path}"), &headers, body.as_bytes()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }

    pub fn bucket(&self, id: &str, policies: Vec<Policy>) {
        let bucket = BucketOptions { id: id.into(), policies, ..BucketOptions::default() };
        let bucket = BucketOptions { file_size_limit: None, allowed_mime_types: None, ..bucket };
        self.emulator.put_bucket(bucket).unwrap();
    }
}

/// Makes what unrecorded calls had made before a case.
pub async fn given(world: &World, id: &str) {
    match id {
        "bucket.list" => {
            world.bucket(&"n".repeat(100), vec![]);
        }
        "bucket.empty.missing" => {
            assert_eq!(world.json("DELETE", "/bucket/limstr", &Value::Null).await.status, 200);
        }
        "auth.none.post" => world.put("b1/u/w2", "text/plain", "w").await,
        "key.dotdir.post" => {
            for key in ["k/+49", "k/a;b", "k/a$b", "k/..hidden"] {
                let path = format!("b1/{}", key.replace('+', "%2B").replace(';', "%3B"));
                world.put(&path, "text/plain", "K").await;
            }
        }
        "get.plain" => {
            let headers = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")];
            let key = world.emulator.service_role_key();
            world.call(key, "POST", "/object/b1/g/f.txt", &headers, b"0123456789").await;
            for key in ["a.txt", "B.txt", "sub/x.txt", "sub/y.txt", "sub2/z.txt", "c_d.txt", "cXd.txt"] {
                world.put(&format!("b1/l/{key}"), "text/plain", "abc").await;
            }
            for key in ["a", "b"] {
                let body = if key == "a" { "A" } else { "B" };
                world.put(&format!("b1/m/{key}"), "text/plain", body).await;
            }
        }
        "rls.own.get" => {
            world.bucket("rls", vec![Policy::OwnFolder]);
            let user = "11111111-1111-1111-1111-111111111111";
            let token = world.emulator.user_jwt(user);
            let path = format!("/object/rls/{user}/a");
            world.call(&token, "POST", &path, &[("Content-Type", "text/plain")], b"2").await;
        }
        "rls.move.steal" => {
            let user = "11111111-1111-1111-1111-111111111111";
            let key = |name| format!("{user}/{name}");
            let ends = json!({ "bucketId": "rls", "sourceKey": key("a"), "destinationKey": key("b") });
            world.json("POST", "/object/move", &ends).await;
        }
        _ => given_later(world, id).await,
    }
}

/// The same for the second day of the record.
async fn given_later(world: &World, id: &str) {
    let closed = || Policy::Closed { prefix: ".history/".into(), except: "session_sidecar".into() };
    match id {
        "hist.key.up.2" => {
            world.bucket("wa2", vec![]);
            let policies = vec![Policy::OwnFolder];
            let seed = BucketOptions { id: "seed".into(), policies, ..BucketOptions::default() };
            world.emulator.put_bucket(seed).unwrap();
            let commit = "00000003-00000042-1b20c7d9.from.00000003-00000041-9f3c01ab.tar.zst";
            for name in [commit, "00000004.claim"] {
                let body = "z".repeat(150_000);
                world.put(&format!("wa2/.history/u/s/{name}"), "application/zstd", &body).await;
            }
        }
        "v2.desc.limit2" => {
            world.bucket("wl", vec![]);
            for name in history() {
                world.put(&format!("wl/{name}"), "application/octet-stream", "x").await;
            }
        }
        "claim.move.retry" => {
            world.bucket("cl", vec![]);
            let body = "000e848e-99c6-4d4f-9d4f-a3852c08b99d";
            world.put("cl/.history/u/s/00000999.claim", "application/json", body).await;
        }
        "rls2.seed.user.get" => {
            world.bucket("wr", vec![Policy::OwnFolder]);
            world.bucket("rl", vec![]);
            world.put(&format!("wr/{BASE}"), "application/octet-stream", "secret").await;
            world.put(&format!("wr/{USER}/mine.json"), "application/json", "{}").await;
        }
        "rls2.restrict.user.get2" => {
            world.bucket("wr", vec![Policy::EveryUser, closed()]);
            world.json("DELETE", &format!("/object/wr/{USER}/o1.json"), &Value::Null).await;
        }
        "v2.late.info" => {
            world.bucket("late", vec![]);
            let path = "late/.history/u/s/00000001-00000005-aaaaaaaa.from.x.tar.zst";
            world.put(path, "application/octet-stream", &"A".repeat(3000)).await;
        }
        "claim.role.6.bucketpolicy.upload" => {
            world.bucket("ws", vec![Policy::Role("session_sidecar".into())]);
            world.bucket("other", vec![]);
            for (key, body) in [("old", "old"), ("old2", "old"), ("d1", "x"), ("d2", "x")] {
                world.put(&format!("ws/.history/u/s/{key}"), "application/octet-stream", body).await;
            }
        }
        "hist.marker.up" => world.bucket("ck", vec![]),
        "hist.marker.info.3" => {
            let headers = [("Content-Type", "application/json"), ("x-upsert", "true")];
            let headers = [headers[0], headers[1], ("Cache-Control", "max-age=3600")];
            let key = world.emulator.service_role_key();
            world.call(key, "POST", "/object/ck/u/m/creds.json", &headers, b"{\"m\":3}").await;
            let marked = [headers[0], headers[2], ("x-metadata", "eyJzaWRlY2FyIjoiOSJ9")];
            world.call(key, "POST", "/object/ck/u/m/withmeta.json", &marked, b"{}").await;
            let marked = [("x-metadata", "eyJzaWRlY2FyIjoiNSJ9")];
            world.call(key, "POST", "/object/ck/u/m/c5", &marked, b"x").await;
            let ends = json!({ "bucketId": "ck", "sourceKey": "u/m/c5", "destinationKey": "u/m/c6" });
            world.json("POST", "/object/move", &ends).await;
        }
        "hist.marker.put" => {
            let key = world.emulator.service_role_key();
            world.call(key, "PUT", "/object/ck/u/m/c6", &[("Content-Type", "text/plain")], b"y").await;
        }
        "rls2.public" => {
            world.put("wr/.history/u/s/x", "application/octet-stream", "secret").await;
            world.json("PUT", "/bucket/wr", &json!({ "public": true })).await;
        }
        _ => {}
    }
}

/// 2,510 names: five epochs of 500 commits, and what stands between.
pub fn history() -> Vec<String> {
    let commit = |epoch: usize, seq: usize| {
        format!("{epoch:08}-{seq:08}-{seq:08x}.from.{epoch:08}-{:08}-{:08x}.tar.zst", seq - 1, seq - 1)
    };
    let mut names: Vec<_> = (1..=5).flat_map(|epoch| (1..=500).map(move |seq| commit(epoch, seq))).collect();
    names.extend((3..=5).map(|epoch| format!("{epoch:08}.claim")));
    names.push("00000003-00000500-aaaaaaaa.pin.identity".into());
    names.extend([".claim-2", "!x", "_x", "Z", "claim-1", "zz"].map(str::to_owned));
    names.into_iter().map(|name| format!(".history/u/s/{name}")).collect()
}
