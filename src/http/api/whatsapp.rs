//! The runner's side: WhatsApp connections of this process.

pub mod connect;
pub mod events;
pub mod image;
pub mod passkey;
pub mod qr;
pub mod view;

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::OwnedMutexGuard;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::runner::port::WhatsApp;
use crate::session::SessionKey;
use crate::sync::report::SessionEntry;

/// Which session. `Call` reads it, for every body alike.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionBody {
    /// The session, where neither path nor query name one.
    session_id: Option<String>,
}

impl Api {
    /// The connections; a process without has no route that asks.
    fn whatsapp(&self) -> Result<Arc<dyn WhatsApp>, Problem> {
        self.whatsapp.clone().ok_or_else(Problem::not_found)
    }

    /// Lets a session begin, unless the user would have too many then. What comes back is held until it has.
    async fn admit(&self, key: &SessionKey) -> Result<OwnedMutexGuard<()>, Problem> {
        let turn = self.directory.turn(key.user()).await;
        let entries = self.directory.fresh(key.user(), self).await?;
        let connected = self.whatsapp()?.connections();
        let connected = connected.iter().map(|(key, _)| key).filter(|other| other.user() == key.user());
        let most = self.config.max_sessions_per_user;
        if room(&entries, connected.map(SessionKey::session), key.session(), most) {
            Ok(turn)
        } else {
            Err(Problem::too_many_sessions(most))
        }
    }
}

/// Whether the user may have this session: it is there already, or they have fewer than the most.
fn room<'a>(
    entries: &'a [SessionEntry],
    connected: impl Iterator<Item = &'a str>,
    session: &str,
    most: usize,
) -> bool {
    let alive = entries.iter().filter(|entry| entry.is_active || entry.here.is_some());
    let there: std::collections::BTreeSet<&str> =
        alive.map(|entry| entry.session_id.as_str()).chain(connected).collect();
    there.contains(session) || there.len() < most
}
