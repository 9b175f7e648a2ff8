//! What the engine tells about itself.

use tracing::error;

use super::{Alarm, Engine};
use crate::error::Code;
use crate::sync::report::{HeldFile, IdentityStatus, SessionState, SessionSync};

impl Engine {
    /// Sets or clears an alarm; a new one is logged. // P8
    pub(super) fn set_alarm(&mut self, alarm: Alarm, text: Option<String>) {
        match text {
            None => drop(self.alarms.remove(&alarm)),
            Some(text) => {
                let old = self.alarms.insert(alarm, text.clone());
                if old.as_ref() != Some(&text) {
                    if alarm == Alarm::Guard {
                        self.env.counters.identity_alarms.inc();
                    }
                    error!("{text}");
                }
            }
        }
    }

    pub(super) fn publish_status(&mut self) {
        let marked = self.inbox.marked();
        let mirror = self.mirror.as_ref().map(crate::sync::mirroring::Mirroring::status).unwrap_or_default();
        let (held, identity) = (self.held_files(), self.identity());
        if let Some(head) = self.journal.acknowledged() {
            self.env.leases.note_head(&self.key, head);
        }
        self.status.send_modify(|status| {
            status.state = if self.session_held.is_some() { SessionState::Held } else { SessionState::Ready };
            status.head = self.journal.acknowledged().map(|id| id.to_string());
            status.epoch = Some(self.journal.epoch());
            status.ready = !self.unfit;
            status.last_commit_at = self.committed.at;
            status.files = self.committed.table.files.len() as u64;
            status.bytes = self.committed.table.bytes();
            status.dirty = marked;
            status.held = held;
            status.identity = identity;
            let error = self.failed.or(self.session_held.as_ref().map(|_| Code::Held));
            status.error = error.map(|code| code.as_str().to_owned());
            status.last_success_at = self.last_success;
            status.logged_out = self.logged_out.is_some();
            status.alarms = self.alarms.values().cloned().collect();
            status.mirror = mirror;
        });
    }

    pub(super) fn sync_report(&self, changed: bool) -> SessionSync {
        SessionSync {
            session: self.key.to_string(),
            commit: self.journal.acknowledged().map(|id| id.to_string()),
            changed,
            files: self.committed.table.files.len() as u64,
            bytes: self.committed.table.bytes(),
            held: self.held_files(),
        }
    }

    fn held_files(&self) -> Vec<HeldFile> {
        let file = |(path, hold): (&String, &super::Hold)| HeldFile {
            path: path.clone(),
            reason: hold.reason.as_str().to_owned(),
            since: hold.since,
        };
        self.held.iter().map(file).collect()
    }

    fn identity(&self) -> Option<IdentityStatus> {
        let creds = self.committed.creds.values().max_by_key(|creds| creds.identity.is_paired())?;
        Some(IdentityStatus {
            format: creds.format?.as_str().to_owned(),
            paired: creds.identity.is_paired(),
            account: creds.phone.clone(),
        })
    }
}
