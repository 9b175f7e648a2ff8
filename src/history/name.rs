//! The names of objects in history; they alone tell head, chain, claims and pins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest epoch and seq: eight digits. A ninth would break the order of names.
pub const MAX: u32 = 99_999_999;
const SUFFIX: &str = ".tar.zst";
const AGE: &str = ".age";
const TEMPORARY: &str = ".claim-";
/// Parts of one commit at most: the number has three digits.
pub const MAX_PARTS: u16 = 999;

/// The id of a commit: it sorts, as a value and as a name, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id {
    /// The grant under which it was written; at most [`MAX`].
    pub epoch: u32,
    /// Counts attempts within the epoch, from 1; at most [`MAX`].
    pub seq: u32,
    /// Random: an id that two processes made by mistake still names two commits.
    pub nonce: u32,
}

/// Not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a commit: it looks like 00000003-00000041-9f3c01ab")]
pub struct BadId;

impl Id {
    /// An id; none when epoch or seq have more than eight digits.
    #[must_use]
    pub fn new(epoch: u32, seq: u32, nonce: u32) -> Option<Self> {
        (epoch <= MAX && seq <= MAX).then_some(Self { epoch, seq, nonce })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{:08}-{:08x}", self.epoch, self.seq, self.nonce)
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (id, rest) = take_id(text).ok_or(BadId)?;
        if rest.is_empty() { Ok(id) } else { Err(BadId) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

/// One object in history, by its name below [`history_prefix`](crate::session::SessionKey::history_prefix).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// A commit, or a part of one.
    Commit(CommitName),
    /// A claimed epoch.
    Claim(u32),
    /// What is moved onto a claim's name; holds what follows `.claim-`, a UUID.
    Temporary(String),
    /// A pin on a commit.
    Pin {
        /// The commit that is kept.
        id: Id,
        /// Why: one word of `a-z 0-9 -`.
        reason: String,
    },
    /// When a commit came into being that was encrypted later: its objects are younger than it is.
    Time {
        /// The commit.
        id: Id,
        /// Seconds since 1970, by the server's clock.
        seconds: u32,
    },
}

/// What the name of a commit's object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitName {
    /// The commit.
    pub id: Id,
    /// The commit before it, always of a lower id; none only in a first base.
    pub parent: Option<Id>,
    /// Whether it has the whole tree.
    pub base: bool,
    /// Which part of the commit this is; none when it is whole.
    pub part: Option<Part>,
    /// Whether it is an `age` file.
    pub encrypted: bool,
}

/// A part of a commit that is larger than the bucket's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// From 1.
    pub number: u16,
    /// 2 to [`MAX_PARTS`].
    pub of: u16,
}

impl Name {
    /// Reads a name; none for what no version of the format writes. What is read prints as it was.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(token) = name.strip_prefix(TEMPORARY) {
            let fits = (1..=64).contains(&token.len());
            let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            return (fits && plain).then(|| Self::Temporary(token.to_owned()));
        }
        if let Some(epoch) = name.strip_suffix(".claim") {
            let (epoch, rest) = take_number(epoch, 8)?;
            return rest.is_empty().then_some(Self::Claim(epoch));
        }
        let (id, rest) = take_id(name)?;
        if let Some(reason) = rest.strip_prefix(".pin.") {
            return is_reason(reason).then(|| Self::Pin { id, reason: reason.to_owned() });
        }
        if let Some(seconds) = rest.strip_prefix(".at.") {
            let (seconds, rest) = take_number(seconds, 10)?;
            return rest.is_empty().then_some(Self::Time { id, seconds });
        }
        CommitName::parse(id, rest).map(Self::Commit)
    }

    /// The epoch that the name speaks of; a temporary has none.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        match self {
            Self::Commit(name) => Some(name.id.epoch),
            Self::Pin { id, .. } | Self::Time { id, .. } => Some(id.epoch),
            Self::Claim(epoch) => Some(*epoch),
            Self::Temporary(_) => None,
        }
    }
}

impl CommitName {
    fn parse(id: Id, rest: &str) -> Option<Self> {
        let (rest, encrypted) = strip(rest, AGE);
        let rest = rest.strip_suffix(SUFFIX)?;
        let (rest, part) = match rest.rsplit_once(".p") {
            Some((before, part)) => (before, Some(Part::parse(part)?)),
            None => (rest, None),
        };
        let (rest, base) = match rest.strip_prefix(".base") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let parent = match rest.strip_prefix(".from.") {
            Some(parent) => Some(parent.parse::<Id>().ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        // A parent that is not older would let a forged chain run in circles.
        let grounded = parent.map_or(base, |parent| parent < id);
        grounded.then_some(Self { id, parent, base, part, encrypted })
    }

    /// The same commit's name for another part.
    #[must_use]
    pub fn with_part(self, part: Option<Part>) -> Self {
        Self { part, ..self }
    }
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        let (number, rest) = take_number(text, 3)?;
        let (of, rest) = take_number(rest.strip_prefix("-of-")?, 3)?;
        let (number, of) = (u16::try_from(number).ok()?, u16::try_from(of).ok()?);
        let valid = rest.is_empty() && of >= 2 && (1..=of).contains(&number);
        valid.then_some(Self { number, of })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(name) => name.fmt(f),
            Self::Claim(epoch) => write!(f, "{epoch:08}.claim"),
            Self::Temporary(token) => write!(f, "{TEMPORARY}{token}"),
            Self::Pin { id, reason } => write!(f, "{id}.pin.{reason}"),
            Self::Time { id, seconds } => write!(f, "{id}.at.{seconds:010}"),
        }
    }
}

impl fmt::Display for CommitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        if self.base {
            f.write_str(".base")?;
        }
        if let Some(parent) = self.parent {
            write!(f, ".from.{parent}")?;
        }
        if let Some(Part { number, of }) = self.part {
            write!(f, ".p{number:03}-of-{of:03}")?;
        }
        f.write_str(SUFFIX)?;
        if self.encrypted { f.write_str(AGE) } else { Ok(()) }
    }
}

/// Whether a word can be the reason of a pin.
#[must_use]
pub fn is_reason(reason: &str) -> bool {
    let plain = reason.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain && (1..=40).contains(&reason.len())
}

fn strip<'a>(text: &'a str, suffix: &str) -> (&'a str, bool) {
    text.strip_suffix(suffix).map_or((text, false), |rest| (rest, true))
}

/// Exactly so many decimal digits, and what follows.
fn take_number(text: &str, digits: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    let decimal = number.bytes().all(|b| b.is_ascii_digit());
    decimal.then(|| number.parse().ok()).flatten().map(|number| (number, rest))
}

fn take_id(text: &str) -> Option<(Id, &str)> {
    let (epoch, rest) = take_number(text, 8)?;
    let (seq, rest) = take_number(rest.strip_prefix('-')?, 8)?;
    let (nonce, rest) = rest.strip_prefix('-')?.split_at_checked(8)?;
    let hexadecimal = nonce.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonce = hexadecimal.then(|| u32::from_str_radix(nonce, 16).ok()).flatten()?;
    Some((Id { epoch, seq, nonce }, rest))
}

#[cfg(test)]
mod tests;
