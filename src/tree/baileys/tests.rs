use tokio::time::Instant;

use super::*;
use crate::tree::Hash;
use crate::tree::identity::{Format, Identity};

mod simulation;

const QUIET: Duration = Duration::from_millis(500);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn paired(next: u64) -> Creds {
    account(b"a", next)
}

fn account(name: &[u8], next: u64) -> Creds {
    Creds {
        format: Some(Format::Baileys),
        identity: Identity::Paired([Hash::of(name)].into()),
        next_pre_key_id: Some(next),
        phone: None,
    }
}

/// A group in which nothing is unfit, between two commits.
fn look<'a>(head: &'a Creds, disk: &'a Creds, on_disk: &'a BTreeSet<u64>, began: Instant) -> Look<'a> {
    static NONE: BTreeSet<Member> = BTreeSet::new();
    Look { head, disk, on_disk, held: &NONE, written: true, began, quiet_window: QUIET, last_flush: false }
}

/// A quiet, whole top-up from 813 to 818; tests change one thing at a time.
struct Case {
    head: Creds,
    disk: Creds,
    on_disk: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    held: BTreeMap<Member, Duration>,
    events: BTreeMap<Member, Duration>,
    waited: Duration,
    last_flush: bool,
}

impl Case {
    fn new() -> Self {
        Self {
            head: paired(813),
            disk: paired(818),
            on_disk: (800..818).collect(),
            seen: BTreeSet::new(),
            held: BTreeMap::new(),
            events: BTreeMap::new(),
            waited: Duration::ZERO,
            last_flush: false,
        }
    }

    fn decide(&self) -> Decision {
        decide(&Moment {
            head: &self.head,
            disk: &self.disk,
            on_disk: &self.on_disk,
            seen: &self.seen,
            held: &self.held,
            events: &self.events,
            began: ms(10),
            waited: self.waited,
            quiet_window: QUIET,
            last_flush: self.last_flush,
        })
    }

    #[track_caller]
    fn waits(&self, wait: Wait) {
        assert_eq!(self.decide().verdict, Verdict::KeepHead(wait));
    }

    #[track_caller]
    fn takes(&self) {
        assert_eq!(self.decide().verdict, Verdict::Take);
    }
}

#[test]
fn a_quiet_whole_group_is_taken() {
    Case::new().takes();
    let mut case = Case::new();
    case.events = [(Member::Creds, QUIET), (Member::PreKey(817), ms(900))].into();
    case.takes();
}

#[test]
fn an_event_within_the_quiet_window_keeps_all_of_the_group() {
    for member in [Member::Creds, Member::PreKey(817), Member::PreKey(800)] {
        let mut case = Case::new();
        case.events = [(member, ms(499))].into();
        case.waits(Wait::Quiet);
        let decision = case.decide();
        assert!(decision.holds("creds.json", true) && decision.holds("pre-key-817.json", true));
        assert!(!decision.holds("session-1.0.json", true));
    }
}

#[test]
fn an_event_during_the_read_keeps_the_group_whatever_it_waited() {
    for (waited, last_flush) in [(ms(0), false), (ms(3_600_000), false), (ms(3_600_000), true)] {
        let mut case = Case::new();
        (case.waited, case.last_flush) = (waited, last_flush);
        case.events = [(Member::PreKey(816), ms(10))].into();
        case.waits(Wait::Read);
        // Written after the directory was listed.
        case.events = [(Member::PreKey(818), ms(5))].into();
        case.waits(Wait::Read);
    }
}

#[test]
fn removals_of_used_pre_keys_are_free() {
    let mut case = Case::new();
    case.on_disk.remove(&801);
    case.events = [(Member::PreKey(801), ms(11))].into();
    case.takes();
    case.events.insert(Member::Creds, ms(100));
    case.waits(Wait::Quiet);
    assert!(!case.decide().holds("pre-key-801.json", false));
}

#[test]
fn removals_that_go_with_another_identity_wait_for_it() {
    for disk in [account(b"b", 31), Creds::UNREADABLE, Creds::ABSENT] {
        let mut case = Case::new();
        case.disk = disk;
        case.events = [(Member::Creds, ms(100))].into();
        assert!(case.decide().holds("pre-key-700.json", false));
    }
}

#[test]
fn a_held_member_keeps_the_others() {
    for member in [Member::Creds, Member::PreKey(817), Member::PreKey(800)] {
        let mut case = Case::new();
        case.held = [(member, ms(59_999))].into();
        (case.waited, case.last_flush) = (ms(3_600_000), true);
        case.waits(Wait::Unfit);
    }
}

#[test]
fn a_pre_key_unfit_and_unchanged_for_a_minute_holds_only_itself() {
    let mut case = Case::new();
    case.held = [(Member::PreKey(817), UNFIT_ALONE)].into();
    case.takes();
    let decision = case.decide();
    assert!(decision.holds("pre-key-817.json", true));
    assert!(!decision.holds("pre-key-816.json", true) && !decision.holds("creds.json", true));
    case.held = [(Member::Creds, ms(3_600_000))].into();
    case.waits(Wait::Unfit);
}

#[test]
fn a_group_that_waited_or_meets_the_last_flush_is_taken_between_events_if_whole() {
    for (waited, last_flush) in [(LONG_WAIT, false), (ms(0), true)] {
        let mut case = Case::new();
        case.events = [(Member::Creds, ms(11))].into();
        (case.waited, case.last_flush) = (waited, last_flush);
        case.takes();
        // creds older than the pre-keys
        case.on_disk.insert(818);
        case.waits(Wait::Whole);
        case.on_disk.remove(&818);
        // creds newer than the pre-keys
        case.on_disk.remove(&815);
        case.waits(Wait::Whole);
        // used and deleted since the head
        case.seen.insert(815);
        case.takes();
    }
}

#[test]
fn a_group_that_is_not_whole_waits_for_three_quiet_windows_more() {
    let mut newer = Case::new();
    newer.on_disk.remove(&817);
    let mut older = Case::new();
    older.on_disk.insert(818);
    let mut unknown = Case::new();
    unknown.disk.next_pre_key_id = None;
    for mut case in [newer, older, unknown] {
        case.events = [(Member::Creds, ms(1499))].into();
        case.waits(Wait::Whole);
        case.last_flush = true;
        case.takes();
        case.last_flush = false;
        case.events = [(Member::Creds, QUIET * STALL)].into();
        case.waits(Wait::Whole);
        case.waited = QUIET * STALL;
        case.takes();
    }
}

#[test]
fn a_first_pairing_needs_every_id_from_the_first_one() {
    let unpaired = Creds {
        format: Some(Format::Baileys),
        identity: Identity::Unpaired,
        next_pre_key_id: Some(1),
        phone: None,
    };
    let other = account(b"b", 813);
    for head in [Creds::ABSENT, unpaired, other] {
        let mut case = Case::new();
        (case.head, case.disk) = (head, paired(31));
        case.on_disk = (3..31).collect();
        case.events = [(Member::Creds, ms(100))].into();
        case.waited = LONG_WAIT;
        case.waits(Wait::Whole);
        // 1 and 2 were used by the first who wrote.
        case.seen = [1, 2].into();
        case.takes();
    }
}

#[test]
fn an_adopted_tree_whose_pre_keys_were_used_long_ago_is_taken_at_once() {
    let mut case = Case::new();
    case.head = Creds::ABSENT;
    case.takes();
}

#[test]
fn the_last_flush_takes_a_first_pairing_in_any_state_that_can_be_read() {
    let mut case = Case::new();
    (case.head, case.last_flush) = (Creds::ABSENT, true);
    case.on_disk = (1..400).collect();
    case.events = [(Member::PreKey(399), ms(100))].into();
    case.takes();
    case.events = [(Member::PreKey(399), ms(5))].into();
    case.waits(Wait::Read);
    case.held = [(Member::Creds, ms(100))].into();
    case.waits(Wait::Unfit);
}

#[test]
fn a_hostile_next_pre_key_id_costs_no_time() {
    let mut case = Case::new();
    case.disk = paired(u64::MAX);
    case.waits(Wait::Whole);
}

#[test]
fn members_are_known_by_their_file_names() {
    assert_eq!(Member::parse("creds.json"), Some(Member::Creds));
    assert_eq!(Member::parse("pre-key-817.json"), Some(Member::PreKey(817)));
    for name in
        ["pre-key-.json", "pre-key-+7.json", "pre-key-007.json", "pre-key-7.json.tmp", "session-1.json"]
    {
        assert_eq!(Member::parse(name), None, "{name}");
    }
}

#[test]
fn an_unfit_pre_key_counts_from_its_last_change() {
    let (head, disk) = (paired(813), paired(818));
    let on_disk: BTreeSet<u64> = (813..818).collect();
    let unfit = Member::PreKey(817);
    let unfit_keys = [unfit].into();
    let start = Instant::now();
    let mut tracker = Tracker::default();
    let verdict = |tracker: &mut Tracker, at: u64| {
        let look = Look { held: &unfit_keys, ..look(&head, &disk, &on_disk, start + ms(at)) };
        tracker.decide(start + ms(at), &look).verdict
    };
    assert_eq!(verdict(&mut tracker, 0), Verdict::KeepHead(Wait::Unfit));
    tracker.event(unfit, start + ms(50_000));
    assert_eq!(verdict(&mut tracker, 51_000), Verdict::KeepHead(Wait::Unfit));
    assert_eq!(verdict(&mut tracker, 61_000), Verdict::KeepHead(Wait::Unfit));
    assert_eq!(verdict(&mut tracker, 111_000), Verdict::Take);
}

#[test]
fn commits_of_other_files_do_not_end_the_waiting_of_a_group() {
    let (head, disk) = (paired(813), paired(818));
    let on_disk: BTreeSet<u64> = (813..818).collect();
    let start = Instant::now();
    let mut tracker = Tracker::default();
    let mut taken = None;
    for second in 0..40 {
        let now = start + Duration::from_secs(second);
        tracker.event(Member::Creds, now - ms(100));
        let look = look(&head, &disk, &on_disk, now - ms(10));
        if tracker.decide(now, &look).verdict == Verdict::Take {
            taken = Some(second);
            break;
        }
        tracker.committed(&head);
    }
    assert_eq!(taken, Some(30));
}

#[test]
fn a_pre_key_that_was_used_up_while_nobody_looked_does_not_hold_a_busy_group_for_ever() {
    let (head, disk) = (paired(813), paired(818));
    // 815 was made and used before the first look; the bot writes ten times a second and never rests.
    let on_disk: BTreeSet<u64> = [813, 814, 816, 817].into();
    let start = Instant::now();
    let mut tracker = Tracker::default();
    let taken = (0..600).find(|tenth| {
        let now = start + ms(tenth * 100);
        tracker.event(Member::Creds, now - ms(50));
        let look = look(&head, &disk, &on_disk, now - ms(10));
        tracker.decide(now, &look).verdict == Verdict::Take
    });
    assert_eq!(taken, Some(300), "not before a writer that stalls would have come back");
}
