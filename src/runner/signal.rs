//! The crate's events in the machine's words, and its messages in ours.

use std::time::Duration;

use jiff::Timestamp;
use whatsapp_rust::prelude::{Client, Event, InboundMessage, MessageExt as _};
use whatsapp_rust::types::events::{ConnectFailureReason, LoggedOut};

use super::port::{Me, Message};
use super::state::Signal;

/// What an event says; none where it says nothing of the connection.
pub(super) fn signal(event: &Event, client: &Client) -> Option<Signal> {
    Some(match event {
        Event::PairingQrCode(qr) => Signal::Qr { code: qr.code.clone(), lasts: qr.timeout },
        Event::PairingQrCodesExhausted(end) => Signal::QrExhausted { ended: end.disconnected },
        Event::PairingCode(code) => Signal::PairingCode { code: code.code.clone(), lasts: code.timeout },
        Event::PairingCodeRefresh(_) => Signal::PairingCodeGone,
        Event::PairSuccess(link) => {
            Signal::Paired(Me { id: link.id.to_string(), lid: Some(link.lid.to_string()), push_name: None })
        }
        Event::PairError(_) => Signal::PairFailed,
        Event::PairPasskeyRequest(request) => match serde_json::from_str(&request.request_options_json) {
            Ok(options) => Signal::PasskeyAsked(options),
            Err(_) => Signal::PasskeyFailed,
        },
        Event::PairPasskeyConfirmation(confirm) => {
            Signal::PasskeyCode((!confirm.skip_handoff_ux).then(|| confirm.code.clone()))
        }
        Event::PairPasskeyError(_) => Signal::PasskeyFailed,
        Event::Connected(_) => Signal::LoggedIn(me(client)),
        Event::Disconnected(_) => Signal::Lost,
        Event::LoggedOut(out) if out.reason == ConnectFailureReason::AccountLocked => Signal::Locked,
        Event::LoggedOut(out) => Signal::LoggedOut { explicit: is_explicit(out) },
        Event::StreamReplaced(_) => Signal::Replaced,
        Event::TemporaryBan(ban) => Signal::Banned(ban.expire.to_std().ok()),
        Event::ClientOutdated(_) => Signal::Outdated,
        Event::ConnectFailure(failure) if failure.reason == ConnectFailureReason::TempBanned => {
            Signal::Banned(None)
        }
        Event::ConnectFailure(failure) => {
            Signal::Refused { reason: failure.reason.code(), again: failure.reason.should_reconnect() }
        }
        _ => return None,
    })
}

/// Whether the server says that a person removed the device: at a login it never does.
fn is_explicit(out: &LoggedOut) -> bool {
    let Some(stanza) = out.raw.as_ref().filter(|stanza| !out.on_connect && stanza.tag == "stream:error")
    else {
        return false;
    };
    let conflict = stanza.get_optional_child("conflict");
    let removed =
        conflict.and_then(|conflict| conflict.attrs.get("type")).is_some_and(|kind| kind == "device_removed");
    removed || stanza.attrs.get("code").is_some_and(|code| code == "516")
}

/// The account in the client's database.
pub(super) fn me(client: &Client) -> Option<Me> {
    let name = client.push_name();
    Some(Me {
        id: client.pn()?.to_string(),
        lid: client.lid().map(|lid| lid.to_string()),
        push_name: (!name.is_empty()).then_some(name),
    })
}

/// A message of a chat; none for what devices tell each other.
pub(super) fn message(inbound: &InboundMessage) -> Option<Message> {
    let (info, content) = (&inbound.info, &inbound.message);
    let text = content.text_content().map(str::to_owned);
    let between_devices =
        content.protocol_message.is_set() || content.sender_key_distribution_message.is_set();
    if text.is_none() && between_devices {
        return None;
    }
    Some(Message {
        id: info.id.clone(),
        chat: info.source.chat.to_string(),
        from: info.source.sender.to_string(),
        from_me: info.source.is_from_me,
        push_name: (!info.push_name.is_empty()).then(|| info.push_name.clone()),
        text,
        timestamp: Timestamp::from_millisecond(info.timestamp.timestamp_millis()).unwrap_or_default(),
    })
}

/// How long a pairing code is good, by the crate.
pub(super) const PAIRING_CODE_LASTS: Duration = Duration::from_mins(3);
