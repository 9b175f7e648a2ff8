//! A PostgreSQL of our own: one cluster for all tests of this binary, a database for each.
//!
//! It has the roles, schemas and default privileges of hosted Supabase, as `postgres/*.sql` say. `supabase_admin` is its
//! superuser; `postgres` is what it is there, the role that people apply SQL as.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use session_sidecar::supabase::{Database, schema};
use tokio::task::spawn_blocking;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

/// Runs until its standard input ends, which it does when this process does, however that comes; leaves nothing behind.
const LIFE: &str = r#"
set -eu
trap '' INT TERM HUP
dir=$(mktemp -d)
ready=
end() {
  [ "$ready" ] || cat out log >&2 || true
  pg_ctl -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$dir"
}
trap end EXIT
cd "$dir"
sql() { printf %s "$2" | psql -h 127.0.0.1 -U supabase_admin -v ON_ERROR_STOP=1 -qX -d "$1"; }
begin() {
  initdb -D data -U supabase_admin -A trust -N -E UTF8 --locale=C.UTF-8
  umask 077
  printf %s "$CERTIFICATE" > data/server.pem
  printf %s "$KEY" > data/server.key
  cat >> data/postgresql.conf <<END
port = $PGPORT
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
fsync = off
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
END
  pg_ctl -D data -l log -w start
  sql postgres "$ROLES"
  sql postgres 'create database hosted owner postgres'
  sql hosted "$PROJECT"
}
begin > out 2>&1
ready=yes
echo ready
read -r _ || true
"#;

struct Cluster {
    port: u16,
    /// Where programs are found, its own first.
    path: OsString,
    /// The end of its standard input ends the cluster.
    _life: Child,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let here = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths(binaries().into_iter().chain(std::env::split_paths(&here))).unwrap();
        // Another process may take the port before Postgres does.
        (0..3).find_map(|_| start(&path)).expect("no PostgreSQL: tests/run.sh installs it")
    })
}

fn start(path: &OsStr) -> Option<Cluster> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = if rustix::process::geteuid().is_root() {
        // Postgres refuses to be root. The package makes a user for it.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", LIFE]).env_clear().env("PATH", path).env("PGPORT", port.to_string());
    // Not as files: that user may not be able to look into our directories, or be where we are.
    command
        .env("ROLES", include_str!("postgres/roles.sql"))
        .env("PROJECT", include_str!("postgres/project.sql"));
    command.env("CERTIFICATE", include_str!("../../fixtures/tls/server.pem"));
    command.env("KEY", include_str!("../../fixtures/tls/server.key"));
    #[allow(clippy::zombie_processes, reason = "it ends when its input does, and with this process")]
    let mut child = command
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line == "ready\n" {
        return Some(Cluster { port, path: path.to_owned(), _life: child });
    }
    child.wait().unwrap();
    None
}

/// Debian keeps them out of the way, one directory a version; elsewhere they are in the path.
fn binaries() -> Option<PathBuf> {
    let version =
        |entry: std::fs::DirEntry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path()));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions =
        versions.filter_map(|entry| version(entry.unwrap())).map(|(n, path)| (n, path.join("bin")));
    versions.filter(|(_, bin)| bin.join("initdb").exists()).max().map(|(_, bin)| bin)
}

/// A new project: a database of its own, with what hosted Supabase makes in it.
pub struct Project {
    name: String,
}

impl Project {
    pub async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("project_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        spawn_blocking(cluster).await.unwrap();
        let admin = connect("postgres", "supabase_admin").await;
        admin.batch_execute(&format!("create database {name} template hosted owner postgres")).await.unwrap();
        Self { name }
    }

    /// With our SQL.
    pub async fn ready() -> Self {
        let project = Self::new().await;
        project.apply().await;
        project
    }

    /// Applies our SQL as people do; what Postgres remarked.
    pub async fn apply(&self) -> Vec<String> {
        let database = Database::parse(&self.url()).unwrap();
        database.apply(&schema::sql("whatsapp-sessions", Some("whatsapp_sessions")), None).await.unwrap()
    }

    /// Of the role `postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}", cluster().port, self.name)
    }

    /// As a role that can log in.
    pub async fn connect(&self, role: &str) -> Client {
        connect(&self.name, role).await
    }

    /// As `PostgREST` is when a request comes in: the role and the user of its token.
    pub async fn request(&self, role: &str, user: Option<&str>) -> Client {
        self.in_role(role, &json!({ "role": role, "sub": user })).await
    }

    /// The same with a token of the role `session_sidecar`; null: one that says nothing.
    pub async fn token(&self, claims: &Value) -> Client {
        self.in_role("session_sidecar", claims).await
    }

    async fn in_role(&self, role: &str, claims: &Value) -> Client {
        let client = self.connect("authenticator").await;
        let claims = if claims.is_null() { String::new() } else { claims.to_string() };
        client.batch_execute(&format!("set role {role}")).await.unwrap();
        client.execute("select set_config('request.jwt.claims', $1, false)", &[&claims]).await.unwrap();
        client
    }

    /// Through psql, as the role `postgres`.
    pub async fn psql(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new("psql");
        command.env("PATH", &cluster().path);
        command.args(["-qX", "-v", "ON_ERROR_STOP=1", &self.url()]).args(args);
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

async fn connect(database: &str, role: &str) -> Client {
    let url = format!("postgresql://{role}@127.0.0.1:{}/{database}", cluster().port);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    // Ends with its client.
    tokio::spawn(connection);
    client
}

/// Calls one of our functions as `PostgREST` does; of an error the code and the message.
pub async fn call(client: &Client, function: &str, request: &Value) -> Result<Value, String> {
    let sql = format!("select public.{function}(request => $1::text::jsonb)::text");
    // One round trip, where a statement that is prepared first takes three.
    let rows = client.query_typed(&sql, &[(&request.to_string(), Type::TEXT)]).await;
    let rows = rows.map_err(|error| refusal(&error))?;
    Ok(serde_json::from_str(rows[0].get(0)).unwrap())
}

/// Of an error the code and the message.
pub fn refusal(error: &tokio_postgres::Error) -> String {
    let error = error.as_db_error().unwrap();
    format!("{}: {}", error.code().code(), error.message())
}

/// The rows of a query as one JSON value each.
pub async fn rows(client: &Client, query: &str) -> Result<Vec<Value>, String> {
    let rows = client.query(&format!("select to_jsonb(t)::text from ({query}) t"), &[]).await;
    let rows = rows.map_err(|error| refusal(&error))?;
    Ok(rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect())
}
