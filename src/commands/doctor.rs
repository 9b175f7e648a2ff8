//! `doctor`: checks a live project and the place where this runs, and says what to do. It takes no lease and no lock,
//! and leaves nothing behind.

mod bucket;
mod check;
mod clock;
mod database;
mod encryption;
mod machine;
mod objects;
mod policies;
mod project;
mod reach;
mod root;
mod strangers;

use std::sync::Arc;

use serde::Serialize;

use self::check::{Check, Verdict};
use super::output::Output;
use crate::cli::Doctor;
use crate::cli::options::RemoteArgs;
use crate::config::{Place, RemoteConfig, environment};
use crate::error::{Code, Result};
use crate::history::upload;
use crate::host::{Host as _, Real};
use crate::session::Layout;
use crate::store::{Page, Store as _};
use crate::supabase::Supabase;
use crate::supabase::schema::{self, ReportRequest};
use crate::sync::journal::blocking;

#[derive(Serialize)]
struct Report {
    failed: usize,
    warnings: usize,
    checks: Vec<Check>,
}

/// Checks everything; the exit code is that of the worst failure.
pub(super) async fn run(args: &Doctor, out: Output) -> Result<u8> {
    let place = Place::new(&args.place)?;
    let mut checks = remote(&args.remote, &place.layout).await;
    checks.extend(blocking(move || root::checks(&place.root)).await?);
    let report = Report::new(checks);
    out.result(&report, Report::text)?;
    Ok(report.exit())
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        Self { failed: count(Verdict::Fail), warnings: count(Verdict::Warn), checks }
    }

    /// The greatest one: a refused key (5) and a Supabase that is away (4) hide what is configured wrongly (2).
    fn exit(&self) -> u8 {
        self.checks.iter().filter_map(|check| check.code).map(Code::exit).max().unwrap_or(0)
    }

    fn text(&self) -> String {
        let lines = self.checks.iter().map(|check| check.line() + "\n");
        format!("{}{} failed, {} warnings", lines.collect::<String>(), self.failed, self.warnings)
    }
}

/// All about the project; what cannot be reached is not asked further.
async fn remote(args: &RemoteArgs, layout: &Layout) -> Vec<Check> {
    let connected = RemoteConfig::new(args, &environment)
        .and_then(|remote| Ok((remote.connect(Arc::new(Real))?, project::key(&remote, Real.now())?, remote)));
    let table = "whatsapp_sessions";
    let (supabase, key, remote) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let advice = "set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY as the project's dashboard has them, or \
                          SUPABASE_SIDECAR_TOKEN as `session-sidecar token` makes it";
            return vec![Check::error("configuration", &error, advice)];
        }
    };
    let answer = supabase.bucket().await;
    let advice = supabase.client().credential().advice(Real.now());
    let reached = project::reached(supabase.client().endpoint(), &answer, &advice);
    let mut checks = vec![reached, key];
    if checks[0].verdict == Verdict::Fail {
        return checks;
    }
    checks.push(bucket::check(&remote.bucket, &answer));
    checks.push(encryption::check(&remote.keys, encryption::look(&supabase, layout).await));
    let request = ReportRequest { bucket: &remote.bucket, table: Some(table) };
    let report = supabase.client().rpc::<schema::Report>("session_sidecar_report", &request).await;
    checks.extend(database::checks(&remote.bucket, report));
    checks.extend(clock(&supabase).await);
    // Without a bucket that takes something there is nothing to try.
    if let Some((content_type, _)) = answer.ok().and_then(|bucket| upload::content_type(&bucket).ok()) {
        checks.extend(probes(&remote, &supabase, content_type.clone()).await);
        checks.extend(reach::check(&remote, table, content_type).await);
    }
    checks
}

/// Any answer has the server's clock.
async fn clock(supabase: &Supabase) -> Option<Check> {
    let before = Real.now();
    let page = Page { prefix: objects::HISTORY.to_owned(), limit: 1, ..Page::default() };
    // A list that fails shows in the checks of objects.
    let listing = supabase.list(&page).await.ok()?;
    Some(clock::check(listing.date?, before, Real.now()))
}

/// What we may do with objects, and what others may not; whatever comes of it, no probe stays behind.
async fn probes(remote: &RemoteConfig, supabase: &Supabase, content_type: String) -> Vec<Check> {
    let scope = supabase.client().credential().token().map(|token| token.scope.clone());
    let probe = objects::Probe::new(content_type, scope.as_ref());
    let mut checks = vec![objects::check(probe.round_trip(supabase).await)];
    checks.extend(strangers::checks(remote, supabase, &probe).await);
    checks.extend(probe.clean(supabase).await);
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_failure() {
        let fail = |code| Check::fail("x", code, "found", "do");
        assert_eq!(Report::new(vec![]).exit(), 0);
        assert_eq!(Report::new(vec![Check::warn("x", "found", "do"), Check::ok("y", "found")]).exit(), 0);
        let report = Report::new(vec![fail(Code::Usage), fail(Code::Unauthorized), fail(Code::Unreachable)]);
        assert_eq!((report.exit(), report.failed, report.warnings), (5, 3, 0));
    }
}
