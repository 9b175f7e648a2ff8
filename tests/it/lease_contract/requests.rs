//! What a request may be, and the report.

use serde_json::{Value, json};

use super::{Desk, Leases};

pub async fn five_hundred_keys_are_the_most(desk: &Desk<'_, impl Leases>) {
    let keys = |count: u32| -> Vec<Value> {
        let key =
            |n| json!({ "user": "u", "session": format!("s{n}"), "holder": "h", "epoch": 1, "above": 0 });
        (0..count).map(key).collect()
    };
    for function in ["acquire_session_leases", "renew_session_leases", "release_session_leases"] {
        let error = desk.call(function, json!({ "ttl": 30, "keys": keys(501) })).await.unwrap_err();
        assert!(error.starts_with("PT400"), "{error}");
        let answer = desk.call(function, json!({ "ttl": 30, "keys": keys(500) })).await.unwrap();
        assert_eq!(answer["leases"].as_array().unwrap().len(), 500);
    }
}

pub async fn a_malformed_request_is_refused_whole(desk: &Desk<'_, impl Leases>) {
    let good = json!({ "ttl": 30, "keys": [
        { "user": "u", "session": "t", "holder": "h", "epoch": 1, "above": 0, "head": null },
        { "user": "u", "session": "s", "holder": "h", "epoch": 1, "above": 0, "head": "x" },
    ] });
    let long = "x".repeat(129);
    let changes = [
        ("/keys", json!({})),
        ("/keys", Value::Null),
        ("/keys/1", json!("u/s")),
        ("/keys/1", json!({ "user": "u", "session": "t", "holder": "h", "epoch": 1 })),
        ("/keys/1/user", Value::Null),
        ("/keys/1/user", json!("")),
        ("/keys/1/user", json!(long)),
        ("/keys/1/session", json!(7)),
        ("/keys/1/holder", json!("")),
    ];
    let of_acquire = [
        ("/ttl", json!(0.5)),
        ("/ttl", json!(3601)),
        ("/ttl", json!("30")),
        ("/ttl", Value::Null),
        ("/ask", json!("yes")),
        ("/all_or_none", json!(1)),
        ("/keys/1/above", json!(-1)),
        ("/keys/1/above", json!("3")),
        ("/keys/1/above", json!(1.5)),
    ];
    let of_renew = [
        ("/ttl", json!(0)),
        ("/keys/1/epoch", json!(0)),
        ("/keys/1/epoch", json!(100_000_000)),
        ("/keys/1/epoch", json!("1")),
        ("/keys/1/epoch", Value::Null),
        ("/keys/1/head", json!(1)),
    ];
    let of_release = [("/keys/1/epoch", Value::Null), ("/keys/1/head", json!({}))];
    for (function, own) in [
        ("acquire_session_leases", &of_acquire[..]),
        ("renew_session_leases", &of_renew),
        ("release_session_leases", &of_release),
    ] {
        for (place, value) in changes.iter().chain(own) {
            let mut request = good.clone();
            request["ask"] = false.into();
            request["all_or_none"] = false.into();
            *request.pointer_mut(place).unwrap() = value.clone();
            let error = desk.call(function, request).await.expect_err(&format!("{function} {place} {value}"));
            assert!(error.starts_with("PT400"), "{function} {place} {value}: {error}");
        }
        let error = desk.database.call(function, good.clone()).await.unwrap_err();
        assert!(error.starts_with("PT400"), "without a bucket: {error}");
    }
    // Nothing of what stood beside the malformed was done.
    assert_eq!(desk.granted("a").await, 1);
    let other = json!({ "user": "u", "session": "t", "holder": "a", "above": 0 });
    assert_eq!(desk.acquire(json!({}), &[other]).await[0]["epoch"], 1);
}

pub async fn the_report_tells_what_is_there(desk: &Desk<'_, impl Leases>) {
    let ask = async |request: Value| desk.database.call("session_sidecar_report", request).await.unwrap();
    let report = ask(json!({})).await;
    assert_eq!((&report["version"], &report["leases"]), (&json!(2), &json!(true)));
    let functions = [
        "acquire_session_leases",
        "note_session_metadata",
        "release_session_leases",
        "renew_session_leases",
        "session_sidecar_report",
    ];
    assert_eq!(report["functions"], json!(functions));
    assert_eq!((&report["table"]["exists"], &report["table"]["rls"]), (&json!(true), &json!(true)));
    assert_eq!(report["table"]["unique"], true);
    assert_eq!(report["table"]["columns"]["session_data"], "jsonb");
    assert_eq!(report["table"]["columns"]["last_activity"], "timestamp with time zone");
    assert_eq!((&report["objects_rls"], &report["role"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&report["bucket"]["id"], &report["bucket"]["public"]),
        (&json!("whatsapp-sessions"), &json!(false))
    );
    let policies = report["policies"].as_array().unwrap();
    let own = policies.iter().find(|policy| {
        policy["table"] == "public.whatsapp_sessions" && policy["roles"] != json!(["session_sidecar"])
    });
    let own = own.unwrap();
    assert_eq!((&own["command"], &own["permissive"]), (&json!("SELECT"), &json!(true)));
    assert_eq!((&own["roles"], &own["check"]), (&json!(["authenticated"]), &Value::Null));
    assert!(report["server_version"].as_str().unwrap().starts_with(char::is_numeric), "{report}");

    let report = ask(json!({ "table": "no_such_table", "bucket": "no-such-bucket" })).await;
    let absent = json!({ "exists": false, "columns": {}, "rls": false, "unique": false });
    assert_eq!((&report["table"], &report["bucket"]), (&absent, &Value::Null));
    assert_eq!((&report["history_policy"], &report["role"]), (&json!(false), &json!(false)));
    assert_eq!(ask(json!({ "table": null })).await["table"], Value::Null);
    // It is what the client reads.
    serde_json::from_value::<session_sidecar::supabase::schema::Report>(report).unwrap();
}
