//! Disks that are full, read-only, shared with others, or closed to us.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::world::{Running, World, eventually, files, finished, refused};

const NOBODY: u32 = 65534;

/// A small disk of our own; it goes with the value.
struct Disk(PathBuf);

impl Disk {
    /// None where this may not be done: the test says that it was skipped.
    fn mount(world: &World, name: &str, size: &str) -> Option<Self> {
        let at = world.root(name);
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED: a tmpfs cannot be mounted here; run as root");
        None
    }

    fn make_read_only(&self) {
        assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap().success());
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        assert!(std::fs::write(self.filler(), vec![0; 64 << 20]).is_err(), "the disk is small");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process of a test that failed may still be in there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The same as a user without rights; who is one already runs it as it is.
fn as_nobody(world: &World, command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    let id = NOBODY.to_string();
    other.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
    if rustix::process::geteuid().is_root() {
        // The clone may lie where nobody else can look.
        let binary = world.root("session-sidecar");
        if !binary.exists() {
            std::fs::copy(command.get_program(), &binary).unwrap();
            std::fs::set_permissions(world.dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        }
        other.arg(binary);
    } else {
        other = Command::new(command.get_program());
    }
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    other.args(command.get_args()).env_clear().envs(set);
    other
}

fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_finds_no_room_changes_nothing() {
    let world = World::new().await;
    let Some(disk) = Disk::mount(&world, "small", "size=3m") else { return };
    let root = disk.0.join("root");
    let large = world.root("large");
    std::fs::create_dir(&large).unwrap();
    std::fs::write(large.join("a.json"), "1").unwrap();
    world.sync(&large).await;
    world.ok("restore", &root, &[]).await;
    let before = files(&root);
    // History goes on elsewhere, to a tree that needs more blocks than there are.
    world.ok("restore", &large, &[]).await;
    crate::fixtures::unpack(crate::fixtures::SMALL, &large);
    world.sync(&large).await;
    let why = refused(world.command("restore", &root), 2).await;
    assert!(why.contains("No space left"), "{why}");
    assert!(files(&root) == before);
    assert!(world.head().await == files(&large));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_lost_and_all_is_committed_once_there_is_room() {
    let world = World::new().await;
    let Some(disk) = Disk::mount(&world, "small", "size=16m") else { return };
    let root = disk.0.join("root");
    std::fs::create_dir(&root).unwrap();
    crate::fixtures::unpack(crate::fixtures::SMALL, &root);
    let good = std::fs::read(root.join("creds.json")).unwrap();
    let running = Running::start(&world, &root, &[]).await;
    let head = world.head().await;
    let edited = head.keys().find(|name| name.starts_with("session-")).unwrap();

    disk.fill();
    std::fs::write(root.join(edited), "{}").unwrap();
    let why = refused(world.command("sync", &root), 2).await;
    assert!(why.contains("No space left"), "{why}");
    eventually("an alarm says so", async || {
        world.status(&root).await["alarms"].to_string().contains("No space left")
    })
    .await;
    assert!(world.head().await == head);
    // A bot empties the file before it finds that nothing fits. The block that this frees may be enough for us.
    std::fs::write(root.join("creds.json"), "").unwrap();
    eventually("it is held", async || world.status(&root).await["state"] == "held").await;
    assert!(world.head().await["creds.json"].1 == good);

    std::fs::remove_file(disk.filler()).unwrap();
    std::fs::write(root.join("creds.json"), good).unwrap();
    eventually("all is kept", async || world.head().await == files(&root)).await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_cannot_be_written_is_one_line_and_exit_2() {
    let world = World::new().await;
    let file = world.root("file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("root");
    for root in [&file, &below] {
        for command in ["restore", "run", "sync"] {
            refused(world.command(command, root), 2).await;
        }
    }
    let closed = world.tree("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let tree = files(&closed);
    for command in ["restore", "run", "sync"] {
        refused(as_nobody(&world, &world.command(command, &closed)), 2).await;
    }
    assert!(files(&closed) == tree);

    let Some(disk) = Disk::mount(&world, "small", "size=16m") else { return };
    crate::fixtures::unpack(crate::fixtures::SMALL, &disk.0);
    world.sync(&disk.0).await;
    disk.make_read_only();
    for command in ["restore", "run", "sync"] {
        let why = refused(world.command(command, &disk.0), 2).await;
        assert!(why.contains("Read-only file system"), "{why}");
    }
    assert!(files(&disk.0) == tree && world.head().await == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_keeps_its_lost_and_found() {
    let world = World::new().await;
    let tree = world.tree("tree");
    world.sync(&tree).await;
    let root = world.root("root");
    let lost = root.join("lost+found");
    std::fs::create_dir_all(&lost).unwrap();
    give_away(&root);
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o000)).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&lost);
    for command in ["restore", "sync"] {
        let output = finished(as_nobody(&world, &world.command(command, &root))).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(inode(&lost), before);
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(files(&root) == files(&tree) && world.head().await == files(&tree));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creds_json_that_may_not_be_read_is_held_and_healed_at_a_start() {
    let world = World::new().await;
    let source = world.tree("source");
    world.sync(&source).await;
    let tree = files(&source);
    let root = world.root("root");
    std::fs::create_dir(&root).unwrap();
    give_away(&root);
    let mut run = as_nobody(&world, &world.command("run", &root));
    run.args(["--probe-listen", "off"]);
    let running = Running::spawn(run);
    eventually("it is ready", async || world.status(&root).await["ready"] == true).await;
    let close = || std::fs::set_permissions(root.join("creds.json"), std::fs::Permissions::from_mode(0o000));
    close().unwrap();
    eventually("it is held", async || world.status(&root).await["state"] == "held").await;
    assert_eq!(world.run("sync", &root, &[]).await.status.code(), Some(3));
    assert!(world.head().await == tree);
    assert_eq!(running.stop().await, 3);
    let healed = finished(as_nobody(&world, &world.command("restore", &root))).await;
    assert!(healed.status.success(), "{}", String::from_utf8_lossy(&healed.stderr));
    assert!(files(&root) == tree && world.head().await == tree);
}
