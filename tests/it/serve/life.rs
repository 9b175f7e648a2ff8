//! The life of a session through the real binary: linked once, and never asked to link again.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::service::{Service, serve};
use crate::support::world::{World, eventually, refused};
use crate::whatsapp::{Device, Seen, Server};

const SESSION: &str = "u1/s1";
const NUMBER: &str = "15550001111";
const FRIEND: &str = "15550002222";
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether the session's database lies below the root.
fn is_there(root: &Path) -> bool {
    root.join(SESSION).join("whatsapp.db").exists()
}

async fn receives(whatsapp: &Server, device: &Device, text: &str) {
    let id = whatsapp.peer(FRIEND, "Grace").send_text(device, text).await.unwrap();
    let acknowledged = |seen: &[Seen]| seen.contains(&Seen::Acknowledged(id.clone()));
    whatsapp.wait_until(PATIENCE, acknowledged).await.unwrap();
}

/// No new code was shown and nobody had to link again since.
fn handshakes_without_a_code(whatsapp: &Server, paired: usize) {
    let pairings = whatsapp.seen().iter().filter(|seen| matches!(seen, Seen::Paired(_))).count();
    assert_eq!(pairings, paired, "nobody linked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_session_survives_a_kill_and_the_loss_of_its_disk_without_a_code() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let device = service.link(SESSION, &phone).await;
    for n in 0..5 {
        receives(&whatsapp, &device, &format!("before {n}")).await;
    }
    service.sync(SESSION).await;
    service.kill();
    std::fs::remove_dir_all(&root).unwrap();

    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    service.is_in(SESSION, "WORKING").await;
    handshakes_without_a_code(&whatsapp, 1);
    receives(&whatsapp, &device, "after").await;
    let (_, sent) =
        service.post(&format!("/api/whatsapp/send/{SESSION}"), &json!({"to": FRIEND, "text": "hello"})).await;
    assert!(sent["messageId"].as_str().is_some_and(|id| !id.is_empty()), "{sent}");
    let friend = whatsapp.peer(FRIEND, "Grace");
    eventually("it arrives", async || whatsapp.received_by(&friend).len() == 1).await;
    assert!(!whatsapp.seen().iter().any(|seen| matches!(seen, Seen::AskedAgain(_) | Seen::Unreadable(_))));
    assert_eq!(phone.devices().len(), 1);
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_nothing_at_all_is_lost() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let device = service.link(SESSION, &phone).await;
    for n in 0..5 {
        receives(&whatsapp, &device, &format!("before {n}")).await;
    }
    assert_eq!(service.stop().await, 0);
    std::fs::remove_dir_all(&root).unwrap();

    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    service.is_in(SESSION, "WORKING").await;
    receives(&whatsapp, &device, "after").await;
    handshakes_without_a_code(&whatsapp, 1);
    assert!(!whatsapp.seen().iter().any(|seen| matches!(seen, Seen::AskedAgain(_))), "the ratchets go on");
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_told_to_be_off_stays_off_and_is_back_without_a_code() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    service.link(SESSION, &phone).await;
    let (status, answer) = service.post(&format!("/api/whatsapp/disconnect/{SESSION}"), &json!({})).await;
    assert!(status == 200 && answer["success"] == true, "{answer}");
    service.is_in(SESSION, "STOPPED").await;
    eventually("the table says so", async || {
        let (_, list) = service.get("/api/sessions/u1").await;
        list["sessions"][0]["session_data"]["sidecar"]["desired"] == false
    })
    .await;
    assert_eq!(service.stop().await, 0);

    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    eventually("it is restored", async || {
        let (_, list) = service.get("/api/sessions/u1").await;
        list["sessions"][0]["sync"] == "ready"
    })
    .await;
    assert_eq!(service.state(SESSION).await, "STOPPED");
    assert_eq!(phone.devices().len(), 1, "the link stays");
    service.connect(SESSION).await;
    service.is_in(SESSION, "WORKING").await;
    handshakes_without_a_code(&whatsapp, 1);
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_ends_the_link_and_the_next_connect_shows_a_new_code() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    service.link(SESSION, &phone).await;
    let (status, answer) = service.post(&format!("/api/whatsapp/logout/{SESSION}"), &json!({})).await;
    assert!(status == 200 && answer["success"] == true, "{answer}");
    eventually("the phone lists nothing", async || phone.devices().is_empty()).await;
    assert!(!is_there(&root), "the void keys do not lie there any more");
    let (_, history) = service.get(&format!("/api/sessions/{SESSION}/history")).await;
    let points = history["points"].as_array().unwrap();
    assert!(
        points.iter().any(|point| point["pins"] == json!(["logout"])),
        "the last state is kept: {history}"
    );
    service.link(SESSION, &phone).await;
    assert_eq!(phone.devices().len(), 1);
    assert_eq!(service.stop().await, 0);
}

/// The session's row, as an app reads it.
async fn row(world: &World) -> Value {
    let key = world.supabase.service_role_key();
    let url = format!("{}/rest/v1/whatsapp_sessions?session_id=eq.s1", world.supabase.url());
    let answer = reqwest::Client::new().get(url).bearer_auth(key).header("apikey", key).send().await.unwrap();
    let rows: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    rows[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_session_follows_its_whole_life() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let is = async |status: &str, active: bool| {
        eventually(&format!("the row says {status}"), async || {
            let row = row(&world).await;
            row["status"] == status && row["is_active"] == active
        })
        .await;
    };
    service.connect(SESSION).await;
    service.qr(SESSION).await;
    is("qr_generated", true).await;
    let device = service.link(SESSION, &phone).await;
    is("connected", true).await;
    assert_eq!(row(&world).await["session_data"]["sidecar"]["phone"], NUMBER);
    let (_, history) = service.get(&format!("/api/sessions/{SESSION}/history")).await;
    let body = json!({"at": history["head"]});
    assert_eq!(service.post(&format!("/api/sessions/{SESSION}/restore"), &body).await.0, 200);
    service.is_in(SESSION, "WORKING").await;
    assert_eq!(service.post(&format!("/api/whatsapp/disconnect/{SESSION}"), &json!({})).await.0, 200);
    is("disconnected", true).await;
    service.connect(SESSION).await;
    service.is_in(SESSION, "WORKING").await;
    is("connected", true).await;
    whatsapp.unlink(&device);
    is("logged_out", false).await;
    service.link(SESSION, &phone).await;
    is("connected", true).await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_device_is_recorded_and_history_keeps_what_it_was() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let device = service.link(SESSION, &phone).await;
    whatsapp.unlink(&device);
    service.is_in(SESSION, "FAILED").await;
    eventually("the void keys do not lie there any more", async || !is_there(&root)).await;
    let (_, status) = service.get(&format!("/api/whatsapp/status/{SESSION}")).await;
    assert_eq!(status["failure"]["code"], "logged_out", "{status}");
    assert_eq!(status["session"]["status"], "logged_out", "{status}");
    eventually("it is pinned", async || {
        let (_, history) = service.get(&format!("/api/sessions/{SESSION}/history")).await;
        history["points"]
            .as_array()
            .is_some_and(|points| points.iter().any(|p| p["pins"] == json!(["logout"])))
    })
    .await;
    service.link(SESSION, &phone).await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_is_gone_everywhere_and_its_name_is_free() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    service.link(SESSION, &phone).await;
    for _ in 0..2 {
        let (status, answer) = service.delete(&format!("/api/sessions/{SESSION}")).await;
        assert!(status == 200 && answer["success"] == true, "{status} {answer}");
    }
    assert!(phone.devices().is_empty() && !is_there(&root));
    let (_, list) = service.get("/api/sessions/u1").await;
    assert_eq!(list["sessions"], json!([]), "{list}");
    service.link(SESSION, &phone).await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_in_time_stops_the_connection_and_connects_it_again() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let device = service.link(SESSION, &phone).await;
    service.sync(SESSION).await;
    let (_, history) = service.get(&format!("/api/sessions/{SESSION}/history")).await;
    let head = history["head"].as_str().unwrap().to_owned();
    receives(&whatsapp, &device, "one").await;
    service.sync(SESSION).await;
    let (status, answer) =
        service.post(&format!("/api/sessions/{SESSION}/restore"), &json!({"at": head})).await;
    assert!(
        status == 200 && answer["action"] == "restored" && answer["restored"] == head,
        "{status} {answer}"
    );
    service.is_in(SESSION, "WORKING").await;
    handshakes_without_a_code(&whatsapp, 1);
    receives(&whatsapp, &device, "two").await;
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_librarys_account_is_not_touched() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let root = world.root("root");
    world.tree("root/u1/s1");
    let service = Service::start(&world, &whatsapp, &root, &[]).await;
    let (status, answer) = service.post(&format!("/api/whatsapp/connect/{SESSION}"), &json!({})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("other_engine")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("exec"), "{answer}");
    assert!(!is_there(&root));
    assert_eq!(service.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_supabase_it_is_refused_unless_it_is_told_that_this_disk_is_all() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let (root, phone) = (world.root("root"), whatsapp.phone(NUMBER, "Ada"));
    let bare = || {
        let mut command = serve(&world, &whatsapp, &root);
        command.env_remove("SUPABASE_URL").env_remove("SUPABASE_SERVICE_ROLE_KEY");
        command
    };
    let why = refused(bare(), 2).await;
    assert!(why.contains("--local-only"), "{why}");
    let local = || {
        let mut command = bare();
        command.env("SIDECAR_LOCAL_ONLY", "true");
        command
    };
    let service = Service::spawn(local()).await;
    let (_, health) = service.get("/api/health").await;
    assert_eq!(health["cloudStorage"], "disabled", "{health}");
    service.link(SESSION, &phone).await;
    assert_eq!(service.stop().await, 0);
    let service = Service::spawn(local()).await;
    service.connect(SESSION).await;
    service.is_in(SESSION, "WORKING").await;
    handshakes_without_a_code(&whatsapp, 1);
    let (status, _) = service.delete(&format!("/api/sessions/{SESSION}")).await;
    assert!(status == 200 && !is_there(&root));
    assert_eq!(service.stop().await, 0);
}
