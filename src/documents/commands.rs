//! Every command line in a document is one.

// All commands are there with all features alone.
#![cfg(all(feature = "dev", feature = "runner"))]

use std::ffi::OsString;

use super::documents;
use crate::cli;

/// Words as a shell splits them, as far as documents go.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Arguments of our program in a line of a shell, from the program's name on.
fn in_shell(line: &str) -> Vec<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split_once(" #").map_or(line, |(line, _)| line);
    let calls = line.split(['|', ';', '(', ')']).flat_map(|part| part.split("&&"));
    let ours = calls.filter_map(|call| {
        let mut words = words(call);
        let is_setting = |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.contains('-'));
        let settings = words.iter().take_while(|word| is_setting(word)).count();
        words.drain(..settings);
        let end = words.iter().position(|word| word.starts_with(['>', '<']) || word.starts_with("2>"));
        words.truncate(end.unwrap_or(words.len()));
        words.first().is_some_and(|word| word == "session-sidecar").then_some(words)
    });
    ours.collect()
}

/// Arguments in a manifest (`args: […]`) or a Dockerfile (`ENTRYPOINT […]`).
fn in_list(line: &str) -> Option<Vec<String>> {
    let (before, list) = line.split_once('[')?;
    let (list, _) = list.split_once(']')?;
    let mut words: Vec<String> =
        list.split(',').map(|word| word.trim().trim_matches(['"', '\'']).to_owned()).collect();
    if before.trim() == "args:" {
        words.insert(0, "session-sidecar".to_owned());
    }
    let ours = words.first().is_some_and(|word| word == "session-sidecar" || word == "/session-sidecar");
    // The bot is what the image's CMD says.
    if words.last().is_some_and(|word| word == "--") {
        words.push("bot".to_owned());
    }
    ours.then_some(words)
}

/// All of a document's blocks of code.
fn calls(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let (mut inside, mut counts) = (false, false);
    let lines = joined.lines().filter(|line| {
        let Some(language) = line.trim_start().strip_prefix("```") else { return counts };
        inside = !inside;
        // A block without a language is a drawing, or what is printed.
        counts = inside && !language.trim().is_empty();
        false
    });
    lines.flat_map(|line| in_shell(line).into_iter().chain(in_list(line))).collect()
}

#[test]
fn every_command_line_in_a_document_is_one() {
    let mut seen = 0;
    for (path, text) in documents() {
        for call in calls(&text) {
            seen += 1;
            let parsed = cli::parse(call.iter().map(OsString::from));
            if let Err(error) = parsed.map_err(|error| (error.exit_code(), error))
                && error.0 != 0
            {
                panic!("{}: `{}`: {}", path.display(), call.join(" "), error.1);
            }
        }
    }
    assert!(seen > 30, "only {seen} command lines were found");
}

#[test]
fn command_lines_are_found_as_people_write_them() {
    let text = "session-sidecar out of code\n```sh\n$ A=1 B='x y' session-sidecar restore --at \"2026 x\" # why\nzstd -dc x | session-sidecar verify u/s \\\n  --json >out && session-sidecar init\n```\n```yaml\n  args: [run, --root, /sessions]\n```\n```dockerfile\nENTRYPOINT [\"session-sidecar\", \"exec\", \"--\"]\nCMD [\"node\"]\n```\n";
    let found: Vec<String> = calls(text).iter().map(|call| call.join(" ")).collect();
    let wanted = [
        "session-sidecar restore --at 2026 x",
        "session-sidecar verify u/s --json",
        "session-sidecar init",
        "session-sidecar run --root /sessions",
        "session-sidecar exec -- bot",
    ];
    assert_eq!(found, wanted);
}
