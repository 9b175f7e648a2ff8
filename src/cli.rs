//! The command line: subcommands here, the flags of each in `commands`, groups of them in [`options`], single values in
//! [`values`].
//!
//! Every flag has an environment variable; one that is set but empty counts as unset. What comes out is
//! checked and turned into a configuration by [`crate::config`].

// Comments on flags are what `--help` prints, where backticks are noise.
#![allow(clippy::doc_markdown)]

mod commands;
mod moving;
pub mod options;
pub mod values;

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use commands::*;
pub use moving::{Import, Migrate};
use values::LogFormat;

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
