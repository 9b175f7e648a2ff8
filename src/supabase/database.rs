//! A connection to the project's Postgres itself, for the SQL that no HTTP call can apply.

use std::path::Path;
use std::time::Duration;

use futures_util::{TryStreamExt as _, future, stream};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::meaning::shorten;
use crate::error::{Code, Error, Result};
use crate::net;

const SILENT: &str = "the database does not answer (db.REF.supabase.co has an IPv6 address only: elsewhere use the \
                      session pooler's URL)";

/// Where a project's Postgres answers, with the password: shown in no error and no `Debug` output.
#[derive(Clone)]
pub struct Database {
    config: Config,
    password: Option<String>,
}

impl Database {
    /// Checks the connection string that the dashboard shows under "Connect". Without `sslmode` the connection is
    /// encrypted, but on this machine; `verify-full` and `verify-ca` are `require`, which verifies here.
    ///
    /// # Errors
    /// [`Code::Usage`]. What was given is never repeated: it holds a password.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(
                Code::Usage,
                format!(
                    "the database URL {why}: give postgresql://USER:PASSWORD@HOST:PORT/postgres, \
                     in the dashboard under Connect"
                ),
            )
        };
        let text = text.trim();
        if text.contains("[YOUR-PASSWORD]") {
            return Err(bad("has no password yet: put it in the place of [YOUR-PASSWORD]"));
        }
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(bad("is no connection string of Postgres"));
        }
        let mut url = Url::parse(text)
            .map_err(|_| bad("is malformed (write special characters of the password as %XX)"))?;
        let mut mode = None;
        let mut others = Vec::new();
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("sslmode", "disable") => mode = Some(SslMode::Disable),
                ("sslmode", "allow" | "prefer") => mode = Some(SslMode::Prefer),
                ("sslmode", "require" | "verify-ca" | "verify-full") => mode = Some(SslMode::Require),
                ("sslmode", _) => return Err(bad("has an unknown sslmode")),
                _ => others.push((name.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let mut config: Config = url.as_str().parse().map_err(|error: tokio_postgres::Error| {
            // The cause names the option, never its value.
            bad("cannot be used").because(cause(&error))
        })?;
        if config.get_hosts().is_empty() {
            return Err(bad("names no host"));
        }
        let here = config.get_hosts().iter().all(is_here);
        config.ssl_mode(mode.unwrap_or(if here { SslMode::Disable } else { SslMode::Require }));
        config.application_name("session-sidecar").connect_timeout(Duration::from_secs(10));
        let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        Ok(Self { config, password })
    }

    /// The password, so that it can be kept out of logs.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Applies SQL in one transaction: all of it or nothing. Returns what the database had to remark.
    ///
    /// # Errors
    /// [`Code::Unreachable`] when the database does not answer or the tables are in use, [`Code::Unauthorized`] when
    /// it refuses the password or the role, [`Code::Usage`] when its certificate cannot be verified.
    pub async fn apply(&self, sql: &str, ca_file: Option<&Path>) -> Result<Vec<String>> {
        let tls = match self.config.get_ssl_mode() {
            SslMode::Disable => net::tls_apart(None),
            _ => net::tls(ca_file),
        };
        let tls = MakeRustlsConnect::new(tls?);
        let config = looked_up(self.config.clone()).await?;
        let (client, mut connection) = config.connect(tls).await.map_err(|error| explain(&error))?;
        let messages = stream::poll_fn(move |context| connection.poll_message(context));
        let remarks = messages.try_filter_map(|message| {
            future::ok(match message {
                // "Already exists, skipping" is what applying again is about.
                AsyncMessage::Notice(notice) if *notice.code() != SqlState::DUPLICATE_TABLE => {
                    Some(notice.message().to_owned())
                }
                _ => None,
            })
        });
        let work = async {
            // Whoever waits for a lock on storage.objects makes all requests wait behind it.
            let result =
                client.batch_execute(&format!("begin; set local lock_timeout = '5s';\n{sql}\ncommit;")).await;
            // Ends the connection, and with it the remarks.
            drop(client);
            result
        };
        let (result, remarks) = future::join(work, remarks.try_collect()).await;
        result.map_err(|error| explain(&error))?;
        // Committed: how the connection ended does not matter any more.
        Ok(remarks.unwrap_or_default())
    }
}

/// The configuration with the addresses of its hosts, so that the library has nothing to look up: all addresses of
/// one host, or the first of each of several. A socket on this machine needs none.
async fn looked_up(mut config: Config) -> Result<Config> {
    let hosts = config.get_hosts().to_vec();
    for host in &hosts {
        let Host::Tcp(name) = host else { return Ok(config) };
        let unknown = |error| Error::new(Code::Unreachable, SILENT).because(error);
        let mut addresses = net::names::lookup(name).await.map_err(unknown)?.into_iter();
        config.hostaddr(addresses.next().expect("a name that is found has an address"));
        for other in addresses.filter(|_| hosts.len() == 1) {
            config.host(name).hostaddr(other);
        }
    }
    Ok(config)
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            name == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn explain(error: &tokio_postgres::Error) -> Error {
    let cause = cause(error);
    if let Some(refusal) = error.as_db_error() {
        let (code, what) = match *refusal.code() {
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                (Code::Unauthorized, "the database refuses the user or the password")
            }
            SqlState::INSUFFICIENT_PRIVILEGE => {
                (Code::Unauthorized, "this role may not apply the SQL: connect as `postgres`")
            }
            SqlState::LOCK_NOT_AVAILABLE => {
                (Code::Unreachable, "the tables are in use, nothing was changed: try again")
            }
            _ => (Code::NotSupabase, "the database refused the SQL, nothing was changed"),
        };
        let line = refusal.where_().map(|place| format!(" [{}]", shorten(place))).unwrap_or_default();
        return Error::new(code, what).because(format!("{}{line}", shorten(refusal.message())));
    }
    let (code, what) = if cause.contains("certificate") {
        (
            Code::Usage,
            "the database's certificate is not trusted: download that of your project (dashboard, Database, \
             Settings, SSL configuration) and give it as --ca-file",
        )
    } else if cause.contains("does not support TLS") {
        (Code::Usage, "the database speaks no TLS: append ?sslmode=disable where the network can be trusted")
    } else {
        (Code::Unreachable, SILENT)
    };
    Error::new(code, what).because(cause)
}

/// The innermost cause, on one line.
fn cause(error: &tokio_postgres::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    shorten(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> SslMode {
        Database::parse(text).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn a_connection_that_leaves_the_machine_is_encrypted_unless_told_otherwise() {
        assert_eq!(mode("postgresql://postgres:pw@db.x.supabase.co:5432/postgres"), SslMode::Require);
        assert_eq!(mode("postgres://postgres:pw@db:5432/postgres?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://postgres:pw@db/postgres?sslmode=prefer"), SslMode::Prefer);
        assert_eq!(mode("postgres://postgres:pw@db/postgres?sslmode=verify-full"), SslMode::Require);
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(mode(&format!("postgres://postgres:pw@{here}:5432/postgres")), SslMode::Disable);
            assert_eq!(mode(&format!("postgres://postgres@{here}/x?sslmode=require")), SslMode::Require);
        }
    }

    #[test]
    fn what_is_no_connection_string_is_refused_and_never_repeated() {
        for (text, says) in [
            ("https://hush.supabase.co", "no connection string"),
            ("postgresql://postgres:[YOUR-PASSWORD]@db.hush.supabase.co/postgres", "[YOUR-PASSWORD]"),
            ("postgresql://postgres:hush/#1@db.x.supabase.co/postgres", "%XX"),
            ("postgresql://postgres:hush@db/postgres?sslmode=hush", "sslmode"),
            ("postgresql://postgres:hush@db/postgres?pgbouncer=hush", "pgbouncer"),
            ("postgresql:///hush", "host"),
        ] {
            let error = Database::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            let error = error.to_string();
            assert!(error.contains(says) && !error.contains("hush"), "{text}: {error}");
        }
        let shown = format!("{:?}", Database::parse("postgres://postgres:hush@db/postgres").unwrap());
        assert!(shown.contains("db") && !shown.contains("hush"), "{shown}");
    }
}
