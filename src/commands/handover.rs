//! `--on-handover`: a bot that is not our child is stopped and started by a command.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tracing::info;

use super::bot::hide_secrets;
use crate::error::{Code, Error, Result};

/// How the command is told what to do.
const VARIABLE: &str = "SIDECAR_HANDOVER";

/// The command of `--on-handover`.
pub(super) struct OnHandover {
    command: String,
    patience: Duration,
}

impl OnHandover {
    /// It gets `patience` each time.
    pub fn new(command: &str, patience: Duration) -> Self {
        Self { command: command.to_owned(), patience }
    }

    /// Stops the bot: it has stopped when the command ends with 0.
    pub async fn stop(&self) -> Result<()> {
        self.run("stop").await
    }

    /// Starts it again.
    pub async fn start(&self) -> Result<()> {
        self.run("start").await
    }

    async fn run(&self, what: &str) -> Result<()> {
        let fail = |why: String| Error::new(Code::Held, format!("--on-handover ({what}) {why}"));
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).env(VARIABLE, what).kill_on_drop(true);
        hide_secrets(&mut command, false);
        info!(what, "running --on-handover");
        let status: ExitStatus = timeout(self.patience, command.status())
            .await
            .map_err(|_| fail(format!("did not end within {}", humantime::format_duration(self.patience))))?
            .map_err(|error| fail("cannot be run".to_owned()).because(error))?;
        if status.success() { Ok(()) } else { Err(fail(format!("failed ({status})"))) }
    }
}
