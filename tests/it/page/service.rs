//! The API as the page sees it, with answers that a test sets: every state can be shown without a phone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

/// The policy that the page must live with.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub const USER: &str = "alice";
pub const TOKEN: &str = "a+token/of=some-length";

/// A running service; it ends with the test.
pub struct Service {
    pub url: String,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By session: the row of the list, and the answer of `status`.
    sessions: Mutex<BTreeMap<String, (Value, Value)>>,
    /// Answers that are more than `success`, by method and path.
    answers: Mutex<BTreeMap<String, Value>>,
    calls: Mutex<Vec<(String, Value)>>,
    mute: AtomicBool,
    /// The newest event; none ends the streams.
    events: watch::Sender<Option<String>>,
}

impl Service {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        inner.events.send_replace(Some(": open".to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, inner }
    }

    /// What follows the root of the address when a link signs in.
    pub fn ticket() -> String {
        format!("#token={TOKEN}&user={USER}")
    }

    /// A session stands so from now on, and the stream says so.
    pub fn set(&self, id: &str, row: Value, status: Value) {
        self.inner.sessions.lock().unwrap().insert(id.to_owned(), (row, status));
        self.tell("status", id);
    }

    /// The same without a word on the stream.
    pub fn set_quietly(&self, id: &str, status: Value) {
        self.inner.sessions.lock().unwrap().get_mut(id).unwrap().1 = status;
    }

    pub fn remove(&self, id: &str) {
        self.inner.sessions.lock().unwrap().remove(id);
    }

    pub fn tell(&self, event: &str, id: &str) {
        let data = json!({"sessionId": id});
        self.inner.events.send_replace(Some(format!("event: {event}\ndata: {data}")));
    }

    /// Ends the streams, and gives none until it is called again with `false`.
    pub fn mute(&self, on: bool) {
        self.inner.mute.store(on, Ordering::Relaxed);
        self.inner.events.send_replace((!on).then(|| ": open".to_owned()));
    }

    pub fn answer(&self, call: &str, answer: Value) {
        self.inner.answers.lock().unwrap().insert(call.to_owned(), answer);
    }

    /// The body of the last such call.
    pub fn body_of(&self, call: &str) -> Option<Value> {
        let calls = self.inner.calls.lock().unwrap();
        calls.iter().rev().find(|(made, _)| made == call).map(|(_, body)| body.clone())
    }

    /// All calls, as method, path and query.
    pub fn calls(&self) -> Vec<String> {
        self.inner.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }
}

async fn answer(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    if let Some(page) = page(path) {
        return page;
    }
    let call = format!("{method} {uri}");
    let body = serde_json::from_slice(&body).unwrap_or_default();
    inner.calls.lock().unwrap().push((call.clone(), body));
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(&format!("Bearer {TOKEN}")) {
        return json_answer(StatusCode::UNAUTHORIZED, &json!({"success": false, "code": "unauthorized"}));
    }
    if let Some(answer) = inner.answers.lock().unwrap().get(&call) {
        return json_answer(StatusCode::OK, answer);
    }
    let sessions = inner.sessions.lock().unwrap();
    match path.split('/').skip(2).collect::<Vec<_>>()[..] {
        ["sessions", USER] => {
            let with_id = |(id, (row, _)): (&String, &(Value, Value))| {
                let mut row = row.clone();
                row["session_id"] = json!(id);
                row
            };
            let rows: Vec<Value> = sessions.iter().map(with_id).collect();
            json_answer(StatusCode::OK, &json!({"success": true, "sessions": rows}))
        }
        ["whatsapp", "status", USER, id] => {
            let status =
                sessions.get(id).map_or_else(|| json!({"success": true}), |(_, status)| status.clone());
            json_answer(StatusCode::OK, &status)
        }
        ["whatsapp", "qr", USER, id] => {
            let code = sessions[id].1["qr"]["code"].as_str().unwrap();
            let drawing = format!(
                "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'><title>{code}</title><path d='M1 1h3v3h-3z'/></svg>"
            );
            ([(header::CONTENT_TYPE, "image/svg+xml")], drawing).into_response()
        }
        ["whatsapp", "events", USER] if inner.mute.load(Ordering::Relaxed) => {
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"success": false}))
        }
        ["whatsapp", "events", USER] => {
            let events = WatchStream::new(inner.events.subscribe());
            let lines = events.take_while(|event| std::future::ready(event.is_some()));
            let lines = lines.map(|event| Ok::<_, Infallible>(format!("{}\n\n", event.unwrap_or_default())));
            let body = Body::from_stream(lines.chain(stream::empty()));
            ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        _ => json_answer(StatusCode::OK, &json!({"success": true})),
    }
}

fn json_answer(status: StatusCode, answer: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// A file of the page.
fn page(path: &str) -> Option<Response> {
    let file = match path {
        "/" => "index.html",
        path if path.starts_with("/page") => &path[1..],
        _ => return None,
    };
    let kind = match file.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css",
        _ => "text/javascript",
    };
    let content =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page").join(file)).unwrap();
    Some(([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY)], content).into_response())
}
