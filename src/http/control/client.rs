//! The other end of the control socket, or of the same calls behind a sidecar's API.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DEADLINE, DeleteRequest, Done, NoteRequest, RestoreRequest, SessionRequest, SyncRequest};
use crate::config::Secret;
use crate::error::{Code, Error, ErrorReport};
use crate::net;
use crate::session::SessionKey;
use crate::sync::control::Control;
use crate::sync::report::{
    BotFacts, DeleteReport, HistoryReport, MarkReport, RestoreReport, SessionEntry, SessionStatus,
    StatusReport, SyncReport,
};

/// How long the answer may take on top of the work that was asked for.
const SLACK: Duration = Duration::from_secs(10);
/// What a start, with its wait for another process, may take.
const START: Duration = Duration::from_mins(10);
/// How long connecting to a sidecar in the same pod may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The host of a socket is never looked up.
const SOCKET: &str = "http://sidecar";

/// The other end of the socket: a [`Control`] that asks the process behind it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
}

impl Client {
    /// A client of this socket; connects with every call. The path is used as it is: one through
    /// `/proc/self/fd` needs its descriptor open as long as the client lives. What destroys or replaces needs the token.
    pub fn new(path: &Path, token: Option<Secret>) -> Result<Self, Error> {
        Self::build(SOCKET.to_owned(), token, |http| http.unix_socket(path))
    }

    /// A client of a sidecar's API: `http://127.0.0.1:3080`.
    ///
    /// # Errors
    /// [`Code::Usage`] for anything but `http://`: the sidecar is in the same pod.
    pub fn of_url(url: &str, token: Option<Secret>) -> Result<Self, Error> {
        let base = url.trim_end_matches('/');
        let parsed = url::Url::parse(base).ok().filter(|url| url.scheme() == "http" && url.has_host());
        if parsed.is_none() {
            let text = "SIDECAR_URL is not an http:// URL: give that of the sidecar in this pod, such as http://127.0.0.1:3080";
            return Err(Error::new(Code::Usage, text));
        }
        Self::build(format!("{base}{}", super::PREFIX), token, |http| http.connect_timeout(CONNECT))
    }

    fn build(
        base: String,
        token: Option<Secret>,
        how: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, Error> {
        let failed =
            |error| Error::new(Code::Internal, "cannot make a client for the sidecar").because(error);
        let http = how(net::nearby()).build().map_err(failed)?;
        Ok(Self { http, base, token })
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str, body: &impl Serialize) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).json(body)
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<T, Error> {
        let silent = |error: reqwest::Error| {
            Error::new(
                Code::RootLocked,
                "the process that holds the root does not answer at its control socket: it is starting, \
                 stopping or stuck; try again, or look at its logs",
            )
            .because(error.without_url())
        };
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let response = request.timeout(within + SLACK).send().await.map_err(silent)?;
        let well = response.status().is_success();
        let body = response.bytes().await.map_err(silent)?;
        if well {
            return serde_json::from_slice(&body).map_err(foreign);
        }
        Err(serde_json::from_slice::<ErrorReport>(&body).map_or_else(foreign, Error::from))
    }

    #[cfg(test)]
    pub(super) fn raw(&self, path: &str, body: &'static str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).body(body)
    }

    async fn mark(&self, path: &str, key: &SessionKey) -> Result<MarkReport, Error> {
        let request = SessionRequest { session: key.to_string() };
        self.ask(self.post(path, &request), DEADLINE).await
    }
}

fn foreign(error: serde_json::Error) -> Error {
    Error::new(
        Code::Internal,
        "the process that holds the root is of another version: its answer is not understood",
    )
    .because(error)
}

#[async_trait]
impl Control for Client {
    async fn status(&self) -> Result<StatusReport, Error> {
        self.ask(self.get("/status"), Duration::ZERO).await
    }

    async fn sync(&self, key: Option<SessionKey>, deadline: Duration) -> Result<SyncReport, Error> {
        let deadline_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
        let request = SyncRequest { session: key.map(|key| key.to_string()), deadline_ms };
        self.ask(self.post("/sync", &request), deadline).await
    }

    async fn logout(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.mark("/logout", key).await
    }

    async fn accept_identity(&self, key: &SessionKey) -> Result<MarkReport, Error> {
        self.mark("/accept-identity", key).await
    }

    async fn history(&self, key: &SessionKey) -> Result<HistoryReport, Error> {
        self.ask(self.get("/history").query(&[("session", key.to_string())]), DEADLINE).await
    }

    async fn sessions(&self, user: &str) -> Result<Vec<SessionEntry>, Error> {
        self.ask(self.get("/sessions").query(&[("user", user)]), DEADLINE).await
    }

    async fn open(&self, key: &SessionKey) -> Result<SessionStatus, Error> {
        self.ask(self.post("/open", &SessionRequest { session: key.to_string() }), START).await
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        self.ask(self.post("/restore", &RestoreRequest { session: key.to_string(), at }), START).await
    }

    async fn delete(&self, key: &SessionKey, purge: bool) -> Result<DeleteReport, Error> {
        self.ask(self.post("/delete", &DeleteRequest { session: key.to_string(), purge }), START).await
    }

    async fn give_way(&self, key: &SessionKey) -> Result<(), Error> {
        let request = SessionRequest { session: key.to_string() };
        self.ask(self.post("/give-way", &request), DEADLINE).await.map(|Done {}| ())
    }

    async fn note(&self, key: &SessionKey, facts: BotFacts) -> Result<(), Error> {
        let request = NoteRequest { session: key.to_string(), facts };
        self.ask(self.post("/note", &request), Duration::ZERO).await.map(|Done {}| ())
    }
}
