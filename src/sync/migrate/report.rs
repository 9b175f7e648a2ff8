//! What `migrate` and `import` print. The JSON of these types is a contract (`docs/cli-json.md`).

use serde::Serialize;

use crate::error::{Code, Error};
use crate::sync::report::HeldFile;

/// A whole migration, or its plan.
#[derive(Debug, Serialize)]
pub struct MigrateReport {
    /// The directory that was looked at; none where only the bucket was.
    pub from: Option<String>,
    /// Whether only the plan was made.
    pub dry_run: bool,
    /// One entry a session that was found.
    pub sessions: Vec<SessionMigration>,
    /// What is no session.
    pub ignored: Vec<Ignored>,
}

/// Something that is no session.
#[derive(Debug, Serialize)]
pub struct Ignored {
    /// Relative to where it was looked.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What is done with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Its tree is committed.
    Commit,
    /// It is in the bucket already.
    Skip,
    /// The bucket's is kept, as a person said: this tree was not stored.
    KeepBucket,
    /// The bucket's plain files become the first commit.
    AdoptMirror,
    /// Nothing; `error` says why.
    Refuse,
}

/// What the bucket has of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Has {
    /// Nothing, or nothing was asked.
    Nothing,
    /// Plain files without a history.
    Mirror,
    /// A history whose head is the same tree.
    Same,
    /// A history whose head holds all that lies here, and more.
    More,
    /// A history of the same account with another tree.
    SameIdentity,
    /// A history of another account, or of one that cannot be told.
    Other,
    /// A history that ends with a logout, a deletion or an empty tree.
    Ended,
    /// A history that cannot be read whole.
    Damaged,
}

/// The bucket's side.
#[derive(Debug, Serialize)]
pub struct BucketSide {
    /// What it has.
    pub has: Has,
    /// The newest commit.
    pub head: Option<String>,
    /// Files of the head, or of the mirror.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How old the newest file of a mirror is.
    pub age_seconds: Option<i64>,
}

/// One session.
#[derive(Debug, Serialize)]
pub struct SessionMigration {
    /// `{user}/{session}`; none where the name cannot be one.
    pub session: Option<String>,
    /// Where it lies; none where only the bucket has it.
    pub path: Option<String>,
    /// The library: that of its accounts, else the one that the tree looks like.
    pub format: Option<String>,
    /// Whether an account is linked.
    pub paired: bool,
    /// Files that belong to it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether something wrote there within the last minute.
    pub writing: bool,
    /// What the bucket had.
    pub bucket: BucketSide,
    /// What is done.
    pub step: Doing,
    /// The head after it; none in a plan.
    pub commit: Option<String>,
    /// Paths that are not fit to be committed.
    pub held: Vec<HeldFile>,
    /// Whether a restore gave the same tree byte for byte; none where that was not tried.
    pub verified: Option<bool>,
    /// Local files that were proven, and removed.
    pub removed: Option<u64>,
    /// Files that were removed with a proven `LevelDB` database, which does not need them: no commit has them, or not to
    /// their last byte.
    pub unneeded: Option<u64>,
    /// Local files that lie there still, after a cleanup: nothing is proven of them.
    pub kept: Option<u64>,
    /// What went wrong, or speaks against it.
    pub error: Option<Failure>,
}

/// An error of one session.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Its code.
    pub code: Code,
    /// One line.
    pub message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl MigrateReport {
    /// The exit code: the worst that happened. Of a plan, that something is refused or held.
    #[must_use]
    pub fn exit(&self) -> u8 {
        let failures =
            self.sessions.iter().filter_map(|one| one.error.as_ref()).map(|error| match error.code {
                // A directory of such a name is one of many.
                Code::BadSessionId => Code::Held,
                code => code,
            });
        let held = self.sessions.iter().any(|one| !one.held.is_empty());
        let mut exits: Vec<u8> = failures.map(Code::exit).chain(held.then(|| Code::Held.exit())).collect();
        if self.dry_run {
            exits.fill(Code::Held.exit());
        }
        // What a person must decide is the least of it.
        let rank = |exit: &u8| if *exit == Code::Held.exit() { 1 } else { *exit };
        exits.into_iter().max_by_key(rank).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::migrate::nameless;

    #[test]
    fn what_is_held_is_told_by_the_exit_code_of_a_plan_and_of_a_run() {
        let mut one = nameless("x", std::path::Path::new("/x"), &Error::new(Code::Held, "x"));
        one.error = None;
        let mut report =
            MigrateReport { from: None, dry_run: false, sessions: vec![one], ignored: Vec::new() };
        assert_eq!(report.exit(), 0);
        let since = jiff::Timestamp::UNIX_EPOCH;
        report.sessions[0].held =
            vec![HeldFile { path: "a.json".to_owned(), reason: "bad_json".to_owned(), since }];
        for dry_run in [false, true] {
            report.dry_run = dry_run;
            assert_eq!(report.exit(), 3, "{dry_run}");
        }
    }
}
