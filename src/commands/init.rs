//! `init`: the bucket and what it allows, and what the database lacks.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::output::Output;
use crate::cli::Init;
use crate::config::{RemoteConfig, database, environment};
use crate::error::{Code, Error, Result};
use crate::host::Real;
use crate::store::{Bucket, Kind, Store, StoreError};
use crate::supabase::schema::{self, ReportRequest};
use crate::supabase::{RestError, RestKind, Supabase};

/// What a commit is sent as, in the order of preference; the second is also that of mirrored key files.
const TYPES: [&str; 2] = ["application/zstd", "application/octet-stream"];
/// The largest object that every plan of Supabase takes: commits need no parts below it.
const SIZE: u64 = 50 * 1024 * 1024;

#[derive(Serialize)]
struct Report<'a> {
    bucket: &'a str,
    created: bool,
    changed: Vec<String>,
    database: DatabaseReport,
}

#[derive(Serialize)]
struct DatabaseReport {
    /// Whether the SQL was applied now.
    applied: bool,
    /// What Postgres remarked when it was.
    notices: Vec<String>,
    /// What the SQL would add; none: the database could not be asked.
    missing: Option<Vec<String>>,
    /// Why not.
    error: Option<String>,
}

/// `PostgREST` is told of new functions, and takes its time.
const RELOAD: Duration = Duration::from_secs(15);

/// Creates the bucket, or changes what keeps it from working well; applies the SQL where there is a way to, and says
/// what is missing.
pub(super) async fn run(args: &Init, out: Output) -> Result<()> {
    let remote = RemoteConfig::for_owner(&args.remote, &environment)?;
    let database = database(args.database_url.as_ref(), &environment)?;
    let supabase = remote.connect(Arc::new(Real))?;
    let bucket = supabase.name();
    let (created, changed) = match supabase.bucket().await {
        Ok(found) => {
            let (wanted, changed) = mend(&found);
            if !changed.is_empty() {
                supabase.update_bucket(&wanted).await.map_err(|error| refused(bucket, error))?;
            }
            (false, changed)
        }
        Err(error) if error.kind == Kind::NoBucket => {
            create(&supabase).await?;
            (true, Vec::new())
        }
        Err(error) => return Err(refused(bucket, error)),
    };
    let notices = match &database {
        Some(database) => Some(
            database.apply(&schema::sql(bucket, args.metadata.table()), remote.ca_file.as_deref()).await?,
        ),
        None => None,
    };
    let (applied, table) = (notices.is_some(), args.metadata.table());
    let wait = if applied { RELOAD } else { Duration::ZERO };
    let (missing, error) = match missing(&supabase, table, wait).await {
        Ok(missing) => (Some(missing), None),
        // The bucket is ready, and `--lease storage` needs no more.
        Err(error) => (None, Some(error.to_string())),
    };
    let database = DatabaseReport { applied, notices: notices.unwrap_or_default(), missing, error };
    out.result(&Report { bucket, created, changed, database }, |report| {
        let about_bucket = if report.created {
            format!("created the private bucket `{bucket}`")
        } else if report.changed.is_empty() {
            format!("bucket `{bucket}` is as it should be")
        } else {
            format!("changed bucket `{bucket}`: {}", report.changed.join("; "))
        };
        format!("{about_bucket}\n{}", report.database.text())
    })
}

impl DatabaseReport {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.notices.iter().map(|notice| format!("notice: {notice}")).collect();
        if self.applied {
            lines.push("applied the SQL".to_owned());
        }
        match (&self.missing, &self.error) {
            (Some(missing), _) if missing.is_empty() => {
                lines.push("the database has all it needs".to_owned());
            }
            (Some(missing), _) => {
                lines.push("the database lacks:".to_owned());
                lines.extend(missing.iter().map(|what| format!("  {what}")));
                lines.push(if self.applied {
                    "the notices of the SQL say why".to_owned()
                } else {
                    "add it: paste what `session-sidecar schema` prints into the dashboard's SQL editor, or run \
                     `session-sidecar init --database-url URL`; `--lease storage` does without"
                        .to_owned()
                });
            }
            (None, error) => lines.push(format!(
                "the database could not be asked what it lacks: {}",
                error.as_deref().unwrap_or("no reason given")
            )),
        }
        lines.join("\n")
    }
}

/// What the SQL would add to the database. Functions that are not there yet are waited for.
async fn missing(supabase: &Supabase, table: Option<&str>, wait: Duration) -> Result<Vec<String>, RestError> {
    let request = ReportRequest { bucket: supabase.name(), table };
    let deadline = Instant::now() + wait;
    loop {
        match supabase.client().rpc::<schema::Report>("session_sidecar_report", &request).await {
            Ok(report) => return Ok(report.missing()),
            Err(error) if error.kind == RestKind::Missing && Instant::now() >= deadline => {
                return Ok(vec!["our tables and functions: the SQL was never applied".to_owned()]);
            }
            Err(error) if error.kind == RestKind::Missing => sleep(Duration::from_millis(500)).await,
            Err(error) => return Err(error),
        }
    }
}

async fn create(supabase: &Supabase) -> Result<()> {
    match supabase.create_bucket(&Bucket::default()).await {
        // Another `init` was faster: it made the same.
        Err(error) if error.kind == Kind::AlreadyExists => Ok(()),
        result => result.map_err(|error| refused(supabase.name(), error)),
    }
}

/// The settings that a bucket should have, and what differs from those it has, in words. What is wider already
/// stays as it is.
pub(super) fn mend(found: &Bucket) -> (Bucket, Vec<String>) {
    let (mut wanted, mut changed) = (found.clone(), Vec::new());
    if found.public {
        wanted.public = false;
        changed.push("private now: everybody could read the keys of the accounts".to_owned());
    }
    if let Some(limit) = found.size_limit.filter(|limit| *limit < SIZE) {
        wanted.size_limit = Some(SIZE);
        changed.push(format!("objects of up to {SIZE} bytes instead of {limit}"));
    }
    if let Some(types) = &mut wanted.types {
        let missing: Vec<&str> = TYPES.into_iter().filter(|name| !allows(types, name)).collect();
        if !missing.is_empty() {
            changed.push(format!("takes {} too", missing.join(" and ")));
            types.extend(missing.into_iter().map(str::to_owned));
        }
    }
    (wanted, changed)
}

fn allows(types: &[String], name: &str) -> bool {
    types.iter().any(|allowed| allowed == name || allowed == "*/*" || allowed == "application/*")
}

fn refused(bucket: &str, error: StoreError) -> Error {
    let (code, what) = match error.kind {
        Kind::Denied => (Code::Unauthorized, "the key has no right to it: use the project's secret key"),
        Kind::TooLarge => (Code::BucketRefuses, "the project's own size limit is lower (Storage settings)"),
        kind if error.is_outage() || kind == Kind::Local => {
            (Code::Unreachable, "Supabase cannot be asked now")
        }
        Kind::Protocol => (Code::NotSupabase, "the URL does not answer as Supabase Storage does"),
        _ => (Code::Internal, "Supabase refused"),
    };
    Error::new(code, format!("bucket `{bucket}` cannot be made ready: {what}")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_bucket_is_widened_and_nothing_is_taken_from_it() {
        let types = vec!["application/json".to_owned(), "text/plain".to_owned()];
        let seed = Bucket { public: false, size_limit: Some(10_485_760), types: Some(types) };
        let (wanted, changed) = mend(&seed);
        assert_eq!(changed.len(), 2);
        assert_eq!(wanted.size_limit, Some(SIZE));
        let types = ["application/json", "text/plain", "application/zstd", "application/octet-stream"];
        assert_eq!(wanted.types.as_deref(), Some(types.map(str::to_owned).as_slice()));
        assert!(mend(&wanted).1.is_empty());
    }

    #[test]
    fn what_is_wide_enough_stays() {
        for bucket in [
            Bucket::default(),
            Bucket { public: false, size_limit: Some(SIZE), types: Some(vec!["application/*".to_owned()]) },
        ] {
            assert_eq!(mend(&bucket), (bucket.clone(), Vec::new()));
        }
    }

    #[test]
    fn a_public_bucket_is_made_private() {
        let (wanted, changed) = mend(&Bucket { public: true, ..Bucket::default() });
        assert!(!wanted.public && changed[0].contains("private"));
    }
}
