//! Row-level security of `storage.objects`: who reaches the bucket, and above all its history.

use super::check::Check;
use crate::error::Code;
use crate::session::ROLE;
use crate::supabase::schema::{Policy, Report};

const OBJECTS: &str = "storage.objects";
const SQL: &str = "apply the SQL (`session-sidecar schema`, in the dashboard's SQL editor)";

/// Whether the history is closed, and one line for each policy that reaches the bucket.
pub(super) fn checks(bucket: &str, report: &Report) -> Vec<Check> {
    let mut checks = vec![protection(report)];
    let policies = report.policies.iter().filter(|policy| policy.table == OBJECTS);
    let policies = policies.filter(|policy| reaches(policy, bucket));
    checks.extend(policies.map(|policy| one(policy, report.history_policy)));
    checks
}

fn protection(report: &Report) -> Check {
    const NAME: &str = "history policy";
    if !report.objects_rls {
        return Check::fail(
            NAME,
            Code::BucketPublic,
            "row-level security of storage.objects is off: everybody with the anon key reads and writes all objects",
            "turn it on: `alter table storage.objects enable row level security`",
        );
    }
    if !report.history_policy {
        let found = "no restrictive policy closes .history/: one careless policy opens it";
        return Check::warn(NAME, found, SQL);
    }
    Check::ok(
        NAME,
        "a restrictive policy closes .history/ to all but the secret key and tokens of session_sidecar",
    )
}

fn one(policy: &Policy, closed: bool) -> Check {
    const NAME: &str = "policy";
    let Policy { name, command, roles, permissive, .. } = policy;
    let what = if *permissive { "allows" } else { "restricts" };
    let found = format!("`{name}` {what} {command} to {}", roles.join(", "));
    if roles[..] == [ROLE] {
        // Made by the SQL; how far its tokens reach is tried.
        return Check::ok(NAME, found);
    }
    if *permissive && !closed && !is_own_folder(policy) {
        let advice = format!("{SQL}, which closes .history/, or narrow this policy to a user's own folder");
        return Check::warn(NAME, found + ", .history/ included", advice);
    }
    Check::ok(NAME, found)
}

/// Its conditions: those that are left out are those of no row, or of the other one.
fn conditions(policy: &Policy) -> impl Iterator<Item = &str> {
    [&policy.using, &policy.check].into_iter().flatten().map(String::as_str)
}

/// Whether a policy may concern objects of this bucket. Only one whose every condition names another bucket, and has no
/// alternative, does not.
fn reaches(policy: &Policy, bucket: &str) -> bool {
    let ours = format!("'{}'", bucket.replace('\'', "''"));
    let others = |condition: &str| {
        condition.contains("bucket_id = '") && !condition.contains(&ours) && !has_alternative(condition)
    };
    !(conditions(policy).next().is_some() && conditions(policy).all(others))
}

/// Whether each condition compares a folder of the object's name with who asks: that folder is not `.history`.
fn is_own_folder(policy: &Policy) -> bool {
    let own = |condition: &str| {
        let folder = ["foldername(", "split_part("].iter().any(|part| condition.contains(part));
        let asker = ["auth.uid()", "auth.jwt()"].iter().any(|part| condition.contains(part));
        folder && asker && !has_alternative(condition)
    };
    conditions(policy).next().is_some() && conditions(policy).all(own)
}

fn has_alternative(condition: &str) -> bool {
    condition.to_ascii_uppercase().contains(" OR ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;
    use crate::supabase::schema::tests::complete;

    const OWN: &str = "((bucket_id = 'b'::text) AND ((auth.uid())::text = (storage.foldername(name))[1]))";

    fn policy(using: Option<&str>, check: Option<&str>) -> Policy {
        Policy {
            table: OBJECTS.to_owned(),
            name: "theirs".to_owned(),
            command: "ALL".to_owned(),
            permissive: true,
            roles: vec!["authenticated".to_owned()],
            using: using.map(str::to_owned),
            check: check.map(str::to_owned),
        }
    }

    #[test]
    fn every_policy_counts_but_those_of_other_buckets() {
        for (using, reaching) in [
            (None, true),
            (Some("true"), true),
            (Some("(bucket_id = 'b'::text)"), true),
            (Some("(bucket_id = 'avatars'::text)"), false),
            (Some("((bucket_id = 'avatars'::text) OR (owner = auth.uid()))"), true),
            (Some("(bucket_id <> 'avatars'::text)"), true),
        ] {
            assert_eq!(reaches(&policy(using, None), "b"), reaching, "{using:?}");
        }
        assert!(reaches(&policy(Some("(bucket_id = 'avatars'::text)"), Some("true")), "b"));
    }

    #[test]
    fn a_policy_that_reaches_an_open_history_is_a_warning() {
        let verdict = |policy: &Policy, closed| one(policy, closed).verdict;
        let careless = policy(Some("(bucket_id = 'b'::text)"), None);
        assert_eq!(verdict(&careless, false), Verdict::Warn);
        assert_eq!(verdict(&careless, true), Verdict::Ok);
        assert_eq!(verdict(&policy(Some(OWN), None), false), Verdict::Ok);
        assert_eq!(verdict(&policy(Some(OWN), Some("true")), false), Verdict::Warn);
        assert_eq!(verdict(&policy(Some(&format!("({OWN} OR true)")), None), false), Verdict::Warn);
        let found = one(&careless, false).found;
        assert!(["theirs", "ALL", "authenticated"].iter().all(|word| found.contains(word)), "{found}");
    }

    #[test]
    fn without_row_level_security_nothing_is_safe() {
        let open = Report { objects_rls: false, ..complete() };
        assert_eq!(checks("b", &open)[0].code, Some(Code::BucketPublic));
        let bare = Report { history_policy: false, ..complete() };
        assert_eq!(checks("b", &bare)[0].verdict, Verdict::Warn);
        assert_eq!(checks("b", &complete())[0].verdict, Verdict::Ok);
    }
}
