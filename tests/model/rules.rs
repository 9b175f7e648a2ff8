//! The protecting rules as switches, and the bounds and faults of one search.

/// Who decides about waiting and asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A row with an expiry; what it grants is claimed in the bucket too.
    Postgres,
    /// The claim alone: nobody waits, nobody is asked.
    Storage,
}

/// How a pod runs its bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `exec`, `serve`: starts before its bot, stops it, dies with it.
    Exec,
    /// `run`, or `restore` and then `watch`: the bot lives beside it and survives its crash.
    Run,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One switch a rule; `true` means that the rule is kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::struct_excessive_bools, reason = "that is what it is for")]
        pub struct Rules { $($(#[$doc])* pub $name: bool),* }

        impl Rules {
            pub const ALL: Rules = Rules { $($name: true),* };
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The same rules without the named one.
            pub fn without(mut self, name: &str) -> Rules {
                match name {
                    $(stringify!($name) => self.$name = false,)*
                    _ => panic!("no rule named {name}"),
                }
                self
            }
        }
    };
}

rules! {
    // One writer
    /// A claim is a move onto a free name: only one can win.
    claim_by_move,
    /// A grant is above the highest epoch listed or kept in the state.
    above,
    /// Each grant has a new epoch, also for the same holder.
    new_epoch,
    /// Decisions are made on a list taken after the claim.
    list_after_claim,
    /// A claim above which that list shows another, or under which it shows a commit, does not count.
    is_ours,
    /// Acknowledged is what a list after the commit shows no higher epoch for.
    short_list,
    /// A seal is acknowledged before anything is published.
    seal_first,
    /// The short list once more right before the bot starts.
    ready_check,
    /// A commit's name ends in a nonce.
    nonce,
    /// A holder id is used again only by the same pod life on the same disk.
    holder_bound,

    // Order of a commit
    /// What was read is durable before the pending id is.
    fsync,
    /// The pending id is written to the state before the upload.
    pending,
    /// The state keeps every attempt that may still land above its head, not only the last one.
    pending_list,
    /// The successor of an abandoned attempt names the last confirmed parent.
    confirmed_parent,
    /// An abandoned attempt's id is not used again.
    fresh_id,

    // Start
    /// `restoring ID` is written to the state before the seal.
    restoring,
    /// Line 2: a tree that is just what was being restored makes that the state's head.
    restored_head,
    /// A rewind or tombstone sets `restoring` together with its pending id.
    mark_guard,
    /// Line 9: a tree from before a tombstone is set aside, not adopted.
    tombstone_aside,
    /// The seal of a new session keeps the tombstone's mark until something is committed.
    mark_stays,
    /// Lines 3 and 4: whoever starts again beside a living bot knows it.
    same_life,

    // Retention
    /// Only under a right proven after its base was acknowledged.
    proof,
    /// The parents of what is kept are kept, down to the base.
    keep_chain,
    /// The two newest bases are kept, not only the newest.
    two_bases,
    /// The newest claim and the own one are kept.
    keep_claims,

    // Waiting and asking
    /// Who is refused by the row waits.
    wait,
    /// A quiet waiter does not take what another asked for.
    quiet,
    /// Nothing is released before the flush is acknowledged.
    flush_first,
}

/// What may go wrong in one search, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// The process dies; `Exec`: the bot too.
    pub crashes: u8,
    /// The pod starts anew on the same disk.
    pub reboots: u8,
    /// The pod starts anew on an empty disk.
    pub losses: u8,
    /// The pod starts anew on what was durable.
    pub power_cuts: u8,
    /// A disk is put back to an earlier copy.
    pub rollbacks: u8,
    /// A disk is copied to another pod.
    pub clones: u8,
    /// The lease row goes back to before its last grant.
    pub row_rollbacks: u8,
    /// The process gives up waiting for an answer; the upload may still land.
    pub abandons: u8,
    /// A claim is answered unclearly; it may still land.
    pub unclear: u8,
    /// `restore --at`, `undelete`.
    pub rewinds: u8,
    /// `delete`.
    pub deletes: u8,
    /// Runs of retention.
    pub retentions: u8,
    /// Orderly stops.
    pub drains: u8,
    /// Wishes.
    pub asks: u8,
}

/// One search.
#[derive(Clone, Debug)]
pub struct Config {
    pub lease: Lease,
    pub pods: Vec<Kind>,
    pub rules: Rules,
    pub faults: Faults,
    /// Bot writes at most.
    pub writes: u8,
    /// Commits ever made at most, the first base included.
    pub commits: usize,
    /// Highest epoch.
    pub epochs: u32,
    /// Whether history starts empty instead of with one base.
    pub empty: bool,
    /// Whether the row was made after the history (a change from `storage` to `postgres`).
    pub new_row: bool,
}
