//! Tables and functions of the emulator, spoken to as supabase-js does.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use session_sidecar::emulator::{self, Emulator, Options};

const SESSIONS: &str = "whatsapp_sessions";
const ACQUIRE: &str = "rpc/acquire_session_leases";

struct Project {
    emulator: Emulator,
    http: Client,
    dir: tempfile::TempDir,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    /// Null: none.
    body: Value,
}

impl Reply {
    /// `409 23505`.
    fn short(&self) -> String {
        format!("{} {}", self.status, self.body["code"].as_str().unwrap_or_default())
    }

    fn range(&self) -> &str {
        self.headers["content-range"].to_str().unwrap()
    }
}

async fn start(dir: &Path) -> Emulator {
    emulator::start(Options { dir: dir.to_owned(), ..Options::default() }).await.unwrap()
}

impl Project {
    async fn new() -> Self {
        // The first client of a process decides who does its cryptography; another test's may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        Self { emulator: start(dir.path()).await, http: Client::new(), dir }
    }

    /// As `token`, with the anon key for the gateway.
    async fn call(&self, token: &str, method: Method, path: &str, prefer: &str, body: Value) -> Reply {
        self.try_call(token, method, path, &[("prefer", prefer)], body).await.unwrap()
    }

    async fn try_call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> reqwest::Result<Reply> {
        let url = format!("{}/rest/v1/{path}", self.emulator.url());
        let mut request =
            self.http.request(method, url).bearer_auth(token).header("apikey", self.emulator.anon_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        Ok(Reply { status, headers, body })
    }

    async fn service(&self, method: Method, path: &str, prefer: &str, body: Value) -> Reply {
        self.call(self.emulator.service_role_key(), method, path, prefer, body).await
    }

    async fn get(&self, query: &str) -> Reply {
        self.service(Method::GET, &format!("{SESSIONS}?{query}"), "", Value::Null).await
    }

    async fn rpc(&self, function: &str, request: Value) -> Reply {
        self.service(Method::POST, &format!("rpc/{function}"), "", json!({ "request": request })).await
    }

    async fn acquire(&self, holder: &str) -> Value {
        let reply = self.rpc("acquire_session_leases", acquire(holder)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body["leases"][0].clone()
    }
}

fn acquire(holder: &str) -> Value {
    let key = json!({ "user": "u", "session": "s", "holder": holder, "above": 0 });
    json!({ "bucket": "b", "ttl": 30, "ask": true, "keys": [key] })
}

fn session(user: &str, session: &str) -> Value {
    json!({ "user_id": user, "session_id": session })
}

#[tokio::test]
async fn a_lease_is_acquired_renewed_and_released() {
    let project = Project::new().await;
    assert_eq!(project.acquire("a").await["epoch"], 1);
    assert_eq!(project.acquire("b").await["reason"], "held");
    let key = json!({ "user": "u", "session": "s", "holder": "a", "epoch": 1, "head": "1-1" });
    let renewed =
        project.rpc("renew_session_leases", json!({ "bucket": "b", "ttl": 30, "keys": [key] })).await;
    assert_eq!(renewed.body["leases"][0]["state"], "wanted");
    let now = renewed.body["now"].as_str().unwrap();
    assert!(now.ends_with('Z') && now.len() == "2026-11-24T10:00:00.123456Z".len(), "{now}");
    let released = project.rpc("release_session_leases", json!({ "bucket": "b", "keys": [key] })).await;
    assert_eq!(released.body["leases"], json!([{ "user": "u", "session": "s", "released": true }]));
    let granted = project.acquire("b").await;
    assert_eq!((&granted["epoch"], &granted["head"]), (&json!(2), &json!("1-1")));
    let counts = project.emulator.requests();
    assert_eq!((counts["rpc acquire_session_leases"], counts["rpc renew_session_leases"]), (3, 1));
}

#[tokio::test]
async fn a_lease_can_be_aged_and_the_tables_put_back() {
    let project = Project::new().await;
    project.acquire("a").await;
    let yesterday = project.emulator.tables();
    project.emulator.age_lease("b", "u", "s", Duration::from_secs(31)).unwrap();
    assert_eq!(project.acquire("b").await["epoch"], 2);
    project.emulator.put_tables(yesterday).unwrap();
    assert_eq!(project.emulator.tables().leases.get("b", "u", "s").unwrap().holder.as_deref(), Some("a"));
    assert!(project.emulator.age_lease("b", "u", "other", Duration::ZERO).is_err());
}

#[tokio::test]
async fn functions_and_leases_are_for_the_service_key_alone() {
    let project = Project::new().await;
    let (user, anon) = (project.emulator.user_jwt("u"), project.emulator.anon_key());
    for path in [ACQUIRE, "rpc/session_sidecar_report", "rpc/note_session_metadata"] {
        let body = json!({ "request": acquire("a") });
        let reply = project.call(&user, Method::POST, path, "", body.clone()).await;
        assert_eq!(reply.short(), "403 42501", "{path}");
        assert_eq!(project.call(anon, Method::POST, path, "", body).await.short(), "401 42501", "{path}");
    }
    let leases = "session_sidecar_leases";
    assert_eq!(project.call(&user, Method::GET, leases, "", Value::Null).await.short(), "403 42501");
    project.acquire("a").await;
    let seen =
        project.service(Method::GET, &format!("{leases}?select=holder,expires_at"), "", Value::Null).await;
    assert_eq!(seen.body[0]["holder"], "a");
    assert!(seen.body[0]["expires_at"].as_str().unwrap().ends_with("+00:00"));
}

#[tokio::test]
async fn tokens_and_keys_that_are_none_are_told_apart() {
    let project = Project::new().await;
    let expired = project.emulator.jwt(&json!({ "role": "service_role", "exp": 1 }));
    for (token, says) in [(expired.as_str(), "401 PGRST303"), ("garbage", "401 PGRST301")] {
        assert_eq!(project.call(token, Method::GET, SESSIONS, "", Value::Null).await.short(), says);
    }
    let url = format!("{}/rest/v1/{SESSIONS}", project.emulator.url());
    let bare = project.http.get(&url).bearer_auth(project.emulator.service_role_key()).send().await.unwrap();
    assert_eq!(bare.status(), 401, "the gateway wants an apikey");
    let secret = project.http.get(&url).header("apikey", project.emulator.secret_key()).send().await.unwrap();
    assert_eq!(secret.status(), 200);
    let unknown = project.http.get(&url).header("apikey", "sb_secret_x").send().await.unwrap();
    assert_eq!(unknown.status(), 401);
}

#[tokio::test]
async fn what_is_not_there_or_not_understood_says_so() {
    let project = Project::new().await;
    assert_eq!(project.rpc("no_such_function", json!({})).await.short(), "404 PGRST202");
    let named = project.service(Method::POST, ACQUIRE, "", json!({ "requests": {} })).await;
    assert_eq!(named.short(), "404 PGRST202");
    assert_eq!(project.service(Method::GET, "no_such_table", "", Value::Null).await.short(), "404 PGRST205");
    assert_eq!(project.rpc("acquire_session_leases", json!({ "keys": [] })).await.short(), "400 PT400");
    assert_eq!(project.get("user_id=like.u*").await.short(), "400 PGRST100");
    assert_eq!(project.get("select=nothing").await.short(), "400 42703");
    let unknown = project.service(Method::POST, SESSIONS, "", json!({ "nothing": 1 })).await;
    assert_eq!(unknown.short(), "400 PGRST204");
    assert_eq!(
        project.service(Method::POST, SESSIONS, "", json!({ "user_id": "u" })).await.short(),
        "400 23502"
    );
    let hasty = project.service(Method::DELETE, SESSIONS, "", Value::Null).await;
    assert_eq!(hasty.short(), "400 21000", "a forgotten filter");
}

#[tokio::test]
async fn without_the_sql_functions_and_tables_are_unknown() {
    let project = Project::new().await;
    project.emulator.set_schema(false);
    let reply = project.rpc("acquire_session_leases", acquire("a")).await;
    assert_eq!(reply.short(), "404 PGRST202");
    let message = "Could not find the function public.acquire_session_leases(request) in the schema cache";
    assert_eq!(reply.body["message"], message);
    assert_eq!(project.get("").await.short(), "404 PGRST205");
    project.emulator.set_schema(true);
    assert_eq!(project.acquire("a").await["granted"], true);
}

#[tokio::test]
async fn rows_are_inserted_changed_and_deleted() {
    let project = Project::new().await;
    let created = project.service(Method::POST, SESSIONS, "", session("u", "s")).await;
    assert_eq!((created.short().as_str(), &created.body, created.range()), ("201 ", &Value::Null, "*/*"));
    let again = project.service(Method::POST, SESSIONS, "", session("u", "s")).await;
    assert_eq!(again.short(), "409 23505");
    assert_eq!(again.body["details"], "Key (user_id, session_id)=(u, s) already exists.");
    let row = project.get("session_id=eq.s").await.body[0].clone();
    assert_eq!((&row["is_active"], &row["session_data"]), (&json!(true), &Value::Null));
    let made = row["created_at"].as_str().unwrap();
    assert!(made.ends_with("+00:00") && made.parse::<Timestamp>().is_ok(), "{made}");

    let path = format!("{SESSIONS}?session_id=eq.s&select=status");
    let quiet = project.service(Method::PATCH, &path, "", json!({ "status": "connected" })).await;
    assert_eq!((quiet.short().as_str(), quiet.range()), ("204 ", "0-0/*"));
    let told = "return=representation";
    let none = project
        .service(Method::PATCH, &format!("{path}&is_active=is.false"), told, json!({ "status": "x" }))
        .await;
    assert_eq!((none.short().as_str(), &none.body, none.range()), ("200 ", &json!([]), "*/*"));
    let gone = project.service(Method::DELETE, &path, told, Value::Null).await;
    assert_eq!((gone.short().as_str(), &gone.body), ("200 ", &json!([{ "status": "connected" }])));
    assert_eq!(project.get("").await.body, json!([]));
}

#[tokio::test]
async fn an_upsert_changes_only_the_columns_that_it_names() {
    let project = Project::new().await;
    let path = format!("{SESSIONS}?on_conflict=user_id,session_id");
    let row = |data: Value| json!([{ "user_id": "u", "session_id": "s", "session_data": data }]);
    let (merge, ignore) = (
        "resolution=merge-duplicates,return=representation",
        "resolution=ignore-duplicates,return=representation",
    );
    assert_eq!(project.service(Method::POST, &path, merge, row(json!({ "a": 1 }))).await.status, 201);
    let status = json!({ "status": "connected" });
    project.service(Method::PATCH, &format!("{SESSIONS}?user_id=eq.u"), "", status).await;
    let merged = project.service(Method::POST, &path, merge, row(json!({ "b": 2 }))).await;
    assert_eq!((merged.status, &merged.body[0]["session_data"]), (200, &json!({ "b": 2 })));
    assert_eq!(merged.body[0]["status"], "connected");
    let ignored = project.service(Method::POST, &path, ignore, row(json!({ "c": 3 }))).await;
    assert_eq!((ignored.status, &ignored.body), (200, &json!([])));
    assert_eq!(project.get("").await.body[0]["session_data"], json!({ "b": 2 }));
    let other =
        project.service(Method::POST, &format!("{SESSIONS}?on_conflict=status"), merge, row(json!({}))).await;
    assert_eq!(other.short(), "400 42P10");
}

#[tokio::test]
async fn rows_in_bulk_are_all_written_or_none() {
    let project = Project::new().await;
    let twice = json!([session("u", "a"), session("u", "b"), session("u", "a")]);
    assert_eq!(project.service(Method::POST, SESSIONS, "", twice).await.short(), "409 23505");
    let uneven = json!([session("u", "a"), { "user_id": "u", "session_id": "b", "status": "x" }]);
    assert_eq!(project.service(Method::POST, SESSIONS, "", uneven.clone()).await.short(), "400 PGRST102");
    assert_eq!(project.get("").await.body, json!([]));
    let path = format!("{SESSIONS}?columns=%22user_id%22,%22session_id%22,%22status%22");
    assert_eq!(project.service(Method::POST, &path, "", uneven).await.status, 201);
    let rows = project.get("select=session_id,status&order=session_id").await.body;
    assert_eq!(rows, json!([{ "session_id": "a", "status": null }, { "session_id": "b", "status": "x" }]));
}

#[tokio::test]
async fn an_answer_has_a_thousand_rows_at_most_and_says_which() {
    let project = Project::new().await;
    let rows: Vec<_> = (0..1003).map(|n| session("u", &format!("{n:04}"))).collect();
    assert_eq!(project.service(Method::POST, SESSIONS, "", json!(rows)).await.status, 201);
    let page = project.get("select=session_id&order=session_id").await;
    assert_eq!((page.body.as_array().unwrap().len(), page.range()), (1000, "0-999/*"));
    let rest = project.get("select=session_id&order=session_id&offset=1000").await;
    assert_eq!((&rest.body[0]["session_id"], rest.range()), (&json!("1000"), "1000-1002/*"));
    let path = format!("{SESSIONS}?order=session_id.desc&limit=2");
    let counted = project.service(Method::GET, &path, "count=exact", Value::Null).await;
    assert_eq!((counted.status, counted.range()), (206, "0-1/1003"));
    let counted = project.service(Method::HEAD, SESSIONS, "count=exact", Value::Null).await;
    assert_eq!(counted.range(), "0-999/1003");
    let beyond =
        project.service(Method::GET, &format!("{SESSIONS}?offset=2000"), "count=exact", Value::Null).await;
    assert_eq!(beyond.short(), "416 PGRST103");
}

#[tokio::test]
async fn one_row_is_given_as_an_object_and_two_are_refused_and_rolled_back() {
    let project = Project::new().await;
    project.service(Method::POST, SESSIONS, "", json!([session("u", "a"), session("u", "b")])).await;
    let key = project.emulator.service_role_key();
    let single = [("accept", "application/vnd.pgrst.object+json"), ("prefer", "return=representation")];
    let path = format!("{SESSIONS}?session_id=eq.a&select=session_id");
    let one = project.try_call(key, Method::GET, &path, &single, Value::Null).await.unwrap();
    assert_eq!((one.status, one.body), (200, json!({ "session_id": "a" })));
    let path = format!("{SESSIONS}?user_id=eq.u");
    let two = project.try_call(key, Method::DELETE, &path, &single, Value::Null).await.unwrap();
    assert_eq!(
        (two.short().as_str(), &two.body["details"]),
        ("406 PGRST116", &json!("The result contains 2 rows"))
    );
    assert_eq!(project.get("").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_user_reads_their_own_rows_and_only_the_service_key_writes() {
    let project = Project::new().await;
    project.service(Method::POST, SESSIONS, "", json!([session("u", "s"), session("v", "s")])).await;
    let (user, anon) = (project.emulator.user_jwt("u"), project.emulator.anon_key());
    let all = format!("{SESSIONS}?session_id=eq.s");
    let seen = project.call(&user, Method::GET, &format!("{all}&select=user_id"), "", Value::Null).await;
    assert_eq!(seen.body, json!([{ "user_id": "u" }]));
    assert_eq!(project.call(anon, Method::GET, SESSIONS, "", Value::Null).await.short(), "401 42501");
    for method in [Method::POST, Method::PATCH, Method::DELETE] {
        let refused = project.call(&user, method.clone(), &all, "", session("u", "t")).await;
        assert_eq!(refused.short(), "403 42501", "{method}");
    }
    assert_eq!(project.get("").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn notes_and_the_report_are_answered() {
    let project = Project::new().await;
    let row = json!({ "user": "u", "session": "s", "sidecar": { "head": "1" }, "create": true });
    let noted = project.rpc("note_session_metadata", json!({ "table": SESSIONS, "rows": [row] })).await;
    let wanted = json!({ "table": true, "rows": [{ "user": "u", "session": "s", "noted": true }] });
    assert_eq!(noted.body, wanted);
    assert_eq!(project.get("").await.body[0]["session_data"], json!({ "sidecar": { "head": "1" } }));
    let report = project
        .rpc("session_sidecar_report", json!({ "table": SESSIONS, "bucket": emulator::BUCKET }))
        .await
        .body;
    assert_eq!(
        (&report["table"]["exists"], &report["table"]["columns"]["session_data"]),
        (&json!(true), &json!("jsonb"))
    );
    assert_eq!(
        (&report["bucket"]["file_size_limit"], &report["history_policy"]),
        (&json!(10_485_760), &json!(false))
    );
    let commands: Vec<_> =
        report["policies"].as_array().unwrap().iter().map(|p| p["command"].clone()).collect();
    assert_eq!(commands, ["INSERT", "SELECT", "UPDATE", "DELETE", "ALL", "SELECT"]);
}

#[tokio::test]
async fn leases_and_rows_outlive_a_restart() {
    let mut project = Project::new().await;
    project.acquire("a").await;
    project.service(Method::POST, SESSIONS, "", session("u", "s")).await;
    let before = project.emulator.tables();
    project.emulator.stop().await;
    project.emulator = start(project.dir.path()).await;
    assert_eq!(project.emulator.tables(), before);
    assert_eq!(project.acquire("b").await["reason"], "held");
}

#[tokio::test]
async fn storage_and_database_fail_on_their_own() {
    let project = Project::new().await;
    let bucket = format!("{}/storage/v1/bucket", project.emulator.url());
    let storage = async || {
        let request = project.http.get(&bucket).bearer_auth(project.emulator.service_role_key());
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    };
    let key = project.emulator.service_role_key();
    let database = async || match project.try_call(key, Method::GET, SESSIONS, &[], Value::Null).await {
        Ok(reply) => reply.short(),
        Err(_) => "reset".to_owned(),
    };
    for (faults, storage_works, says) in [
        ("down=database", true, "503 PGRST000"),
        ("database-resets=1", true, "reset"),
        ("down=storage", false, "200 "),
        ("errors=1,resets=1,throttle=0.001", false, "200 "),
        ("down", false, "reset"),
        ("", true, "200 "),
    ] {
        project.emulator.set_faults(faults.parse().unwrap());
        assert_eq!((storage().await, database().await.as_str()), (storage_works, says), "{faults}");
    }
}

#[tokio::test]
async fn a_reset_comes_before_or_after_the_call_took_effect() {
    let project = Project::new().await;
    project.emulator.set_faults("database-resets=1".parse().unwrap());
    let key = project.emulator.service_role_key();
    for n in 0..20 {
        let row = session("u", &n.to_string());
        assert!(project.try_call(key, Method::POST, SESSIONS, &[], row).await.is_err());
    }
    let landed = project.emulator.tables().sessions.len();
    assert!(0 < landed && landed < 20, "{landed} of 20");
}
