//! What happens in a random life.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::bot::Ruin;
use super::machine::Death;

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The bot writes one of a few files, or removes it.
    Write(u8),
    Remove(u8),
    /// More than the mass-delete guard lets pass at once.
    RemoveMost,
    /// New pre-keys, announced before or after they are written, with a pause between.
    TopUp {
        announced_first: bool,
        pause_ms: u16,
    },
    UsePreKey,
    Creds,
    /// Links an account, or another one.
    Pair,
    Ruin(Ruin),
    /// Time passes.
    Wait(Duration),
    Sync,
    Logout,
    /// Of a thousand calls to the store so many fail.
    Faults(u32),
    /// Uploads that were given up land.
    Land,
    /// The sidecar dies now, or later.
    Kill,
    Die(Death),
    /// The sidecar ends in order, after its bot.
    Stop,
    /// All sidecars end and start again with a new recipient; the first time, history was plaintext until then.
    Encrypt,
    /// Where no sidecar runs, a person goes back to an earlier commit.
    Rewind(u8),
    /// Where no sidecar runs at all, a person deletes the session.
    Delete,
    /// Where no sidecar runs, a person brings it back.
    Undelete,
    /// The sidecar starts again beside its bot, after a crash.
    Restart,
    /// A new pod, with this disk.
    Move(Disk),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Same,
    None,
    /// What it held after a power cut.
    Rebooted,
    /// As it was some moves ago.
    Older,
}

fn act() -> impl Strategy<Value = Act> {
    let secs = |range: std::ops::Range<u64>| range.prop_map(|s| Act::Wait(Duration::from_secs(s)));
    let ruin = prop_oneof![Just(Ruin::Gone), Just(Ruin::Empty), Just(Ruin::Cut), Just(Ruin::Unpaired)];
    let death = prop_oneof![
        (1..60_u32).prop_map(Death::Step),
        (1..30_u32).prop_map(Death::Before),
        (1..30_u32).prop_map(Death::After),
        (1..30_u32).prop_map(Death::Late),
    ];
    prop_oneof![
        8 => (0..6_u8).prop_map(Act::Write),
        3 => (0..6_u8).prop_map(Act::Remove),
        1 => Just(Act::RemoveMost),
        3 => (any::<bool>(), 0..400_u16)
            .prop_map(|(announced_first, pause_ms)| Act::TopUp { announced_first, pause_ms }),
        2 => Just(Act::UsePreKey),
        3 => Just(Act::Creds),
        3 => Just(Act::Pair),
        2 => ruin.prop_map(Act::Ruin),
        4 => (1..2000_u64).prop_map(|ms| Act::Wait(Duration::from_millis(ms))),
        4 => secs(1..60),
        2 => secs(300..900),
        1 => secs(3600..10_000),
        5 => Just(Act::Sync),
        1 => Just(Act::Logout),
        3 => (0..250_u32).prop_map(Act::Faults),
        1 => Just(Act::Land),
        2 => Just(Act::Kill),
        6 => death.prop_map(Act::Die),
        2 => Just(Act::Stop),
        1 => Just(Act::Encrypt),
        2 => any::<u8>().prop_map(Act::Rewind),
        2 => Just(Act::Delete),
        2 => Just(Act::Undelete),
        4 => Just(Act::Restart),
        5 => prop_oneof![Just(Disk::Same), Just(Disk::None), Just(Disk::Rebooted), Just(Disk::Older)]
            .prop_map(Act::Move),
    ]
}

/// One script: how it lies on disk, and what happens in which pod.
#[derive(Debug, Clone)]
pub struct Script {
    pub seed: u64,
    pub single: bool,
    pub mirror: bool,
    pub acts: Vec<(bool, Act)>,
}

pub fn script() -> impl Strategy<Value = Script> {
    let acts = vec((prop::bool::weighted(0.2), act()), 1..40);
    (any::<u64>(), any::<bool>(), any::<bool>(), acts).prop_map(|(seed, single, mirror, acts)| Script {
        seed,
        single,
        mirror,
        acts,
    })
}
