//! The service's process: this program again, as `offline serve …`.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The command `serve`, in the process that was started for it.
pub async fn serve(args: Vec<OsString>) -> u8 {
    // Whatever happens to the onlooker's process, nothing is left behind.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("error: the service would outlive its stage: {error}");
        return 8;
    }
    session_sidecar::telemetry::log_panics();
    session_sidecar::run(args).await
}

/// The service: where it lives, and its process while it does.
pub struct Service {
    pub address: SocketAddr,
    /// What it is told of Supabase and WhatsApp; of the onlooker's own variables it sees none.
    pub variables: Vec<(&'static str, String)>,
    /// Where its sessions lie.
    pub root: PathBuf,
    pub log: PathBuf,
    pub child: Mutex<Option<Child>>,
}

impl Service {
    /// Starts it; its process id.
    pub async fn start(&self) -> Result<u32> {
        let mut child = self.child.lock().await;
        ensure!(child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        // Who lost the directory waits until the lease of the killed one ends: 30 s, if nobody says.
        command.args(["serve", "--lease-ttl", "4s", "--listen", &self.address.to_string()]);
        command.arg("--root").arg(&self.root).env_clear().envs(self.variables.iter().cloned());
        command.envs(std::env::var_os("RUST_LOG").map(|filter| ("RUST_LOG", filter)));
        // In a group of its own: a Ctrl-C reaches the stage alone, which then ends all in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = child.insert(command.spawn()?);
        started.id().context("it ended at once")
    }

    /// `kill -9`; the process id that it had.
    pub async fn kill(&self) -> Result<u32> {
        let mut child = self.child.lock().await.take().context("it does not run")?;
        let id = child.id().context("it has just ended")?;
        child.kill().await?;
        Ok(id)
    }

    /// Removes all that it has on disk.
    pub async fn lose_disk(&self) -> Result<()> {
        ensure!(
            self.child.lock().await.is_none(),
            "it runs: kill it first, a disk is lost with its container"
        );
        match tokio::fs::remove_dir_all(&self.root).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("it is gone already"),
            removed => Ok(removed?),
        }
    }

    /// How it ended, once, if it ended by itself.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().await;
        let status = child.as_mut()?.try_wait().ok()??;
        *child = None;
        Some(status)
    }

    /// Ends it in order: what is not committed yet is.
    pub async fn stop(&self) -> Result<()> {
        let Some(mut child) = self.child.lock().await.take() else { return Ok(()) };
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            kill_process(id, Signal::TERM)?;
        }
        let status =
            timeout(Duration::from_secs(30), child.wait()).await.context("it did not end in time")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
