//! The page of the simulated phone: a button for each thing to do, and what was seen.

use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::stage::{ACTS, Act, Stage};

/// Answers for as long as it is polled.
pub async fn serve(listener: std::net::TcpListener, stage: Arc<Stage>) -> Result<()> {
    listener.set_nonblocking(true)?;
    let router = Router::new()
        .route("/", get(page))
        .route(
            "/log/{from}",
            get(async |State(stage): State<Arc<Stage>>, Path(from)| Json(stage.lines(from))),
        )
        .route("/do/{key}", post(perform))
        .with_state(stage);
    Ok(axum::serve(TcpListener::from_std(listener)?, router).await?)
}

async fn page(State(stage): State<Arc<Stage>>) -> Html<String> {
    let buttons = ACTS.map(|(key, _, label)| format!("<button data-key=\"{key}\">{label}</button>"));
    Html(
        include_str!("phone.html")
            .replace("{buttons}", &buttons.concat())
            .replace("{service}", &stage.page()),
    )
}

async fn perform(State(stage): State<Arc<Stage>>, Path(key): Path<String>) -> StatusCode {
    let Some(act) = Act::of(&key) else { return StatusCode::NOT_FOUND };
    stage.act(act).await;
    StatusCode::NO_CONTENT
}
