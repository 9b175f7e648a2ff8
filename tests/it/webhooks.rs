//! Webhooks of the real binary: signed, tried again, once, and never in the way.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::support::scripted::{Seen, Step, json, serve};
use crate::support::world::{Running, World, eventually, finished};

const KEY: &[u8] = b"twenty-four bytes of key";
const SECRET: &str = "whsec_dHdlbnR5LWZvdXIgYnl0ZXMgb2Yga2V5";

/// HMAC-SHA256 as RFC 2104 has it, apart from the code under test.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::digest([&pad(0x36)[..], text].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}

fn is_signed(seen: &Seen) -> bool {
    use base64::Engine as _;
    let (id, time) = (seen.header("webhook-id"), seen.header("webhook-timestamp"));
    let now = jiff::Timestamp::now().as_second();
    let fresh = time.parse::<i64>().is_ok_and(|time| (now - time).abs() < 300);
    let wanted = hmac(KEY, format!("{id}.{time}.{}", seen.body).as_bytes());
    let wanted = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(wanted));
    fresh && id.starts_with("msg_") && seen.header("webhook-signature") == wanted
}

fn body(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_told_exactly_once_also_to_a_receiver_that_fails_at_first() {
    let receiver = serve(|nth, _| if nth < 2 { json(500, "{}") } else { json(200, "{}") }).await;
    let world = World::new().await;
    let root = world.tree("root");
    let secret = world.root("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let url = format!("{}/hook", receiver.url);
    let secret = secret.to_str().unwrap();
    let more = ["--webhook-url", &url, "--webhook-secret-file", secret, "--listen", "off", "--mirror", "off"];
    let running = Running::start(&world, &root, &more).await;
    std::fs::write(root.join("creds.json"), "").unwrap();
    eventually("the third try is taken", async || receiver.seen().len() >= 3).await;
    // Held as before, and something changes beside it.
    std::fs::write(root.join("other.json"), "1").unwrap();
    eventually("it is looked at again", async || world.status(&root).await["state"] == "held").await;
    assert_eq!(running.stop().await, 3);

    let seen = receiver.seen();
    assert_eq!(seen.len(), 3, "two that failed and one that was taken: {seen:?}");
    for try_ in &seen {
        assert_eq!(try_.route(), "POST /hook");
        assert!(is_signed(try_), "{try_:?}");
        assert_eq!(try_.header("webhook-id"), seen[0].header("webhook-id"), "the same for every try");
    }
    let event = body(&seen[2]);
    assert_eq!((&event["type"], &event["data"]["session"]), (&"session.held".into(), &"u1/s1".into()));
    assert_eq!((&event["data"]["code"], &event["data"]["reminder"]), (&"held".into(), &false.into()));
    let text = &seen[2].body;
    assert!(!text.contains("@s.whatsapp.net") && !text.contains("5511"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_delays_neither_a_commit_nor_the_end() {
    let receiver = serve(|_, _| Step::Stall(String::new())).await;
    let world = World::new().await;
    let (root, beside) = (world.root("root"), world.root("beside"));
    std::fs::create_dir_all(&beside).unwrap();
    crate::fixtures::unpack(crate::fixtures::SMALL, &root.join("u1/s1"));
    let mut command = world.bare("run", &root);
    command.args([
        "--webhook-url",
        &receiver.url,
        "--listen",
        "off",
        "--probe-listen",
        "off",
        "--mirror",
        "off",
    ]);
    let running = Running::spawn(command);
    eventually("the session is committed", async || !world.head().await.is_empty()).await;
    std::fs::write(root.join("u1/s1/creds.json"), "").unwrap();
    eventually("the receiver was asked", async || !receiver.seen().is_empty()).await;
    std::fs::create_dir_all(root.join("u2/s1")).unwrap();
    std::fs::write(root.join("u2/s1/a.json"), "1").unwrap();
    eventually("commits go on", async || !world.head_of("u2/s1").await.is_empty()).await;
    let asked = Instant::now();
    assert_eq!(running.stop().await, 3);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(receiver.seen()[0].header("webhook-signature"), "", "without a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_process_is_told_before_it_ends() {
    let receiver = serve(|_, _| json(204, "")).await;
    let world = World::new().await;
    let root = world.tree("root");
    let mut command = world.command("run", &root);
    // Well-formed, and of no project.
    command.env("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_of_another_project");
    command.env("SIDECAR_WEBHOOK_URL", &receiver.url).env("SIDECAR_WEBHOOK_SECRET", SECRET);
    command.args(["--listen", "off", "--probe-listen", "off"]);
    assert_eq!(finished(command).await.status.code(), Some(5));
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(body(&seen[0])["type"], "process.unauthorized");
    assert!(is_signed(&seen[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_says_whether_the_receiver_takes_what_is_signed() {
    let receiver = serve(|nth, _| if nth == 0 { json(200, "{}") } else { json(302, "{}") }).await;
    let world = World::new().await;
    let call = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        command.env_clear().args(["webhook-test", "--json"]);
        command.env("SIDECAR_WEBHOOK_URL", format!("{}/hush-hush", receiver.url));
        command.env("SIDECAR_WEBHOOK_SECRET", SECRET).current_dir(world.dir.path());
        command
    };
    let taken = finished(call()).await;
    assert!(taken.status.success(), "{taken:?}");
    let report: Value = serde_json::from_slice(&taken.stdout).unwrap();
    assert_eq!(report, serde_json::json!({ "event": "test.ping", "status": 200, "signed": true }));
    assert!(is_signed(&receiver.seen()[0]));
    assert_eq!(body(&receiver.seen()[0])["type"], "test.ping");
    let refused = finished(call()).await;
    assert_eq!(refused.status.code(), Some(8));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("answers 302") && !text.contains("hush"), "{text}");
}
