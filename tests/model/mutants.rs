//! The protocol without one of its rules: what is each for?

use std::collections::BTreeSet;

use crate::check::{NO, check, config};
use crate::rules::{Config, Faults, Kind, Lease, Rules};

/// A protocol without these rules, and where it goes wrong.
#[derive(Clone, Copy)]
struct Mutant {
    off: &'static str,
    lease: Lease,
    kind: Kind,
    faults: Faults,
    /// Writes, commits, epochs.
    bounds: (u8, usize, u32),
    /// How the broken promise's name begins.
    breaks: &'static str,
}

const EXEC: Mutant =
    Mutant { off: "", lease: Lease::Postgres, kind: Kind::Exec, faults: NO, bounds: (2, 5, 4), breaks: "" };
const RUN: Mutant = Mutant { kind: Kind::Run, ..EXEC };
const STORAGE: Mutant = Mutant { lease: Lease::Storage, ..EXEC };
const CRASH: Faults = Faults { crashes: 1, ..NO };
const ABANDON: Faults = Faults { abandons: 1, ..NO };
const RETAIN: Faults = Faults { retentions: 1, ..NO };
const DELETE: Faults = Faults { deletes: 1, ..NO };

const ONE_WRITER: &[Mutant] = &[
    Mutant { off: "claim_by_move", breaks: "P5", ..STORAGE },
    Mutant { off: "claim_by_move", breaks: "P5", faults: Faults { row_rollbacks: 1, ..NO }, ..EXEC },
    Mutant { off: "list_after_claim", breaks: "P2", ..STORAGE },
    Mutant { off: "list_after_claim", breaks: "P2", ..EXEC },
    Mutant { off: "short_list", breaks: "P5", ..STORAGE },
    Mutant { off: "short_list", breaks: "P5", ..EXEC },
    Mutant { off: "seal_first", breaks: "start: a disk", faults: CRASH, ..EXEC },
    Mutant { off: "ready_check", breaks: "start: no bot after", ..STORAGE },
    Mutant { off: "ready_check", breaks: "start: no bot after", ..EXEC },
    Mutant { off: "nonce claim_by_move", breaks: "P3", ..STORAGE },
    Mutant { off: "new_epoch claim_by_move is_ours", breaks: "P2", faults: CRASH, ..EXEC },
    Mutant { off: "holder_bound", breaks: "peace: no grant", faults: Faults { clones: 1, ..NO }, ..EXEC },
    Mutant { off: "wait", breaks: "peace: no grant", ..EXEC },
    Mutant { off: "quiet", breaks: "peace: what was", faults: Faults { asks: 1, ..NO }, ..EXEC },
    Mutant { off: "flush_first", breaks: "handover", faults: Faults { asks: 1, ..NO }, ..EXEC },
    Mutant { off: "flush_first", breaks: "handover", faults: Faults { drains: 1, ..NO }, ..STORAGE },
];

const COMMITS: &[Mutant] = &[
    Mutant { off: "fsync", breaks: "P2 no plain", faults: Faults { power_cuts: 1, ..NO }, ..EXEC },
    Mutant { off: "pending", breaks: "start: a disk", faults: CRASH, ..EXEC },
    Mutant { off: "pending", breaks: "start: a disk", faults: Faults { reboots: 1, ..NO }, ..RUN },
    Mutant { off: "pending_list", breaks: "start: a disk", faults: Faults { crashes: 1, ..ABANDON }, ..EXEC },
    Mutant { off: "confirmed_parent", breaks: "P6", faults: ABANDON, ..EXEC },
    Mutant { off: "fresh_id", breaks: "P3", faults: ABANDON, ..EXEC },
    Mutant { off: "keep_chain", breaks: "P6", faults: RETAIN, bounds: (3, 6, 3), ..EXEC },
    Mutant { off: "proof two_bases", breaks: "P6", faults: RETAIN, bounds: (2, 6, 3), ..EXEC },
    Mutant { off: "proof two_bases", breaks: "P6", faults: RETAIN, bounds: (2, 6, 3), ..STORAGE },
];

const STARTS: &[Mutant] = &[
    // Away, overtaken, back, dead before the publish, back again.
    Mutant { off: "restoring", breaks: "P2 no plain", faults: CRASH, bounds: (1, 6, 5), ..STORAGE },
    Mutant { off: "restored_head", breaks: "start: no conflict", faults: CRASH, ..STORAGE },
    Mutant {
        off: "mark_guard",
        breaks: "P2 a rewind",
        faults: Faults { rewinds: 1, ..CRASH },
        bounds: (1, 5, 4),
        ..STORAGE
    },
    Mutant {
        off: "mark_guard",
        breaks: "P2 a rewind",
        faults: Faults { drains: 1, crashes: 1, ..DELETE },
        bounds: (1, 5, 4),
        ..EXEC
    },
    Mutant { off: "tombstone_aside", breaks: "P2 a rewind", faults: DELETE, bounds: (1, 5, 4), ..STORAGE },
    Mutant { off: "mark_stays", breaks: "P2 a rewind", faults: DELETE, bounds: (1, 5, 5), ..STORAGE },
    Mutant { off: "same_life", breaks: "P7", faults: CRASH, kind: Kind::Run, ..STORAGE },
];

/// Rules of which one is missed by nobody, because another stands behind it. `docs/model.md` says which.
const SPARE: &[Mutant] = &[
    Mutant { off: "above", faults: CRASH, bounds: (1, 4, 3), ..EXEC },
    Mutant { off: "new_epoch", faults: CRASH, bounds: (1, 4, 3), ..EXEC },
    Mutant { off: "is_ours keep_claims", faults: RETAIN, ..STORAGE },
    Mutant { off: "nonce", faults: Faults { unclear: 1, ..CRASH }, bounds: (1, 4, 4), ..STORAGE },
    Mutant { off: "proof", faults: RETAIN, bounds: (2, 6, 3), ..STORAGE },
    Mutant { off: "proof", faults: RETAIN, bounds: (2, 5, 3), ..EXEC },
    Mutant { off: "two_bases", faults: RETAIN, bounds: (2, 5, 3), ..EXEC },
];

fn each(mutants: &[Mutant], judge: impl Fn(&Mutant, &[&str])) {
    for mutant in mutants {
        let (writes, commits, epochs) = mutant.bounds;
        let config = config(mutant.lease, mutant.kind, mutant.faults);
        let rules = mutant.off.split(' ').fold(Rules::ALL, Rules::without);
        let config = Config { rules, writes, commits, epochs, new_row: mutant.off == "above", ..config };
        let found = check(&config, mutant.breaks);
        println!("without {} ({:?}, {:?}): {} states", mutant.off, mutant.lease, mutant.kind, found.states);
        for (name, steps) in &found.broken {
            println!("    {name}, {} steps: {}", steps.len(), steps.join(" "));
        }
        judge(mutant, &found.broken.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}

fn breaks(mutants: &[Mutant]) {
    each(mutants, |mutant, broken| {
        let found = broken.iter().any(|name| name.starts_with(mutant.breaks));
        assert!(found, "without {} nothing breaks {}, only {broken:?}", mutant.off, mutant.breaks);
    });
}

#[test]
fn without_a_rule_of_one_writer_a_promise_breaks() {
    breaks(ONE_WRITER);
}

#[test]
fn without_a_rule_of_commits_and_retention_a_promise_breaks() {
    breaks(COMMITS);
}

#[test]
fn without_a_rule_of_the_start_a_promise_breaks() {
    breaks(STARTS);
}

#[test]
fn without_one_of_two_rules_that_guard_the_same_nothing_breaks() {
    each(SPARE, |mutant, broken| assert!(broken.is_empty(), "without {}: {broken:?}", mutant.off));
}

#[test]
fn every_rule_was_left_out_once() {
    let lists = [ONE_WRITER, COMMITS, STARTS, SPARE];
    let off: BTreeSet<_> = lists.iter().copied().flatten().flat_map(|mutant| mutant.off.split(' ')).collect();
    assert_eq!(off, Rules::NAMES.iter().copied().collect());
}
