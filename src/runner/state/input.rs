//! What happens to a connection, and what is to be done.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::runner::port::Me;

/// One moment, by both clocks: for people, and for waiting.
#[derive(Debug, Clone, Copy)]
pub(in crate::runner) struct Now {
    pub wall: Timestamp,
    pub tick: Instant,
}

/// What happens.
#[derive(Debug)]
pub(in crate::runner) enum Input {
    /// A person wants it connected.
    Wanted,
    /// A fresh client has opened the database and found this account in it.
    Begun(Option<Me>),
    /// A socket is asked for.
    Dialling,
    /// The socket is there.
    Dialled,
    /// There is none, and why.
    NotDialled(String),
    /// WhatsApp's current version could not be learned.
    NoVersion(String),
    /// WhatsApp, or the phone, says something.
    Signal(Signal),
    /// The passkey's challenge was answered.
    PasskeyAnswered,
    /// The passkey's code was confirmed.
    PasskeyConfirmed,
    /// The moment of `Machine::due` has come.
    Due,
    /// The client ended.
    Ended,
    /// What kept the session connected is gone, by a bug.
    Broken,
    /// The database cannot be used.
    Unusable(String),
    /// Another library's account lies there.
    OtherEngine(String),
    /// A person wants it off; the client is gone.
    Stopped,
    /// The link was ended by a person, here.
    LoggedOut,
    /// Another process has the session.
    Taken,
    /// The database of the link that is gone was removed.
    Discarded,
}

/// What a client's events say.
#[derive(Debug)]
pub(in crate::runner) enum Signal {
    Qr {
        code: String,
        lasts: Duration,
    },
    /// No code is left; whether the client has ended itself.
    QrExhausted {
        ended: bool,
    },
    PairingCode {
        code: String,
        lasts: Duration,
    },
    PairingCodeGone,
    Paired(Me),
    PairFailed,
    PasskeyAsked(serde_json::Value),
    /// None: nothing to compare.
    PasskeyCode(Option<String>),
    PasskeyFailed,
    LoggedIn(Option<Me>),
    Lost,
    /// `explicit`: the server says that the device was removed, while it was connected.
    LoggedOut {
        explicit: bool,
    },
    Locked,
    Replaced,
    Banned(Option<Duration>),
    Outdated,
    /// The login was refused; `again`: for a moment only.
    Refused {
        reason: i32,
        again: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum Next {
    /// Nothing.
    On,
    /// End the client; it is not followed by another.
    Quit,
    /// The same, and the link is gone.
    Unlinked,
    /// End the client, and begin a fresh one after this time.
    Again(Duration),
}
