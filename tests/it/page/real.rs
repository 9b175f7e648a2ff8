//! The page of the real `serve`, in a real browser, with a phone that scans what it shows.

use super::card;
use crate::support::browser::Browser;
use crate::support::service::{Service, serve};
use crate::support::world::{World, eventually};
use crate::whatsapp::Server;

const USER: &str = "alice";

/// What is drawn, and whether it is.
const QR: &str = "document.querySelector('[data-f=qr]').src";
const DRAWN: &str = "document.querySelector('[data-f=qr]').naturalWidth > 0";

#[tokio::test]
async fn a_person_makes_a_session_scans_its_code_and_ends_it_again() {
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let mut command = serve(&world, &mock, &world.root("r"));
    command.env("SUPABASE_JWT_SECRET", world.supabase.jwt_secret());
    let service = Service::spawn(command).await;
    let token = world.supabase.user_jwt(USER);
    let browser = Browser::start().await;

    // A user's own token says whose it is.
    browser.open(&service.url, "").await;
    browser.look("real-sign-in").await;
    browser.write("#token", &token).await;
    browser.click("#sign-in-form button").await;
    browser.see("#empty", "No session yet").await;
    browser.see("#feed", "Live").await;
    browser.look("real-empty").await;

    browser.click("#new-session").await;
    browser.write("#ask-input", "Shop counter").await;
    browser.click("#ask-yes").await;
    let (state, name) = (card("shop-counter", ".state"), card("shop-counter", "h2"));
    browser.see(&state, "Waiting for the phone").await;
    browser.see(&name, "Shop counter").await;
    browser.see(&card("shop-counter", "[data-f=qrLeft]"), "New code in ").await;
    browser.holds(DRAWN).await;
    browser.look("real-qr").await;

    // WhatsApp drops the line, and with it the code: the page shows the next one by itself.
    let first = browser.value(QR).await;
    mock.go_away(true);
    mock.go_away(false);
    browser.holds(&format!("{QR}.startsWith('blob:') && {QR} !== {first} && {DRAWN}")).await;
    let status = service.ok("GET", "/api/whatsapp/status/alice/shop-counter", "", Some(&token)).await;
    let device = mock.phone("15550001111", "Ada").scan_qr(status["qrCode"].as_str().unwrap()).await.unwrap();
    browser.see(&state, "Linked").await;
    browser.gone(&card("shop-counter", "[data-f=qr]")).await;
    // For those who do not see it.
    browser.holds("document.querySelector('#live').textContent === 'Shop counter: Linked'").await;
    browser.see(&card("shop-counter", "[data-f=phone]"), "+15 •••• 11").await;
    browser.see(&card("shop-counter", "[data-f=saving]"), "Up to date").await;
    browser.see(&card("shop-counter", ".facts"), "1 (").await;

    mock.peer("15550002222", "Eve").send_text(&device, "hello").await.unwrap();
    browser.see(&card("shop-counter", "[data-f=messages]"), "1, last ").await;
    browser.click(&card("shop-counter", "[data-do=sync]")).await;
    browser.see(&card("shop-counter", "[data-f=notice]"), "aved").await;
    browser.look("real-linked").await;
    browser.click(&card("shop-counter", "[data-do=history]")).await;
    browser.see("#history-rows tr:first-child", "Newest").await;
    browser.look("real-history").await;
    browser.click("#history-rows tr:nth-child(2) button").await;
    browser.click("#ask-yes").await;
    browser.see("#history-notice", "Restored").await;
    browser.click("#history-close").await;

    // A session that is made elsewhere, and one that goes there, come and go by themselves.
    service.ok("POST", "/api/whatsapp/connect/alice/desk", "", Some(&token)).await;
    browser.see(&card("desk", ".state"), "Waiting for the phone").await;
    service.ok("DELETE", "/api/sessions/alice/desk", "", Some(&token)).await;
    browser.gone(&card("desk", "h2")).await;
    eventually("the row of the other is told", async || {
        let rows = world.supabase.tables().sessions;
        rows.iter().all(|row| row["session_id"] != "desk" || row["is_active"] == false)
    })
    .await;

    // Off and on again, without a code.
    browser.see(&state, "Linked").await;
    browser.click(&card("shop-counter", "[data-do=disconnect]")).await;
    browser.see(&state, "Off").await;
    browser.click(&card("shop-counter", "[data-do=connect]")).await;
    browser.see(&state, "Linked").await;

    // Unlinked on the phone: the page says so, and what to do.
    mock.unlink(&device);
    browser.see(&state, "Logged out").await;
    browser.look("real-logged-out").await;
    // Also to who comes later.
    browser.open(&service.url, "").await;
    browser.see(&state, "Logged out").await;
    browser.click(&card("shop-counter", "[data-do=connect]")).await;
    browser.see(&state, "Waiting for the phone").await;

    browser.click(&card("shop-counter", "[data-do=remove]")).await;
    browser.write("#ask-input", "shop-counter").await;
    browser.click("#ask-yes").await;
    browser.see("#empty", "No session yet").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    assert_eq!(service.stop().await, 0);
    browser.see("#home-notice", "cannot be reached").await;
    browser.look("real-away").await;
    browser.close().await;
}
