//! The receiver, tries and their end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};
use url::Url;
use uuid::Uuid;

use super::event::Event;
use super::sign::Key;
use crate::config::{WebhookConfig, secret_file};
use crate::error::{Code, Error};
use crate::host::Host;
use crate::supabase::{Timeouts, connections_to};
use crate::sync::backoff::Backoff;

/// Events that wait to be delivered; more are dropped and counted.
pub(super) const QUEUE: usize = 200;
/// What one try may take.
const TRY: Duration = Duration::from_secs(15);
/// After this an event is given up.
const KEEP: Duration = Duration::from_hours(24);
/// Between two tries.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What became of the events, for metrics.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    pending: AtomicUsize,
}

impl Deliveries {
    /// How many ended, by how: `delivered`, `failed` (given up), `dropped` (the queue was full, or the receiver is gone).
    #[must_use]
    pub fn ended(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("delivered", count(&self.delivered)),
            ("failed", count(&self.failed)),
            ("dropped", count(&self.dropped)),
        ]
    }

    /// How many wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who is told.
#[derive(Debug)]
pub struct Receiver {
    http: reqwest::Client,
    url: Url,
    key: Option<Key>,
    /// Read again when the receiver refuses the signature.
    key_file: Option<PathBuf>,
    host: Arc<dyn Host>,
}

/// What a try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// It wants no more: 410.
    Gone,
    /// Not now; why.
    Again(String),
}

impl Receiver {
    /// Connects to nothing yet. Proxies and authorities are those of the connection to Supabase.
    ///
    /// # Errors
    /// [`Code::Usage`] for an authority that cannot be read.
    pub fn new(config: &WebhookConfig, host: Arc<dyn Host>) -> Result<Self, Error> {
        let WebhookConfig { url, key, key_file, ca_file } = config;
        if key.is_none() {
            let open =
                if url.scheme() == "http" { ", and anybody on the way can read and change them" } else { "" };
            warn!(
                "webhooks are not signed: the receiver cannot tell ours from others'{open} (set SIDECAR_WEBHOOK_SECRET)"
            );
        }
        let http = connections_to(url, ca_file.as_deref(), &Timeouts::default())?;
        Ok(Self { http, url: url.clone(), key: key.clone(), key_file: key_file.clone(), host })
    }

    /// The receiver's name, for people; its path may be a secret.
    #[must_use]
    pub fn name(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Sends a test.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when no answer came, [`Code::Refused`] for one that is not a success.
    pub async fn ping(&self) -> Result<u16, Error> {
        let message = "A test that a person asked for: nothing has happened.";
        let event = Event::of_process(super::Kind::Ping, self.host.now(), message);
        let name = self.name();
        let sent = self.send(&new_id(), &event.body()).await;
        let status = sent.map_err(|why| {
            Error::new(Code::Unreachable, format!("the receiver {name} does not answer: {why}"))
        })?;
        if (200..300).contains(&status) {
            return Ok(status);
        }
        let why = format!(
            "the receiver {name} answers {status}: it must answer 2xx to what it takes (--webhook-url)"
        );
        Err(Error::new(Code::Refused, why))
    }

    async fn send(&self, id: &str, body: &Bytes) -> Result<u16, String> {
        let timestamp = self.host.now().as_second();
        let header = |value: &str| HeaderValue::from_str(value).expect("ids, numbers and base64 are ASCII");
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HeaderName::from_static("webhook-id"), header(id))
            .header(HeaderName::from_static("webhook-timestamp"), timestamp)
            .body(body.clone());
        if let Some(key) = &self.key {
            let signature = header(&key.sign(id, timestamp, body));
            request = request.header(HeaderName::from_static("webhook-signature"), signature);
        }
        match timeout(TRY, request.send()).await {
            Ok(Ok(response)) => Ok(response.status().as_u16()),
            // Without the URL, whose path may be a secret.
            Ok(Err(error)) => Err(error.without_url().to_string()),
            Err(_) => Err(format!("no answer within {TRY:?}")),
        }
    }

    async fn attempt(&mut self, message: &Message) -> Verdict {
        match self.send(&message.id, &message.body).await {
            Ok(200..300) => Verdict::Taken,
            Ok(410) => Verdict::Gone,
            Ok(status) => {
                if matches!(status, 401 | 403) {
                    self.renew_key();
                }
                Verdict::Again(format!("it answers {status}"))
            }
            Err(why) => Verdict::Again(why),
        }
    }

    fn renew_key(&mut self) {
        let Some(file) = &self.key_file else { return };
        let read =
            secret_file("SIDECAR_WEBHOOK_SECRET_FILE", file).and_then(|secret| Key::parse(secret.expose()));
        match read {
            Ok(key) => self.key = Some(key),
            Err(error) => warn!(%error, "the webhook secret cannot be read again"),
        }
    }
}

fn new_id() -> String {
    format!("msg_{}", Uuid::new_v4().simple())
}

/// An event on its way: each try has the same id.
#[derive(Debug)]
struct Message {
    id: String,
    kind: &'static str,
    body: Bytes,
    born: Instant,
    due: Instant,
    backoff: Backoff,
}

/// Delivers what comes, each event on a schedule of its own, one request at a time.
#[derive(Debug)]
pub(super) struct Sender {
    pub receiver: Receiver,
    pub deliveries: Arc<Deliveries>,
    pub events: mpsc::Receiver<Event>,
}

impl Sender {
    /// Until nothing comes any more; then once more what waits.
    pub(super) async fn run(mut self) {
        let mut waiting: Vec<Message> = Vec::new();
        let mut gone = false;
        loop {
            let next = (0..waiting.len()).min_by_key(|at| waiting[*at].due);
            let due = next.map(|at| waiting[at].due);
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(_) if gone || waiting.len() >= QUEUE => self.deliveries.drop_one(),
                    Some(event) => waiting.push(message(&event)),
                    None => break,
                },
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    let Some(at) = next else { continue };
                    let verdict = self.receiver.attempt(&waiting[at]).await;
                    gone |= verdict == Verdict::Gone;
                    self.settle(&mut waiting, at, verdict);
                }
            }
            if gone && !waiting.is_empty() {
                waiting.drain(..).for_each(|_| self.deliveries.drop_one());
            }
            self.deliveries.pending.store(waiting.len(), Ordering::Relaxed);
        }
        // The caller bounds this.
        for message in std::mem::take(&mut waiting) {
            match self.receiver.attempt(&message).await {
                Verdict::Taken => self.deliveries.delivered.fetch_add(1, Ordering::Relaxed),
                _ => self.deliveries.failed.fetch_add(1, Ordering::Relaxed),
            };
        }
        self.deliveries.pending.store(0, Ordering::Relaxed);
    }

    fn settle(&self, waiting: &mut Vec<Message>, at: usize, verdict: Verdict) {
        let message = &mut waiting[at];
        match verdict {
            Verdict::Taken => {
                info!(event = message.kind, "webhook delivered");
                self.deliveries.delivered.fetch_add(1, Ordering::Relaxed);
                waiting.remove(at);
            }
            Verdict::Gone => warn!("the receiver of webhooks answers 410: nothing more is sent to it"),
            Verdict::Again(why) if message.born.elapsed() >= KEEP => {
                warn!(event = message.kind, why, "a webhook is given up");
                self.deliveries.failed.fetch_add(1, Ordering::Relaxed);
                waiting.remove(at);
            }
            Verdict::Again(why) => {
                let wait = message.backoff.next_wait();
                message.due = Instant::now() + wait;
                let (event, wait_ms) = (message.kind, crate::telemetry::millis(wait));
                if message.backoff.failures() == 1 {
                    warn!(event, why, wait_ms, "a webhook was not taken; trying again");
                } else {
                    debug!(event, why, wait_ms, "a webhook was not taken; trying again");
                }
            }
        }
    }
}

fn message(event: &Event) -> Message {
    let now = Instant::now();
    Message {
        id: new_id(),
        kind: event.kind.as_str(),
        body: event.body(),
        born: now,
        due: now,
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode, Uri};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::host::Real;
    use crate::webhook::Kind;

    /// Path and signature of each request so far.
    type Seen = Arc<Mutex<Vec<(String, String)>>>;

    /// Answers with these, one after another, and each time where else to go.
    async fn server(statuses: &'static [u16]) -> (Url, Seen) {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let answer = move |uri: Uri, headers: HeaderMap| {
            let signature = headers.get("webhook-signature").map(|value| value.to_str().unwrap().to_owned());
            let mut log = log.lock().unwrap();
            log.push((uri.path().to_owned(), signature.unwrap_or_default()));
            let status = StatusCode::from_u16(statuses[log.len() - 1]).unwrap();
            async move { (status, [("location", "/elsewhere")]) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/hook", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        (url, seen)
    }

    struct Running {
        deliveries: Arc<Deliveries>,
        queue: mpsc::Sender<Event>,
        task: JoinHandle<()>,
    }

    impl Running {
        fn start(url: Url, key: Option<&str>, key_file: Option<PathBuf>) -> Self {
            let key = key.map(|key| Key::parse(key).unwrap());
            let config = WebhookConfig { url, key, key_file, ca_file: None };
            let receiver = Receiver::new(&config, Arc::new(Real)).unwrap();
            let (queue, events) = mpsc::channel(QUEUE);
            let deliveries = Arc::<Deliveries>::default();
            let sender = Sender { receiver, deliveries: Arc::clone(&deliveries), events };
            Self { deliveries, queue, task: tokio::spawn(sender.run()) }
        }

        fn send(&self) {
            self.queue.try_send(Event::of_process(Kind::Ping, Real.now(), "a test")).unwrap();
        }

        async fn until(&self, what: &str, holds: impl Fn() -> bool) {
            let waits = async {
                while !holds() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(10), waits).await.expect(what);
        }

        /// What became of the events, once the last try of each was made.
        async fn end(self) -> [u64; 3] {
            drop(self.queue);
            self.task.await.unwrap();
            self.deliveries.ended().map(|(_, count)| count)
        }
    }

    #[tokio::test]
    async fn a_receiver_that_wants_no_more_gets_no_more() {
        let (url, seen) = server(&[410]).await;
        let running = Running::start(url, None, None);
        running.send();
        running.until("the first is refused", || running.deliveries.ended()[2].1 == 1).await;
        running.send();
        running.until("the second is dropped", || running.deliveries.ended()[2].1 == 2).await;
        assert_eq!(running.end().await, [0, 0, 2]);
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_redirected_is_not_taken_and_goes_nowhere_else() {
        let (url, seen) = server(&[307, 200]).await;
        let running = Running::start(url, None, None);
        running.send();
        running.until("the first try", || running.deliveries.pending() == 1).await;
        running.until("it was answered", || !seen.lock().unwrap().is_empty()).await;
        assert_eq!(running.end().await, [1, 0, 0], "the last try at the end is taken");
        let paths: Vec<_> = seen.lock().unwrap().iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(paths, ["/hook", "/hook"]);
    }

    #[tokio::test]
    async fn a_secret_that_was_replaced_in_its_file_signs_the_next_try() {
        let (url, seen) = server(&[401, 200]).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "the-new-secret").unwrap();
        let running = Running::start(url, Some("the-old-secret"), Some(file.path().to_owned()));
        running.send();
        running.until("the first try", || !seen.lock().unwrap().is_empty()).await;
        assert_eq!(running.end().await, [1, 0, 0]);
        let seen = seen.lock().unwrap();
        assert!(
            seen[0].1.starts_with("v1,") && seen[1].1.starts_with("v1,") && seen[0].1 != seen[1].1,
            "{seen:?}"
        );
    }
}
