//! The rows of `whatsapp_sessions`, and how they are written.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::column::{Row, SESSIONS, stamp};
use super::error::PgError;
use super::query::Query;
use super::requests::{few, parse};

/// What an insert does with a row whose key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    Merge,
    Ignore,
}

/// What a column has when an insert does not name it.
pub(super) fn default(column: &str, now: Timestamp) -> Value {
    match column {
        "connection_type" => "mobile".into(),
        "max_connections" => 5.into(),
        "status" => "disconnected".into(),
        "is_default" => false.into(),
        "is_active" => true.into(),
        "created_at" | "last_activity" => stamp(now).into(),
        _ => Value::Null,
    }
}

fn same_key(a: &Row, b: &Row) -> bool {
    a["user_id"] == b["user_id"] && a["session_id"] == b["session_id"]
}

/// The constraints of one row.
fn check(row: &Row) -> Result<(), PgError> {
    for column in ["user_id", "session_id", "is_active", "created_at", "last_activity"] {
        if row[column].is_null() {
            let message = format!(
                "null value in column \"{column}\" of relation \"{}\" violates not-null constraint",
                SESSIONS.name
            );
            return Err(PgError::new(400, "23502", message));
        }
    }
    Ok(())
}

fn duplicate(row: &Row) -> PgError {
    let text = |column: &str| row[column].as_str().unwrap_or_default();
    let message = format!("duplicate key value violates unique constraint \"{}_pkey\"", SESSIONS.name);
    let details =
        format!("Key (user_id, session_id)=({}, {}) already exists.", text("user_id"), text("session_id"));
    PgError::new(409, "23505", message).details(details)
}

/// Inserts rows, with the columns that they name; gives those written, and whether one is new.
pub(super) fn insert(
    rows: &mut Vec<Row>,
    values: Vec<Row>,
    resolution: Option<Resolution>,
    now: Timestamp,
) -> Result<(Vec<Row>, bool), PgError> {
    let (mut written, mut any_new) = (Vec::new(), false);
    for values in values {
        let mut row: Row =
            SESSIONS.columns.iter().map(|(name, _)| ((*name).to_owned(), default(name, now))).collect();
        let values = SESSIONS.cast(values)?;
        row.extend(values.clone());
        check(&row)?;
        let there = rows.iter_mut().find(|other| same_key(other, &row));
        match (there, resolution) {
            (None, _) => {
                any_new = true;
                rows.push(row.clone());
                written.push(row);
            }
            (Some(_), None) => return Err(duplicate(&row)),
            (Some(_), Some(Resolution::Ignore)) => {}
            (Some(there), Some(Resolution::Merge)) => {
                there.extend(values);
                written.push(there.clone());
            }
        }
    }
    Ok((written, any_new))
}

/// Changes the rows that a query matches; gives them.
pub(super) fn update(rows: &mut [Row], query: &Query, values: Row) -> Result<Vec<Row>, PgError> {
    let values = SESSIONS.cast(values)?;
    let mut written = Vec::new();
    for row in rows.iter_mut().filter(|row| !values.is_empty() && query.matches(row)) {
        row.extend(values.clone());
        check(row)?;
        written.push(row.clone());
    }
    let twice = |row: &&Row| rows.iter().filter(|other| same_key(other, row)).count() > 1;
    match written.iter().find(twice) {
        Some(row) => Err(duplicate(row)),
        None => Ok(written),
    }
}

/// Deletes the rows that a query matches; gives them.
pub(super) fn delete(rows: &mut Vec<Row>, query: &Query) -> Vec<Row> {
    rows.extract_if(.., |row| query.matches(row)).collect()
}

#[derive(Deserialize)]
struct Notes {
    table: String,
    rows: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    user: String,
    session: String,
    sidecar: Map<String, Value>,
    status: Option<String>,
    active: Option<bool>,
    name: Option<String>,
    default: Option<bool>,
    create: Option<bool>,
}

/// `note_session_metadata`: our facts go under `session_data.sidecar`, all else of a row stays.
pub(super) fn note(rows: &mut Vec<Row>, request: Value, now: Timestamp) -> Result<Value, PgError> {
    let notes: Notes = parse(request)?;
    few(&notes.rows)?;
    if notes.table != SESSIONS.name {
        return Ok(json!({ "table": false, "rows": [] }));
    }
    let mut answers = Vec::new();
    for note in notes.rows {
        let mut answer = json!({ "user": note.user, "session": note.session });
        let done = note_one(rows, note, now);
        answer["noted"] = done.is_ok().into();
        if let Ok(Some(why)) | Err(why) = done {
            answer["why"] = why.into();
        }
        answers.push(answer);
    }
    Ok(json!({ "table": true, "rows": answers }))
}

/// What was left alone; an error: the whole row.
fn note_one(rows: &mut Vec<Row>, note: Note, now: Timestamp) -> Result<Option<&'static str>, &'static str> {
    let mut values = Row::new();
    values.extend(note.status.map(|status| ("status".to_owned(), status.into())));
    values.extend(note.active.map(|active| ("is_active".to_owned(), active.into())));
    values.extend(note.name.map(|name| ("session_name".to_owned(), name.into())));
    values.extend(note.default.map(|default| ("is_default".to_owned(), default.into())));
    let there = rows.iter_mut().find(|row| row["user_id"] == note.user && row["session_id"] == note.session);
    let Some(row) = there else {
        if note.create != Some(true) {
            return Err("no row");
        }
        values.insert("user_id".into(), note.user.into());
        values.insert("session_id".into(), note.session.into());
        values.insert("session_data".into(), json!({ "sidecar": note.sidecar }));
        insert(rows, vec![values], None, now).expect("the key is free and the types are right");
        return Ok(None);
    };
    row.extend(values);
    row.insert("last_activity".into(), stamp(now).into());
    let data = &mut row["session_data"];
    if data.is_null() {
        *data = json!({});
    }
    let Some(data) = data.as_object_mut() else {
        return Ok(Some("session_data is no object and was left alone"));
    };
    match data.get_mut("sidecar").and_then(Value::as_object_mut) {
        Some(sidecar) => sidecar.extend(note.sidecar),
        None => drop(data.insert("sidecar".into(), note.sidecar.into())),
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(rows: &mut Vec<Row>, row: &Value) -> Value {
        let request = json!({ "table": "whatsapp_sessions", "rows": [row] });
        note(rows, request, Timestamp::UNIX_EPOCH).unwrap()["rows"][0].clone()
    }

    #[test]
    fn a_note_is_merged_under_its_own_key_and_leaves_the_rest() {
        let mut rows = Vec::new();
        let first = json!({ "user_id": "u", "session_id": "s", "is_active": false, "created_at": "2020-01-01T00:00:00Z",
            "session_data": { "theirs": 1, "sidecar": { "head": "1", "files": 3 } } });
        let now = Timestamp::UNIX_EPOCH;
        insert(&mut rows, vec![first.as_object().unwrap().clone()], None, now).unwrap();
        let wanted = json!({ "user": "u", "session": "s", "noted": true });
        let note = json!({ "user": "u", "session": "s", "sidecar": { "head": "2" }, "status": "connected" });
        assert_eq!(noted(&mut rows, &note), wanted);
        let sidecar = json!({ "theirs": 1, "sidecar": { "head": "2", "files": 3 } });
        assert_eq!(rows[0]["session_data"], sidecar);
        assert_eq!((&rows[0]["status"], &rows[0]["is_active"]), (&json!("connected"), &json!(false)));
        assert_eq!(rows[0]["created_at"], "2020-01-01T00:00:00+00:00");
        assert_eq!(rows[0]["last_activity"], "1970-01-01T00:00:00+00:00");
    }

    #[test]
    fn session_data_of_another_shape_is_left_alone_and_a_null_is_not() {
        let mut rows = Vec::new();
        let create = json!({ "user": "u", "session": "s", "sidecar": {}, "create": true, "active": false });
        noted(&mut rows, &create);
        assert_eq!(
            (&rows[0]["is_active"], &rows[0]["session_data"]),
            (&json!(false), &json!({ "sidecar": {} }))
        );
        rows[0]["session_data"] = json!([1]);
        let note = json!({ "user": "u", "session": "s", "sidecar": { "head": "1" }, "active": true });
        let said = noted(&mut rows, &note);
        assert_eq!(
            (&said["noted"], &said["why"]),
            (&json!(true), &json!("session_data is no object and was left alone"))
        );
        assert_eq!((&rows[0]["session_data"], &rows[0]["is_active"]), (&json!([1]), &json!(true)));
        rows[0]["session_data"] = json!({ "sidecar": 5 });
        noted(&mut rows, &note);
        assert_eq!(rows[0]["session_data"], json!({ "sidecar": { "head": "1" } }));
        rows[0]["session_data"] = Value::Null;
        noted(&mut rows, &note);
        assert_eq!(rows[0]["session_data"], json!({ "sidecar": { "head": "1" } }));
    }

    #[test]
    fn a_row_is_created_only_on_request_and_only_in_our_table() {
        let mut rows = Vec::new();
        let note = json!({ "user": "u", "session": "s", "sidecar": {} });
        let wanted = json!({ "user": "u", "session": "s", "noted": false, "why": "no row" });
        assert_eq!(noted(&mut rows, &note), wanted);
        let request = json!({ "table": "other", "rows": [note] });
        let answer = super::note(&mut rows, request, Timestamp::UNIX_EPOCH);
        assert_eq!(answer, Ok(json!({ "table": false, "rows": [] })));
        assert!(rows.is_empty());
    }
}
