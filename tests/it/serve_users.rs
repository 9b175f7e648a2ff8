//! Users of one project on one `serve`: each has their own sessions, and nothing of another's exists for them.

use serde_json::{Value, json};

use crate::runner::support::pn;
use crate::support::service::{self, Service};
use crate::support::world::World;
use crate::whatsapp::{Device, Server};

/// Of both users, with the number that each is linked to.
const SESSIONS: [(&str, &str, &str); 4] = [
    ("ann", "shop", "15550001111"),
    ("ann", "desk", "15550001112"),
    ("bob", "shop", "15550002221"),
    ("bob", "home", "15550002222"),
];

async fn serve(world: &World, mock: &Server) -> Service {
    let mut command = service::serve(world, mock, &world.root("r"));
    command.env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
    Service::spawn(command).await
}

/// Links a session to a phone, as its user.
async fn link(service: &Service, mock: &Server, key: (&str, &str, &str), token: &str) -> Device {
    let (user, session, number) = key;
    service.ok("POST", &format!("/api/whatsapp/connect/{user}/{session}"), "", Some(token)).await;
    let path = format!("/api/whatsapp/generate-qr/{user}/{session}");
    let answer = service.ok("POST", &path, "", Some(token)).await;
    let code = answer["qrCode"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let device = mock.phone(number, session).scan_qr(code).await.unwrap();
    let status = service.until(&format!("{user}/{session}"), "WORKING", Some(token)).await;
    assert_eq!(status["me"]["id"], device.jid.to_string(), "{user}/{session}");
    device
}

async fn names(service: &Service, user: &str, token: &str) -> Vec<String> {
    let list = service.ok("GET", &format!("/api/sessions/{user}"), "", Some(token)).await;
    let mut names: Vec<_> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{}/{} {}", row["user_id"], row["session_id"], row["state"]).replace('"', ""))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_one_user_does_to_a_session_reaches_no_other_session_and_no_other_user() {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let service = serve(&world, &mock).await;
    let token = |user: &str| world.supabase.user_jwt(user);
    let mut devices = Vec::new();
    for key in SESSIONS {
        devices.push(link(&service, &mock, key, &token(key.0)).await);
    }
    assert_eq!(names(&service, "ann", &token("ann")).await, ["ann/desk WORKING", "ann/shop WORKING"]);
    assert_eq!(names(&service, "bob", &token("bob")).await, ["bob/home WORKING", "bob/shop WORKING"]);

    // Sessions of the same name are not the same.
    let friend = mock.peer("15550009999", "Eve");
    for user in ["ann", "bob"] {
        let body = json!({"to": "15550009999", "text": format!("from {user}")}).to_string();
        service.ok("POST", &format!("/api/whatsapp/send/{user}/shop"), &body, Some(&token(user))).await;
    }
    let texts: Vec<_> = mock.received_by(&friend).into_iter().map(|one| one.text).collect();
    assert_eq!(texts, ["from ann", "from bob"]);

    // One ends: the others go on.
    service.ok("POST", "/api/whatsapp/disconnect/ann/shop", "", Some(&token("ann"))).await;
    service.ok("DELETE", "/api/sessions/bob/shop", "", Some(&token("bob"))).await;
    assert_eq!(names(&service, "ann", &token("ann")).await, ["ann/desk WORKING", "ann/shop STOPPED"]);
    assert_eq!(names(&service, "bob", &token("bob")).await, ["bob/home WORKING"]);
    let online: Vec<bool> = devices.iter().map(|device| mock.is_online(device)).collect();
    assert_eq!(online, [false, true, false, true]);
    // Ann's was not logged out with it.
    service.ok("POST", "/api/whatsapp/connect/ann/shop", "", Some(&token("ann"))).await;
    service.until("ann/shop", "WORKING", Some(&token("ann"))).await;
    assert!(mock.is_online(&devices[0]));
    assert_eq!(service.stop().await, 0);
    // What was kept of each is its own account's.
    for (user, session, number) in [SESSIONS[0], SESSIONS[1], SESSIONS[3]] {
        let head = world.head_of(&format!("{user}/{session}")).await;
        let (_, database) = &head["whatsapp.db"];
        let copy = world.dir.path().join("copy.db");
        std::fs::write(&copy, database).unwrap();
        let account = pn(&copy);
        assert!(account.starts_with(number), "{user}/{session}: {account}");
    }
}

#[tokio::test]
async fn another_users_path_is_404_on_every_call_of_the_document() {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let service = serve(&world, &mock).await;
    let bob = world.supabase.user_jwt("bob");
    service.ok("POST", "/api/whatsapp/connect/bob/shop", "", Some(&bob)).await;
    let before = service.until("bob/shop", "SCAN_QR_CODE", Some(&bob)).await;

    let document = service.ok("GET", "/openapi.json", "", None).await;
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.contains("{user}") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            count += 1;
            // Somebody else each time: how often one may call is not the question.
            let stranger = world.supabase.user_jwt(&format!("ann-{count}"));
            let ask = async |user: &str| {
                let path = path.replace("{user}", user).replace("{session}", "shop");
                service.call(&method.to_uppercase(), &path, "", Some(&stranger)).await
            };
            let (status, theirs) = ask("bob").await;
            assert_eq!((status, &theirs["code"]), (404, &json!("not_found")), "{method} {path}");
            assert_eq!(
                ask("nobody").await,
                (404, theirs),
                "{method} {path}: whether there is one does not show"
            );
        }
    }
    assert!(count >= 34, "{count}");
    let after = service.ok("GET", "/api/whatsapp/status/bob/shop", "", Some(&bob)).await;
    assert_eq!(after["qr"], before["qr"], "nothing was done to it");

    // Nobody's tokens, and those that must not be users'.
    let supabase = &world.supabase;
    let expired =
        json!({"role": "authenticated", "aud": "authenticated", "sub": "bob", "exp": 1_700_000_000});
    for token in
        [supabase.jwt(&expired), supabase.anon_key().into(), supabase.service_role_key().into(), "x".into()]
    {
        let (status, answer) = service.call("GET", "/api/sessions/bob", "", Some(&token)).await;
        assert_eq!((status, &answer["code"]), (401, &Value::from("unauthorized")));
    }
    let (status, _) = service.get("/api/sessions/bob").await;
    assert_eq!(status, 401);
}
