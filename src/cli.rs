//! The command line: subcommands here, groups of flags in [`options`], single values in [`values`].
//!
//! Every flag has an environment variable; one that is set but empty counts as unset. What comes out is
//! checked and turned into a configuration by [`crate::config`].

// Comments on flags are what `--help` prints, where backticks are noise.
#![allow(clippy::doc_markdown)]

mod moving;
pub mod options;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Secret;
use crate::session::SessionKey;
use crate::sync::points::Wanted;
pub use moving::{Import, Migrate};
use options::{
    ApiArgs, BotArgs, HoldArgs, ObserveArgs, PlaceArgs, RemoteArgs, StartArgs, WatchArgs, WebhookArgs,
};
#[cfg(feature = "runner")]
use options::{ProjectArgs, RunnerArgs};
use values::{Listen, LogFormat, Metadata, ProbePath};

/// What `--help` says after the flags of every command; a contract.
const EXIT_CODES: &str = "\
Exit codes:
  0  ok
  2  usage or configuration
  3  conflict, or something is held that needs a decision
  4  Supabase unreachable
  5  not authorised
  6  integrity: an object of the history is damaged or missing
  7  lease lost, or held by another
  8  changes could not be flushed
`exec` and `dev -- CMD` pass the exit code of their child.

Secrets: prefer the variables, or the same names with _FILE appended and a path as value
(SUPABASE_SERVICE_ROLE_KEY_FILE=/run/secrets/key); a key given as a flag can be seen in `ps`.";

/// Keeps a WhatsApp bot's session directory alive across redeploys, crashes and full disks.
#[derive(Debug, Parser)]
#[command(name = "session-sidecar", version, about, long_about = None, max_term_width = 110)]
pub struct Cli {
    /// How to speak.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// How logs look on stderr; RUST_LOG sets what is logged (default `info`)
    #[arg(long, value_enum, global = true, env = "SIDECAR_LOG_FORMAT", value_name = "FORMAT")]
    #[arg(default_value_t = LogFormat::Text, help_heading = "Output")]
    pub log_format: LogFormat,
    /// Print the result (or the error) as one JSON document on stdout
    #[arg(long, global = true, env = "SIDECAR_JSON", help_heading = "Output")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Restore the sessions and exit: the init container
    Restore(Restore),
    /// Commit every change until SIGTERM, then flush: the classic sidecar
    Watch(Watch),
    /// `restore` and `watch` in one process; /readyz turns 200 once restored: the native sidecar
    Run(Run),
    /// `run` around a bot: start it after the restore, flush after its end, exit with its code
    Exec(Exec),
    /// The whole service in one process: sessions, WhatsApp connections, API and page
    #[cfg(feature = "runner")]
    Serve(Serve),
    /// Only the WhatsApp connections, their API and page, in a pod whose sidecar (`run`) keeps the sessions
    #[cfg(feature = "runner")]
    Runner(Runner),
    /// Scan everything and commit what changed
    Sync(OneShot),
    /// Show where every session stands
    Status(Status),
    /// List the points of a session's history
    History(Look),
    /// Write one point of a session's history to a directory or an archive, without taking the session over
    Export(Export),
    /// Move what another program kept on a disk (or in the bucket's plain files) into the history, and prove it
    Migrate(Migrate),
    /// Commit what `export` wrote, or a directory, as a session; what the session was before is pinned
    Import(Import),
    /// Read the history back and check every file of its head
    Verify(Look),
    /// Create the bucket, or mend its settings; say what the database lacks, or apply it (--database-url)
    Init(Init),
    /// Check the project and the place where this runs, end to end: each line says what was found and what to do
    Doctor(Doctor),
    /// Send a test event to the receiver of webhooks, and say what it answers
    WebhookTest(WebhookTest),
    /// Print the SQL that the database needs: for the dashboard's SQL editor, or psql
    Schema(Schema),
    /// Make a token for SUPABASE_SIDECAR_TOKEN, which opens the bucket alone, or one user's or session's part of it
    Token(Token),
    /// Record that an account logged out: its session restores as a new one
    Logout(OneShot),
    /// Commit an identity that the guard holds
    AcceptIdentity(OneShot),
    /// Delete a session: its history, its mirror, its local files. `undelete` brings it back for --pin-keep
    Delete(Delete),
    /// Bring a deleted session back: the next start restores it
    Undelete(OneShot),
    /// Ask the process that runs in this container how it is: exit code 0 when it is well, else 1. For a HEALTHCHECK,
    /// where an image has neither shell nor curl
    Probe(Probe),
    /// Print the completions of a shell
    Completions(Completions),
    /// Print the manual page, or write one a command to a directory
    Man(Man),
    /// Try everything on an embedded Supabase that lives in a directory: no account, no configuration
    #[cfg(feature = "dev")]
    Dev(Dev),
}

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

/// Parses arguments (the first is the program's name) and the environment.
///
/// # Errors
/// Also `--help` and `--version`, which print to stdout and exit with 0: see [`clap::Error::exit_code`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(args)?)
}

/// The command line as clap has it.
#[must_use]
pub fn command() -> clap::Command {
    let unset_empty = |arg: clap::Arg| match arg.get_env() {
        // A manifest with `value: ""` means "not set", as for every other program.
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
            arg.env(clap::builder::Resettable::Reset)
        }
        _ => arg,
    };
    Cli::command()
        .after_long_help(EXIT_CODES)
        .mut_args(unset_empty)
        .mut_subcommands(|sub| sub.after_long_help(EXIT_CODES).mut_args(unset_empty))
}

/// The defaults of a group of flags, for commands that do not show them.
#[must_use]
pub fn defaults<A: Args>() -> A {
    let group = A::augment_args(clap::Command::new("defaults").no_binary_name(true))
        .mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
    let matches = group.try_get_matches_from(std::iter::empty::<OsString>());
    matches.and_then(|matches| A::from_arg_matches(&matches)).expect("the defaults of every group parse")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_but_those_of_a_single_call_has_a_variable_and_a_help_text() {
        // What a person asks for once has no place in the environment of a deployment.
        let once = [
            "at",
            "to",
            "dir",
            "shell",
            "path",
            "all",
            "from",
            "from_mirror",
            "layout",
            "dry_run",
            "verify",
            "cleanup",
            "scratch",
            "source",
            "yes",
            "purge",
            "supabase_only",
            "key",
            "cmd",
            "help",
            "version",
        ];
        for sub in command().get_subcommands() {
            for arg in sub.get_arguments() {
                let name = arg.get_id().as_str();
                assert!(arg.get_help().is_some(), "{} {name} has no help", sub.get_name());
                // Variables of secrets have aliases, which clap does not know.
                let elsewhere = [
                    "service_role_key",
                    "sidecar_token",
                    "database_url",
                    "api_token",
                    "jwt_secret_file",
                    "webhook_url",
                ]
                .contains(&name)
                    && arg.get_help().is_some_and(|help| help.to_string().contains("_FILE"));
                let named = arg.get_env().is_some() || once.contains(&name) || elsewhere;
                assert!(named, "{} {name} has no variable", sub.get_name());
            }
        }
    }

    #[test]
    fn help_of_every_command_ends_with_the_exit_codes() {
        for sub in command().get_subcommands_mut() {
            assert!(sub.render_long_help().to_string().contains("7  lease lost"), "{}", sub.get_name());
        }
    }

    #[test]
    fn a_wrong_flag_is_exit_2() {
        assert_eq!(parsed("session-sidecar run --nonsense").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("session-sidecar").unwrap_err().exit_code(), 2);
        assert_eq!(parsed("session-sidecar exec").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn the_bots_own_flags_are_its_own() {
        let cli = parsed("session-sidecar exec --json -- node bot.js --json --root x").unwrap();
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert!(cli.output.json);
        assert_eq!(exec.cmd, ["node", "bot.js", "--json", "--root", "x"]);
    }

    #[test]
    fn a_malformed_session_is_refused_with_the_rule() {
        let error = parsed("session-sidecar logout ../x").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("does not start with a dot"), "{error}");
    }
}
