//! The mass-delete guard: a tree that suddenly lost most of itself is looked at twice.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Table, leveldb};

/// How long the largest tree is remembered.
const MEMORY: Duration = Duration::from_hours(1);

/// How much a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Size {
    /// Of a tree. A `LevelDB` that is there counts as one file whatever lies in it: it drops most of itself whenever it has
    /// written it anew.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let is_part = |path: &str| {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            let dir = match leveldb::Member::parse(name) {
                Some(leveldb::Member::Current) => None,
                Some(_) => Some(dir.to_owned()),
                None => leveldb::database_of_blob(path),
            };
            dir.is_some_and(|dir| table.files.contains_key(&format!("{dir}/{}", leveldb::CURRENT)))
        };
        let counted = table.files.iter().filter(|(path, _)| !is_part(path));
        counted.fold(Self::default(), |size, (_, meta)| Self {
            files: size.files + 1,
            bytes: size.bytes + meta.size,
        })
    }

    /// Whether more than half of the files or of the bytes are gone.
    fn lost_most_of(self, before: Self) -> bool {
        self.files < before.files.div_ceil(2) || self.bytes < before.bytes.div_ceil(2)
    }
}

/// What may be done with the removals of a commit. Puts always go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Commit them.
    Go,
    /// Hold them until a second look, not before this moment, finds the same.
    HoldRemovals {
        /// When to look again.
        until: Instant,
    },
    /// Hold them: the tree is empty, and only a person may say that this is meant.
    HoldEmptied,
}

/// Remembers the trees of the last hour, and a first look that waits for its second.
#[derive(Debug)]
pub struct MassDelete {
    allowed: bool,
    max_wait: Duration,
    /// Trees in the order of time; each counts until the next one came.
    trees: VecDeque<(Instant, Size)>,
    pending: Option<(Instant, Size)>,
}

impl MassDelete {
    /// A guard; `allowed` is `--allow-mass-delete`.
    #[must_use]
    pub fn new(allowed: bool, max_wait: Duration) -> Self {
        Self { allowed, max_wait, trees: VecDeque::new(), pending: None }
    }

    /// Notes the tree of the head: at start, and after every commit.
    pub fn note(&mut self, now: Instant, tree: Size) {
        self.trees.push_back((now, tree));
        // A tree counts until the next one came: the newest counts however old it is.
        while self.trees.get(1).is_some_and(|(since, _)| now.duration_since(*since) > MEMORY) {
            self.trees.pop_front();
        }
    }

    /// Judges a commit that would leave this tree. `removes` says whether it removes anything, and
    /// `same_identity` whether the identity guard found no other pairing: a new one starts a new tree.
    pub fn judge(&mut self, now: Instant, tree: Size, removes: bool, same_identity: bool) -> Verdict {
        let most = self.largest(now);
        if self.allowed || !removes || most.files == 0 {
            self.pending = None;
            return Verdict::Go;
        }
        if tree.files == 0 {
            self.pending = None;
            return Verdict::HoldEmptied;
        }
        if !same_identity || !tree.lost_most_of(most) {
            self.pending = None;
            return Verdict::Go;
        }
        match self.pending {
            // The same is not found when the deletion went on and took most of what the first look saw.
            Some((first, seen)) if !tree.lost_most_of(seen) => {
                let until = first + self.max_wait;
                if now < until {
                    return Verdict::HoldRemovals { until };
                }
                // Believed: from here on this is the tree that a further loss is measured by.
                self.trees = VecDeque::from([(now, tree)]);
                self.pending = None;
                Verdict::Go
            }
            _ => {
                self.pending = Some((now, tree));
                Verdict::HoldRemovals { until: now + self.max_wait }
            }
        }
    }

    fn largest(&self, now: Instant) -> Size {
        let ends = self.trees.iter().skip(1).map(|(since, _)| Some(*since)).chain([None]);
        let counts = |end: Option<Instant>| end.is_none_or(|end| now.duration_since(end) <= MEMORY);
        self.trees.iter().zip(ends).filter(|(_, end)| counts(*end)).fold(
            Size::default(),
            |most, ((_, tree), _)| Size {
                files: most.files.max(tree.files),
                bytes: most.bytes.max(tree.bytes),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);
    const FULL: Size = Size { files: 100, bytes: 10_000 };

    fn guard(now: Instant) -> MassDelete {
        let mut guard = MassDelete::new(false, WAIT);
        guard.note(now, FULL);
        guard
    }

    fn files(files: u64) -> Size {
        Size { files, bytes: 10_000 }
    }

    fn holds(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::HoldRemovals { .. })
    }

    #[test]
    fn a_compaction_is_no_mass_delete_and_a_lost_database_is_a_loss() {
        let table = |files: &[(&str, u64)]| {
            let meta =
                |size| crate::tree::Meta { size, mode: 0, mtime_ns: 0, sha256: crate::tree::Hash::of(b"") };
            let files = files.iter().map(|(path, size)| ((*path).to_owned(), meta(*size))).collect();
            Size::of(&Table { files, ..Table::default() })
        };
        let full =
            table(&[("x/CURRENT", 16), ("x/000003.log", 4_000_000), ("x/000005.ldb", 400_000), ("a", 1)]);
        assert_eq!(full, table(&[("x/CURRENT", 16), ("x/000006.log", 9), ("a", 1)]));
        assert_eq!(full, Size { files: 2, bytes: 17 });
        // Without it, these are files like others.
        assert_eq!(table(&[("x/000003.log", 50), ("a", 1)]), Size { files: 2, bytes: 51 });
    }

    #[test]
    fn half_of_a_tree_may_go_at_once() {
        let now = Instant::now();
        assert_eq!(guard(now).judge(now, files(50), true, true), Verdict::Go);
        assert_eq!(guard(now).judge(now, Size { files: 90, bytes: 5_000 }, true, true), Verdict::Go);
    }

    #[test]
    fn more_than_half_waits_for_a_second_look_that_finds_the_same() {
        for tree in [files(49), Size { files: 99, bytes: 4_999 }] {
            let now = Instant::now();
            let mut guard = guard(now);
            let until = now + WAIT;
            assert_eq!(guard.judge(now, tree, true, true), Verdict::HoldRemovals { until });
            assert_eq!(guard.judge(now + WAIT / 2, tree, true, true), Verdict::HoldRemovals { until });
            assert_eq!(guard.judge(until, tree, true, true), Verdict::Go);
            // A retry of that commit, and what goes later, are measured by the smaller tree.
            assert_eq!(guard.judge(until, tree, true, true), Verdict::Go);
            let files = tree.files - 1;
            assert_eq!(guard.judge(until + WAIT, Size { files, ..tree }, true, true), Verdict::Go);
        }
    }

    #[test]
    fn a_deletion_that_goes_on_is_looked_at_again() {
        let now = Instant::now();
        let mut guard = guard(now);
        assert!(holds(guard.judge(now, files(40), true, true)));
        assert!(holds(guard.judge(now + WAIT, files(10), true, true)));
        assert_eq!(guard.judge(now + WAIT * 2, files(0), true, true), Verdict::HoldEmptied);
    }

    #[test]
    fn files_that_come_back_end_the_first_look() {
        let now = Instant::now();
        let mut guard = guard(now);
        assert!(holds(guard.judge(now, files(40), true, true)));
        assert_eq!(guard.judge(now + WAIT, files(100), false, true), Verdict::Go);
        assert!(holds(guard.judge(now + WAIT * 2, files(40), true, true)));
    }

    #[test]
    fn an_emptied_tree_is_held_until_a_person_says_so() {
        let now = Instant::now();
        let mut guard = guard(now);
        for wait in [0, 1, 10, 10_000] {
            for same_identity in [true, false] {
                let verdict = guard.judge(now + WAIT * wait, Size::default(), true, same_identity);
                assert_eq!(verdict, Verdict::HoldEmptied);
            }
        }
        let mut allowed = MassDelete::new(true, WAIT);
        allowed.note(now, FULL);
        assert_eq!(allowed.judge(now, Size::default(), true, true), Verdict::Go);
    }

    #[test]
    fn slow_steps_within_an_hour_are_one_deletion() {
        let now = Instant::now();
        let mut guard = guard(now);
        let minutes = |minutes| now + Duration::from_mins(minutes);
        for (minute, left) in [(10, 80), (20, 65), (30, 55)] {
            assert_eq!(guard.judge(minutes(minute), files(left), true, true), Verdict::Go);
            guard.note(minutes(minute), files(left));
        }
        assert!(holds(guard.judge(minutes(40), files(45), true, true)));
    }

    #[test]
    fn the_largest_tree_is_forgotten_an_hour_after_a_smaller_one_came() {
        let now = Instant::now();
        let mut guard = guard(now);
        let minutes = |minutes| now + Duration::from_mins(minutes);
        guard.note(minutes(200), files(60));
        assert!(holds(guard.judge(minutes(201), files(45), true, true)), "it stood until a minute ago");
        assert_eq!(guard.judge(minutes(261), files(45), true, true), Verdict::Go);
        assert!(holds(guard.judge(minutes(999), files(29), true, true)), "the head counts however old");
    }

    #[test]
    fn a_new_pairing_or_a_tree_that_was_empty_is_not_held() {
        let now = Instant::now();
        assert_eq!(guard(now).judge(now, files(1), true, false), Verdict::Go);
        assert_eq!(MassDelete::new(false, WAIT).judge(now, Size::default(), true, true), Verdict::Go);
    }
}
