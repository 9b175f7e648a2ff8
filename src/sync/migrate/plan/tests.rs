use super::*;
use crate::sync::start::{self, Command, Facts, KnownAbove, Options, Restoring, State};

const PAIRED: Tree = Tree::Present(Identity::Paired);
const HISTORY: Remote = Remote::Commits(Chain::Paired);

/// A tree that this disk knows nothing of, and an empty bucket.
struct Case {
    tree: Tree,
    unfit: Option<&'static str>,
    state: State,
    on_conflict: Option<Side>,
    resumes: bool,
    there: There,
}

impl Case {
    fn of(remote: Remote, content: Content) -> Self {
        let there = There {
            remote,
            mirror: Mirror::None,
            content,
            same_identity: true,
            ahead: false,
            migrated: false,
        };
        Self { tree: PAIRED, unfit: None, state: State::None, on_conflict: None, resumes: true, there }
    }

    /// As the start table decides, and then the plan.
    fn step(&self) -> Step {
        let facts = Facts {
            marker: false,
            restoring: Restoring::No,
            same_life: false,
            tree: self.tree,
            state: self.state,
            remote: self.there.remote,
            known_above: KnownAbove::No,
            mirror: self.there.mirror,
            digest_equal: self.there.content == Content::Same,
            heals: 0,
            options: Options {
                command: Command::Watch,
                on_conflict: self.on_conflict,
                use_local: false,
                require_existing: false,
            },
        };
        let here = Here { lies: true, tree: self.tree, unfit: self.unfit.map(str::to_owned) };
        let (on_conflict, resumes) = (self.on_conflict, self.resumes);
        step(&here, &self.there, Asked { decision: start::decide(&facts), on_conflict, resumes })
    }

    fn refused(&self) -> Code {
        match self.step() {
            Step::Refuse { code, .. } => code,
            other => panic!("not refused: {other:?}"),
        }
    }
}

const COMMIT: Step = Step::Commit { on_conflict: None };

#[test]
fn what_the_bucket_does_not_have_is_committed() {
    assert_eq!(Case::of(Remote::Nothing, Content::Other).step(), COMMIT);
    let mut unpaired = Case::of(Remote::Nothing, Content::Other);
    unpaired.tree = Tree::Present(Identity::Absent);
    assert_eq!(unpaired.step(), COMMIT, "a profile whose accounts cannot be told");
}

#[test]
fn what_the_bucket_has_is_not_committed_again() {
    assert_eq!(Case::of(HISTORY, Content::Same).step(), Step::Skip);
    let mut left = Case::of(HISTORY, Content::Part);
    (left.tree, left.there.same_identity) = (Tree::Present(Identity::Absent), false);
    assert_eq!(left.step(), Step::Skip, "what an interrupted cleanup left");
    left.tree = Tree::Empty;
    assert_eq!(left.step(), Step::Skip, "all but the directory");
    left.there.remote = Remote::Marked;
    assert_eq!(left.refused(), Code::NoSession, "nothing that would be there");
}

#[test]
fn a_part_of_the_head_is_a_conflict_like_any_other_where_it_is_no_rest_of_a_cleanup() {
    let mut older = Case::of(Remote::Commits(Chain::Unpaired), Content::Part);
    (older.tree, older.there.same_identity) = (Tree::Present(Identity::Absent), false);
    (older.resumes, older.on_conflict) = (false, Some(Side::Local));
    let commit = Step::Commit { on_conflict: Some(Side::Local) };
    assert_eq!(older.step(), commit, "an older export that is imported");
    older.resumes = true;
    assert_eq!(older.step(), commit, "a person says that this one counts");
    (older.tree, older.resumes) = (Tree::Empty, false);
    assert_eq!(older.refused(), Code::NoSession);
}

#[test]
fn what_cannot_be_copied_whole_is_refused_whatever_the_bucket_has() {
    for remote in [Remote::Nothing, HISTORY, Remote::Marked] {
        let mut case = Case::of(remote, Content::Other);
        (case.unfit, case.on_conflict) = (Some("creds.json is empty"), Some(Side::Local));
        assert_eq!(case.refused(), Code::Held);
    }
}

#[test]
fn an_identity_is_not_replaced_by_none() {
    for identity in [Identity::Unpaired, Identity::Unreadable, Identity::Absent] {
        for on_conflict in [None, Some(Side::Local)] {
            let mut case = Case::of(HISTORY, Content::Other);
            (case.tree, case.on_conflict) = (Tree::Present(identity), on_conflict);
            case.there.same_identity = false;
            assert_eq!(case.refused(), Code::Held, "{identity:?} {on_conflict:?}");
        }
    }
}

#[test]
fn two_trees_that_differ_are_a_persons_decision() {
    let mut case = Case::of(HISTORY, Content::Other);
    assert_eq!(case.refused(), Code::Conflict);
    case.on_conflict = Some(Side::Local);
    assert_eq!(case.step(), Step::Commit { on_conflict: Some(Side::Local) });
    case.on_conflict = Some(Side::Remote);
    assert_eq!(case.step(), Step::KeepBucket, "and what lies here is not taken for it");
}

#[test]
fn a_damaged_history_is_said_to_be_one_whatever_this_disk_knows() {
    for state in [State::None, State::IsHead, State::Other] {
        let mut case = Case::of(Remote::Commits(Chain::Damaged), Content::Other);
        (case.state, case.there.same_identity) = (state, false);
        assert_eq!(case.refused(), Code::Damaged, "{state:?}");
    }
    let mut case = Case::of(Remote::Commits(Chain::Damaged), Content::Other);
    case.on_conflict = Some(Side::Local);
    assert!(matches!(case.step(), Step::Commit { .. }));
}

#[test]
fn what_only_migrations_wrote_is_brought_up_to_date() {
    let mut case = Case::of(HISTORY, Content::Other);
    case.there.migrated = true;
    assert_eq!(case.step(), Step::Commit { on_conflict: Some(Side::Local) });
    case.there.ahead = true;
    assert_eq!(case.refused(), Code::Conflict, "an older copy");
    (case.there.ahead, case.there.same_identity) = (false, false);
    assert_eq!(case.refused(), Code::Conflict, "another account");
}

#[test]
fn a_head_that_this_disk_wrote_is_gone_on_from_and_anothers_is_not() {
    let mut case = Case::of(HISTORY, Content::Other);
    case.state = State::IsHead;
    assert_eq!(case.step(), COMMIT);
    case.state = State::Other;
    assert_eq!(case.refused(), Code::Conflict);
}

#[test]
fn a_session_that_was_ended_comes_back_only_when_a_person_says_so() {
    let mut case = Case::of(Remote::Marked, Content::Other);
    assert_eq!(case.refused(), Code::Conflict);
    case.on_conflict = Some(Side::Local);
    assert!(matches!(case.step(), Step::Commit { .. }));
}

#[test]
fn a_mirror_is_adopted_where_nothing_lies_here_or_a_person_says_so() {
    let mut case = Case::of(Remote::Nothing, Content::Other);
    (case.tree, case.there.mirror) = (Tree::Empty, Mirror::OtherIdentity);
    assert_eq!(case.step(), Step::AdoptMirror);
    case.tree = PAIRED;
    assert_eq!(case.refused(), Code::Conflict);
    case.on_conflict = Some(Side::Remote);
    assert_eq!(case.step(), Step::AdoptMirror);
    case.on_conflict = Some(Side::Local);
    assert_eq!(case.step(), Step::Commit { on_conflict: Some(Side::Local) });
    (case.on_conflict, case.there.mirror) = (None, Mirror::SameIdentity);
    assert_eq!(case.step(), COMMIT, "the mirror is pinned first");
}

#[test]
fn nothing_is_refused_as_nothing() {
    let mut case = Case::of(Remote::Nothing, Content::Other);
    case.tree = Tree::Empty;
    assert_eq!(case.refused(), Code::NoSession);
}
