//! `schema` and `init`: how a project gets the SQL.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use session_sidecar::supabase::schema;

use crate::support::postgres::{Project, call};
use crate::support::world::{World, finished, refused};

fn sidecar(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
    command.env_clear().stdin(Stdio::null()).args(args);
    command.env("SUPABASE_URL", world.supabase.url());
    command.env("SUPABASE_SERVICE_ROLE_KEY", world.supabase.service_role_key());
    command
}

/// With a password that must not be seen.
fn url(project: &Project) -> String {
    project.url().replace("postgres@", "postgres:hush-hush@")
}

async fn document(command: Command) -> Value {
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !stderr.contains("hush"), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn lacks(project: &Project) -> Vec<String> {
    let service = project.request("service_role", None).await;
    let report = call(&service, "session_sidecar_report", &json!({})).await.unwrap();
    serde_json::from_value::<schema::Report>(report).unwrap().missing()
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_prints_sql_that_psql_applies() {
    let (world, project) = (World::new().await, Project::new().await);
    let output = finished(sidecar(&world, &["schema"])).await;
    assert!(output.status.success() && output.stderr.is_empty());
    let file = world.root("schema.sql");
    std::fs::write(&file, &output.stdout).unwrap();
    let applied = project.psql(&["-f", file.to_str().unwrap()]).await;
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert_eq!(lacks(&project).await, [""; 0]);

    let other = document(sidecar(&world, &["schema", "--json", "--bucket", "other"])).await;
    assert!(other["bucket"] == "other" && other["sql"].as_str().unwrap().contains("'other'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn init_says_what_the_database_lacks_and_how_to_add_it() {
    let world = World::new().await;
    world.supabase.set_schema(false);
    let output = finished(sidecar(&world, &["init"])).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "the bucket is ready: {text}");
    for says in ["lacks", "session-sidecar schema", "SQL editor", "init --database-url", "--lease storage"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let report = document(sidecar(&world, &["init", "--json"])).await;
    assert_eq!((&report["database"]["applied"], &report["database"]["error"]), (&json!(false), &Value::Null));
    assert_eq!(report["database"]["missing"].as_array().unwrap().len(), 1);
    world.supabase.set_schema(true);
    let report = document(sidecar(&world, &["init", "--json"])).await;
    // The emulator's bucket has the seed's policies only.
    let missing = json!(["the policy that closes .history/ to all but the secret key"]);
    assert_eq!(report["database"]["missing"], missing, "the emulator has the role");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_applies_the_sql_and_never_shows_the_password() {
    let (world, project) = (World::new().await, Project::new().await);
    let owner = project.connect("postgres").await;
    owner.batch_execute("create table whatsapp_sessions (user_id text, session_id text)").await.unwrap();
    let report = document(sidecar(&world, &["init", "--json", "--database-url", &url(&project)])).await;
    assert_eq!(report["database"]["applied"], true);
    let notice = report["database"]["notices"][0].as_str().unwrap();
    assert!(notice.contains("row-level security") && report["database"]["notices"][1].is_null(), "{report}");
    assert_eq!(lacks(&project).await, [""; 0]);

    // Again, from a file; and in a word.
    let file = world.root("database-url");
    std::fs::write(&file, url(&project)).unwrap();
    let mut command = sidecar(&world, &["init"]);
    command.env("SUPABASE_DB_URL_FILE", &file);
    let output = finished(command).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("applied the SQL") && text.contains("notice: ") && !text.contains("hush"),
        "{text}"
    );
    let mut both = sidecar(&world, &["init"]);
    both.env("SUPABASE_DB_URL_FILE", &file).env("SUPABASE_DB_URL", url(&project));
    assert!(refused(both, 2).await.contains("both set"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_certificate_is_verified() {
    let (world, project) = (World::new().await, Project::new().await);
    let url = format!("{}?sslmode=require", url(&project));
    let error = refused(sidecar(&world, &["init", "--database-url", &url]), 2).await;
    assert!(error.contains("--ca-file") && !error.contains("hush"), "{error}");
    let ca = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/ca.pem");
    let ca = ca.to_str().unwrap();
    let report =
        document(sidecar(&world, &["init", "--json", "--database-url", &url, "--ca-file", ca])).await;
    assert_eq!(report["database"]["applied"], true);
    assert_eq!(lacks(&project).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_leaves_nothing_behind() {
    let (world, project) = (World::new().await, Project::new().await);
    let owner = project.connect("postgres").await;
    // Ours is a table.
    owner.batch_execute("create view session_sidecar_leases as select 1 as epoch").await.unwrap();
    let error = refused(sidecar(&world, &["init", "--database-url", &url(&project)]), 2).await;
    assert!(error.contains("nothing was changed") && !error.contains("hush"), "{error}");
    let made = owner.query("select to_regclass('whatsapp_sessions') is null", &[]).await.unwrap();
    assert!(made[0].get::<_, bool>(0));

    let nobody = "postgresql://postgres:hush-hush@127.0.0.1:9/postgres";
    let error = refused(sidecar(&world, &["init", "--database-url", nobody]), 4).await;
    assert!(error.contains("does not answer") && !error.contains("hush"), "{error}");
}
