//! What is to be done with a session that was found: a pure function from both sides to a step.

use crate::error::Code;
use crate::sync::start::{Action, Chain, Decision, Identity, Line, Mirror, Refusal, Remote, Side, Tree};

/// The word in commits that a migration writes. A head that bears it was written by nobody who also ran a bot.
pub const LABEL: &str = "migrate";

/// What lies here, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Whether there is a directory at all; else only the bucket's plain files are meant.
    pub lies: bool,
    /// The tree, as the start table sees it.
    pub tree: Tree,
    /// Why it cannot be copied whole, if so: links, what cannot be read, credentials that are ruined.
    pub unfit: Option<String>,
}

/// What the bucket has, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// As the start table sees it.
    pub remote: Remote,
    /// The mirror next to an empty history.
    pub mirror: Mirror,
    /// How the head's tree stands to what lies here.
    pub content: Content,
    /// The head's accounts are those that lie here.
    pub same_identity: bool,
    /// What lies here is at an earlier point than the head.
    pub ahead: bool,
    /// The head was written by a migration.
    pub migrated: bool,
}

/// How the head's tree stands to what lies here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The same files.
    Same,
    /// All that lies here is in it, and more.
    Part,
    /// Anything else.
    Other,
}

/// What a start would do, and what a person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// By the start table.
    pub decision: Decision,
    /// `--on-conflict`.
    pub on_conflict: Option<Side>,
    /// What an earlier cleanup that was cut off left may lie here.
    pub resumes: bool,
}

/// What is to be done with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Commit what lies here; of two sides this one counts, if one must.
    Commit {
        /// For the start table.
        on_conflict: Option<Side>,
    },
    /// It is in the bucket already.
    Skip,
    /// Nothing: the bucket's counts, and this tree is not stored.
    KeepBucket,
    /// Make the bucket's plain files the first commit.
    AdoptMirror,
    /// Nothing, for this reason.
    Refuse {
        /// Gives the exit code.
        code: Code,
        /// One line, with what to do.
        why: String,
    },
}

/// The step for a session. What may be taken for what is the start table's to say; what is added here is that a source is
/// copied whole or not at all, and that what was migrated once is brought up to date. // P4
#[must_use]
pub fn step(here: &Here, there: &There, asked: Asked) -> Step {
    if let Some(why) = &here.unfit {
        return refuse(Code::Held, why.clone());
    }
    // A person who says that this tree counts does not mean a rest of it.
    let rest = asked.resumes
        && asked.on_conflict != Some(Side::Local)
        && asked.decision.line != Line::HeadMissing
        && matches!(there.remote, Remote::Commits(Chain::Paired | Chain::Unpaired));
    match (here.tree, there.content) {
        (Tree::Empty, _) if there.remote == Remote::Nothing && there.mirror != Mirror::None => {
            return Step::AdoptMirror;
        }
        (Tree::Empty, _) if !here.lies && there.remote != Remote::Nothing => {
            return refuse(Code::Conflict, "it has a history, which its plain files are not taken for");
        }
        // What an interrupted cleanup left: nothing, or files without its credentials.
        (Tree::Empty, _) | (Tree::Present(Identity::Absent), Content::Part) if rest => return Step::Skip,
        (Tree::Empty, _) => return refuse(Code::NoSession, "there are no files in it"),
        (_, Content::Same) if asked.decision.line != Line::HeadMissing => return Step::Skip,
        _ => {}
    }
    if there.remote == Remote::Commits(Chain::Damaged) && asked.on_conflict != Some(Side::Local) {
        return refuse(
            Code::Damaged,
            "the history in the bucket cannot be read whole: `verify` names the newest point that is, and --on-conflict \
             local goes on with this tree",
        );
    }
    if there.remote == Remote::Marked && asked.on_conflict != Some(Side::Local) {
        return refuse(
            Code::Conflict,
            "its history ends with a logout or a deletion, after which old keys are void: --on-conflict local brings \
             this tree back all the same, `undelete` the deleted one",
        );
    }
    if asked.on_conflict == Some(Side::Remote)
        && there.remote == Remote::Nothing
        && there.mirror != Mirror::None
    {
        return Step::AdoptMirror;
    }
    by_table(*there, asked)
}

/// The caller starts as `watch` does: a tree that lies here is never replaced, so that what would replace it is refused.
fn by_table(there: There, asked: Asked) -> Step {
    let Asked { decision: Decision { line, action }, on_conflict, .. } = asked;
    match (line, action) {
        (_, Action::Adopt { .. }) => Step::Commit { on_conflict },
        (_, Action::ConflictLocal) => Step::Commit { on_conflict: Some(Side::Local) },
        (_, Action::KeepLocal | Action::KeepRebase) => Step::Commit { on_conflict: None },
        (_, Action::AdoptEqual) => Step::Skip,
        (Line::Conflict, Action::Exit(_)) if on_conflict == Some(Side::Remote) => Step::KeepBucket,
        (Line::Conflict, Action::Exit(_)) if there.migrated && there.same_identity && !there.ahead => {
            Step::Commit { on_conflict: Some(Side::Local) }
        }
        (Line::IdentityLost, Action::Exit(_)) => refuse(
            Code::Held,
            "what lies here is not linked to an account, and the bucket's is, which is never replaced so: `restore` brings \
             the bucket's here, `logout` ends it",
        ),
        (Line::Overtaken, Action::Exit(_)) => refuse(
            Code::Conflict,
            "the bucket's went on elsewhere after this tree was stored: `restore` brings it here and sets this one aside",
        ),
        (Line::Ended, Action::Exit(_)) => refuse(
            Code::Conflict,
            "it was ended elsewhere after this tree was stored: `restore` sets this one aside",
        ),
        (_, Action::Exit(Refusal { code, text })) => refuse(code, text),
        (_, other) => {
            refuse(Code::Conflict, format!("a start would not keep this tree ({other:?}): run `restore`"))
        }
    }
}

fn refuse(code: Code, why: impl Into<String>) -> Step {
    Step::Refuse { code, why: why.into() }
}

#[cfg(test)]
mod tests;
