//! A recorded life of the mobile client of the service that came before, against the real `serve`: each of its calls, and
//! every field that it reads.

use reqwest::Method;
use serde_json::{Value, json};
use session_sidecar::emulator::Emulator;
use tokio::time::Duration;

use crate::support::service::Service;
use crate::support::world::{World, eventually};
use crate::whatsapp::{Seen, Server};

const USER: &str = "7d3f2c1a-0000-4000-8000-00000000000a";
const PATIENCE: Duration = Duration::from_secs(30);

/// How the client names the session.
struct Client {
    service: Service,
    world: World,
    /// It knows its session, and has it in every path.
    session: Option<&'static str>,
}

impl Client {
    /// As its `fetch` does: JSON is announced, nothing is sent, anything but 2xx is a failure.
    async fn call(&self, method: &str, action: &str, body: &str) -> Value {
        let session = self.session.map(|session| format!("/{session}")).unwrap_or_default();
        self.service.ok(method, &format!("/api/whatsapp/{action}/{USER}{session}"), body, None).await
    }

    /// The session that is meant.
    fn id(&self) -> &'static str {
        self.session.unwrap_or("default")
    }

    async fn until(&self, state: &str) {
        self.service.until(&format!("{USER}/{}", self.id()), state, None).await;
    }

    /// What it reads by itself when the server fails.
    async fn reads_from_the_table(&self, status: &str) {
        let mut seen = Vec::new();
        eventually(&format!("the table says {status}"), async || {
            seen = rows(&self.world.supabase, USER, "is_active=eq.true&select=session_id,status").await;
            seen == [json!({"session_id": self.id(), "status": status})]
        })
        .await;
    }
}

/// Every field is there, with this value.
fn reads(answer: &Value, wanted: &Value) {
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(answer.get(field), Some(value), "{field}: {answer}");
    }
}

#[expect(clippy::too_many_lines, reason = "one life, told in the order in which it happens")]
async fn lives(session: Option<&'static str>) {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let service = Service::start(&world, &mock, &world.root("r"), &["--auth", "none"]).await;
    let client = Client { service, world, session };
    let (service, id) = (&client.service, client.id());

    let mut health = Value::Null;
    eventually("it is healthy", async || {
        health = service.ok("GET", "/api/health", "", None).await;
        health["status"] == "healthy"
    })
    .await;
    reads(&health, &json!({"status": "healthy", "cloudStorage": "enabled", "activeSessions": 0}));
    let now = health["timestamp"].as_str().unwrap();
    assert!(now.len() == "2026-11-28T01:00:00.000Z".len() && now.ends_with('Z'), "{now}");

    // Nothing is there yet.
    let none = client.call("GET", "status", "").await;
    let message = "No active connection found";
    reads(
        &none,
        &json!({"success": true, "connected": false, "connecting": false, "qrCode": null, "message": message}),
    );
    reads(
        &none,
        &json!({"sessionId": id, "session": {"sessionId": id, "userId": USER, "status": "not_found"}}),
    );
    let no_code = client.call("GET", "qr", "").await;
    reads(&no_code, &json!({"success": false, "message": "No QR code available"}));
    let list = service.ok("GET", &format!("/api/sessions/{USER}"), "", None).await;
    reads(&list, &json!({"success": true, "sessions": []}));

    // It connects, and draws the code itself.
    let connect = client.call("POST", "connect", "").await;
    reads(&connect, &json!({"success": true, "sessionId": id, "message": "WhatsApp connection initiated"}));
    let code = client.call("POST", "generate-qr", "").await;
    let qr = code["qrCode"].as_str().unwrap().to_owned();
    reads(&code, &json!({"success": true, "data": {"qrCode": qr}}));
    let status = client.call("GET", "status", "").await;
    let waits = "qr_generated";
    reads(
        &status,
        &json!({"success": true, "connected": false, "connecting": true, "connectionType": "mobile"}),
    );
    reads(&status, &json!({"qrCode": qr, "session": {"sessionId": id, "userId": USER, "status": waits}}));
    reads(&status["data"], &json!({"status": waits, "connected": false, "sessionId": id, "userId": USER}));
    let shown = client.call("GET", "qr", "").await;
    reads(&shown, &json!({"success": true, "qrCode": qr}));
    assert!(shown["qrCodeDataURL"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
    assert_eq!(client.call("GET", "generate-qr", "").await["qrCode"], qr.as_str());
    client.reads_from_the_table(waits).await;

    // The phone scans.
    let device = mock.phone("15550001111", "Ada").scan_qr(&qr).await.unwrap();
    client.until("WORKING").await;
    let status = client.call("GET", "status", "").await;
    reads(&status, &json!({"success": true, "connected": true, "connecting": false, "qrCode": null}));
    reads(&status["session"], &json!({"status": "connected"}));
    client.reads_from_the_table("connected").await;
    let list = service.ok("GET", &format!("/api/sessions/{USER}"), "", None).await;
    let row = &list["sessions"][0];
    reads(row, &json!({"user_id": USER, "session_id": id, "status": "connected", "is_active": true}));
    reads(row, &json!({"connection_type": "mobile", "max_connections": 5}));
    for column in
        ["session_name", "session_alias", "phone_number", "is_default", "session_data", "created_at"]
    {
        assert!(row.get(column).is_some(), "{column}: {row}");
    }
    assert_eq!(service.ok("GET", "/api/health", "", None).await["activeSessions"], 1);

    // WhatsApp does not answer for a while: the client is shown that it connects.
    mock.go_away(true);
    client.reads_from_the_table("connecting").await;
    reads(&client.call("GET", "status", "").await, &json!({"connected": false, "connecting": true}));
    mock.go_away(false);
    client.until("WORKING").await;

    // Its copy in the cloud, by hand.
    let sync = service.ok("POST", &format!("/api/sessions/{USER}/{id}/sync"), "", None).await;
    reads(&sync, &json!({"success": true, "failed": 0}));
    assert!(["uploaded", "exists"].contains(&sync["action"].as_str().unwrap()), "{sync}");
    let restore = service.ok("POST", &format!("/api/sessions/{USER}/{id}/restore"), "", None).await;
    reads(&restore, &json!({"success": true, "action": "restored", "failed": 0}));
    assert!(restore["downloaded"].as_u64().unwrap() > 0, "{restore}");
    client.until("WORKING").await;

    // A disconnect is none of the link, as it once was.
    let off = client.call("POST", "disconnect", &json!({"sessionId": id}).to_string()).await;
    reads(&off, &json!({"success": true, "message": "WhatsApp disconnected successfully"}));
    reads(
        &client.call("GET", "status", "").await,
        &json!({"connected": false, "connecting": false, "qrCode": null}),
    );
    client.reads_from_the_table("disconnected").await;
    client.call("POST", "connect", "").await;
    client.until("WORKING").await;
    assert_eq!(mock.count(&Seen::AskedToPair), 1, "it was linked once");

    // The client deletes rows by itself, and makes others: the session is there all the same.
    let table = Table::of(&client.world);
    table.send(Method::DELETE, &format!("?user_id=eq.{USER}"), None).await;
    reads(&client.call("GET", "status", "").await, &json!({"connected": true}));
    let list = service.ok("GET", &format!("/api/sessions/{USER}"), "", None).await;
    reads(&list["sessions"][0], &json!({"session_id": id, "status": "connected", "is_active": true}));
    let row = json!({"user_id": USER, "session_id": id, "session_data": {"theirs": 1}, "is_active": true});
    table.send(Method::POST, "?on_conflict=user_id,session_id", Some(row)).await;

    let clean = client.call("POST", "clean-session", &json!({"sessionId": id}).to_string()).await;
    reads(&clean, &json!({"success": true, "data": {"userId": USER, "sessionId": id}}));
    assert!(clean["message"].is_string());
    mock.wait_until(PATIENCE, |seen| seen.contains(&Seen::Removed(device.jid.clone()))).await.unwrap();
    assert_eq!(rows(&client.world.supabase, USER, "is_active=eq.true").await, Vec::<Value>::new());
    // And from the beginning.
    let anew = client.call("POST", "generate-qr", "").await;
    assert!(anew["qrCode"].is_string() && anew["qrCode"] != qr.as_str(), "{anew}");
    let deleted = service.ok("DELETE", &format!("/api/sessions/{USER}/{id}"), "", None).await;
    reads(&deleted, &json!({"success": true, "message": "Session deleted successfully"}));
    let list = service.ok("GET", &format!("/api/sessions/{USER}"), "", None).await;
    assert_eq!(list["sessions"], json!([]));
    assert_eq!(client.service.stop().await, 0);
}

/// Rows of the table as a user's app reads them with supabase-js: with the key that everybody has and its own token.
async fn rows(supabase: &Emulator, user: &str, filter: &str) -> Vec<Value> {
    let url = format!("{}/rest/v1/whatsapp_sessions?user_id=eq.{user}&{filter}", supabase.url());
    let request = reqwest::Client::new().get(url).header("apikey", supabase.anon_key());
    let response = request.bearer_auth(supabase.user_jwt(user)).send().await.unwrap();
    assert!(response.status().is_success(), "{filter}: {}", response.status());
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The table, to write to as the client does where the project's policies let it.
struct Table {
    url: String,
    key: String,
}

impl Table {
    fn of(world: &World) -> Self {
        let url = format!("{}/rest/v1/whatsapp_sessions", world.supabase.url());
        Self { url, key: world.supabase.service_role_key().to_owned() }
    }

    async fn send(&self, method: Method, query: &str, body: Option<Value>) {
        let request = reqwest::Client::new().request(method, format!("{}{query}", self.url));
        let request = request.header("apikey", &self.key).bearer_auth(&self.key);
        let request = request.header("prefer", "resolution=merge-duplicates");
        let response = body.iter().fold(request, reqwest::RequestBuilder::json).send().await.unwrap();
        assert!(response.status().is_success(), "{query}: {}", response.status());
    }
}

#[tokio::test]
async fn a_client_that_knows_its_session_lives_as_it_did() {
    lives(Some("session_1764291600000_0a1b2c3d")).await;
}

#[tokio::test]
async fn a_client_that_names_no_session_lives_as_it_did() {
    lives(None).await;
}
