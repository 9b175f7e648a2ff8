//! One connection from its start to its end: clients, one after another, over one database.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, debug, error, warn};
use whatsapp_rust::Client;
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::prelude::{Event, EventHandler, SqliteStore};
use whatsapp_rust::wacore::store::device::DevicePropsOverride;
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;

use super::dial::Dialler;
use super::fetch::Fetcher;
use super::files;
use super::port::Me;
use super::signal::{me, message, signal};
use super::slot::{Command, Slot};
use super::state::{Input, Next, Signal};
use super::traced::{Tasks, Traced};
use crate::error::Error;
use crate::telemetry;

/// How long a client may take to say goodbye and to write what it holds.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long what is left of it may go on after that.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long WhatsApp may take to remove the device.
const LOGOUT: Duration = Duration::from_secs(10);

/// What a client, its dialling and its fetching tell.
pub(super) enum Note {
    Event(Arc<Event>),
    Dialling,
    Dialled,
    NotDialled(String),
    NoVersion(String),
}

/// Called inline by the client, in order. It must neither block nor panic.
struct Forward(mpsc::UnboundedSender<Note>);

impl EventHandler for Forward {
    fn handle_event(&self, event: Arc<Event>) {
        let _ = self.0.send(Note::Event(event));
    }
}

/// The task of one session.
pub(super) struct Life {
    pub slot: Arc<Slot>,
    pub dir: PathBuf,
    pub commands: mpsc::Receiver<Command>,
}

/// Why a client is ended.
enum End {
    Told(Command),
    By(Next),
}

/// A client at work. Its end is [`Life::close`]: dropping the handle would leave the device online.
struct Working {
    client: Arc<Client>,
    handle: BotHandle,
    notes: mpsc::UnboundedReceiver<Note>,
    tasks: Tasks,
}

impl Life {
    /// Until it is told to end, or nothing more can be done.
    pub(super) async fn run(mut self) {
        loop {
            let mut working = match self.begin().await {
                Ok(working) => working,
                Err(why) => {
                    self.slot.step(Input::Unusable(why));
                    return;
                }
            };
            let end = self.attend(&mut working).await;
            let logout = matches!(end, End::Told(Command::LogOut));
            if let Err(error) = self.close(working, logout).await {
                warn!("{error}");
            }
            match end {
                End::By(Next::Again(wait)) => {
                    let told = tokio::select! {
                        () = sleep(wait) => None,
                        told = self.told() => Some(told),
                    };
                    match told {
                        None => {}
                        Some(Command::Stop) => return,
                        Some(Command::LogOut) => {
                            warn!("{UNASKED}");
                            return;
                        }
                    }
                }
                End::By(Next::Unlinked) => {
                    self.slot.common.hooks.unlinked(&self.slot.key).await;
                    return;
                }
                End::By(_) | End::Told(_) => return,
            }
        }
    }

    /// A fresh client: one that was disconnected never connects again.
    async fn begin(&self) -> Result<Working, String> {
        let settings = &self.slot.common.settings;
        let (sender, notes) = mpsc::unbounded_channel();
        let dir = self.dir.clone();
        let looked = tokio::task::spawn_blocking(move || files::refuse_damaged(&dir)).await;
        looked.map_err(|error| error.to_string())??;
        let path = files::database(&self.dir);
        let path = path.to_str().ok_or("its path is not UTF-8")?;
        let store = SqliteStore::new(path).await.map_err(|error| error.to_string())?;
        let tasks = Tasks::default();
        let device = DevicePropsOverride::new()
            .with_os(settings.device_name.as_str())
            .with_platform_type(PlatformType::CHROME);
        let mut builder = Bot::builder()
            .with_backend(store)
            .with_transport_factory(Dialler::new(settings.url(), sender.clone()))
            .with_http_client(Fetcher::new(sender.clone()))
            .with_runtime(Traced { span: telemetry::session_span(&self.slot.key), tasks: tasks.clone() })
            .with_device_props(device)
            .skip_history_sync()
            .with_event_handler(Forward(sender));
        if let Some(version) = settings.version {
            builder = builder.with_version(version);
        }
        if let Some(count) = settings.pre_keys {
            builder = builder.with_wanted_pre_key_count(count);
        }
        let bot = builder.build().await.map_err(|error| error.to_string())?;
        let client = bot.client();
        self.slot.set_client(&client, &self.dir);
        self.slot.step(Input::Begun(me(&client)));
        Ok(Working { client, handle: bot.spawn(), notes, tasks })
    }

    /// Takes what the client says until it has to end.
    async fn attend(&mut self, working: &mut Working) -> End {
        loop {
            let due = self.slot.due();
            let next = tokio::select! {
                told = self.told() => return End::Told(told),
                Some(note) = working.notes.recv() => match self.take(note, &working.client).await {
                    Ok(next) => next,
                    Err(told) => return End::Told(told),
                },
                () = until(due) => self.slot.step(Input::Due),
                () = &mut working.handle => {
                    // What it said before its end counts first.
                    while let Ok(note) = working.notes.try_recv() {
                        match self.take(note, &working.client).await {
                            Ok(Next::On) => {}
                            Ok(next) => return End::By(next),
                            Err(told) => return End::Told(told),
                        }
                    }
                    return End::By(self.slot.step(Input::Ended));
                }
            };
            if next != Next::On {
                return End::By(next);
            }
        }
    }

    /// One note; an error is a command that came meanwhile.
    async fn take(&mut self, note: Note, client: &Arc<Client>) -> Result<Next, Command> {
        let event = match note {
            Note::Dialling => return Ok(self.slot.step(Input::Dialling)),
            Note::Dialled => return Ok(self.slot.step(Input::Dialled)),
            Note::NotDialled(why) => return Ok(self.slot.step(Input::NotDialled(why))),
            Note::NoVersion(why) => return Ok(self.slot.step(Input::NoVersion(why))),
            Note::Event(event) => event,
        };
        self.messages(&event);
        match signal(&event, client) {
            None => Ok(Next::On),
            Some(Signal::Paired(me)) => self.paired(me, client).await,
            Some(signal) => Ok(self.slot.step(Input::Signal(signal))),
        }
    }

    /// The phone lists the device already: the link must be on the disk, and committed, before anybody relies on it.
    async fn paired(&mut self, me: Me, client: &Arc<Client>) -> Result<Next, Command> {
        if let Err(error) = client.persistence_manager().flush().await {
            error!("the new link could not be written to the disk: {error}");
        }
        let slot = self.slot.clone();
        tokio::select! {
            () = slot.common.hooks.paired(&slot.key) => {}
            // Whoever ends the session now commits it with what is on the disk.
            told = self.told() => return Err(told),
        }
        Ok(self.slot.step(Input::Signal(Signal::Paired(me))))
    }

    fn messages(&self, event: &Event) {
        event.messages().filter_map(message).for_each(|message| self.slot.message(message));
    }

    /// Ends a client and waits until it has let go of the database.
    async fn close(&self, working: Working, logout: bool) -> Result<(), Error> {
        let Working { client, handle, mut notes, tasks } = working;
        if logout {
            if !client.is_logged_in() {
                warn!("{UNASKED}");
            }
            if timeout(LOGOUT, client.logout()).await.is_err() {
                warn!("WhatsApp did not confirm the logout in time: the phone may still list the device");
            }
        }
        let (left, linked) = (Arc::downgrade(&client), client.pn().is_some());
        drop(client);
        // On a task of its own: a shutdown that is given up in the middle would abort the client.
        let shutdown = tokio::spawn(handle.shutdown().in_current_span());
        if timeout(SHUTDOWN, shutdown).await.is_err() {
            warn!("the WhatsApp client takes long to end");
        }
        // Without a link there is nothing that could be lost with what is left.
        if !linked || !files::gone(&left, LAST_WORDS).await {
            tasks.end();
        }
        // These were confirmed to WhatsApp, and nobody would send them again.
        while let Ok(note) = notes.try_recv() {
            if let Note::Event(event) = note {
                self.messages(&event);
            }
        }
        debug!("client ended");
        self.slot.released().await
    }

    /// The next command; when nobody is left to give one, it is to stop.
    async fn told(&mut self) -> Command {
        self.commands.recv().await.unwrap_or(Command::Stop)
    }
}

/// Where a logout met no connection.
pub(super) const UNASKED: &str = "the session was not connected when it was logged out: remove the device on the phone, which still lists it";

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
