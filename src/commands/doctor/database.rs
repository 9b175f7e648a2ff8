//! Our tables and functions.

use super::check::Check;
use super::policies;
use crate::error::Code;
use crate::supabase::schema::Report;
use crate::supabase::{RestError, RestKind};

const SQL: &str = "apply the SQL: `session-sidecar init --database-url URL`, or paste what `session-sidecar schema` \
                   prints into the dashboard's SQL editor";

/// What the database has, or why it does not say.
pub(super) fn checks(bucket: &str, answer: Result<Report, RestError>) -> Vec<Check> {
    match answer {
        Err(error) => vec![refused(&error)],
        Ok(report) => {
            let mut checks = vec![functions(&report), table(&report)];
            checks.extend(policies::checks(bucket, &report));
            checks
        }
    }
}

fn refused(error: &RestError) -> Check {
    const NAME: &str = "database";
    match error.kind {
        RestKind::Missing => lacking(format!("our tables and functions are missing: {error}")),
        RestKind::Unavailable => Check::fail(
            NAME,
            Code::Unreachable,
            format!("the database does not answer: {error}"),
            "see whether the project is healthy in its dashboard; without it `--lease postgres` cannot start",
        ),
        RestKind::Denied => Check::fail(
            NAME,
            Code::Unauthorized,
            format!("the key may not use our functions: {error}"),
            format!(
                "give the secret (service_role) key or a token of `session-sidecar token`; if it is one of them, {SQL}"
            ),
        ),
        RestKind::Refused | RestKind::Foreign => Check::fail(NAME, Code::NotSupabase, error.to_string(), SQL),
    }
}

fn lacking(found: String) -> Check {
    let advice = format!("{SQL}; `--lease storage` does without");
    Check::fail("database", Code::SchemaMissing, found, advice)
}

fn functions(report: &Report) -> Check {
    let missing = report.missing_functions();
    if !missing.is_empty() {
        return lacking(format!("missing: {}", missing.join(", ")));
    }
    let (version, server) = (report.version, &report.server_version);
    Check::ok(
        "database",
        format!("leases and functions of version {version} are there, on Postgres {server}"),
    )
}

fn table(report: &Report) -> Check {
    const NAME: &str = "table";
    let missing = report.missing_of_table();
    if !missing.is_empty() {
        let found = format!("missing: {}", missing.join(", "));
        return Check::warn(NAME, found, format!("{SQL}; or do without it: `--metadata off`"));
    }
    match &report.table {
        Some(table) if !table.rls => Check::warn(
            NAME,
            "row-level security of the table of sessions is off: everybody with the anon key reads and writes it",
            SQL,
        ),
        Some(table) if !table.unique => Check::warn(
            NAME,
            "a session can have several rows in the table of sessions, which are all kept up to date",
            "remove the doubles, and make user_id and session_id unique together",
        ),
        _ => Check::ok(NAME, "the table of sessions is there, and its rows are protected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;
    use crate::supabase::schema::Table;
    use crate::supabase::schema::tests::complete;

    #[test]
    fn a_database_without_our_sql_fails_with_all_ways_to_go_on() {
        let error = RestError { kind: RestKind::Missing, op: "report", code: None, message: "no".to_owned() };
        let mut report = complete();
        report.functions.pop();
        for check in [refused(&error), functions(&report)] {
            assert_eq!(check.code, Some(Code::SchemaMissing));
            let advice = check.advice.unwrap();
            for way in ["init --database-url", "schema", "--lease storage"] {
                assert!(advice.contains(way), "{advice}");
            }
        }
        assert_eq!(functions(&complete()).verdict, Verdict::Ok);
    }

    #[test]
    fn a_database_that_does_not_answer_or_refuses_the_key_has_its_own_code() {
        let code = |kind| refused(&RestError { kind, op: "report", code: None, message: String::new() }).code;
        assert_eq!(code(RestKind::Unavailable), Some(Code::Unreachable));
        assert_eq!(code(RestKind::Denied), Some(Code::Unauthorized));
    }

    #[test]
    fn a_table_that_is_not_there_or_not_protected_is_a_warning() {
        let with = |change: fn(&mut Table)| {
            let mut report = complete();
            report.table.as_mut().map(change);
            table(&report).verdict
        };
        assert_eq!(with(|_| ()), Verdict::Ok);
        assert_eq!(with(|table| table.exists = false), Verdict::Warn);
        assert_eq!(with(|table| table.rls = false), Verdict::Warn);
        assert_eq!(with(|table| table.unique = false), Verdict::Warn);
    }
}
