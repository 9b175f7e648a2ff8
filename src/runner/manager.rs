//! The connections of this process: start, stop, and what is asked of them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tracing::{Instrument as _, warn};
use whatsapp_rust::Client;
use whatsapp_rust::Jid;
use whatsapp_rust::pair_code::{PairCodeOptions, PairError};
use whatsapp_rust::passkey::Assertion;
use whatsapp_rust::prelude::{MessageBuilderExt as _, wa};
use whatsapp_rust::wacore::pair_code::{PairCodeError, PairCodeRejection};

use super::files;
use super::life::{Life, UNASKED};
use super::port::{Connection, Event, PairingCode, State};
use super::settings::Settings;
use super::signal::PAIRING_CODE_LASTS;
use super::slot::{Command, Common, Running, Slot, lock};
use super::state::{Input, grouped};
use crate::error::{Code, Error};
use crate::host::{Host as _, Real};
use crate::session::SessionKey;
use crate::telemetry;

/// Events that a slow listener may lag behind.
const EVENTS: usize = 1024;
/// How long WhatsApp may take to answer what is asked of it.
const ANSWER: Duration = Duration::from_mins(1);

/// What the owner of the sessions is told. A hook is awaited on the session's task: it must not start, stop or log
/// out the same session.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// The link was made and is flushed to the disk; awaited before anybody is told. Given up when the session is
    /// stopped meanwhile.
    async fn paired(&self, key: &SessionKey);
    /// WhatsApp says that the link is gone, and it is believed. The database is closed and still there; the next
    /// start removes it.
    async fn unlinked(&self, key: &SessionKey);
    /// It stands elsewhere; called in order, must not block.
    fn changed(&self, key: &SessionKey, connection: &Connection);
}

/// The connections of this process, one a session.
pub struct Runner {
    common: Arc<Common>,
    slots: Mutex<HashMap<SessionKey, Arc<Slot>>>,
}

impl Runner {
    /// Connects nothing yet. The settings are [checked](Settings::check).
    pub fn new(settings: Settings, hooks: Arc<dyn Hooks>) -> Arc<Self> {
        let common = Common { settings, hooks, events: broadcast::Sender::new(EVENTS) };
        Arc::new(Self { common: Arc::new(common), slots: Mutex::default() })
    }

    /// Wants a session connected whose database lies in this directory. Answers once it is on its way, and at once
    /// where it is already. The lease is held by the caller before.
    ///
    /// # Errors
    /// [`Code::OtherEngine`] for a directory with the account of another library; [`Code::Conflict`] while the last
    /// connection has not let go of the database.
    pub async fn start(&self, key: &SessionKey, dir: &Path) -> Result<Connection, Error> {
        let slot = self.slot(key);
        let mut running = slot.running.lock().await;
        if running.as_ref().is_some_and(|running| !running.task.is_finished()) && !slot.is_over() {
            return Ok(slot.connection());
        }
        // One that failed may still be on its way out.
        join(&mut running).await;
        slot.released().await?;
        let looked = dir.to_owned();
        let other = tokio::task::spawn_blocking(move || files::refuse_other_engine(&looked)).await;
        let other =
            other.map_err(|error| Error::new(Code::Internal, "the directory was not read").because(error))?;
        if let Err(error) = other {
            if error.code() == Code::OtherEngine {
                slot.step(Input::OtherEngine(error.to_string()));
            }
            return Err(error);
        }
        if slot.is_void() {
            files::discard(dir)?;
            slot.step(Input::Discarded);
        }
        slot.step(Input::Wanted);
        let (commands, received) = mpsc::channel(1);
        let life = Life { slot: slot.clone(), dir: dir.to_owned(), commands: received };
        let (span, watched) = (telemetry::session_span(key), slot.clone());
        let task = tokio::spawn(async move {
            // A panic in it, or in a hook, must not leave a session that looks alive.
            if let Err(error) = tokio::spawn(life.run().instrument(span)).await {
                tracing::error!("the task of a WhatsApp connection failed: {error}");
                watched.step(Input::Broken);
            }
        });
        *running = Some(Running { commands, task });
        Ok(slot.connection())
    }

    /// Ends the connection and keeps the link. Answers when the database is closed: the directory may be moved or
    /// deleted then. Off already: no error.
    ///
    /// # Errors
    /// [`Code::Conflict`] when the client does not let go of the database; stop again.
    pub async fn stop(&self, key: &SessionKey) -> Result<(), Error> {
        match self.known(key) {
            Some(slot) => end(&slot, Command::Stop, Input::Stopped).await,
            None => Ok(()),
        }
    }

    /// Ends the link to the phone, which WhatsApp is told while the session is connected, and the connection. The
    /// database is void then: the next start removes it.
    ///
    /// # Errors
    /// As [`Runner::stop`].
    pub async fn logout(&self, key: &SessionKey) -> Result<(), Error> {
        end(&self.slot(key), Command::LogOut, Input::LoggedOut).await
    }

    /// The session was lost to another process: ends the connection, and shows why.
    pub async fn lost(&self, key: &SessionKey) {
        if let Err(error) = end(&self.slot(key), Command::Stop, Input::Taken).await {
            warn!("{error}");
        }
    }

    /// Where a session's connection stands; none where there never was one.
    #[must_use]
    pub fn connection(&self, key: &SessionKey) -> Option<Connection> {
        self.known(key).map(|slot| slot.connection())
    }

    /// All connections, by session.
    #[must_use]
    pub fn connections(&self) -> Vec<(SessionKey, Connection)> {
        let slots = lock(&self.slots);
        let mut all: Vec<_> = slots.values().map(|slot| (slot.key.clone(), slot.connection())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// A code to type into the phone with this number; waits for the connection. An earlier code is void.
    ///
    /// # Errors
    /// [`Code::Usage`] for what is no phone number, [`Code::Conflict`] where the session is linked already,
    /// [`Code::NotConnected`] where it does not come up, [`Code::Refused`] where WhatsApp gives no code.
    pub async fn pairing_code(&self, key: &SessionKey, phone: &str) -> Result<PairingCode, Error> {
        let phone_number = phone_number(phone)?;
        let slot = self.known(key).ok_or_else(not_connected)?;
        let mut shown = slot.watch();
        let ready = |shown: &Connection| shown.me.is_some() || !matches!(shown.state, State::Starting);
        let ready = timeout(self.common.settings.connect_deadline, shown.wait_for(ready)).await;
        let shown = ready.ok().and_then(Result::ok).map(|shown| shown.clone()).ok_or_else(not_connected)?;
        if shown.me.is_some() {
            return Err(Error::new(
                Code::Conflict,
                "the session is linked already: log it out to link another phone",
            ));
        }
        let client = slot.client().filter(|_| shown.state != State::Failed).ok_or_else(not_connected)?;
        let options = PairCodeOptions { phone_number, ..PairCodeOptions::default() };
        let asked = async {
            match client.pair_with_code(options.clone()).await {
                Err(PairError::PairCode(PairCodeError::CodeAlreadyOutstanding { .. })) => {
                    client.cancel_pair_code().await;
                    client.pair_with_code(options).await
                }
                first => first,
            }
        };
        let code = timeout(ANSWER, asked).await.map_err(|_| no_answer())?.map_err(|error| no_code(&error))?;
        Ok(PairingCode { code: grouped(&code), expires_at: Real.now() + PAIRING_CODE_LASTS })
    }

    /// Answers a passkey's challenge with what the browser's `credential.toJSON()` gave.
    ///
    /// # Errors
    /// [`Code::Conflict`] where none waits, [`Code::Usage`] for what is no credential, [`Code::Refused`] where
    /// WhatsApp does not take it.
    pub async fn answer_passkey(&self, key: &SessionKey, assertion: Value) -> Result<(), Error> {
        let assertion = credential(&assertion)?;
        let (slot, client) = self.waits_for_passkey(key, State::PasskeyRequired)?;
        let sent = timeout(ANSWER, client.send_passkey_response(assertion)).await.map_err(|_| no_answer())?;
        sent.map_err(|error| Error::new(Code::Refused, "the passkey was not taken").because(error))?;
        slot.step(Input::PasskeyAnswered);
        Ok(())
    }

    /// The phone shows the same code.
    ///
    /// # Errors
    /// [`Code::Conflict`] where nothing waits for it, [`Code::Refused`] where WhatsApp does not take it.
    pub async fn confirm_passkey(&self, key: &SessionKey) -> Result<(), Error> {
        let (slot, client) = self.waits_for_passkey(key, State::PasskeyConfirmationRequired)?;
        let sent = timeout(ANSWER, client.send_passkey_confirmation()).await.map_err(|_| no_answer())?;
        sent.map_err(|error| Error::new(Code::Refused, "the confirmation was not taken").because(error))?;
        slot.step(Input::PasskeyConfirmed);
        Ok(())
    }

    /// Sends a text to a phone number or a JID; the message's id.
    ///
    /// # Errors
    /// [`Code::NotConnected`] unless the session is working, [`Code::Usage`] for what is no address,
    /// [`Code::Refused`] where it cannot be sent.
    pub async fn send(&self, key: &SessionKey, to: &str, text: &str) -> Result<String, Error> {
        let to = address(to)?;
        if text.is_empty() {
            return Err(Error::new(Code::Usage, "the text is empty"));
        }
        let slot = self.known(key).filter(|slot| slot.connection().state == State::Working);
        let client = slot.and_then(|slot| slot.client()).ok_or_else(not_connected)?;
        let sent = client.send_message(&to, wa::Message::text(text));
        let sent = timeout(ANSWER, sent).await.map_err(|_| no_answer())?;
        // The crate's words hold addresses.
        let sent = sent.map_err(|error| {
            Error::new(Code::Refused, "the message was not sent")
                .because(telemetry::Masked(&error.to_string()).to_string())
        })?;
        Ok(sent.message_id)
    }

    /// What happens from now on, to all connections.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.common.events.subscribe()
    }

    /// Drops what is known of a session that was deleted. Call it after [`Runner::stop`].
    pub fn forget(&self, key: &SessionKey) {
        lock(&self.slots).remove(key);
    }

    fn known(&self, key: &SessionKey) -> Option<Arc<Slot>> {
        lock(&self.slots).get(key).cloned()
    }

    fn slot(&self, key: &SessionKey) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(key.clone());
        slot.or_insert_with(|| Arc::new(Slot::new(key.clone(), self.common.clone()))).clone()
    }

    fn waits_for_passkey(&self, key: &SessionKey, state: State) -> Result<(Arc<Slot>, Arc<Client>), Error> {
        let slot = self.known(key).filter(|slot| slot.connection().state == state);
        slot.and_then(|slot| slot.client().map(|client| (slot, client))).ok_or_else(|| {
            Error::new(Code::Conflict, "no passkey waits for this step: look at the session's status")
        })
    }
}

/// Ends what is under way, if anything, and shows how it ended.
async fn end(slot: &Arc<Slot>, command: Command, shown: Input) -> Result<(), Error> {
    let mut running = slot.running.lock().await;
    if let Some(under_way) = &*running {
        // One that is on its way out does not listen any more.
        let _ = under_way.commands.send(command).await;
        join(&mut running).await;
    } else if command == Command::LogOut && !slot.is_void() {
        telemetry::session_span(&slot.key).in_scope(|| warn!("{UNASKED}"));
    }
    slot.released().await?;
    slot.step(shown);
    Ok(())
}

/// Waits for the end of a session's task.
async fn join(running: &mut Option<Running>) {
    if let Some(ending) = running {
        // It reports its own failures.
        let _ = (&mut ending.task).await;
        *running = None;
    }
}

fn not_connected() -> Error {
    Error::new(
        Code::NotConnected,
        "the session is not connected to WhatsApp: connect it, and look at its status",
    )
}

fn no_answer() -> Error {
    Error::new(Code::NotConnected, "WhatsApp did not answer in time: try again")
}

fn no_code(error: &PairError) -> Error {
    let refused = |why: &str| Error::new(Code::Refused, why);
    match error.rejection() {
        Some(PairCodeRejection::FeatureNotAvailable) => {
            refused("WhatsApp links this account by QR code only: scan the QR code")
        }
        Some(rejection) if rejection.is_throttled() => refused(
            "WhatsApp gives no code for this number now (wrong number, or asked too often): scan the QR code, or wait some minutes",
        ),
        Some(rejection) => refused(&format!("WhatsApp gives no code ({rejection}): scan the QR code")),
        None if matches!(error, PairError::PairCode(_)) => {
            Error::new(Code::Refused, "no code can be asked for").because(error.to_string())
        }
        None => not_connected(),
    }
}

/// Digits with the country's prefix, however a person writes them. The number itself is in no error.
fn phone_number(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let digits: String =
        text.strip_prefix('+').unwrap_or(text).chars().filter(|c| !" -().".contains(*c)).collect();
    let is_number = (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    if is_number {
        return Ok(digits);
    }
    Err(Error::new(
        Code::Usage,
        "this is no phone number: give its digits with the country's prefix and without a leading 0",
    ))
}

/// A phone number, or a JID of a person or a group.
fn address(to: &str) -> Result<Jid, Error> {
    if !to.contains('@') {
        return Ok(Jid::pn(phone_number(to)?));
    }
    let jid: Option<Jid> = to.parse().ok();
    jid.filter(|jid| !jid.user.is_empty())
        .ok_or_else(|| Error::new(Code::Usage, "this is no WhatsApp address: give a phone number, or a JID"))
}

/// `PublicKeyCredential.toJSON()`, as WhatsApp wants it.
fn credential(json: &Value) -> Result<Assertion, Error> {
    let id = json["rawId"].as_str().or_else(|| json["id"].as_str()).unwrap_or_default();
    let credential_id = URL_SAFE_NO_PAD.decode(id.trim_end_matches('=')).unwrap_or_default();
    if credential_id.is_empty() || !json["response"].is_object() {
        return Err(Error::new(
            Code::Usage,
            "this is no passkey assertion: give what `credential.toJSON()` answers, with rawId and response",
        ));
    }
    Ok(Assertion { assertion_json: json.to_string().into_bytes(), credential_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_are_taken_as_people_write_them() {
        for text in ["15550001111", "+1 555 000-1111", " 1 (555) 000.1111 "] {
            assert_eq!(phone_number(text).unwrap(), "15550001111", "{text}");
        }
        for text in ["", "0155500011", "123456", "1234567890123456", "1555000111a", "++15550001111"] {
            let error = phone_number(text).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn a_text_goes_to_a_number_a_person_or_a_group() {
        assert_eq!(address("+1 555 000 1111").unwrap().to_string(), "15550001111@s.whatsapp.net");
        assert_eq!(address("123-456@g.us").unwrap().to_string(), "123-456@g.us");
        for text in ["nobody", "@s.whatsapp.net", "1@nowhere.example"] {
            assert_eq!(address(text).unwrap_err().code(), Code::Usage, "{text}");
        }
    }

    #[test]
    fn an_assertion_without_a_credential_is_refused() {
        let good = serde_json::json!({"id": "AQID", "rawId": "AQID", "type": "public-key", "response": {}});
        let assertion = credential(&good).unwrap();
        assert_eq!(assertion.credential_id, [1, 2, 3]);
        assert_eq!(serde_json::from_slice::<Value>(&assertion.assertion_json).unwrap(), good);
        for bad in [serde_json::json!({}), serde_json::json!({"rawId": "AQID"}), Value::from("x")] {
            assert_eq!(credential(&bad).unwrap_err().code(), Code::Usage);
        }
    }
}
