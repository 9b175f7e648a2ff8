//! What the rest of the program sees of a WhatsApp connection: plain values, and one trait.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::error::Error;
use crate::host::{Host as _, Real};
use crate::session::SessionKey;

/// Where a connection stands; the words are those of WAHA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Nobody wants it connected.
    Stopped,
    /// On the way: restoring, connecting, logging in, waiting to try again.
    Starting,
    /// A QR code (or a pairing code) waits for a phone.
    ScanQrCode,
    /// WhatsApp asks for a passkey.
    PasskeyRequired,
    /// A code is to be compared with the phone's.
    PasskeyConfirmationRequired,
    /// Logged in.
    Working,
    /// It ended, and somebody has to look at it: see [`Connection::failure`].
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::ScanQrCode,
        Self::PasskeyRequired,
        Self::PasskeyConfirmationRequired,
        Self::Working,
        Self::Failed,
    ];

    /// The word of JSON and of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::ScanQrCode => "SCAN_QR_CODE",
            Self::PasskeyRequired => "PASSKEY_REQUIRED",
            Self::PasskeyConfirmationRequired => "PASSKEY_CONFIRMATION_REQUIRED",
            Self::Working => "WORKING",
            Self::Failed => "FAILED",
        }
    }
}

/// One connection at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The linked account; known also while it is not connected.
    pub me: Option<Me>,
    /// The QR code that a phone may scan now.
    pub qr: Option<Qr>,
    /// The code that a person may type into the phone now.
    pub pairing_code: Option<PairingCode>,
    /// The step of a passkey that waits.
    pub passkey: Option<Passkey>,
    /// Why it failed, or why it is still starting.
    pub failure: Option<Failure>,
    /// When it is tried again.
    pub next_try_at: Option<Timestamp>,
}

impl Connection {
    /// One of which nothing else is known.
    #[must_use]
    pub fn new(state: State, since: Timestamp) -> Self {
        Self {
            state,
            since,
            me: None,
            qr: None,
            pairing_code: None,
            passkey: None,
            failure: None,
            next_try_at: None,
        }
    }

    /// One that begins now.
    #[must_use]
    pub fn starting() -> Self {
        Self::new(State::Starting, Real.now())
    }
}

/// A linked account. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// `<number>:<device>@s.whatsapp.net`
    pub id: String,
    /// The same account under its hidden id.
    pub lid: Option<String>,
    /// The name that others see.
    pub push_name: Option<String>,
}

impl Me {
    /// The phone number, digits only.
    #[must_use]
    pub fn phone(&self) -> Option<&str> {
        let number = self.id.split(['@', ':']).next()?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
    }
}

impl fmt::Debug for Me {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Me(…)")
    }
}

/// A QR code. Who scans it links a phone: never logged.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Qr {
    /// The text in the image.
    pub code: String,
    /// When the next one replaces it.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Qr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qr").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A code that a person types into the phone, instead of scanning. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairingCode {
    /// `ABCD-EFGH`
    pub code: String,
    /// When it is void.
    pub expires_at: Timestamp,
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingCode").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The step of a passkey that waits.
#[derive(Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Passkey {
    /// WebAuthn: `navigator.credentials.get({publicKey: …})` answers this; see [`WhatsApp::answer_passkey`].
    Challenge {
        /// `PublicKeyCredentialRequestOptions` as JSON.
        options: serde_json::Value,
    },
    /// Compare with the phone, then [`WhatsApp::confirm_passkey`].
    Confirm {
        /// `XXXX-XXXX`; none: there is nothing to compare.
        code: Option<String>,
    },
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Challenge { .. } => "Challenge",
            Self::Confirm { .. } => "Confirm",
        })
    }
}

/// Why a connection failed, or is not up yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A stable word.
    pub code: FailureCode,
    /// One sentence for people, with what to do; without a phone number.
    pub message: String,
}

/// Why, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// WhatsApp cannot be reached; tried again.
    Unreachable,
    /// WhatsApp refused the login for a moment; tried again.
    TryAgain,
    /// The link is gone: a person, or WhatsApp, unlinked the device.
    LoggedOut,
    /// Another client uses the session's keys: this one has stopped and does not fight for it.
    Replaced,
    /// The account is banned for a while.
    TemporaryBan,
    /// The account is locked.
    AccountLocked,
    /// WhatsApp does not take this version any more.
    ClientOutdated,
    /// Nobody scanned in time: connect again for new codes.
    QrExpired,
    /// The phone and WhatsApp did not agree on the link.
    PairingFailed,
    /// The session is not ours any more, or was never opened.
    SessionLost,
    /// Its database cannot be used.
    Store,
    /// The directory holds the account of another library.
    OtherEngine,
    /// Something else; the message says what.
    Other,
}

impl FailureCode {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Unreachable,
        Self::TryAgain,
        Self::LoggedOut,
        Self::Replaced,
        Self::TemporaryBan,
        Self::AccountLocked,
        Self::ClientOutdated,
        Self::QrExpired,
        Self::PairingFailed,
        Self::SessionLost,
        Self::Store,
        Self::OtherEngine,
        Self::Other,
    ];

    /// The word of JSON, metrics and webhooks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TryAgain => "try_again",
            Self::LoggedOut => "logged_out",
            Self::Replaced => "replaced",
            Self::TemporaryBan => "temporary_ban",
            Self::AccountLocked => "account_locked",
            Self::ClientOutdated => "client_outdated",
            Self::QrExpired => "qr_expired",
            Self::PairingFailed => "pairing_failed",
            Self::SessionLost => "session_lost",
            Self::Store => "store",
            Self::OtherEngine => "other_engine",
            Self::Other => "other",
        }
    }
}

/// What happens to a connection.
#[derive(Debug, Clone)]
pub enum Event {
    /// It stands elsewhere, or shows another code.
    Connection {
        /// Whose.
        session: SessionKey,
        /// As it is now.
        connection: Box<Connection>,
    },
    /// A message came, or was sent from another device of the account.
    Message {
        /// Whose.
        session: SessionKey,
        /// The message.
        message: Box<Message>,
    },
}

impl Event {
    /// Whose it is.
    #[must_use]
    pub fn session(&self) -> &SessionKey {
        match self {
            Self::Connection { session, .. } | Self::Message { session, .. } => session,
        }
    }
}

/// A message. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its id in the chat.
    pub id: String,
    /// The chat's JID.
    pub chat: String,
    /// The sender's JID.
    pub from: String,
    /// Whether the account itself sent it.
    pub from_me: bool,
    /// The sender's name, where it says one.
    pub push_name: Option<String>,
    /// Its text; none for anything but text.
    pub text: Option<String>,
    /// When it was sent.
    pub timestamp: Timestamp,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message(…)")
    }
}

/// The WhatsApp side of the session API.
#[async_trait]
pub trait WhatsApp: Send + Sync {
    /// Wants the session connected: restores or begins it, then connects. Answers once the connection is on its way, and
    /// at once where it is already.
    ///
    /// # Errors
    /// [`Code::OtherEngine`](crate::error::Code::OtherEngine), [`Code::LeaseHeld`](crate::error::Code::LeaseHeld), and
    /// whatever keeps the session from being opened.
    async fn connect(&self, key: &SessionKey) -> Result<Connection, Error>;

    /// Wants it off. The link to the phone stays. Off already: no error.
    async fn disconnect(&self, key: &SessionKey) -> Result<(), Error>;

    /// Ends the link to the phone, and records it: the session restores as a new one.
    async fn logout(&self, key: &SessionKey) -> Result<(), Error>;

    /// Stops the connection, after unlinking with `logout`, and deletes the session.
    async fn delete(&self, key: &SessionKey, logout: bool, purge: bool) -> Result<(), Error>;

    /// Stops the connection, takes a point of the past (none: the newest), and connects again if it was.
    async fn restore(
        &self,
        key: &SessionKey,
        at: Option<String>,
    ) -> Result<crate::sync::report::RestoreReport, Error>;

    /// The connection as it is now; none where this process never had one.
    fn connection(&self, key: &SessionKey) -> Option<Connection>;

    /// All connections of this process.
    fn connections(&self) -> Vec<(SessionKey, Connection)>;

    /// A code to type into the phone with this number (digits, with the country's prefix); connects where it must.
    ///
    /// # Errors
    /// [`Code::Usage`](crate::error::Code::Usage) for what is no phone number,
    /// [`Code::Conflict`](crate::error::Code::Conflict) where the session is linked already.
    async fn pairing_code(&self, key: &SessionKey, phone: &str) -> Result<PairingCode, Error>;

    /// Answers a passkey challenge with what the browser's `credential.toJSON()` gave.
    ///
    /// # Errors
    /// [`Code::Conflict`](crate::error::Code::Conflict) where none waits.
    async fn answer_passkey(&self, key: &SessionKey, assertion: serde_json::Value) -> Result<(), Error>;

    /// The phone shows the same code.
    ///
    /// # Errors
    /// [`Code::Conflict`](crate::error::Code::Conflict) where nothing waits for it.
    async fn confirm_passkey(&self, key: &SessionKey) -> Result<(), Error>;

    /// Sends a text to a phone number or a JID; the message's id.
    ///
    /// # Errors
    /// [`Code::NotConnected`](crate::error::Code::NotConnected) unless the session is working.
    async fn send(&self, key: &SessionKey, to: &str, text: &str) -> Result<String, Error>;

    /// What happens from now on, to all connections.
    fn events(&self) -> broadcast::Receiver<Event>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_json_use_the_same_words() {
        for state in State::ALL {
            assert_eq!(serde_json::json!(state), state.as_str());
        }
        for code in FailureCode::ALL {
            assert_eq!(serde_json::json!(code), code.as_str());
        }
    }
}
