//! Which session a call means that names none.

use crate::sync::report::SessionEntry;

/// The session of a user who has none yet.
pub const FIRST: &str = "default";

/// The session that is meant: the default one, else the only one, else the one last used. None: the user has none.
///
/// Those that are active come before those that were logged out or deleted.
#[must_use]
pub fn meant(entries: &[SessionEntry]) -> Option<&SessionEntry> {
    let alive = |entry: &&SessionEntry| entry.is_active || entry.here.is_some();
    let candidates: Vec<_> = match entries.iter().filter(alive).collect::<Vec<_>>() {
        none if none.is_empty() => entries.iter().collect(),
        some => some,
    };
    let used = |entry: &SessionEntry| entry.last_activity.or(entry.created_at);
    candidates
        .iter()
        .copied()
        .find(|entry| entry.is_default)
        // Of two that were used at once, the same one each time.
        .or_else(|| {
            candidates.iter().copied().max_by_key(|entry| (used(entry), std::cmp::Reverse(&entry.session_id)))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn entry(session: &str, change: impl FnOnce(&mut SessionEntry)) -> SessionEntry {
        let mut entry = SessionEntry {
            user_id: "u".to_owned(),
            session_id: session.to_owned(),
            is_active: true,
            is_default: false,
            desired: None,
            created_at: None,
            last_activity: None,
            row: Value::Null,
            here: None,
        };
        change(&mut entry);
        entry
    }

    fn at(second: i64) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(second).ok()
    }

    fn meant_of(entries: &[SessionEntry]) -> Option<&str> {
        meant(entries).map(|entry| entry.session_id.as_str())
    }

    #[test]
    fn the_default_one_is_meant_else_the_only_one_else_the_one_last_used() {
        let old = entry("old", |it| it.last_activity = at(1));
        let new = entry("new", |it| it.last_activity = at(2));
        let marked = entry("marked", |it| it.is_default = true);
        let unknown = entry("unknown", |_| ());
        assert_eq!(meant_of(&[old.clone(), new.clone(), marked.clone()]), Some("marked"));
        assert_eq!(meant_of(std::slice::from_ref(&old)), Some("old"));
        assert_eq!(meant_of(&[old.clone(), new.clone(), unknown.clone()]), Some("new"));
        assert_eq!(meant_of(&[unknown.clone(), new, old]), Some("new"));
        let created = entry("created", |it| it.created_at = at(1));
        assert_eq!(meant_of(&[unknown, created]), Some("created"));
        assert_eq!(meant_of(&[entry("b", |_| ()), entry("a", |_| ())]), Some("a"));
        assert_eq!(meant_of(&[]), None);
    }

    #[test]
    fn what_was_logged_out_is_meant_only_where_nothing_else_is() {
        let gone = entry("gone", |it| {
            it.is_active = false;
            it.is_default = true;
            it.last_activity = at(9);
        });
        let alive = entry("alive", |it| it.last_activity = at(1));
        assert_eq!(meant_of(&[gone.clone(), alive]), Some("alive"));
        assert_eq!(meant_of(&[gone]), Some("gone"));
    }
}
