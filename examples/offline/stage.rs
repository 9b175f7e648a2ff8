//! All that is on the stage, what an onlooker can do to it, and what is seen.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use session_sidecar::emulator::{self, Emulator};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::service::Service;
use crate::whatsapp::{Phone, Server};

pub const USER: &str = "demo";
/// The session that the API means, where there is none yet.
pub const SESSION: &str = "default";
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a service that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What an onlooker can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Scan,
    Message,
    Unlink,
    Kill,
    LoseDisk,
    Start,
}

/// By which key, and in words.
pub const ACTS: [(&str, Act, &str); 6] = [
    ("s", Act::Scan, "Scan the QR code"),
    ("m", Act::Message, "Send a message to the linked phone"),
    ("u", Act::Unlink, "Unlink the device on the phone"),
    ("k", Act::Kill, "Kill -9 the service"),
    ("d", Act::LoseDisk, "Delete its directory"),
    ("r", Act::Start, "Start it again"),
];

impl Act {
    pub fn of(key: &str) -> Option<Self> {
        ACTS.iter().find(|(its, ..)| *its == key).map(|(_, act, _)| *act)
    }
}

/// What the service told since it last answered.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Whether it answers now.
    pub answers: bool,
    /// By session: its status, as the API gives it.
    pub sessions: BTreeMap<String, Value>,
    /// The texts of messages.
    pub messages: Vec<String>,
}

/// A Supabase, a WhatsApp with a phone and a friend, and the service.
pub struct Stage {
    pub service: Service,
    pub whatsapp: Server,
    pub phone: Phone,
    pub told: watch::Sender<Told>,
    http: reqwest::Client,
    log: Mutex<Vec<String>>,
    written: AtomicUsize,
    _supabase: Emulator,
}

impl Stage {
    /// Sets it in this directory, with the service at this port, or at any other where it is taken. The service does not
    /// run yet.
    pub async fn set(dir: &Path, port: u16) -> Result<Arc<Self>> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = emulator::Options { dir: dir.join("supabase"), ..emulator::Options::default() };
        let supabase = emulator::start(options).await?;
        let whatsapp = Server::start().await?;
        let service = Service {
            address: listener(port)?.local_addr()?,
            variables: vec![
                ("SUPABASE_URL", supabase.url()),
                ("SUPABASE_SERVICE_ROLE_KEY", supabase.service_role_key().to_owned()),
                ("WHATSAPP_URL", whatsapp.url()),
                // Else the real WhatsApp is asked for the current one.
                ("WHATSAPP_VERSION", "2.3000.1026131876".to_owned()),
            ],
            root: dir.join("sessions"),
            log: dir.join("service.log"),
            child: tokio::sync::Mutex::default(),
        };
        let stage = Arc::new(Self {
            phone: whatsapp.phone("15550001111", "Ada"),
            service,
            whatsapp,
            told: watch::Sender::default(),
            http: reqwest::Client::builder().no_proxy().build()?,
            log: Mutex::default(),
            written: AtomicUsize::new(0),
            _supabase: supabase,
        });
        tokio::spawn(stage.clone().follow());
        Ok(stage)
    }

    /// The service's own page.
    pub fn page(&self) -> String {
        format!("http://{}/#user={USER}", self.service.address)
    }

    /// Tells the onlooker.
    pub fn say(&self, line: impl Into<String>) {
        let line = line.into();
        println!("- {line}");
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// All that the onlooker was told, from this line on.
    pub fn lines(&self, from: usize) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.get(from..).unwrap_or_default().to_vec()
    }

    /// Does it, and says what came of it.
    pub async fn act(&self, act: Act) {
        if let Err(error) = self.perform(act).await {
            let label = ACTS.iter().find(|(_, its, _)| *its == act).map_or("", |(.., label)| label);
            self.say(format!("{label}: {error:#}"));
        }
    }

    /// Does it.
    pub async fn perform(&self, act: Act) -> Result<()> {
        match act {
            Act::Scan => {
                let device = self.phone.scan_qr(&self.code().await?).await?;
                self.say(format!("the phone linked device {}", device.jid.device));
            }
            Act::Message => {
                self.message().await?;
            }
            Act::Unlink => {
                let devices = self.phone.devices();
                ensure!(!devices.is_empty(), "the phone has no linked device");
                for device in &devices {
                    self.whatsapp.unlink(device);
                }
                self.say(
                    "unlinked on the phone: the session is over, and the service must not bring it back",
                );
            }
            Act::Kill => {
                let id = self.service.kill().await?;
                self.say(format!(
                    "killed the service (process {id}): it could neither store nor say anything"
                ));
            }
            Act::LoseDisk => {
                self.service.lose_disk().await?;
                self.say("deleted the directory of the service: what is left of the session is in Supabase");
            }
            Act::Start => {
                let id = self.service.start().await?;
                let log = self.service.log.display();
                self.say(format!("started the service (process {id}); it logs to {log}"));
            }
        }
        Ok(())
    }

    /// The friend writes to all linked devices; the text, and the id for each.
    pub async fn message(&self) -> Result<(String, Vec<String>)> {
        let devices = self.phone.devices();
        ensure!(!devices.is_empty(), "the phone has no linked device: scan first");
        let text = format!("Hello {}", self.written.fetch_add(1, Ordering::Relaxed) + 1);
        let friend = self.whatsapp.peer("15550002222", "Grace");
        let mut ids = Vec::new();
        for device in devices {
            ids.push(friend.send_text(&device, &text).await?);
            let online = self.whatsapp.is_online(&device);
            let waits = if online { "" } else { "; WhatsApp keeps it until the device is back" };
            self.say(format!("Grace writes {text:?}{waits}"));
        }
        Ok((text, ids))
    }

    /// The QR code that a session shows; where none does, one is asked for.
    async fn code(&self) -> Result<String> {
        let code = |status: &Value| status["qr"]["code"].as_str().map(str::to_owned);
        let shown = self.told.borrow().sessions.values().find_map(code);
        if let Some(shown) = shown {
            return Ok(shown);
        }
        let answer = self.post(&format!("whatsapp/generate-qr/{USER}")).await?;
        let code = answer["qrCode"].as_str().map(str::to_owned);
        code.with_context(|| answer["message"].as_str().unwrap_or("there is no QR code").to_owned())
    }

    /// Calls the API.
    pub async fn post(&self, call: &str) -> Result<Value> {
        let url = format!("http://{}/api/{call}", self.service.address);
        let answer = self.http.post(url).timeout(PATIENCE).send().await;
        Ok(answer.context("the service does not answer")?.error_for_status()?.json().await?)
    }

    /// Waits for what the service tells.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Told) -> bool) -> Result<()> {
        let mut told = self.told.subscribe();
        let wait = timeout(PATIENCE, told.wait_for(wanted)).await;
        wait.with_context(|| format!("not within {PATIENCE:?}: {what}"))??;
        Ok(())
    }

    /// Hears what the service tells its pages, over all of its lives.
    async fn follow(self: Arc<Self>) {
        loop {
            // That it is down is no error: it will be back.
            let _ = self.listen().await;
            self.told.send_modify(|told| (told.answers, told.sessions) = Default::default());
            if let Some(status) = self.service.ended().await {
                self.say(format!("the service ended by itself ({status}):\n{}", self.service.tail()));
            }
            sleep(AGAIN).await;
        }
    }

    async fn listen(&self) -> Result<()> {
        let url = format!("http://{}/api/whatsapp/events/{USER}", self.service.address);
        let mut stream = self.http.get(url).send().await?.error_for_status()?;
        self.say("the service answers");
        self.told.send_modify(|told| told.answers = true);
        let mut rest = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = rest.drain(..end + 2).collect();
                self.hear(&String::from_utf8_lossy(&event));
            }
        }
        Ok(())
    }

    fn hear(&self, event: &str) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let data = field("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
        let (Some(name), Some(data)) = (field("event: "), data) else { return };
        let session = data["sessionId"].as_str().unwrap_or_default().to_owned();
        match name {
            "status" => {
                let state = |status: &Value| status["state"].as_str().unwrap_or_default().to_owned();
                let now = state(&data);
                let before = self.told.borrow().sessions.get(&session).map(state);
                if before.as_ref() != Some(&now) {
                    self.say(format!("the service says of {session}: {now}"));
                }
                self.told.send_modify(|told| drop(told.sessions.insert(session, data)));
            }
            "message" => {
                let text = data["message"]["text"].as_str().unwrap_or("(no text)").to_owned();
                self.say(format!("the service got a message for {session}: {text:?}"));
                self.told.send_modify(|told| told.messages.push(text));
            }
            _ => {}
        }
    }
}

/// Listens to this machine alone: at this port, or at any other where it is taken.
pub fn listener(port: u16) -> std::io::Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    at(port).or_else(|_| at(0))
}
