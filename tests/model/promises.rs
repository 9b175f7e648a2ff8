//! What must hold in every world, and what must happen in some.

use stateright::Property;

use crate::rules::Config;
use crate::state::{Commit, Phase, Place, Pod, State, bit, seen};

/// Named by the promise of DESIGN.md where it is one.
pub fn promises() -> Vec<Property<Config>> {
    vec![
        Property::always("P2 the head builds on all that was acknowledged", |_, s: &State| {
            let line = s.head().map_or(0, |head| s.commit(head).line);
            s.all().all(|(ix, commit)| !commit.acked || line & bit(ix) != 0)
        }),
        Property::always("P2 the head holds all acknowledged writes", |_, s: &State| {
            let head = s.head().map(|head| s.commit(head));
            let (tree, banned) = head.map_or((0, 0), |head| (head.tree, head.banned));
            s.commits.iter().all(|commit| !commit.acked || commit.tree & !tree & !banned == 0)
        }),
        Property::always("P2 no plain commit takes out its parent's writes", |_, s| never(s, seen::REVERTED)),
        Property::always("P2 a rewind or delete stays", |_, s| never(s, seen::UNDONE)),
        Property::always("P3 a name has one content", |_, s: &State| {
            let again =
                |(i, commit): (usize, &Commit)| s.commits[..i].iter().any(|other| other.id == commit.id);
            !s.commits.iter().enumerate().any(again)
        }),
        Property::always("P5 no acknowledgement after another's seal", |_, s| never(s, seen::ACK_AFTER_SEAL)),
        Property::always("P5 no acknowledgement on another branch", |_, s| never(s, seen::ACK_DIVERGED)),
        Property::always("P6 head and pins can be read", |_, s: &State| {
            let pins = s.all().filter(|(_, commit)| commit.pinned).map(|(ix, _)| ix);
            s.head().into_iter().chain(pins).all(|ix| s.whole(ix))
        }),
        Property::always("P7 no tree in use is replaced", |_, s| never(s, seen::IN_USE)),
        Property::always("start: no bot on a tree older than its claim", |_, s| never(s, seen::START_OLD)),
        Property::always("start: no bot after another took over", |_, s| never(s, seen::START_TAKEN)),
        Property::always("start: a disk that nobody overtook is kept", |_, s| never(s, seen::SET_ASIDE)),
        Property::always("start: no alarm without a cause", |_, s| never(s, seen::FALSE_ALARM)),
        Property::always("start: no conflict without a cause", |_, s| never(s, seen::FALSE_CONFLICT)),
        Property::always("handover: a release leaves no write behind", |_, s| never(s, seen::LEFT_BEHIND)),
        Property::always("peace: no grant while another's lease lasts", |_, s| never(s, seen::PUSHED)),
        Property::always("peace: what was asked for is not snatched", |_, s| never(s, seen::SNATCHED)),
        Property::sometimes("a session is handed over", |_, s: &State| {
            let mut written = s.commits.iter().filter(|commit| commit.acked && commit.tree > 1);
            written.any(|c| c.author == Some(0)) && written.any(|c| c.author == Some(1))
        }),
        Property::sometimes("a fenced upload lands late", |_, s: &State| {
            let head = s.head().map(|head| s.commit(head)).filter(|head| head.acked);
            head.is_some_and(|head| s.stored().any(|(ix, _)| head.line & bit(ix) == 0))
        }),
        Property::sometimes("something is deleted", |_, s: &State| {
            s.commits.iter().any(|commit| commit.place == Place::Deleted)
        }),
        Property::sometimes("a bot starts again after a fault", |config: &Config, s: &State| {
            let again = |pod: &Pod| pod.bot && pod.proc.phase == Phase::Ready && pod.proc.epoch > 2;
            s.left != config.faults && s.pods.iter().any(again)
        }),
        Property::sometimes("who gave way is given the session back", |_, s| !never(s, seen::REGAINED)),
    ]
}

fn never(s: &State, flag: u16) -> bool {
    s.seen & flag == 0
}
