//! Groups of flags, flattened into the commands that need them.

// Comments on flags are what `--help` prints, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{
    AuthKind, LeaseKind, Listen, Metadata, OnUnreachable, Select, SessionLabels, Switch, duration, preset,
};
use crate::config::Secret;
use crate::session::SessionKey;
use crate::sync::start::Side;
use crate::tree::Preset;
use crate::tree::staging::Owner;

/// Where the sessions lie on disk.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sessions")]
pub struct PlaceArgs {
    /// The directory that is watched: {root}/{user}/{session}/…
    #[arg(long, value_name = "DIR", env = "SIDECAR_ROOT", default_value = "./sessions")]
    pub root: PathBuf,
    /// The root itself is this one session
    #[arg(long, value_name = "USER/ID", env = "SIDECAR_SESSION")]
    pub session: Option<SessionKey>,
    /// The root holds sessions of this user: {root}/{session}/…
    #[arg(long, value_name = "ID", env = "SIDECAR_USER")]
    pub user: Option<String>,
}

/// Where the history lies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Supabase")]
pub struct RemoteArgs {
    /// The project's URL: <https://abcdefgh.supabase.co>, or that of your own Supabase
    #[arg(long, value_name = "URL", env = "SUPABASE_URL")]
    pub supabase_url: Option<String>,
    /// The project's secret (service_role) key; better as the variable SUPABASE_SERVICE_ROLE_KEY than as
    /// a flag. Also read from SUPABASE_SECRET_KEY or SUPABASE_SERVICE_KEY, and from the file that one of the
    /// three names with _FILE appended
    // The variable is read by `config`, which also knows the aliases: a value from clap came from the flag.
    #[arg(long, value_name = "KEY", value_parser = Secret::from_flag)]
    pub service_role_key: Option<Secret>,
    /// A token of `session-sidecar token` in place of the secret key: it opens this one bucket, or one user's or one
    /// session's part of it. Better as the variable SUPABASE_SIDECAR_TOKEN than as a flag; also read from the file that
    /// SUPABASE_SIDECAR_TOKEN_FILE names. SUPABASE_ANON_KEY is sent along where a gateway wants to see it (hosted
    /// projects)
    #[arg(long, value_name = "TOKEN", value_parser = Secret::from_flag, conflicts_with = "service_role_key")]
    pub sidecar_token: Option<Secret>,
    /// The bucket
    #[arg(long, value_name = "NAME", env = "SUPABASE_BUCKET", default_value = "whatsapp-sessions")]
    pub bucket: String,
    /// More certificates to trust, as PEM: for a Supabase behind a private authority
    #[arg(long, value_name = "FILE", env = "SIDECAR_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// What the history is encrypted for.
    #[command(flatten)]
    pub encryption: EncryptionArgs,
}

/// What the history is encrypted for, and what opens it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Encryption")]
pub struct EncryptionArgs {
    /// Encrypt the history with age for this recipient: age1…, as age-keygen prints it (repeatable, or separated by commas or
    /// spaces). Needs an identity as well. What was not encrypted gets encrypted or removed, and the mirror goes
    #[arg(long, value_name = "age1…", env = "SIDECAR_RECIPIENT")]
    pub recipient: Vec<String>,
    /// The file with the identities (AGE-SECRET-KEY-1…, one a line, as age-keygen writes it) that open the history. Or the
    /// variable SIDECAR_IDENTITY holds them itself
    #[arg(long, value_name = "FILE", env = "SIDECAR_IDENTITY_FILE")]
    pub identity_file: Option<PathBuf>,
    /// Believe commits that are not encrypted where encryption is on. Somebody who can write into the bucket may have put
    /// them there
    #[arg(long, env = "SIDECAR_ACCEPT_PLAINTEXT", value_parser = BoolishValueParser::new())]
    pub accept_plaintext: bool,
}

/// What a start may do.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Start")]
#[allow(clippy::struct_excessive_bools)]
pub struct StartArgs {
    /// Which sessions to restore below a root of many, besides those that lie there: all, active (all but those whose
    /// is_active is false in the table; without a table all), none, or a list USER/ID,…
    #[arg(long, value_name = "WHICH", env = "SIDECAR_SELECT", default_value = "all")]
    pub select: Select,
    /// Which side counts where local tree and history differ; the loser is kept. Without it: exit 3
    #[arg(long, value_enum, value_name = "SIDE", env = "SIDECAR_ON_CONFLICT")]
    pub on_conflict: Option<Side>,
    /// What to do when Supabase does not answer for --outage-wait. Without it: exit 4
    #[arg(long, value_enum, value_name = "WHAT", env = "SIDECAR_ON_UNREACHABLE")]
    pub on_unreachable: Option<OnUnreachable>,
    /// Refuse to begin a new session (exit 3): for deployments where one must be there
    #[arg(long, env = "SIDECAR_REQUIRE_EXISTING", value_parser = BoolishValueParser::new())]
    pub require_existing: bool,
}

/// How changes are noticed and committed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watch")]
pub struct WatchArgs {
    /// Commit after this long without changes
    #[arg(long, value_name = "TIME", env = "SIDECAR_QUIET_WINDOW", default_value = "500ms", value_parser = duration)]
    pub quiet_window: Duration,
    /// Commit after this long although changes go on
    #[arg(long, value_name = "TIME", env = "SIDECAR_MAX_WAIT", default_value = "5s", value_parser = duration)]
    pub max_wait: Duration,
    /// Compare disk and history in full this often
    #[arg(long, value_name = "TIME", env = "SIDECAR_RECONCILE_INTERVAL", default_value = "5m", value_parser = duration)]
    pub reconcile_interval: Duration,
    /// From the signal to the exit: stay below the platform's own limit (Kubernetes: 30 s)
    #[arg(long, value_name = "TIME", env = "SIDECAR_GRACE", default_value = "25s", value_parser = duration)]
    pub grace: Duration,
    /// Give a session to another process that asks for it only after holding it for this long; doubled, up to 30
    /// minutes, whenever it comes back within 5 minutes
    #[arg(long, value_name = "TIME", env = "SIDECAR_MIN_HOLD", default_value = "60s", value_parser = duration)]
    pub min_hold: Duration,
    /// For `run` and `watch`: a shell command that stops the bot (SIDECAR_HANDOVER=stop) when another process asks
    /// for its session, and starts it (SIDECAR_HANDOVER=start) when the session came back. Without it `run` and
    /// `watch` never give way
    #[arg(long, value_name = "COMMAND", env = "SIDECAR_ON_HANDOVER")]
    pub on_handover: Option<String>,
    /// Where /healthz, /readyz, /leasez and /metrics listen: ADDR:PORT, a port, or off
    /// (default: port 3081 of every address for `run` and `watch`, else off)
    #[arg(long, value_name = "ADDR|off", env = "SIDECAR_PROBE_LISTEN")]
    pub probe_listen: Option<Listen>,
}

/// What every process that holds a root needs to know.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "History")]
pub struct HoldArgs {
    /// Who decides which process may commit
    #[arg(long, value_enum, value_name = "KIND", env = "SIDECAR_LEASE", default_value_t = LeaseKind::Postgres)]
    pub lease: LeaseKind,
    /// How long a lease lasts when its holder dies; renewed every third of it
    #[arg(long, value_name = "TIME", env = "SIDECAR_LEASE_TTL", default_value = "30s", value_parser = duration)]
    pub lease_ttl: Duration,
    /// How long a start waits for a session that another process holds (exit 7 after it)
    #[arg(long, value_name = "TIME", env = "SIDECAR_LEASE_WAIT", default_value = "4m", value_parser = duration)]
    pub lease_wait: Duration,
    /// How long to wait for a Supabase that does not answer
    #[arg(long, value_name = "TIME", env = "SIDECAR_OUTAGE_WAIT", default_value = "4m", value_parser = duration)]
    pub outage_wait: Duration,
    /// Keep one plain object per file beside the history [default: on; off with --recipient]
    #[arg(long, value_enum, value_name = "on|off", env = "SIDECAR_MIRROR")]
    #[arg(hide_possible_values = true)]
    pub mirror: Option<Switch>,
    /// The table that shows people and apps where each session stands, below session_data.sidecar
    #[arg(long, value_name = "TABLE|off", env = "SIDECAR_METADATA", default_value = "whatsapp_sessions")]
    pub metadata: Metadata,
    /// Keep one point a day for this long
    #[arg(long, value_name = "TIME", env = "SIDECAR_HISTORY_KEEP", default_value = "7d", value_parser = duration)]
    pub history_keep: Duration,
    /// Keep what was pinned (before a logout, a rewind, another identity …) for this long
    #[arg(long, value_name = "TIME", env = "SIDECAR_PIN_KEEP", default_value = "30d", value_parser = duration)]
    pub pin_keep: Duration,
    /// A word for this deployment (bot:1.4.2), recorded in every commit; a start with a new one pins the head
    #[arg(long, value_name = "TEXT", env = "SIDECAR_LABEL")]
    pub label: Option<String>,
    /// The bot library, instead of looking at the tree
    #[arg(long, value_parser = preset(), value_name = "NAME", env = "SIDECAR_PRESET", help_heading = "Tree")]
    pub preset: Option<Preset>,
    /// Only files that match one of these globs (comma-separated, repeatable)
    #[arg(long, value_name = "GLOB", env = "SIDECAR_INCLUDE", help_heading = "Tree")]
    pub include: Vec<String>,
    /// No files that match one of these globs (comma-separated, repeatable)
    #[arg(long, value_name = "GLOB", env = "SIDECAR_EXCLUDE", help_heading = "Tree")]
    pub exclude: Vec<String>,
    /// Who owns restored files; else the owner of the root
    #[arg(long, value_name = "UID:GID", env = "SIDECAR_CHOWN", help_heading = "Tree")]
    pub chown: Option<Owner>,
    /// Commit also the removal of more than half of a tree at once
    #[arg(long, env = "SIDECAR_ALLOW_MASS_DELETE", value_parser = BoolishValueParser::new(), help_heading = "Tree")]
    pub allow_mass_delete: bool,
}

/// How a bot of our own is treated.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bot")]
pub struct BotArgs {
    /// How long the bot gets to stop before it is killed; at most half of --grace
    #[arg(long, value_name = "TIME", env = "SIDECAR_STOP_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub stop_timeout: Duration,
    /// Stop the bot also when the database is away for longer than --lease-ttl, until the lease is ours again
    #[arg(long, env = "SIDECAR_LEASE_STRICT", value_parser = BoolishValueParser::new())]
    pub lease_strict: bool,
    /// Leave SUPABASE_* in the bot's environment: without it the bot cannot see our secrets
    #[arg(long, env = "SIDECAR_PASS_SUPABASE_ENV", value_parser = BoolishValueParser::new())]
    pub pass_supabase_env: bool,
}

/// Where the API answers, and whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub struct ApiArgs {
    /// Where the API listens: ADDR:PORT, a port (of every address), or off. Where it is not given, `serve`, `runner` and
    /// `dev` take PORT, which platforms set
    #[arg(long, value_name = "ADDR|off", env = "SIDECAR_LISTEN")]
    pub listen: Option<Listen>,
    /// The token that opens all of the API, as `Authorization: Bearer` or `X-Api-Key`; better as the variable API_TOKEN
    /// than as a flag. Also read from the file that API_TOKEN_FILE names
    // Read by `config`, as the key is.
    #[arg(long, value_name = "TOKEN", value_parser = Secret::from_flag)]
    pub api_token: Option<Secret>,
    /// Whom the API answers; by default whoever shows a credential that is configured: API_TOKEN, or the token of a user
    /// of the project (SUPABASE_ANON_KEY or SUPABASE_JWT_SECRET is set)
    #[arg(long, value_enum, value_name = "WHOM", env = "SIDECAR_AUTH")]
    pub auth: Option<AuthKind>,
    /// How many sessions one user may have: a connect that would make one more is refused
    #[arg(long, value_name = "N", env = "SIDECAR_MAX_SESSIONS_PER_USER", default_value_t = 10)]
    pub max_sessions_per_user: u16,
}

/// What is shown and told of the sessions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metrics and webhooks")]
pub struct ObserveArgs {
    /// Whether /metrics names sessions (never phone numbers, and only while there are 10 or fewer): auto names them on the
    /// listener of the probes only, on also on the API's, which answers /metrics without a credential; or off
    #[arg(long, value_enum, value_name = "auto|on|off", env = "SIDECAR_METRICS_SESSIONS", default_value_t)]
    #[arg(hide_possible_values = true)]
    pub metrics_sessions: SessionLabels,
    /// Who is told what needs a person.
    #[command(flatten)]
    pub webhook: WebhookArgs,
}

/// Who is told what needs a person.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metrics and webhooks")]
pub struct WebhookArgs {
    /// Where to send the few events that need a person (held, taken, damaged, not stored, logged out …), as the variable
    /// SIDECAR_WEBHOOK_URL rather than as a flag where its path is a secret. Also read from the file that
    /// SIDECAR_WEBHOOK_URL_FILE names
    // Read by `config`, as the key is.
    #[arg(long, value_name = "URL", value_parser = Secret::from_flag)]
    pub webhook_url: Option<Secret>,
    /// The file with the secret that signs them: whsec_ and base64, as Standard Webhooks has it, or any text; two, apart
    /// by a space, while it is rotated. Also read from SIDECAR_WEBHOOK_SECRET itself
    #[arg(long, value_name = "FILE", env = "SIDECAR_WEBHOOK_SECRET_FILE")]
    pub webhook_secret_file: Option<PathBuf>,
}

/// How WhatsApp is connected to.
#[cfg(feature = "runner")]
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "WhatsApp")]
pub struct RunnerArgs {
    /// Where WhatsApp's socket is, instead of WhatsApp's own: for tests (ws:// on loopback only)
    #[arg(long, value_name = "URL", env = "WHATSAPP_URL")]
    pub whatsapp_url: Option<String>,
    /// The version of WhatsApp Web to claim, instead of asking WhatsApp for the current one: 2.3000.1234567890. One that is
    /// too old is refused (client_outdated)
    #[arg(long, value_name = "A.B.C", env = "WHATSAPP_VERSION", value_parser = whatsapp_version)]
    pub whatsapp_version: Option<(u32, u32, u32)>,
    /// The name by which phones list the linked device
    #[arg(long, value_name = "NAME", env = "SIDECAR_DEVICE_NAME", default_value = "session-sidecar")]
    pub device_name: String,
}

/// A project that is only asked who its users are.
#[cfg(feature = "runner")]
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub struct ProjectArgs {
    /// The project whose users may call with their own tokens (needs SUPABASE_ANON_KEY or SUPABASE_JWT_SECRET)
    #[arg(long, value_name = "URL", env = "SUPABASE_URL")]
    pub supabase_url: Option<String>,
    /// More certificates to trust, as PEM: for a Supabase behind a private authority
    #[arg(long, value_name = "FILE", env = "SIDECAR_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

#[cfg(feature = "runner")]
fn whatsapp_version(text: &str) -> Result<(u32, u32, u32), String> {
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([first, second, third]) => Ok((*first, *second, *third)),
        _ => Err("give three numbers, such as 2.3000.10".to_owned()),
    }
}
