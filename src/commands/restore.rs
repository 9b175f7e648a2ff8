//! `restore`, and `restore --at`.

use super::output::Output;
use super::{progress, setup, show};
use crate::cli::Restore;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::sync::mark;
use crate::sync::report::StatusReport;
use crate::sync::start::Command;
use crate::sync::supervisor;

/// Restores the sessions and ends.
pub(super) async fn run(args: &Restore, config: &Config, out: Output) -> Result<()> {
    let env = setup::env(config, Command::Restore).await?;
    if let Some(wanted) = args.at {
        let key = config.place.target(None)?.ok_or_else(|| {
            Error::new(Code::Usage, "--at goes back in one session: name it with --session USER/ID")
        })?;
        let written = mark::rewind(&env, &key, wanted).await?;
        tracing::info!(head = %written.commit, pinned = ?written.pinned, "went back");
    }
    let progress = progress::listener(out, "restoring");
    let selection = setup::selection(config);
    let restored = supervisor::restore(&env, &selection, &*progress).await;
    drop(progress);
    env.last_notes().await;
    let sessions = restored?;
    let report =
        StatusReport { version: env!("CARGO_PKG_VERSION").to_owned(), running: false, watch: None, sessions };
    out.result(&report, |report| show::status(report, Real.now()))
}
