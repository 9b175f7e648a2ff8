//! The configuration: flags and variables, checked once, without options left.

mod api;
mod encryption;
mod observe;
mod remote;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::defaults;
use crate::cli::options::{BotArgs, HoldArgs, PlaceArgs, StartArgs, WatchArgs};
use crate::cli::values::{LeaseKind, Listen, OnUnreachable, Select, Switch, globs};
use crate::error::{Code, Error, Result};
use crate::history::Keys;
use crate::session::{Layout, SessionKey, check_id};
use crate::sync::start::Side;
use crate::tree::Filter;
use crate::tree::staging::Owner;
pub use api::{ApiSettings, AuthSettings, Project, UserTokens, listen};
pub use observe::{Observe, SessionLabels, WebhookConfig};
pub use remote::{Env, KeySource, RemoteConfig, Secret, database, environment, secret, secret_file};

/// What a process that holds a root works by.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the sessions lie on disk.
    pub place: Place,
    /// Where the history lies.
    pub remote: RemoteConfig,
    /// How long things may take.
    pub timing: Timing,
    /// What a start may do.
    pub start: StartPolicy,
    /// What belongs to a tree.
    pub tree: TreeConfig,
    /// How processes take turns.
    pub lease: LeaseConfig,
    /// Whether there is a mirror.
    pub mirror: bool,
    /// The table of sessions; none: there is none to keep.
    pub metadata: Option<String>,
    /// How long one point a day is kept.
    pub history_keep: Duration,
    /// How long pins are kept.
    pub pin_keep: Duration,
    /// The deployment's own word, recorded in every commit.
    pub label: Option<String>,
    /// Where the probes are answered.
    pub probe: Option<Probe>,
}

/// How processes take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Who decides which process may commit.
    pub kind: LeaseKind,
    /// How long a lease lasts if it is not renewed.
    pub ttl: Duration,
    /// How long a start waits for a session that another process holds.
    pub wait: Duration,
    /// Whether a start asks the holder to give way.
    pub ask: bool,
    /// A wish counts once a session was held for this long.
    pub min_hold: Duration,
    /// Whether a bot of ours is stopped when the lease runs out.
    pub strict: bool,
    /// How a bot that is not ours is stopped.
    pub on_handover: Option<String>,
}

/// Where the probes are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The address.
    pub listen: SocketAddr,
    /// Nobody asked for this address: a machine without IPv6 may take the same port of IPv4.
    pub by_default: bool,
}

/// Whether a command answers probes when nobody says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probes {
    /// At `[::]:3081`: for what runs as a container of its own.
    ByDefault,
    /// Only where `--probe-listen` says so.
    OnRequest,
}

const PROBE_PORT: u16 = 3081;

/// The groups of flags that a command may have; those that it has not keep their defaults.
#[derive(Debug, Clone)]
pub struct Flags {
    /// What a start may do.
    pub start: StartArgs,
    /// How changes are committed.
    pub watch: WatchArgs,
    /// How history is kept.
    pub hold: HoldArgs,
    /// How a bot of our own is treated.
    pub bot: BotArgs,
}

impl Default for Flags {
    fn default() -> Self {
        Self { start: defaults(), watch: defaults(), hold: defaults(), bot: defaults() }
    }
}

/// Where the sessions lie on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory that is watched.
    pub root: PathBuf,
    /// How sessions lie below it.
    pub layout: Layout,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Without changes for this long, what is dirty is committed.
    pub quiet_window: Duration,
    /// The cap for trees that never fall quiet.
    pub max_wait: Duration,
    /// Between two full comparisons of disk and head.
    pub reconcile_interval: Duration,
    /// How long a start waits for storage that does not answer.
    pub outage_wait: Duration,
    /// From the signal to the exit.
    pub grace: Duration,
    /// How long the bot gets to stop: at most half of `grace`.
    pub stop_timeout: Duration,
}

/// What a start may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPolicy {
    /// Which sessions are restored below a root of many.
    pub select: Select,
    /// Which side counts in a conflict; none: exit 3.
    pub on_conflict: Option<Side>,
    /// Whether an outage lets a start use the tree it finds.
    pub use_local: bool,
    /// Whether a new session is refused.
    pub require_existing: bool,
}

/// What belongs to a tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The globs and the preset; one that was not given is found by looking.
    pub filter: Filter,
    /// Who owns restored files; none: the owner of the root (when root) or ours.
    pub owner: Option<Owner>,
    /// Whether more than half of a tree may vanish at once.
    pub allow_mass_delete: bool,
}

impl Config {
    /// Checks everything that can be checked without I/O.
    pub fn new(
        place: Place,
        remote: RemoteConfig,
        Flags { start, watch, hold, bot }: &Flags,
        probes: Probes,
    ) -> Result<Self> {
        let start = start_policy(start, &place.layout)?;
        remote.keys.check_for_writing()?;
        Ok(Self {
            timing: timing(watch, hold, bot)?,
            tree: tree(hold)?,
            lease: lease(watch, hold, bot)?,
            mirror: mirror(hold.mirror, &remote.keys)?,
            metadata: hold.metadata.table().map(str::to_owned),
            history_keep: within("--history-keep", hold.history_keep, HOUR, 10 * YEAR)?,
            pin_keep: within("--pin-keep", hold.pin_keep, HOUR, 10 * YEAR)?,
            label: hold.label.as_deref().map(label).transpose()?,
            probe: probe(watch.probe_listen, probes),
            place,
            remote,
            start,
        })
    }
}

impl Place {
    /// The root and its layout.
    pub fn new(args: &PlaceArgs) -> Result<Self> {
        let layout = match (&args.session, &args.user) {
            (Some(_), Some(_)) => {
                return Err(usage(
                    "--session (SIDECAR_SESSION) and --user (SIDECAR_USER) exclude each other: \
                     the root is one session, or it holds those of one user",
                ));
            }
            (Some(key), None) => Layout::Single(key.clone()),
            (None, Some(user)) => {
                check_id("user", user)?;
                Layout::User(user.clone())
            }
            (None, None) => Layout::Many,
        };
        if args.root.as_os_str().is_empty() {
            return Err(usage("--root is empty: give the directory that holds the sessions"));
        }
        Ok(Self { root: args.root.clone(), layout })
    }

    /// The session that a command names, or the only one that the root can have; none: all of the root.
    pub fn target(&self, named: Option<&SessionKey>) -> Result<Option<SessionKey>> {
        match (named, &self.layout) {
            (Some(key), layout) if !layout.covers(key) => Err(usage(format!(
                "session {key} cannot lie below {}: --session or --user say otherwise",
                self.root.display()
            ))),
            (Some(key), _) | (None, Layout::Single(key)) => Ok(Some(key.clone())),
            (None, _) => Ok(None),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(366 * 24);

fn timing(watch: &WatchArgs, hold: &HoldArgs, bot: &BotArgs) -> Result<Timing> {
    let quiet_window = within("--quiet-window", watch.quiet_window, Duration::from_millis(10), 60 * SECOND)?;
    let max_wait = within("--max-wait", watch.max_wait, Duration::from_millis(10), HOUR)?;
    if quiet_window > max_wait {
        return Err(usage(format!(
            "--quiet-window {} is longer than --max-wait {}: a change would never wait that long",
            humantime::format_duration(quiet_window),
            humantime::format_duration(max_wait)
        )));
    }
    let grace = within("--grace", watch.grace, SECOND, HOUR)?;
    Ok(Timing {
        quiet_window,
        max_wait,
        reconcile_interval: within("--reconcile-interval", watch.reconcile_interval, SECOND, DAY)?,
        outage_wait: within("--outage-wait", hold.outage_wait, Duration::ZERO, DAY)?,
        grace,
        stop_timeout: within("--stop-timeout", bot.stop_timeout, Duration::ZERO, HOUR)?.min(grace / 2),
    })
}

fn within(flag: &str, value: Duration, least: Duration, most: Duration) -> Result<Duration> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(usage(format!(
        "{flag} {} is out of range: give {} to {}",
        humantime::format_duration(value),
        humantime::format_duration(least),
        humantime::format_duration(most)
    )))
}

fn probe(asked: Option<Listen>, probes: Probes) -> Option<Probe> {
    match (asked, probes) {
        (Some(Listen::At(listen)), _) => Some(Probe { listen, by_default: false }),
        (None, Probes::ByDefault) => {
            Some(Probe { listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, PROBE_PORT)), by_default: true })
        }
        (Some(Listen::Off), _) | (None, Probes::OnRequest) => None,
    }
}

fn start_policy(args: &StartArgs, layout: &Layout) -> Result<StartPolicy> {
    if let Select::Only(keys) = &args.select
        && let Some(key) = keys.iter().find(|key| !layout.covers(key))
    {
        return Err(usage(format!(
            "--select names {key}, which --session or --user exclude: select among the sessions of the root"
        )));
    }
    Ok(StartPolicy {
        select: args.select.clone(),
        on_conflict: args.on_conflict,
        use_local: args.on_unreachable == Some(OnUnreachable::UseLocal),
        require_existing: args.require_existing,
    })
}

fn lease(watch: &WatchArgs, hold: &HoldArgs, bot: &BotArgs) -> Result<LeaseConfig> {
    if watch.on_handover.as_deref().is_some_and(|command| command.trim().is_empty()) {
        return Err(usage("--on-handover is empty: give a shell command that stops and starts the bot"));
    }
    Ok(LeaseConfig {
        kind: hold.lease,
        ttl: within("--lease-ttl", hold.lease_ttl, SECOND, HOUR)?,
        wait: within("--lease-wait", hold.lease_wait, Duration::ZERO, DAY)?,
        ask: true,
        min_hold: within("--min-hold", watch.min_hold, Duration::ZERO, DAY)?,
        strict: bot.lease_strict,
        on_handover: watch.on_handover.clone(),
    })
}

impl LeaseConfig {
    /// Of a tool: it neither waits nor asks.
    #[must_use]
    pub fn of_a_tool(self) -> Self {
        Self { wait: Duration::ZERO, ask: false, ..self }
    }
}

fn tree(args: &HoldArgs) -> Result<TreeConfig> {
    let split = |lists: &[String]| lists.iter().flat_map(|list| globs(list)).collect::<Vec<_>>();
    Ok(TreeConfig {
        filter: Filter::new(args.preset, &split(&args.include), &split(&args.exclude))?,
        owner: args.chown,
        allow_mass_delete: args.allow_mass_delete,
    })
}

/// The mirror is plaintext: beside an encrypted history it would make the encryption void.
fn mirror(asked: Option<Switch>, keys: &Keys) -> Result<bool> {
    match asked {
        Some(Switch::On) if keys.encrypts() => Err(usage(
            "--mirror on and --recipient exclude each other: the mirror is not encrypted; leave --mirror (SIDECAR_MIRROR) out",
        )),
        asked => Ok(asked.unwrap_or(Switch::On) == Switch::On && !keys.encrypts()),
    }
}

fn label(text: &str) -> Result<String> {
    let fits = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| {
        usage("--label is not one line of 1 to 128 bytes: give a word for the deployment, such as bot:1.4.2")
    })
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Code::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args<A: clap::Args>(line: &str) -> A {
        let group = A::augment_args(clap::Command::new("group").no_binary_name(true));
        A::from_arg_matches(&group.get_matches_from(line.split_whitespace())).unwrap()
    }

    fn place(line: &str) -> Result<Place> {
        Place::new(&args(line))
    }

    fn remote() -> RemoteConfig {
        let remote = args("--supabase-url http://127.0.0.1 --service-role-key k");
        RemoteConfig::new(&remote, &|_| None).unwrap()
    }

    fn config(watch: &str, hold: &str) -> Result<Config> {
        let remote = remote();
        let flags = Flags { watch: args(watch), hold: args(hold), ..Flags::default() };
        Config::new(place("").unwrap(), remote, &flags, Probes::ByDefault)
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let config = config("", "").unwrap();
        assert_eq!(config.place, Place { root: "./sessions".into(), layout: Layout::Many });
        assert_eq!(config.remote.bucket, "whatsapp-sessions");
        let timing = Timing {
            quiet_window: Duration::from_millis(500),
            max_wait: 5 * SECOND,
            reconcile_interval: 300 * SECOND,
            outage_wait: 240 * SECOND,
            grace: 25 * SECOND,
            stop_timeout: 10 * SECOND,
        };
        assert_eq!(config.timing, timing);
        assert_eq!((config.history_keep, config.pin_keep), (7 * DAY, 30 * DAY));
        assert!(config.mirror && !config.start.require_existing && !config.start.use_local);
        assert_eq!(config.start.select, Select::All);
    }

    #[test]
    fn a_root_is_of_many_of_one_user_or_one_session() {
        assert_eq!(place("--user u").unwrap().layout, Layout::User("u".to_owned()));
        let key: SessionKey = "u/s".parse().unwrap();
        let one = place("--session u/s").unwrap();
        assert_eq!(one.layout, Layout::Single(key.clone()));
        assert_eq!(one.target(None).unwrap(), Some(key));
        assert_eq!(one.target(Some(&"u/t".parse().unwrap())).unwrap_err().code(), Code::Usage);
        assert_eq!(place("--session u/s --user u").unwrap_err().code(), Code::Usage);
        assert_eq!(place("--user ..").unwrap_err().code(), Code::BadSessionId);
    }

    #[test]
    fn durations_out_of_bounds_are_refused_with_the_bounds() {
        for watch in [
            "--quiet-window 6s",
            "--quiet-window 1ms",
            "--grace 0s",
            "--reconcile-interval 1ms",
            "--max-wait 2h",
        ] {
            let error = config(watch, "").unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().contains(&watch[..watch.find(' ').unwrap()]), "{error}");
        }
        assert!(config("", "--history-keep 1s").unwrap_err().to_string().contains("give 1h to"));
    }

    #[test]
    fn the_bot_gets_at_most_half_of_the_grace() {
        let timing = config("--grace 8s", "").unwrap().timing;
        assert_eq!(timing.stop_timeout, 4 * SECOND);
    }

    #[test]
    fn probes_are_answered_by_default_only_where_a_command_says_so() {
        let listen = Listen::At("127.0.0.1:1".parse().unwrap());
        let default = Probe { listen: "[::]:3081".parse().unwrap(), by_default: true };
        assert_eq!(probe(None, Probes::ByDefault), Some(default));
        assert_eq!(probe(None, Probes::OnRequest), None);
        assert_eq!(probe(Some(Listen::Off), Probes::ByDefault), None);
        let asked = Probe { listen: "127.0.0.1:1".parse().unwrap(), by_default: false };
        assert_eq!(probe(Some(listen), Probes::OnRequest), Some(asked));
    }

    #[test]
    fn a_selection_outside_the_root_is_refused() {
        let remote = remote();
        let place = place("--user u").unwrap();
        let flags = Flags { start: args("--select v/1"), ..Flags::default() };
        let error = Config::new(place, remote, &flags, Probes::OnRequest).unwrap_err();
        assert_eq!(error.code(), Code::Usage);
    }

    #[test]
    fn a_label_is_one_short_line() {
        assert!(config("", "--label bot:1.4.2").is_ok());
        assert_eq!(label("two\nlines").unwrap_err().code(), Code::Usage);
        assert_eq!(label(&"x".repeat(129)).unwrap_err().code(), Code::Usage);
    }
}
