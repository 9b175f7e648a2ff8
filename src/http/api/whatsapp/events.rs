//! What happens to a user's sessions, as server-sent events: `status`, `qr`, `sync`, `message`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::view;
use crate::http::api::call::Call;
use crate::http::api::problem::Problem;
use crate::http::api::{Api, Shared};
use crate::runner::port::{Connection, Event, WhatsApp};
use crate::session::SessionKey;

/// How often heads are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Comments that keep proxies from closing the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that a slow client may be behind before the connections' own queue fills.
const QUEUE: usize = 32;

/// `GET /api/whatsapp/events/{user}`
pub async fn stream(State(api): State<Shared>, call: Call) -> Result<Response, Problem> {
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| Problem::too_many_streams())?;
    let whatsapp = api.whatsapp()?;
    let only = call.named().map(str::to_owned);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        // A token that has ended opens nothing, also not a stream that it opened before.
        end: call.access.until.map(|until| until_instant(until, api.config.host.now())),
        user: call.user,
        only,
        whatsapp,
        sender,
        shown: BTreeMap::new(),
        kept: BTreeMap::new(),
        _permit: permit,
        api,
    };
    tokio::spawn(watcher.run());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep_alive).into_response())
}

fn until_instant(until: Timestamp, now: Timestamp) -> Instant {
    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    // Far ahead is as good as a week.
    Instant::now() + left.min(Duration::from_hours(168))
}

/// The client is gone.
struct Gone;

struct Watcher {
    api: Arc<Api>,
    whatsapp: Arc<dyn WhatsApp>,
    user: String,
    only: Option<String>,
    end: Option<Instant>,
    sender: mpsc::Sender<Result<Sent, Infallible>>,
    /// The QR code that was sent last, by session.
    shown: BTreeMap<String, Option<String>>,
    /// What was sent last of each session's history.
    kept: BTreeMap<String, Kept>,
    _permit: OwnedSemaphorePermit,
}

/// What a `sync` event tells.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    session_id: String,
    head: Option<String>,
    last_sync_at: Option<Timestamp>,
    files: u64,
    bytes: u64,
    held: usize,
}

impl Watcher {
    async fn run(mut self) {
        let stop = self.api.config.stop.clone();
        let sender = self.sender.clone();
        let end = self.end;
        let ended = async move {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Whoever hangs up ends it: there is nobody to tell.
            _ = self.watch() => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
            () = ended => {}
        }
    }

    async fn watch(&mut self) -> Result<(), Gone> {
        // Before the first look: what happens in between is not missed.
        let mut events = self.whatsapp.events();
        self.all().await?;
        self.look().await?;
        let mut ticks = interval_at(Instant::now() + LOOK, LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) if !self.concerns(event.session()) => {}
                    Ok(Event::Connection { session, connection }) => self.status(&session, Some(*connection)).await?,
                    Ok(Event::Message { session, message }) => {
                        self.send("message", &json!({"sessionId": session.session(), "message": message})).await?;
                    }
                    // What was missed is told as it is now.
                    Err(RecvError::Lagged(_)) => self.all().await?,
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = ticks.tick() => self.look().await?,
            }
        }
    }

    fn concerns(&self, key: &SessionKey) -> bool {
        key.user() == self.user && self.only.as_deref().is_none_or(|only| only == key.session())
    }

    /// Where everything stands.
    async fn all(&mut self) -> Result<(), Gone> {
        let entries = self.api.directory.of(&self.user, &self.api).await.unwrap_or_default();
        let listed = entries.iter().filter(|entry| entry.is_active);
        let listed = listed.filter_map(|entry| SessionKey::new(&*entry.user_id, &*entry.session_id).ok());
        let connected = self.whatsapp.connections().into_iter().map(|(key, _)| key);
        let named = self.only.as_ref().and_then(|only| SessionKey::new(&*self.user, &**only).ok());
        let keys: BTreeSet<_> =
            listed.chain(connected).chain(named).filter(|key| self.concerns(key)).collect();
        for key in keys {
            let connection = self.whatsapp.connection(&key);
            self.status(&key, connection).await?;
        }
        Ok(())
    }

    async fn status(&mut self, key: &SessionKey, connection: Option<Connection>) -> Result<(), Gone> {
        let qr = connection.as_ref().and_then(|connection| connection.qr.clone());
        let view = view::of(&self.api, key, connection).await;
        self.send("status", &view).await?;
        let code = qr.as_ref().map(|qr| qr.code.clone());
        let before = self.shown.insert(key.session().to_owned(), code.clone());
        if let Some(qr) = qr
            && before != Some(code)
        {
            let data = json!({"sessionId": key.session(), "qrCode": qr.code, "expiresAt": qr.expires_at});
            self.send("qr", &data).await?;
        }
        Ok(())
    }

    /// Tells of every session whose head, or what it holds, is another one than before.
    async fn look(&mut self) -> Result<(), Gone> {
        let Ok(report) = self.api.control.status().await else { return Ok(()) };
        for session in report.sessions {
            let Ok(key) = session.session.parse::<SessionKey>() else { continue };
            if !self.concerns(&key) {
                continue;
            }
            let kept = Kept {
                session_id: key.session().to_owned(),
                head: session.head,
                last_sync_at: session.last_commit_at,
                files: session.files,
                bytes: session.bytes,
                held: session.held.len(),
            };
            if self.kept.get(key.session()) != Some(&kept) {
                self.send("sync", &kept).await?;
                self.kept.insert(key.session().to_owned(), kept);
            }
        }
        Ok(())
    }

    async fn send(&self, name: &str, data: &impl Serialize) -> Result<(), Gone> {
        let event = Sent::default().event(name).json_data(data).map_err(|_| Gone)?;
        self.sender.send(Ok(event)).await.map_err(|_| Gone)
    }
}
