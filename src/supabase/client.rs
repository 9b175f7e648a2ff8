//! HTTP to one project: connections, timeouts, the key, and its renewal when it is refused.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, Response};
use serde::Serialize;
use tokio::time::timeout;
use url::Url;

use super::endpoint::is_loopback;
use super::meaning::{meaning, shorten};
use super::{Credential, CredentialSource, Endpoint};
use crate::error::{Code, Error};
use crate::host::Host;
use crate::net;
use crate::store::{Kind, StoreError};

/// How long is waited for what. Every try ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the first byte of an answer once the request is sent; also the time that a body gets on top of its
    /// size.
    pub answer: Duration,
    /// Between two pieces of a body that is received.
    pub idle: Duration,
    /// Bytes a second below which a transfer is given up: a body gets its size divided by this.
    pub slowest: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            slowest: 16 * 1024,
        }
    }
}

impl Timeouts {
    /// For a request or answer whose body has this many bytes.
    #[must_use]
    pub fn transfer(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }
}

/// HTTP to one project.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    credential: CredentialSource,
    timeouts: Timeouts,
    host: Arc<dyn Host>,
    /// Whether it was said that the token ends soon.
    warned: AtomicBool,
}

/// A request: all of it, so that it can be sent again.
#[derive(Debug, Clone)]
pub struct Request {
    /// The call it belongs to, for errors.
    pub op: &'static str,
    /// The method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Headers besides those of every request.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(op: &'static str, method: Method, url: String) -> Self {
        Self { op, method, url, headers: HeaderMap::new(), body: None }
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("our requests are plain JSON");
        self.body = Some(body.into());
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }
}

/// An answer that was read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The server's clock, whole seconds.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        date(&self.headers, &DATE)
    }
}

/// What came back: a success, whose body is still to be read, or anything else, read whole.
#[derive(Debug)]
pub enum Reply {
    /// Status 2xx.
    Success(Response),
    /// Any other status.
    Refusal(Answer),
}

/// More is not read of an answer that ought to be small.
const ANSWER_BYTES: usize = 16 << 20;

impl Client {
    /// Connects to nothing yet. `ca_file` holds PEM certificates that are trusted besides the system's.
    ///
    /// # Errors
    /// [`Code::Usage`] when the file holds no certificates.
    pub fn new(
        endpoint: Endpoint,
        credential: CredentialSource,
        ca_file: Option<&Path>,
        timeouts: Timeouts,
        host: Arc<dyn Host>,
    ) -> Result<Self, Error> {
        let http = connections(&endpoint, ca_file, &timeouts)?;
        Ok(Self { http, endpoint, credential, timeouts, host, warned: AtomicBool::new(false) })
    }

    /// The key to use now.
    #[must_use]
    pub fn credential(&self) -> Credential {
        self.credential.current()
    }

    /// The project.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The timeouts.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Sends a request with the key. When the key is refused and its file holds another one, once more with
    /// that.
    ///
    /// # Errors
    /// [`Kind::Transient`] when no whole answer came.
    pub async fn send(&self, request: &Request) -> Result<Reply, StoreError> {
        let credential = self.credential.current();
        self.warn_of_the_end(&credential);
        let reply = self.send_with(request, &credential).await?;
        if let Reply::Refusal(answer) = &reply
            && self.meaning(answer).0 == Kind::Denied
            && self.credential.renew(&credential, self.host.now()).await
        {
            self.warned.store(false, Ordering::Relaxed);
            return self.send_with(request, &self.credential.current()).await;
        }
        Ok(reply)
    }

    /// Once for each token: a process may run for as long as it lasts.
    fn warn_of_the_end(&self, credential: &Credential) {
        let now = self.host.now();
        let Some(days) = credential.token().and_then(|token| token.ends_soon(now)) else { return };
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                days,
                "the token of this sidecar ends soon: make a new one with `session-sidecar token` (where it comes from a \
                 file, replacing that is enough)"
            );
        }
    }

    async fn send_with(&self, request: &Request, credential: &Credential) -> Result<Reply, StoreError> {
        let op = request.op;
        let fail = |error: &reqwest::Error| StoreError::new(Kind::Transient, op, self.explain(error));
        let mut builder =
            self.http.request(request.method.clone(), &request.url).headers(request.headers.clone());
        for (name, value) in headers_of(credential) {
            builder = builder.header(name, value);
        }
        let mut limit = self.timeouts.connect + self.timeouts.answer;
        if let Some(body) = &request.body {
            limit = self.timeouts.connect + self.timeouts.transfer(body.len() as u64);
            builder = builder.body(body.clone());
        }
        let response = timeout(limit, builder.send())
            .await
            .map_err(|_| self.too_slow(op, limit))?
            .map_err(|error| fail(&error))?;
        tracing::debug!(op, status = response.status().as_u16(), "answered");
        if response.status().is_success() {
            return Ok(Reply::Success(response));
        }
        Ok(Reply::Refusal(self.read(op, response).await?))
    }

    /// Reads an answer that ought to be small.
    ///
    /// # Errors
    /// [`Kind::Transient`] when it breaks off or stalls, [`Kind::Protocol`] when it does not end.
    pub async fn read(&self, op: &'static str, response: Response) -> Result<Answer, StoreError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = BytesMut::new();
        let mut chunks = Chunks::new(self, op, response);
        while let Some(chunk) = chunks.next().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES {
                let text = format!("{} answers without end", self.endpoint);
                return Err(StoreError::new(Kind::Protocol, op, text));
            }
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }

    /// The error that a refusal of storage is.
    #[must_use]
    pub fn refusal(&self, op: &'static str, answer: &Answer) -> StoreError {
        let (kind, message) = self.meaning(answer);
        let mut error = StoreError::new(kind, op, self.redact(&message));
        error.retry_after = retry_after(&answer.headers);
        error
    }

    /// A server's words without our key in them.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.credential.current().redact(text)
    }

    /// What to do when the database refuses the key, by its code.
    pub(super) fn advice(&self, code: Option<&str>) -> String {
        match code {
            // Our functions: the token is good, but for something else.
            Some("PT403") => "make a token for this session with `session-sidecar token`".to_owned(),
            _ => self.credential.current().advice(self.host.now()),
        }
    }

    fn meaning(&self, answer: &Answer) -> (Kind, String) {
        let advice = self.credential.current().advice(self.host.now());
        meaning(answer.status, &answer.body, self.endpoint.base(), &advice)
    }

    /// An answer of success that is not what Supabase says.
    #[must_use]
    pub fn foreign(&self, op: &'static str, what: &str) -> StoreError {
        let text = format!("{} does not answer as Supabase does ({what}): is the URL right?", self.endpoint);
        StoreError::new(Kind::Protocol, op, text)
    }

    fn too_slow(&self, op: &'static str, limit: Duration) -> StoreError {
        StoreError::new(Kind::Transient, op, format!("{} did not answer within {limit:?}", self.endpoint))
    }

    /// A network error for people; without the request's URL, which names objects.
    fn explain(&self, error: &reqwest::Error) -> String {
        let (endpoint, cause) = (&self.endpoint, innermost(error));
        if error.is_dns() {
            format!("the name of {endpoint} cannot be resolved: {cause}")
        } else if cause.contains("certificate") {
            format!("the certificate of {endpoint} is not trusted (--ca-file adds an authority): {cause}")
        } else if error.is_connect() {
            format!("no connection to {endpoint}: {cause}")
        } else {
            format!("the connection to {endpoint} broke: {cause}")
        }
    }
}

/// Connections to a project, without a key.
///
/// # Errors
/// [`Code::Usage`] when `ca_file` holds no certificates.
pub fn connections(
    endpoint: &Endpoint,
    ca_file: Option<&Path>,
    timeouts: &Timeouts,
) -> Result<reqwest::Client, Error> {
    connections_to(endpoint.url(), ca_file, timeouts)
}

/// Connections to the host of any URL: the same proxies, authorities and care as for a project.
///
/// # Errors
/// As those of [`connections`].
pub fn connections_to(
    url: &Url,
    ca_file: Option<&Path>,
    timeouts: &Timeouts,
) -> Result<reqwest::Client, Error> {
    let mut headers = HeaderMap::new();
    // A cache in between may compress text and JSON; we keep the bytes as they are.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let tls = if url.scheme() == "https" { net::tls(ca_file) } else { net::tls_apart(ca_file) };
    let mut builder = net::http(tls?)
        .user_agent(concat!("session-sidecar/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(timeouts.connect)
        .tcp_keepalive(Duration::from_secs(20))
        // The server closes idle connections after 60 s.
        .pool_idle_timeout(Duration::from_secs(50));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder
        .build()
        .map_err(|error| Error::new(Code::Internal, "cannot make an HTTP client").because(innermost(&error)))
}

/// The pieces of an answer's body, each within the idle timeout and all within that of their size.
pub(super) struct Chunks<'a> {
    client: &'a Client,
    op: &'static str,
    response: Response,
    deadline: tokio::time::Instant,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(client: &'a Client, op: &'static str, response: Response) -> Self {
        let bytes = response.content_length().unwrap_or(ANSWER_BYTES as u64);
        Self { client, op, response, deadline: tokio::time::Instant::now() + client.timeouts.transfer(bytes) }
    }

    /// The next piece; none at the end, which has come only when all that was announced has.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let idle = self.client.timeouts.idle;
        let limit = idle.min(self.deadline.saturating_duration_since(tokio::time::Instant::now()));
        timeout(limit, self.response.chunk())
            .await
            .map_err(|_| {
                let text = format!("{} stalled in the middle of an answer", self.client.endpoint);
                StoreError::new(Kind::Transient, self.op, text)
            })?
            .map_err(|error| StoreError::new(Kind::Transient, self.op, self.client.explain(&error)))
    }
}

/// The gateway reads `apikey`, storage `Authorization`; for opaque keys the gateway wants both alike.
fn headers_of(credential: &Credential) -> [(HeaderName, HeaderValue); 2] {
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text).expect("keys are printable ASCII");
        value.set_sensitive(true);
        value
    };
    let bearer = format!("Bearer {}", credential.secret());
    [(HeaderName::from_static("apikey"), secret(credential.apikey())), (AUTHORIZATION, secret(&bearer))]
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // The outermost one repeats the URL.
    if error.source().is_some() { shorten(&cause.to_string()) } else { "no reason given".to_owned() }
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// `Retry-After` in seconds, or as a date, which is compared with the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = date(headers, &RETRY_AFTER)?.duration_since(date(headers, &DATE)?);
    Duration::try_from(wait).ok()
}
