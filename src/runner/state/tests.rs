use super::*;
use crate::runner::port::Me;

struct Test {
    machine: Machine,
    now: Now,
}

const DEADLINE: Duration = Duration::from_mins(1);
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(1)];

impl Test {
    /// Wanted, with a client under way.
    fn new() -> Self {
        let now = Now { wall: Timestamp::from_second(1_800_000_000).unwrap(), tick: Instant::now() };
        let mut test = Self { machine: Machine::new(now, DEADLINE, ASK_AGAIN), now };
        test.step(Input::Wanted);
        test.step(Input::Begun(None));
        test
    }

    fn working() -> Self {
        let mut test = Self::new();
        test.up();
        test.signal(Signal::LoggedIn(Some(me())));
        test
    }

    fn step(&mut self, input: Input) -> Next {
        self.machine.step(self.now, input)
    }

    fn signal(&mut self, signal: Signal) -> Next {
        self.step(Input::Signal(signal))
    }

    fn up(&mut self) {
        self.step(Input::Dialling);
        self.step(Input::Dialled);
    }

    fn pass(&mut self, time: Duration) -> Next {
        self.now.wall += time;
        self.now.tick += time;
        self.step(Input::Due)
    }

    fn qr(&mut self, seconds: u64) -> Next {
        self.signal(Signal::Qr { code: "2@x".to_owned(), lasts: Duration::from_secs(seconds) })
    }

    fn state(&self) -> State {
        self.machine.shown().state
    }

    fn failure(&self) -> Option<FailureCode> {
        self.machine.shown().failure.as_ref().map(|failure| failure.code)
    }
}

fn me() -> Me {
    Me { id: "15550001111:1@s.whatsapp.net".to_owned(), lid: None, push_name: None }
}

#[test]
fn a_scan_leads_from_a_code_to_work() {
    let mut test = Test::new();
    assert_eq!(test.state(), State::Starting);
    test.up();
    test.qr(60);
    assert_eq!(test.state(), State::ScanQrCode);
    let qr = test.machine.shown().qr.clone().unwrap();
    assert_eq!(qr.expires_at, later(test.now.wall, Duration::from_mins(1)));
    test.signal(Signal::Paired(me()));
    assert_eq!((test.state(), test.machine.shown().qr.is_none()), (State::Starting, true));
    test.up();
    test.signal(Signal::LoggedIn(None));
    assert_eq!((test.state(), test.failure()), (State::Working, None));
    assert_eq!(test.machine.shown().me, Some(me()));
    assert_eq!(test.machine.due(), None);
}

#[test]
fn codes_that_nobody_scans_run_out_and_connecting_again_begins_anew() {
    let mut test = Test::new();
    test.up();
    for seconds in [60, 20, 20, 20, 20, 20] {
        assert_eq!(test.qr(seconds), Next::On);
        assert_eq!(test.pass(Duration::from_secs(seconds)), Next::On);
    }
    assert_eq!(test.signal(Signal::QrExhausted { ended: true }), Next::Quit);
    assert_eq!((test.state(), test.failure()), (State::Failed, Some(FailureCode::QrExpired)));
    // What the client says on its way out changes nothing.
    test.signal(Signal::Lost);
    assert_eq!(test.step(Input::Ended), Next::On);
    assert_eq!(test.state(), State::Failed);
    test.step(Input::Wanted);
    assert_eq!((test.state(), test.failure()), (State::Starting, None));
}

#[test]
fn a_pairing_code_outlives_the_qr_codes_and_then_ends_as_they_do() {
    let mut test = Test::new();
    test.up();
    test.qr(60);
    test.signal(Signal::PairingCode { code: "ABCDEFGH".to_owned(), lasts: Duration::from_mins(3) });
    assert_eq!(test.machine.shown().pairing_code.as_ref().unwrap().code, "ABCD-EFGH");
    test.pass(Duration::from_mins(1));
    assert_eq!(test.signal(Signal::QrExhausted { ended: false }), Next::On);
    assert_eq!(test.state(), State::ScanQrCode);
    assert_eq!(test.pass(Duration::from_secs(119)), Next::On);
    assert_eq!(test.pass(Duration::from_secs(1)), Next::Quit);
    assert_eq!(test.failure(), Some(FailureCode::QrExpired));
}

#[test]
fn a_passkey_is_asked_for_answered_and_compared_while_codes_go_on_in_the_background() {
    let mut test = Test::new();
    test.up();
    test.qr(60);
    test.signal(Signal::PasskeyAsked(serde_json::json!({"challenge": "x"})));
    assert_eq!(test.state(), State::PasskeyRequired);
    test.qr(20);
    assert_eq!(test.state(), State::PasskeyRequired);
    test.step(Input::PasskeyAnswered);
    assert_eq!((test.state(), test.machine.shown().passkey.clone()), (State::Starting, None));
    test.signal(Signal::PasskeyCode(Some("AAAA-BBBB".to_owned())));
    assert_eq!(test.state(), State::PasskeyConfirmationRequired);
    test.signal(Signal::PasskeyFailed);
    assert_eq!((test.state(), test.failure()), (State::ScanQrCode, Some(FailureCode::PairingFailed)));
    assert!(test.machine.shown().qr.is_some(), "the code on show stays good");
}

#[test]
fn a_person_who_looks_for_the_passkey_is_not_interrupted() {
    let mut test = Test::new();
    test.up();
    test.qr(20);
    test.signal(Signal::PasskeyAsked(serde_json::json!({})));
    assert_eq!(test.pass(Duration::from_mins(5)), Next::On);
    assert_eq!(test.machine.due(), None, "nothing is waited for");
    assert_eq!(test.state(), State::PasskeyRequired);
}

#[test]
fn a_code_that_is_asked_for_after_the_qr_codes_gets_its_whole_time() {
    let mut test = Test::new();
    test.up();
    let code = || Signal::PairingCode { code: "ABCDEFGH".to_owned(), lasts: Duration::from_mins(3) };
    test.signal(code());
    test.signal(Signal::QrExhausted { ended: false });
    test.pass(Duration::from_secs(100));
    test.signal(code());
    assert_eq!(test.pass(Duration::from_secs(179)), Next::On);
    assert_eq!(test.pass(Duration::from_secs(1)), Next::Quit);
}

#[test]
fn a_logout_is_believed_at_the_third_word_within_ten_minutes() {
    let mut test = Test::working();
    let logout = || Signal::LoggedOut { explicit: false };
    assert_eq!(test.signal(logout()), Next::Again(ASK_AGAIN[0]));
    assert_eq!((test.state(), test.failure()), (State::Starting, Some(FailureCode::TryAgain)));
    assert!(test.machine.shown().me.is_some() && !test.machine.is_void());
    assert_eq!(test.machine.shown().next_try_at, Some(later(test.now.wall, ASK_AGAIN[0])));
    // Eleven minutes later the first word is forgotten.
    test.pass(Duration::from_mins(11));
    assert_eq!(test.signal(logout()), Next::Again(ASK_AGAIN[0]));
    assert_eq!(test.signal(logout()), Next::Again(ASK_AGAIN[1]));
    assert_eq!(test.signal(logout()), Next::Unlinked);
    assert_eq!((test.state(), test.failure()), (State::Failed, Some(FailureCode::LoggedOut)));
    assert!(test.machine.is_void() && test.machine.shown().me.is_none());
    // A new link starts with a clean record.
    test.step(Input::Discarded);
    test.step(Input::Wanted);
    assert_eq!(test.signal(logout()), Next::Again(ASK_AGAIN[0]));
}

#[test]
fn a_removal_on_the_phone_is_believed_at_once() {
    let mut test = Test::working();
    assert_eq!(test.signal(Signal::LoggedOut { explicit: true }), Next::Unlinked);
    assert!(test.machine.is_void());
}

#[test]
fn what_a_person_has_to_look_at_ends_the_client_and_keeps_the_link() {
    let ends = [
        (Signal::Replaced, FailureCode::Replaced),
        (Signal::Locked, FailureCode::AccountLocked),
        (Signal::Outdated, FailureCode::ClientOutdated),
        (Signal::Banned(None), FailureCode::TemporaryBan),
        (Signal::Refused { reason: 409, again: false }, FailureCode::Other),
    ];
    for (signal, code) in ends {
        let mut test = Test::working();
        assert_eq!(test.signal(signal), Next::Quit);
        assert_eq!((test.state(), test.failure()), (State::Failed, Some(code)));
        assert!(!test.machine.is_void() && test.machine.shown().me.is_some());
    }
}

#[test]
fn a_ban_says_until_when() {
    let mut test = Test::working();
    test.signal(Signal::Banned(Some(Duration::from_hours(1))));
    let message = test.machine.shown().failure.clone().unwrap().message;
    assert!(message.contains("until 2027-01-15 09:00 UTC"), "{message}");
    // A server may send anything.
    let mut test = Test::working();
    assert_eq!(test.signal(Signal::Banned(Some(Duration::MAX))), Next::Quit);
}

#[test]
fn a_lost_connection_and_a_server_that_is_down_are_shown_and_tried_again() {
    let mut test = Test::working();
    assert_eq!(test.signal(Signal::Lost), Next::On);
    assert_eq!((test.state(), test.failure()), (State::Starting, Some(FailureCode::Unreachable)));
    test.step(Input::Dialling);
    test.step(Input::NotDialled("connection refused".to_owned()));
    let shown = test.machine.shown().clone();
    assert!(shown.failure.unwrap().message.contains("connection refused"));
    assert_eq!(shown.next_try_at, Some(later(test.now.wall, Duration::from_secs(1))));
    test.up();
    test.signal(Signal::LoggedIn(None));
    assert_eq!((test.state(), test.failure()), (State::Working, None));
    test.signal(Signal::Refused { reason: 503, again: true });
    // The end of the connection that follows tells less.
    test.signal(Signal::Lost);
    assert_eq!((test.state(), test.failure()), (State::Starting, Some(FailureCode::TryAgain)));
}

#[test]
fn a_socket_that_ends_in_the_handshake_is_not_silent() {
    let mut test = Test::new();
    test.up();
    assert_eq!(test.failure(), None);
    test.step(Input::Dialling);
    assert_eq!(test.failure(), Some(FailureCode::Unreachable));
    // After a pairing the server ends the connection on purpose.
    let mut test = Test::new();
    test.up();
    test.qr(60);
    test.signal(Signal::Paired(me()));
    test.step(Input::Dialling);
    assert_eq!(test.failure(), None);
}

#[test]
fn a_code_of_a_connection_that_is_gone_is_not_shown() {
    let mut test = Test::new();
    test.up();
    test.qr(60);
    test.signal(Signal::Lost);
    test.qr(20);
    assert_eq!((test.state(), test.machine.shown().qr.is_none()), (State::Starting, true));
    test.up();
    test.qr(60);
    assert_eq!(test.state(), State::ScanQrCode);
}

#[test]
fn a_client_without_a_socket_is_given_up_and_the_next_gets_longer() {
    let mut test = Test::new();
    for wait in [60, 120, 240, 300, 300] {
        test.step(Input::Dialling);
        assert_eq!(test.pass(Duration::from_secs(wait - 1)), Next::On);
        assert_eq!(test.pass(Duration::from_secs(1)), Next::Again(Duration::ZERO));
        assert_eq!(test.failure(), Some(FailureCode::Unreachable));
        test.step(Input::Begun(None));
    }
}

#[test]
fn a_first_login_that_waits_for_the_phone_is_not_given_up_early() {
    let mut test = Test::new();
    test.pass(Duration::from_secs(50));
    test.up();
    assert_eq!(test.pass(Duration::from_secs(10)), Next::On);
    assert_eq!(test.pass(Duration::from_secs(229)), Next::On);
    assert_eq!(test.pass(Duration::from_secs(1)), Next::Again(Duration::ZERO));
}

#[test]
fn stopped_and_taken_show_no_code_any_more() {
    let mut test = Test::new();
    test.up();
    test.qr(60);
    test.step(Input::Stopped);
    assert_eq!((test.state(), test.machine.shown().qr.is_none()), (State::Stopped, true));
    test.step(Input::Taken);
    assert_eq!((test.state(), test.failure()), (State::Failed, Some(FailureCode::SessionLost)));
}

#[test]
fn the_waits_of_the_client_are_fibonacci_numbers() {
    let waits = [1, 2, 3, 4, 5, 6, 40].map(|tries| client_wait(tries).as_secs());
    assert_eq!(waits, [1, 1, 2, 3, 5, 8, 900]);
}
