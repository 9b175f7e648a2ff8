//! The page at `/`, in a real browser: the life of a session on the real `serve`, and what is hard to bring about there on a
//! stand-in.

#[cfg(all(feature = "dev", feature = "runner"))]
mod real;
mod service;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use service::{Service, TOKEN, USER};

fn after(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string()
}

/// A row of the list, of a session that is looked after.
fn row(name: &str) -> Value {
    let last = after(-12);
    json!({
        "user_id": USER, "session_name": name, "is_active": true, "sync": "ready",
        "files": 23_746, "bytes": 14_012_345, "lastSyncAt": last, "held": [], "alarms": [],
    })
}

fn working() -> Value {
    json!({"success": true, "state": "WORKING", "me": {"id": "4915123456789:3@s.whatsapp.net"}})
}

fn scan(code: &str) -> Value {
    json!({"success": true, "state": "SCAN_QR_CODE", "qr": {"code": code, "expiresAt": after(20)}})
}

/// Of a session's card.
fn card(id: &str, part: &str) -> String {
    format!("[data-session='{id}'] {part}")
}

#[tokio::test]
async fn a_refused_token_leads_back_to_the_form_and_no_address_ever_holds_one() {
    let (service, browser) = (Service::start().await, Browser::start().await);
    service.set("shop", row("Shop counter"), working());
    browser.open(&service.url, "").await;
    browser.sign_in("wrong", USER).await;
    browser.see("#sign-in-notice", "did not accept this token").await;
    browser.holds("document.activeElement.id === 'token' && !document.activeElement.value").await;

    browser.sign_in(TOKEN, USER).await;
    browser.see(&card("shop", "h2"), "Shop counter").await;
    // Masked until it is asked for.
    browser.see(&card("shop", "[data-f=phone]"), "+49 •••• 89").await;
    browser.click(&card("shop", "[data-do=togglePhone]")).await;
    browser.see(&card("shop", "[data-f=phone]"), "+4915123456789").await;

    browser.click("#sign-out").await;
    browser.gone("#home").await;
    browser.holds("!Object.values(sessionStorage).join('').includes('token')").await;

    browser.open(&service.url, &Service::ticket()).await;
    browser.see(&card("shop", "h2"), "Shop counter").await;
    browser.holds("location.hash === '' && !location.href.includes('token')").await;
    // Kept for the tab: a reload does not ask again.
    browser.open(&service.url, "").await;
    browser.see(&card("shop", "h2"), "Shop counter").await;
    let calls = service.calls();
    assert!(calls.iter().all(|call| !call.contains("token")), "{calls:?}");
    browser.close().await;
}

#[tokio::test]
async fn without_a_stream_the_page_asks_every_two_seconds_until_there_is_one_again() {
    let (service, browser) = (Service::start().await, Browser::start().await);
    service.set("shop", row("Shop counter"), scan("first"));
    browser.open(&service.url, &Service::ticket()).await;
    browser.see("#feed", "Live").await;
    service.mute(true);
    browser.see("#feed", "Checking every 2 s").await;
    service.set_quietly("shop", working());
    browser.see(&card("shop", ".state"), "Linked").await;
    service.mute(false);
    browser.see("#feed", "Live").await;
    service.set("shop", row("Shop counter"), scan("second"));
    browser.see(&card("shop", ".state"), "Waiting for the phone").await;
    browser.close().await;
}

#[tokio::test]
async fn a_phone_number_and_a_passkey_lead_to_a_linked_phone_too() {
    let (service, browser) = (Service::start().await, Browser::start().await);
    service.set("shop", row("Shop counter"), scan("first"));
    browser.open(&service.url, &Service::ticket()).await;
    browser.click(&card("shop", "summary")).await;
    browser.write(&card("shop", "[data-f=pairPhone]"), "+49 151 23456789").await;
    browser.click(&card("shop", "[data-f=pairForm] button")).await;
    browser.holds("!document.querySelector('[data-f=pairPhone]').value").await;
    let asked = service.body_of("POST /api/whatsapp/pairing-code/alice/shop").unwrap();
    assert_eq!(asked, json!({"phoneNumber": "4915123456789"}));
    let mut coded = scan("first");
    coded["pairingCode"] = json!({"code": "ABCD-EFGH", "expiresAt": after(160)});
    service.set("shop", row("Shop counter"), coded);
    browser.see(&card("shop", "[data-f=pairCode]"), "ABCD-EFGH").await;
    browser.look("pairing").await;

    let options = json!({
        "challenge": "AAAA", "rpId": "web.whatsapp.com", "timeout": 60_000, "userVerification": "required",
        "allowCredentials": [{"id": "AQID", "type": "public-key"}],
    });
    let passkey = json!({"step": "challenge", "options": options});
    service.set(
        "shop",
        row("Shop counter"),
        json!({"success": true, "state": "PASSKEY_REQUIRED", "passkey": passkey}),
    );
    browser.see(&card("shop", ".state"), "Passkey needed").await;
    // Only WhatsApp's own pages may use its passkeys: the page says so, and takes an answer from elsewhere.
    browser.click(&card("shop", "[data-do=tryPasskey]")).await;
    browser.see(&card("shop", "[data-f=notice]"), "this passkey belongs to whatsapp.com").await;
    browser.look("passkey").await;
    browser.write(&card("shop", "[data-f=assertion]"), "not JSON").await;
    browser.click(&card("shop", "[data-f=assertForm] button")).await;
    browser.see(&card("shop", "[data-f=notice]"), "no JSON").await;
    browser.write(&card("shop", "[data-f=assertion]"), r#"{"id":"AQID","type":"public-key"}"#).await;
    browser.click(&card("shop", "[data-f=assertForm] button")).await;
    browser.holds("!document.querySelector('[data-f=assertion]').value").await;
    let given = service.body_of("POST /api/whatsapp/passkey/alice/shop").unwrap();
    assert_eq!(given, json!({"id": "AQID", "type": "public-key"}));

    let passkey = json!({"step": "confirm", "code": "K7QX-2M4P"});
    let confirm = json!({"success": true, "state": "PASSKEY_CONFIRMATION_REQUIRED", "passkey": passkey});
    service.set("shop", row("Shop counter"), confirm);
    browser.see(&card("shop", "[data-f=confirmCode]"), "K7QX-2M4P").await;
    service.set_quietly("shop", working());
    browser.click(&card("shop", "[data-do=confirmPasskey]")).await;
    browser.see(&card("shop", ".state"), "Linked").await;
    assert!(service.body_of("POST /api/whatsapp/passkey/alice/shop/confirm").is_some());
    browser.close().await;
}

#[tokio::test]
async fn nothing_is_restored_logged_out_or_deleted_before_a_person_has_said_so() {
    let (service, browser) = (Service::start().await, Browser::start().await);
    service.set("shop", row("Shop counter"), working());
    let (head, old) = ("0000000003-0000000007-a1b2", "0000000002-0000000091-77aa");
    let points = json!([
        {"id": head, "base": false, "created_at": after(-12), "size": 34_567, "in_chain": true, "pins": []},
        {"id": old, "base": true, "created_at": after(-90_000), "size": 5_234_567, "in_chain": false, "pins": ["logout"]},
    ]);
    let history = json!({"success": true, "session": "alice/shop", "head": head, "points": points});
    service.answer("GET /api/sessions/alice/shop/history", history);
    browser.open(&service.url, &Service::ticket()).await;

    browser.click(&card("shop", "[data-do=history]")).await;
    browser.see("#history-rows tr:first-child", "Newest").await;
    browser.see("#history-rows tr:last-child", "Kept: logout").await;
    browser.look("history").await;
    browser.click("#history-rows button").await;
    browser.see("#ask", "Go back to this point?").await;
    browser.holds("document.activeElement.id === 'ask-no'").await;
    browser.click("#ask-no").await;
    browser.gone("#ask").await;
    assert!(service.calls().iter().all(|call| !call.contains("restore")));
    browser.click("#history-rows button").await;
    browser.click("#ask-yes").await;
    browser.see("#history-notice", "Restored").await;
    assert_eq!(service.body_of("POST /api/sessions/alice/shop/restore"), Some(json!({"at": old})));
    browser.click("#history-close").await;
    browser.holds("document.activeElement.dataset.do === 'history'").await;

    browser.click(&card("shop", "[data-do=logout]")).await;
    browser.see("#ask", "Log out Shop counter?").await;
    browser.click("#ask-no").await;
    browser.gone("#ask").await;
    browser.click(&card("shop", "[data-do=remove]")).await;
    browser.write("#ask-input", "Shop").await;
    browser.click("#ask-yes").await;
    browser.see("#ask", "Type shop to go on").await;
    assert!(service.calls().iter().all(|call| !call.contains("logout") && !call.starts_with("DELETE")));
    browser.write("#ask-input", "shop").await;
    service.remove("shop");
    browser.click("#ask-yes").await;
    browser.see("#empty", "No session yet").await;
    assert!(service.body_of("DELETE /api/sessions/alice/shop").is_some());
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn whatever_state_a_session_is_in_the_page_says_so_in_words_and_fits_the_screen() {
    let (service, browser) = (Service::start().await, Browser::start().await);
    service.set("a-linked", row("Shop counter"), working());
    service.set("b-waiting", row("Support desk"), scan("first"));
    // Names are people's: text, whatever they hold.
    let mut held = row("<img src=x onerror=alert(1)>");
    held["sync"] = json!("held");
    held["held"] = json!([{"path": "creds.json", "reason": "no account in it", "since": after(-90)}]);
    held["alarms"] = json!(["creds.json is held: restore a point of the past, or accept the new identity."]);
    let failure =
        json!({"code": "logged_out", "message": "The link is gone: connect again for a new QR code."});
    service.set("c-gone", held, json!({"success": true, "state": "FAILED", "failure": failure}));
    service.set(
        "d-off",
        row("A name that is so long that it needs more than one line on every phone"),
        json!({"success": true, "state": "STOPPED"}),
    );
    let failure = json!({"code": "unreachable", "message": "WhatsApp cannot be reached; it is tried again."});
    let starting = json!({"success": true, "state": "STARTING", "failure": failure, "nextTryAt": after(40)});
    service.set("e-starting", row("Orders"), starting);
    browser.open(&service.url, &Service::ticket()).await;

    browser.see(&card("a-linked", ".state"), "Linked").await;
    browser.see(&card("a-linked", ".facts"), "23,746 (14 MB)").await;
    browser.see(&card("a-linked", ".facts"), "s ago").await;
    browser.see(&card("b-waiting", ".state"), "Waiting for the phone").await;
    browser.see(&card("c-gone", "h2"), "<img src=x onerror=alert(1)>").await;
    browser.see(&card("c-gone", ".state"), "Logged out").await;
    browser.see(&card("c-gone", "[data-f=failure]"), "connect again").await;
    browser.see(&card("c-gone", ".alarms"), "creds.json is held").await;
    browser.see(&card("c-gone", ".facts"), "Paused until you decide").await;
    browser.see(&card("c-gone", "[data-f=heldBox]"), "1 file is held").await;
    browser.see(&card("d-off", ".state"), "Off").await;
    browser.see(&card("e-starting", "[data-f=explain]"), "Next try in").await;
    browser.look("sessions").await;

    service.answer(
        "POST /api/sessions/alice/c-gone/sync",
        json!({"success": true, "action": "uploaded", "held": ["creds.json"]}),
    );
    browser.click(&card("c-gone", "[data-do=sync]")).await;
    browser.see(&card("c-gone", "[data-f=notice]"), "Saved, but for 1 file").await;
    browser.click(&card("d-off", "[data-do=connect]")).await;
    browser.holds("!document.querySelector('[aria-busy=true]')").await;
    assert!(service.body_of("POST /api/whatsapp/connect/alice/d-off").is_some());
    browser.click(&card("a-linked", "[data-do=disconnect]")).await;
    browser.holds("!document.querySelector('[aria-busy=true]')").await;
    assert!(service.body_of("POST /api/whatsapp/disconnect/alice/a-linked").is_some());

    browser.click("#new-session").await;
    browser.write("#ask-input", "Zoë & Co").await;
    browser.click("#ask-yes").await;
    browser.see(&card("zoe-co", ".state"), "Off").await;
    let made = service.body_of("POST /api/whatsapp/connect/alice/zoe-co").unwrap();
    assert_eq!(made, json!({"sessionName": "Zoë & Co"}));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}
