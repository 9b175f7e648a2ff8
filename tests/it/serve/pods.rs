//! Two processes on one project: a rolling deployment, and two containers of one pod.

use std::time::Duration;

use serde_json::{Value, json};
use session_sidecar::emulator::Faults;

use crate::support::service::{Service, connects_to};
use crate::support::world::{World, eventually, files};
use crate::whatsapp::{Seen, Server};

const SESSION: &str = "u1/s1";
const NUMBER: &str = "15550001111";

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deployment_hands_the_connection_over_without_a_code_or_a_fight() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let phone = whatsapp.phone(NUMBER, "Ada");
    let old = Service::start(&world, &whatsapp, &world.root("old"), &[]).await;
    let device = old.link(SESSION, &phone).await;
    let new = Service::start(&world, &whatsapp, &world.root("new"), &[]).await;
    new.is_in(SESSION, "WORKING").await;
    assert_ne!(old.state(SESSION).await, "WORKING");
    assert_eq!(old.stop().await, 0);

    let friend = whatsapp.peer("15550002222", "Grace");
    let id = friend.send_text(&device, "to the new one").await.unwrap();
    let seen = |seen: &[Seen]| seen.contains(&Seen::Acknowledged(id.clone()));
    whatsapp.wait_until(Duration::from_mins(1), seen).await.unwrap();
    assert_eq!(new.state(SESSION).await, "WORKING");
    let pairings = whatsapp.seen().iter().filter(|seen| matches!(seen, Seen::Paired(_))).count();
    assert_eq!(pairings, 1);
    assert_eq!(new.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_deploy_hands_the_session_back() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let phone = whatsapp.phone(NUMBER, "Ada");
    let old = Service::start(&world, &whatsapp, &world.root("old"), &[]).await;
    old.link(SESSION, &phone).await;
    let new = Service::start(&world, &whatsapp, &world.root("new"), &[]).await;
    eventually("the old one gave it away", async || old.state(SESSION).await != "WORKING").await;
    new.kill();
    old.is_in(SESSION, "WORKING").await;
    assert_eq!(phone.devices().len(), 1);
    assert_eq!(old.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_connections_go_on_unless_that_is_too_risky() {
    for strict in [false, true] {
        let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
        let phone = whatsapp.phone(NUMBER, "Ada");
        let more: &[&str] = if strict { &["--lease-strict"] } else { &[] };
        let service = Service::start(&world, &whatsapp, &world.root("root"), more).await;
        service.link(SESSION, &phone).await;
        world.supabase.set_faults("down=database".parse().unwrap());
        eventually("the lease ran out", async || {
            let (_, list) = service.get("/api/sessions/u1").await;
            list["sessions"][0]["sync"] == "queued"
                || list["sessions"][0]["alarms"].to_string().contains("ran out")
        })
        .await;
        if strict {
            eventually("it is off", async || service.state(SESSION).await != "WORKING").await;
        } else {
            assert_eq!(service.state(SESSION).await, "WORKING");
            service.sync(SESSION).await;
        }
        world.supabase.set_faults(Faults::default());
        service.is_in(SESSION, "WORKING").await;
        assert_eq!(phone.devices().len(), 1);
        assert_eq!(service.stop().await, 0);
    }
}

/// The sidecar of a pod, and the runner beside it.
#[tokio::test(flavor = "multi_thread")]
async fn in_two_containers_clients_see_one_service() {
    for by_socket in [true, false] {
        let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
        let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
        let mut sidecar = world.bare("run", &root);
        sidecar.args(["--probe-listen", "off", "--quiet-window", "50ms", "--mirror", "off"]);
        sidecar.args(["--lease-ttl", "2s", "--listen", "127.0.0.1:0"]).env("API_TOKEN", "the-token");
        let sidecar = Service::spawn(sidecar).await;
        let mut runner = std::process::Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        runner.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("API_TOKEN", "the-token");
        if !by_socket {
            runner.env("SIDECAR_URL", &sidecar.url);
        }
        runner.arg("runner").arg("--root").arg(&root).env("SIDECAR_AUTH", "token");
        connects_to(&mut runner, &whatsapp);
        let runner = Service::spawn(runner).await;
        let http = reqwest::Client::new();
        let call = async |method: reqwest::Method, path: &str, body: Value| {
            let request = http.request(method, format!("{}{path}", runner.url)).bearer_auth("the-token");
            runner.answer(request.json(&body)).await
        };
        let (post, get) = (reqwest::Method::POST, reqwest::Method::GET);
        let (status, answer) = call(post.clone(), "/api/whatsapp/connect/u1/s1", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        let mut code = String::new();
        eventually("a code is shown", async || {
            let (_, answer) = call(get.clone(), "/api/whatsapp/qr/u1/s1", Value::Null).await;
            answer["qrCode"].as_str().unwrap_or_default().clone_into(&mut code);
            !code.is_empty()
        })
        .await;
        phone.scan_qr(&code).await.unwrap();
        eventually("it works", async || {
            call(get.clone(), "/api/whatsapp/status/u1/s1", Value::Null).await.1["state"] == "WORKING"
        })
        .await;
        let (status, synced) = call(post.clone(), "/api/sessions/u1/s1/sync", json!({})).await;
        assert!(status == 200 && synced["commit"].is_string(), "{synced}");
        let (_, list) = call(get, "/api/sessions/u1", Value::Null).await;
        assert_eq!(list["sessions"][0]["session_id"], "s1", "{list}");
        let (status, gone) = call(reqwest::Method::DELETE, "/api/sessions/u1/s1", json!({})).await;
        assert!(status == 200 && phone.devices().is_empty(), "{gone}");
        assert_eq!(runner.stop().await, 0);
        assert_eq!(sidecar.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_bot_is_not_ours_replaces_no_tree_whoever_asks() {
    let world = World::new().await;
    let root = world.root("root");
    let tree = files(&world.tree("root/u1/s1"));
    let mut sidecar = world.bare("run", &root);
    sidecar.args(["--probe-listen", "off", "--mirror", "off", "--listen", "127.0.0.1:0"]);
    sidecar.env("API_TOKEN", "the-token");
    let sidecar = Service::spawn(sidecar).await;
    let http = reqwest::Client::new();
    let ask = async |method: reqwest::Method, path: &str, body: Value| {
        let request = http.request(method, format!("{}{path}", sidecar.url)).bearer_auth("the-token");
        sidecar.answer(request.json(&body)).await
    };
    eventually("it is kept", async || {
        ask(reqwest::Method::GET, "/api/sessions/u1", Value::Null).await.1["sessions"][0]["sync"] == "ready"
    })
    .await;
    let key = json!({"session": "u1/s1"});
    for (method, path, body) in [
        (reqwest::Method::POST, "/control/delete", key.clone()),
        (reqwest::Method::POST, "/control/restore", key.clone()),
        (reqwest::Method::POST, "/control/give-way", key),
        (reqwest::Method::DELETE, "/api/sessions/u1/s1", json!({})),
        (reqwest::Method::POST, "/api/sessions/u1/s1/restore", json!({})),
    ] {
        let (status, answer) = ask(method, path, body).await;
        assert!(
            status == 409 && answer.to_string().contains("not ours to stop"),
            "{path}: {status} {answer}"
        );
    }
    assert!(files(&root.join("u1/s1")) == tree);
    assert_eq!(sidecar.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_is_the_whole_service_without_any_configuration() {
    let whatsapp = Server::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let phone = whatsapp.phone(NUMBER, "Ada");
    let dev = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).current_dir(dir.path()).arg("dev");
        command.args(["--lease-ttl", "2s"]);
        connects_to(&mut command, &whatsapp);
        command
    };
    let service = Service::spawn(dev()).await;
    service.link(SESSION, &phone).await;
    let page = reqwest::get(&service.url).await.unwrap();
    assert!(page.status() == 200 && page.text().await.unwrap().contains("<!doctype html"));
    assert_eq!(service.stop().await, 0);
    std::fs::remove_dir_all(dir.path().join("sessions")).unwrap();
    let service = Service::spawn(dev()).await;
    service.is_in(SESSION, "WORKING").await;
    assert_eq!(service.stop().await, 0);
}
