//! How one configuration is searched.

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::rules::{Config, Faults, Kind, Lease, Rules};

/// Nothing goes wrong.
pub const NO: Faults = Faults {
    crashes: 0,
    reboots: 0,
    losses: 0,
    power_cuts: 0,
    rollbacks: 0,
    clones: 0,
    row_rollbacks: 0,
    abandons: 0,
    unclear: 0,
    rewinds: 0,
    deletes: 0,
    retentions: 0,
    drains: 0,
    asks: 0,
};

/// What a search found.
pub struct Found {
    pub states: usize,
    /// Broken promises with their shortest traces; none: all that can be reached was seen.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// What happened in some world, as it should.
    pub met: Vec<&'static str>,
}

/// A small world: two pods of one kind, one base in history.
pub fn config(lease: Lease, kind: Kind, faults: Faults) -> Config {
    Config {
        lease,
        pods: vec![kind; 2],
        rules: Rules::ALL,
        faults,
        writes: 2,
        commits: 5,
        epochs: 4,
        empty: false,
        new_row: false,
    }
}

/// Searches breadth first, so that traces are short, until a promise is broken whose name begins with `awaited`.
pub fn check(config: &Config, awaited: &str) -> Found {
    let promises = config.properties().into_iter().filter(|p| p.expectation == Expectation::Always);
    let promises: Vec<_> = promises.map(|p| p.name).collect();
    let awaited = promises.iter().copied().filter(|name| name.starts_with(awaited)).collect();
    let checker = config.clone().checker().finish_when(HasDiscoveries::AnyOf(awaited)).spawn_bfs().join();
    let (broken, met): (Vec<_>, Vec<_>) =
        checker.discoveries().into_iter().partition(|(name, _)| promises.contains(name));
    let steps = |path: stateright::Path<_, _>| path.into_actions().iter().map(|a| format!("{a:?}")).collect();
    Found {
        states: checker.unique_state_count(),
        broken: broken.into_iter().map(|(name, path)| (name, steps(path))).collect(),
        met: met.into_iter().map(|(name, _)| name).collect(),
    }
}
