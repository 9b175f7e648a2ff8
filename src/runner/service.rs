//! The lifecycle above the connections: a session is opened before it is connected, and committed when it was linked;
//! what is wanted is connected again; who loses a session lets go of it.
//!
//! It speaks to the sessions' keeper through [`Control`] alone: in `serve` that is the supervisor in this process, in a
//! pod with two containers the sidecar beside us.

mod decide;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, warn};

use super::manager::{Hooks, Runner};
use super::port::{Connection, Event, Failure, FailureCode, PairingCode, State, WhatsApp};
use super::settings::Settings;
use crate::error::{Code, Error};
use crate::session::{Layout, SessionKey};
use crate::sync::control::Control;
use crate::sync::report::{BotFacts, IdentityStatus, RestoreReport, SessionStatus};
use crate::telemetry::{Masked, session_span};
use decide::{Step, decide, is_live, word};
use wishes::Wishes;

/// How often sessions and connections are compared.
const LOOK: Duration = Duration::from_millis(500);
/// How long `connect` waits for the session to be there, before it answers that it is on its way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a commit after the link may take before people are told that the session is linked all the same.
const COMMIT: Duration = Duration::from_secs(30);
/// Events that a slow listener may lag behind.
const EVENTS: usize = 256;

/// Where the sessions lie that the connections use.
#[derive(Debug, Clone)]
pub struct Home {
    /// The root, as the sidecar has it.
    pub root: PathBuf,
    /// How sessions lie below it.
    pub layout: Layout,
}

/// The lifecycle above the connections.
pub struct Service {
    me: Weak<Self>,
    control: Arc<dyn Control>,
    home: Home,
    /// Set right after the service was made: the runner's hooks are the service itself.
    runner: OnceLock<Arc<Runner>>,
    wishes: Wishes,
    /// One thing at a time is done to a session.
    turns: Mutex<BTreeMap<SessionKey, Arc<AsyncMutex<()>>>>,
    events: broadcast::Sender<Event>,
    /// What the sidecar is to be told, in order.
    news: mpsc::UnboundedSender<(SessionKey, BotFacts)>,
    closing: CancellationToken,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl Service {
    /// Begins to compare sessions and connections.
    pub fn start(settings: Settings, home: Home, control: Arc<dyn Control>) -> Arc<Self> {
        let (news, told) = mpsc::unbounded_channel();
        tokio::spawn(tell(told, Arc::clone(&control)));
        let service = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            control,
            home,
            runner: OnceLock::new(),
            wishes: Wishes::default(),
            turns: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            news,
            closing: CancellationToken::new(),
        });
        let hooks = Arc::new(Back(Arc::downgrade(&service)));
        let runner = service.runner.get_or_init(|| Runner::new(settings, hooks));
        tokio::spawn(forward(runner.events(), service.events.clone()));
        tokio::spawn(look_after(Arc::downgrade(&service)));
        service
    }

    fn runner(&self) -> &Arc<Runner> {
        self.runner.get().expect("it is set before the service is given away")
    }

    /// Stops all connections, for the process is on its way out, and waits for them so long; what is wanted stays wanted.
    pub async fn close(&self, patience: Duration) {
        self.closing.cancel();
        let live = self.runner().connections().into_iter().filter(|(_, connection)| is_live(connection));
        let ends = join_all(live.map(|(key, _)| async move {
            if let Err(error) = self.runner().stop(&key).await {
                warn!(%error, "a connection did not end in order");
            }
        }));
        if timeout(patience, ends).await.is_err() {
            warn!("connections did not end in time");
        }
    }

    async fn turn(&self, key: &SessionKey) -> OwnedMutexGuard<()> {
        self.turns_of(key).lock_owned().await
    }

    fn turns_of(&self, key: &SessionKey) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// For the table; behind what was said before, and in nobody's way.
    fn say(&self, key: &SessionKey, facts: BotFacts) {
        // Ends with the service.
        let _ = self.news.send((key.clone(), facts));
    }

    /// Records that the link is gone, and sets the void files aside, which nobody uses any more. The last state is pinned.
    async fn bury(&self, key: &SessionKey) -> Result<(), Error> {
        match self.control.logout(key).await {
            Ok(_) => {}
            // Nothing of it was ever stored, or it is over already.
            Err(error) if matches!(error.code(), Code::NoSession | Code::NotFound) => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = self.control.restore(key, None).await
            && !matches!(error.code(), Code::NoSession | Code::NotFound)
        {
            warn!(%error, "the void files stay until the session is opened again");
        }
        Ok(())
    }

    /// The session is opened, and only then a client is built. // P5
    async fn bring_up(&self, key: &SessionKey) -> Result<Connection, Error> {
        if let Some(connection) = self.runner().connection(key).filter(is_live) {
            return Ok(connection);
        }
        let opened = async {
            self.control.open(key).await?;
            if self.closing.is_cancelled() {
                return Err(Error::new(Code::NotConnected, "the process is on its way out"));
            }
            let dir = self.home.layout.dir(&self.home.root, key);
            // A new session has none yet.
            let made = tokio::fs::create_dir_all(&dir).await;
            made.map_err(|error| Error::io("the session's directory cannot be made", error))?;
            self.runner().start(key, &dir).await
        };
        let opened = opened.await;
        self.wishes.came_to(key, opened.as_ref().err().map(failure));
        if opened.is_err() {
            self.publish(key);
        }
        opened
    }

    /// The same, going on behind the answer if it takes long.
    async fn bring_up_soon(&self, key: &SessionKey) -> Result<Connection, Error> {
        let service = self.me.upgrade().ok_or_else(|| Error::new(Code::Internal, "the service is gone"))?;
        let owned = key.clone();
        let up = tokio::spawn(async move {
            let _turn = service.turn(&owned).await;
            service.bring_up(&owned).instrument(session_span(&owned)).await
        });
        match timeout(PATIENCE, up).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(Error::new(Code::Internal, "the connection's task died").because(error)),
            Err(_) => Ok(self.connection(key).unwrap_or_else(Connection::starting)),
        }
    }

    fn publish(&self, key: &SessionKey) {
        if let Some(connection) = self.connection(key) {
            // Nobody listening is no error.
            let _ = self
                .events
                .send(Event::Connection { session: key.clone(), connection: Box::new(connection) });
        }
    }

    /// One comparison of all sessions with their connections.
    async fn look(self: &Arc<Self>) {
        let sessions = match self.control.status().await {
            Ok(report) => report.sessions,
            // The sidecar starts again: connections go on, as a bot beside it does.
            Err(error) => return tracing::debug!(%error, "the sidecar does not answer"),
        };
        self.learn_wishes(&sessions).await;
        for status in sessions {
            let Ok(key) = status.session.parse::<SessionKey>() else { continue };
            let step = decide(&status, self.wishes.is_due(&key), self.runner().connection(&key).as_ref());
            if step == Step::Nothing {
                continue;
            }
            let Ok(turn) = self.turns_of(&key).try_lock_owned() else { continue };
            let service = Arc::clone(self);
            let span = session_span(&key);
            tokio::spawn(
                async move {
                    service.take(step, &key).await;
                    drop(turn);
                }
                .instrument(span),
            );
        }
    }

    async fn take(&self, step: Step, key: &SessionKey) {
        match step {
            Step::Nothing => {}
            Step::Start => {
                if let Err(error) = self.bring_up(key).await {
                    warn!(%error, "the session is wanted and cannot be connected");
                }
            }
            Step::Lose => {
                warn!("another process has the session: its connection is stopped");
                self.runner().lost(key).await;
            }
            Step::GiveWay => {
                info!("another process asks for the session: its connection is stopped");
                if let Err(error) = self.runner().stop(key).await {
                    return warn!(%error, "the connection did not stop: the session is not given away");
                }
                if let Err(error) = self.control.give_way(key).await {
                    warn!(%error, "the session is not given away");
                }
            }
        }
    }

    /// Of sessions that this process meets: what the table says is wanted, else what is linked.
    async fn learn_wishes(&self, sessions: &[SessionStatus]) {
        let met: Vec<(SessionKey, bool)> =
            sessions.iter().filter_map(|status| self.is_linked(status)).collect();
        let users: BTreeSet<&str> = met.iter().map(|(key, _)| key.user()).collect();
        let asked = users.into_iter().map(|user| timeout(PATIENCE, self.control.sessions(user)));
        let entries: Vec<_> =
            join_all(asked).await.into_iter().filter_map(Result::ok).filter_map(Result::ok).collect();
        for (key, linked) in met {
            let told = entries.iter().flatten().find(|entry| {
                (entry.user_id.as_str(), entry.session_id.as_str()) == (key.user(), key.session())
            });
            let off = told.is_some_and(|entry| entry.desired == Some(false));
            self.wishes.learn(&key, linked && !off);
        }
    }

    /// Whether a session that is new to us is linked; none: it is known, or cannot be told yet.
    fn is_linked(&self, status: &SessionStatus) -> Option<(SessionKey, bool)> {
        let key = status.session.parse::<SessionKey>().ok()?;
        let looked_at = status.identity.is_some() || status.files == 0;
        if !status.ready || !looked_at || self.wishes.is_known(&key) {
            return None;
        }
        let linked = |identity: &IdentityStatus| identity.paired && identity.format == super::ENGINE;
        Some((key, status.identity.as_ref().is_some_and(linked)))
    }
}

/// Why a session could not be brought up, for who looks at its connection.
fn failure(error: &Error) -> Failure {
    let code = match error.code() {
        Code::OtherEngine => FailureCode::OtherEngine,
        Code::LeaseHeld | Code::LeaseLost => FailureCode::SessionLost,
        Code::Unreachable => FailureCode::Unreachable,
        _ => FailureCode::Other,
    };
    Failure { code, message: error.to_string() }
}

async fn forward(mut from: broadcast::Receiver<Event>, to: broadcast::Sender<Event>) {
    loop {
        match from.recv().await {
            // Nobody listening is no error.
            Ok(event) => drop(to.send(event)),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn tell(mut news: mpsc::UnboundedReceiver<(SessionKey, BotFacts)>, control: Arc<dyn Control>) {
    while let Some((key, facts)) = news.recv().await {
        if let Err(error) = control.note(&key, facts).await {
            warn!(session = %Masked(&key.to_string()), %error, "the table is not told where a session stands");
        }
    }
}

async fn look_after(service: Weak<Service>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(service) = service.upgrade() else { return };
        if service.closing.is_cancelled() {
            return;
        }
        service.look().await;
    }
}

/// The runner's way back to the service.
struct Back(Weak<Service>);

#[async_trait]
impl Hooks for Back {
    async fn paired(&self, key: &SessionKey) {
        let Some(service) = self.0.upgrade() else { return };
        match service.control.sync(Some(key.clone()), COMMIT).await {
            Ok(_) => info!("linked, and committed"),
            Err(error) => warn!(%error, "linked, but not committed yet: it is tried on"),
        }
    }

    async fn unlinked(&self, key: &SessionKey) {
        let Some(service) = self.0.upgrade() else { return };
        service.wishes.set(key, false);
        match service.bury(key).await {
            Ok(()) => info!("unlinked: recorded, and the last state is pinned"),
            Err(error) => warn!(%error, "unlinked, but that is not recorded"),
        }
    }

    fn changed(&self, key: &SessionKey, connection: &Connection) {
        let Some(service) = self.0.upgrade() else { return };
        let phone = connection.me.as_ref().and_then(|me| me.phone()).map(str::to_owned);
        let facts = BotFacts { status: Some(word(connection)), phone, ..BotFacts::default() };
        service.say(key, facts);
        if connection.state == State::Working {
            // What a login changes: the keys that the next messages need. Behind it, for the hook must not wait.
            let (control, key) = (Arc::clone(&service.control), key.clone());
            tokio::spawn(async move {
                if let Err(error) = control.sync(Some(key), COMMIT).await {
                    warn!(%error, "logged in, but not committed yet: it is tried on");
                }
            });
        }
    }
}

#[async_trait]
impl WhatsApp for Service {
    async fn connect(&self, key: &SessionKey) -> Result<Connection, Error> {
        self.wishes.set(key, true);
        let facts = BotFacts { desired: Some(true), ..BotFacts::default() };
        self.say(key, facts);
        self.bring_up_soon(key).await
    }

    async fn disconnect(&self, key: &SessionKey) -> Result<(), Error> {
        self.wishes.set(key, false);
        let _turn = self.turn(key).await;
        self.runner().stop(key).await?;
        self.say(key, BotFacts { desired: Some(false), ..BotFacts::default() });
        self.publish(key);
        Ok(())
    }

    async fn logout(&self, key: &SessionKey) -> Result<(), Error> {
        self.wishes.set(key, false);
        let _turn = self.turn(key).await;
        self.runner().logout(key).await?;
        self.bury(key).await
    }

    async fn delete(&self, key: &SessionKey, logout: bool, purge: bool) -> Result<(), Error> {
        self.wishes.set(key, false);
        let _turn = self.turn(key).await;
        let working = self.runner().connection(key).is_some_and(|now| now.state == State::Working);
        if logout && working {
            // A phone that is not told lists the device until it is unlinked there.
            if let Err(error) = self.runner().logout(key).await {
                warn!(%error, "WhatsApp could not be told that the device is unlinked");
            }
        }
        self.runner().stop(key).await?;
        match self.control.delete(key, purge).await {
            Ok(_) => {}
            Err(error) if error.code() == Code::NoSession => {}
            Err(error) => return Err(error),
        }
        self.runner().forget(key);
        self.wishes.forget(key);
        Ok(())
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        let _turn = self.turn(key).await;
        let live = self.runner().connection(key).is_some_and(|now| is_live(&now));
        self.runner().stop(key).await?;
        let restored = self.control.restore(key, at).await;
        if live {
            // Also after a failure: the tree is what it was.
            if let Err(error) = self.bring_up(key).await {
                warn!(%error, "the session cannot be connected again");
            }
        }
        restored
    }

    fn connection(&self, key: &SessionKey) -> Option<Connection> {
        self.wishes.over(key, self.runner().connection(key))
    }

    fn connections(&self) -> Vec<(SessionKey, Connection)> {
        let of = |key: SessionKey| self.connection(&key).map(|connection| (key, connection));
        let mut keys: Vec<SessionKey> = self.runner().connections().into_iter().map(|(key, _)| key).collect();
        keys.extend(self.wishes.keys());
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(of).collect()
    }

    async fn pairing_code(&self, key: &SessionKey, phone: &str) -> Result<PairingCode, Error> {
        self.connect(key).await?;
        self.runner().pairing_code(key, phone).await
    }

    async fn answer_passkey(&self, key: &SessionKey, assertion: Value) -> Result<(), Error> {
        self.runner().answer_passkey(key, assertion).await
    }

    async fn confirm_passkey(&self, key: &SessionKey) -> Result<(), Error> {
        self.runner().confirm_passkey(key).await
    }

    async fn send(&self, key: &SessionKey, to: &str, text: &str) -> Result<String, Error> {
        self.runner().send(key, to, text).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
