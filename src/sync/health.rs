//! Whether the process and its sessions are well: what the probes answer.

use std::collections::BTreeSet;
use std::fmt;

/// What the probes look at; sent through a `tokio::sync::watch` channel by whoever supervises.
///
/// Once its sender is gone, nobody supervises any more: the probes take that as dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// No worker died.
    pub alive: bool,
    /// Every session is published and its bot may start.
    pub ready: bool,
    /// Another process holds a session that was ours.
    pub lease_lost: bool,
    /// Why one of the above is not as it should be.
    pub why: BTreeSet<Why>,
}

impl Default for Health {
    /// A process that just began.
    fn default() -> Self {
        Self { alive: true, ready: false, lease_lost: false, why: BTreeSet::from([Why::Starting]) }
    }
}

/// A reason, as a stable word without ids or phones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing is decided yet.
    Starting,
    /// Storage does not answer.
    Unreachable,
    /// Another process has a session: its lease is waited for.
    LeaseHeld,
    /// A tree is being restored.
    Restoring,
    /// A person has to decide.
    Held,
    /// Another process took a session over.
    Taken,
    /// A worker of this process died.
    WorkerDied,
    /// The process is on its way out.
    Stopping,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Unreachable => "unreachable",
            Self::LeaseHeld => "lease_held",
            Self::Restoring => "restoring",
            Self::Held => "held",
            Self::Taken => "taken",
            Self::WorkerDied => "worker_died",
            Self::Stopping => "stopping",
        })
    }
}
