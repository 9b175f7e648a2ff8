//! `dev`: an embedded Supabase in a directory.

use std::io;

use super::bot::BotCommand;
use super::keep::Tenant;
#[cfg(feature = "runner")]
use super::serve;
use super::{sidecar, signals};
use crate::cli::Dev;
use crate::config::{Config, Flags, KeySource, Place, Probes, RemoteConfig, Secret};
use crate::emulator::{self, Faults};
use crate::error::{Code, Error, Result};
use crate::history::Keys;
use crate::supabase::Reading;
use crate::sync::start::Command;

/// Prints the variables of the embedded Supabase, one `KEY=value` a line, and serves until a signal.
pub(super) async fn supabase_only(dev: &Dev) -> Result<()> {
    let stop = signals::listen()?;
    let options = options(dev)?;
    emulator::run(options, &mut io::stdout(), stop.orderly.cancelled())
        .await
        .map_err(|error| failed(dev, error))
}

/// How the embedded Supabase is set up.
pub(super) fn options(dev: &Dev) -> Result<emulator::Options> {
    let faults = dev.fault.as_deref().map(str::parse::<Faults>).transpose();
    let faults =
        faults.map_err(|error| Error::new(Code::Usage, "--fault is not understood").because(error))?;
    Ok(emulator::Options {
        dir: dev.dir.clone(),
        listen: dev.supabase_listen,
        faults: faults.unwrap_or_default(),
        ..emulator::Options::default()
    })
}

/// Why the embedded Supabase did not start, or ended.
pub(super) fn failed(dev: &Dev, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            Code::AddressInUse,
            format!(
                "another process listens at {}: give another address (--supabase-listen)",
                dev.supabase_listen
            ),
        ),
        io::ErrorKind::WouldBlock => Error::new(
            Code::RootLocked,
            format!(
                "another embedded Supabase uses {}: stop it, or give another directory (--dir)",
                dev.dir.display()
            ),
        ),
        _ => Error::io(format!("the embedded Supabase in {} failed", dev.dir.display()), error),
    }
}

/// `dev` and `dev -- CMD`: `serve` or `exec` on the embedded Supabase.
pub(super) async fn run(dev: Dev) -> Result<u8> {
    let bot = match dev.cmd.as_slice() {
        [] => None,
        words => Some(BotCommand::new(words.to_vec(), dev.bot.pass_supabase_env)?),
    };
    #[cfg(feature = "runner")]
    let settings = serve::settings(&dev.whatsapp)?;
    let emulator = emulator::start(options(&dev)?).await.map_err(|error| failed(&dev, error))?;
    let absolute = std::path::absolute(&dev.dir).unwrap_or_else(|_| dev.dir.clone());
    let remote = RemoteConfig {
        url: emulator.url(),
        key: Secret::new(emulator.service_role_key()),
        key_source: KeySource::Own(format!("embedded in {}", absolute.display())),
        reading: Reading::KEY,
        bucket: emulator::BUCKET.to_owned(),
        ca_file: None,
        keys: Keys::off(),
    };
    tracing::info!(url = remote.url, dir = %dev.dir.display(), root = %dev.place.root.display(), "embedded Supabase");
    let flags = Flags {
        start: dev.start.clone(),
        watch: dev.watch.clone(),
        hold: dev.hold.clone(),
        bot: dev.bot.clone(),
    };
    let config = Config::new(Place::new(&dev.place)?, remote, &flags, Probes::OnRequest)?;
    let code = match bot {
        Some(bot) => sidecar(&config, &dev.api, &dev.observe, Command::Exec, Tenant::Child(bot)).await,
        #[cfg(feature = "runner")]
        None => serve::on(&config, &dev.api, &dev.observe, settings).await,
        #[cfg(not(feature = "runner"))]
        None => sidecar(&config, &dev.api, &dev.observe, Command::Run, Tenant::Beside).await,
    };
    emulator.stop().await;
    code
}
