//! What a running process shows and tells: its metrics and its webhooks.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::info;

use crate::config::Observe;
use crate::error::{Error, Result};
use crate::host::{Host as _, Real};
use crate::http::metrics::Metrics;
#[cfg(feature = "runner")]
use crate::runner::port::WhatsApp;
use crate::store;
use crate::sync::control::Control;
use crate::sync::counters::Counters;
use crate::sync::health::Health;
use crate::webhook::{Receiver, Sources, Webhooks};

/// What the end of a process may take for its last webhooks.
const LAST: Duration = Duration::from_secs(2);

/// What is shown and told, before there is anything to show.
#[derive(Debug)]
pub(super) struct Observer {
    settings: Observe,
    receiver: Option<Receiver>,
    started: Timestamp,
}

/// What a process has to show.
pub(super) struct Observed {
    /// Its sessions, and what tells of their changes; none: another process keeps them.
    pub sessions: Option<(Arc<dyn Control>, watch::Receiver<()>)>,
    pub health: watch::Receiver<Health>,
    pub counted: Option<(Arc<Counters>, store::Metrics)>,
    #[cfg(feature = "runner")]
    pub whatsapp: Option<Arc<dyn WhatsApp>>,
}

impl Observer {
    /// Checks what was configured; nothing is sent yet.
    pub fn new(settings: Observe) -> Result<Self> {
        let receiver = settings.webhook.as_ref().map(|webhook| Receiver::new(webhook, Arc::new(Real)));
        let receiver = receiver.transpose()?;
        if let Some(receiver) = &receiver {
            info!(receiver = receiver.name(), "webhooks tell what needs a person");
        }
        Ok(Self { settings, receiver, started: Real.now() })
    }

    /// Watches from now on.
    pub fn watch(self, observed: Observed) -> (Arc<Metrics>, Told) {
        let Observed {
            sessions,
            health,
            counted,
            #[cfg(feature = "runner")]
            whatsapp,
        } = observed;
        let control = sessions.as_ref().map(|(control, _)| Arc::clone(control));
        let webhooks = self.receiver.map(|receiver| {
            let sources = Sources {
                sessions,
                #[cfg(feature = "runner")]
                whatsapp: whatsapp.clone(),
                host: Arc::new(Real),
            };
            Webhooks::start(receiver, sources)
        });
        let metrics = Metrics {
            control,
            health,
            counted,
            #[cfg(feature = "runner")]
            whatsapp,
            deliveries: webhooks.as_ref().map(Webhooks::deliveries),
            labels: self.settings.labels,
            started: self.started,
            host: Arc::new(Real),
        };
        (Arc::new(metrics), Told(webhooks))
    }
}

/// The webhooks of a running process, if any.
pub(super) struct Told(Option<Webhooks>);

impl Told {
    /// The last words, with what is left of the time.
    pub async fn close(self, why: Option<&Error>, left: Duration) {
        if let Some(webhooks) = self.0 {
            webhooks.close(why, left.min(LAST)).await;
        }
    }
}
