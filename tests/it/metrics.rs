//! `/metrics` of the real binary, its contract, and what is made of it: alert rules and a dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use session_sidecar::emulator::{Down, Faults};

use crate::support::world::{Running, World, eventually};

const CONTRACT: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/session-sidecar.json");
const PHONES: [&str; 2] = ["5511999887766", "5511888887766"];

/// Types by name, as the document has them.
fn contract() -> BTreeMap<String, String> {
    let rows = CONTRACT.lines().filter(|line| line.starts_with("| `session_sidecar_"));
    let cell = |row: &str, nth| row.split('|').nth(nth).unwrap().trim().trim_matches('`').to_owned();
    rows.map(|row| (cell(row, 1), cell(row, 2))).collect()
}

/// Types by the name that samples have.
fn types(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let named = lines.map(|(family, kind)| match kind {
        "counter" => (format!("{family}_total"), kind.to_owned()),
        "info" => (format!("{family}_info"), kind.to_owned()),
        _ => (family.to_owned(), kind.to_owned()),
    });
    named.collect()
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn scrape(base: &str) -> Option<String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let response = reqwest::get(format!("{base}/metrics")).await.ok()?;
    assert_eq!(
        response.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    response.text().await.ok()
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_shows_where_few_sessions_stand_and_names_neither_phones_nor_many() {
    let world = World::new().await;
    let root = world.root("root");
    let write = |session: &str| {
        std::fs::create_dir_all(root.join(session)).unwrap();
        std::fs::write(root.join(session).join("a.json"), "1").unwrap();
    };
    for phone in PHONES {
        write(&format!("{phone}/default"));
    }
    let at = free();
    let mut command = world.bare("run", &root);
    command.args(["--probe-listen", &at.to_string(), "--listen", "off", "--quiet-window", "50ms"]);
    let running = Running::spawn(command);
    let base = format!("http://{at}");
    let mut text = String::new();
    eventually("both sessions are committed and mirrored", async || {
        text = scrape(&base).await.unwrap_or_default();
        value(&text, "session_sidecar_sessions{state=\"ready\"}") == Some(2.0)
            && value(&text, "session_sidecar_files{session=\"55…66/default\"}") == Some(1.0)
            && value(&text, "session_sidecar_files{session=\"55…66/default#2\"}") == Some(1.0)
            && value(&text, "session_sidecar_mirror_pending{session=\"55…66/default\"}") == Some(0.0)
            && value(&text, "session_sidecar_oldest_change_age_seconds{session=\"55…66/default\"}")
                == Some(0.0)
    })
    .await;
    for phone in PHONES {
        assert!(!text.contains(phone), "{text}");
    }
    for (series, least) in [
        ("session_sidecar_commits_total{kind=\"base\"}", 2.0),
        ("session_sidecar_commit_bytes_total{kind=\"base\"}", 100.0),
        ("session_sidecar_commit_duration_seconds_count", 2.0),
        ("session_sidecar_storage_requests_total{op=\"put\",outcome=\"ok\"}", 2.0),
        ("session_sidecar_storage_sent_bytes_total", 100.0),
        ("session_sidecar_lease_requests_total{op=\"acquire\",outcome=\"ok\"}", 1.0),
        ("session_sidecar_leases{state=\"held\"}", 2.0),
        ("session_sidecar_epoch{session=\"55…66/default\"}", 1.0),
        ("session_sidecar_last_success_timestamp_seconds{session=\"55…66/default\"}", 1.7e9),
        ("session_sidecar_probe_success{probe=\"readyz\"}", 1.0),
    ] {
        assert!(value(&text, series).is_some_and(|value| value >= least), "{series}: {text}");
    }
    let age = "session_sidecar_oldest_change_age_seconds{session=\"55…66/default\"}";
    world.supabase.set_faults(Faults { down: Down::Storage, ..Faults::default() });
    std::fs::write(root.join(PHONES[1]).join("default/a.json"), "2").unwrap();
    eventually("a change that cannot be stored grows old", async || {
        value(&scrape(&base).await.unwrap_or_default(), age).is_some_and(|age| age > 1.0)
    })
    .await;
    world.supabase.set_faults(Faults::default());
    eventually("it is stored", async || value(&scrape(&base).await.unwrap_or_default(), age) == Some(0.0))
        .await;

    for nth in 0..9 {
        write(&format!("u/{nth}"));
    }
    eventually("more than ten are not told apart", async || {
        text = scrape(&base).await.unwrap_or_default();
        value(&text, "session_sidecar_files") == Some(11.0)
    })
    .await;
    assert!(!text.contains("session=\""), "{text}");
    assert_eq!(running.stop().await, 0);
}

#[cfg(feature = "runner")]
#[tokio::test(flavor = "multi_thread")]
async fn serve_answers_on_its_api_with_all_of_the_contract_and_names_no_session() {
    use crate::support::service::Service;
    use crate::whatsapp::Server;
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    let root = world.root("root");
    std::fs::create_dir_all(root.join("u/s")).unwrap();
    std::fs::write(root.join("u/s/a.json"), "1").unwrap();
    let webhook = ["--webhook-url", "http://127.0.0.1:9/x", "--api-token", "a-token-of-the-operator"];
    let service = Service::start(&world, &whatsapp, &root, &webhook).await;
    let mut text = String::new();
    eventually("all of the contract is there", async || {
        text = scrape(&service.url).await.unwrap_or_default();
        types(&text) == contract()
    })
    .await;
    assert_eq!(value(&text, "session_sidecar_files"), Some(1.0));
    assert!(!text.contains("session=\"") && !text.contains("u/s"), "{text}");
}

/// Names of metrics in an expression, as the document has them.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("session_sidecar_"));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alert_rules_name_only_metrics_of_the_contract_and_say_what_to_do() {
    let rules: Value = serde_yaml_ng::from_str(ALERTS).unwrap();
    let contract = contract();
    let mut seen = BTreeSet::new();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(seen.insert(name), "{name} is there twice");
        let metrics = named(rule["expr"].as_str().unwrap());
        assert!(!metrics.is_empty(), "{name}");
        for metric in &metrics {
            assert!(contract.contains_key(metric), "{name}: {metric} is not in docs/metrics.md");
        }
        let (labels, notes) = (&rule["labels"], &rule["annotations"]);
        assert!(["critical", "warning", "info"].contains(&labels["severity"].as_str().unwrap()), "{name}");
        assert!(rule["for"].as_str().unwrap().ends_with('m'), "{name}");
        assert!(metrics.contains(notes["row"].as_str().unwrap()), "{name}");
        let promise = notes["promise"].as_str().unwrap();
        assert!(matches!(promise.strip_prefix('P').unwrap().parse(), Ok(1..=8)), "{name}");
        assert!(notes["summary"].as_str().is_some_and(|text| text.len() > 60), "{name}");
    }
    assert!(seen.len() > 10);
}

#[test]
fn the_dashboard_shows_only_metrics_of_the_contract() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let contract = contract();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown: BTreeSet<String> =
        targets.flat_map(|target| named(target["expr"].as_str().unwrap())).collect();
    let unknown: Vec<_> = shown.iter().filter(|metric| !contract.contains_key(*metric)).collect();
    assert!(unknown.is_empty() && shown.len() > 20, "{unknown:?}");
}
