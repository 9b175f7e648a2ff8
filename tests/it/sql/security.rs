//! Who reaches what: as nobody, as two users, as a role of somebody's own, and with the secret key.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{ALICE, BOB, SEEDS_POLICIES};
use crate::support::postgres::{Project, call, refusal, rows};

const HISTORY: &str =
    ".history/11111111-1111-4111-8111-111111111111/s/00000001-00000001-00000000.base.tar.zst";

/// A project with the seed's policies and objects of both users.
async fn project(sql: bool) -> Project {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    owner
        .batch_execute(
            "insert into storage.buckets (id, name) values ('whatsapp-sessions', 'whatsapp-sessions'), ('other', 'other')",
        )
        .await
        .unwrap();
    owner.batch_execute(SEEDS_POLICIES).await.unwrap();
    if sql {
        project.apply().await;
    }
    let service = project.request("service_role", None).await;
    for name in
        [&format!("{ALICE}/s/creds.json"), &format!("{BOB}/s/creds.json"), HISTORY, ".history", ".History/x"]
    {
        insert(&service, "whatsapp-sessions", name).await.unwrap();
    }
    insert(&service, "other", HISTORY).await.unwrap();
    project
}

async fn insert(client: &Client, bucket: &str, name: &str) -> Result<u64, String> {
    let sql = "insert into storage.objects (bucket_id, name) values ($1, $2)";
    client.execute(sql, &[&bucket, &name]).await.map_err(|error| refusal(&error))
}

/// The names in our bucket that somebody sees.
async fn names(client: &Client) -> Vec<String> {
    let sql =
        "select name from storage.objects where bucket_id = 'whatsapp-sessions' order by name collate \"C\"";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Every way to read or change what lies below `.history/`.
async fn assert_closed(client: &Client, who: &str) {
    let open = names(client).await;
    assert!(open.iter().all(|name| !name.to_lowercase().starts_with(".history")), "{who} sees {open:?}");
    for name in [".history/a/b/c", ".history/x", ".history", ".HISTORY/a/b/c"] {
        let error =
            insert(client, "whatsapp-sessions", name).await.expect_err(&format!("{who} writes {name}"));
        assert!(error.starts_with("42501"), "{who}: {error}");
    }
    let moved = "update storage.objects set name = '.history/' || name where bucket_id = 'whatsapp-sessions' and name like $1";
    match client.execute(moved, &[&format!("{ALICE}/%")]).await {
        Ok(moved) => assert_eq!(moved, 0, "{who} moves an object into the history"),
        Err(error) => assert!(refusal(&error).starts_with("42501"), "{error}"),
    }
    for change in ["update storage.objects set metadata = '{}'", "delete from storage.objects"] {
        let sql = format!("{change} where bucket_id = 'whatsapp-sessions' and name ilike '.history%'");
        assert_eq!(client.execute(&sql, &[]).await.unwrap(), 0, "{who}: {change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_secret_key_reaches_the_history() {
    let project = project(true).await;
    let alice = project.request("authenticated", Some(ALICE)).await;
    assert_eq!(names(&alice).await, [format!("{ALICE}/s/creds.json")]);
    assert_closed(&alice, "alice").await;
    assert_closed(&project.request("authenticated", Some(BOB)).await, "bob").await;
    // A user id that is the folder's name.
    let anon = project.request("anon", None).await;
    assert!(names(&anon).await.is_empty());
    assert_closed(&anon, "anon").await;

    let service = project.request("service_role", None).await;
    assert_eq!(names(&service).await.len(), 5);
    insert(&service, "whatsapp-sessions", ".history/a/b/c").await.unwrap();
    let deleted = service.execute("delete from storage.objects where name = '.history/a/b/c'", &[]).await;
    assert_eq!(deleted.unwrap(), 1);
}

const CARELESS: &str = "
    create role editor nologin; grant editor to authenticator, postgres;
    grant usage on schema storage, auth to editor; grant all on storage.objects to editor;
    create policy careless on storage.objects for all to public using (true) with check (true);";

#[tokio::test(flavor = "multi_thread")]
async fn not_even_a_careless_policy_opens_the_history() {
    let project = project(true).await;
    project
        .connect("postgres")
        .await
        .batch_execute(CARELESS)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    for (role, user) in [("anon", None), ("authenticated", Some(ALICE)), ("editor", None)] {
        let client = project.request(role, user).await;
        // It is careless indeed.
        assert_eq!(names(&client).await.len(), 2, "{role}");
        let other = "select from storage.objects where bucket_id = 'other' and name like '.history/%'";
        assert_eq!(client.query(other, &[]).await.unwrap().len(), 1, "another bucket is not ours");
        assert_closed(&client, role).await;
    }
    // The same without our policy: this is what it is for.
    let owner = project.connect("postgres").await;
    owner
        .batch_execute("drop policy \"session-sidecar: history of whatsapp-sessions\" on storage.objects")
        .await
        .unwrap();
    assert_eq!(names(&project.request("anon", None).await).await.len(), 5);
    owner.batch_execute("drop owned by editor; drop role editor").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reads_only_their_own_rows() {
    let project = Project::ready().await;
    let service = project.request("service_role", None).await;
    let users = [ALICE, BOB, "auth0|carol"];
    let noted = users.map(|user| json!({ "user": user, "session": "s", "sidecar": {}, "create": true }));
    let noted = json!({ "table": "whatsapp_sessions", "rows": noted });
    call(&service, "note_session_metadata", &noted).await.unwrap();
    assert_eq!(rows(&service, "select * from whatsapp_sessions").await.unwrap().len(), 3);
    for user in users {
        let client = project.request("authenticated", Some(user)).await;
        assert_eq!(
            rows(&client, "select user_id from whatsapp_sessions").await.unwrap(),
            [json!({ "user_id": user })]
        );
        for change in [
            "update whatsapp_sessions set is_active = false",
            "delete from whatsapp_sessions",
            "truncate whatsapp_sessions",
            "insert into whatsapp_sessions (user_id, session_id) values ('x', 'y')",
        ] {
            let error = client.execute(change, &[]).await.unwrap_err();
            assert!(refusal(&error).starts_with("42501"), "{change}: {error}");
        }
    }
    let anon = project.request("anon", None).await;
    assert!(rows(&anon, "select * from whatsapp_sessions").await.unwrap_err().starts_with("42501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_secret_key_calls_the_functions_or_reads_the_leases() {
    let project = Project::ready().await;
    let ours = "select p.oid::regprocedure::text as name,
          has_function_privilege('anon', p.oid, 'execute') or has_function_privilege('authenticated', p.oid, 'execute')
            or exists (select from aclexplode(p.proacl) a where a.grantee = 0) as open,
          has_function_privilege('service_role', p.oid, 'execute') as service, p.proconfig::text as config
        from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prolang <> 13 and p.prorettype <> 'event_trigger'::regtype";
    let functions = rows(&project.connect("postgres").await, ours).await.unwrap();
    assert_eq!(functions.len(), 13, "{functions:?}");
    for function in &functions {
        assert_eq!((&function["open"], &function["service"]), (&json!(false), &json!(true)), "{function}");
        assert_eq!(function["config"], "{\"search_path=\\\"\\\"\"}");
    }
    for (role, user) in [("anon", None), ("authenticated", Some(ALICE))] {
        let client = project.request(role, user).await;
        for function in session_sidecar::supabase::schema::FUNCTIONS {
            let error = call(&client, function, &json!({})).await.unwrap_err();
            assert!(error.starts_with("42501"), "{role} calls {function}: {error}");
        }
        for sql in ["select from session_sidecar_leases", "truncate session_sidecar_leases"] {
            assert!(
                refusal(&client.execute(sql, &[]).await.unwrap_err()).starts_with("42501"),
                "{role}: {sql}"
            );
        }
    }
    let service = project.request("service_role", None).await;
    let report: Value = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    assert_eq!(report["history_policy"], true);
    assert!(rows(&service, "select * from session_sidecar_leases").await.unwrap().is_empty());
}
