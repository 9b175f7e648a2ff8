//! Real trees on a real disk; a life ends before each step in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::*;
use crate::testing::memory_backed;
use crate::tree::staging::Staging;

/// Every file and link below a directory, and every empty directory, but for the state directory.
type Shape = BTreeMap<String, String>;

fn shape(dir: &Path) -> Shape {
    let mut found = Shape::new();
    walk(dir, "", &mut found);
    found
}

fn walk(dir: &Path, below: &str, found: &mut Shape) {
    let Ok(entries) = fs::read_dir(dir.join(below)) else { return };
    let mut empty = true;
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap_or_else(|name| format!("{name:?}"));
        empty = false;
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if path == STATE_DIR {
            continue;
        }
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(dir, &path, found);
        } else if kind.is_symlink() {
            found.insert(path, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            found.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
    if empty {
        found.insert(format!("{below}/"), String::new());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn put(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (path, text) in files {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
}

/// A machine that dies before a given step, and keeps what the disk held when something was last made durable.
#[derive(Debug, Default)]
struct Mortal {
    state: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Life {
    steps: usize,
    dies_before: Option<usize>,
    dead: bool,
    /// Steps by name, and what was made durable by path.
    log: Vec<String>,
    /// Copies the root to the other directory whenever something is made durable.
    durable: Option<(PathBuf, PathBuf)>,
}

impl Mortal {
    fn dying_before(step: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Life { dies_before: Some(step), ..Life::default() }) })
    }

    fn is_dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }
}

impl Host for Mortal {
    fn now(&self) -> Timestamp {
        "2026-11-23T21:00:00Z".parse().unwrap()
    }

    fn step(&self, step: Step) -> io::Result<()> {
        let mut life = self.state.lock().unwrap();
        if life.dead || life.dies_before == Some(life.steps) {
            life.dead = true;
            return Err(io::Error::other(format!("died before {:?}", step.0)));
        }
        life.steps += 1;
        life.log.push(step.0.to_owned());
        Ok(())
    }

    fn synced(&self, path: &Path) {
        let mut life = self.state.lock().unwrap();
        assert!(!life.dead, "something was done after the death");
        life.log.push(path.display().to_string());
        if let Some((root, kept)) = &life.durable {
            drop(fs::remove_dir_all(kept));
            copy(root, kept);
        }
    }

    fn synced_all(&self, path: &Path) {
        self.synced(path);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Some,
    Aside,
}

/// One layout with one kind of change, from the old tree to the new one.
#[derive(Debug, Clone)]
struct Case {
    layout: Layout,
    way: Way,
    /// Whether the file system knows the flags of `renameat2`.
    flags: bool,
    /// Whether there is an old tree.
    old: bool,
}

const OLD: &[(&str, &str)] =
    &[("creds.json", "old"), ("keys/a.json", "old a"), ("only-old", "x"), ("Default/Cache/data", "cache")];
const NEW: &[(&str, &str)] = &[("creds.json", "new"), ("keys/a.json", "new a"), ("keys/b.json", "new b")];

impl Case {
    fn all() -> Vec<Self> {
        let key = SessionKey::new("u", "s").unwrap();
        let mut cases = Vec::new();
        for layout in [Layout::Many, Layout::User("u".into()), Layout::Single(key)] {
            for way in [Way::Whole, Way::Some, Way::Aside] {
                for (flags, old) in [(true, true), (false, true), (true, false)] {
                    cases.push(Self { layout: layout.clone(), way, flags, old });
                }
            }
        }
        cases
    }

    fn site(&self, root: &Path) -> Site {
        Site::new(root, &self.layout, &SessionKey::new("u", "s").unwrap())
    }

    fn prepare(&self, root: &Path) {
        put(root, &[("lost+found/inode", "kept")]);
        put(&root.join("other"), &[("session", "kept")]);
        if matches!(self.layout, Layout::Single(_)) {
            fs::remove_dir_all(root.join("other")).unwrap();
        }
        if self.old {
            put(&self.site(root).dir(), OLD);
            symlink("/somewhere", self.site(root).dir().join("SingletonLock")).unwrap();
        }
    }

    fn run(&self, root: &Path, host: &Arc<Mortal>) -> io::Result<Published> {
        let site = self.site(root);
        let mut disk = Disk::open(root, host.as_ref())?;
        disk.flags = self.flags;
        if self.way == Way::Aside {
            return set_aside_on(&disk, &site);
        }
        let staging = Staging::create(&site, None, Arc::clone(host) as Arc<dyn Host>)?;
        put(staging.dir().path(), NEW);
        let staged = staging.finish()?;
        match self.way {
            Way::Whole => publish_on(&disk, &site, staged),
            _ => replace_on(&disk, &site, staged, &BTreeSet::from(["only-old".to_owned()])),
        }
    }

    fn recover(&self, root: &Path, host: &Mortal) -> io::Result<Recovered> {
        let mut disk = Disk::open(root, host)?;
        disk.flags = self.flags;
        let recovered = marker::recover(&disk, &self.site(root))?;
        // As the start does.
        disk.remove_all(&Path::new(STATE_DIR).join("staging"), Step("clean"))?;
        Ok(recovered)
    }

    /// What the session directory shows, without the reserved things of a root.
    fn tree(&self, root: &Path) -> Shape {
        let mut found = shape(&self.site(root).dir());
        found.retain(|path, _| !path.starts_with(LOST_AND_FOUND));
        // Directories without files are no part of what is compared: `replace` may leave some.
        found.retain(|path, _| !path.ends_with('/'));
        found
    }

    fn before(&self) -> Shape {
        let mut files = text(OLD);
        files.insert("SingletonLock".into(), "-> /somewhere".into());
        if self.old { files } else { Shape::new() }
    }

    fn after(&self) -> Shape {
        match self.way {
            Way::Whole => text(NEW),
            Way::Aside => Shape::new(),
            Way::Some => {
                let mut files = self.before();
                files.remove("only-old");
                files.extend(text(NEW));
                files
            }
        }
    }

    /// What is old and not in the new tree any more must lie in set-aside.
    fn lost(&self) -> Shape {
        let new = self.after();
        self.before().into_iter().filter(|(path, text)| new.get(path) != Some(text)).collect()
    }

    /// Whether the disk holds exactly the old or the new tree and lost nothing; true for the new one.
    fn judge(&self, root: &Path, why: &str) -> bool {
        let tree = self.tree(root);
        let is_new = tree == self.after();
        assert!(is_new || tree == self.before(), "{self:?}, {why}: neither old nor new: {tree:#?}");
        let aside = set_aside_trees(root);
        if is_new && !self.lost().is_empty() {
            let found =
                aside.iter().any(|kept| self.lost().iter().all(|(path, text)| kept.get(path) == Some(text)));
            assert!(found, "{self:?}, {why}: the old tree is lost: {aside:#?}");
        }
        assert!(!root.join(STATE_DIR).join("staging").exists(), "{self:?}, {why}: staging is left");
        assert_eq!(fs::read_to_string(root.join("lost+found/inode")).unwrap(), "kept");
        if !matches!(self.layout, Layout::Single(_)) {
            assert_eq!(fs::read_to_string(root.join("other/session")).unwrap(), "kept");
        }
        is_new
    }
}

fn text(files: &[(&str, &str)]) -> Shape {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn set_aside_trees(root: &Path) -> Vec<Shape> {
    let dir = root.join(STATE_DIR).join("set-aside/u/s");
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| shape(&entry.unwrap().path())).collect()
}

#[test]
fn a_tree_is_replaced_in_every_layout_and_the_old_one_is_set_aside() {
    for case in Case::all() {
        let dir = memory_backed();
        case.prepare(dir.path());
        let published = case.run(dir.path(), &Arc::new(Mortal::default())).unwrap();
        drop(fs::remove_dir(dir.path().join(STATE_DIR).join("staging")));
        assert!(case.judge(dir.path(), "no crash"), "{case:?}");
        assert_eq!(published.set_aside.is_some(), !case.lost().is_empty(), "{case:?}");
        if let Some(aside) = published.set_aside {
            assert!(aside.ends_with(".session-sidecar/set-aside/u/s/20261123T210000Z-0"), "{aside:?}");
            assert_eq!(case.lost(), {
                let mut kept = shape(&aside);
                kept.retain(|path, _| case.lost().contains_key(path));
                kept
            });
        }
        assert!(!case.site(dir.path()).is_cut_off(&Mortal::default()).unwrap(), "{case:?}");
    }
}

#[test]
fn a_crash_before_any_step_leaves_exactly_the_old_tree_or_the_new_one_and_loses_nothing() {
    for case in Case::all() {
        let mut outcomes = BTreeSet::new();
        for step in 0.. {
            let dir = memory_backed();
            case.prepare(dir.path());
            let host = Mortal::dying_before(step);
            let done = case.run(dir.path(), &host);
            if !host.is_dead() {
                break;
            }
            let marked = case.site(dir.path()).is_cut_off(&Mortal::default()).unwrap();
            let recovered = case.recover(dir.path(), &Mortal::default()).unwrap();
            let why = format!("died before step {step} ({done:?}), {recovered:?}");
            let is_new = case.judge(dir.path(), &why);
            assert_eq!(marked, recovered != Recovered::None, "{case:?}, {why}");
            assert!(recovered != Recovered::Finished || is_new, "{case:?}, {why}");
            outcomes.insert(is_new);
            let again = case.recover(dir.path(), &Mortal::default()).unwrap();
            assert_eq!(again, Recovered::None, "{case:?}, {why}");
        }
        assert!(case.lost().is_empty() || outcomes.len() == 2, "{case:?}: {outcomes:?}");
    }
}

#[test]
fn a_crash_during_the_recovery_of_a_crash_loses_nothing_either() {
    let one_each = |case: &Case| {
        case.old && (case.way == Way::Whole || !case.flags) && !matches!(case.layout, Layout::User(_))
    };
    for case in Case::all().into_iter().filter(one_each) {
        for step in 0.. {
            let dir = memory_backed();
            case.prepare(dir.path());
            let host = Mortal::dying_before(step);
            let _ = case.run(dir.path(), &host);
            if !host.is_dead() {
                break;
            }
            for second in 0.. {
                let other = memory_backed();
                copy(dir.path(), other.path());
                let host = Mortal::dying_before(second);
                let _ = case.recover(other.path(), &host);
                if !host.is_dead() {
                    break;
                }
                case.recover(other.path(), &Mortal::default()).unwrap();
                case.judge(other.path(), &format!("died before step {step}, then before {second}"));
            }
        }
    }
}

/// The strongest cut a disk may make: everything since the last moment at which something was made durable.
#[test]
fn a_power_cut_that_takes_back_what_is_not_durable_leaves_the_old_tree_or_the_new_one() {
    for case in Case::all().into_iter().filter(|case| case.old) {
        for step in 0.. {
            let dir = memory_backed();
            let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
            case.prepare(&root);
            copy(&root, &kept);
            let host = Mortal::dying_before(step);
            host.state.lock().unwrap().durable = Some((root.clone(), kept.clone()));
            let done = case.run(&root, &host);
            if !host.is_dead() {
                break;
            }
            case.recover(&kept, &Mortal::default()).unwrap();
            case.judge(&kept, &format!("power cut before step {step} ({done:?})"));
        }
    }
}

/// The argument of [`moves`](crate::tree::moves) and of the exchange: nothing moves before what it relies on is durable.
#[test]
fn each_phase_begins_when_the_one_before_is_durable() {
    let marker = "sessions/u/s";
    let aside = "set-aside/u/s/20261123T210000Z-0";
    let whole: &[(&[&str], &str)] = &[
        (&["/root", marker], "publish: exchange"),
        (&["/root/u", "staging"], "publish: set the old tree aside"),
        (&["set-aside/u/s", "staging"], "publish: remove the sentinel"),
        (&["/root/u/s"], "publish: remove the marker"),
        (&[marker], "publish: remove staging"),
    ];
    let entries: &[(&[&str], &str)] = &[
        (&["/root", marker], "publish: move an old entry out"),
        (&["/root", aside], "publish: move a new entry in"),
        (&["/root"], "publish: remove the marker"),
        (&[marker], "publish: remove staging"),
    ];
    let key = SessionKey::new("u", "s").unwrap();
    for (layout, phases) in [(Layout::Many, whole), (Layout::Single(key), entries)] {
        let case = Case { layout, way: Way::Whole, flags: true, old: true };
        let dir = memory_backed();
        let root = dir.path().join("root");
        case.prepare(&root);
        let host = Arc::new(Mortal::default());
        case.run(&root, &host).unwrap();
        let log = std::mem::take(&mut host.state.lock().unwrap().log);
        let mut from = 0;
        for (durable, step) in phases {
            let until = log.iter().position(|entry| entry == step).unwrap();
            for path in *durable {
                let told = log[from..until].iter().any(|entry| entry.ends_with(path));
                assert!(told, "{case:?}: {path} is not durable before {step}: {log:#?}");
            }
            from = log.iter().rposition(|entry| entry == step).unwrap();
        }
    }
}

/// Within a phase each rename may be lost or kept, in any order.
#[test]
fn a_power_cut_that_takes_back_any_renames_of_a_phase_is_recovered_from() {
    let case = Case {
        layout: Layout::Single(SessionKey::new("u", "s").unwrap()),
        way: Way::Whole,
        flags: true,
        old: true,
    };
    let dir = memory_backed();
    case.prepare(dir.path());
    let site = case.site(dir.path());
    let host = Arc::new(Mortal::default());
    let staging = Staging::create(&site, None, Arc::clone(&host) as Arc<dyn Host>).unwrap();
    put(staging.dir().path(), NEW);
    let staged = staging.finish().unwrap();
    let from = staged.path().to_path_buf();
    let aside = site.set_aside.join("20261123T210000Z-0");
    let mut moves = Moves::default();
    for name in ["creds.json", "keys", "only-old", "Default", "SingletonLock"] {
        moves.out.push(Move::new(Path::new(name), &aside.join(name)));
    }
    for name in ["creds.json", "keys"] {
        moves.into.push(Move::new(&from.join(name), Path::new(name)));
    }
    let phases = [moves.out.clone(), moves.into.clone()];
    let disk = Disk::open(dir.path(), host.as_ref()).unwrap();
    disk.make_dirs(&aside, PRIVATE, None).unwrap();
    marker::write(&disk, &site, &Marker::new(&site, Some(&from), &aside, marker::Way::Moves(moves))).unwrap();
    drop(staged.keep());
    for phase in 0..phases.len() {
        let count = phases[phase].len();
        for kept in 0..(1_usize << count) {
            let other = memory_backed();
            copy(dir.path(), other.path());
            let rename =
                |step: &Move| fs::rename(other.path().join(&*step.from), other.path().join(&*step.to));
            phases[..phase].iter().flatten().for_each(|step| rename(step).unwrap());
            let survivors = phases[phase].iter().enumerate().filter(|(bit, _)| kept & (1 << bit) != 0);
            survivors.for_each(|(_, step)| rename(step).unwrap());
            assert_eq!(case.recover(other.path(), &Mortal::default()).unwrap(), Recovered::Finished);
            assert!(case.judge(other.path(), &format!("phase {phase}, kept {kept:b}")));
        }
    }
}

#[test]
fn a_publish_whose_staging_is_lost_is_undone() {
    for case in Case::all().into_iter().filter(|case| case.old && case.way != Way::Aside) {
        for step in 0.. {
            let dir = memory_backed();
            case.prepare(dir.path());
            let host = Mortal::dying_before(step);
            let _ = case.run(dir.path(), &host);
            if !host.is_dead() {
                break;
            }
            if case.tree(dir.path()) == case.after() {
                // From here on staging may hold the only copy of the old tree.
                continue;
            }
            drop(fs::remove_dir_all(dir.path().join(STATE_DIR).join("staging")));
            case.recover(dir.path(), &Mortal::default()).unwrap();
            assert!(!case.judge(dir.path(), &format!("died before step {step}, staging lost")), "{case:?}");
        }
    }
}

#[test]
fn a_crash_on_the_way_back_loses_nothing() {
    let case = Case {
        layout: Layout::Single(SessionKey::new("u", "s").unwrap()),
        way: Way::Whole,
        flags: true,
        old: true,
    };
    let mut undone = 0;
    for step in 0.. {
        let dir = memory_backed();
        case.prepare(dir.path());
        let host = Mortal::dying_before(step);
        let _ = case.run(dir.path(), &host);
        if !host.is_dead() {
            break;
        }
        if case.tree(dir.path()) == case.after() {
            continue;
        }
        // One new file is lost, so there is only the way back.
        let staging = dir.path().join(STATE_DIR).join("staging");
        for tree in fs::read_dir(&staging).into_iter().flatten() {
            drop(fs::remove_dir_all(tree.unwrap().path().join("keys")));
        }
        for second in 0.. {
            let other = memory_backed();
            copy(dir.path(), other.path());
            let host = Mortal::dying_before(second);
            let _ = case.recover(other.path(), &host);
            if !host.is_dead() {
                break;
            }
            case.recover(other.path(), &Mortal::default()).unwrap();
            let why = format!("died before step {step}, on the way back before {second}");
            undone += usize::from(!case.judge(other.path(), &why) && case.tree(dir.path()) != case.before());
        }
    }
    assert!(undone > 0, "no way back was gone");
}

#[test]
fn what_a_bot_writes_during_a_publish_is_set_aside_too() {
    let dir = memory_backed();
    let key = SessionKey::new("u", "s").unwrap();
    let site = Site::new(dir.path(), &Layout::Single(key), &SessionKey::new("u", "s").unwrap());
    let host = Arc::new(Mortal::default());
    let staging = Staging::create(&site, None, Arc::clone(&host) as Arc<dyn Host>).unwrap();
    put(staging.dir().path(), NEW);
    let staged = staging.finish().unwrap();
    let aside = site.set_aside.join("20261123T210000Z-0");
    let mut moves = Moves::default();
    moves.into.push(Move::new(&staged.path().join("creds.json"), Path::new("creds.json")));
    // It started before its time and made a new identity.
    put(dir.path(), &[("creds.json", "unpaired")]);
    move_all(&Disk::open(dir.path(), host.as_ref()).unwrap(), &site, Some(staged), &aside, moves).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("creds.json")).unwrap(), "new");
    assert_eq!(fs::read_to_string(dir.path().join(&aside).join("creds.json.found")).unwrap(), "unpaired");
}

#[test]
fn an_entry_that_cannot_move_leaves_the_old_tree_in_place() {
    let dir = memory_backed();
    let key = SessionKey::new("u", "s").unwrap();
    let site = Site::new(dir.path(), &Layout::Single(key.clone()), &key);
    put(dir.path(), OLD);
    let host = Arc::new(Mortal::default());
    let staging = Staging::create(&site, None, Arc::clone(&host) as Arc<dyn Host>).unwrap();
    put(staging.dir().path(), NEW);
    let staged = staging.finish().unwrap();
    let aside = site.set_aside.join("x");
    let mut moves = Moves::default();
    moves.out.push(Move::new(Path::new("creds.json"), &aside.join("creds.json")));
    // Into a directory of itself: the kernel refuses, as it does with a mount.
    moves.out.push(Move::new(Path::new("keys"), Path::new("keys/inside")));
    moves.into.push(Move::new(&staged.path().join("creds.json"), Path::new("creds.json")));
    let disk = Disk::open(dir.path(), host.as_ref()).unwrap();
    let error = move_all(&disk, &site, Some(staged), &aside, moves).unwrap_err();
    assert!(error.to_string().contains("keys"), "{error}");
    let mut found = shape(dir.path());
    found.retain(|path, _| !path.ends_with('/'));
    assert_eq!(found, text(OLD));
    assert!(!site.is_cut_off(host.as_ref()).unwrap());
}

#[test]
fn a_marker_that_cannot_be_read_stops_everything() {
    let dir = memory_backed();
    let key = SessionKey::new("u", "s").unwrap();
    let site = Site::new(dir.path(), &Layout::Many, &key);
    put(dir.path(), &[(site.marker.to_str().unwrap(), "{")]);
    let error = recover(&site, &Mortal::default()).unwrap_err();
    assert!(error.to_string().contains("publish.json"), "{error}");
    assert!(site.is_cut_off(&Mortal::default()).unwrap());
}

#[test]
fn a_session_directory_that_is_an_old_root_of_its_own_is_replaced_whole() {
    let dir = memory_backed();
    let case = Case { layout: Layout::Many, way: Way::Whole, flags: true, old: true };
    case.prepare(dir.path());
    put(&case.site(dir.path()).dir().join(STATE_DIR), &[("lock", "")]);
    let published = case.run(dir.path(), &Arc::new(Mortal::default())).unwrap();
    assert!(published.set_aside.unwrap().join(STATE_DIR).join("lock").exists());
    assert!(!case.site(dir.path()).dir().join(STATE_DIR).exists());
}

#[test]
fn a_publish_below_a_linked_directory_is_refused() {
    let dir = memory_backed();
    let elsewhere = memory_backed();
    put(&elsewhere.path().join("s"), OLD);
    symlink(elsewhere.path(), dir.path().join("u")).unwrap();
    let case = Case { layout: Layout::Many, way: Way::Whole, flags: true, old: false };
    put(dir.path(), &[("lost+found/inode", "kept")]);
    case.run(dir.path(), &Arc::new(Mortal::default())).unwrap_err();
    assert_eq!(shape(&elsewhere.path().join("s")), text(OLD));
}

#[test]
fn names_that_are_no_text_move_with_their_tree() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = memory_backed();
    let key = SessionKey::new("u", "s").unwrap();
    let site = Site::new(dir.path(), &Layout::Single(key.clone()), &key);
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(dir.path().join(odd), "odd").unwrap();
    for step in 0.. {
        let host = Mortal::dying_before(step);
        let done = set_aside(&site, host.as_ref());
        let live = Mortal::default();
        recover(&site, &live).unwrap();
        let kept = fs::read_dir(dir.path().join(&site.set_aside)).into_iter().flatten();
        let kept = kept.filter(|entry| entry.as_ref().unwrap().path().join(odd).exists()).count();
        assert_eq!(kept == 1, !dir.path().join(odd).exists(), "{done:?}");
        if kept == 1 {
            return;
        }
    }
}

#[test]
fn chromium_locks_are_removed_and_nothing_else() {
    let dir = memory_backed();
    let site = Site::new(dir.path(), &Layout::Many, &SessionKey::new("u", "s").unwrap());
    put(&site.dir().join("session/Default"), &[("Cookies", "c")]);
    symlink("host-1234", site.dir().join("session/SingletonLock")).unwrap();
    symlink("/tmp/x/SingletonSocket", site.dir().join("session/SingletonSocket")).unwrap();
    assert_eq!(remove_singletons(&site, &Mortal::default()).unwrap(), 2);
    assert_eq!(shape(&site.dir()), text(&[("session/Default/Cookies", "c")]));
    assert_eq!(remove_singletons(&site, &Mortal::default()).unwrap(), 0);
}

#[test]
fn a_restored_directory_has_the_mode_of_the_one_it_replaces() {
    let dir = memory_backed();
    let case = Case { layout: Layout::Many, way: Way::Whole, flags: true, old: true };
    case.prepare(dir.path());
    let session = case.site(dir.path()).dir();
    fs::set_permissions(&session, fs::Permissions::from_mode(0o750)).unwrap();
    case.run(dir.path(), &Arc::new(Mortal::default())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&session), 0o750);
    assert_eq!(mode(&session.join("keys")), 0o750);
}
