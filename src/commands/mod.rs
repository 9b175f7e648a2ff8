//! One thin file a subcommand, and the frame around them: arguments in, results and exit code out.

pub mod bot;
mod bucket;
mod deletion;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod export;
mod front;
mod handover;
mod holder;
mod import;
mod init;
mod keep;
#[cfg(feature = "runner")]
mod local_only;
mod look;
mod manual;
mod migrate;
mod moving;
mod observed;
mod one_shot;
mod orphans;
pub mod output;
mod probe;
pub mod progress;
mod restore;
#[cfg(feature = "runner")]
mod runner;
mod schema;
#[cfg(feature = "runner")]
mod serve;
mod setup;
pub mod show;
pub mod signals;
mod status;
mod tenure;
mod terminal;
mod token;
mod verify;
mod webhook_test;

use std::ffi::OsString;
use std::io::{self, Write};

use crate::cli::options::{ApiArgs, ObserveArgs, PlaceArgs, RemoteArgs};
use crate::cli::{self, Cli, Command, Exec, Run, Watch};
use crate::config::{
    ApiSettings, Config, Flags, Observe, Place, Probes, Project, RemoteConfig, environment, listen,
};
use crate::error::{Code, Error, ErrorReport, Result};
use crate::sync::start;
use crate::telemetry;
use bot::BotCommand;
use keep::{Listeners, Tenant};
use output::Output;

/// Runs a command line (the first argument is the program's name) to its end; the exit code of the process.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let Cli { output, command } = match cli::parse(args.iter().cloned()) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, &args),
    };
    telemetry::init(output.log_format);
    let output = Output::new(output);
    let output = if lends_stdout(&command) { output.lend_stdout() } else { output };
    match dispatch(command, output).await {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            error.code().exit()
        }
    }
}

/// Whether stdout belongs to somebody else: a bot, or the program that reads variables or an archive from it.
fn lends_stdout(command: &Command) -> bool {
    match command {
        Command::Exec(_) => true,
        Command::Export(args) => export::is_stdout(args),
        #[cfg(feature = "dev")]
        Command::Dev(dev) => dev.supabase_only || !dev.cmd.is_empty(),
        _ => false,
    }
}

async fn dispatch(command: Command, out: Output) -> Result<u8> {
    match command {
        Command::Restore(args) => {
            let flags = Flags { start: args.start.clone(), hold: args.hold.clone(), ..Flags::default() };
            let config = configure(&args.place, &args.remote, &flags, Probes::OnRequest)?;
            restore::run(&args, &config, out).await?;
        }
        Command::Watch(Watch { place, remote, watch, hold, api, observe }) => {
            let flags = Flags { watch, hold, ..Flags::default() };
            let config = configure(&place, &remote, &flags, Probes::ByDefault)?;
            return sidecar(&config, &api, &observe, start::Command::Watch, Tenant::Beside).await;
        }
        Command::Run(Run { place, remote, start, watch, hold, api, observe }) => {
            let flags = Flags { start, watch, hold, ..Flags::default() };
            let config = configure(&place, &remote, &flags, Probes::ByDefault)?;
            return sidecar(&config, &api, &observe, start::Command::Run, Tenant::Beside).await;
        }
        Command::Exec(Exec { run, bot, cmd }) => {
            let Run { place, remote, start, watch, hold, api, observe } = run;
            let command = BotCommand::new(cmd, bot.pass_supabase_env)?;
            let flags = Flags { start, watch, hold, bot };
            let config = configure(&place, &remote, &flags, Probes::OnRequest)?;
            return sidecar(&config, &api, &observe, start::Command::Exec, Tenant::Child(command)).await;
        }
        #[cfg(feature = "runner")]
        Command::Serve(args) => return serve::run(args).await,
        #[cfg(feature = "runner")]
        Command::Runner(args) => return runner::run(args).await,
        Command::Status(args) => look::status(&args, out).await?,
        Command::History(look) => look::history(&look, out).await?,
        Command::Verify(look) => verify::run(&look, out).await?,
        Command::Export(export) => export::run(&export, out).await?,
        Command::Migrate(args) => return migrate::run(&args, out).await,
        Command::Import(args) => return import::run(&args, out).await,
        Command::Sync(one) => return one_shot::sync(&one, out).await,
        Command::Logout(one) => one_shot::logout(&one, out).await?,
        Command::Delete(delete) => deletion::delete(&delete, out).await?,
        Command::Undelete(one) => deletion::undelete(&one, out).await?,
        Command::AcceptIdentity(one) => one_shot::accept_identity(&one, out).await?,
        Command::Init(init) => init::run(&init, out).await?,
        Command::Doctor(args) => return doctor::run(&args, out).await,
        Command::Schema(args) => schema::run(&args, out)?,
        Command::Probe(args) => return probe::run(&args, out).await,
        Command::Completions(args) => manual::completions(args)?,
        Command::Man(args) => manual::man(&args)?,
        Command::Token(args) => token::run(&args, out)?,
        Command::WebhookTest(args) => webhook_test::run(&args, out).await?,
        #[cfg(feature = "dev")]
        Command::Dev(dev) if dev.supabase_only => dev::supabase_only(&dev).await?,
        #[cfg(feature = "dev")]
        Command::Dev(dev) => return dev::run(dev).await,
    }
    Ok(0)
}

/// `watch`, `run`, `exec`.
async fn sidecar(
    config: &Config,
    api: &ApiArgs,
    observe: &ObserveArgs,
    command: start::Command,
    tenant: Tenant,
) -> Result<u8> {
    let by_default = front::Default::SIDECAR;
    // PORT is the bot's, if anybody's.
    let listen = listen(by_default.address, api.listen, None)?;
    let project = Project { url: &config.remote.url, ca_file: config.remote.ca_file.as_ref() };
    let api = ApiSettings::new(api, listen, Some(project), &environment)?;
    let observe = Observe::new(observe, config.remote.ca_file.as_ref(), &environment)?;
    keep::run(config, command, Listeners::open(config, api, by_default, observe)?, tenant).await
}

fn configure(place: &PlaceArgs, remote: &RemoteArgs, flags: &Flags, probes: Probes) -> Result<Config> {
    Config::new(Place::new(place)?, RemoteConfig::new(remote, &environment)?, flags, probes)
}

/// Prints what clap has to say: help and version on stdout, all else as an error of usage.
fn explain(error: &clap::Error, args: &[OsString]) -> u8 {
    if !error.use_stderr() {
        // A closed pipe is no error here either.
        let _ = error.print();
        return 0;
    }
    let mut text = error.render().to_string();
    // One in the wrong place is repeated by clap, and holds a password.
    let databases = args.iter().filter_map(|arg| arg.to_str()).filter(|arg| arg.starts_with("postgres"));
    for database in databases {
        text = text.replace(database, "***");
    }
    if error.kind() == clap::error::ErrorKind::ValueValidation {
        // Our own parsers say what to do in one line; a hint at `--help` adds nothing to it.
        let line = text.find('\n').map_or(text.len(), |end| end + 1);
        text.truncate(line);
    }
    // Our own parsers also know better than "usage" what is wrong.
    let own = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    let code = own.map_or(Code::Usage, Error::code);
    let flag = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let yes = |value: OsString| {
        ["1", "t", "true", "y", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
    };
    if flag || environment("SIDECAR_JSON").is_some_and(yes) {
        let first = text.lines().next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let report = ErrorReport::from(&Error::new(code, first));
        let _ = output::print(&serde_json::to_string(&report).expect("two strings are JSON"));
    }
    telemetry::print_line(text.trim_end());
    let _ = io::stderr().flush();
    code.exit()
}
