use std::fs as std_fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use super::*;
use crate::host::Real;

fn open(root: &Path) -> Result<RootDir> {
    RootDir::open(root, Arc::new(Real))
}

/// Opens a root whose lock was just given up. Between `fork` and `exec` a child that another test starts has a copy
/// of every descriptor of this process, also of those that are closed on `exec`.
fn reopen(root: &Path) -> RootDir {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match open(root) {
            Ok(root) => return root,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn mode(path: &Path) -> u32 {
    std_fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_missing_root_is_made_with_a_private_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let made = open(&root).unwrap();
    assert_eq!(mode(&root.join(STATE_DIR)), 0o700);
    assert_eq!(mode(&root.join(".session-sidecar/fence")), 0o700);
    assert!(made.is_intact());
    assert!(made.recovered().is_empty());
}

#[test]
fn a_state_directory_that_others_could_read_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(STATE_DIR);
    std_fs::create_dir(&state).unwrap();
    std_fs::set_permissions(&state, std_fs::Permissions::from_mode(0o2777)).unwrap();
    open(dir.path()).unwrap();
    assert_eq!(mode(&state), 0o2700);
}

#[test]
fn a_root_that_is_no_directory_is_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std_fs::write(&file, "").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
    for (root, text) in [(file.clone(), "is a file"), (file.join("below"), "file"), (link, "dangling link")] {
        let error = open(&root).unwrap_err();
        assert_eq!(error.code(), Code::BadRoot, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    std::os::unix::fs::symlink(dir.path(), dir.path().join(STATE_DIR)).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
}

#[test]
fn a_root_that_cannot_be_written_is_refused_clearly() {
    // `/proc` takes no directories, from nobody.
    let error = open(Path::new("/proc/self")).unwrap_err();
    assert!(error.to_string().contains("must be writable"), "{error}");
}

#[test]
fn a_root_has_one_owner_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::RootLocked, "{error}");
    drop(first);
    reopen(dir.path());
}

/// One test: while the first child inherits, any other child of this process would as well.
#[test]
fn a_child_keeps_the_root_if_it_inherited_the_lock_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let child = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let end = |mut child: std::process::Child| {
        drop(child.stdin.take());
        child.wait().unwrap();
    };

    let root = open(dir.path()).unwrap();
    let without = child();
    drop(root);
    let root = reopen(dir.path());
    end(without);

    let lock = root.lock_for_child().unwrap();
    let with = child();
    drop((lock, root));
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::RootLocked, "{error}");
    end(with);
    reopen(dir.path());
}

#[test]
fn the_root_that_a_directory_lies_in_is_found_by_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("u/s");
    std_fs::create_dir_all(&session).unwrap();
    assert_eq!(locked_above(&session, None).unwrap(), None);
    let outer = open(dir.path()).unwrap();
    assert_eq!(locked_above(&session, None).unwrap().as_deref(), Some(dir.path()));
    assert_eq!(locked_above(&session, Some(dir.path())).unwrap(), None, "our own");
    let inner = open(&session).unwrap();
    assert_eq!(locked_above(&session, Some(dir.path())).unwrap(), Some(session.clone()));
    drop((outer, inner));
}

#[test]
fn a_state_directory_that_a_bot_removed_is_made_again_with_a_new_lock() {
    let dir = tempfile::tempdir().unwrap();
    let root = open(dir.path()).unwrap();
    let before = root.place(None).unwrap();
    std_fs::remove_dir_all(dir.path().join(STATE_DIR)).unwrap();
    assert!(!root.is_intact());
    root.remake().unwrap();
    assert!(root.is_intact());
    assert_eq!(open(dir.path()).unwrap_err().code(), Code::RootLocked);
    assert_eq!(before.boot_id, root.place(None).unwrap().boot_id);

    std_fs::remove_dir_all(dir.path().join(".session-sidecar/fence")).unwrap();
    assert!(!root.is_intact());
    root.remake().unwrap();
    assert!(root.is_intact());

    std_fs::remove_dir_all(dir.path()).unwrap();
    root.remake().unwrap();
    assert!(root.is_intact(), "the root itself is made again as well");
}

#[test]
fn another_process_that_was_faster_keeps_a_removed_root() {
    let dir = tempfile::tempdir().unwrap();
    let slow = open(dir.path()).unwrap();
    std_fs::remove_dir_all(dir.path().join(STATE_DIR)).unwrap();
    let _fast = open(dir.path()).unwrap();
    assert_eq!(slow.remake().unwrap_err().code(), Code::RootLocked);
}

#[test]
fn a_copied_root_is_another_place() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let place = open(&one).unwrap().place(Some("pod".into())).unwrap();
    assert_eq!(place, reopen(&one).place(Some("pod".into())).unwrap());
    assert_ne!(place, open(&other).unwrap().place(Some("pod".into())).unwrap());
    assert_eq!(place.boot_id.len(), 36);
    std_fs::rename(&one, dir.path().join("moved")).unwrap();
    assert_eq!(place, reopen(&dir.path().join("moved")).place(Some("pod".into())).unwrap());
}

#[test]
fn the_control_socket_works_however_long_the_path_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("long".repeat(60)).join("er".repeat(100));
    assert!(root.as_os_str().len() > 400);
    assert_eq!(ControlAddress::of(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
    let _open = open(&root).unwrap();
    let address = ControlAddress::of(&root).unwrap();
    let _listener = UnixListener::bind(address.path()).unwrap();
    assert!(root.join(".session-sidecar/control.sock").exists());
    UnixStream::connect(ControlAddress::of(&root).unwrap().path()).unwrap();
}

#[test]
fn a_start_removes_what_a_crash_left_in_staging_and_fences() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(STATE_DIR);
    std_fs::create_dir_all(state.join("staging/one/deep")).unwrap();
    std_fs::write(state.join("staging/two"), "").unwrap();
    std_fs::create_dir_all(state.join("fence")).unwrap();
    std_fs::write(state.join("fence/three"), "").unwrap();
    open(dir.path()).unwrap();
    assert_eq!(std_fs::read_dir(state.join("staging")).unwrap().count(), 0);
    assert_eq!(std_fs::read_dir(state.join("fence")).unwrap().count(), 0);
}

#[derive(Debug)]
struct At(&'static str);

impl Host for At {
    fn now(&self) -> Timestamp {
        self.0.parse().unwrap()
    }
}

#[test]
fn what_was_set_aside_is_kept_for_seven_days_and_ten_times() {
    let dir = tempfile::tempdir().unwrap();
    let aside = dir.path().join(".session-sidecar/set-aside/u/s");
    let make = |name: &str| {
        std_fs::create_dir_all(aside.join(name)).unwrap();
        std_fs::write(aside.join(name).join("creds.json"), "").unwrap();
    };
    make("20261101T000000Z-0");
    make("20261103T000001Z-0");
    make("20261109T000000Z-2");
    make("20261109T000000Z-10");
    make("kept by hand");
    std_fs::create_dir_all(aside.join("20261109T120000Z-0")).unwrap();
    let root = RootDir::open(dir.path(), Arc::new(At("2026-11-10T00:00:00Z"))).unwrap();
    let names = || {
        let mut names: Vec<_> = std_fs::read_dir(&aside).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(),
        ["20261103T000001Z-0", "20261109T000000Z-10", "20261109T000000Z-2", "kept by hand"],
        "the old and the empty are gone"
    );
    for n in 0..9 {
        make(&format!("20261109T10000{n}Z-0"));
    }
    root.prune();
    assert_eq!(names().len(), 11);
    assert!(!aside.join("20261103T000001Z-0").exists() && !aside.join("20261109T000000Z-2").exists());
    assert!(aside.join("20261109T000000Z-10").exists(), "`n` is a number, not a text");
}

#[test]
fn a_publish_that_was_cut_off_is_recovered_before_staging_is_cleaned() {
    use crate::tree::staging::Staging;

    #[derive(Debug)]
    struct Dying(std::sync::atomic::AtomicBool);
    impl Host for Dying {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn step(&self, step: Step) -> io::Result<()> {
            use std::sync::atomic::Ordering::SeqCst;
            let dies = self.0.load(SeqCst) || step.0 == "publish: set the old tree aside";
            self.0.store(dies, SeqCst);
            if dies { Err(io::Error::other("dead")) } else { Ok(()) }
        }
        fn synced(&self, _: &Path) {}
    }

    let dir = tempfile::tempdir().unwrap();
    let key = SessionKey::new("u", "s").unwrap();
    let host: Arc<dyn Host> = Arc::new(Dying(false.into()));
    {
        let root = RootDir::open(dir.path(), Arc::clone(&host)).unwrap();
        let site = root.site(&Layout::User("u".into()), &key);
        std_fs::create_dir(site.dir()).unwrap();
        std_fs::write(site.dir().join("creds.json"), "old").unwrap();
        let staging = Staging::create(&site, None, Arc::clone(&host)).unwrap();
        std_fs::write(staging.dir().path().join("creds.json"), "new").unwrap();
        publish::publish(&site, staging.finish().unwrap(), host.as_ref()).unwrap_err();
    }
    let root = reopen(dir.path());
    assert_eq!(root.recovered(), [(key, Recovered::Finished)]);
    assert_eq!(std_fs::read_to_string(dir.path().join("s/creds.json")).unwrap(), "new");
    let kept = dir.path().join(".session-sidecar/set-aside/u/s");
    // By the clock of the life that died it is of 1970, so it is pruned at once; but not before it was set aside.
    assert_eq!(std_fs::read_dir(kept).unwrap().count(), 0);
}
