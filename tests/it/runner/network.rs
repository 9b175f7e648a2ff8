//! When WhatsApp cannot be reached: at the start, and later.

use session_sidecar::runner::port::{FailureCode, State};

use super::support::{FRIEND, Setting, text};
use crate::whatsapp::{Pattern, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_the_start_shows_and_is_tried_again() {
    let setting = Setting::new().await;
    setting.server.go_away(true);
    setting.start().await;
    let shown = setting.shows(FailureCode::Unreachable).await;
    assert_eq!(shown.state, State::Starting);
    assert!(shown.next_try_at.is_some());
    setting.server.go_away(false);
    let shown = setting.until(State::ScanQrCode).await;
    assert_eq!((shown.failure, shown.next_try_at), (None, None));
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_comes_back_after_the_network_and_after_a_new_key_of_the_server() {
    let (setting, device) = Setting::working().await;
    let mut events = setting.runner.events();
    setting.server.drop_connection(&device);
    setting.shows(FailureCode::Unreachable).await;
    setting.until(State::Working).await;
    setting.server.rotate_key();
    setting.server.go_away(true);
    let shown = setting.shows(FailureCode::Unreachable).await;
    assert!(shown.state == State::Starting && shown.me.is_some());
    setting.server.peer(FRIEND, "Grace").send_text(&device, "meanwhile").await.unwrap();
    setting.server.go_away(false);
    assert_eq!(text(&mut events, &setting.key).await, "meanwhile");
    assert_eq!(setting.until(State::Working).await.failure, None);
    assert_eq!(setting.server.count(&Seen::Handshake(Pattern::XxFallback)), 1);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_for_a_moment_is_tried_again() {
    let (setting, _) = Setting::working().await;
    setting.stop().await;
    setting.server.refuse_logins(Some(503));
    setting.start().await;
    let shown = setting.shows(FailureCode::TryAgain).await;
    assert!(shown.failure.unwrap().message.contains("503"));
    setting.server.refuse_logins(None);
    assert_eq!(setting.until(State::Working).await.failure, None);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_stopped_while_whatsapp_is_away() {
    let setting = Setting::new().await;
    setting.server.go_away(true);
    setting.start().await;
    setting.shows(FailureCode::Unreachable).await;
    setting.stop().await;
    let shown = setting.runner.connection(&setting.key).unwrap();
    assert_eq!((shown.state, shown.failure), (State::Stopped, None));
}
