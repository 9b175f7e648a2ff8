//! A linked session at work: messages, sending, stopping and starting, several at once.

use std::sync::Arc;

use session_sidecar::error::Code;
use session_sidecar::runner::DATABASE;
use session_sidecar::runner::port::{FailureCode, State};
use session_sidecar::session::SessionKey;

use super::support::{FRIEND, PATIENCE, Setting, Told, back_up, message, pn, runner, text, when};
use crate::whatsapp::{Pattern, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_stopped_and_started_needs_no_code_and_misses_nothing() {
    let (setting, device) = Setting::working().await;
    let friend = setting.server.peer(FRIEND, "Grace");
    let mut events = setting.runner.events();
    for n in 0..20 {
        friend.send_text(&device, &n.to_string()).await.unwrap();
    }
    for n in 0..20 {
        let message = message(&mut events, &setting.key).await;
        assert_eq!(message.text.as_deref(), Some(n.to_string().as_str()));
        assert_eq!(message.chat, format!("{FRIEND}@s.whatsapp.net"));
        assert_eq!((message.from_me, message.push_name.as_deref()), (false, Some("Grace")));
    }
    setting.stop().await;
    assert_eq!(setting.runner.connection(&setting.key).unwrap().state, State::Stopped);
    // All is in the one file, which may be moved now.
    let files: Vec<_> =
        std::fs::read_dir(setting.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, [DATABASE]);
    assert_eq!(pn(&setting.dir().join(DATABASE)), device.jid.to_string());
    let moved = setting.root.path().join("moved");
    std::fs::rename(setting.dir(), &moved).unwrap();

    friend.send_text(&device, "while you were out").await.unwrap();
    setting.runner.start(&setting.key, &moved).await.unwrap();
    assert_eq!(text(&mut events, &setting.key).await, "while you were out");
    let shown = setting.until(State::Working).await;
    assert_eq!(shown.me.unwrap().id, device.jid.to_string());
    setting.server.wait_until(PATIENCE, |_| setting.server.pending(&device) == 0).await.unwrap();
    // Pairing, first login (which caches the server's key), second login.
    let seen = setting.server.seen();
    let handshakes: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::Handshake(_))).collect();
    let expected = [Pattern::Xx, Pattern::Xx, Pattern::Ik].map(Seen::Handshake);
    assert_eq!(handshakes, expected.iter().collect::<Vec<_>>());
    assert_eq!(setting.server.count(&Seen::AskedToPair), 1);
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_sent_and_answered_and_only_while_the_session_works() {
    let (setting, device) = Setting::working().await;
    let friend = setting.server.peer(FRIEND, "Grace");
    let mut events = setting.runner.events();
    let send = async |to: &str| setting.runner.send(&setting.key, to, "ping").await;
    let mut ids = Vec::new();
    for (n, to) in ["+1 555 000 2222", "15550002222@s.whatsapp.net"].into_iter().enumerate() {
        ids.push(send(to).await.unwrap());
        let received = || setting.server.received_by(&friend);
        setting.server.wait_until(PATIENCE, |_| received().len() == n + 1).await.unwrap();
        assert_eq!((received()[n].text.as_str(), &received()[n].id), ("ping", &ids[n]));
        friend.send_text(&device, "pong").await.unwrap();
        assert_eq!(text(&mut events, &setting.key).await, "pong");
    }
    assert_eq!(send("nobody").await.unwrap_err().code(), Code::Usage);
    setting.stop().await;
    assert_eq!(send(FRIEND).await.unwrap_err().code(), Code::NotConnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_one_process_do_not_hear_each_other() {
    let (setting, ada) = Setting::working().await;
    let other = SessionKey::new("u2", "s2").unwrap();
    let dir = setting.root.path().join("s2");
    std::fs::create_dir(&dir).unwrap();
    setting.runner.start(&other, &dir).await.unwrap();
    let shown = when(&setting.runner, &other, "a code", |shown| shown.qr.is_some()).await;
    let phone = setting.server.phone("15550003333", "Bob");
    let bob = phone.scan_qr(&shown.qr.unwrap().code).await.unwrap();
    when(&setting.runner, &other, "work", |shown| shown.state == State::Working).await;

    let (mut of_ada, mut of_bob) = (setting.runner.events(), setting.runner.events());
    let friend = setting.server.peer(FRIEND, "Grace");
    friend.send_text(&ada, "to Ada").await.unwrap();
    friend.send_text(&bob, "to Bob").await.unwrap();
    assert_eq!(text(&mut of_ada, &setting.key).await, "to Ada");
    assert_eq!(text(&mut of_bob, &other).await, "to Bob");
    let keys: Vec<_> = setting.runner.connections().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [setting.key.clone(), other.clone()]);
    setting.runner.stop(&other).await.unwrap();
    setting.runner.forget(&other);
    assert_eq!(setting.runner.connection(&other), None);
    assert_eq!(setting.until(State::Working).await.failure, None);
    setting.stop().await;
}

/// What a handover without a word looks like: the last commit runs elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_taken_at_work_takes_the_session_over_and_the_first_does_not_fight_for_it() {
    let (setting, device) = Setting::working().await;
    let friend = setting.server.peer(FRIEND, "Grace");
    let mut events = setting.runner.events();
    for n in 0..5 {
        friend.send_text(&device, &n.to_string()).await.unwrap();
        assert_eq!(text(&mut events, &setting.key).await, n.to_string());
    }
    setting.server.wait_until(PATIENCE, |_| setting.server.pending(&device) == 0).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    back_up(&setting.dir().join(DATABASE), &elsewhere.path().join(DATABASE));

    let second = runner(&setting.server, Arc::new(Told::default()));
    let mut events = second.events();
    second.start(&setting.key, elsewhere.path()).await.unwrap();
    when(&second, &setting.key, "work", |shown| shown.state == State::Working).await;
    let shown = setting.failed(FailureCode::Replaced).await;
    assert!(shown.me.is_some() && shown.next_try_at.is_none());
    friend.send_text(&device, "still you?").await.unwrap();
    assert_eq!(text(&mut events, &setting.key).await, "still you?");
    assert_eq!(setting.server.count(&Seen::LoggedIn(device.jid.clone())), 2);
    assert_eq!(setting.server.count(&Seen::AskedToPair), 1);
    second.stop(&setting.key).await.unwrap();
    // A person decides that this one is to run.
    setting.start().await;
    setting.until(State::Working).await;
    setting.stop().await;
}

/// A restore that is some messages behind: the ratchet cannot follow, and the client asks for the message again.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_two_round_trips_behind_heals() {
    let (setting, device) = Setting::working().await;
    let friend = setting.server.peer(FRIEND, "Grace");
    let mut events = setting.runner.events();
    let elsewhere = tempfile::tempdir().unwrap();
    for n in 0..3 {
        setting.runner.send(&setting.key, FRIEND, "ping").await.unwrap();
        let received = || setting.server.received_by(&friend).len() == n + 1;
        setting.server.wait_until(PATIENCE, |_| received()).await.unwrap();
        friend.send_text(&device, "pong").await.unwrap();
        assert_eq!(text(&mut events, &setting.key).await, "pong");
        if n == 0 {
            // A clean end writes what is held back, so that the copy is of this moment.
            setting.stop().await;
            back_up(&setting.dir().join(DATABASE), &elsewhere.path().join(DATABASE));
            setting.start().await;
            setting.until(State::Working).await;
        }
    }
    setting.stop().await;
    setting.runner.start(&setting.key, elsewhere.path()).await.unwrap();
    setting.until(State::Working).await;
    friend.send_text(&device, "and now?").await.unwrap();
    assert_eq!(text(&mut events, &setting.key).await, "and now?");
    let asked_again = |seen: &&Seen| matches!(seen, Seen::AskedAgain(_));
    assert_eq!(setting.server.seen().iter().filter(asked_again).count(), 1);
    setting.stop().await;
}
