//! The documents say what the code does: flags, variables, command lines, error codes, the format. Only for tests.

mod commands;
mod links;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Code;
use crate::history::Name;
use crate::tree::{Hash, Meta, Table};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(here().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory whose names end so.
fn below(directory: &str, ends: &str) -> Vec<PathBuf> {
    let (mut found, mut directories) = (Vec::new(), vec![here().join(directory)]);
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            match path.file_name().and_then(|name| name.to_str()) {
                Some("node_modules" | "target") => {}
                _ if path.is_dir() => directories.push(path),
                Some(name) if name.ends_with(ends) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// What people read, by its path.
fn documents() -> Vec<(PathBuf, String)> {
    let tops = ["README.md", "SECURITY.md"].map(|name| here().join(name));
    let rest = ["docs", "k8s", "examples", "deploy"].into_iter().flat_map(|folder| below(folder, ".md"));
    tops.into_iter().chain(rest).map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Words that are names of our variables.
fn variables(text: &str) -> BTreeSet<String> {
    let prefixes = ["SIDECAR_", "SUPABASE_", "WHATSAPP_", "API_TOKEN"];
    let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(other).filter(|word| !word.bytes().any(|b| b.is_ascii_lowercase()));
    let ours = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
    // `SUPABASE_*`, and what only tests read.
    let whole = ours.filter(|word| !word.ends_with('_') && !word.starts_with("SIDECAR_TEST_"));
    whole.map(str::to_owned).collect()
}

/// Those that the code reads by name; any secret's also with `_FILE`.
fn variables_of_the_code() -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    for path in below("src", ".rs") {
        let text = fs::read_to_string(path).unwrap();
        let literals = text.split('"').filter(|text| !text.is_empty() && text.len() < 50);
        read.extend(literals.flat_map(|text| variables(text).into_iter().filter(move |word| word == text)));
    }
    read
}

#[test]
fn every_variable_that_the_code_reads_is_in_the_readme() {
    let internal = ["SIDECAR_SIMULATION_SEED"];
    let readme = variables(&read("README.md"));
    let known = |name: &str| readme.contains(name) || readme.contains(name.trim_end_matches("_FILE"));
    for name in variables_of_the_code().iter().filter(|name| !internal.contains(&name.as_str())) {
        assert!(known(name), "README.md does not name {name}");
    }
}

#[test]
fn no_document_names_a_variable_that_the_code_does_not_read() {
    let code = variables_of_the_code();
    for (path, text) in documents() {
        for name in variables(&text) {
            let known = code.contains(&name) || code.contains(name.trim_end_matches("_FILE"));
            assert!(known, "{}: nothing reads {name}", path.display());
        }
    }
}

/// Rows of tables that begin with a code word: the word and the exit code.
fn codes(text: &str) -> BTreeSet<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let word = cells.next()?.strip_suffix('`')?;
        let exit = cells.next()?.trim();
        exit.parse::<u8>().is_ok().then(|| (word.to_owned(), exit.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn every_error_code_is_explained_and_none_that_is_not_there() {
    let all: BTreeSet<_> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), code.exit().to_string())).collect();
    for path in ["docs/troubleshooting.md", "docs/cli-json.md"] {
        assert_eq!(codes(&read(path)), all, "{path}: the table of codes");
    }
}

#[test]
fn every_alarm_that_is_explained_is_one_of_the_code() {
    let sources: Vec<String> =
        below("src", ".rs").into_iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = read("docs/operations.md");
    let (_, table) = page.split_once("| alarm begins |").expect("the table of alarms");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    let alarms: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(alarms.len() >= 10, "{alarms:?}");
    // What stands between is filled in.
    for part in
        alarms.iter().flat_map(|alarm| alarm.split('…')).map(str::trim).filter(|part| !part.is_empty())
    {
        assert!(sources.iter().any(|text| text.contains(part)), "no alarm says: {part}");
    }
}

#[test]
fn the_examples_of_the_format_are_true() {
    let page = read("docs/format.md");
    let begins_with_an_epoch =
        |line: &&str| line.len() > 8 && line.bytes().take(8).all(|b| b.is_ascii_digit());
    let names: Vec<&str> =
        page.lines().filter(begins_with_an_epoch).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert_eq!(Name::parse(name).map(|name| name.to_string()).as_deref(), Some(name));
    }

    let mut table = Table::default();
    for (path, mode, bytes) in [
        ("creds.json", 0o600, &b"{\"v\":1}"[..]),
        ("keys/a b.json", 0o600, b"{}"),
        ("keys/ä.json", 0o644, b"[]\n"),
    ] {
        let meta = Meta { size: bytes.len() as u64, mode, mtime_ns: 0, sha256: Hash::of(bytes) };
        let row = format!("| {} | `{}` |", meta.size, meta.sha256);
        assert!(page.contains(&row) && page.contains(&format!("| `{path}` | 0{mode:o} = {mode} |")), "{row}");
        table.files.insert(path.to_owned(), meta);
    }
    assert!(page.contains(&format!("`{}`", table.digest())), "{}", table.digest());
    let empty = Table::default().digest().to_string();
    assert!(page.contains(&format!("`{}…{}`", &empty[..8], &empty[56..])), "{empty}");
}
