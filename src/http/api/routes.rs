//! Every route once: the router and `/openapi.json` are made of the same list.

mod document;
mod route;
#[cfg(feature = "runner")]
mod whatsapp;

use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use axum::{Json, Router};

use super::sessions::{
    self, Done, HealthView, HistoryView, RestoreBody, RestoreView, SessionsView, SyncView,
};
use super::{Shared, TIME_LIMIT, guard};
use route::{Limit, Route};

/// The router of all routes, each behind what it needs.
pub fn router(api: &Shared) -> Router {
    let routes = list(api);
    let document = document::of(&routes);
    let (mut guarded, mut open, mut long) = (Router::new(), Router::new(), Router::new());
    for route in routes {
        let group = match route.limit {
            Limit::Usual => &mut guarded,
            Limit::Long => &mut long,
            Limit::Open => &mut open,
        };
        *group = std::mem::take(group).route(route.path, route.handler);
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
    sidecar().into_iter().chain(runner(api)).collect()
}

#[cfg(feature = "runner")]
fn runner(api: &Shared) -> Vec<Route> {
    if api.whatsapp.is_some() { whatsapp::list() } else { Vec::new() }
}

#[cfg(not(feature = "runner"))]
fn runner(_: &Shared) -> Vec<Route> {
    Vec::new()
}

fn sidecar() -> Vec<Route> {
    vec![
        Route::get("/api/health", get(sessions::health))
            .says("Whether the process is well; always 200")
            .answers::<HealthView>()
            .open(),
        Route::get("/api/sessions/{user}", get(sessions::list))
            .says("The sessions of a user that are active, or that this process has; newest first")
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
