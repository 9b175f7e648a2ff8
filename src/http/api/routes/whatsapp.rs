//! The routes of a process that runs WhatsApp connections. Each is there with and without a session in its path.

use axum::routing::{get, post};

use super::route::Route;
use crate::http::api::sessions::{self, Done};
use crate::http::api::whatsapp::{self as wa, connect, events, passkey, qr, view};

/// The session in the query, where the path has none.
const SESSION: (&str, &str) =
    ("sessionId", "The session; without it the default one, the only one, or the one last used");

/// All of them.
pub fn list() -> Vec<Route> {
    let mut routes = links();
    routes.extend(codes());
    routes.extend(talks());
    routes
}

/// Connections begin and end.
fn links() -> Vec<Route> {
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
    let clean = |path| {
        Route::post(path, post(connect::clean))
            .says("Unlink and delete the session, to begin anew")
            .takes::<wa::SessionBody>()
            .answers::<Done>()
            .long()
    };
    vec![
        status("/api/whatsapp/status/{user}").query(SESSION),
        status("/api/whatsapp/status/{user}/{session}"),
        connecting("/api/whatsapp/connect/{user}").query(SESSION),
        connecting("/api/whatsapp/connect/{user}/{session}"),
        disconnect("/api/whatsapp/disconnect/{user}").query(SESSION),
        disconnect("/api/whatsapp/disconnect/{user}/{session}"),
        logout("/api/whatsapp/logout/{user}").query(SESSION),
        logout("/api/whatsapp/logout/{user}/{session}"),
        clean("/api/whatsapp/clean-session/{user}").query(SESSION),
        clean("/api/whatsapp/clean-session/{user}/{session}"),
    ]
}

/// What a phone scans, or a person types into it.
fn codes() -> Vec<Route> {
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
    let mut routes = vec![
        code("/api/whatsapp/qr/{user}").query(SESSION),
        code("/api/whatsapp/qr/{user}/{session}"),
        pairing("/api/whatsapp/pairing-code/{user}").query(SESSION),
        pairing("/api/whatsapp/pairing-code/{user}/{session}"),
    ];
    routes.extend(generate("/api/whatsapp/generate-qr/{user}").map(|route| route.query(SESSION)));
    routes.extend(generate("/api/whatsapp/generate-qr/{user}/{session}"));
    routes
}

/// Passkeys, messages and events.
fn talks() -> Vec<Route> {
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
    vec![
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
    ]
}
