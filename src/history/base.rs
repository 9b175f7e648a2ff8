//! When the next commit has to be a base.

use std::time::Duration;

use tokio::time::Instant;

use super::name::Id;
use super::survey::Survey;

const SMALL_BASE: u64 = 1 << 20;
const LARGE_BASE: u64 = 8_000_000;
const DELTAS: u32 = 256;
const DELTAS_ON_LARGE: u32 = 1024;
const AGE: Duration = Duration::from_hours(24);

/// What a chain weighs; kept by the engine and updated with every confirmed commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainWeight {
    /// Bytes of the base's objects.
    pub base: u64,
    /// When it has served for a day; none when the list did not say how old it is.
    pub base_until: Option<Instant>,
    /// Deltas on it.
    pub deltas: u32,
    /// Bytes of their objects.
    pub delta_bytes: u64,
    /// Whether a list lacked a link: nothing may be built on this chain any more.
    pub broken: bool,
}

/// Why the next commit has to be a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The deltas weigh more than the base.
    Heavy,
    /// There are as many deltas as a restore should have to fetch.
    Long,
    /// The base is a day old.
    Daily,
    /// A link of the chain is missing.
    Broken,
}

impl ChainWeight {
    /// The weight of the chain that leads to a commit, as listed just now. Ages are the server's word: our clock may be
    /// a year off.
    #[must_use]
    pub fn of(survey: &Survey, head: Id, now: Instant) -> Self {
        let Ok(ids) = survey.chain(head) else {
            return Self { broken: true, ..Self::default() };
        };
        let mut listed = ids.iter().filter_map(|id| survey.commits.get(id));
        let mut weight = listed.next().map_or_else(Self::default, |base| {
            let age = survey.date.zip(base.created_at()).map(|(date, at)| date.duration_since(at));
            let age = age.map(|age| Duration::try_from(age).unwrap_or_default());
            let base_until = age.map(|age| now + AGE.saturating_sub(age));
            Self { base_until, ..Self::based(base.size(), now) }
        });
        for delta in listed {
            weight.grow(delta.size());
        }
        weight
    }

    /// The weight after a base of so many bytes was confirmed.
    #[must_use]
    pub fn based(bytes: u64, now: Instant) -> Self {
        Self { base: bytes, base_until: Some(now + AGE), ..Self::default() }
    }

    /// One more delta was confirmed.
    pub fn grow(&mut self, bytes: u64) {
        self.deltas = self.deltas.saturating_add(1);
        self.delta_bytes = self.delta_bytes.saturating_add(bytes);
    }

    /// Whether the commit that is about to be written has to be a base, and why. Asked only when there is something
    /// to commit: a session at rest writes nothing, however old its base is.
    #[must_use]
    pub fn needs_base(&self, now: Instant) -> Option<Why> {
        let most = if self.base > LARGE_BASE { DELTAS_ON_LARGE } else { DELTAS };
        if self.broken {
            Some(Why::Broken)
        } else if self.delta_bytes > self.base.max(SMALL_BASE) {
            Some(Why::Heavy)
        } else if self.deltas >= most {
            Some(Why::Long)
        } else if self.base_until.is_some_and(|until| now >= until) {
            Some(Why::Daily)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
