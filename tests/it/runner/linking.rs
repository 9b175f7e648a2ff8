//! From nothing to a linked device: by QR code, by a typed code, with a passkey.

use serde_json::json;
use session_sidecar::error::Code;
use session_sidecar::runner::port::{FailureCode, Passkey, State};
use tokio::time::timeout;

use super::support::{NUMBER, PATIENCE, Setting, pn, when};
use crate::whatsapp::{Pattern, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_links_the_session_and_nobody_is_told_before_the_link_is_on_the_disk() {
    let setting = Setting::new().await;
    let first = setting.runner.start(&setting.key, &setting.dir()).await.unwrap();
    assert_eq!(first.state, State::Starting);
    let shown = setting.until(State::ScanQrCode).await;
    assert!(shown.me.is_none() && shown.failure.is_none());
    let device = setting.scan().await;
    let shown = setting.until(State::Working).await;
    let me = shown.me.unwrap();
    assert_eq!((me.id.clone(), me.phone()), (device.jid.to_string(), Some(NUMBER)));
    assert_eq!(me.lid, Some(device.lid.to_string()));
    assert_eq!((shown.qr, shown.failure), (None, None));
    // What the hook found in a copy of the database, before WORKING was shown.
    assert_eq!(*setting.told.paired.lock().unwrap(), [device.jid.to_string()]);
    let states = setting.told.states.lock().unwrap().clone();
    assert_eq!(states, [State::Starting, State::ScanQrCode, State::Starting, State::Working]);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_not_this_session_s_fails_and_the_one_on_show_stays_good() {
    let setting = Setting::new().await;
    setting.start().await;
    let qr = setting.until(State::ScanQrCode).await.qr.unwrap().code;
    let mut fields: Vec<_> = qr.split(',').collect();
    fields[3] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(setting.phone.scan_qr(&fields.join(",")).await.is_err());
    let shown = setting.shows(FailureCode::PairingFailed).await;
    assert_eq!((shown.state, shown.qr.unwrap().code), (State::ScanQrCode, qr));
    setting.scan().await;
    assert_eq!(setting.until(State::Working).await.failure, None);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_typed_into_the_phone_links_the_session() {
    let setting = Setting::new().await;
    let ask = async |phone: &str| setting.runner.pairing_code(&setting.key, phone).await;
    assert_eq!(ask(NUMBER).await.unwrap_err().code(), Code::NotConnected);
    setting.start().await;
    assert_eq!(ask("0123").await.unwrap_err().code(), Code::Usage);
    // The first code is void once another number is typed.
    ask("15559998888").await.unwrap();
    let code = ask("+1 555 000 1111").await.unwrap();
    assert!(code.code.len() == 9 && code.code.as_bytes()[4] == b'-', "not ABCD-EFGH");
    let is_shown = |shown: &_| pairing_code(shown).is_some_and(|on_show| on_show == code.code);
    let shown = when(&setting.runner, &setting.key, "the code", is_shown).await;
    assert_eq!(shown.state, State::ScanQrCode);
    assert!(setting.phone.enter_code("ABCDEFGH").await.is_err());
    setting.phone.enter_code(&code.code.replace('-', "")).await.unwrap();
    let shown = setting.until(State::Working).await;
    assert_eq!(pairing_code(&shown), None);
    assert_eq!(ask(NUMBER).await.unwrap_err().code(), Code::Conflict);
    setting.stop().await;
}

fn pairing_code(shown: &session_sidecar::runner::port::Connection) -> Option<String> {
    shown.pairing_code.as_ref().map(|code| code.code.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_passkey_links_after_an_assertion_and_a_code() {
    let setting = Setting::new().await;
    let (runner, key) = (&setting.runner, &setting.key);
    setting.phone.demand_passkey(true);
    setting.start().await;
    assert_eq!(runner.confirm_passkey(key).await.unwrap_err().code(), Code::Conflict);
    let qr = setting.until(State::ScanQrCode).await.qr.unwrap();
    let phone = setting.phone.clone();
    let scan = tokio::spawn(async move { phone.scan_qr(&qr.code).await });
    let shown = setting.until(State::PasskeyRequired).await;
    let Some(Passkey::Challenge { options }) = shown.passkey else { panic!("no challenge") };
    assert!(options["challenge"].is_string() && options["rpId"] == "web.whatsapp.com");
    let assertion =
        json!({"id": "AQID", "rawId": "AQID", "type": "public-key", "response": {"signature": "AA"}});
    assert_eq!(runner.answer_passkey(key, json!({})).await.unwrap_err().code(), Code::Usage);
    runner.answer_passkey(key, assertion.clone()).await.unwrap();
    let shown = setting.until(State::PasskeyConfirmationRequired).await;
    let Some(Passkey::Confirm { code: Some(code) }) = shown.passkey else { panic!("no code") };
    let on_the_phone = Seen::PasskeyCode(code.replace('-', ""));
    setting.server.wait_until(PATIENCE, |seen| seen.contains(&on_the_phone)).await.unwrap();
    runner.confirm_passkey(key).await.unwrap();
    scan.await.unwrap().unwrap();
    setting.until(State::Working).await;
    assert_eq!(setting.server.count(&Seen::Assertion(assertion.to_string())), 1);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_stopped_while_its_link_is_still_being_committed() {
    let setting = Setting::new().await;
    *setting.told.hangs.lock().unwrap() = true;
    setting.start().await;
    let device = setting.scan().await;
    timeout(PATIENCE, async {
        while setting.told.paired.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    setting.stop().await;
    assert!(!setting.told.states.lock().unwrap().contains(&State::Working));
    assert_eq!(pn(&setting.dir().join("whatsapp.db")), device.jid.to_string());
    // The next start finds the link; the hook is for new ones.
    setting.start().await;
    setting.until(State::Working).await;
    assert_eq!(setting.server.count(&Seen::AskedToPair), 1);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_starts_a_session_twice_at_once_gets_one_connection() {
    let setting = Setting::new().await;
    tokio::join!(setting.start(), setting.start());
    setting.until(State::ScanQrCode).await;
    setting.start().await;
    assert_eq!(setting.server.count(&Seen::Handshake(Pattern::Xx)), 1);
    setting.stop().await;
    setting.stop().await;
    assert_eq!(setting.runner.connection(&setting.key).unwrap().state, State::Stopped);
}
