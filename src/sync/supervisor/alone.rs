//! Sessions opened without a bot, for one task.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Selection, Supervisor};
use crate::error::{Code, Error};
use crate::sync::engine::Parting;
use crate::sync::env::Env;

/// What the last flush may take.
const FLUSH: Duration = Duration::from_mins(1);

/// Opens the sessions, does something with them, and flushes: for commands on their own. With `in_use`, no tree is
/// replaced whatever the start table says.
pub async fn alone<T>(
    env: Arc<Env>,
    selection: &Selection,
    in_use: bool,
    work: impl AsyncFnOnce(&Supervisor) -> Result<T, Error>,
) -> Result<T, Error> {
    let supervisor = Supervisor::start(env, selection, in_use)?;
    supervisor.ready().await?;
    let result = work(&supervisor).await;
    let outcome = supervisor.finish(Instant::now() + FLUSH, Parting::Alone).await;
    match (result, outcome.error) {
        (Err(error), _) => Err(error),
        (Ok(_), Some(error)) if error.code() != Code::Held => Err(error),
        (Ok(value), _) => Ok(value),
    }
}
