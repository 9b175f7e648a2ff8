//! What is told, and its JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use crate::telemetry::Masked;

/// What happened, as a stable word; `docs/metrics.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something is held until a person decides.
    Held,
    /// Local tree and history differ, and only a person can say which one counts.
    Conflict,
    /// The history is damaged, or its head is missing.
    Damaged,
    /// Another process has the session.
    Taken,
    /// The account was logged out.
    LoggedOut,
    /// The oldest change has waited for long, or was left behind at the end.
    NotDurable,
    /// All is stored again.
    Durable,
    /// Another process asked for a session whose bot is not ours to stop.
    HandoverRefused,
    /// Nobody linked a phone in time.
    NotLinked,
    /// Another client uses the keys of the session.
    Replaced,
    /// The connection to WhatsApp ended, and somebody has to look at it.
    Failed,
    /// Supabase refuses our key.
    Unauthorized,
    /// More happened than is told one by one.
    Suppressed,
    /// A person asked for a test.
    Ping,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Held,
        Self::Conflict,
        Self::Damaged,
        Self::Taken,
        Self::LoggedOut,
        Self::NotDurable,
        Self::Durable,
        Self::HandoverRefused,
        Self::NotLinked,
        Self::Replaced,
        Self::Failed,
        Self::Unauthorized,
        Self::Suppressed,
        Self::Ping,
    ];

    /// The word in `type`; a contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "session.held",
            Self::Conflict => "session.conflict",
            Self::Damaged => "session.damaged",
            Self::Taken => "session.taken",
            Self::LoggedOut => "session.logged_out",
            Self::NotDurable => "session.not_durable",
            Self::Durable => "session.durable",
            Self::HandoverRefused => "session.handover_refused",
            Self::NotLinked => "session.not_linked",
            Self::Replaced => "session.replaced",
            Self::Failed => "session.failed",
            Self::Unauthorized => "process.unauthorized",
            Self::Suppressed => "process.suppressed",
            Self::Ping => "test.ping",
        }
    }
}

/// One event. Its texts are masked: neither phones nor secrets leave with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub kind: Kind,
    pub at: Timestamp,
    /// Whose; none: the process's.
    pub session: Option<String>,
    /// Why, as a stable word.
    pub code: Option<String>,
    /// One sentence that says what to do.
    pub message: String,
    /// It was told before, and is still so.
    pub reminder: bool,
    /// How many of each kind were not told one by one.
    pub suppressed: BTreeMap<Kind, u64>,
}

impl Event {
    /// Of the process, with nothing but a message.
    pub(super) fn of_process(kind: Kind, at: Timestamp, message: &str) -> Self {
        Self {
            kind,
            at,
            session: None,
            code: None,
            message: message.to_owned(),
            reminder: false,
            suppressed: BTreeMap::new(),
        }
    }

    /// What is sent.
    pub(super) fn body(&self) -> Bytes {
        let masked = |text: &String| Masked(text).to_string();
        let mut data = json!({
            "session": self.session.as_ref().map(masked),
            "code": self.code,
            "message": masked(&self.message),
            "reminder": self.reminder,
        });
        if !self.suppressed.is_empty() {
            let counts = self.suppressed.iter().map(|(kind, count)| (kind.as_str(), *count));
            data["suppressed"] = counts.collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        let body = json!({ "type": self.kind.as_str(), "timestamp": self.at.to_string(), "data": data });
        body.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_phone_and_no_jid_leaves_with_an_event() {
        let at = "2026-11-27T12:00:00Z".parse().unwrap();
        let mut event = Event::of_process(Kind::Held, at, "5511999887766@s.whatsapp.net would be lost");
        event.session = Some("5511999887766/default".to_owned());
        event.suppressed.insert(Kind::Taken, 3);
        let text = String::from_utf8(event.body().to_vec()).unwrap();
        assert!(!text.contains("5511999887766"), "{text}");
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&body["type"], &body["timestamp"]),
            (&json!("session.held"), &json!("2026-11-27T12:00:00Z"))
        );
        assert_eq!(body["data"]["session"], "55…66/default");
        assert_eq!(body["data"]["suppressed"], json!({ "session.taken": 3 }));
    }
}
