//! What follows from what happens to a connection: a pure machine, without clocks, sockets or clients.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::port::{Connection, Failure, FailureCode, PairingCode, Passkey, Qr, State};

mod input;

pub(super) use input::{Input, Next, Now, Signal};

/// A client that has a socket and is not logged in after this is given up for a fresh one. A first login waits
/// for what the phone sends: the client itself gives that 180 s.
const BOOTSTRAP: Duration = Duration::from_mins(4);
/// The time to a socket is not grown beyond this.
const LONGEST_PATIENCE: Duration = Duration::from_mins(5);
/// How much later than announced the next QR code may come.
const QR_SLACK: Duration = Duration::from_secs(30);
/// Before a client that ended for no reason is followed by another.
const PAUSE: Duration = Duration::from_secs(5);
/// Words of a logout that are believed only together, and within what time.
const LOGOUTS: usize = 3;
const LOGOUT_WINDOW: Duration = Duration::from_mins(10);

/// One session's connection, over all its clients.
#[derive(Debug)]
pub(super) struct Machine {
    shown: Connection,
    connect_deadline: Duration,
    ask_again: [Duration; 2],
    /// The database on disk belongs to a link that is gone.
    void: bool,
    logouts: VecDeque<Instant>,
    due: Option<Instant>,
    patience: Duration,
    tries: u32,
    /// Since when there is a socket.
    up: Option<Instant>,
    /// Something came over the socket.
    heard: bool,
    /// A passkey is under way: QR codes that come meanwhile do not take the stage.
    passkey: bool,
    pairing_code_until: Option<Instant>,
}

impl Machine {
    pub(super) fn new(now: Now, connect_deadline: Duration, ask_again: [Duration; 2]) -> Self {
        Self {
            shown: Connection::new(State::Stopped, now.wall),
            connect_deadline,
            ask_again,
            void: false,
            logouts: VecDeque::new(),
            due: None,
            patience: connect_deadline,
            tries: 0,
            up: None,
            heard: false,
            passkey: false,
            pairing_code_until: None,
        }
    }

    /// As it is now.
    pub(super) fn shown(&self) -> &Connection {
        &self.shown
    }

    /// Whether the database on disk belongs to a link that is gone: the next start begins anew.
    pub(super) fn is_void(&self) -> bool {
        self.void
    }

    /// Whether no client is wanted any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.shown.state, State::Stopped | State::Failed)
    }

    /// When [`Input::Due`] is to be given.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes what happened.
    pub(super) fn step(&mut self, now: Now, input: Input) -> Next {
        let next = match input {
            Input::Wanted => {
                self.shown.failure = None;
                self.patience = self.connect_deadline;
                self.starting(now)
            }
            Input::Stopped => self.settle(now, State::Stopped, None),
            Input::LoggedOut => {
                self.void = true;
                self.shown.me = None;
                self.settle(now, State::Stopped, None)
            }
            Input::Discarded => {
                self.void = false;
                self.logouts.clear();
                self.shown.me = None;
                Next::On
            }
            Input::Taken => self.fail(
                now,
                FailureCode::SessionLost,
                "Another process has taken the session over; its bot runs there.",
            ),
            Input::OtherEngine(why) => self.fail(now, FailureCode::OtherEngine, why),
            // What a client says after its end was decided is of no use.
            _ if self.is_over() => Next::On,
            Input::Unusable(why) => {
                let why =
                    format!("The session's database cannot be used ({why}); restore an earlier point of it.");
                self.fail(now, FailureCode::Store, why)
            }
            Input::Broken => {
                let why = "The connection ended by an internal error, which the log shows; connect again.";
                self.fail(now, FailureCode::Other, why)
            }
            Input::Begun(me) => {
                self.shown.me = me;
                self.tries = 0;
                self.starting(now)
            }
            Input::Dialling => self.dialling(now),
            Input::Dialled => {
                self.up = Some(now.tick);
                self.heard = false;
                Next::On
            }
            Input::NotDialled(why) => {
                self.unreached(now, format!("WhatsApp cannot be reached ({why}); it is tried again."))
            }
            Input::NoVersion(why) => {
                let why = format!("WhatsApp's current version cannot be fetched ({why}); it is tried again.");
                self.unreached(now, why)
            }
            // The phone's next step may have come before the word that this one was taken.
            Input::PasskeyAnswered if self.shown.state == State::PasskeyRequired => self.passkey_goes_on(now),
            Input::PasskeyConfirmed if self.shown.state == State::PasskeyConfirmationRequired => {
                self.passkey_goes_on(now)
            }
            Input::PasskeyAnswered | Input::PasskeyConfirmed => Next::On,
            Input::Signal(signal) => {
                self.heard = true;
                self.signal(now, signal)
            }
            Input::Due => self.overdue(now),
            Input::Ended => Next::Again(PAUSE),
        };
        if let Next::Again(wait) = next {
            self.shown.next_try_at = Some(later(now.wall, wait));
        }
        next
    }

    fn signal(&mut self, now: Now, signal: Signal) -> Next {
        match signal {
            // The client shows codes of a connection that is gone until it has a new one.
            Signal::Qr { .. } if self.up.is_none() => {}
            Signal::Qr { code, lasts } => {
                self.shown.qr = Some(Qr { code, expires_at: later(now.wall, lasts) });
                if !self.passkey {
                    self.shown.failure = None;
                    self.scan(now);
                }
                self.due = Some(now.tick + lasts + QR_SLACK);
            }
            Signal::QrExhausted { ended } => {
                self.shown.qr = None;
                // The pairing code outlives the QR codes.
                self.due = Some(self.pairing_code_until.unwrap_or(now.tick));
                if ended {
                    return self.expired(now);
                }
            }
            Signal::PairingCode { code, lasts } => {
                self.shown.pairing_code =
                    Some(PairingCode { code: grouped(&code), expires_at: later(now.wall, lasts) });
                self.pairing_code_until = Some(now.tick + lasts);
                if self.shown.qr.is_none() {
                    self.due = self.pairing_code_until;
                }
                if !self.passkey {
                    self.scan(now);
                }
            }
            Signal::PairingCodeGone => self.shown.pairing_code = None,
            Signal::Paired(me) => {
                self.shown.failure = None;
                self.shown.me = Some(me);
                return self.starting(now);
            }
            Signal::PairFailed => {
                self.trouble(
                    FailureCode::PairingFailed,
                    "The phone and WhatsApp did not agree on the link; try again.",
                );
            }
            Signal::PasskeyAsked(options) => self.passkey(now, Passkey::Challenge { options }),
            Signal::PasskeyCode(code) => self.passkey(now, Passkey::Confirm { code }),
            Signal::PasskeyFailed => {
                self.passkey = false;
                self.shown.passkey = None;
                self.trouble(
                    FailureCode::PairingFailed,
                    "The passkey was not accepted; scan the code again.",
                );
                self.scan(now);
            }
            Signal::LoggedIn(me) => {
                self.shown.me = me.or(self.shown.me.take());
                self.patience = self.connect_deadline;
                self.settle(now, State::Working, None);
            }
            Signal::Lost => {
                if self.shown.failure.is_none() {
                    self.trouble(
                        FailureCode::Unreachable,
                        "The connection to WhatsApp was lost; it is made again.",
                    );
                }
                self.tries = 0;
                return self.starting(now);
            }
            Signal::LoggedOut { explicit } => return self.logged_out(now, explicit),
            Signal::Locked => {
                let why = "WhatsApp has locked the account; open WhatsApp on the phone to see why.";
                return self.fail(now, FailureCode::AccountLocked, why);
            }
            Signal::Replaced => {
                let why = "Another client uses the keys of this session; stop it, then connect again.";
                return self.fail(now, FailureCode::Replaced, why);
            }
            Signal::Banned(lasts) => {
                let until = lasts.map(|lasts| later(now.wall, lasts).strftime("%F %R UTC").to_string());
                let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
                let why = format!("WhatsApp has banned the account{until}; connect again after that.");
                return self.fail(now, FailureCode::TemporaryBan, why);
            }
            Signal::Outdated => {
                let why = "WhatsApp does not take this version any more; update session-sidecar.";
                return self.fail(now, FailureCode::ClientOutdated, why);
            }
            Signal::Refused { reason, again: true } => {
                let why =
                    format!("WhatsApp refuses the login for a moment (reason {reason}); it is tried again.");
                self.trouble(FailureCode::TryAgain, why);
                return self.starting(now);
            }
            Signal::Refused { reason, again: false } => {
                let why = format!("WhatsApp refuses the login (reason {reason}); connect again to retry.");
                return self.fail(now, FailureCode::Other, why);
            }
        }
        Next::On
    }

    /// When a logout is believed. // P4
    ///
    /// Clients that believed each 401 threw good links away: servers send it in error, and again to a client that
    /// was restored a moment too early. Waxum purges after three in ten minutes, and so do we. Two words are believed
    /// at once, for a person's unlinking on the phone arrives as them, over a connection that had logged in: the
    /// conflict `device_removed`, and stream error 516.
    fn logged_out(&mut self, now: Now, explicit: bool) -> Next {
        self.logouts.retain(|at| now.tick.duration_since(*at) < LOGOUT_WINDOW);
        self.logouts.push_back(now.tick);
        if !explicit && self.logouts.len() < LOGOUTS {
            let wait = self.ask_again[(self.logouts.len() - 1).min(1)];
            self.starting(now);
            let why = "WhatsApp says that the link is gone; it is asked again before that is believed.";
            self.trouble(FailureCode::TryAgain, why);
            return Next::Again(wait);
        }
        self.void = true;
        self.shown.me = None;
        self.fail(
            now,
            FailureCode::LoggedOut,
            "The device was unlinked, on the phone or by WhatsApp; connect again to link it anew.",
        );
        Next::Unlinked
    }

    fn dialling(&mut self, now: Now) -> Next {
        let silent = self.up.take().is_some() && !self.heard;
        self.tries += 1;
        self.shown.next_try_at = None;
        if silent {
            let why = "WhatsApp ended the connection during the handshake; it is tried again.";
            self.trouble(FailureCode::Unreachable, why);
        }
        if self.shown.state == State::Starting { Next::On } else { self.starting(now) }
    }

    fn unreached(&mut self, now: Now, why: String) -> Next {
        self.trouble(FailureCode::Unreachable, why);
        self.shown.next_try_at = Some(later(now.wall, client_wait(self.tries)));
        Next::On
    }

    fn overdue(&mut self, now: Now) -> Next {
        let socket = self.up.map(|up| up + BOOTSTRAP).filter(|end| now.tick < *end);
        if self.due.is_none_or(|due| now.tick < due) {
            return Next::On;
        }
        if self.shown.passkey.is_some() {
            // A person looks for the key: codes that end meanwhile are told by the client.
            self.due = None;
            return Next::On;
        }
        if self.shown.state == State::ScanQrCode && self.shown.qr.is_none() {
            return self.expired(now);
        }
        if let Some(end) = socket.filter(|_| self.shown.state == State::Starting) {
            self.due = Some(end);
            return Next::On;
        }
        if self.shown.failure.is_none() {
            self.trouble(FailureCode::Unreachable, "WhatsApp did not answer in time; it is tried again.");
        }
        self.patience = (self.patience * 2).min(LONGEST_PATIENCE.max(self.connect_deadline));
        Next::Again(Duration::ZERO)
    }

    fn expired(&mut self, now: Now) -> Next {
        self.fail(
            now,
            FailureCode::QrExpired,
            "Nobody scanned the codes in time; connect again for new ones.",
        )
    }

    fn starting(&mut self, now: Now) -> Next {
        let failure = self.shown.failure.take();
        self.settle(now, State::Starting, failure);
        self.due = Some(now.tick + self.patience);
        Next::On
    }

    fn scan(&mut self, now: Now) {
        self.shown.next_try_at = None;
        self.enter(now, State::ScanQrCode);
    }

    fn passkey(&mut self, now: Now, step: Passkey) {
        self.passkey = true;
        self.shown.failure = None;
        self.enter(
            now,
            match step {
                Passkey::Challenge { .. } => State::PasskeyRequired,
                Passkey::Confirm { .. } => State::PasskeyConfirmationRequired,
            },
        );
        self.shown.passkey = Some(step);
    }

    fn passkey_goes_on(&mut self, now: Now) -> Next {
        self.shown.passkey = None;
        self.enter(now, State::Starting);
        Next::On
    }

    fn trouble(&mut self, code: FailureCode, message: impl Into<String>) {
        self.shown.failure = Some(Failure { code, message: message.into() });
    }

    fn fail(&mut self, now: Now, code: FailureCode, message: impl Into<String>) -> Next {
        self.settle(now, State::Failed, Some(Failure { code, message: message.into() }));
        Next::Quit
    }

    /// A state in which nothing that was shown for linking counts any more.
    fn settle(&mut self, now: Now, state: State, failure: Option<Failure>) -> Next {
        let shown = &mut self.shown;
        (shown.qr, shown.pairing_code, shown.passkey, shown.next_try_at) = (None, None, None, None);
        shown.failure = failure;
        (self.passkey, self.pairing_code_until, self.due) = (false, None, None);
        if state != State::Working {
            self.up = None;
        }
        self.enter(now, state);
        Next::On
    }

    fn enter(&mut self, now: Now, state: State) {
        if self.shown.state != state {
            (self.shown.state, self.shown.since) = (state, now.wall);
        }
    }
}

/// How long the client waits after this many tries in a row: Fibonacci numbers of seconds, and a little chance.
fn client_wait(tries: u32) -> Duration {
    let (mut wait, mut next) = (1_u64, 1_u64);
    for _ in 1..tries.min(16) {
        (wait, next) = (next, wait + next);
    }
    Duration::from_secs(wait.min(900))
}

/// `ABCDEFGH` as the phone shows it.
pub(super) fn grouped(code: &str) -> String {
    match code.split_at_checked(4) {
        Some((first, second)) if second.len() == 4 => format!("{first}-{second}"),
        _ => code.to_owned(),
    }
}

fn later(wall: Timestamp, by: Duration) -> Timestamp {
    wall.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
