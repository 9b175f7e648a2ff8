//! Single values of the command line: their words and how they are read.

use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::error::{Code, Error};
use crate::session::SessionKey;
use crate::sync::start::Side;
use crate::tree::Preset;

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A switch that is said in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Whether metrics name sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum SessionLabels {
    /// On the listener of the probes, as long as there are few.
    #[default]
    Auto,
    /// On the API's listener, too.
    On,
    /// Never.
    Off,
}

/// Who decides which process may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LeaseKind {
    /// The project's database: a start waits for the holder, or asks it to hand over (needs the SQL: see `schema`).
    #[default]
    Postgres,
    /// The bucket alone: whoever starts takes the session over at once, the one before stops.
    Storage,
}

impl ValueEnum for Side {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Local, Self::Remote]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Local => PossibleValue::new("local").help("What is on disk; what history has is pinned"),
            Self::Remote => {
                PossibleValue::new("remote").help("What history has; what is on disk is set aside")
            }
        })
    }
}

/// Reads the name of a preset; `--help` lists them.
#[must_use]
pub fn preset() -> impl TypedValueParser<Value = Preset> {
    let value = |preset: Preset| PossibleValue::new(preset.as_str()).aliases(preset.alias());
    PossibleValuesParser::new(Preset::ALL.map(value)).try_map(|name| name.parse::<Preset>())
}

/// What a start does when Supabase does not answer for `--outage-wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnUnreachable {
    /// Start from a tree that was restored or committed here before and is paired; it is not owned yet.
    UseLocal,
}

/// Whom the API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthKind {
    /// Only whoever shows API_TOKEN.
    Token,
    /// Only users of the Supabase project, with their own tokens and for their own sessions.
    User,
    /// Everybody: something in front of the API decides.
    None,
}

/// Which sessions a start restores below a root of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All that have history (or a mirror).
    All,
    /// The same, but for those that the table of sessions calls inactive.
    Active,
    /// Only those that lie on disk.
    None,
    /// These.
    Only(Vec<SessionKey>),
}

impl FromStr for Select {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim() {
            "all" => Ok(Self::All),
            "active" => Ok(Self::Active),
            "none" => Ok(Self::None),
            list => {
                let mut keys =
                    list.split(',').map(|key| key.trim().parse()).collect::<Result<Vec<_>, _>>()?;
                keys.sort();
                keys.dedup();
                Ok(Self::Only(keys))
            }
        }
    }
}

/// The table of sessions, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// No table is kept.
    Off,
    /// This one, in schema `public`.
    Table(String),
}

impl Metadata {
    /// Its name, where there is one.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::Table(table) => Some(table),
        }
    }
}

impl FromStr for Metadata {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // What needs no quotes in SQL and no escapes in a URL; Postgres cuts longer names.
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        match text {
            "off" => Ok(Self::Off),
            _ if first && text.len() < 64 && text.bytes().all(word) => Ok(Self::Table(text.to_owned())),
            _ => Err(Error::new(
                Code::Usage,
                "not a table of schema public: give its name (letters, digits, `_`), or off",
            )),
        }
    }
}

/// What `probe` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbePath {
    /// Whether the process works.
    Healthz,
    /// Whether the sessions are restored and owned.
    Readyz,
    /// Whether no other process took a session.
    Leasez,
}

/// Where a listener listens, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// No listener.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if text == "off" {
            Ok(Self::Off)
        } else if let Ok(port) = port.parse() {
            Ok(Self::At(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
        } else {
            text.parse().map(Self::At).map_err(|_| {
                Error::new(
                    Code::Usage,
                    "not an address: give ADDR:PORT ([::]:3081, 127.0.0.1:3081), a port, or off",
                )
            })
        }
    }
}

/// Reads a duration with its unit: `500ms`, `5m`, `7d`.
pub fn duration(text: &str) -> Result<Duration, Error> {
    humantime::parse_duration(text).map_err(|error| {
        Error::new(Code::Usage, format!("{error}: give a number and a unit (500ms, 5m, 7d)"))
    })
}

/// Splits a list of globs at commas; those inside `{…}` and `[…]` belong to a glob.
#[must_use]
pub fn globs(text: &str) -> Vec<String> {
    let (mut globs, mut current, mut depth) = (Vec::new(), String::new(), 0_usize);
    for c in text.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                globs.push(std::mem::take(&mut current));
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    globs.push(current);
    globs.iter().map(|glob| glob.trim().to_owned()).filter(|glob| !glob.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_a_word_or_a_list_of_sessions() {
        assert_eq!("all".parse::<Select>().unwrap(), Select::All);
        assert_eq!("none".parse::<Select>().unwrap(), Select::None);
        let Ok(Select::Only(keys)) = "b/1, a/1,b/1".parse() else { panic!("a list") };
        assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a/1", "b/1"]);
        assert_eq!("a/1,../b".parse::<Select>().unwrap_err().code(), Code::BadSessionId);
        assert_eq!("active".parse::<Select>().unwrap(), Select::Active);
        assert_eq!("actives".parse::<Select>().unwrap_err().code(), Code::BadSessionId);
    }

    #[test]
    fn a_table_is_a_plain_name_or_off() {
        assert_eq!("off".parse::<Metadata>().unwrap(), Metadata::Off);
        let table = Metadata::Table("whatsapp_sessions".to_owned());
        assert_eq!("whatsapp_sessions".parse::<Metadata>().unwrap(), table);
        for bad in ["", "a b", "a?select=*", "public.t", "1st", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Metadata>().unwrap_err().code(), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn a_listener_is_an_address_a_port_or_off() {
        assert_eq!("off".parse::<Listen>().unwrap(), Listen::Off);
        for all in ["3081", ":3081", "[::]:3081"] {
            assert_eq!(all.parse::<Listen>().unwrap(), Listen::At("[::]:3081".parse().unwrap()), "{all}");
        }
        assert_eq!("127.0.0.1:1".parse::<Listen>().unwrap(), Listen::At("127.0.0.1:1".parse().unwrap()));
        assert!("localhost".parse::<Listen>().is_err());
        assert!("70000".parse::<Listen>().is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("7d").unwrap(), Duration::from_hours(168));
        assert!(duration("500").unwrap_err().to_string().contains("500ms"));
    }

    #[test]
    fn commas_inside_braces_belong_to_the_glob() {
        assert_eq!(globs("*.{log,tmp}, cache/**,[a,b],"), ["*.{log,tmp}", "cache/**", "[a,b]"]);
    }
}
