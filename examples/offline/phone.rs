//! The page of the simulated phone: a button for each thing to do, and what was seen.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::stage::{ACTS, Act, Stage};

/// At this port, or at any other where it is taken.
pub async fn open(port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?),
    }
}

/// Answers for as long as it is polled.
pub async fn serve(listener: TcpListener, stage: Arc<Stage>) -> Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .route(
            "/log/{from}",
            get(async |State(stage): State<Arc<Stage>>, Path(from)| Json(stage.lines(from))),
        )
        .route("/do/{key}", post(perform))
        .with_state(stage);
    Ok(axum::serve(listener, router).await?)
}

async fn page(State(stage): State<Arc<Stage>>) -> Html<String> {
    let buttons: String =
        ACTS.iter().map(|(key, _, label)| format!("<button data-key=\"{key}\">{label}</button>\n")).collect();
    Html(include_str!("phone.html").replace("{buttons}", &buttons).replace("{service}", &stage.page()))
}

async fn perform(State(stage): State<Arc<Stage>>, Path(key): Path<String>) -> StatusCode {
    let Some(act) = Act::of(&key) else { return StatusCode::NOT_FOUND };
    stage.act(act).await;
    StatusCode::NO_CONTENT
}
