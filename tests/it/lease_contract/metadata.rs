//! `note_session_metadata` on the table as our SQL makes it; older ones are tried on PostgreSQL alone.

use serde_json::{Value, json};

use super::{Desk, Leases};

/// The rows of an answer that found the table. The case's own user keeps it apart from others in the same table.
async fn note<L: Leases>(desk: &Desk<'_, L>, rows: Value) -> Value {
    let request = json!({ "table": "whatsapp_sessions", "rows": rows });
    let mut answer = desk.database.call("note_session_metadata", request).await.unwrap();
    assert_eq!(answer["table"], true);
    answer["rows"].take()
}

pub async fn a_row_is_made_only_where_that_is_asked_for(desk: &Desk<'_, impl Leases>) {
    let user = desk.bucket;
    let row = |session: &str, more: Value| {
        let mut row = json!({ "user": user, "session": session, "sidecar": { "files": 3 } });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let rows = json!([
        row("2", json!({ "create": true })),
        row("1", json!({ "create": false })),
        row("3", json!({ "create": true, "active": false, "status": "connected" })),
        row("0", json!({})),
    ]);
    let answer = note(desk, rows).await;
    let noted = |session: &str| json!({ "user": user, "session": session, "noted": true });
    let no_row = |session: &str| json!({ "user": user, "session": session, "noted": false, "why": "no row" });
    assert_eq!(answer, json!([noted("2"), no_row("1"), noted("3"), no_row("0")]));

    let made = desk.database.row(user, "2").await.unwrap();
    assert_eq!(
        (&made["session_data"], &made["is_active"]),
        (&json!({ "sidecar": { "files": 3 } }), &json!(true))
    );
    assert!(made["created_at"].is_string() && made["last_activity"].is_string());
    assert_eq!(desk.database.row(user, "3").await.unwrap()["is_active"], false);
    assert_eq!(desk.database.row(user, "1").await, None);
}

pub async fn facts_are_merged_and_all_else_stays(desk: &Desk<'_, impl Leases>) {
    let user = desk.bucket;
    let row = |sidecar: Value| json!({ "user": user, "session": "s", "sidecar": sidecar, "create": true });
    note(desk, json!([row(json!({ "head": "1", "held": { "a": 1 } }))])).await;
    let made = desk.database.row(user, "s").await.unwrap();
    note(desk, json!([row(json!({ "head": null, "held": { "b": 2 }, "files": 5 }))])).await;
    let merged = desk.database.row(user, "s").await.unwrap();
    // Shallow: what is given replaces what stood there, null too.
    assert_eq!(
        merged["session_data"],
        json!({ "sidecar": { "head": null, "held": { "b": 2 }, "files": 5 } })
    );
    assert_eq!(merged["created_at"], made["created_at"]);
    assert_ne!(merged["last_activity"], made["last_activity"]);
    // Untouched unless it is named.
    for (active, is_active) in [(Some(false), false), (None, false), (Some(true), true)] {
        let mut row = row(json!({}));
        row["active"] = active.into();
        note(desk, json!([row])).await;
        assert_eq!(desk.database.row(user, "s").await.unwrap()["is_active"], is_active);
    }
}

pub async fn a_table_that_is_not_there_is_no_error(desk: &Desk<'_, impl Leases>) {
    let rows = json!([{ "user": "u", "session": "s", "sidecar": {}, "create": true }]);
    for table in ["no_such_table", "session_sidecar_leases"] {
        let request = json!({ "table": table, "rows": rows });
        let answer = desk.database.call("note_session_metadata", request).await.unwrap();
        assert_eq!(answer, json!({ "table": false, "rows": [] }));
    }
}

pub async fn malformed_rows_are_refused_whole(desk: &Desk<'_, impl Leases>) {
    let user = desk.bucket;
    let good = json!({ "table": "whatsapp_sessions", "rows": [
        { "user": user, "session": "a", "sidecar": {}, "create": true },
        { "user": user, "session": "b", "sidecar": {}, "create": true, "active": true, "status": "connected" },
    ] });
    for (place, value) in [
        ("/table", Value::Null),
        ("/rows", json!({})),
        ("/rows/1", json!(1)),
        ("/rows/1/user", json!(1)),
        ("/rows/1/session", Value::Null),
        ("/rows/1/sidecar", Value::Null),
        ("/rows/1/sidecar", json!("x")),
        ("/rows/1/active", json!("yes")),
        ("/rows/1/status", json!(1)),
        ("/rows/1/create", json!(1)),
    ] {
        let mut request = good.clone();
        *request.pointer_mut(place).unwrap() = value.clone();
        let error = desk.database.call("note_session_metadata", request).await.unwrap_err();
        assert!(error.starts_with("PT400"), "{place} {value}: {error}");
    }
    let many: Vec<_> =
        (0..501).map(|n| json!({ "user": user, "session": n.to_string(), "sidecar": {} })).collect();
    let request = json!({ "table": "whatsapp_sessions", "rows": many });
    let error = desk.database.call("note_session_metadata", request).await.unwrap_err();
    assert!(error.starts_with("PT400"), "{error}");
    assert_eq!(desk.database.row(user, "a").await, None);
}
