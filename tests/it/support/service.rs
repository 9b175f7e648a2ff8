//! `serve` on loopback: the real binary between an embedded Supabase and a mock WhatsApp.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::world::{Running, World, eventually};
use crate::whatsapp::{Device, Phone, Server};

/// A version that nobody has to be asked for.
const VERSION: &str = "2.3000.1023456789";

/// A running `serve`, and a client of its API.
pub struct Service {
    pub url: String,
    running: Running,
    http: reqwest::Client,
    log: Arc<Mutex<Vec<Value>>>,
}

/// `serve` before it is started.
pub fn serve(world: &World, whatsapp: &Server, root: &Path) -> Command {
    let mut command = world.bare("serve", root);
    connects_to(&mut command, whatsapp);
    command.args(["--lease-ttl", "2s", "--min-hold", "0s", "--quiet-window", "50ms", "--mirror", "off"]);
    command
}

/// Lets a command with connections find the mock.
pub fn connects_to(command: &mut Command, whatsapp: &Server) {
    command.env("WHATSAPP_URL", whatsapp.url()).env("WHATSAPP_VERSION", VERSION);
    command.args(["--listen", "127.0.0.1:0"]);
}

impl Service {
    pub async fn start(world: &World, whatsapp: &Server, root: &Path, more: &[&str]) -> Self {
        let mut command = serve(world, whatsapp, root);
        command.args(more);
        Self::spawn(command).await
    }

    /// Waits until its API answers.
    pub async fn spawn(mut command: Command) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        command.args(["--log-format", "json"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (found, mut address) = mpsc::unbounded_channel();
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                // Shown with a test that failed.
                println!("{line}");
                let line: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap().push(line.clone());
                let fields = if line["fields"].is_object() { &line["fields"] } else { &line };
                if fields["message"] == "the API answers" {
                    // A test that has ended does not ask.
                    let _ = found.send(fields["url"].as_str().unwrap().to_owned());
                }
            }
        });
        let running = Running(child);
        let url = timeout(Duration::from_mins(1), address.recv()).await.expect("the API answers in time");
        Self {
            url: url.expect("the process lives until its API answers"),
            running,
            http: reqwest::Client::new(),
            log,
        }
    }

    /// What it has logged so far; what is no JSON as text.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a request as it is given; JSON is announced also where there is no body, as clients of the service before
    /// this one do.
    pub async fn send(&self, method: &str, path: &str, body: &str, token: Option<&str>) -> reqwest::Response {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        let request = request.header("content-type", "application/json");
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        timeout(Duration::from_mins(2), request.send()).await.expect(path).unwrap()
    }

    /// Its status, and its JSON; null: it has none.
    pub async fn call(&self, method: &str, path: &str, body: &str, token: Option<&str>) -> (u16, Value) {
        let response = self.send(method, path, body, token).await;
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// The answer of a call that works.
    pub async fn ok(&self, method: &str, path: &str, body: &str, token: Option<&str>) -> Value {
        let (status, value) = self.call(method, path, body, token).await;
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }

    /// Waits until the status of a session has this state.
    pub async fn until(&self, session: &str, state: &str, token: Option<&str>) -> Value {
        let mut last = Value::Null;
        eventually(&format!("{session} is {state}"), async || {
            last = self.ok("GET", &format!("/api/whatsapp/status/{session}"), "", token).await;
            last["state"] == state
        })
        .await;
        last
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.http.get(format!("{}{path}", self.url))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.answer(self.http.delete(format!("{}{path}", self.url))).await
    }

    pub async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// WAHA's word for a session.
    pub async fn state(&self, session: &str) -> String {
        let (_, status) = self.get(&format!("/api/whatsapp/status/{session}")).await;
        status["state"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn is_in(&self, session: &str, state: &str) {
        eventually(&format!("{session} is {state}"), async || self.state(session).await == state).await;
    }

    pub async fn connect(&self, session: &str) {
        let (status, answer) = self.post(&format!("/api/whatsapp/connect/{session}"), &Value::Null).await;
        assert!(status == 200 && answer["success"] == true, "{status} {answer}");
    }

    /// The text in the QR code.
    pub async fn qr(&self, session: &str) -> String {
        let mut code = String::new();
        eventually("a code is shown", async || {
            let (_, answer) = self.get(&format!("/api/whatsapp/qr/{session}")).await;
            answer["qrCode"].as_str().unwrap_or_default().clone_into(&mut code);
            !code.is_empty()
        })
        .await;
        code
    }

    /// Connects a session and scans its code; logged in.
    pub async fn link(&self, session: &str, phone: &Phone) -> Device {
        self.connect(session).await;
        let device = phone.scan_qr(&self.qr(session).await).await.unwrap();
        self.is_in(session, "WORKING").await;
        device
    }

    /// Everything on disk is in the head.
    pub async fn sync(&self, session: &str) {
        let (status, answer) = self.post(&format!("/api/sessions/{session}/sync"), &Value::Null).await;
        assert!(status == 200 && answer["success"] == true, "{status} {answer}");
    }

    /// SIGTERM; the exit code.
    pub async fn stop(self) -> i32 {
        self.running.stop().await
    }

    /// SIGKILL.
    pub fn kill(self) {
        drop(self.running);
    }
}
