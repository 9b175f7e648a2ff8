//! The flags of each command.

// Comments on flags are what `--help` prints, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::options::{
    ApiArgs, BotArgs, HoldArgs, ObserveArgs, PlaceArgs, RemoteArgs, StartArgs, WatchArgs, WebhookArgs,
};
#[cfg(feature = "runner")]
use super::options::{ProjectArgs, RunnerArgs};
use super::values::{self, Listen, Metadata, ProbePath};
use crate::config::Secret;
use crate::session::SessionKey;
use crate::sync::points::Wanted;

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// Go back to this point: an id of `history`, or the newest point at or before a time
    /// (2026-11-23T21:00:00Z). It becomes the new head; the old one is pinned
    #[arg(long, value_name = "TIME|ID")]
    pub at: Option<Wanted>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// What the start may do.
    #[command(flatten)]
    pub start: StartArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
}

/// `watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// How changes are committed.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
    /// Where the API answers.
    #[command(flatten)]
    pub api: ApiArgs,
    /// What is shown and told.
    #[command(flatten)]
    pub observe: ObserveArgs,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// What the start may do.
    #[command(flatten)]
    pub start: StartArgs,
    /// How changes are committed.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
    /// Where the API answers.
    #[command(flatten)]
    pub api: ApiArgs,
    /// What is shown and told.
    #[command(flatten)]
    pub observe: ObserveArgs,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// As for `run`.
    #[command(flatten)]
    pub run: Run,
    /// How the bot is treated.
    #[command(flatten)]
    pub bot: BotArgs,
    /// The bot and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub cmd: Vec<OsString>,
}

/// `sync`, `logout`, `accept-identity`: through the process that holds the root, else on their own. `undelete`: only on
/// its own.
#[derive(Debug, Args)]
pub struct OneShot {
    /// The session; not needed where the root has only one
    #[arg(value_name = "USER/ID")]
    pub key: Option<SessionKey>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
}

/// `serve`
#[cfg(feature = "runner")]
#[derive(Debug, Args)]
#[command(mut_arg("select", |arg| arg.default_value("active")), mut_arg("pass_supabase_env", |arg| arg.hide(true)))]
#[command(mut_arg("on_handover", |arg| arg.hide(true)))]
pub struct Serve {
    /// Without Supabase: what is on this disk is all there is. Health then says "cloudStorage":"disabled"
    #[arg(long, env = "SIDECAR_LOCAL_ONLY", value_parser = clap::builder::BoolishValueParser::new())]
    pub local_only: bool,
    /// As for `run`.
    #[command(flatten)]
    pub run: Run,
    /// How connections are treated.
    #[command(flatten)]
    pub bot: BotArgs,
    /// How WhatsApp is connected to.
    #[command(flatten)]
    pub whatsapp: RunnerArgs,
}

/// `runner`
#[cfg(feature = "runner")]
#[derive(Debug, Args)]
pub struct Runner {
    /// The sidecar's API, in the same pod: http://127.0.0.1:3080. Without it the sidecar is asked through its socket in
    /// the shared root
    #[arg(long, value_name = "URL", env = "SIDECAR_URL")]
    pub sidecar_url: Option<String>,
    /// How long connections get to end after SIGTERM
    #[arg(long, value_name = "TIME", env = "SIDECAR_STOP_TIMEOUT", default_value = "10s", value_parser = values::duration)]
    pub stop_timeout: std::time::Duration,
    /// Where the sessions lie: the root that the sidecar has, too.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the API answers.
    #[command(flatten)]
    pub api: ApiArgs,
    /// What is shown and told.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// The project whose users may call.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// How WhatsApp is connected to.
    #[command(flatten)]
    pub whatsapp: RunnerArgs,
}

/// `delete`, only on its own.
#[derive(Debug, Args)]
pub struct Delete {
    /// Do not ask; needed where there is no terminal to ask at
    #[arg(long, short)]
    pub yes: bool,
    /// For good: also what is pinned and what was set aside. Nothing brings it back
    #[arg(long)]
    pub purge: bool,
    /// Which.
    #[command(flatten)]
    pub one: OneShot,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// The whole project: every session that the bucket has a history of, whoever keeps it and wherever it runs
    #[arg(long, conflicts_with = "key")]
    pub all: bool,
    /// As for `history`.
    #[command(flatten)]
    pub look: Look,
}

/// `status`, `history`, `verify`: look, change nothing.
#[derive(Debug, Args)]
pub struct Look {
    /// The session; not needed where the root has only one
    #[arg(value_name = "USER/ID")]
    pub key: Option<SessionKey>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// As for `history`.
    #[command(flatten)]
    pub look: Look,
    /// A directory that does not exist yet or is empty, a new file whose name ends in .tar.zst, or - for such an
    /// archive on stdout
    #[arg(long, value_name = "DIR|FILE.tar.zst|-")]
    pub to: PathBuf,
    /// This point instead of the newest: an id of `history`, or the newest at or before a time
    #[arg(long, value_name = "TIME|ID")]
    pub at: Option<Wanted>,
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Also apply the SQL, over this connection to the project's Postgres (as `postgres`); better as the variable
    /// SUPABASE_DB_URL than as a flag. Also read from the file that SUPABASE_DB_URL_FILE names
    // Read by `config`, as the key is.
    #[arg(long, value_name = "URL", value_parser = Secret::from_flag, help_heading = "Supabase")]
    pub database_url: Option<Secret>,
    /// The table of sessions, which the database is asked about
    #[arg(long, value_name = "TABLE|off", env = "SIDECAR_METADATA", default_value = "whatsapp_sessions")]
    pub metadata: Metadata,
}

/// `webhook-test`
#[derive(Debug, Args)]
pub struct WebhookTest {
    /// Who is told.
    #[command(flatten)]
    pub webhook: WebhookArgs,
    /// More certificates to trust, as PEM
    #[arg(long, value_name = "FILE", env = "SIDECAR_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// The bucket that the SQL makes, and whose history it closes
    #[arg(long, value_name = "NAME", env = "SUPABASE_BUCKET", default_value = "whatsapp-sessions")]
    pub bucket: String,
    /// The table of sessions that tokens of the role session_sidecar may write
    #[arg(long, value_name = "TABLE|off", env = "SIDECAR_METADATA", default_value = "whatsapp_sessions")]
    pub metadata: Metadata,
}

/// `token`
#[derive(Debug, Args)]
pub struct Token {
    /// Only for this session
    #[arg(long, value_name = "USER/ID", env = "SIDECAR_SESSION")]
    pub session: Option<SessionKey>,
    /// Only for the sessions of this user. Without both: for all sessions of the bucket
    #[arg(long, value_name = "ID", env = "SIDECAR_USER")]
    pub user: Option<String>,
    /// How long it lasts, at most 10 years
    #[arg(long, value_name = "TIME", env = "SIDECAR_TOKEN_TTL", default_value = "90d", value_parser = values::duration)]
    pub ttl: std::time::Duration,
    /// The file with the project's JWT secret (dashboard: Settings, JWT keys, legacy JWT secret). Also read from the
    /// variable SUPABASE_JWT_SECRET, or from the file that SUPABASE_JWT_SECRET_FILE names
    // Read by `config`, as the key is.
    #[arg(long, value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
}

/// `probe`
#[derive(Debug, Args)]
pub struct Probe {
    /// What to ask for
    #[arg(value_enum, default_value_t = ProbePath::Readyz)]
    pub path: ProbePath,
    /// Where the probes are, as the running process has it; without one port 3081 is asked, then the API
    #[arg(long, value_name = "ADDR|off", env = "SIDECAR_PROBE_LISTEN")]
    pub probe_listen: Option<Listen>,
    /// Where the API is, as the running process has it; without one PORT, 3080 and 3000 are tried
    #[arg(long, value_name = "ADDR|off", env = "SIDECAR_LISTEN")]
    pub listen: Option<Listen>,
}

/// `completions`
#[derive(Debug, Clone, Copy, Args)]
pub struct Completions {
    /// The shell: `session-sidecar completions bash > /etc/bash_completion.d/session-sidecar`
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write session-sidecar.1 and one page a command here, instead of the first one to stdout
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `dev`
#[cfg(feature = "dev")]
#[derive(Debug, Args)]
#[command(mut_arg("select", |arg| arg.default_value("active")))]
pub struct Dev {
    /// Only the embedded Supabase: print its variables, one KEY=value a line, and serve until a signal
    #[arg(long, conflicts_with = "cmd")]
    pub supabase_only: bool,
    /// Where the embedded Supabase keeps its objects, as plain files
    #[arg(long, value_name = "DIR", env = "SIDECAR_DEV_DIR", default_value = ".session-sidecar-dev")]
    pub dir: PathBuf,
    /// Where the embedded Supabase listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "SIDECAR_DEV_LISTEN", default_value = "127.0.0.1:0")]
    pub supabase_listen: std::net::SocketAddr,
    /// What goes wrong in the embedded Supabase:
    /// latency=50ms,errors=0.05,resets=0.01,cut=0.01,late-uploads=0.01,stale=60s,down=database
    #[arg(long, value_name = "SPEC", env = "SIDECAR_DEV_FAULT")]
    pub fault: Option<String>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// What the start may do.
    #[command(flatten)]
    pub start: StartArgs,
    /// How changes are committed.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
    /// How the bot is treated.
    #[command(flatten)]
    pub bot: BotArgs,
    /// Where the API answers.
    #[command(flatten)]
    pub api: ApiArgs,
    /// What is shown and told.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// How WhatsApp is connected to.
    #[cfg(feature = "runner")]
    #[command(flatten)]
    pub whatsapp: RunnerArgs,
    /// A bot and its arguments: `exec` around it
    #[arg(last = true, value_name = "CMD")]
    pub cmd: Vec<OsString>,
}
