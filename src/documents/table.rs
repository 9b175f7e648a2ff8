//! The table of configuration in the README, made from the command line.

// The table has every flag: those of all features.
#![cfg(all(feature = "dev", feature = "runner"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::{Arg, Command};

use super::{here, read};
use crate::cli;

const BEGIN: &str = "<!-- configuration -->\n";
const END: &str = "<!-- end of configuration -->";

/// The heading of flags that have none.
const ALONE: &str = "Of one command";

/// A flag of one or more commands.
struct Row {
    flag: String,
    variable: String,
    /// By what it is, the commands for which it is that.
    defaults: BTreeMap<String, BTreeSet<String>>,
    help: String,
    commands: BTreeSet<String>,
}

/// Flags under one heading.
struct Group {
    heading: String,
    rows: Vec<Row>,
}

fn is_shown(arg: &Arg) -> bool {
    arg.get_long().is_some() && !arg.is_hide_set()
}

/// What `--help` says, in one line that a table can hold.
fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn flag(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    if !arg.get_action().takes_values() {
        return format!("`--{long}`");
    }
    let words: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let names = arg.get_value_names().unwrap_or_default();
    let value = if words.is_empty() || arg.is_hide_possible_values_set() {
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    } else {
        words.join("|")
    };
    format!("`--{long} {}`", value.replace('|', "\\|"))
}

/// Its variable; of a secret, whose variables clap does not know, those that its help names.
fn variable(arg: &Arg) -> Option<String> {
    if let Some(name) = arg.get_env() {
        return Some(format!("`{}`", name.to_string_lossy()));
    }
    let help = help(arg);
    // What comes after the sentence about the file is about something else.
    let file = help.rfind("_FILE")?;
    let said = help[file..].find(". ").map_or(&*help, |end| &help[..file + end]);
    let other = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let words = said.split(other).filter(|word| word.contains('_') && !word.starts_with('_'));
    let mut names: Vec<&str> = words.filter(|word| !word.ends_with("_FILE")).collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| names.join(", ") + "; with `_FILE`: a path")
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    match values.collect::<Vec<_>>().join(" ") {
        _ if !arg.get_action().takes_values() => "off".to_owned(),
        text if text.is_empty() => "–".to_owned(),
        text => format!("`{text}`"),
    }
}

/// What can be configured: what a person asks for once has no variable.
fn groups(command: &Command) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let subs = command.get_subcommands().map(|sub| (sub.get_name(), sub)).chain([("", command)]);
    for (name, sub) in subs {
        for arg in sub.get_arguments().filter(|arg| is_shown(arg)) {
            let Some(variable) = variable(arg) else { continue };
            let long = format!("`--{}", arg.get_long().unwrap_or_default());
            let same = |row: &&mut Row| row.flag.trim_end_matches('`').split(' ').next() == Some(&long);
            let known = groups.iter_mut().flat_map(|group| &mut group.rows).find(same);
            if let Some(row) = known {
                row.commands.insert(name.to_owned());
                row.defaults.entry(default(arg)).or_default().insert(name.to_owned());
                continue;
            }
            let commands = BTreeSet::from([name.to_owned()]);
            let defaults = BTreeMap::from([(default(arg), commands.clone())]);
            let row = Row { flag: flag(arg), variable, defaults, help: help(arg), commands };
            let heading = arg.get_help_heading().unwrap_or(ALONE);
            match groups.iter_mut().find(|group| group.heading == heading) {
                Some(group) => group.rows.push(row),
                None => groups.push(Group { heading: heading.to_owned(), rows: vec![row] }),
            }
        }
    }
    // In the order of growing strangeness: what belongs to one command alone comes last.
    groups.sort_by_key(|group| group.heading == ALONE);
    groups
}

fn list<'a>(commands: impl IntoIterator<Item = &'a String>) -> String {
    commands.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The commands that most flags of a group belong to.
fn common(group: &Group) -> &BTreeSet<String> {
    let count = |set: &BTreeSet<String>| group.rows.iter().filter(|row| row.commands == *set).count();
    let sets = group.rows.iter().rev().map(|row| &row.commands);
    sets.max_by_key(|set| count(set)).expect("a group has a row")
}

fn said_of(group: &Group, all: &BTreeSet<String>) -> String {
    let common = common(group);
    if group.heading == ALONE {
        "the one in brackets".to_owned()
    } else if common.iter().all(String::is_empty) {
        "every command".to_owned()
    } else if common.len() * 2 > all.len() {
        format!("every command but {}", list(all.difference(common)))
    } else {
        list(common)
    }
}

/// How a flag's commands differ from those of its group.
fn exceptions(row: &Row, common: &BTreeSet<String>, alone: bool) -> String {
    if alone {
        return format!(" ({})", list(&row.commands));
    }
    let (more, less) = (list(row.commands.difference(common)), list(common.difference(&row.commands)));
    match (more.is_empty(), less.is_empty()) {
        (true, true) => String::new(),
        _ if row.commands.len() <= 3 => format!(" (only {})", list(&row.commands)),
        (false, true) => format!(" (also {more})"),
        (true, false) => format!(" (not {less})"),
        (false, false) => format!(" (also {more}; not {less})"),
    }
}

fn render(command: &Command) -> String {
    let all = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut text = "| flag | variable | default | |\n|---|---|---|---|\n".to_owned();
    for group in groups(command) {
        let (common, alone) = (common(&group), group.heading == ALONE);
        writeln!(text, "| **{}** | | | {} |", group.heading, said_of(&group, &all)).unwrap();
        for row in &group.rows {
            let usual = row.defaults.iter().max_by_key(|(_, commands)| commands.len());
            let (usual, _) = usual.expect("it has a default");
            write!(text, "| {} | {} | {usual}", row.flag, row.variable).unwrap();
            for (default, commands) in row.defaults.iter().filter(|(default, _)| *default != usual) {
                write!(text, "; {}: {default}", list(commands)).unwrap();
            }
            writeln!(text, " | {}{} |", row.help, exceptions(row, common, alone)).unwrap();
        }
    }
    text
}

#[test]
fn the_table_in_the_readme_is_what_the_flags_say() {
    let readme = read("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the mark where the table begins");
    let (table, after) = rest.split_once(END).expect("README.md has the mark where the table ends");
    let rendered = render(&cli::command());
    if table == rendered {
        return;
    }
    if std::env::var_os("SIDECAR_TEST_BLESS").is_some() {
        std::fs::write(here().join("README.md"), format!("{before}{BEGIN}{rendered}{END}{after}")).unwrap();
        return;
    }
    let line = rendered.lines().zip(table.lines().chain(std::iter::repeat(""))).find(|(new, old)| new != old);
    panic!(
        "the table of configuration in README.md is not what the flags say; `SIDECAR_TEST_BLESS=1 cargo test --lib \
         the_table_in_the_readme` writes it anew. First difference: {line:?}"
    );
}

#[test]
fn a_flag_is_a_row_with_its_variable_its_default_and_the_commands_it_is_not_for() {
    let table = render(&cli::command());
    for row in [
        "| `--root DIR` | `SIDECAR_ROOT` | `./sessions` |",
        "| `--select WHICH` | `SIDECAR_SELECT` | `all`; `dev`, `serve`: `active` |",
        "`SUPABASE_SERVICE_KEY`; with `_FILE`: a path | – |",
        "| `--lease postgres\\|storage` | `SIDECAR_LEASE` | `postgres` |",
        "| `--metadata TABLE\\|off` | `SIDECAR_METADATA` | `whatsapp_sessions` |",
        "| `--json` | `SIDECAR_JSON` | off |",
    ] {
        assert!(table.contains(row), "no {row} in\n{table}");
    }
    assert!(!table.contains("--purge"), "what is asked for once is no configuration");
    assert!(table.contains("(only `init`)"));
}
