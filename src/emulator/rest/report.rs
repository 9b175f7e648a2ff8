//! `session_sidecar_report`: what `doctor` and `status` want to know of a project.

use serde_json::{Map, Value, json};

use super::column::SESSIONS;
use crate::emulator::BUCKET;
use crate::emulator::auth::Policy;
use crate::emulator::index::Index;
use crate::session::ROLE;

/// The report on `index` and the tables; `functions` are the names of ours.
pub(super) fn report(index: &Index, mut functions: Vec<&str>, request: &Value) -> Value {
    let named = |name: &str| request.get(name).and_then(Value::as_str);
    let bucket = named("bucket").unwrap_or(BUCKET);
    let table = named("table").unwrap_or(SESSIONS.name);
    let wants_table = request.get("table") != Some(&Value::Null);
    let sets = || index.buckets.values().map(|bucket| &bucket.row.set);
    let set = sets().find(|set| set.id == bucket);
    let ours = |policy: &Policy| matches!(policy, Policy::Closed { prefix, .. } if prefix == ".history/");
    let mut policies: Vec<Value> =
        sets().flat_map(|set| set.policies.iter().flat_map(|policy| shown(&set.id, policy))).collect();
    if wants_table && table == SESSIONS.name {
        policies.push(
            json!({ "table": format!("public.{table}"), "name": "session-sidecar: users read their own rows",
            "command": "SELECT", "permissive": true, "roles": ["authenticated"],
            "using": "(user_id = (auth.jwt() ->> 'sub'::text))", "check": null }),
        );
    }
    functions.sort_unstable();
    json!({
        "version": 2,
        "role": set.is_some_and(|set| set.policies.contains(&Policy::Sidecar)),
        "leases": true,
        "functions": functions,
        "table": wants_table.then(|| describe(table)),
        "policies": policies,
        "objects_rls": true,
        "history_policy": set.is_some_and(|set| set.policies.iter().any(ours)),
        "bucket": set.map(|set| json!({
            "id": set.id,
            "public": set.public,
            "file_size_limit": set.file_size_limit,
            "allowed_mime_types": set.allowed_mime_types,
        })),
        "server_version": "15.8",
    })
}

fn describe(table: &str) -> Value {
    let exists = table == SESSIONS.name;
    let columns = SESSIONS.columns.iter().filter(|_| exists);
    let columns: Map<_, _> = columns.map(|(name, kind)| ((*name).to_owned(), kind.name().into())).collect();
    json!({ "exists": exists, "columns": columns, "rls": exists, "unique": exists })
}

/// The rows of `pg_policies` that say what `policy` does.
fn shown(bucket: &str, policy: &Policy) -> Vec<Value> {
    let row = |name: &str, command: &str, role: &str, using: Option<&str>, check: Option<&str>| {
        json!({ "table": "storage.objects", "name": format!("{bucket}: {name}"), "command": command,
            "permissive": !matches!(policy, Policy::Closed { .. }), "roles": [role], "using": using, "check": check })
    };
    let all = format!("(bucket_id = '{bucket}'::text)");
    match policy {
        Policy::OwnFolder => {
            let own = format!("({all} AND ((auth.uid())::text = (storage.foldername(name))[1]))");
            let mut rows = vec![row("own folder, INSERT", "INSERT", "public", None, Some(&own))];
            rows.extend(
                ["SELECT", "UPDATE", "DELETE"].map(|command| {
                    row(&format!("own folder, {command}"), command, "public", Some(&own), None)
                }),
            );
            rows
        }
        Policy::EveryUser => vec![row("every user", "ALL", "authenticated", Some(&all), None)],
        Policy::Role(role) => vec![row(role, "ALL", role, Some(&all), None)],
        Policy::Sidecar => {
            let own = format!("({all} AND starts_with(name, ( SELECT session_sidecar_prefix())))");
            vec![row("the role session_sidecar", "ALL", ROLE, Some(&own), Some(&own))]
        }
        Policy::Closed { prefix, except } => {
            let using = format!(
                "((bucket_id <> '{bucket}'::text) OR (name !~~ '{prefix}%'::text) OR (CURRENT_USER = '{except}'::name))"
            );
            vec![row(&format!("closed {prefix}"), "ALL", "public", Some(&using), None)]
        }
    }
}
