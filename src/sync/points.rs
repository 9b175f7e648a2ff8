//! The points of a session's history, for people.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use super::report::{HistoryReport, Point};
use crate::error::{Code, Error};
use crate::history::{self, Access, Depth, HistoryError, Id, Progress, Survey};
use crate::session::SessionKey;
use crate::store::Store;

/// Lists all of a session's history.
///
/// # Errors
/// [`Code::NoSession`] where there is none: a mistyped name is no success.
pub async fn history(store: &dyn Store, key: &SessionKey) -> Result<HistoryReport, Error> {
    let survey = history::survey(store, key, Depth::All, None).await?;
    find(&survey, key, Wanted::Newest)?;
    let line = line(&survey);
    let pins = |id: Id| survey.pins.iter().filter(|pin| pin.id == id).map(|pin| pin.reason.clone()).collect();
    let points = survey.commits.iter().rev().map(|(id, listed)| Point {
        id: id.to_string(),
        parent: listed.name.parent.map(|parent| parent.to_string()),
        base: listed.name.base,
        created_at: listed.created_at(),
        size: listed.size(),
        in_chain: line.contains(id),
        pins: pins(*id),
    });
    Ok(HistoryReport {
        session: key.to_string(),
        head: survey.head().map(|id| id.to_string()),
        points: points.collect(),
    })
}

/// The head and all that it builds on. Where retention took a parent, the line goes on with the newest commit
/// before it: what an older epoch stored too late lies between a commit and its parent, and goes with the next
/// cleaning, so what is left below was kept for good.
fn line(survey: &Survey) -> BTreeSet<Id> {
    let mut line = BTreeSet::new();
    let mut at = survey.head();
    while let Some(id) = at {
        at = match survey.commits.get(&id) {
            Some(listed) => {
                line.insert(id);
                listed.name.parent
            }
            None => survey.commits.range(..id).next_back().map(|(older, _)| *older),
        };
    }
    line
}

/// Which point of a history is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The head.
    Newest,
    /// This commit.
    Id(Id),
    /// The newest of the head's line at or before this moment; whole seconds, as people read and write them,
    /// mean that second to its end.
    Time(jiff::Timestamp),
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Time).map_err(|_| {
            Error::new(
                Code::Usage,
                "neither an id as `history` prints it (00000003-00000042-1b20c7d9) nor a time with its zone \
                 (2026-11-23T21:00:00Z)",
            )
        })
    }
}

/// Finds it.
///
/// # Errors
/// [`Code::NoSession`] for a history without commits, [`Code::NotFound`] when there is no such point.
pub fn find(survey: &Survey, key: &SessionKey, wanted: Wanted) -> Result<Id, Error> {
    let head = survey.head().ok_or_else(|| none(key))?;
    match wanted {
        Wanted::Newest => Ok(head),
        Wanted::Id(id) if survey.commits.contains_key(&id) => Ok(id),
        Wanted::Id(id) => Err(Error::new(
            Code::NotFound,
            format!(
                "session {key} has no commit {id}: `session-sidecar history {key}` lists those that there are"
            ),
        )),
        Wanted::Time(time) => {
            let line = line(survey);
            let whole = time.subsec_nanosecond() == 0;
            let is_before = |at: jiff::Timestamp| at <= time || whole && at.as_second() == time.as_second();
            let before = |id: &&Id| survey.commits[*id].created_at().is_some_and(is_before);
            line.iter().rev().find(before).copied().ok_or_else(|| {
                Error::new(
                    Code::NotFound,
                    format!("session {key} has no commit at or before {time}: `session-sidecar history {key}` lists those that there are"),
                )
            })
        }
    }
}

/// The error of a session without history.
#[must_use]
pub fn none(key: &SessionKey) -> Error {
    Error::new(Code::NoSession, format!("session {key} has no history: check its name and the bucket"))
}

/// The error of a point that cannot be had, naming the newest one of the same chain that can, and how to go back to it.
pub async fn damage(
    access: Access<'_>,
    key: &SessionKey,
    survey: &Survey,
    id: Id,
    error: &HistoryError,
    scratch: &Path,
    progress: &dyn Progress,
) -> Error {
    let intact = history::intact::newest_intact(access, key, survey, id, scratch, progress).await;
    let advice = match intact {
        Ok(Some(id)) => {
            format!(
                "the newest point of its chain that verifies is {id}: `restore --at {id}` goes back to it"
            )
        }
        _ => "no point of its chain verifies: `history` lists others".to_owned(),
    };
    Error::new(Code::Damaged, format!("session {key}: {error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_an_id_or_a_time_with_its_zone() {
        let id = "00000003-00000042-1b20c7d9";
        assert_eq!(id.parse::<Wanted>().unwrap(), Wanted::Id(id.parse().unwrap()));
        assert!(matches!("2026-11-23T21:00:00Z".parse(), Ok(Wanted::Time(_))));
        assert!(matches!("2026-11-23 21:00:00+01:00".parse(), Ok(Wanted::Time(_))));
        for bad in ["", "yesterday", "2026-11-23", "2026-11-23T21:00:00", "00000003-00000042"] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }
    use crate::history::{CommitName, Name};
    use crate::store::Object;

    fn id(epoch: u32, seq: u32) -> Id {
        Id::new(epoch, seq, 7).expect("small numbers")
    }

    /// Bases, each with its parent, a minute apart.
    fn survey(commits: &[(Id, Option<Id>)]) -> (SessionKey, Survey) {
        let key = SessionKey::new("u", "s").unwrap();
        let objects: Vec<Object> = commits
            .iter()
            .zip(1..)
            .map(|(&(id, parent), minute)| {
                let name = CommitName { id, parent, base: true, part: None, encrypted: false };
                Object {
                    key: format!("{}{}", key.history_prefix(), Name::Commit(name)),
                    size: 1,
                    etag: None,
                    created_at: Some(jiff::Timestamp::from_second(60 * minute).unwrap()),
                }
            })
            .collect();
        let survey = Survey::of(&key, &objects);
        (key, survey)
    }

    #[test]
    fn what_a_seal_cut_off_is_not_in_the_line() {
        let (late, seal) = (id(1, 2), id(2, 1));
        let (key, survey) = survey(&[(id(1, 1), None), (late, Some(id(1, 1))), (seal, Some(id(1, 1)))]);
        assert_eq!(line(&survey), BTreeSet::from([id(1, 1), seal]));
        let before = Wanted::Time("1970-01-01T00:02:30Z".parse().unwrap());
        assert_eq!(find(&survey, &key, before).unwrap(), id(1, 1));
        assert_eq!(find(&survey, &key, Wanted::Newest).unwrap(), seal);
        assert_eq!(find(&survey, &key, Wanted::Id(late)).unwrap(), late);
    }

    #[test]
    fn a_time_as_history_prints_it_is_the_point_beside_it() {
        let (key, mut survey) = survey(&[(id(1, 1), None), (id(1, 2), Some(id(1, 1)))]);
        let object = &mut survey.commits.get_mut(&id(1, 2)).unwrap().objects[0];
        object.created_at = Some("1970-01-01T00:02:00.224Z".parse().unwrap());
        for (time, point) in [
            ("1970-01-01T00:02:00Z", id(1, 2)),
            ("1970-01-01T00:02:00.224Z", id(1, 2)),
            ("1970-01-01T00:02:00.223Z", id(1, 1)),
            ("1970-01-01T00:01:59Z", id(1, 1)),
        ] {
            assert_eq!(find(&survey, &key, Wanted::Time(time.parse().unwrap())).unwrap(), point, "{time}");
        }
    }

    #[test]
    fn points_before_a_parent_that_retention_took_are_in_the_line() {
        let (key, survey) = survey(&[(id(1, 1), None), (id(1, 9), Some(id(1, 8)))]);
        assert_eq!(line(&survey), BTreeSet::from([id(1, 1), id(1, 9)]));
        let before = Wanted::Time("1970-01-01T00:01:30Z".parse().unwrap());
        assert_eq!(find(&survey, &key, before).unwrap(), id(1, 1));
        let never = find(&survey, &key, Wanted::Time(jiff::Timestamp::UNIX_EPOCH)).unwrap_err();
        assert_eq!(never.code(), Code::NotFound);
    }
}
