//! What the watch has announced and the engine has not looked at yet.
//!
//! Events only mark paths: what happened to them is found by looking. The watch's thread never waits here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tree::Filter;

/// More marks than this are one mark on everything.
const MARKS_MAX: usize = 20_000;
/// At max wait, the first gap of this length is taken.
const GAP: Duration = Duration::from_millis(50);
/// How long after max wait such a gap is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is dirty in one session, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Paths inside the session with the time of their newest event.
    pub paths: BTreeMap<String, Instant>,
    /// Everything must be looked at: events were lost, or carried no usable path.
    pub rescan: bool,
    /// The oldest event.
    pub first: Instant,
    /// The newest event.
    pub last: Instant,
}

/// When dirty trees are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time without events after which what is dirty is committed.
    pub quiet: Duration,
    /// The cap for trees that never fall quiet.
    pub max_wait: Duration,
}

impl Pace {
    /// When what is dirty since `first` and was touched `last` is to be looked at: after a quiet window; at
    /// max wait in the first gap of 50 ms; one second later whatever is there.
    #[must_use]
    pub fn due(&self, first: Instant, last: Instant) -> Instant {
        let calm = last + self.quiet;
        let gap = (last + GAP).max(first + self.max_wait);
        let forced = first + self.max_wait + PATIENCE;
        calm.min(gap).min(forced)
    }
}

/// Where events wait for the engine.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Notify,
    /// What is no part of the tree is not marked: a browser writes its caches all the time.
    filter: RwLock<Option<Arc<Filter>>>,
}

#[derive(Debug, Default)]
struct State {
    marks: Option<Marks>,
    /// The oldest event of what was taken and is not stored yet.
    taken: Option<Instant>,
    generation: u64,
}

impl Inbox {
    /// A path inside the session was touched; an empty one is the session directory itself.
    pub fn touch(&self, path: &str) {
        if !path.is_empty() && !self.enters(path) {
            return;
        }
        self.mark(|marks, now| {
            if path.is_empty() || marks.paths.len() >= MARKS_MAX {
                marks.rescan = true;
            } else {
                marks.paths.insert(path.to_owned(), now);
            }
        });
    }

    /// From now on only what may belong to the tree is marked.
    pub fn heed(&self, filter: &Arc<Filter>) {
        let known =
            |known: &Option<Arc<Filter>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, filter));
        if !known(&self.filter.read().unwrap_or_else(PoisonError::into_inner)) {
            *self.filter.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(filter));
        }
    }

    /// Whether a path, or something below it, may belong to the tree.
    #[must_use]
    pub fn enters(&self, path: &str) -> bool {
        let filter = self.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.as_ref().is_none_or(|filter| filter.enters(path))
    }

    /// Events were lost: everything must be looked at.
    pub fn rescan(&self) {
        self.mark(|marks, _| marks.rescan = true);
    }

    fn mark(&self, change: impl FnOnce(&mut Marks, Instant)) {
        let now = Instant::now();
        let mut state = self.lock();
        let fresh = || Marks { paths: BTreeMap::new(), rescan: false, first: now, last: now };
        let marks = state.marks.get_or_insert_with(fresh);
        marks.last = now;
        change(marks, now);
        state.generation += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// Oldest and newest event that nobody took.
    #[must_use]
    pub fn span(&self) -> Option<(Instant, Instant)> {
        self.lock().marks.as_ref().map(|marks| (marks.first, marks.last))
    }

    /// How many paths are marked.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.lock().marks.as_ref().map_or(0, |marks| marks.paths.len().max(usize::from(marks.rescan)) as u64)
    }

    /// What is marked, which stays marked.
    #[must_use]
    pub fn peek(&self) -> Option<Marks> {
        self.lock().marks.clone()
    }

    /// Takes what is marked.
    pub fn take(&self) -> Option<Marks> {
        let mut state = self.lock();
        let marks = state.marks.take()?;
        state.taken = Some(state.taken.map_or(marks.first, |taken| taken.min(marks.first)));
        Some(marks)
    }

    /// What was taken is stored, or held.
    pub fn settled(&self) {
        self.lock().taken = None;
    }

    /// The oldest event that nothing is stored of yet, also while it is being dealt with.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        let state = self.lock();
        state.marks.as_ref().map(|marks| marks.first).into_iter().chain(state.taken).min()
    }

    /// Marks again what was taken and could not be dealt with; its age counts on.
    pub fn put_back(&self, taken: Marks) {
        let mut state = self.lock();
        let marks = match state.marks.take() {
            None => taken,
            Some(newer) => {
                let mut paths = taken.paths;
                paths.extend(newer.paths);
                let rescan = taken.rescan || newer.rescan;
                Marks { paths, rescan, first: taken.first, last: newer.last }
            }
        };
        state.marks = Some(marks);
        drop(state);
        self.changed.notify_one();
    }

    /// Goes up with every event: equal before and after a look means that nothing happened during it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Waits for the next event.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { quiet: Duration::from_millis(500), max_wait: Duration::from_secs(5) };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_is_no_part_of_the_tree_wakes_nobody() {
        let inbox = Inbox::default();
        let filter = Filter::new(Some(crate::tree::Preset::WhatsappWebJs), &[], &[]).unwrap();
        inbox.heed(&Arc::new(filter));
        inbox.touch("Default/Cache/Cache_Data/index");
        assert!(inbox.peek().is_none());
        assert!(!inbox.enters("Default/Cache") && inbox.enters("Default/IndexedDB"));
        inbox.touch("Default/IndexedDB/x/000003.log");
        assert_eq!(inbox.marked(), 1);
        // The session directory itself is always a part.
        inbox.touch("");
        assert!(inbox.take().unwrap().rescan);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tree_is_due_after_the_quiet_window() {
        let start = Instant::now();
        assert_eq!(PACE.due(start, start + ms(100)), start + ms(600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_tree_is_due_in_the_first_gap_after_max_wait_and_at_the_latest_a_second_later() {
        let start = Instant::now();
        assert_eq!(PACE.due(start, start + ms(4_990)), start + ms(5_040), "a gap of 50 ms");
        assert_eq!(PACE.due(start, start + ms(4_700)), start + ms(5_000), "the gap is there already");
        assert_eq!(PACE.due(start, start + ms(5_990)), start + ms(6_000), "no gap at all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_keeps_its_age_and_loses_nothing() {
        let inbox = Inbox::default();
        inbox.touch("a");
        let taken = inbox.take().unwrap();
        tokio::time::advance(ms(200)).await;
        inbox.touch("b");
        let first = taken.first;
        inbox.put_back(taken);
        let marks = inbox.take().unwrap();
        assert_eq!(marks.paths.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((marks.first, marks.last), (first, first + ms(200)));
        assert!(inbox.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_change_counts_until_it_is_stored() {
        let inbox = Inbox::default();
        let first = Instant::now();
        inbox.touch("a");
        let taken = inbox.take().unwrap();
        tokio::time::advance(ms(200)).await;
        inbox.touch("b");
        assert_eq!(inbox.oldest(), Some(first), "it is being stored");
        inbox.put_back(taken);
        assert_eq!(inbox.take().unwrap().first, first);
        inbox.settled();
        assert_eq!(inbox.oldest(), None);
        inbox.touch("c");
        assert_eq!(inbox.oldest(), Some(first + ms(200)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_directory_itself_or_too_many_paths_mean_everything() {
        let inbox = Inbox::default();
        inbox.touch("");
        assert!(inbox.take().unwrap().rescan);
        for i in 0..=MARKS_MAX {
            inbox.touch(&format!("f{i}"));
        }
        let marks = inbox.take().unwrap();
        assert!(marks.rescan);
        assert_eq!(marks.paths.len(), MARKS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_moves_the_generation_and_wakes_the_engine() {
        let inbox = Inbox::default();
        let before = inbox.generation();
        inbox.rescan();
        inbox.changed().await;
        assert_ne!(inbox.generation(), before);
    }
}
