//! The SQL of a project: the tables and functions that a bucket alone cannot be, and what a project lacks of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The files of `supabase/migrations`, in their order.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../supabase/migrations/20261125000001_session_sidecar_tables.sql"),
    include_str!("../../supabase/migrations/20261125000002_session_sidecar_functions.sql"),
    include_str!("../../supabase/migrations/20261125000003_session_sidecar_storage.sql"),
    include_str!("../../supabase/migrations/20261128000004_session_sidecar_role.sql"),
];
/// The bucket that they name, where they make it and close its history.
const BUCKET: &str = "wanted constant text := 'whatsapp-sessions';";

/// The table of sessions that the role may write.
const TABLE: &str = "metadata constant text := 'whatsapp_sessions';";

/// The functions that are called over `PostgREST`.
pub const FUNCTIONS: [&str; 5] = [
    "acquire_session_leases",
    "renew_session_leases",
    "release_session_leases",
    "note_session_metadata",
    "session_sidecar_report",
];

/// All of the SQL, for this bucket and this table of sessions. It may be applied to any project, also again.
#[must_use]
pub fn sql(bucket: &str, table: Option<&str>) -> String {
    let quoted = |text: &str| text.replace('\'', "''");
    let wanted = format!("wanted constant text := '{}';", quoted(bucket));
    let metadata = format!("metadata constant text := '{}';", quoted(table.unwrap_or_default()));
    MIGRATIONS.join("\n").replace(BUCKET, &wanted).replace(TABLE, &metadata)
}

/// What `session_sidecar_report` asks about.
#[derive(Debug, Clone, Serialize)]
pub struct ReportRequest<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The table of sessions; none: no metadata is written.
    pub table: Option<&'a str>,
}

/// What is there, as `session_sidecar_report` answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "answers, none of which follows from another")]
pub struct Report {
    /// Of the functions; 1 is the first, 2 has the role.
    pub version: u32,
    /// Whether tokens of the role `session_sidecar` work for the bucket.
    #[serde(default)]
    pub role: bool,
    /// Whether the lease table is there.
    pub leases: bool,
    /// Which of [`FUNCTIONS`] are there.
    pub functions: Vec<String>,
    /// The table of sessions, where it was asked about.
    pub table: Option<Table>,
    /// The policies of `storage.objects` and of the table.
    pub policies: Vec<Policy>,
    /// Whether row-level security of `storage.objects` is on.
    pub objects_rls: bool,
    /// Whether the policy is there that closes `.history/` to all but the secret key.
    pub history_policy: bool,
    /// The bucket, where the database knows it.
    pub bucket: Option<BucketRow>,
    /// Of Postgres: `15.8`.
    pub server_version: String,
}

/// The table of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Table {
    /// Whether there is one.
    pub exists: bool,
    /// Types by column.
    pub columns: BTreeMap<String, String>,
    /// Whether row-level security is on.
    pub rls: bool,
    /// Whether user and session together are unique.
    pub unique: bool,
}

/// A policy of row-level security.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// With its schema: `storage.objects`.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `SELECT`, `INSERT`, `UPDATE`, `DELETE` or `ALL`.
    pub command: String,
    /// Whether it allows; else it takes away.
    pub permissive: bool,
    /// Whom it is for; `public` is everybody.
    pub roles: Vec<String>,
    /// Which rows are seen.
    pub using: Option<String>,
    /// Which rows may be written.
    pub check: Option<String>,
}

/// The bucket as its row has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BucketRow {
    /// Its name.
    pub id: String,
    /// Whether everybody may read it.
    pub public: Option<bool>,
    /// The largest object in bytes.
    pub file_size_limit: Option<u64>,
    /// The types that it takes; none: all.
    pub allowed_mime_types: Option<Vec<String>>,
}

impl Report {
    /// What the SQL would add, in words, one thing each; empty when the project has it all.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = self.missing_functions();
        missing.extend(self.missing_of_table());
        if !self.history_policy {
            missing.push("the policy that closes .history/ to all but the secret key".to_owned());
        }
        if !self.role {
            missing.push("the role session_sidecar, which tokens are for".to_owned());
        }
        missing
    }

    /// Of it, what `--lease postgres` and the table of sessions work through.
    #[must_use]
    pub fn missing_functions(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.leases {
            missing.push("the table session_sidecar_leases".to_owned());
        }
        let functions = FUNCTIONS.iter().filter(|name| !self.functions.iter().any(|found| found == *name));
        missing.extend(functions.map(|name| format!("the function {name}")));
        missing
    }

    /// Of it, the table of sessions and what it needs.
    #[must_use]
    pub fn missing_of_table(&self) -> Vec<String> {
        match &self.table {
            Some(table) if !table.exists => {
                vec!["the table of sessions, which people and apps read".to_owned()]
            }
            Some(table) => {
                let columns = ["user_id", "session_id", "session_data", "is_active"];
                let columns = columns.iter().filter(|name| !table.columns.contains_key(**name));
                columns.map(|name| format!("the column {name} of the table of sessions")).collect()
            }
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a project that has it all.
    pub(crate) fn complete() -> Report {
        let columns = ["user_id", "session_id", "session_data", "is_active"];
        let columns = columns.map(|name| (name.to_owned(), "text".to_owned())).into();
        Report {
            version: 2,
            role: true,
            leases: true,
            functions: FUNCTIONS.map(str::to_owned).into(),
            table: Some(Table { exists: true, columns, rls: true, unique: true }),
            policies: Vec::new(),
            objects_rls: true,
            history_policy: true,
            bucket: None,
            server_version: "15.8".to_owned(),
        }
    }

    #[test]
    fn another_bucket_stands_wherever_the_sql_names_one() {
        let (usual, other) =
            (sql("whatsapp-sessions", Some("whatsapp_sessions")), sql("o'brien", Some("bots")));
        assert_eq!(usual, MIGRATIONS.join("\n"));
        assert_eq!((usual.matches(BUCKET).count(), other.matches("'o''brien'").count()), (3, 3));
        assert_eq!((usual.matches(TABLE).count(), other.matches(":= 'bots';").count()), (1, 1));
        assert!(!other.contains(BUCKET) && !other.contains(TABLE));
        assert!(sql("b", None).contains("metadata constant text := '';"));
    }

    #[test]
    fn what_is_missing_is_named_one_by_one() {
        assert!(complete().missing().is_empty());
        let mut report = complete();
        report.functions.remove(1);
        report.table.as_mut().unwrap().columns.remove("is_active");
        report.history_policy = false;
        report.role = false;
        let missing = report.missing();
        assert_eq!(missing.len(), 4, "{missing:?}");
        assert_eq!(missing[0], "the function renew_session_leases");
        let nothing = Report { leases: false, table: None, ..complete() };
        assert_eq!(nothing.missing(), ["the table session_sidecar_leases"]);
    }
}
