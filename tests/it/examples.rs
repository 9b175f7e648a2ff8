//! What users copy: the example bot, Compose, the files of platforms, and the words of their documents.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use serde_yaml_ng::Value;
use session_sidecar::cli::options::{BotArgs, HoldArgs, WatchArgs};
use session_sidecar::cli::{Cli, Command, parse, values};

/// The image, as users write it.
const IMAGE: &str = concat!(
    "ghcr.io/session-sidecar/session-sidecar:",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR"),
    ".",
    env!("CARGO_PKG_VERSION_PATCH")
);

fn text(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A command line of ours, without the program's name.
fn parsed<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    let words = std::iter::once("session-sidecar").chain(words).map(OsString::from);
    parse(words).unwrap_or_else(|error| panic!("{error}")).command
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

fn seconds(value: &Value) -> Duration {
    values::duration(value.as_str().unwrap()).unwrap()
}

/// Flags and variables that some command has; besides, the variables that are read without a flag.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    let cli = Cli::command();
    let arguments: Vec<_> =
        std::iter::once(&cli).chain(cli.get_subcommands()).flat_map(clap::Command::get_arguments).collect();
    let flags = arguments.iter().filter_map(|argument| argument.get_long()).map(|name| format!("--{name}"));
    let variables = arguments.iter().filter_map(|argument| argument.get_env());
    let variables = variables.map(|name| name.to_str().unwrap().to_owned());
    let secrets = ["SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_JWT_SECRET"];
    let secrets = secrets.into_iter().flat_map(|name| [name.to_owned(), format!("{name}_FILE")]);
    (flags.collect(), variables.chain(secrets).collect())
}

/// The words of a text that begin so and go on with these characters.
fn words<'a>(text: &'a str, start: &str, rest: impl Fn(char) -> bool + Copy + 'a) -> BTreeSet<&'a str> {
    let found =
        text.match_indices(start).filter(|(at, _)| !text[..*at].ends_with(|c: char| rest(c) || c == '-'));
    found.map(|(at, _)| text[at..].split(|c| !rest(c)).next().unwrap()).collect()
}

#[test]
fn every_variable_and_flag_that_is_shown_exists() {
    let (flags, variables) = known();
    // Docker's, and what `migrate` alone has.
    let foreign = ["--build", "--from", "--read-only", "--rm", "--tmpfs", "--dry-run"];
    for file in [
        "docs/platforms.md",
        "examples/baileys-bot/README.md",
        "examples/baileys-bot/Dockerfile",
        "examples/baileys-bot/bot.js",
        "examples/compose/compose.yaml",
        "examples/compose/.env.example",
        "deploy/systemd/whatsapp-bot.service",
    ] {
        let text = text(file);
        for start in ["SIDECAR_", "SUPABASE_"] {
            for name in words(&text, start, |c| c.is_ascii_uppercase() || c == '_') {
                // Compose's own.
                assert!(variables.contains(name) || name == "SUPABASE_NETWORK", "{file}: {name}");
            }
        }
        if !file.ends_with("Dockerfile") && !file.ends_with(".service") {
            for flag in words(&text, "--", |c| c.is_ascii_lowercase() || c == '-') {
                let known =
                    flags.contains(flag) || foreign.contains(&flag) || flag.trim_matches('-').is_empty();
                assert!(known, "{file}: {flag}");
            }
        }
    }
}

#[test]
fn the_compose_file_starts_the_bot_after_the_restore_and_gives_both_the_time_they_need() {
    let mut compose: Value = serde_yaml_ng::from_str(&text("examples/compose/compose.yaml")).unwrap();
    compose.apply_merge().unwrap();
    let (sidecar, bot) = (&compose["services"]["sidecar"], &compose["services"]["bot"]);
    let WatchArgs { grace, .. } = {
        let Command::Run(run) = parsed(strings(&sidecar["command"])) else { panic!("{sidecar:?}") };
        let HoldArgs { lease_wait, outage_wait, .. } = run.hold;
        assert!(seconds(&sidecar["healthcheck"]["start_period"]) > lease_wait + outage_wait);
        run.watch
    };
    assert!(seconds(&sidecar["stop_grace_period"]) > grace);
    let BotArgs { stop_timeout, .. } = session_sidecar::cli::defaults();
    assert!(seconds(&bot["stop_grace_period"]) >= stop_timeout);
    assert_eq!(sidecar["image"], IMAGE);

    let check = strings(&sidecar["healthcheck"]["test"]);
    assert_eq!(check[..2], ["CMD", "/session-sidecar"], "the image has no shell");
    assert!(matches!(parsed(check[2..].iter().copied()), Command::Probe(_)));
    assert_eq!(bot["depends_on"]["sidecar"]["condition"], "service_healthy");
    assert_eq!(bot["depends_on"]["sidecar"]["restart"], true);

    // A new volume belongs to the user of the image that fills it.
    let image = text("Dockerfile");
    let user = image.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    for service in [sidecar, bot] {
        assert_eq!(service["user"], user, "{service:?}");
        assert_eq!(service["read_only"], true);
        assert_eq!(strings(&service["cap_drop"]), ["ALL"]);
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"]);
        assert_eq!(service["volumes"].as_sequence().unwrap().len(), 1);
        assert_eq!(service["volumes"][0]["source"], "sessions");
        assert_eq!(service["volumes"][0]["target"], "/sessions");
        assert_eq!(service["environment"]["SIDECAR_ROOT"], "/sessions");
    }
    assert!(sidecar["volumes"][0]["volume"].is_null());
    assert_eq!(bot["volumes"][0]["volume"]["nocopy"], true, "its image has /sessions, of another user");
    let secrets = bot["environment"].as_mapping().unwrap().keys().filter_map(Value::as_str);
    assert!(!secrets.into_iter().any(|name| name.starts_with("SUPABASE")), "the bot needs no key");
}

#[test]
fn platforms_get_a_grace_that_is_longer_than_ours() {
    let watch: WatchArgs = session_sidecar::cli::defaults();
    let hold: HoldArgs = session_sidecar::cli::defaults();
    let railway: serde_json::Value = serde_json::from_str(&text("deploy/railway/railway.json")).unwrap();
    let deploy = &railway["deploy"];
    // Numbers: Railway refuses a string, whatever its document shows.
    let number = |name: &str| Duration::from_secs(deploy[name].as_u64().unwrap());
    assert!(number("drainingSeconds") > watch.grace);
    assert!(number("healthcheckTimeout") > hold.lease_wait);
    assert!(text("deploy/railway/Dockerfile").contains(&format!("FROM {IMAGE}-full\n")));

    let unit = text("deploy/systemd/whatsapp-bot.service");
    let entry = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert!(Duration::from_secs(entry("TimeoutStopSec=").parse().unwrap()) > watch.grace);
    let words: Vec<_> = entry("ExecStart=").split(' ').skip(1).collect();
    let Command::Exec(exec) = parsed(words) else { panic!("{unit}") };
    assert_eq!(exec.cmd, ["/usr/bin/node", "bot.js"]);
}

#[test]
fn the_example_bot_is_what_the_readme_tells_to_write() {
    let (readme, docker) = (text("README.md"), text("examples/baileys-bot/Dockerfile"));
    let recipe = readme.split("### 1. Around your bot, in one container").nth(1).unwrap();
    let recipe = recipe.split("```dockerfile\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(recipe.contains(IMAGE), "{recipe}");
    for line in recipe.lines() {
        assert!(docker.lines().any(|here| here == line), "not in the example: {line}");
    }
    let list = |name: &str| {
        let line = docker.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        serde_json::from_str::<Vec<String>>(line).unwrap()
    };
    let whole = [list("ENTRYPOINT "), list("CMD ")].concat();
    let Command::Exec(exec) = parsed(whole[1..].iter().map(String::as_str)) else { panic!("{whole:?}") };
    assert_eq!(exec.cmd, ["node", "bot.js"]);
    // Pinned, and from nowhere in particular.
    let lock: serde_json::Value =
        serde_json::from_str(&text("examples/baileys-bot/package-lock.json")).unwrap();
    for (name, package) in lock["packages"].as_object().unwrap() {
        assert!(package["resolved"].is_null(), "{name}: {package}");
        assert!(name.is_empty() || package["integrity"].is_string(), "{name}");
    }
}
