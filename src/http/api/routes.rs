//! Every route once: the router and `/openapi.json` are made of the same list.

mod document;
mod route;

use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use axum::{Json, Router};

use super::sessions::{
    self, Done, HealthView, HistoryView, RestoreBody, RestoreView, SessionsView, SyncView,
};
use super::{Shared, TIME_LIMIT, guard};
use route::{Limit, Route};

/// The session in the query, where the path has none.
const SESSION: (&str, &str) =
    ("sessionId", "The session; without it the default one, the only one, or the one last used");

/// The router of all routes, each behind what it needs.
pub fn router(api: &Shared) -> Router {
    let routes = list(api);
    let document = document::of(&routes);
    let (mut guarded, mut open, mut long) = (Router::new(), Router::new(), Router::new());
    for route in routes {
        let router = match route.limit {
            Limit::Usual => &mut guarded,
            Limit::Long => &mut long,
            Limit::Open => &mut open,
        };
        *router = std::mem::take(router).route(route.path, route.handler);
    }
    let (usual, longer) = (TIME_LIMIT, api.long());
    let guard = || from_fn_with_state(api.clone(), guard::guard);
    let within = |limit| from_fn(move |request, next| guard::within(limit, request, next));
    // The guard is inside of the limit: it may have to ask the project.
    Router::new()
        .merge(guarded.route_layer(guard()).route_layer(within(usual)))
        .merge(long.route_layer(guard()).route_layer(within(longer)))
        .merge(open.route_layer(within(usual)))
        .with_state(api.clone())
        .route("/openapi.json", get(|| async move { Json(document) }))
}

/// All routes of this process.
fn list(api: &Shared) -> Vec<Route> {
    let mut routes = sidecar();
    #[cfg(feature = "runner")]
    if api.whatsapp.is_some() {
        routes.extend(whatsapp());
    }
    #[cfg(not(feature = "runner"))]
    let _ = api;
    routes
}

fn sidecar() -> Vec<Route> {
    vec![
        Route::get("/api/health", get(sessions::health))
            .says("Whether the process is well; always 200")
            .answers::<HealthView>()
            .open(),
        Route::get("/api/sessions/{user}", get(sessions::list))
            .says("The active sessions of a user, newest first")
            .answers::<SessionsView>(),
        Route::delete("/api/sessions/{user}/{session}", delete(sessions::delete))
            .says("Unlink the device and delete the session; `undelete` brings it back for a while")
            .query(("logout", "`false`: do not unlink the device first"))
            .query(("purge", "`true`: for good, nothing brings it back"))
            .answers::<Done>()
            .long(),
        Route::get("/api/sessions/{user}/{session}/history", get(sessions::history))
            .says("The points of its history")
            .answers::<HistoryView>(),
        Route::post("/api/sessions/{user}/{session}/sync", post(sessions::sync))
            .says("Commit everything that is on disk, and answer once it is durable")
            .answers::<SyncView>()
            .long(),
        Route::post("/api/sessions/{user}/{session}/restore", post(sessions::restore))
            .says("Go back to a point of the past, or take the newest again; the bot is stopped meanwhile")
            .query(("at", "As in the body"))
            .takes::<RestoreBody>()
            .answers::<RestoreView>()
            .long(),
        Route::post("/api/sessions/{user}/{session}/logout", post(sessions::logout))
            .says("End the link to the phone and record it: the session restores as a new one")
            .answers::<Done>()
            .long(),
    ]
}

#[cfg(feature = "runner")]
fn whatsapp() -> Vec<Route> {
    use super::whatsapp::{self as wa, connect, events, passkey, qr, view};
    let status = |path| {
        Route::get(path, get(view::status)).says("Where the connection stands").answers::<view::StatusView>()
    };
    let connecting = |path| {
        Route::post(path, post(connect::connect))
            .says("Connect: answers once it is on its way, and at once where it is connected")
            .takes::<connect::ConnectBody>()
            .answers::<connect::ConnectView>()
            .long()
    };
    let disconnect = |path| {
        Route::post(path, post(connect::disconnect))
            .says("Disconnect; the link to the phone stays")
            .takes::<wa::SessionBody>()
            .answers::<Done>()
            .long()
    };
    let logout = |path| {
        Route::post(path, post(sessions::logout))
            .says("End the link to the phone and record it: the session restores as a new one")
            .takes::<wa::SessionBody>()
            .answers::<Done>()
            .long()
    };
    let code = |path| {
        Route::get(path, get(qr::show))
            .says("The QR code that waits for a phone: as JSON, image or text, by `Accept` or `format`")
            .query(("format", "`png`, `svg`, `json`, `text` or `raw`"))
            .answers::<qr::QrView>()
            .also("image/png")
            .also("image/svg+xml")
            .also("text/plain")
    };
    let generate = |path| {
        [
            Route::get(path, get(qr::generate)),
            Route::post(path, post(qr::generate)).takes::<wa::SessionBody>(),
        ]
        .map(|route| {
            route.says("Connect where it is not, and wait a moment for a QR code").answers::<qr::QrView>()
        })
    };
    let pairing = |path| {
        Route::post(path, post(connect::pairing_code))
            .says("A code to type into the phone instead of scanning; connects where it is not")
            .takes::<connect::PairingBody>()
            .answers::<connect::PairingView>()
            .long()
    };
    let step = |path| {
        Route::get(path, get(passkey::step))
            .says("The step of a passkey that waits")
            .answers::<passkey::StepView>()
    };
    let assertion = |path| {
        Route::post(path, post(passkey::answer))
            .says("Answer a passkey's challenge with what the browser's `credential.toJSON()` gave")
            .takes::<passkey::AssertionBody>()
            .answers::<Done>()
    };
    let send = |path| {
        Route::post(path, post(connect::send))
            .says("Send a text")
            .takes::<connect::SendBody>()
            .answers::<connect::SendView>()
    };
    let stream = |path| {
        Route::get(path, get(events::stream))
            .says("What happens from now on: events `status`, `qr`, `sync` and `message`, beginning with where all stands")
            .streams()
    };
    let clean = |path| {
        Route::post(path, post(connect::clean))
            .says("Unlink and delete the session, to begin anew")
            .takes::<wa::SessionBody>()
            .answers::<Done>()
            .long()
    };
    let mut routes = vec![
        status("/api/whatsapp/status/{user}").query(SESSION),
        status("/api/whatsapp/status/{user}/{session}"),
        connecting("/api/whatsapp/connect/{user}").query(SESSION),
        connecting("/api/whatsapp/connect/{user}/{session}"),
        disconnect("/api/whatsapp/disconnect/{user}").query(SESSION),
        disconnect("/api/whatsapp/disconnect/{user}/{session}"),
        logout("/api/whatsapp/logout/{user}").query(SESSION),
        logout("/api/whatsapp/logout/{user}/{session}"),
        code("/api/whatsapp/qr/{user}").query(SESSION),
        code("/api/whatsapp/qr/{user}/{session}"),
        pairing("/api/whatsapp/pairing-code/{user}").query(SESSION),
        pairing("/api/whatsapp/pairing-code/{user}/{session}"),
        step("/api/whatsapp/passkey/{user}").query(SESSION),
        step("/api/whatsapp/passkey/{user}/{session}"),
        step("/api/whatsapp/passkey/{user}/{session}/challenge"),
        assertion("/api/whatsapp/passkey/{user}").query(SESSION),
        assertion("/api/whatsapp/passkey/{user}/{session}"),
        Route::post("/api/whatsapp/passkey/{user}/{session}/confirm", post(passkey::confirm))
            .says("The phone shows the same code")
            .answers::<Done>(),
        send("/api/whatsapp/send/{user}").query(SESSION),
        send("/api/whatsapp/send/{user}/{session}"),
        stream("/api/whatsapp/events/{user}").query(("sessionId", "Only this session")),
        stream("/api/whatsapp/events/{user}/{session}"),
        clean("/api/whatsapp/clean-session/{user}").query(SESSION),
        clean("/api/whatsapp/clean-session/{user}/{session}"),
    ];
    routes.extend(generate("/api/whatsapp/generate-qr/{user}").map(|route| route.query(SESSION)));
    routes.extend(generate("/api/whatsapp/generate-qr/{user}/{session}"));
    routes
}
