//! Every combination of the facts against the table, and against the promises.

use super::*;

/// The columns of the table, transcribed by hand and without any order between them.
fn holds(line: Line, f: &Facts) -> bool {
    let unpublished = f.restoring == Restoring::Unpublished;
    let same_life = f.same_life && matches!(f.options.command, Command::Run | Command::Watch);
    let empty = f.tree == Tree::Empty || unpublished && !same_life;
    let unreachable = matches!(f.remote, Remote::Unreachable { .. });
    let commits = matches!(f.remote, Remote::Commits(_));
    let marked = f.remote == Remote::Marked;
    let none = matches!(f.remote, Remote::Nothing | Remote::Marked | Remote::Emptied);
    let head = commits || marked || f.remote == Remote::Emptied;
    let ours = matches!(f.state, State::IsHead | State::PendingIsHead);
    let mirror = if f.remote == Remote::Nothing { f.mirror } else { Mirror::None };
    match line {
        Line::PublishMarker => f.marker,
        Line::Restoring => matches!(f.restoring, Restoring::Published { .. }),
        Line::SameLifeOurs => same_life && (unreachable || head && ours),
        Line::SameLifeAnothers => same_life && head && !ours,
        Line::Unreachable => unreachable,
        Line::HeadMissing => f.known_above != KnownAbove::No,
        Line::FromMirror => empty && none && mirror != Mirror::None,
        Line::New => empty && none,
        Line::Ended => f.state != State::None && f.state != State::IsHead && marked,
        Line::Adopt => !empty && none && matches!(mirror, Mirror::None | Mirror::Equal),
        Line::MirrorDiffers => !empty && none,
        Line::Restore => empty && commits,
        Line::IdentityLost => f.tree != PAIRED && commits && f.remote != Remote::Commits(Chain::Unpaired),
        Line::Ours => !empty && commits && ours,
        Line::Overtaken => commits && f.state == State::Other,
        Line::SameTree => commits && f.state == State::None && f.digest_equal,
        Line::Conflict => commits && f.state == State::None,
    }
}

const TABLE: [Line; 17] = [
    Line::PublishMarker,
    Line::Restoring,
    Line::SameLifeOurs,
    Line::SameLifeAnothers,
    Line::Unreachable,
    Line::HeadMissing,
    Line::FromMirror,
    Line::New,
    Line::Ended,
    Line::Adopt,
    Line::MirrorDiffers,
    Line::Restore,
    Line::IdentityLost,
    Line::Ours,
    Line::Overtaken,
    Line::SameTree,
    Line::Conflict,
];

/// Every combination of the facts; the options in every combination that can matter together.
fn every_combination(mut visit: impl FnMut(Facts)) {
    let restorings = ALL_STATES
        .map(|then| Restoring::Published { then })
        .into_iter()
        .chain([Restoring::No, Restoring::Unpublished]);
    let restorings: Vec<Restoring> = restorings.collect();
    let bools = [false, true];
    let conflicts = [None, Some(Side::Local), Some(Side::Remote)];
    for marker in bools {
        for &restoring in &restorings {
            for tree in ALL_TREES {
                for state in ALL_STATES {
                    for remote in ALL_REMOTES {
                        for known_above in [KnownAbove::No, KnownAbove::ByState, KnownAbove::ByRow] {
                            for mirror in ALL_MIRRORS {
                                for bits in 0..16 {
                                    for command in ALL_COMMANDS {
                                        for on_conflict in conflicts {
                                            visit(Facts {
                                                marker,
                                                restoring,
                                                same_life: bits & 1 != 0,
                                                tree,
                                                state,
                                                remote,
                                                known_above,
                                                mirror,
                                                digest_equal: bits & 2 != 0,
                                                heals: if bits & 4 != 0 { 2 } else { 0 },
                                                options: Options {
                                                    command,
                                                    on_conflict,
                                                    // Each is read by one line only, and these two are apart.
                                                    use_local: bits & 8 != 0,
                                                    require_existing: bits & 8 != 0,
                                                },
                                            });
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_combination_has_the_answer_of_the_first_line_that_holds() {
    let mut seen = std::collections::BTreeSet::new();
    every_combination(|facts| {
        let first = TABLE.into_iter().find(|line| holds(*line, &facts));
        assert_eq!(Some(decide(&facts).line), first, "{facts:?}");
        seen.extend(first);
        keeps_the_promises(&facts);
    });
    assert_eq!(seen.len(), TABLE.len(), "a line that never decides: {seen:?}");
}

fn keeps_the_promises(facts: &Facts) {
    let action = decide(facts).action;
    let beside_a_bot =
        facts.options.command == Command::Watch || (facts.options.command == Command::Run && facts.same_life);
    assert!(!(action.replaces_tree() && beside_a_bot), "P7: {action:?} for {facts:?}");

    let overwrites = matches!(
        action,
        Action::ConflictLocal | Action::KeepRebase | Action::Adopt { .. } | Action::AdoptEqual
    );
    let remote_may_be_paired = matches!(facts.remote, Remote::Commits(Chain::Paired | Chain::Damaged));
    assert!(!(overwrites && remote_may_be_paired && facts.tree != PAIRED), "P4: {action:?} for {facts:?}");

    let restores = matches!(action, Action::Restore | Action::RestoreHealed | Action::ConflictRemote);
    let whole = matches!(facts.remote, Remote::Commits(Chain::Paired | Chain::Unpaired));
    assert!(!restores || whole, "P1: {action:?} for {facts:?}");

    let without_a_list = matches!(
        action,
        Action::Recover
            | Action::FinishRestoring
            | Action::KeepAsking
            | Action::StartNotOwned
            | Action::Exit(_)
    );
    let unreachable = matches!(facts.remote, Remote::Unreachable { .. });
    assert!(!unreachable || without_a_list, "P2: {action:?} for {facts:?}");

    let believes_absence =
        matches!(action, Action::New | Action::SetAsideNew | Action::Adopt { .. } | Action::RestoreMirror);
    assert!(!believes_absence || facts.known_above == KnownAbove::No, "P2: {action:?} for {facts:?}");
}

#[test]
fn deciding_again_after_a_finished_restore_ends() {
    every_combination(|facts| {
        if !facts.marker && matches!(facts.restoring, Restoring::Published { .. }) {
            let again = decide(&facts.finish_restoring());
            assert!(again.line > Line::Restoring, "{again:?} for {facts:?}");
        }
    });
}
