//! Over a `whatsapp_sessions` that is older than we are, in all the forms that it may have.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{ALICE, BOB};
use crate::support::postgres::{Project, call, rows};

/// One form of the table.
#[derive(Debug, Clone, Copy)]
struct Form {
    id: &'static str,
    unique: bool,
    status: bool,
    data: &'static str,
}

const FORMS: [Form; 6] = [
    Form { id: "uuid", unique: true, status: true, data: "jsonb" },
    Form { id: "uuid", unique: false, status: false, data: "json" },
    Form { id: "text", unique: true, status: false, data: "jsonb" },
    Form { id: "text", unique: false, status: true, data: "json" },
    Form { id: "varchar(64)", unique: true, status: true, data: "json" },
    Form { id: "uuid", unique: false, status: true, data: "jsonb" },
];

impl Form {
    /// As the seed's service wrote it; with a row of Alice's.
    async fn make(self) -> (Project, Client) {
        let project = Project::new().await;
        let Self { id, data, .. } = self;
        let unique = if self.unique { ", unique (user_id, session_id)" } else { "" };
        let status = if self.status { ", status text default 'initializing'" } else { "" };
        let sql = format!(
            "create table public.whatsapp_sessions (
               id bigint generated always as identity primary key, user_id {id} not null, session_id text not null,
               session_name text, is_default boolean default false, is_active boolean, session_data {data},
               created_at timestamptz not null, last_activity timestamptz{status}{unique});
             alter table public.whatsapp_sessions enable row level security;
             create policy own on public.whatsapp_sessions for all to authenticated
               using (user_id::text = auth.uid()::text) with check (user_id::text = auth.uid()::text);
             insert into public.whatsapp_sessions (user_id, session_id, session_name, is_active, session_data, created_at)
               values ('{ALICE}', 's', 'home', true, '{{\"theirs\": [1, null], \"sidecar\": {{\"files\": 1, \"kept\": 2}}}}',
                 '2025-01-01T00:00:00Z')"
        );
        project.connect("postgres").await.batch_execute(&sql).await.unwrap();
        let service = project.request("service_role", None).await;
        (project, service)
    }
}

/// What `\d` says of the table, but for what is the role's.
async fn described(client: &Client) -> Vec<Value> {
    let sql = "select c.relrowsecurity,
         (select array_agg(a::text) from unnest(c.relacl) a where a::text not like 'session\\_sidecar=%') as relacl,
         (select jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) order by a.attnum)
          from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
         (select jsonb_agg(pg_get_constraintdef(k.oid) order by k.conname) from pg_constraint k where k.conrelid = c.oid) as constraints,
         (select jsonb_agg(to_jsonb(p)) from pg_policies p
          where p.tablename = c.relname and p.roles <> array['session_sidecar']::name[]) as policies
       from pg_class c where c.oid = 'public.whatsapp_sessions'::regclass";
    rows(client, sql).await.unwrap()
}

async fn note(client: &Client, row: Value) -> Value {
    let request = json!({ "table": "whatsapp_sessions", "rows": [row] });
    let answer = call(client, "note_session_metadata", &request).await.unwrap();
    assert_eq!(answer["table"], true);
    answer["rows"][0].clone()
}

async fn found(client: &Client, user: &str) -> Vec<Value> {
    rows(client, &format!("select * from whatsapp_sessions where user_id::text = '{user}'")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_table_keeps_its_shape_and_its_rows() {
    for form in FORMS {
        let (project, service) = form.make().await;
        let (before, row) = (described(&service).await, found(&service, ALICE).await);
        for _ in 0..2 {
            assert_eq!(project.apply().await, [""; 0], "{form:?}");
            assert_eq!(
                (described(&service).await, found(&service, ALICE).await),
                (before.clone(), row.clone()),
                "{form:?}"
            );
        }
        let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
        assert_eq!(report["table"]["unique"], form.unique);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_written_into_any_form_of_the_table() {
    for form in FORMS {
        let (project, service) = form.make().await;
        project.apply().await;
        let sidecar = json!({ "files": 5, "head": null });
        let row = json!({ "user": ALICE, "session": "s", "sidecar": sidecar, "status": "connected", "active": false });
        assert_eq!(
            note(&service, row).await,
            json!({ "user": ALICE, "session": "s", "noted": true }),
            "{form:?}"
        );
        let noted = found(&service, ALICE).await.remove(0);
        let data = json!({ "theirs": [1, null], "sidecar": { "files": 5, "kept": 2, "head": null } });
        assert_eq!((&noted["session_data"], &noted["is_active"]), (&data, &json!(false)), "{form:?}");
        assert_eq!(
            (&noted["session_name"], &noted["created_at"]),
            (&json!("home"), &json!("2025-01-01T00:00:00+00:00"))
        );
        assert!(noted["last_activity"].is_string());
        assert_eq!(noted.get("status"), form.status.then(|| json!("connected")).as_ref());

        // A new one, also where `created_at` must be given.
        let row =
            json!({ "user": BOB, "session": "new", "sidecar": {}, "status": "connecting", "create": true });
        assert_eq!(note(&service, row).await["noted"], true, "{form:?}");
        let made = found(&service, BOB).await.remove(0);
        assert_eq!((&made["is_active"], &made["session_data"]), (&json!(true), &json!({ "sidecar": {} })));
        assert_eq!(made.get("status"), form.status.then(|| json!("connecting")).as_ref());
        assert!(made["created_at"].is_string());

        // What is no uuid can be no user there; a longer one than the column holds is not cut to another's.
        let long = format!("{ALICE}{BOB}x");
        for user in ["carol", &long] {
            let row = json!({ "user": user, "session": "s", "sidecar": {}, "create": true });
            let answer = note(&service, row).await;
            let fits = form.id == "text" || (form.id.starts_with("varchar") && user == "carol");
            assert_eq!(
                (&answer["noted"], answer["why"].is_string()),
                (&json!(fits), !fits),
                "{form:?} {answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_that_cannot_be_written_does_not_keep_the_others_from_it() {
    let (project, service) = FORMS[0].make().await;
    project.apply().await;
    let owner = project.connect("postgres").await;
    owner.batch_execute("alter table whatsapp_sessions add check (session_id <> 'bad')").await.unwrap();
    owner
        .batch_execute("update whatsapp_sessions set session_data = '[1]' where session_id = 's'")
        .await
        .unwrap();
    let row = |user: &str, session: &str| json!({ "user": user, "session": session, "sidecar": {}, "create": true });
    let sent = [
        row(BOB, "z"),
        row("no-uuid", "s"),
        row(BOB, "bad"),
        row(ALICE, "s"),
        row(ALICE, "null"),
        row(BOB, "a"),
    ];
    owner
        .batch_execute(&format!(
            "insert into whatsapp_sessions (user_id, session_id, session_data, created_at) values ('{ALICE}', 'null', 'null', now())"
        ))
        .await
        .unwrap();
    let request = json!({ "table": "whatsapp_sessions", "rows": sent });
    let answer = call(&service, "note_session_metadata", &request).await.unwrap();
    let answers = answer["rows"].as_array().unwrap();
    let noted: Vec<_> = answers.iter().map(|row| row["noted"].as_bool().unwrap()).collect();
    assert_eq!(noted, [true, false, false, true, true, true], "{answer}");
    assert!(answers[1]["why"].as_str().unwrap().contains("uuid"), "{answer}");
    assert!(answers[2]["why"].as_str().unwrap().contains("check constraint"), "{answer}");
    // Data that is no object is not ours to replace; that which is nothing is.
    assert!(answers[3]["why"].as_str().unwrap().contains("left alone"), "{answer}");
    let mut data: Vec<_> =
        found(&service, ALICE).await.iter().map(|row| row["session_data"].clone()).collect();
    data.sort_by_key(Value::to_string);
    assert_eq!(data, [json!([1]), json!({ "sidecar": {} })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_unique_constraint_a_row_is_still_made_once_and_all_that_match_are_noted() {
    let (project, service) = FORMS[1].make().await;
    project.apply().await;
    let clients = futures_util::future::join_all((0..8).map(|_| project.request("service_role", None))).await;
    let row = json!({ "user": BOB, "session": "s", "sidecar": {}, "create": true });
    futures_util::future::join_all(clients.iter().map(|client| note(client, row.clone()))).await;
    assert_eq!(found(&service, BOB).await.len(), 1);

    let twice = "insert into whatsapp_sessions (user_id, session_id, created_at)
        select user_id, session_id, created_at from whatsapp_sessions";
    project.connect("postgres").await.batch_execute(twice).await.unwrap();
    note(&service, json!({ "user": BOB, "session": "s", "sidecar": { "files": 9 } })).await;
    let both: Vec<_> = found(&service, BOB).await.iter().map(|row| row["session_data"].clone()).collect();
    assert_eq!(both, [json!({ "sidecar": { "files": 9 } }), json!({ "sidecar": { "files": 9 } })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_lacks_is_added_and_who_may_read_it_stays_as_it_was() {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    let sql = "create table whatsapp_sessions (user_id uuid not null, session_id text not null);
        insert into whatsapp_sessions values ('11111111-1111-4111-8111-111111111111', 's')";
    owner.batch_execute(sql).await.unwrap();
    let service = project.request("service_role", None).await;
    let before = described(&service).await.remove(0);
    let remarks = project.apply().await;
    assert!(remarks.len() == 1 && remarks[0].contains("stays off"), "{remarks:?}");
    let after = described(&service).await.remove(0);
    for same in ["relacl", "relrowsecurity", "constraints", "policies"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let row = json!({ "user_id": ALICE, "session_id": "s", "session_data": null, "is_active": true, "last_activity": null });
    assert_eq!(found(&service, ALICE).await, [row]);
    assert_eq!(found(&project.request("anon", None).await, ALICE).await.len(), 1, "an app may depend on it");

    // Once its owner has enabled row-level security, users read their own.
    owner.batch_execute("alter table whatsapp_sessions enable row level security").await.unwrap();
    assert_eq!(project.apply().await, [""; 0]);
    assert_eq!(found(&project.request("authenticated", Some(ALICE)).await, ALICE).await.len(), 1);
    assert!(found(&project.request("authenticated", Some(BOB)).await, ALICE).await.is_empty());
    assert!(found(&project.request("anon", None).await, ALICE).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_that_name_is_left_alone() {
    let project = Project::new().await;
    let owner = project.connect("postgres").await;
    owner
        .batch_execute("create view whatsapp_sessions as select 'u' as user_id, 's' as session_id")
        .await
        .unwrap();
    let remarks = project.apply().await;
    assert!(remarks.len() == 1 && remarks[0].contains("no table"), "{remarks:?}");
    let service = project.request("service_role", None).await;
    let request = json!({ "table": "whatsapp_sessions", "rows": [] });
    let answer = call(&service, "note_session_metadata", &request).await.unwrap();
    assert_eq!(answer, json!({ "table": false, "rows": [] }));
}
