//! `serve`: sessions, WhatsApp connections, API and page in one process.

use std::sync::Arc;

use tokio::time::Instant;

use super::front;
use super::keep::{self, Listeners, Tenant};
use super::local_only;
use super::signals::Stop;
use crate::cli::options::{ApiArgs, ObserveArgs, RunnerArgs};
use crate::cli::{Run, Serve};
use crate::config::{
    ApiSettings, Config, Flags, Observe, Place, Probes, Project, RemoteConfig, environment, listen,
};
use crate::error::{Code, Error, Result};
use crate::runner::{self, Service};
use crate::sync::engine::Parting;
use crate::sync::env::Env;
use crate::sync::start::Command;
use crate::sync::supervisor::Supervisor;

/// Runs it; the exit code.
pub(super) async fn run(args: Serve) -> Result<u8> {
    let Serve { local_only, run, bot, whatsapp } = args;
    let Run { place, remote, start, watch, hold, api, observe } = run;
    let settings = settings(&whatsapp)?;
    let place = Place::new(&place)?;
    if local_only {
        let front = front(&api, None)?;
        let observe = Observe::new(&observe, remote.ca_file.as_ref(), &environment)?;
        return local_only::run(place, front, observe, settings, bot.stop_timeout.min(watch.grace / 2)).await;
    }
    let remote = RemoteConfig::new(&remote, &environment).map_err(|error| {
        Error::new(
            error.code(),
            format!("{error}; without Supabase at all: --local-only (SIDECAR_LOCAL_ONLY=true)"),
        )
    })?;
    let config = Config::new(place, remote, &Flags { start, watch, hold, bot }, Probes::OnRequest)?;
    on(&config, &api, &observe, settings).await
}

/// The same on a project that is known.
pub(super) async fn on(
    config: &Config,
    api: &ApiArgs,
    observe: &ObserveArgs,
    settings: runner::Settings,
) -> Result<u8> {
    let observe = Observe::new(observe, config.remote.ca_file.as_ref(), &environment)?;
    let project = Project { url: &config.remote.url, ca_file: config.remote.ca_file.as_ref() };
    let api = front(api, Some(project))?;
    let listeners = Listeners::open(config, api, front::Default::SERVICE, observe)?;
    keep::run(config, Command::Serve, listeners, Tenant::Runner(settings)).await
}

/// Where the API answers, and whom.
pub(super) fn front(api: &ApiArgs, project: Option<Project<'_>>) -> Result<ApiSettings> {
    let listen = listen(front::Default::SERVICE.address, api.listen, environment("PORT"))?;
    ApiSettings::new(api, listen, project, &environment)
}

/// How WhatsApp is connected to.
pub(super) fn settings(args: &RunnerArgs) -> Result<runner::Settings> {
    let name = args.device_name.trim();
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        let text =
            "--device-name is not one line of 1 to 64 bytes: give the name that phones list the device by";
        return Err(Error::new(Code::Usage, text));
    }
    let (url, version) = (args.whatsapp_url.clone(), args.whatsapp_version);
    runner::Settings { url, version, device_name: name.to_owned(), ..runner::Settings::default() }.check()
}

/// Until a signal, or until nothing is left to serve. A session that cannot be kept does not end the others.
pub(super) async fn until_the_end(
    config: &Config,
    env: &Arc<Env>,
    supervisor: &Arc<Supervisor>,
    service: &Arc<Service>,
    stop: &Stop,
) -> Result<u8> {
    let end = tokio::select! {
        () = stop.orderly.cancelled() => None,
        error = supervisor.nothing_to_serve() => Some(error),
        error = refused(env) => Some(error),
    };
    let deadline = Instant::now() + config.timing.grace;
    // The link stays: the next process connects it again.
    service.close(config.timing.stop_timeout).await;
    let outcome = supervisor.finish(deadline, Parting::Alone).await;
    match (end, outcome.error) {
        (None, None) => Ok(0),
        (None, Some(error)) | (Some(error), _) => Err(error),
    }
}

/// Waits until the project says that it is not ours to use.
async fn refused(env: &Env) -> Error {
    loop {
        match env.terms().await {
            Err(error) if error.code() != Code::Unreachable => return error,
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(5)).await,
            Ok(_) => std::future::pending::<()>().await,
        }
    }
}
