//! A bot that writes by a script, and an engine that looks again and again.

use proptest::prelude::*;

use super::*;

/// A bot that writes by a script, and an engine that looks at its disk every 50 ms.
struct Simulation {
    head: Creds,
    disk: Creds,
    on_disk: BTreeSet<u64>,
    ever: BTreeSet<u64>,
    tracker: Tracker,
    start: Instant,
    script: Vec<(u64, Write)>,
    done: usize,
}

#[derive(Debug, Clone, Copy)]
enum Write {
    /// `creds.json` with this `nextPreKeyId`.
    Creds(u64),
    PreKey(u64),
    /// A peer used it.
    Use(u64),
}

impl Simulation {
    fn new(head: Creds, mut script: Vec<(u64, Write)>) -> Self {
        script.sort_by_key(|(at, _)| *at);
        let on_disk: BTreeSet<u64> = (1..head.next_pre_key_id.unwrap_or(1)).collect();
        Self {
            disk: head.clone(),
            head,
            ever: on_disk.clone(),
            on_disk,
            tracker: Tracker::default(),
            start: Instant::now(),
            script,
            done: 0,
        }
    }

    fn write_until(&mut self, until: u64) {
        while let Some((at, write)) = self.script.get(self.done).copied().filter(|(at, _)| *at <= until) {
            self.done += 1;
            let member = match write {
                Write::Creds(next) => {
                    self.disk = paired(next);
                    Member::Creds
                }
                Write::PreKey(id) => {
                    self.on_disk.insert(id);
                    self.ever.insert(id);
                    Member::PreKey(id)
                }
                Write::Use(id) => {
                    self.on_disk.remove(&id);
                    Member::PreKey(id)
                }
            };
            self.tracker.event(member, self.start + ms(at));
        }
    }

    /// Looks once, with a read of 10 ms; whether the group was taken, and whether it was whole then.
    fn look(&mut self, at: u64) -> Option<bool> {
        self.write_until(at - 1);
        let (disk, on_disk, ever) = (self.disk.clone(), self.on_disk.clone(), self.ever.clone());
        self.write_until(at + 10);
        let look = Look {
            head: &self.head,
            disk: &disk,
            on_disk: &on_disk,
            held: &BTreeSet::new(),
            written: disk != self.head || ever.last() >= self.head.next_pre_key_id.as_ref(),
            began: self.start + ms(at),
            quiet_window: QUIET,
            last_flush: false,
        };
        let decision = self.tracker.decide(self.start + ms(at + 10), &look);
        if !look.written || decision.verdict != Verdict::Take {
            return None;
        }
        let next = disk.next_pre_key_id.unwrap();
        let whole = on_disk.range(next..).next().is_none() && (1..next).all(|id| ever.contains(&id));
        self.tracker.committed(&disk);
        self.head = disk;
        Some(whole)
    }
}

/// Top-ups of five every `every` ms, each with its pre-keys 15 ms behind creds; a peer uses one every 70 ms.
fn storm(from: u64, every: u64, seconds: u64) -> Vec<(u64, Write)> {
    let mut script = vec![(1, Write::Creds(from))];
    script.extend((1..from).map(|id| (1 + id % 20, Write::PreKey(id))));
    for (round, at) in (100..seconds * 1000).step_by(usize::try_from(every).unwrap()).enumerate() {
        let first = from + 5 * round as u64;
        script.push((at, Write::Creds(first + 5)));
        script.extend((first..first + 5).map(|id| (at + 15, Write::PreKey(id))));
    }
    script
        .extend((100..seconds * 1000).step_by(70).enumerate().map(|(n, at)| (at, Write::Use(n as u64 + 1))));
    script
}

#[test]
fn a_storm_of_pre_key_traffic_does_not_starve_a_fresh_pairing_beyond_35_seconds() {
    for every in [60, 100, 210, 499] {
        let mut simulation = Simulation::new(Creds::ABSENT, storm(813, every, 60));
        let taken = (50..60_000).step_by(50).find_map(|at| simulation.look(at).map(|whole| (at, whole)));
        let (at, whole) = taken.expect("never taken");
        assert!((30_000..=35_000).contains(&at), "a top-up every {every} ms: taken after {at} ms");
        assert!(whole);
    }
}

#[test]
fn a_pause_in_the_storm_is_used_at_once() {
    let mut script = storm(813, 100, 3);
    script.retain(|(at, write)| !(1_000..2_000).contains(at) || matches!(write, Write::Use(_)));
    let mut simulation = Simulation::new(Creds::ABSENT, script);
    let at = (50..3_000).step_by(50).find(|at| simulation.look(*at).is_some());
    assert!((1_400..=1_550).contains(&at.unwrap()), "{at:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// With a stall of less than three quiet windows between creds and pre-keys, in either order.
    #[test]
    fn creds_apart_from_their_pre_keys_are_never_taken(
        rounds in prop::collection::vec((0..3_000_u64, 0..1_300_u64, any::<bool>(), 0..6_u64), 1..8)
    ) {
        let mut script = Vec::new();
        let (mut at, mut next) = (100, 31);
        for (pause, stall, creds_first, uses) in rounds {
            at += pause;
            let (creds_at, keys_at) = if creds_first { (at, at + stall) } else { (at + stall, at) };
            script.push((creds_at, Write::Creds(next + 5)));
            script.extend((next..next + 5).map(|id| (keys_at + id % 5, Write::PreKey(id))));
            script.extend((next..next + uses.min(5)).map(|id| (keys_at + 10 + id, Write::Use(id))));
            next += 5;
            at += stall + 50;
        }
        let mut simulation = Simulation::new(paired(31), script);
        for at in (50..at + 60_000).step_by(100) {
            prop_assert_ne!(simulation.look(at), Some(false), "at {} ms", at);
        }
        prop_assert_eq!(simulation.head.next_pre_key_id, Some(next), "all of it is committed in the end");
    }
}
