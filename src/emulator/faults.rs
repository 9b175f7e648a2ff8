//! What can go wrong between a client and its storage, drawn from one seeded generator.

use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use tokio::time::Instant;

use super::error::Refusal;

/// What goes wrong, and how often. Rates are between 0 and 1, of all requests that a fault fits.
///
/// As text: `latency=50ms,errors=0.05,resets=0.01,cut=0.01,late-uploads=0.01,late-by=1s,stale=60s,`
/// `throttle=100,database-resets=0.01,down,empty-lists,no-sort`. `latency` and `down` are of the whole project,
/// all others but `database-resets` of storage only.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Every answer takes this much longer.
    pub latency: Duration,
    /// Retryable errors (500, 502, 544, 429, and 423 and 503 in a 400); half of them after the call took effect.
    pub errors: f64,
    /// Connections reset before the answer; half of them after the call took effect.
    pub resets: f64,
    /// Answers whose body ends early.
    pub cut: f64,
    /// Uploads whose connection is reset and which are completed later, over whatever then has the name.
    pub late_uploads: f64,
    /// How much later.
    pub late_by: Duration,
    /// For this long a GET of an overwritten object gives what it was before; info and lists are fresh.
    pub stale: Duration,
    /// More requests than this a second are refused (429).
    pub throttle: Option<Throttle>,
    /// Connections to tables and functions reset before the answer; half of them after the call took effect.
    pub database_resets: f64,
    /// What is away altogether.
    pub down: Down,
    /// Lists are empty, as for a key that has no right to the bucket.
    pub empty_lists: bool,
    /// `sortBy` is ignored, as by a server that does not know it.
    pub no_sort: bool,
}

/// What of a project is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Down {
    /// Nothing.
    #[default]
    Nothing,
    /// `down`: every connection is reset.
    Project,
    /// `down=storage`: every connection to storage is reset, tables and functions go on.
    Storage,
    /// `down=database`: tables and functions answer 503 (`PGRST000`), storage goes on.
    Database,
}

/// A limit of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Requests a second.
    pub rate: f64,
    /// Sent as `Retry-After`; the real server sends none.
    pub retry_after: Option<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            errors: 0.0,
            resets: 0.0,
            cut: 0.0,
            late_uploads: 0.0,
            late_by: Duration::from_secs(1),
            stale: Duration::ZERO,
            throttle: None,
            database_resets: 0.0,
            down: Down::Nothing,
            empty_lists: false,
            no_sort: false,
        }
    }
}

/// A text that names no faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultsError {
    /// No fault has this name.
    #[error(
        "unknown fault `{0}`: one of latency, errors, resets, cut, late-uploads, late-by, stale, throttle, \
         database-resets, down, empty-lists, no-sort"
    )]
    Unknown(String),
    /// The value does not fit the fault.
    #[error("fault `{name}` takes {wants}, not `{value}`")]
    Value {
        /// The fault.
        name: String,
        /// What it takes.
        wants: &'static str,
        /// What was given.
        value: String,
    },
}

impl FromStr for Faults {
    type Err = FaultsError;

    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let bad = |wants| FaultsError::Value { name: name.to_owned(), wants, value: value.to_owned() };
            let span =
                || humantime::parse_duration(value).map_err(|_| bad("a duration such as `50ms` or `60s`"));
            let rate = || match value.parse::<f64>() {
                Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
                _ => Err(bad("a rate between 0 and 1")),
            };
            let flag = || if value.is_empty() { Ok(true) } else { Err(bad("no value")) };
            match name {
                "latency" => faults.latency = span()?,
                "errors" => faults.errors = rate()?,
                "resets" => faults.resets = rate()?,
                "cut" => faults.cut = rate()?,
                "late-uploads" => faults.late_uploads = rate()?,
                "late-by" => faults.late_by = span()?,
                "stale" => faults.stale = span()?,
                "throttle" => {
                    faults.throttle = Some(value.parse().map_err(|()| {
                        bad("requests a second, perhaps with a Retry-After, such as `100` or `100:2s`")
                    })?);
                }
                "database-resets" => faults.database_resets = rate()?,
                "down" => {
                    faults.down = match value {
                        "" => Down::Project,
                        "storage" => Down::Storage,
                        "database" => Down::Database,
                        _ => return Err(bad("no value, `storage` or `database`")),
                    }
                }
                "empty-lists" => faults.empty_lists = flag()?,
                "no-sort" => faults.no_sort = flag()?,
                _ => return Err(FaultsError::Unknown(name.to_owned())),
            }
        }
        Ok(faults)
    }
}

impl FromStr for Throttle {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (rate, after) = text.split_once(':').map_or((text, None), |(rate, after)| (rate, Some(after)));
        let retry_after = after.map(humantime::parse_duration).transpose().map_err(drop)?;
        match rate.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self { rate, retry_after }),
            _ => Err(()),
        }
    }
}

/// What befalls one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fate {
    pub(super) latency: Duration,
    /// Answered so; `true`: after the call took effect.
    pub(super) answer: Option<(Failure, bool)>,
    pub(super) cut: bool,
    /// An upload is completed this much later, and the connection reset now.
    pub(super) late: Option<Duration>,
    pub(super) stale: Duration,
    pub(super) empty_lists: bool,
    pub(super) no_sort: bool,
}

/// What befalls one request to tables and functions.
pub(super) struct DatabaseFate {
    pub(super) latency: Duration,
    /// No connection to the database.
    pub(super) away: bool,
    /// The connection is reset; `true`: after the call took effect.
    pub(super) reset: Option<bool>,
}

/// How a request fails.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    Reset,
    Error(Refusal),
    /// A page of the gateway in front, no JSON.
    BadGateway,
}

/// The generator, and the faults of the moment.
pub(super) struct Dice(Mutex<Hand>);

struct Hand {
    rng: StdRng,
    faults: Faults,
    /// Requests that may still pass, as of the moment beside it.
    tokens: f64,
    filled: Instant,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self(Mutex::new(Hand { rng, faults, tokens: 1.0, filled: Instant::now() }))
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, faults: Faults) {
        self.hand().faults = faults;
    }

    /// Draws for one request to tables and functions.
    pub(super) fn throw_database(&self) -> DatabaseFate {
        let Hand { rng, faults, .. } = &mut *self.hand();
        let mut reset = None;
        if faults.database_resets > 0.0 && rng.random_bool(faults.database_resets) {
            reset = Some(rng.random_bool(0.5));
        }
        if faults.down == Down::Project {
            reset = Some(false);
        }
        DatabaseFate { latency: faults.latency, away: faults.down == Down::Database, reset }
    }

    /// Draws for one request to storage.
    pub(super) fn throw(&self, upload: bool) -> Fate {
        let Hand { rng, faults, tokens, filled } = &mut *self.hand();
        let mut answer = None;
        if faults.errors > 0.0 && rng.random_bool(faults.errors) {
            let errors = [
                Failure::Error(Refusal::Internal),
                Failure::Error(Refusal::DatabaseTimeout),
                Failure::Error(Refusal::SlowDown(None)),
                Failure::Error(Refusal::LockTimeout),
                Failure::Error(Refusal::Locked),
                Failure::BadGateway,
            ];
            answer = Some((errors[rng.random_range(0..errors.len())].clone(), rng.random_bool(0.5)));
        }
        if faults.resets > 0.0 && rng.random_bool(faults.resets) {
            answer = Some((Failure::Reset, rng.random_bool(0.5)));
        }
        if let Some(throttle) = faults.throttle {
            let burst = throttle.rate.max(1.0);
            *tokens = (*tokens + filled.elapsed().as_secs_f64() * throttle.rate).min(burst);
            *filled = Instant::now();
            if *tokens < 1.0 {
                let refusal = Refusal::SlowDown(throttle.retry_after);
                answer = Some((Failure::Error(refusal), false));
            } else {
                *tokens -= 1.0;
            }
        }
        if matches!(faults.down, Down::Project | Down::Storage) {
            answer = Some((Failure::Reset, false));
        }
        let late = upload && faults.late_uploads > 0.0 && rng.random_bool(faults.late_uploads);
        Fate {
            latency: faults.latency,
            answer,
            cut: faults.cut > 0.0 && rng.random_bool(faults.cut),
            late: late.then_some(faults.late_by),
            stale: faults.stale,
            empty_lists: faults.empty_lists,
            no_sort: faults.no_sort,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_faults() {
        let text =
            "latency=50ms, errors=0.05,resets=0.01,cut=0.02,late-uploads=1,stale=60s,throttle=100:2s,no-sort";
        let faults: Faults = text.parse().unwrap();
        assert_eq!(faults.latency, Duration::from_millis(50));
        assert_eq!((faults.errors, faults.late_uploads), (0.05, 1.0));
        let retry_after = Some(Duration::from_secs(2));
        assert_eq!(faults.throttle, Some(Throttle { rate: 100.0, retry_after }));
        assert!(faults.no_sort && !faults.empty_lists && faults.down == Down::Nothing);
        let down = |text: &str| text.parse::<Faults>().unwrap().down;
        assert_eq!((down("down"), down("down=database")), (Down::Project, Down::Database));
        assert_eq!("".parse(), Ok(Faults::default()));
    }

    #[test]
    fn a_wrong_text_is_told_what_is_wanted() {
        let says = |text: &str| text.parse::<Faults>().unwrap_err().to_string();
        assert_eq!(says("errors=5%"), "fault `errors` takes a rate between 0 and 1, not `5%`");
        assert!(says("latency=50").contains("a duration such as"));
        assert!(says("down=1").contains("no value, `storage` or"));
        assert!(says("no-sort=1").contains("no value"));
        assert!(says("eror=1").starts_with("unknown fault `eror`: one of latency"));
    }

    #[test]
    fn the_same_seed_gives_the_same_fates() {
        let faults: Faults = "errors=0.3,resets=0.2,cut=0.2,late-uploads=0.2".parse().unwrap();
        let fates = |seed| {
            let dice = Dice::new(seed, faults.clone());
            (0..100).map(|i| dice.throw(i % 2 == 0)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttle_lets_its_rate_pass() {
        let dice = Dice::new(1, "throttle=10".parse().unwrap());
        let passed = |n: usize| (0..n).filter(|_| dice.throw(false).answer.is_none()).count();
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(passed(50), 10);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(passed(50), 5);
    }
}
