//! The role `session_sidecar`: all that the binary does works as it, and nothing else does.

use serde_json::{Value, json};
use session_sidecar::supabase::{Database, schema};
use tokio_postgres::Client;

use super::SEEDS_POLICIES;
use crate::support::postgres::{Project, call, refusal, rows};

/// What lies in the bucket: users whose ids look alike, to a pattern or to a careless prefix.
const NAMES: [&str; 14] = [
    ".History/a/s/x",
    ".history/.doctor-1/x",
    ".history/a/s/.claim-1",
    ".history/a/s/x",
    ".history/a/st/x",
    ".history/a_/s/x",
    ".history/ab/s/x",
    "A/s/x",
    "a/s/keys/x",
    "a/s/x",
    "a/t/x",
    "a_/s/x",
    "ab/s/x",
    "x",
];

fn token(user: Option<&str>, session: Option<&str>) -> Value {
    let mut claims = json!({ "role": "session_sidecar" });
    for (name, id) in [("sidecar_user", user), ("sidecar_session", session)] {
        if let Some(id) = id {
            claims[name] = id.into();
        }
    }
    claims
}

/// A project with the seed's policies and a careless one, and with objects, leases and rows of several users.
async fn project() -> Project {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    owner.batch_execute(SEEDS_POLICIES).await.unwrap();
    owner
        .batch_execute(
            "create table secrets (id int); create function of_the_app() returns int language sql as 'select 1';
             revoke execute on function of_the_app() from public;
             insert into storage.buckets (id, name) values ('other', 'other');
             create policy careless on storage.objects for all to public using (true) with check (true)",
        )
        .await
        .unwrap();
    assert_eq!(project.apply().await, [""; 0]);
    let service = project.request("service_role", None).await;
    for name in NAMES {
        service.execute(INSERT, &[&"whatsapp-sessions", &name]).await.unwrap();
        service.execute(INSERT, &[&"other", &name]).await.unwrap();
    }
    let users = ["a", "ab", "a_"];
    let note = users.map(|user| json!({ "user": user, "session": "s", "sidecar": {}, "create": true }));
    call(&service, "note_session_metadata", &json!({ "table": "whatsapp_sessions", "rows": note }))
        .await
        .unwrap();
    let keys = users.map(|user| json!({ "user": user, "session": "s", "holder": "other" }));
    for bucket in ["whatsapp-sessions", "other"] {
        let request = json!({ "bucket": bucket, "ttl": 30, "keys": keys });
        call(&service, "acquire_session_leases", &request).await.unwrap();
    }
    project
}

const INSERT: &str = "insert into storage.objects (bucket_id, name) values ($1, $2)";

async fn insert(client: &Client, bucket: &str, name: &str) -> Result<u64, String> {
    client.execute(INSERT, &[&bucket, &name]).await.map_err(|error| refusal(&error))
}

/// All names that somebody sees, of whatever bucket.
async fn names(client: &Client) -> Vec<String> {
    let sql =
        "select case bucket_id when 'whatsapp-sessions' then name else bucket_id || ':' || name end as name
        from storage.objects order by bucket_id collate \"C\" desc, name collate \"C\"";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn moved(client: &Client, from: &str, set: &str) -> Result<u64, String> {
    let sql = format!("update storage.objects set {set} where bucket_id = 'whatsapp-sessions' and name = $1");
    client.execute(&sql, &[&from]).await.map_err(|error| refusal(&error))
}

fn lease(user: &str, session: &str) -> Value {
    json!({ "user": user, "session": session, "holder": "h", "epoch": 1, "above": 0 })
}

fn leases(bucket: &str, keys: &[Value]) -> Value {
    json!({ "bucket": bucket, "ttl": 30, "keys": keys })
}

const LEASES: [&str; 3] = ["acquire_session_leases", "renew_session_leases", "release_session_leases"];

/// What the binary does with a session.
async fn works(client: &Client, user: &str, session: &str) {
    let (mirror, history) = (format!("{user}/{session}/"), format!(".history/{user}/{session}/"));
    for folder in [&mirror, &history] {
        let [first, second] = ["new", ".claim-2"].map(|name| format!("{folder}{name}"));
        insert(client, "whatsapp-sessions", &first).await.unwrap();
        assert!(names(client).await.contains(&first));
        assert_eq!(moved(client, &first, &format!("name = '{second}', metadata = '{{}}'")).await, Ok(1));
        let deleted = client.execute("delete from storage.objects where name = $1", &[&second]).await;
        assert_eq!(deleted.unwrap(), 1);
    }
    assert_eq!(
        rows(client, "select id from storage.buckets").await.unwrap(),
        [json!({ "id": "whatsapp-sessions" })]
    );
    let keys = [lease(user, session)];
    for (function, told) in LEASES.into_iter().zip(["granted", "state", "released"]) {
        let answer = call(client, function, &leases("whatsapp-sessions", &keys)).await.unwrap();
        let told = &answer["leases"][0][told];
        assert!(*told == json!(true) || *told == json!("held"), "{function}: {answer}");
    }
    let sidecar = json!({ "user": user, "session": session, "sidecar": { "files": 1 }, "create": true, "active": true });
    for again in [json!(true), json!(false)] {
        let request = json!({ "table": "whatsapp_sessions", "rows": [sidecar], "again": again });
        let answer = call(client, "note_session_metadata", &request).await.unwrap();
        assert_eq!(answer["rows"][0]["noted"], true, "{answer}");
    }
    let report = call(client, "session_sidecar_report", &json!({})).await.unwrap();
    let report: schema::Report = serde_json::from_value(report).unwrap();
    assert_eq!((report.missing(), report.bucket.is_some()), (Vec::new(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_does_all_that_a_sidecar_does_and_nothing_else() {
    let project = project().await;
    let role = project.token(&token(None, None)).await;
    assert_eq!(names(&role).await, NAMES);
    works(&role, "new", "s").await;
    works(&role, "a", "t").await;

    // Relation by relation, function by function.
    let owner = project.connect("postgres").await;
    let granted = "select c.oid::regclass::text as relation, string_agg(p, ' ' order by p) as rights
        from pg_class c, unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p
        where c.relkind in ('r', 'v', 'm', 'p', 'f') and c.relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema')
          and (has_table_privilege('session_sidecar', c.oid, p)
            or p in ('select', 'insert', 'update', 'references') and has_any_column_privilege('session_sidecar', c.oid, p))
        group by 1 order by 1";
    let wanted = [
        ("session_sidecar_leases", "insert select update"),
        ("storage.buckets", "select"),
        ("storage.objects", "delete insert select update"),
        ("whatsapp_sessions", "insert select update"),
    ];
    let wanted = wanted.map(|(relation, rights)| json!({ "relation": relation, "rights": rights }));
    assert_eq!(rows(&owner, granted).await.unwrap(), wanted);
    let functions = "select p.proname as name from pg_proc p
        where p.pronamespace = 'public'::regnamespace and has_function_privilege('session_sidecar', p.oid, 'execute')
          and p.prorettype <> 'event_trigger'::regtype
          and p.proname not like 'session\\_sidecar\\_%' order by 1";
    let functions: Vec<_> = rows(&owner, functions).await.unwrap();
    let wanted =
        ["acquire_session_leases", "note_session_metadata", "release_session_leases", "renew_session_leases"];
    assert_eq!(functions, wanted.map(|name| json!({ "name": name })));
    let role_itself = "select rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolinherit as any,
        (select count(*) from pg_auth_members m where m.member = r.oid) as member from pg_roles r where rolname = 'session_sidecar'";
    assert_eq!(rows(&owner, role_itself).await.unwrap(), [json!({ "any": false, "member": 0 })]);

    // Row by row, although a careless policy opens everything to everybody.
    assert!(insert(&role, "other", "a/s/new").await.unwrap_err().starts_with("42501"));
    assert!(moved(&role, "a/s/x", "bucket_id = 'other', name = 'b'").await.unwrap_err().starts_with("42501"));
    let deleted = role.execute("delete from storage.objects where bucket_id = 'other'", &[]).await;
    assert_eq!(deleted.unwrap(), 0);
    for sql in [
        "insert into storage.buckets (id, name) values ('b', 'b')",
        "update storage.buckets set public = true",
        "delete from storage.buckets",
        "delete from session_sidecar_leases",
        "delete from whatsapp_sessions",
        "truncate storage.objects",
        "select from secrets",
        "select public.of_the_app()",
        "create table public.mine (id int)",
    ] {
        let error = refusal(&role.execute(sql, &[]).await.unwrap_err());
        assert!(error.starts_with("42501"), "{sql}: {error}");
    }
    // Nor the leases of another bucket, whose service may have the secret key.
    for function in LEASES {
        let error = call(&role, function, &leases("other", &[lease("a", "s")])).await.unwrap_err();
        assert!(error.starts_with("PT403"), "{function}: {error}");
    }
    let seen = rows(&role, "select distinct bucket from session_sidecar_leases").await.unwrap();
    assert_eq!(seen, [json!({ "bucket": "whatsapp-sessions" })]);
    let note = json!({ "table": "secrets", "rows": [] });
    assert_eq!(call(&role, "note_session_metadata", &note).await.unwrap()["table"], false);
}

/// Everything beside what a narrowed token is for.
async fn is_kept_to(client: &Client, user: &str, sessions: &[&str], seen: &[&str]) {
    assert_eq!(names(client).await, seen, "{user} {sessions:?}");
    for name in NAMES.iter().filter(|name| !seen.contains(name)) {
        let there = format!("{name}-2");
        let error = insert(client, "whatsapp-sessions", &there).await.unwrap_err();
        assert!(error.starts_with("42501"), "{user} writes {there}: {error}");
        let error = moved(client, seen[0], &format!("name = '{there}'")).await.unwrap_err();
        assert!(error.starts_with("42501"), "{user} moves to {there}: {error}");
        assert_eq!(moved(client, name, "metadata = '{}'").await, Ok(0), "{user} changes {name}");
        let deleted = client.execute("delete from storage.objects where name = $1", &[name]).await;
        assert_eq!(deleted.unwrap(), 0, "{user} deletes {name}");
    }
    for way_out in [format!("{user}/../ab/s/x"), format!(".history/{user}/{}/../../ab/s/x", sessions[0])] {
        assert!(
            insert(client, "whatsapp-sessions", &way_out).await.unwrap_err().starts_with("42501"),
            "{way_out}"
        );
    }
    assert!(moved(client, seen[0], "bucket_id = 'other'").await.unwrap_err().starts_with("42501"));

    for (other, session) in
        [("ab", "s"), ("a_", "s"), ("a", "st"), ("A", "s"), ("a/s", "x"), ("", "s"), ("%", "s")]
    {
        if other == user && (sessions.contains(&session) || sessions.len() > 1) || other.is_empty() {
            continue;
        }
        // One's own beside it changes nothing: the call is refused whole.
        let keys = [lease(user, sessions[0]), lease(other, session)];
        for function in LEASES {
            let error = call(client, function, &leases("whatsapp-sessions", &keys)).await.unwrap_err();
            assert!(error.starts_with("PT403"), "{user} {function} {other}/{session}: {error}");
        }
        let row = json!({ "user": other, "session": session, "sidecar": {}, "create": true });
        let note = json!({ "table": "whatsapp_sessions", "rows": [row] });
        let error = call(client, "note_session_metadata", &note).await.unwrap_err();
        assert!(error.starts_with("PT403"), "{user} notes {other}/{session}: {error}");
        for sql in [
            "insert into session_sidecar_leases (bucket, user_id, session_id) values ('whatsapp-sessions', $1, $2)",
            "insert into whatsapp_sessions (user_id, session_id) values ($1, $2)",
        ] {
            let error = refusal(&client.execute(sql, &[&other, &session]).await.unwrap_err());
            assert!(error.starts_with("42501"), "{user} {sql} {other}: {error}");
        }
    }
    for table in ["session_sidecar_leases", "whatsapp_sessions"] {
        let sql = format!("select user_id, session_id from {table}");
        for row in rows(client, &sql).await.unwrap() {
            let session = row["session_id"].as_str().unwrap();
            assert!(
                row["user_id"] == user && (sessions.contains(&session) || sessions.len() > 1),
                "{user} sees {row}"
            );
        }
        let others = format!("update {table} set updated_at = now() where user_id <> '{user}'");
        let others =
            others.replace("whatsapp_sessions set updated_at", "whatsapp_sessions set last_activity");
        assert_eq!(client.execute(&others, &[]).await.unwrap(), 0);
        let own = format!("update {table} set user_id = 'ab', session_id = 'new' where user_id = '{user}'");
        assert!(refusal(&client.execute(&own, &[]).await.unwrap_err()).starts_with("42501"), "{own}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_user_or_a_session_reaches_no_more_than_that() {
    let project = project().await;
    let user = project.token(&token(Some("a"), None)).await;
    works(&user, "a", "s2").await;
    let seen = [".history/a/s/.claim-1", ".history/a/s/x", ".history/a/st/x", "a/s/keys/x", "a/s/x", "a/t/x"];
    // All of a user's.
    is_kept_to(&user, "a", &["s2", "s"], &seen).await;

    let session = project.token(&token(Some("a"), Some("t"))).await;
    works(&session, "a", "t").await;
    is_kept_to(&session, "a", &["t"], &["a/t/x"]).await;

    // `_` is any character to LIKE.
    let other = project.token(&token(Some("a_"), None)).await;
    works(&other, "a_", "t").await;
    is_kept_to(&other, "a_", &["t", "s"], &[".history/a_/s/x", "a_/s/x"]).await;

    // What nobody was told apart: the leases that others hold are as they were.
    let service = project.request("service_role", None).await;
    let held = rows(&service, "select holder, epoch from session_sidecar_leases where session_id = 's'")
        .await
        .unwrap();
    assert_eq!(held, vec![json!({ "holder": "other", "epoch": 1 }); 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_no_ids_open_nothing() {
    let project = project().await;
    let with = |name: &str, value: Value| {
        let mut claims = token(Some("a"), None);
        claims[name] = value;
        claims
    };
    let mut bad: Vec<_> = ["", ".history", ".", "a/s", "%", "a\n"]
        .into_iter()
        .flat_map(|id| [with("sidecar_user", id.into()), with("sidecar_session", id.into())])
        .collect();
    bad.extend([with("sidecar_user", Value::Null), with("sidecar_session", Value::Null)]);
    bad.extend([with("sidecar_user", 7.into()), token(None, Some("s")), json!([]), Value::Null]);
    for claims in bad {
        let client = project.token(&claims).await;
        assert_eq!(names(&client).await, [""; 0], "{claims}");
        assert!(
            insert(&client, "whatsapp-sessions", "a/s/new").await.unwrap_err().starts_with("42501"),
            "{claims}"
        );
        let error =
            call(&client, LEASES[0], &leases("whatsapp-sessions", &[lease("a", "s")])).await.unwrap_err();
        assert!(error.starts_with("PT403"), "{claims}: {error}");
        assert!(rows(&client, "select from whatsapp_sessions").await.unwrap().is_empty(), "{claims}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_of_an_older_version_gets_the_role_and_one_of_two_buckets_keeps_both() {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    // As it was before there was a role.
    let older = schema::sql("whatsapp-sessions", Some("whatsapp_sessions"));
    let older = older.split("-- session-sidecar, 4 of 4").next().unwrap();
    owner.batch_execute(older).await.unwrap();
    owner
        .batch_execute(
            "alter policy \"session-sidecar: history of whatsapp-sessions\" on storage.objects
               using (current_user = 'service_role' or name not like '.history/%')
               with check (current_user = 'service_role' or name not like '.history/%')",
        )
        .await
        .unwrap();
    let service = project.request("service_role", None).await;
    let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    let report: schema::Report = serde_json::from_value(report).unwrap();
    assert_eq!(report.missing(), ["the role session_sidecar, which tokens are for"]);
    call(&service, LEASES[0], &leases("whatsapp-sessions", &[lease("a", "s")])).await.unwrap();

    assert_eq!(project.apply().await, [""; 0]);
    works(&project.token(&token(Some("a"), Some("s2"))).await, "a", "s2").await;
    let database = Database::parse(&project.url()).unwrap();
    for _ in 0..2 {
        let remarks = database.apply(&schema::sql("second", Some("whatsapp_sessions")), None).await.unwrap();
        assert_eq!(remarks, [""; 0]);
    }
    let role = project.token(&token(Some("a"), None)).await;
    insert(&role, "second", ".history/a/s/x").await.unwrap();
    insert(&role, "whatsapp-sessions", ".history/a/s/x").await.unwrap();
    assert_eq!(names(&role).await, [".history/a/s/x", "second:.history/a/s/x"]);
    let buckets = rows(&role, "select id from storage.buckets order by id").await.unwrap();
    assert_eq!(buckets, [json!({ "id": "second" }), json!({ "id": "whatsapp-sessions" })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_row_level_security_stays_closed_to_tokens() {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    owner
        .batch_execute(
            "create table bots (id serial primary key, user_id uuid, session_id text, session_data json, is_active boolean);
             insert into bots (user_id, session_id) values ('22222222-2222-4222-8222-222222222222', 's')",
        )
        .await
        .unwrap();
    let database = Database::parse(&project.url()).unwrap();
    let sql = schema::sql("whatsapp-sessions", Some("bots"));
    assert_eq!(database.apply(&sql, None).await.unwrap(), [""; 0]);
    let role = project.token(&token(Some(super::ALICE), None)).await;
    let row = json!({ "user": super::ALICE, "session": "s", "sidecar": {}, "create": true });
    let note = json!({ "table": "bots", "rows": [row] });
    let answer = call(&role, "note_session_metadata", &note).await.unwrap();
    assert!(answer["rows"][0]["why"].as_str().unwrap().contains("permission denied"), "{answer}");

    owner.batch_execute("alter table bots enable row level security").await.unwrap();
    database.apply(&sql, None).await.unwrap();
    let answer = call(&role, "note_session_metadata", &note).await.unwrap();
    assert_eq!(answer["rows"][0]["noted"], true, "{answer}");
    let seen = rows(&role, "select user_id from bots").await.unwrap();
    assert_eq!(seen, [json!({ "user_id": super::ALICE })]);
    // Another table than the one that was named is none of its business.
    assert!(rows(&role, "select from whatsapp_sessions").await.unwrap_err().starts_with("42501"));

    owner.batch_execute("alter table bots disable row level security").await.unwrap();
    database.apply(&sql, None).await.unwrap();
    assert!(rows(&role, "select from bots").await.unwrap_err().starts_with("42501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_everybody_that_reads_what_the_role_may_not_is_remarked() {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    owner
        .batch_execute(
            "create table members (user_id text); grant select on members to anon, authenticated;
             create policy \"members only\" on storage.objects for select to public
               using (exists (select from members m where m.user_id = auth.jwt() ->> 'sub'))",
        )
        .await
        .unwrap();
    let remarks = project.apply().await;
    assert!(
        remarks.len() == 1 && ["members only", "members,"].iter().all(|says| remarks[0].contains(says)),
        "{remarks:?}"
    );
    let role = project.token(&token(None, None)).await;
    let error = rows(&role, "select from storage.objects").await.unwrap_err();
    assert!(error.contains("permission denied for table members"), "{error}");
    owner.batch_execute("alter policy \"members only\" on storage.objects to authenticated").await.unwrap();
    assert_eq!(project.apply().await, [""; 0]);
    assert!(rows(&role, "select from storage.objects").await.unwrap().is_empty());
}
