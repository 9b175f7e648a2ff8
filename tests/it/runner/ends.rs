//! How a connection ends: by the phone, by WhatsApp, by another process, by what lies in the directory.

use session_sidecar::error::Code;
use session_sidecar::runner::DATABASE;
use session_sidecar::runner::port::{FailureCode, State};

use super::support::{Setting, failure};
use crate::whatsapp::Seen;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_removed_on_the_phone_is_logged_out_and_begins_anew_only_when_asked() {
    let (setting, device) = Setting::working().await;
    setting.server.unlink(&device);
    let shown = setting.failed(FailureCode::LoggedOut).await;
    assert_eq!(shown.me, None);
    // Nothing is deleted on WhatsApp's word.
    assert!(setting.dir().join(DATABASE).exists());
    assert_eq!(setting.server.count(&Seen::AskedToPair), 1);
    setting.start().await;
    assert_eq!(*setting.told.unlinked.lock().unwrap(), std::slice::from_ref(&setting.key));
    let again = setting.scan().await;
    assert_ne!(again.jid, device.jid);
    assert_eq!(setting.until(State::Working).await.me.unwrap().id, again.jid.to_string());
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_a_logout_only_at_the_third_word() {
    let (setting, _) = Setting::working().await;
    setting.stop().await;
    setting.server.refuse_logins(Some(401));
    setting.start().await;
    setting.failed(FailureCode::LoggedOut).await;
    assert_eq!(setting.server.count(&Seen::Refused(401)), 3);
    setting.server.refuse_logins(None);
    setting.start().await;
    assert_eq!(setting.told.unlinked.lock().unwrap().len(), 1);
    setting.until(State::ScanQrCode).await;
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_alarm_costs_a_moment_and_no_link() {
    let (setting, device) = Setting::working().await;
    setting.stop().await;
    setting.server.refuse_logins(Some(401));
    setting.start().await;
    let shown = setting.shows(FailureCode::TryAgain).await;
    setting.server.refuse_logins(None);
    assert!(shown.state == State::Starting && shown.me.is_some());
    assert_eq!(setting.until(State::Working).await.me.unwrap().id, device.jid.to_string());
    assert!(setting.told.unlinked.lock().unwrap().is_empty());
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_whatsapp_refuses_is_named_and_the_link_is_kept() {
    let (setting, _) = Setting::working().await;
    for (reason, code) in [
        (402, FailureCode::TemporaryBan),
        (403, FailureCode::AccountLocked),
        (405, FailureCode::ClientOutdated),
        (409, FailureCode::Other),
    ] {
        setting.stop().await;
        setting.server.refuse_logins(Some(reason));
        setting.start().await;
        let shown = setting.failed(code).await;
        assert!(shown.me.is_some(), "{reason}");
        assert_eq!(setting.server.count(&Seen::Refused(reason)), 1, "{reason} is not asked for again");
    }
    // Connecting again, after a ban say, needs no code.
    setting.server.refuse_logins(None);
    setting.start().await;
    setting.until(State::Working).await;
    assert!(setting.told.unlinked.lock().unwrap().is_empty());
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_replaced_from_outside_stops_and_says_why() {
    let (setting, device) = Setting::working().await;
    setting.server.replace(&device);
    let shown = setting.failed(FailureCode::Replaced).await;
    assert!(shown.failure.unwrap().message.contains("Another client"));
    assert_eq!(setting.server.count(&Seen::LoggedIn(device.jid.clone())), 1);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_removes_the_device_from_the_phone_and_the_next_start_begins_anew() {
    let (setting, device) = Setting::working().await;
    setting.runner.logout(&setting.key).await.unwrap();
    let shown = setting.runner.connection(&setting.key).unwrap();
    assert_eq!((shown.state, shown.me), (State::Stopped, None));
    assert_eq!((setting.phone.devices(), setting.server.count(&Seen::Removed(device.jid))), (vec![], 1));
    // It was asked for here: the owner records it.
    assert!(setting.told.unlinked.lock().unwrap().is_empty());
    setting.runner.logout(&setting.key).await.unwrap();
    setting.start().await;
    setting.until(State::ScanQrCode).await;
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lost_to_another_process_is_off_and_says_so() {
    let (setting, device) = Setting::working().await;
    setting.runner.lost(&setting.key).await;
    let shown = setting.runner.connection(&setting.key).unwrap();
    assert_eq!((shown.state, failure(&shown)), (State::Failed, Some(FailureCode::SessionLost)));
    assert!(!setting.server.is_online(&device));
    assert!(!setting.dir().join("whatsapp.db-wal").exists());
    setting.start().await;
    setting.until(State::Working).await;
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_another_library_is_refused_and_left_alone() {
    let setting = Setting::new().await;
    let creds = r#"{"me":{"id":"15550001111:1@s.whatsapp.net"},"account":{"details":"x"}}"#;
    std::fs::write(setting.dir().join("creds.json"), creds).unwrap();
    let error = setting.runner.start(&setting.key, &setting.dir()).await.unwrap_err();
    assert_eq!(error.code(), Code::OtherEngine);
    setting.failed(FailureCode::OtherEngine).await;
    assert!(!setting.dir().join(DATABASE).exists());
    assert!(setting.server.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named_and_not_replaced() {
    let setting = Setting::new().await;
    let damaged = b"this is no database, and it is long enough to be taken for one".repeat(100);
    std::fs::write(setting.dir().join(DATABASE), &damaged).unwrap();
    setting.start().await;
    setting.failed(FailureCode::Store).await;
    assert_eq!(std::fs::read(setting.dir().join(DATABASE)).unwrap(), damaged);
    assert!(setting.server.seen().is_empty());
    setting.stop().await;
}
