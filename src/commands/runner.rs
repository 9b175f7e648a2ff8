//! `runner`: WhatsApp connections beside a sidecar that keeps their sessions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::front::{self, Behind, Front};
use super::observed::{Observed, Observer};
use super::{serve, signals};
use crate::cli::Runner;
use crate::config::{Observe, Place, Project, Secret, environment, secret};
use crate::error::{Code, Error, Result};
use crate::http::api::CloudStorage;
use crate::http::control::Client;
use crate::runner::service::{Home, Service};
use crate::session::SessionKey;
use crate::sync::control::Control;
use crate::sync::health::{Health, Why};
use crate::sync::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionStatus,
    StatusReport, SyncReport,
};
use crate::sync::rootdir::ControlAddress;

/// How often it is seen to that the sidecar answers.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal; the exit code.
pub(super) async fn run(args: Runner) -> Result<u8> {
    let Runner { sidecar_url, stop_timeout, place, api, observe, project, whatsapp } = args;
    let stop = signals::listen()?;
    let settings = serve::settings(&whatsapp)?;
    let place = Place::new(&place)?;
    let known = project.supabase_url.as_deref().filter(|url| !url.trim().is_empty());
    let known = known.map(|url| Project { url, ca_file: project.ca_file.as_ref() });
    let front = Front::open(serve::front(&api, known)?, front::Default::SERVICE)?;
    let observer = Observer::new(Observe::new(&observe, project.ca_file.as_ref(), &environment)?)?;
    // Also where the API itself goes by users' tokens alone: the sidecar has one.
    let token = match front.token() {
        Some(token) => Some(token),
        None => secret("API_TOKEN", "API_TOKEN_FILE", &environment)?.map(|(token, _)| token),
    };
    let control: Arc<dyn Control> = match &sidecar_url {
        Some(url) => Arc::new(Client::of_url(url, token)?),
        None => Arc::new(Socket { root: place.root.clone(), token }),
    };
    let servers = CancellationToken::new();
    let _stop_servers = servers.clone().drop_guard();
    let health = watch::Sender::new(Health::default());
    let home = Home { root: place.root, layout: place.layout };
    let service = Service::start(settings, home, Arc::clone(&control));
    // The sidecar shows and tells of the sessions.
    let (metrics, told) = observer.watch(Observed {
        sessions: None,
        health: health.subscribe(),
        counted: None,
        whatsapp: Some(Arc::clone(&service) as _),
    });
    let behind = Behind {
        control: Arc::clone(&control),
        whatsapp: Some(Arc::clone(&service) as _),
        health: health.subscribe(),
        probes: Some(metrics),
        cloud: CloudStorage::Enabled,
    };
    front.answer(behind, &servers)?;
    tokio::select! {
        () = stop.orderly.cancelled() => {}
        () = follow(&*control, &health) => {}
    }
    service.close(stop_timeout).await;
    told.close(None, Duration::MAX).await;
    Ok(0)
}

/// Ready once the sidecar answers.
async fn follow(control: &dyn Control, health: &watch::Sender<Health>) {
    let mut answered = None;
    loop {
        let now = control.status().await;
        if answered != Some(now.is_ok()) {
            match &now {
                Ok(_) => info!("the sidecar answers"),
                Err(error) => warn!(%error, "waiting for the sidecar"),
            }
            answered = Some(now.is_ok());
        }
        health.send_modify(|health| {
            health.alive = true;
            health.ready = now.is_ok();
            health.why.clear();
            health.why.extend(now.is_err().then_some(Why::Starting));
        });
        sleep(LOOK).await;
    }
}

/// The sidecar behind the socket of the shared root, which is another one after each of its starts.
#[derive(Debug)]
struct Socket {
    root: std::path::PathBuf,
    token: Option<Secret>,
}

impl Socket {
    /// The client's path leads through the address.
    fn client(&self) -> Result<(Client, ControlAddress)> {
        let address = address(&self.root)?;
        Ok((Client::new(address.path(), self.token.clone())?, address))
    }
}

fn address(root: &Path) -> Result<ControlAddress> {
    ControlAddress::of(root).map_err(|error| {
        let text = format!(
            "no sidecar keeps {}: start `session-sidecar run` on the same root, or give its URL (SIDECAR_URL)",
            root.display()
        );
        Error::new(Code::RootLocked, text).because(error)
    })
}

#[async_trait]
impl Control for Socket {
    async fn status(&self) -> Result<StatusReport, Error> {
        let (client, _address) = self.client()?;
        client.status().await
    }

    async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error> {
        let (client, _address) = self.client()?;
        client.sync(key, deadline).await
    }

    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        let (client, _address) = self.client()?;
        client.logout(key).await
    }

    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        let (client, _address) = self.client()?;
        client.accept_identity(key).await
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        let (client, _address) = self.client()?;
        client.history(key).await
    }

    async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
        let (client, _address) = self.client()?;
        client.sessions(user).await
    }

    async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        let (client, _address) = self.client()?;
        client.open(key).await
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        let (client, _address) = self.client()?;
        client.restore(key, at).await
    }

    async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        let (client, _address) = self.client()?;
        client.delete(key, purge).await
    }

    async fn give_way(&self, key: &SessionKey) -> Result<(), Error> {
        let (client, _address) = self.client()?;
        client.give_way(key).await
    }

    async fn note(&self, key: &SessionKey, facts: BotFacts) -> Result<(), Error> {
        let (client, _address) = self.client()?;
        client.note(key, facts).await
    }
}
