//! `schema`: the SQL, for the dashboard's editor or a pipe.

use serde::Serialize;

use super::output::Output;
use crate::cli::Schema;
use crate::error::Result;
use crate::supabase::schema;

#[derive(Serialize)]
struct Report<'a> {
    bucket: &'a str,
    sql: String,
}

/// Prints it.
pub(super) fn run(args: &Schema, out: Output) -> Result<()> {
    let bucket = args.bucket.trim();
    out.result(&Report { bucket, sql: schema::sql(bucket, args.metadata.table()) }, |report| {
        report.sql.clone()
    })
}
