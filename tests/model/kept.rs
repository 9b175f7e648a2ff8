//! All rules kept: nothing may break.

use std::collections::BTreeSet;

use crate::check::{NO, check, config};
use crate::rules::{Config, Faults, Kind, Lease};

/// The families of faults that are searched together, under every lease and for every kind of pod.
const FAMILIES: [(&str, Faults); 10] = [
    ("restarts", Faults { crashes: 1, reboots: 1, ..NO }),
    ("abandons", Faults { abandons: 1, crashes: 1, unclear: 1, ..NO }),
    ("handover", Faults { drains: 1, losses: 1, ..NO }),
    ("retention", Faults { retentions: 1, crashes: 1, ..NO }),
    ("rollback", Faults { rollbacks: 1, ..NO }),
    ("clone", Faults { clones: 1, ..NO }),
    ("power", Faults { power_cuts: 1, crashes: 1, ..NO }),
    ("rewind", Faults { rewinds: 1, crashes: 1, reboots: 1, ..NO }),
    ("delete", Faults { deletes: 1, crashes: 1, reboots: 1, ..NO }),
    ("undelete", Faults { deletes: 1, rewinds: 1, ..NO }),
];

const WAYS: [(&str, Lease, Kind); 4] = [
    ("postgres/exec", Lease::Postgres, Kind::Exec),
    ("postgres/run", Lease::Postgres, Kind::Run),
    ("storage/exec", Lease::Storage, Kind::Exec),
    ("storage/run", Lease::Storage, Kind::Run),
];

/// Searches all, and prints a line for each; gives what was met.
fn holds(searches: impl IntoIterator<Item = (String, Config)>) -> BTreeSet<&'static str> {
    let mut met = BTreeSet::new();
    for (name, config) in searches {
        let begin = tokio::time::Instant::now();
        let found = check(&config, "");
        println!("{name}: {} states, {:.1} s", found.states, begin.elapsed().as_secs_f64());
        assert!(found.broken.is_empty(), "{name}: {:?}", found.broken);
        met.extend(found.met);
    }
    met
}
/// Bounds that a build without optimisation searches in a few seconds.
fn small(config: Config) -> Config {
    Config { writes: 1, commits: 4, epochs: 3, ..config }
}

fn families(of: Kind) -> impl Iterator<Item = (String, Config)> {
    FAMILIES.iter().flat_map(move |(family, faults)| {
        let ways = WAYS.iter().filter(move |(_, _, kind)| *kind == of);
        ways.map(move |(way, lease, kind)| (format!("{way} {family}"), config(*lease, *kind, *faults)))
    })
}

#[test]
fn a_pod_that_owns_its_bot_keeps_all_promises() {
    holds(families(Kind::Exec).map(|(name, config)| (name, small(config))));
}

#[test]
fn a_pod_beside_its_bot_keeps_all_promises() {
    holds(families(Kind::Run).map(|(name, config)| (name, small(config))));
}
