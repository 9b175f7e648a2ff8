//! HTTP for the client: it fetches WhatsApp's current version, and says so when it cannot.

use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use whatsapp_rust::anyhow::{self, Context as _};
use whatsapp_rust::async_trait;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::wacore::version::parse_sw_js;

use super::life::Note;
use crate::net;

const CONNECT: Duration = Duration::from_secs(10);
/// The client itself gives the version 20 s.
const WHOLE: Duration = Duration::from_mins(1);
/// More is not read: the script that names the version has one or two megabytes.
const MOST: usize = 32 << 20;

/// One session's HTTP. Connects to nothing before it must.
pub(super) struct Fetcher {
    http: OnceCell<reqwest::Client>,
    notes: mpsc::UnboundedSender<Note>,
}

impl Fetcher {
    pub(super) fn new(notes: mpsc::UnboundedSender<Note>) -> Self {
        Self { http: OnceCell::new(), notes }
    }

    async fn exchange(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let http = self.http.get_or_try_init(async || client()).await?;
        let method = request.method.parse().context("no HTTP method")?;
        let mut call = http.request(method, &request.url);
        for (name, value) in &request.headers {
            call = call.header(name, value);
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let mut response = call.send().await?;
        let status_code = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            anyhow::ensure!(body.len() + chunk.len() <= MOST, "the answer is too long");
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse { status_code, body })
    }
}

#[async_trait]
impl HttpClient for Fetcher {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        let is_version = request.url.ends_with("/sw.js");
        let answer = self.exchange(request).await;
        if is_version {
            // The client retries in silence: nobody would learn why the session does not start.
            let why = match &answer {
                Err(error) => Some(innermost(error)),
                Ok(answer) if answer.status_code >= 300 => Some(format!("HTTP {}", answer.status_code)),
                Ok(answer) if parse_sw_js(&String::from_utf8_lossy(&answer.body)).is_none() => {
                    Some("the answer names no version".to_owned())
                }
                Ok(_) => None,
            };
            if let Some(why) = why {
                let _ = self.notes.send(Note::NoVersion(why));
            }
        }
        answer
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    Ok(net::http(net::tls(None)?).connect_timeout(CONNECT).timeout(WHOLE).build()?)
}

/// The cause that a person understands: the outer layers name a URL and little else.
pub(super) fn innermost(error: &anyhow::Error) -> String {
    error.root_cause().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(url: String) -> Option<String> {
        let (sender, mut notes) = mpsc::unbounded_channel();
        let _ = Fetcher::new(sender).execute(HttpRequest::get(url)).await;
        match notes.try_recv() {
            Ok(Note::NoVersion(why)) => Some(why),
            _ => None,
        }
    }

    async fn answers(body: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(body.as_bytes()).await.unwrap();
        });
        format!("http://{address}/sw.js")
    }

    #[tokio::test]
    async fn a_version_that_cannot_be_fetched_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let why = told(format!("http://{closed}/sw.js")).await.unwrap();
        assert!(why.contains("refused"), "{why}");
        let url = answers("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(told(url).await.unwrap(), "HTTP 403");
        let url = answers("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        assert_eq!(told(url).await.unwrap(), "the answer names no version");
    }

    #[tokio::test]
    async fn a_version_that_is_there_is_not_worth_a_word() {
        let url = answers("HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\nclient_revision:1234567").await;
        assert_eq!(told(url).await, None);
    }
}
