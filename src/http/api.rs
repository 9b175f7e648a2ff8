//! The API: sessions and their history, and where this process runs WhatsApp connections, those.
//!
//! Paths and answers of the service that came before are kept; ours stand beside them. `/openapi.json` describes all.
//!
//! | module | holds |
//! |---|---|
//! | `routes` | every route with what it takes and answers: the router and `/openapi.json` are made of them |
//! | `call` | what a handler is given; `guard`: who gets that far |
//! | `sessions` | the sidecar's side |
//! | `whatsapp` | connections (feature `runner`) |
//! | `directory`, `select` | a user's sessions, and which one a call means that names none |
//! | `problem`, `pace` | errors, and how often one may call |

mod call;
mod directory;
mod guard;
mod pace;
mod problem;
mod routes;
mod select;
mod sessions;
#[cfg(test)]
mod tests;
#[cfg(feature = "runner")]
mod whatsapp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::Instrument as _;

use super::auth::{Auth, origin_is_local};
use super::metrics::{Listener, Metrics};
use super::{control, metrics, page, probe};
use crate::error::{Code, Error};
use crate::host::Host;
#[cfg(feature = "runner")]
use crate::runner::port::WhatsApp;
use crate::session::SessionKey;
use crate::sync::control::Control;
use crate::sync::health::Health;
use crate::sync::report::{RestoreReport, SessionEntry};
use problem::Problem;

/// Bytes of a request's body.
const BODY_LIMIT: usize = 64 << 10;
/// Most requests.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// What a request that waits for storage gets on top of that wait.
const SLACK: Duration = Duration::from_secs(10);
/// Streams of events at once, of all callers.
const STREAMS: usize = 512;
/// What old clients read where there is no QR code.
const NO_CODE: &str = "No QR code available";

/// What the API works by.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Whom it answers.
    pub auth: Auth,
    /// How many sessions one user may have.
    pub max_sessions_per_user: usize,
    /// How long a `sync` may take.
    pub sync_deadline: Duration,
    /// Whether there is a Supabase.
    pub cloud: CloudStorage,
    /// Whether the process is well.
    pub health: watch::Receiver<Health>,
    /// The probes and metrics, where they are answered here: there is no other listener for them.
    pub probes: Option<Arc<Metrics>>,
    /// Whether the page is served.
    pub page: bool,
    /// The clock.
    pub host: Arc<dyn Host>,
    /// Ends the streams of events, which would keep a process that stops waiting.
    pub stop: CancellationToken,
}

/// Whether there is a Supabase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudStorage {
    /// Commits go there.
    Enabled,
    /// Everything stays on this machine.
    Disabled,
}

/// What all handlers share.
struct Api {
    control: Arc<dyn Control>,
    #[cfg(feature = "runner")]
    whatsapp: Option<Arc<dyn WhatsApp>>,
    config: ApiConfig,
    directory: directory::Directory,
    calls: pace::Pace<pace::Payer>,
    failures: pace::Pace<IpAddr>,
    questions: pace::Pace<IpAddr>,
    streams: Arc<Semaphore>,
}

type Shared = Arc<Api>;

/// The API over a process that keeps sessions and, where it runs WhatsApp connections, those.
pub fn api(
    control: Arc<dyn Control>,
    #[cfg(feature = "runner")] whatsapp: Option<Arc<dyn WhatsApp>>,
    config: ApiConfig,
) -> Router {
    if matches!(config.auth, Auth::Local) {
        tracing::warn!(
            "the API has no credential: everybody on this machine may call it (set API_TOKEN, or SUPABASE_ANON_KEY for \
             users' own tokens)"
        );
    }
    let shared = Arc::new(Api {
        control,
        #[cfg(feature = "runner")]
        whatsapp,
        config,
        directory: directory::Directory::default(),
        calls: pace::Pace::of_calls(),
        failures: pace::Pace::of_failures(),
        questions: pace::Pace::of_failures(),
        streams: Arc::new(Semaphore::new(STREAMS)),
    });
    let mut router = routes::router(&shared).nest(control::PREFIX, control_calls(&shared));
    if shared.config.page {
        router = router.merge(page::router());
    }
    if let Some(metrics) = &shared.config.probes {
        router = router.merge(probe::router(shared.config.health.clone()));
        router = router.merge(metrics::router(Arc::clone(metrics), Listener::Api));
    }
    router
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(Problem::panicked))
        .layer(axum::middleware::from_fn(guard::finish))
        .layer(cors(&shared.config.auth))
}

/// For the runner in the same pod: with the token everything, where there is none nothing that destroys.
fn control_calls(shared: &Shared) -> Router {
    let control = Arc::clone(&shared.control);
    let calls = match shared.config.auth {
        Auth::Guarded(_) => control::open_router(control),
        Auth::Open | Auth::Local => control::router(control, None),
    };
    calls
        .layer(axum::middleware::from_fn(guard::operator))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(shared), guard::guard))
}

/// Any page may call: with a token that it was given, never with a cookie. Where there is no token, only pages of this
/// machine.
fn cors(auth: &Auth) -> CorsLayer {
    use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
    use axum::http::{HeaderName, Method};
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-api-key")])
        .expose_headers([RETRY_AFTER])
        .max_age(Duration::from_hours(1));
    match auth {
        Auth::Local => layer.allow_origin(AllowOrigin::predicate(|origin, _| origin_is_local(origin))),
        Auth::Open | Auth::Guarded(_) => layer.allow_origin(Any),
    }
}

/// Does what must not be left half done when its caller hangs up.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
    tokio::spawn(work.in_current_span()).await.map_err(|_| Problem::internal())
}

#[cfg(feature = "runner")]
impl Api {
    /// Where the bot of a session stands, as WAHA and as the old service say it; none where nothing is known.
    fn standing(&self, entry: &SessionEntry) -> (Value, Option<&'static str>) {
        let Some(whatsapp) = &self.whatsapp else { return (Value::Null, None) };
        let key = SessionKey::new(entry.user_id.clone(), entry.session_id.clone()).ok();
        match key.and_then(|key| whatsapp.connection(&key)) {
            Some(connection) => {
                (serde_json::json!(connection.state), Some(whatsapp::view::old_word(&connection)))
            }
            None => (serde_json::json!(crate::runner::port::State::Stopped), None),
        }
    }

    async fn active(&self) -> usize {
        match &self.whatsapp {
            Some(whatsapp) => {
                let on = |state| state != crate::runner::port::State::Stopped;
                whatsapp.connections().iter().filter(|(_, connection)| on(connection.state)).count()
            }
            None => self.ready().await,
        }
    }

    async fn restore(&self, key: &SessionKey, at: Option<String>) -> Result<RestoreReport, Error> {
        self.bots(key)?.restore(key, at).await
    }

    async fn logout(&self, key: &SessionKey) -> Result<(), Error> {
        self.bots(key)?.logout(key).await
    }

    async fn delete(&self, key: &SessionKey, logout: bool, purge: bool) -> Result<(), Error> {
        self.bots(key)?.delete(key, logout, purge).await
    }

    fn bots(&self, key: &SessionKey) -> Result<&Arc<dyn WhatsApp>, Error> {
        self.whatsapp.as_ref().ok_or_else(|| not_ours(key))
    }
}

/// A tree that a bot may be using is not replaced; whoever stops the bot has the commands for it. // P7
fn not_ours(key: &SessionKey) -> Error {
    let text = format!(
        "session {key}: its bot is not ours to stop: stop it and this process, then use `restore --at`, `logout` or \
         `delete` of session-sidecar"
    );
    Error::new(Code::Conflict, text)
}

#[cfg(not(feature = "runner"))]
impl Api {
    #[expect(clippy::unused_self, reason = "with a runner it is asked")]
    fn standing(&self, _: &SessionEntry) -> (Value, Option<&'static str>) {
        (Value::Null, None)
    }

    async fn active(&self) -> usize {
        self.ready().await
    }

    #[expect(clippy::unused_async, reason = "with a runner it is asked")]
    async fn restore(&self, key: &SessionKey, _: Option<String>) -> Result<RestoreReport, Error> {
        Err(not_ours(key))
    }

    #[expect(clippy::unused_async, reason = "with a runner it is asked")]
    async fn logout(&self, key: &SessionKey) -> Result<(), Error> {
        Err(not_ours(key))
    }

    #[expect(clippy::unused_async, reason = "with a runner it is asked")]
    async fn delete(&self, key: &SessionKey, _: bool, _: bool) -> Result<(), Error> {
        Err(not_ours(key))
    }
}

impl Api {
    async fn ready(&self) -> usize {
        let status = self.control.status().await;
        status.map_or(0, |status| status.sessions.iter().filter(|session| session.ready).count())
    }
}
