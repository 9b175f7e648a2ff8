//! Applying the SQL: again, by psql, over what is there, by a role that may do less.

use serde_json::{Value, json};
use session_sidecar::supabase::schema;

use crate::support::postgres::{Project, call, rows};

/// All that `pg_catalog` says of a schema's tables, their columns, triggers, grants and policies.
async fn catalogue(project: &Project, schema: &str) -> Vec<Value> {
    let sql = format!(
        "select c.relname, c.relowner::regrole::text, c.relacl::text, c.relrowsecurity, c.relforcerowsecurity,
           (select jsonb_agg(to_jsonb(a) - 'attrelid' order by a.attnum) from pg_attribute a where a.attrelid = c.oid) as columns,
           (select jsonb_agg(t.tgname) from pg_trigger t where t.tgrelid = c.oid) as triggers,
           (select jsonb_agg(pg_get_constraintdef(k.oid) order by k.conname) from pg_constraint k where k.conrelid = c.oid) as constraints,
           (select jsonb_agg(to_jsonb(p) order by p.policyname) from pg_policies p
            where (p.schemaname, p.tablename) = (c.relnamespace::regnamespace::text, c.relname)) as policies
         from pg_class c where c.relnamespace = '{schema}'::regnamespace order by 1"
    );
    rows(&project.connect("supabase_admin").await, &sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_again_it_changes_nothing_and_remarks_nothing() {
    let project = Project::ready().await;
    let service = project.request("service_role", None).await;
    let keys = json!([{ "user": "u", "session": "s", "holder": "a" }]);
    let request = json!({ "bucket": "whatsapp-sessions", "ttl": 30, "keys": keys });
    call(&service, "acquire_session_leases", &request).await.unwrap();
    let before = (catalogue(&project, "public").await, catalogue(&project, "storage").await);
    assert_eq!(project.apply().await, [""; 0]);
    assert_eq!((catalogue(&project, "public").await, catalogue(&project, "storage").await), before);
    let leases = rows(&service, "select epoch, holder from session_sidecar_leases").await.unwrap();
    assert_eq!(leases, [json!({ "epoch": 1, "holder": "a" })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_gets_policies_and_a_row_and_the_role_its_rights() {
    let project = Project::new().await;
    let before = catalogue(&project, "storage").await;
    project.apply().await;
    let mut after = catalogue(&project, "storage").await;
    let policies: Vec<_> = after.iter_mut().map(|table| table["policies"].take()).collect();
    let added: Vec<_> = policies.iter().filter_map(Value::as_array).flatten().collect();
    let (of_everybody, of_role): (Vec<_>, Vec<_>) =
        added.into_iter().partition(|policy| policy["roles"] == json!(["public"]));
    assert_eq!((of_everybody.len(), &of_everybody[0]["permissive"]), (1, &json!("RESTRICTIVE")));
    assert_eq!(of_everybody[0]["cmd"], "ALL");
    assert!(of_role.len() == 4 && of_role.iter().all(|policy| policy["roles"] == json!(["session_sidecar"])));
    for table in &mut after {
        let rights = table["relacl"].as_str().unwrap_or_default();
        let ours: Vec<_> = rights.split(',').filter(|right| right.starts_with("session_sidecar=")).collect();
        let rights = ours.iter().fold(rights.to_owned(), |rights, ours| {
            rights.replace(&format!(",{}", ours.trim_end_matches('}')), "")
        });
        if !ours.is_empty() {
            table["relacl"] = rights.into();
        }
    }
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_applies_it_as_a_file_and_as_a_pipe_would() {
    let project = Project::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.sql");
    std::fs::write(&file, schema::sql("whatsapp-sessions", Some("whatsapp_sessions"))).unwrap();
    for transaction in ["--no-psqlrc", "--single-transaction"] {
        let output = project.psql(&[transaction, "-f", file.to_str().unwrap()]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let service = project.request("service_role", None).await;
    let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    let report: schema::Report = serde_json::from_value(report).unwrap();
    assert_eq!(report.missing(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_widened_and_never_narrowed() {
    let seed = json!(["application/json", "text/plain"]);
    let all = json!(["application/json", "text/plain", "application/zstd", "application/octet-stream"]);
    for (before, after, remarks) in [
        (None, (false, json!(52_428_800), all.clone()), 0),
        (Some((false, json!(10_485_760), seed)), (false, json!(52_428_800), all.clone()), 0),
        (Some((true, json!(null), json!(null))), (false, json!(null), json!(null)), 1),
        (
            Some((false, json!(99_999_999), json!(["application/*", "image/png"]))),
            (false, json!(99_999_999), json!(["application/*", "image/png", "text/plain"])),
            0,
        ),
        (Some((false, json!(null), json!(["*/*"]))), (false, json!(null), json!(["*/*"])), 0),
    ] {
        let project = Project::new().await;
        let owner = project.connect("postgres").await;
        if let Some((public, limit, types)) = &before {
            let insert = "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
                select 'whatsapp-sessions', 'whatsapp-sessions', public, file_size_limit, allowed_mime_types
                from jsonb_populate_record(null::storage.buckets, $1::text::jsonb)";
            let row = json!({ "public": public, "file_size_limit": limit, "allowed_mime_types": types });
            owner.execute(insert, &[&row.to_string()]).await.unwrap();
        }
        for remarks in [remarks, 0] {
            assert_eq!(project.apply().await.len(), remarks, "{before:?}");
            let found =
                rows(&owner, "select public, file_size_limit, allowed_mime_types from storage.buckets").await;
            let (public, limit, types) = &after;
            let wanted = json!({ "public": public, "file_size_limit": limit, "allowed_mime_types": types });
            assert_eq!(found.unwrap(), [wanted]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_make_no_policies_is_told_and_gets_the_rest() {
    let project = Project::new().await;
    let admin = project.connect("supabase_admin").await;
    // What only hosted Supabase's extension, or here membership, allows: not in a project of one's own.
    admin
        .batch_execute(
            "alter table storage.objects owner to supabase_admin; grant all on storage.objects to postgres",
        )
        .await
        .unwrap();
    let remarks = project.apply().await;
    assert!(remarks.len() == 2 && remarks[0].contains("none protects .history/"), "{remarks:?}");
    assert!(remarks[1].contains("session_sidecar does not reach storage.objects"), "{remarks:?}");
    let service = project.request("service_role", None).await;
    let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    let report: schema::Report = serde_json::from_value(report).unwrap();
    assert_eq!(
        report.missing(),
        [
            "the policy that closes .history/ to all but the secret key",
            "the role session_sidecar, which tokens are for"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_storage_the_rest_is_made() {
    let project = Project::new().await;
    let admin = project.connect("supabase_admin").await;
    admin.batch_execute("drop schema storage cascade").await.unwrap();
    assert_eq!(project.apply().await.len(), 2);
    let service = project.request("service_role", None).await;
    let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    assert_eq!((&report["objects_rls"], &report["bucket"]), (&json!(false), &Value::Null));
    assert_eq!((&report["leases"], &report["history_policy"]), (&json!(true), &json!(false)));
}
