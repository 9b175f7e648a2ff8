//! `/metrics`: what the process counted and where its sessions stand, as OpenMetrics text.
//!
//! Names, types and labels are a contract: `docs/metrics.md`, which a test compares with what is answered. Everything is
//! put together when somebody asks; between two scrapes nothing happens.

mod sheet;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;
use prometheus_client::registry::Unit;
use tokio::sync::watch;

use super::probe;
use crate::config::SessionLabels;
use crate::host::Host;
#[cfg(feature = "runner")]
use crate::runner::port::{Connection, WhatsApp};
#[cfg(feature = "runner")]
use crate::session::SessionKey;
use crate::store;
use crate::sync::control::Control;
use crate::sync::counters::Counters;
use crate::sync::health::Health;
use crate::sync::report::{LeaseState, SessionState, SessionStatus, StatusReport, WatchMode};
use crate::telemetry::Masked;
use crate::webhook::Deliveries;
use sheet::{Fold, Sheet};

/// What the content is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// More sessions than this are not told apart: series cost memory wherever they are kept.
const FEW: usize = 10;

/// Where `/metrics` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// On the listener of the probes, which the platform reaches.
    Probe,
    /// On the API's, which the world may reach, without a credential.
    Api,
}

/// What the metrics are read from. What a process does not have it does not show.
pub struct Metrics {
    /// Where the sessions stand; none: another process keeps them.
    pub control: Option<Arc<dyn Control>>,
    /// What the probes say.
    pub health: watch::Receiver<Health>,
    /// What was counted, and what passed between us and storage; none: there is no storage.
    pub counted: Option<(Arc<Counters>, store::Metrics)>,
    /// The connections to WhatsApp.
    #[cfg(feature = "runner")]
    pub whatsapp: Option<Arc<dyn WhatsApp>>,
    /// What became of the webhooks; none: there are none.
    pub deliveries: Option<Arc<Deliveries>>,
    /// Whether sessions are named.
    pub labels: SessionLabels,
    /// When the process began.
    pub started: Timestamp,
    /// The clock.
    pub host: Arc<dyn Host>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Answers `/metrics`.
pub fn router(metrics: Arc<Metrics>, listener: Listener) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state((metrics, listener))
}

async fn scrape(State((metrics, listener)): State<(Arc<Metrics>, Listener)>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text(listener).await)
}

impl Metrics {
    /// All of it as text.
    pub async fn text(&self, listener: Listener) -> String {
        let report = match &self.control {
            Some(control) => control.status().await.ok(),
            None => None,
        };
        #[cfg(feature = "runner")]
        let bots = self.whatsapp.as_ref().map(|whatsapp| whatsapp.connections());
        #[cfg(not(feature = "runner"))]
        let bots: Option<Vec<Bot>> = None;
        self.render(report.as_ref(), bots.as_deref(), listener)
    }

    fn render(&self, report: Option<&StatusReport>, bots: Option<&[Bot]>, listener: Listener) -> String {
        let mut sheet = Sheet::default();
        self.process(&mut sheet);
        if let Some(report) = report {
            self.sessions(&mut sheet, report, listener);
        }
        if let Some((counters, traffic)) = &self.counted {
            counted(&mut sheet, counters);
            storage(&mut sheet, &traffic.snapshot());
        }
        if let Some(bots) = bots {
            connections(&mut sheet, bots);
        }
        if let Some(deliveries) = &self.deliveries {
            webhooks(&mut sheet, deliveries);
        }
        sheet.text()
    }

    fn process(&self, sheet: &mut Sheet) {
        sheet.info("build", "The version that runs", vec![("version", env!("CARGO_PKG_VERSION").to_owned())]);
        let seconds = Some(Unit::Seconds);
        sheet.gauge(
            "start_time",
            "When the process began (Unix time)",
            seconds,
            [(vec![], unix(self.started))],
        );
        let health = probe::now(&self.health);
        let probes = [
            ("healthz", health.alive),
            ("readyz", health.alive && health.ready),
            ("leasez", !health.lease_lost),
        ];
        let series = probes.map(|(probe, well)| (vec![("probe", probe.to_owned())], flag(well)));
        sheet.gauge("probe_success", "Whether each probe answers 200", None, series);
    }

    fn sessions(&self, sheet: &mut Sheet, report: &StatusReport, listener: Listener) {
        let sessions = &report.sessions;
        let states = SessionState::ALL.map(|state| {
            let count = sessions.iter().filter(|session| session.state == state).count();
            (vec![("state", state.as_str().to_owned())], number(count))
        });
        sheet.gauge("sessions", "Sessions of this process, by where they stand", None, states);
        let leases = LeaseState::ALL.map(|lease| {
            let count = sessions.iter().filter(|session| session.lease == Some(lease)).count();
            (vec![("state", lease.as_str().to_owned())], number(count))
        });
        sheet.gauge("leases", "Sessions by how they stand with the lessor", None, leases);
        let polls = report.watch.as_ref().is_some_and(|watch| watch.mode == WatchMode::Poll);
        let help =
            "Whether changes may come without events, so that the trees are compared every few seconds";
        sheet.gauge("watch_degraded", help, None, [(vec![], flag(polls))]);

        let tell_apart = self.labels.shows(listener == Listener::Api) && sessions.len() <= FEW;
        let names = tell_apart.then(|| names(sessions));
        let now = self.host.now();
        let mut each = |name, help, unit, fold: Fold, value: &dyn Fn(&SessionStatus) -> Option<f64>| {
            sheet.each(name, help, unit, &fold.over(sessions.iter().map(value), names.as_deref()));
        };
        let (seconds, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
        each("session_ready", "Whether the tree is published and its bot may start", None, Fold::Min, &|s| {
            Some(flag(s.ready))
        });
        each("files", "Files of the head's tree", None, Fold::Sum, &|s| Some(float(s.files)));
        each("tree", "Bytes of the head's tree", bytes(), Fold::Sum, &|s| Some(float(s.bytes)));
        each("dirty_paths", "Paths that changed since the head", None, Fold::Sum, &|s| Some(float(s.dirty)));
        each("held_files", "Paths that are kept at the head's version", None, Fold::Sum, &|s| {
            Some(number(s.held.len()))
        });
        each("alarms", "What a person should look at", None, Fold::Sum, &|s| Some(number(s.alarms.len())));
        each(
            "oldest_change_age",
            "How long the oldest change has waited that is not acknowledged yet",
            seconds(),
            Fold::Max,
            &|s| Some(s.oldest_change_at.map_or(0.0, |at| (unix(now) - unix(at)).max(0.0))),
        );
        each(
            "last_success_timestamp",
            "When disk and head were last found, or made, the same (Unix time)",
            seconds(),
            Fold::Min,
            &|s| s.last_success_at.map(unix),
        );
        each(
            "last_commit_timestamp",
            "When the head was committed (Unix time)",
            seconds(),
            Fold::Max,
            &|s| s.last_commit_at.map(unix),
        );
        each("epoch", "The epoch that is held", None, Fold::Max, &|s| s.epoch.map(f64::from));
        each(
            "mirror_pending",
            "Objects of the mirror that wait to be written or removed",
            None,
            Fold::Sum,
            &|s| Some(float(s.mirror.pending)),
        );
        each("mirror_lag", "How long the oldest of them has waited", seconds(), Fold::Max, &|s| {
            Some(s.mirror.lag_seconds)
        });
        each(
            "mirror_skipped_files",
            "Files that the bucket cannot take; history has them",
            None,
            Fold::Sum,
            &|s| Some(float(s.mirror.skipped)),
        );
    }
}

fn counted(sheet: &mut Sheet, counters: &Counters) {
    sheet.register("commits", "Acknowledged commits", None, &counters.commits);
    sheet.register("commit", "Bytes of acknowledged commits", Some(Unit::Bytes), &counters.commit_bytes);
    let help = "From packing a commit to its acknowledgement";
    sheet.register("commit_duration", help, Some(Unit::Seconds), &counters.commit_seconds);
    let help = "Commits that were stored after the right to commit was lost: another process has the session";
    sheet.register("commits_not_owned", help, None, &counters.not_owned);
    let help = "From the grant to the published tree";
    sheet.register("restore_duration", help, Some(Unit::Seconds), &counters.restore_seconds);
    sheet.register("errors", "Failed commits and starts, by the code of the error", None, &counters.errors);
    let help = "Alarms of the guards of identity and against mass deletion";
    sheet.register("identity_alarms", help, None, &counters.identity_alarms);
    let help = "Another process asked for a session whose bot is not ours to stop";
    sheet.register("handovers_refused", help, None, &counters.handovers_refused);
    sheet.register("handovers", "Sessions given to another process that asked", None, &counters.handovers);
    let help = "Losses of events, after each of which everything is looked at";
    sheet.register("watch_overflows", help, None, &counters.watch_overflows);
    let help = "Calls of the lease functions, by how they ended";
    sheet.register("lease_requests", help, None, &counters.lease_requests);
}

fn storage(sheet: &mut Sheet, calls: &store::Snapshot) {
    let op = |op: &store::Op| ("op", op.as_str().to_owned());
    let ended = calls.iter().flat_map(|(name, counts)| {
        let errors = counts.errors.iter().map(|(kind, count)| (kind.as_str(), *count));
        let all = std::iter::once(("ok", counts.ok)).chain(errors);
        all.map(move |(outcome, count)| (vec![op(name), ("outcome", outcome.to_owned())], count))
    });
    sheet.counter("storage_requests", "Calls to storage that ended, each try, by how", None, ended);
    let time = calls.iter().map(|(name, counts)| (vec![op(name)], counts.time.as_secs_f64()));
    sheet.counter_of_time("storage_request_duration", "Time that these calls took, in sum", time);
    let sum = |of: fn(&store::Counts) -> u64| [(vec![], calls.values().map(of).sum::<u64>())];
    let help = "Bytes of bodies sent to storage, also of failed calls";
    sheet.counter("storage_sent", help, Some(Unit::Bytes), sum(|counts| counts.sent));
    let help = "Bytes of bodies received from storage, also of failed calls";
    sheet.counter("storage_received", help, Some(Unit::Bytes), sum(|counts| counts.received));
}

/// A session's connection to WhatsApp.
#[cfg(feature = "runner")]
type Bot = (SessionKey, Connection);
/// Without the runner there is none.
#[cfg(not(feature = "runner"))]
type Bot = std::convert::Infallible;

#[cfg(not(feature = "runner"))]
fn connections(_: &mut Sheet, _: &[Bot]) {}

#[cfg(feature = "runner")]
fn connections(sheet: &mut Sheet, connections: &[Bot]) {
    let states = crate::runner::port::State::ALL.map(|state| {
        let count = connections.iter().filter(|(_, connection)| connection.state == state).count();
        (vec![("state", state.as_str().to_owned())], number(count))
    });
    sheet.gauge("runner_connections", "Connections to WhatsApp, by state", None, states);
    let codes = crate::runner::port::FailureCode::ALL.map(|code| (code.as_str(), 0_usize));
    let mut failures = std::collections::BTreeMap::from(codes);
    for failure in connections.iter().filter_map(|(_, connection)| connection.failure.as_ref()) {
        *failures.entry(failure.code.as_str()).or_default() += 1;
    }
    let failures = failures.into_iter().map(|(code, count)| (vec![("code", code.to_owned())], number(count)));
    sheet.gauge("runner_failures", "Connections that failed or are not up yet, by why", None, failures);
}

fn webhooks(sheet: &mut Sheet, deliveries: &Deliveries) {
    let ended = deliveries.ended().map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
    sheet.counter("webhooks", "Webhooks, by what became of them", None, ended);
    let pending = [(vec![], number(deliveries.pending()))];
    sheet.gauge("webhooks_pending", "Webhooks that wait to be delivered", None, pending);
}

/// The sessions' names, each once, without phone numbers. Two that look alike without them are numbered by their order.
fn names(sessions: &[SessionStatus]) -> Vec<String> {
    let mut taken = std::collections::BTreeMap::<String, usize>::new();
    let name = |session: &SessionStatus| {
        let masked = Masked(&session.session).to_string();
        let nth = taken.entry(masked.clone()).or_default();
        *nth += 1;
        if *nth == 1 { masked } else { format!("{masked}#{nth}") }
    };
    sessions.iter().map(name).collect()
}

fn unix(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit")]
    let millis = at.as_millisecond() as f64;
    millis / 1000.0
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn number(count: usize) -> f64 {
    float(count as u64)
}

fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 do not occur")]
    let float = count as f64;
    float
}
