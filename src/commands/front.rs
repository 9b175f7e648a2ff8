//! The API's listener: opened before anything else is done, answered once there is something to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ApiSettings, Secret};
use crate::error::{Code, Result};
use crate::host::Real;
use crate::http::api::{ApiConfig, CloudStorage, api};
use crate::http::auth::Auth;
use crate::http::metrics::Metrics;
use crate::http::serve;
#[cfg(feature = "runner")]
use crate::runner::port::WhatsApp;
use crate::sync::control::Control;
use crate::sync::health::Health;

/// How long a `sync` over the API waits.
const SYNC: Duration = Duration::from_mins(1);

/// Where a command's API listens when nobody says where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Default {
    /// The address.
    pub address: SocketAddr,
    /// Whether the command is there for its API: one that is not goes on without.
    pub needed: bool,
}

impl Default {
    /// Of `serve`, `runner` and `dev`.
    #[cfg(feature = "runner")]
    pub const SERVICE: Self = Self::at(3000, true);
    /// Of `run`, `watch` and `exec`.
    pub const SIDECAR: Self = Self::at(3080, false);

    const fn at(port: u16, needed: bool) -> Self {
        Self { address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port), needed }
    }
}

/// The API's listener, and whom it answers.
#[derive(Debug)]
pub(super) struct Front {
    listener: Option<TcpListener>,
    settings: ApiSettings,
}

/// What the API speaks for.
pub(super) struct Behind {
    pub control: Arc<dyn Control>,
    #[cfg(feature = "runner")]
    pub whatsapp: Option<Arc<dyn WhatsApp>>,
    pub health: watch::Receiver<Health>,
    /// The metrics, where probes and metrics have no listener of their own.
    pub probes: Option<Arc<Metrics>>,
    pub cloud: CloudStorage,
}

impl Front {
    /// Opens the listener.
    ///
    /// # Errors
    /// [`Code::AddressInUse`], unless nobody asked for the address and the command does without.
    pub fn open(settings: ApiSettings, by_default: Default) -> Result<Self> {
        let listener = match settings.listen.map(serve::bind).transpose() {
            Err(error)
                if error.code() == Code::AddressInUse
                    && !by_default.needed
                    && settings.listen == Some(by_default.address) =>
            {
                warn!(%error, "there is no API");
                None
            }
            opened => opened?,
        };
        Ok(Self { listener, settings })
    }

    /// The operator's token, where there is one.
    pub fn token(&self) -> Option<Secret> {
        self.settings.token()
    }

    /// Answers until `stop`.
    pub fn answer(self, behind: Behind, stop: &CancellationToken) -> Result<()> {
        let Some(listener) = self.listener else { return Ok(()) };
        #[cfg(feature = "runner")]
        let page = behind.whatsapp.is_some();
        #[cfg(not(feature = "runner"))]
        let page = false;
        let config = ApiConfig {
            auth: Auth::new(&self.settings, Arc::new(Real))?,
            max_sessions_per_user: self.settings.max_sessions_per_user,
            sync_deadline: SYNC,
            cloud: behind.cloud,
            health: behind.health,
            probes: behind.probes,
            page,
            host: Arc::new(Real),
            stop: stop.clone(),
        };
        let router = api(
            behind.control,
            #[cfg(feature = "runner")]
            behind.whatsapp,
            config,
        );
        if let Ok(address) = listener.local_addr() {
            let reached = if address.ip().is_unspecified() {
                SocketAddr::from(([127, 0, 0, 1], address.port()))
            } else {
                address
            };
            info!(url = %format!("http://{reached}"), page, "the API answers");
        }
        tokio::spawn(serve::serve(listener, router, stop.clone()));
        Ok(())
    }
}
