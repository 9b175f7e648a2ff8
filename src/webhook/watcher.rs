//! The task that looks when something changed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
#[cfg(feature = "runner")]
use tokio::sync::broadcast;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::conditions::Seen;
use super::deliver::{Deliveries, QUEUE, Receiver, Sender};
use super::edges::Edges;
use super::event::Event;
use crate::error::Error;
use crate::host::Host;
#[cfg(feature = "runner")]
use crate::runner::port::WhatsApp;
use crate::sync::control::Control;

/// A busy bot changes something again and again: between two looks at least this.
const PAUSE: Duration = Duration::from_secs(1);
/// Where sessions may change without a word: not later than this.
const RESTLESS: SignedDuration = SignedDuration::from_secs(30);

/// What is looked at.
pub struct Sources {
    /// The sessions, and what tells that one of them changed; none: another process keeps them.
    pub sessions: Option<(Arc<dyn Control>, watch::Receiver<()>)>,
    /// The connections to WhatsApp.
    #[cfg(feature = "runner")]
    pub whatsapp: Option<Arc<dyn WhatsApp>>,
    /// The clock.
    pub host: Arc<dyn Host>,
}

/// Webhooks of a running process.
#[derive(Debug)]
pub struct Webhooks {
    deliveries: Arc<Deliveries>,
    end: oneshot::Sender<Option<Error>>,
    watcher: JoinHandle<()>,
    sender: JoinHandle<()>,
}

impl Webhooks {
    /// Looks from now on.
    #[must_use]
    pub fn start(receiver: Receiver, sources: Sources) -> Self {
        let deliveries = Arc::<Deliveries>::default();
        let (queue, events) = mpsc::channel(QUEUE);
        let sender = Sender { receiver, deliveries: Arc::clone(&deliveries), events };
        let (end, ended) = oneshot::channel();
        let watcher =
            Watcher { sources, edges: Edges::default(), queue, deliveries: Arc::clone(&deliveries) };
        Self {
            deliveries,
            end,
            watcher: tokio::spawn(watcher.run(ended)),
            sender: tokio::spawn(sender.run()),
        }
    }

    /// What became of the events.
    #[must_use]
    pub fn deliveries(&self) -> Arc<Deliveries> {
        Arc::clone(&self.deliveries)
    }

    /// Tells what there is to tell at the end, of which this error is the reason, and delivers what waits; not longer than
    /// `left`.
    pub async fn close(self, why: Option<&Error>, left: Duration) {
        let Self { end, watcher, sender, .. } = self;
        // It may have died: then nothing is left to tell.
        let _ = end.send(why.map(|error| Error::new(error.code(), error.to_string())));
        let aborts = [watcher.abort_handle(), sender.abort_handle()];
        let both = async { (watcher.await, sender.await) };
        if timeout(left, both).await.is_err() {
            warn!("webhooks could not be delivered before the end");
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

struct Watcher {
    sources: Sources,
    edges: Edges,
    queue: mpsc::Sender<Event>,
    deliveries: Arc<Deliveries>,
}

impl Watcher {
    async fn run(mut self, mut ended: oneshot::Receiver<Option<Error>>) {
        let mut changes = self.sources.sessions.as_ref().map(|(_, changes)| changes.clone());
        #[cfg(feature = "runner")]
        let mut bots = self.sources.whatsapp.as_ref().map(|whatsapp| whatsapp.events());
        loop {
            let next = self.look(None, false).await;
            let wait = next.map(|at| at.duration_since(self.sources.host.now()));
            let wait = wait.map(|wait| Duration::try_from(wait).unwrap_or_default().max(PAUSE));
            let due = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let bot = async {
                #[cfg(feature = "runner")]
                connection_changed(&mut bots).await;
                #[cfg(not(feature = "runner"))]
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                end = &mut ended => Some(end),
                () = session_changed(&mut changes) => None,
                () = bot => None,
                () = due => None,
            };
            let end = match end {
                Some(end) => Some(end),
                // What happens at once is one look.
                None => timeout(PAUSE, &mut ended).await.ok(),
            };
            if let Some(end) = end {
                // Dropped: the process ends without a word.
                let why = end.ok().flatten();
                self.look(why.as_ref(), true).await;
                return;
            }
        }
    }

    /// Tells what is new; when to look again although nothing changed.
    async fn look(&mut self, end: Option<&Error>, last: bool) -> Option<Timestamp> {
        let mut seen = Seen::default();
        if let Some((control, _)) = &self.sources.sessions {
            match control.status().await {
                Ok(report) => seen.sessions(&report),
                Err(error) => debug!(%error, "sessions cannot be looked at"),
            }
        }
        #[cfg(feature = "runner")]
        if let Some(whatsapp) = &self.sources.whatsapp {
            seen.connections(&whatsapp.connections());
        }
        if let Some(error) = end {
            seen.end(error);
        }
        let now = self.sources.host.now();
        let look = self.edges.look(now, &seen, last);
        for event in look.events {
            if self.queue.try_send(event).is_err() {
                self.deliveries.drop_one();
            }
        }
        let soon = seen.restless.then(|| now.saturating_add(RESTLESS).unwrap_or(now));
        look.next.into_iter().chain(soon).min()
    }
}

async fn session_changed(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(watched) = changes
        && watched.changed().await.is_ok()
    {
        return;
    }
    *changes = None;
    std::future::pending::<()>().await;
}

#[cfg(feature = "runner")]
async fn connection_changed(events: &mut Option<broadcast::Receiver<crate::runner::port::Event>>) {
    use crate::runner::port::Event;
    while let Some(watched) = events {
        match watched.recv().await {
            Ok(Event::Message { .. }) => {}
            Ok(Event::Connection { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => *events = None,
        }
    }
    std::future::pending::<()>().await;
}
