//! What a scrape shows, and that `docs/metrics.md` says the same.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::Code;
use crate::history;
use crate::host::Real;
use crate::store::{Counts, Kind, Op};

const CONTRACT: &str = include_str!("../../../docs/metrics.md");
const PHONES: [&str; 2] = ["5511999887766", "5511888887766"];

fn metrics(labels: SessionLabels) -> Metrics {
    let (_, health) = watch::channel(Health::default());
    let counters = Arc::<Counters>::default();
    counters.committed(history::Kind::Base, 1000, std::time::Duration::from_millis(70));
    counters.failed(Code::Unreachable);
    counters.lease_call("renew", Ok(()));
    Metrics {
        control: None,
        health,
        counted: Some((counters, store::Metrics::default())),
        #[cfg(feature = "runner")]
        whatsapp: None,
        deliveries: Some(Arc::default()),
        labels,
        started: Timestamp::UNIX_EPOCH,
        host: Arc::new(Real),
    }
}

fn session(session: &str) -> SessionStatus {
    SessionStatus {
        state: SessionState::Ready,
        ready: true,
        epoch: Some(3),
        lease: Some(LeaseState::Held),
        last_commit_at: Some("2026-11-27T12:00:00Z".parse().unwrap()),
        last_success_at: Some("2026-11-27T12:00:01.5Z".parse().unwrap()),
        files: 12,
        ..SessionStatus::blank(&session.parse().unwrap())
    }
}

fn report(sessions: Vec<SessionStatus>) -> StatusReport {
    StatusReport { version: "1".into(), running: true, watch: None, sessions }
}

#[cfg(feature = "runner")]
fn bots() -> Vec<Bot> {
    use crate::runner::port::{Failure, FailureCode, State};
    let mut bot = Connection::new(State::Failed, Timestamp::UNIX_EPOCH);
    bot.failure = Some(Failure { code: FailureCode::QrExpired, message: String::new() });
    vec![("u/s".parse().unwrap(), bot)]
}

#[cfg(not(feature = "runner"))]
fn bots() -> Vec<Bot> {
    Vec::new()
}

fn few() -> Vec<SessionStatus> {
    PHONES.iter().map(|phone| session(&format!("{phone}/default"))).collect()
}

/// Type and labels of each metric, by the name that its samples have.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn exposed(text: &str) -> Families {
    let mut families = Families::new();
    let mut types: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("#"), Some("TYPE")) => {
                let (family, kind) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                let suffix = match kind.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                families.insert(format!("{family}{suffix}"), (kind.clone(), BTreeSet::new()));
                types.push((family, kind));
            }
            (Some("#") | None, _) => {}
            (Some(sample), _) => {
                let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
                let name =
                    name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
                let (_, found) = families.get_mut(name).unwrap_or_else(|| panic!("no TYPE before {line}"));
                let keys = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
                found.extend(keys.filter(|key| key != "le"));
            }
        }
    }
    families
}

fn contract() -> Families {
    let rows = CONTRACT.lines().filter(|line| line.starts_with("| `session_sidecar_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let words = |cell: &str| {
            cell.split(['`', ',', ' '])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
        };
        let labels = words(cells[3]).into_iter().filter(|label| label != "–").collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

#[cfg(feature = "runner")]
#[test]
fn the_document_and_the_process_name_the_same_metrics_types_and_labels() {
    let metrics = metrics(SessionLabels::Auto);
    let text = metrics.render(Some(&report(few())), Some(&bots()), Listener::Probe);
    // What was counted by whoever called storage.
    let mut sheet = Sheet::default();
    let errors = BTreeMap::from([(Kind::Denied, 1)]);
    storage(&mut sheet, &BTreeMap::from([(Op::Put, Counts { errors, ..Counts::default() })]));
    let mut found = exposed(&text);
    found.extend(exposed(&sheet.text()));
    assert_eq!(found, contract());
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn sessions_are_named_without_phones_and_each_by_a_name_of_its_own() {
    let text = metrics(SessionLabels::Auto).render(Some(&report(few())), None, Listener::Probe);
    for phone in PHONES {
        assert!(!text.contains(phone), "{text}");
    }
    for name in ["55…66/default", "55…66/default#2"] {
        assert!(text.contains(&format!("session_sidecar_files{{session=\"{name}\"}} 12.0")), "{text}");
    }
}

#[test]
fn more_than_a_few_sessions_and_those_behind_the_api_are_not_told_apart() {
    let many: Vec<_> = (0..11).map(|nth| session(&format!("u/{nth}"))).collect();
    let all = metrics(SessionLabels::On).render(Some(&report(many)), None, Listener::Probe);
    assert!(!all.contains("session=") && all.contains("session_sidecar_files 132.0\n"), "{all}");
    assert!(all.contains("session_sidecar_sessions{state=\"ready\"} 11.0"), "{all}");
    for (labels, listener, named) in [
        (SessionLabels::Auto, Listener::Probe, true),
        (SessionLabels::Auto, Listener::Api, false),
        (SessionLabels::On, Listener::Api, true),
        (SessionLabels::Off, Listener::Probe, false),
    ] {
        let text = metrics(labels).render(Some(&report(few())), None, listener);
        assert_eq!(text.contains("session="), named, "{labels:?} {listener:?}");
    }
}

#[test]
fn where_sessions_are_not_told_apart_the_worst_one_counts() {
    let mut sessions = few();
    sessions[1].last_success_at = Some("2026-11-27T11:00:00Z".parse().unwrap());
    sessions[1].ready = false;
    sessions[0].oldest_change_at = Some(Real.now() - jiff::SignedDuration::from_secs(600));
    let text = metrics(SessionLabels::Off).render(Some(&report(sessions)), None, Listener::Probe);
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("session_sidecar_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!((value("last_success_timestamp_seconds") - 1_795_777_200.0).abs() < 1.0);
    assert!(value("session_ready").abs() < f64::EPSILON);
    assert!((600.0..660.0).contains(&value("oldest_change_age_seconds")));
}

#[test]
fn a_process_without_sessions_of_its_own_shows_what_it_has() {
    let runner = Metrics { counted: None, deliveries: None, ..metrics(SessionLabels::Auto) };
    let text = runner.render(None, Some(&bots()), Listener::Api);
    assert!(
        text.contains("session_sidecar_build_info{version=") && !text.contains("session_sidecar_sessions"),
        "{text}"
    );
    assert!(text.contains("session_sidecar_probe_success{probe=\"readyz\"} 0.0"), "{text}");
}
