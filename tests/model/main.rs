//! A model of the protocol of DESIGN.md (commit, lease, restore, start table, retention), checked by search.
//!
//! Every order of steps, late uploads and faults within small bounds is tried. What the code decides by pure functions
//! the model decides by the same ones: the start table, what a list says, whether a commit is acknowledged, whether a
//! claim counts, what retention deletes. `docs/model.md` says what is modelled and what was found.
//!
//! | module | holds |
//! |---|---|
//! | `state` | the world: commits, claims, the lease row, pods with disk and process |
//! | `rules` | a switch a rule, the faults and bounds of a search |
//! | `bucket`, `start` | the world as the code's own functions read it |
//! | `lease`, `restore`, `commit`, `house`, `faults` | one function a step |
//! | `steps`, `promises` | which steps are possible, what must hold |
//! | `check`, `kept`, `mutants` | a search; the searches with all rules kept, and with one rule off |

#![allow(clippy::unwrap_used, reason = "tests and their helpers may panic")]

mod bucket;
mod check;
mod commit;
mod faults;
mod house;
mod kept;
mod lease;
mod mutants;
mod promises;
mod restore;
mod rules;
mod start;
mod state;
mod steps;
