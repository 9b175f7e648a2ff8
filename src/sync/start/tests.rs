mod combinations;

use super::*;

const PAIRED: Tree = Tree::Present(Identity::Paired);
const ALL_TREES: [Tree; 5] = [
    Tree::Empty,
    PAIRED,
    Tree::Present(Identity::Unpaired),
    Tree::Present(Identity::Unreadable),
    Tree::Present(Identity::Absent),
];
const ALL_STATES: [State; 4] = [State::None, State::IsHead, State::PendingIsHead, State::Other];
const ALL_REMOTES: [Remote; 8] = [
    Remote::Unreachable { wait_over: false },
    Remote::Unreachable { wait_over: true },
    Remote::Nothing,
    Remote::Marked,
    Remote::Emptied,
    Remote::Commits(Chain::Paired),
    Remote::Commits(Chain::Unpaired),
    Remote::Commits(Chain::Damaged),
];
const ALL_MIRRORS: [Mirror; 5] =
    [Mirror::None, Mirror::Equal, Mirror::SameIdentity, Mirror::OtherIdentity, Mirror::Unpaired];
const ALL_COMMANDS: [Command; 5] =
    [Command::Restore, Command::Watch, Command::Run, Command::Exec, Command::Serve];

/// A disk whose head is the listed one, in a new pod life, under `run`.
const OURS: Facts = Facts {
    marker: false,
    restoring: Restoring::No,
    same_life: false,
    tree: PAIRED,
    state: State::IsHead,
    remote: Remote::Commits(Chain::Paired),
    known_above: KnownAbove::No,
    mirror: Mirror::None,
    digest_equal: false,
    heals: 0,
    options: Options { command: Command::Run, on_conflict: None, use_local: false, require_existing: false },
};
/// A new disk and a new session.
const NEW: Facts = Facts { tree: Tree::Empty, state: State::None, remote: Remote::Nothing, ..OURS };
/// A tree that somebody copied here, next to a history.
const COPIED: Facts = Facts { state: State::None, ..OURS };

fn command(command: Command) -> Options {
    Options { command, ..OURS.options }
}

fn side(side: Side) -> Options {
    Options { on_conflict: Some(side), ..OURS.options }
}

#[track_caller]
fn expect(facts: Facts, line: Line, action: Action) {
    assert_eq!(decide(&facts), Decision { line, action }, "{facts:?}");
}

#[track_caller]
fn expect_exit(facts: Facts, line: Line, exit: u8, names: &str) {
    let decision = decide(&facts);
    assert_eq!(decision.line, line, "{facts:?}");
    let Action::Exit(refusal) = decision.action else {
        panic!("{decision:?} for {facts:?}");
    };
    assert_eq!(refusal.code.exit(), exit, "{refusal:?}");
    assert!(refusal.text.contains(names), "{refusal:?}");
}

#[test]
fn line_1_a_cut_off_publish_is_recovered_before_anything_is_read() {
    expect(Facts { marker: true, ..OURS }, Line::PublishMarker, Action::Recover);
    let facts = Facts { marker: true, remote: Remote::Unreachable { wait_over: true }, ..NEW };
    expect(facts, Line::PublishMarker, Action::Recover);
}

#[test]
fn line_2_a_published_restore_is_recorded_and_decided_again_from_the_top() {
    let restored = Facts {
        restoring: Restoring::Published { then: State::PendingIsHead },
        state: State::None,
        known_above: KnownAbove::ByState,
        ..OURS
    };
    expect(restored, Line::Restoring, Action::FinishRestoring);
    expect(restored.finish_restoring(), Line::Ours, Action::KeepHealHeld);
    let row = Facts { known_above: KnownAbove::ByRow, ..restored };
    assert_eq!(decide(&row.finish_restoring()).line, Line::HeadMissing);
}

#[test]
fn line_2_an_unpublished_restore_makes_the_tree_count_as_empty() {
    let cut = Facts { restoring: Restoring::Unpublished, ..OURS };
    expect(cut, Line::Restore, Action::Restore);
    expect(Facts { state: State::Other, ..cut }, Line::Restore, Action::Restore);
    expect(Facts { remote: Remote::Marked, ..cut }, Line::New, Action::SetAsideNew);
    expect(
        Facts { mirror: Mirror::OtherIdentity, remote: Remote::Nothing, ..cut },
        Line::FromMirror,
        Action::RestoreMirror,
    );
    assert_eq!(cut.finish_restoring(), cut, "nothing was published");
}

/// A start that replaces a tree, and a rewind, end the pod life in the state: what is left is a logout beside its bot.
#[test]
fn line_3_the_tree_of_an_account_that_was_logged_out_stays_while_its_bot_may_live() {
    let logged_out = Facts {
        restoring: Restoring::Unpublished,
        same_life: true,
        state: State::PendingIsHead,
        remote: Remote::Marked,
        ..OURS
    };
    expect(logged_out, Line::SameLifeOurs, Action::KeepLocal);
    let away = Facts { remote: Remote::Unreachable { wait_over: true }, ..logged_out };
    expect(away, Line::SameLifeOurs, Action::StartNotOwned);
}

#[test]
fn line_3_a_bot_that_may_live_keeps_its_tree_while_the_head_is_ours() {
    for tree in ALL_TREES {
        for state in [State::IsHead, State::PendingIsHead] {
            for remote in [Remote::Marked, Remote::Emptied, OURS.remote] {
                let facts = Facts { same_life: true, tree, state, remote, ..OURS };
                expect(facts, Line::SameLifeOurs, Action::KeepLocal);
            }
        }
    }
    for (tree, action) in [(PAIRED, Action::KeepRebase), (Tree::Empty, Action::Exit(DAMAGED))] {
        let facts = Facts { same_life: true, tree, remote: Remote::Commits(Chain::Damaged), ..OURS };
        expect(facts, Line::SameLifeOurs, action);
    }
    for wait_over in [false, true] {
        let facts =
            Facts { same_life: true, state: State::Other, remote: Remote::Unreachable { wait_over }, ..OURS };
        expect(facts, Line::SameLifeOurs, Action::StartNotOwned);
    }
}

#[test]
fn line_3_restore_exec_and_serve_start_before_their_bot() {
    for tool in [Command::Restore, Command::Exec, Command::Serve] {
        let facts = Facts { same_life: true, options: command(tool), ..OURS };
        expect(facts, Line::Ours, Action::KeepHealHeld);
        expect(Facts { state: State::Other, ..facts }, Line::Overtaken, Action::Restore);
    }
}

#[test]
fn line_4_a_bot_that_may_live_under_anothers_head_ends_us_with_7() {
    for remote in [Remote::Marked, Remote::Emptied, OURS.remote] {
        for tree in ALL_TREES {
            let facts = Facts { same_life: true, tree, state: State::Other, remote, ..OURS };
            expect_exit(facts, Line::SameLifeAnothers, 7, "Stop the bot");
            let appeared = Facts { state: State::None, ..facts };
            expect_exit(appeared, Line::SameLifeAnothers, 3, "never restored here");
        }
    }
}

#[test]
fn line_5_an_outage_is_waited_out_and_then_told_by_those_who_do_not_own_a_bot() {
    let away = Facts { state: State::Other, remote: Remote::Unreachable { wait_over: false }, ..OURS };
    for tool in ALL_COMMANDS {
        expect(Facts { options: command(tool), ..away }, Line::Unreachable, Action::KeepAsking);
    }
    let over = Facts { remote: Remote::Unreachable { wait_over: true }, ..away };
    for tool in [Command::Exec, Command::Serve] {
        expect(Facts { options: command(tool), ..over }, Line::Unreachable, Action::KeepAsking);
    }
    for tool in [Command::Restore, Command::Watch, Command::Run] {
        let facts = Facts { options: command(tool), ..over };
        expect_exit(facts, Line::Unreachable, 4, "--on-unreachable use-local");
    }
}

#[test]
fn line_5_use_local_starts_only_a_paired_tree_with_state_and_only_after_the_wait() {
    for tool in ALL_COMMANDS {
        let options = Options { use_local: true, ..command(tool) };
        let over =
            Facts { state: State::Other, remote: Remote::Unreachable { wait_over: true }, options, ..OURS };
        expect(over, Line::Unreachable, Action::StartNotOwned);
        let early = Facts { remote: Remote::Unreachable { wait_over: false }, ..over };
        expect(early, Line::Unreachable, Action::KeepAsking);
        let not_fit = [
            Facts { state: State::None, ..over },
            Facts { tree: Tree::Empty, ..over },
            Facts { tree: Tree::Present(Identity::Unreadable), ..over },
        ];
        for facts in not_fit {
            assert_ne!(decide(&facts).action, Action::StartNotOwned, "{facts:?}");
        }
    }
}

#[test]
fn line_6_a_known_head_above_the_list_is_an_alarm() {
    for known_above in [KnownAbove::ByRow, KnownAbove::ByState] {
        for remote in [Remote::Nothing, Remote::Marked, Remote::Emptied, OURS.remote] {
            let lost = Facts { known_above, remote, state: State::Other, ..OURS };
            expect_exit(lost, Line::HeadMissing, 6, "--on-conflict local");
            let told = Facts { options: side(Side::Local), ..lost };
            expect(told, Line::HeadMissing, Action::ConflictLocal);
            let other = Facts { options: side(Side::Remote), ..lost };
            expect_exit(other, Line::HeadMissing, 6, "--on-conflict local");
            expect_exit(Facts { tree: Tree::Empty, ..told }, Line::HeadMissing, 6, "restore --at ID");
        }
    }
}

/// P4
#[test]
fn line_6_a_tree_that_lost_its_identity_does_not_win_over_what_is_listed() {
    let told = Facts {
        known_above: KnownAbove::ByState,
        state: State::Other,
        tree: Tree::Present(Identity::Unreadable),
        options: side(Side::Local),
        ..OURS
    };
    expect_exit(told, Line::HeadMissing, 6, "restore --at ID");
    let unknown = Facts { remote: Remote::Commits(Chain::Damaged), ..told };
    expect_exit(unknown, Line::HeadMissing, 6, "restore --at ID");
    let unpaired = Facts { remote: Remote::Commits(Chain::Unpaired), ..told };
    expect(unpaired, Line::HeadMissing, Action::ConflictLocal);
}

#[test]
fn line_7_a_mirror_alone_is_restored() {
    for mirror in [Mirror::Equal, Mirror::SameIdentity, Mirror::OtherIdentity, Mirror::Unpaired] {
        expect(Facts { mirror, ..NEW }, Line::FromMirror, Action::RestoreMirror);
    }
}

/// After a logout or a delete the mirror is what was just ended.
#[test]
fn line_7_a_mirror_next_to_a_history_counts_for_nothing() {
    for remote in [Remote::Marked, Remote::Emptied] {
        let facts = Facts { mirror: Mirror::OtherIdentity, remote, ..NEW };
        expect(facts, Line::New, Action::New);
        expect(Facts { tree: PAIRED, ..facts }, Line::Adopt, Action::Adopt { mirror_first: false });
    }
}

#[test]
fn line_8_nothing_anywhere_is_a_new_session_unless_one_is_required() {
    for remote in [Remote::Nothing, Remote::Marked, Remote::Emptied] {
        for tool in ALL_COMMANDS {
            let new = Facts { remote, options: command(tool), ..NEW };
            expect(new, Line::New, Action::New);
            let options = Options { require_existing: true, ..new.options };
            expect_exit(Facts { options, ..new }, Line::New, 3, "--require-existing");
        }
    }
}

#[test]
fn line_9_a_session_that_was_ended_elsewhere_is_set_aside() {
    for state in [State::Other, State::PendingIsHead] {
        for tree in ALL_TREES.into_iter().filter(|tree| *tree != Tree::Empty) {
            let facts = Facts { remote: Remote::Marked, state, tree, ..OURS };
            expect(facts, Line::Ended, Action::SetAsideNew);
        }
    }
}

#[test]
fn line_9b_a_tree_without_a_history_is_adopted() {
    for mirror in [Mirror::None, Mirror::Equal] {
        let facts = Facts { remote: Remote::Nothing, mirror, ..COPIED };
        expect(facts, Line::Adopt, Action::Adopt { mirror_first: false });
    }
    let ended_here = Facts { remote: Remote::Marked, ..OURS };
    expect(ended_here, Line::Adopt, Action::Adopt { mirror_first: false });
    let emptied = Facts { remote: Remote::Emptied, state: State::Other, ..OURS };
    expect(emptied, Line::Adopt, Action::Adopt { mirror_first: false });
}

#[test]
fn line_10_a_mirror_of_the_same_account_is_kept_and_the_local_tree_adopted() {
    let facts = Facts { remote: Remote::Nothing, mirror: Mirror::SameIdentity, ..COPIED };
    expect(facts, Line::MirrorDiffers, Action::Adopt { mirror_first: true });
}

#[test]
fn line_10_a_mirror_of_another_account_needs_a_person() {
    for mirror in [Mirror::OtherIdentity, Mirror::Unpaired] {
        let facts = Facts { remote: Remote::Nothing, mirror, ..COPIED };
        expect_exit(facts, Line::MirrorDiffers, 3, "--on-conflict local");
        let local = Facts { options: side(Side::Local), ..facts };
        expect(local, Line::MirrorDiffers, Action::Adopt { mirror_first: true });
        let remote = Facts { options: side(Side::Remote), ..facts };
        expect(remote, Line::MirrorDiffers, Action::RestoreMirror);
    }
}

/// P4
#[test]
fn line_10_an_unpaired_tree_never_wins_over_a_paired_mirror() {
    let facts = Facts {
        remote: Remote::Nothing,
        mirror: Mirror::OtherIdentity,
        tree: Tree::Present(Identity::Unpaired),
        options: side(Side::Local),
        ..COPIED
    };
    expect_exit(facts, Line::MirrorDiffers, 3, "--on-conflict remote");
}

#[test]
fn line_11_an_empty_disk_is_filled_from_history() {
    for state in ALL_STATES {
        for chain in [Chain::Paired, Chain::Unpaired] {
            let facts = Facts { tree: Tree::Empty, state, remote: Remote::Commits(chain), ..OURS };
            expect(facts, Line::Restore, Action::Restore);
        }
        let damaged = Facts { tree: Tree::Empty, state, remote: Remote::Commits(Chain::Damaged), ..OURS };
        expect_exit(damaged, Line::Restore, 6, "restore --at ID");
    }
}

/// P4
#[test]
fn line_12_a_truncated_creds_json_is_healed_twice_an_hour_and_then_told() {
    for identity in [Identity::Absent, Identity::Unpaired, Identity::Unreadable] {
        for state in ALL_STATES {
            for on_conflict in [None, Some(Side::Local), Some(Side::Remote)] {
                let options = Options { on_conflict, ..OURS.options };
                let lost = Facts { tree: Tree::Present(identity), state, options, ..OURS };
                expect(lost, Line::IdentityLost, Action::RestoreHealed);
                expect(Facts { heals: 1, ..lost }, Line::IdentityLost, Action::RestoreHealed);
                expect_exit(Facts { heals: 2, ..lost }, Line::IdentityLost, 3, "`accept-identity`");
                expect_exit(Facts { heals: 2, ..lost }, Line::IdentityLost, 3, "`logout`");
                let unknown = Facts { remote: Remote::Commits(Chain::Damaged), ..lost };
                expect_exit(unknown, Line::IdentityLost, 6, "restore --at ID");
            }
        }
    }
}

#[test]
fn line_13_a_tree_whose_head_is_listed_is_kept() {
    for state in [State::IsHead, State::PendingIsHead] {
        expect(Facts { state, ..OURS }, Line::Ours, Action::KeepHealHeld);
        let damaged = Facts { state, remote: Remote::Commits(Chain::Damaged), ..OURS };
        expect(damaged, Line::Ours, Action::KeepRebase);
        let unpaired = Facts {
            state,
            tree: Tree::Present(Identity::Unpaired),
            remote: Remote::Commits(Chain::Unpaired),
            ..OURS
        };
        expect(unpaired, Line::Ours, Action::KeepHealHeld);
    }
}

#[test]
fn line_14_a_disk_that_was_overtaken_is_set_aside() {
    expect(Facts { state: State::Other, ..OURS }, Line::Overtaken, Action::Restore);
    let damaged = Facts { state: State::Other, remote: Remote::Commits(Chain::Damaged), ..OURS };
    expect_exit(damaged, Line::Overtaken, 6, "restore --at ID");
}

#[test]
fn line_15_a_copied_tree_that_is_the_heads_is_adopted() {
    expect(Facts { digest_equal: true, ..COPIED }, Line::SameTree, Action::AdoptEqual);
    let damaged = Facts { digest_equal: true, remote: Remote::Commits(Chain::Damaged), ..COPIED };
    expect(damaged, Line::SameTree, Action::KeepRebase);
}

#[test]
fn line_16_a_copied_tree_that_differs_needs_a_person() {
    expect_exit(COPIED, Line::Conflict, 3, "--on-conflict local");
    expect(Facts { options: side(Side::Local), ..COPIED }, Line::Conflict, Action::ConflictLocal);
    expect(Facts { options: side(Side::Remote), ..COPIED }, Line::Conflict, Action::ConflictRemote);
    let damaged = Facts { options: side(Side::Remote), remote: Remote::Commits(Chain::Damaged), ..COPIED };
    expect_exit(damaged, Line::Conflict, 6, "restore --at ID");
}

/// P7
#[test]
fn watch_replaces_nothing_and_says_to_run_restore_first() {
    let watch = command(Command::Watch);
    let would_replace = [
        (Facts { mirror: Mirror::Equal, ..NEW }, Line::FromMirror),
        (Facts { remote: Remote::Marked, state: State::Other, ..OURS }, Line::Ended),
        (Facts { tree: Tree::Empty, ..OURS }, Line::Restore),
        (Facts { tree: Tree::Present(Identity::Absent), ..OURS }, Line::IdentityLost),
        (Facts { state: State::Other, ..OURS }, Line::Overtaken),
        (Facts { restoring: Restoring::Unpublished, ..OURS }, Line::Restore),
    ];
    for (facts, line) in would_replace {
        expect_exit(Facts { options: watch, ..facts }, line, 7, "run `restore` first");
    }
    let told = Options { on_conflict: Some(Side::Remote), ..watch };
    expect_exit(Facts { options: told, ..COPIED }, Line::Conflict, 7, "run `restore` first");
    expect(Facts { options: watch, ..OURS }, Line::Ours, Action::KeepLocal);
    expect(Facts { options: watch, ..NEW }, Line::New, Action::New);
}

#[test]
fn a_refusal_names_the_session_and_what_the_caller_knows() {
    let key = SessionKey::new("u", "s").unwrap();
    let error = CONFLICT.error(&key, Some("local: 3 files; head 00000001-00000001-00000001: 4 files"));
    assert_eq!(error.code(), Code::Conflict);
    assert!(error.to_string().starts_with("session u/s: "), "{error}");
    assert!(
        error.to_string().ends_with("(local: 3 files; head 00000001-00000001-00000001: 4 files)"),
        "{error}"
    );
}
