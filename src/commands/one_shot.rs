//! `sync`, `logout`, `accept-identity`: through the process that holds the root, else on their own.

use std::time::Duration;

use super::output::Output;
use super::{holder, keep, setup, show};
use crate::cli::options::StartArgs;
use crate::cli::values::Select;
use crate::cli::{self, OneShot};
use crate::config::{Config, Flags, Place, Probes, RemoteConfig, environment};
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::session::SessionKey;
use crate::sync::control::Control as _;
use crate::sync::mark;
use crate::sync::start::Command;

/// How long `sync` waits for what it asked for.
const SYNC: Duration = Duration::from_mins(5);

/// `sync`
pub(super) async fn sync(one: &OneShot, out: Output) -> Result<u8> {
    let place = Place::new(&one.place)?;
    let key = place.target(one.key.as_ref())?;
    let report = match holder::find(&place.root)? {
        Some(holder) => holder.sync(key, SYNC).await?,
        None => {
            keep::alone(&config(one, place, key.as_ref())?, async |sessions| {
                sessions.sync(key.clone(), SYNC).await
            })
            .await?
        }
    };
    out.result(&report, |report| show::sync(report, Real.now()))?;
    let held = report.sessions.iter().any(|session| !session.held.is_empty());
    Ok(if held { Code::Held.exit() } else { 0 })
}

/// `logout`
pub(super) async fn logout(one: &OneShot, out: Output) -> Result<()> {
    let place = Place::new(&one.place)?;
    let key = named(place.target(one.key.as_ref())?)?;
    let report = if let Some(holder) = holder::find(&place.root)? {
        holder.logout(&key).await?
    } else {
        let env = setup::env(&config(one, place, Some(&key))?, Command::Watch).await?;
        mark::log_out(&env, &key).await?.report(&key)
    };
    out.result(&report, |report| show::mark(report, "logged out at"))
}

/// `accept-identity`
pub(super) async fn accept_identity(one: &OneShot, out: Output) -> Result<()> {
    let place = Place::new(&one.place)?;
    let key = named(place.target(one.key.as_ref())?)?;
    let report = match holder::find(&place.root)? {
        Some(holder) => holder.accept_identity(&key).await?,
        None => {
            keep::alone(&config(one, place, Some(&key))?, async |sessions| {
                sessions.accept_identity(&key).await
            })
            .await?
        }
    };
    out.result(&report, |report| show::mark(report, "identity accepted at"))
}

/// The session of a command that needs one.
pub(super) fn named(key: Option<SessionKey>) -> Result<SessionKey> {
    key.ok_or_else(|| Error::new(Code::Usage, "name the session as USER/ID: the root can hold many"))
}

/// Of a command that works on its own: only the named session, or what lies below the root.
pub(super) fn config(one: &OneShot, place: Place, key: Option<&SessionKey>) -> Result<Config> {
    let select = key.map_or(Select::None, |key| Select::Only(vec![key.clone()]));
    let start = StartArgs { select, ..cli::defaults() };
    let flags = Flags { start, hold: one.hold.clone(), ..Flags::default() };
    let config =
        Config::new(place, RemoteConfig::new(&one.remote, &environment)?, &flags, Probes::OnRequest)?;
    Ok(Config { lease: config.lease.clone().of_a_tool(), ..config })
}
