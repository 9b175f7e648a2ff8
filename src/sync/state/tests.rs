use std::fs;

use super::*;
use crate::host::Real;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn first() -> Id {
    id("00000001-00000001-00000001")
}

fn second() -> Id {
    id("00000001-00000002-00000002")
}

fn sealed() -> Id {
    id("00000002-00000001-00000003")
}

fn place() -> Place {
    Place { boot_id: "boot".into(), pod_uid: Some("pod".into()), dev: 1, ino: 2 }
}

fn state() -> LocalState {
    LocalState::new("https://p.supabase.co".into(), "b".into(), Uuid::from_u128(7), place())
}

fn load(file: &Path) -> Option<LocalState> {
    LocalState::load(file, "https://p.supabase.co", "b", &Real).unwrap()
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions/u/s/state.json");
    assert_eq!(load(&file), None);
    let mut saved = state();
    saved.epoch = 2;
    saved.head = Some(first());
    saved.pending = vec![second(), sealed()];
    saved.restoring = Some(second());
    saved.ready = Some(Life { boot_id: "boot".into(), pod_uid: None });
    saved.digest = Some(Hash::of(b"tree"));
    saved.label = Some("bot:1".into());
    saved.healed_from(first(), Timestamp::UNIX_EPOCH);
    saved.save(&file, &Real).unwrap();
    assert_eq!(load(&file), Some(saved.clone()));
    saved.head = Some(second());
    saved.save(&file, &Real).unwrap();
    assert_eq!(load(&file), Some(saved));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"head\": \"00000001-00000002-00000002\""), "{text}");
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_state_of_another_project_or_bucket_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    state().save(&file, &Real).unwrap();
    assert!(load(&file).is_some());
    assert_eq!(LocalState::load(&file, "https://other.supabase.co", "b", &Real).unwrap(), None);
    assert_eq!(LocalState::load(&file, "https://p.supabase.co", "other", &Real).unwrap(), None);
    assert!(load(&file).is_some(), "it is left where it is");
}

#[test]
fn a_state_that_cannot_be_read_is_kept_beside_and_counts_as_none() {
    for text in ["", "{\"format\":1", "[]", "{\"format\":9}"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        fs::write(&file, text).unwrap();
        assert_eq!(load(&file), None, "{text}");
        assert!(!file.exists());
        let kept = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
        assert!(kept.file_name().to_str().unwrap().starts_with("state.json.unreadable-"));
        assert_eq!(fs::read_to_string(kept.path()).unwrap(), text);
        state().save(&file, &Real).unwrap();
        assert!(load(&file).is_some());
    }
}

#[test]
fn a_state_of_a_later_format_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    let mut later = state();
    later.format = 2;
    later.save(&file, &Real).unwrap();
    assert_eq!(load(&file), None);
    assert!(!file.exists());
}

/// Model: "one pending id: late attempt is not ours".
#[test]
fn an_abandoned_attempt_that_lands_late_is_ours_although_another_is_pending() {
    let mut state = state();
    state.attempt(first(), false);
    state.attempt(second(), false);
    assert!(state.ours(first()) && state.ours(second()));
    assert!(!state.ours(sealed()));
    assert!(state.head.is_none());
}

/// Model: "one pending id: two crashes": a seal is recorded over an attempt whose fate is not known.
#[test]
fn a_seal_does_not_push_out_what_is_pending() {
    let mut state = state();
    state.attempt(first(), false);
    state.confirm(first());
    state.attempt(second(), false);
    state.attempt(sealed(), false);
    assert!(state.ours(second()));
}

#[test]
fn an_id_leaves_pending_only_when_it_or_a_higher_one_is_confirmed() {
    let mut state = state();
    for id in [first(), second(), sealed()] {
        state.attempt(id, false);
    }
    state.confirm(second());
    assert_eq!(state.head, Some(second()));
    assert_eq!(state.pending, [sealed()]);
    assert!(!state.ours(first()), "it can only lie below the head now");
    state.confirm(first());
    assert_eq!(state.head, Some(second()), "a late answer does not take the head back");
    assert_eq!(state.pending, [sealed()]);
}

/// Model: "a rewind commit is recorded before `restoring` is set", and the same for a tombstone.
#[test]
fn a_commit_that_marks_is_being_restored_from_the_same_write_on() {
    let mut state = state();
    state.attempt(second(), true);
    assert_eq!((state.pending.as_slice(), state.restoring), ([second()].as_slice(), Some(second())));
    state.confirm(second());
    assert_eq!(state.restoring, Some(second()), "the tree is not in place yet");
    state.restored(second(), Hash::of(b"tree"));
    assert_eq!((state.head, state.restoring), (Some(second()), None));
    assert_eq!(state.digest, Some(Hash::of(b"tree")));
}

#[test]
fn a_restore_found_finished_keeps_attempts_above_it() {
    let mut state = state();
    state.pending = vec![first(), sealed()];
    state.restoring = Some(second());
    state.restored(second(), Hash::of(b"tree"));
    assert_eq!(state.pending, [sealed()], "the seal may have landed");
}

/// Model: "a copied directory on one boot without `POD_UID` has the holder's id".
#[test]
fn the_holder_id_is_used_again_only_by_whom_it_was_made_for() {
    let state = state();
    let here = place();
    assert_eq!(state.holder_here(&here, true), Some(Uuid::from_u128(7)));
    assert_eq!(state.holder_here(&here, false), None, "the lock was not free");
    let others = [
        Place { boot_id: "other".into(), ..here.clone() },
        Place { pod_uid: Some("other".into()), ..here.clone() },
        Place { pod_uid: None, ..here.clone() },
        Place { dev: 9, ..here.clone() },
        Place { ino: 9, ..here.clone() },
    ];
    for other in others {
        assert_eq!(state.holder_here(&other, true), None, "{other:?}");
    }
}

#[test]
fn only_a_start_beside_a_bot_in_the_life_that_made_it_ready_is_the_same_life() {
    let mut state = state();
    let here = place();
    assert!(!state.same_life(&here, true), "it was never ready");
    state.ready = Some(Life { boot_id: "boot".into(), pod_uid: Some("pod".into()) });
    assert!(state.same_life(&here, true));
    assert!(!state.same_life(&here, false), "the bot is started after us");
    assert!(!state.same_life(&Place { boot_id: "other".into(), ..here.clone() }, true));
    assert!(!state.same_life(&Place { pod_uid: Some("other".into()), ..here.clone() }, true));
    let unknown = Place { pod_uid: None, boot_id: "other".into(), ..here };
    assert!(state.same_life(&unknown, true), "without POD_UID any ready state may have a bot");
}

#[test]
fn heals_count_for_an_hour_and_against_their_head_alone() {
    let now: Timestamp = "2026-11-23T21:00:00Z".parse().unwrap();
    let minutes = |n| now + SignedDuration::from_mins(n);
    let mut state = state();
    state.healed_from(first(), now);
    assert_eq!(state.heals(first(), minutes(1)), 1);
    state.healed_from(first(), minutes(1));
    assert_eq!(state.heals(first(), minutes(2)), 2);
    assert_eq!(state.heals(second(), minutes(2)), 0, "another head is another start");
    assert_eq!(state.heals(first(), minutes(61)), 0, "the hour is over");
    assert_eq!(state.heals(first(), minutes(-100)), 0, "the clock was set back");
    state.healed_from(second(), minutes(200));
    assert_eq!(state.healed.len(), 1, "old ones are forgotten");
}

/// A machine that dies before a given step.
#[derive(Debug)]
struct Dying(std::sync::atomic::AtomicI64);

impl Host for Dying {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn step(&self, _: Step) -> io::Result<()> {
        let left = self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        if left > 0 { Ok(()) } else { Err(io::Error::other("dead")) }
    }
}

#[test]
fn a_crash_during_a_save_leaves_the_old_state_or_the_new_one() {
    let mut found = Vec::new();
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("u/s/state.json");
        state().save(&file, &Real).unwrap();
        let mut newer = state();
        newer.head = Some(first());
        let saved = newer.save(&file, &Dying(steps.into()));
        let loaded = load(&file).unwrap();
        assert!(loaded == newer || (loaded == state() && saved.is_err()), "{steps}");
        found.push(loaded == newer);
        if saved.is_ok() {
            break;
        }
    }
    assert!(found.len() >= 3 && !found[0], "{found:?}");
}
