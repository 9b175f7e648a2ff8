//! Starts, probes, restarts and ends the containers of a rendered manifest as kubelet does.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::diary::Diary;
use crate::kubernetes::manifest::{Container, Manifest};
use crate::support::world::{SESSION, World, eventually};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

const BOT: &str = include_str!("bot.py");

/// What makes lives short. All else is as in the manifest.
const QUICK: [(&str, &str); 3] =
    [("SIDECAR_LEASE_TTL", "2s"), ("SIDECAR_QUIET_WINDOW", "50ms"), ("SIDECAR_MIRROR", "off")];

/// A pod on a node.
pub struct Pod<'a> {
    world: &'a World,
    manifest: &'a Manifest,
    diary: &'a Diary,
    uid: String,
    ip: Ipv4Addr,
    dir: PathBuf,
    more: Vec<(&'a str, &'a str)>,
    running: BTreeMap<String, Child>,
    /// With which codes containers ended that had to be started again.
    pub codes: Vec<i32>,
}

impl<'a> Pod<'a> {
    /// A new one, with volumes of its own, which are empty.
    pub fn new(world: &'a World, manifest: &'a Manifest, diary: &'a Diary) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(2);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Each pod has an address of its own, as on a node: others may use the ports of 127.0.0.1.
        let [low, high, ..] = std::process::id().to_le_bytes();
        let ip = Ipv4Addr::new(127, low, high, number);
        let uid = format!("pod-{number}");
        let dir = world.root(&uid);
        for volume in manifest.pod()["volumes"].as_array().unwrap() {
            let path = dir.join(volume["name"].as_str().unwrap());
            std::fs::create_dir_all(&path).unwrap();
            if volume["secret"]["secretName"] == "supabase" {
                std::fs::write(path.join("service-role-key"), world.supabase.service_role_key()).unwrap();
            }
        }
        Self {
            world,
            manifest,
            diary,
            uid,
            ip,
            dir,
            more: Vec::new(),
            running: BTreeMap::new(),
            codes: Vec::new(),
        }
    }

    /// One more variable for our containers.
    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.more.push((name, value));
        self
    }

    /// Init containers in their order, native sidecars among them until their startup probe passes; then the others, all at
    /// once.
    pub async fn start(&mut self) {
        for container in self.manifest.inits() {
            if container.is_native_sidecar() {
                self.up(container).await;
            } else {
                self.run_until_it_ends_well(container).await;
            }
        }
        for container in self.manifest.mains() {
            self.spawn(container);
        }
    }

    /// A container after a crash: by itself.
    pub async fn restart(&mut self, name: &str) {
        let container = self.container(name);
        if container.is_native_sidecar() {
            self.up(container).await;
        } else {
            self.spawn(container);
        }
    }

    /// A process gone from one moment to the next; a bot not in the middle of a write, which is another story.
    pub fn kill(&mut self, name: &str) {
        let lock = File::options().create(true).append(true).open(self.lock()).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The node is gone, with all that ran there and its disk.
    pub fn lose_node(mut self) {
        for child in self.running.values_mut() {
            child.kill().unwrap();
        }
        for child in self.running.values_mut() {
            child.wait().unwrap();
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    pub fn signal(&self, name: &str, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.running[name].id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM to the containers, then to native sidecars, last one first; SIGKILL at the end of the pod's grace. All of them
    /// must end well, by themselves.
    pub async fn terminate(mut self) {
        let deadline = Instant::now() + Duration::from_secs(self.manifest.grace());
        let mains: Vec<String> = self.manifest.mains().iter().map(|it| it.name().to_owned()).collect();
        self.end(&mains, deadline).await;
        let inits = self.manifest.inits();
        for sidecar in inits.iter().rev().filter(|it| it.is_native_sidecar()) {
            self.end(&[sidecar.name().to_owned()], deadline).await;
        }
        assert!(self.running.is_empty());
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    async fn end(&mut self, names: &[String], deadline: Instant) {
        for name in names {
            self.signal(name, Signal::TERM);
        }
        for name in names {
            let mut child = self.running.remove(name).unwrap();
            while child.try_wait().unwrap().is_none() {
                if Instant::now() > deadline {
                    child.kill().unwrap();
                }
                sleep(LOOK).await;
            }
            let status = child.wait().unwrap();
            assert!(status.success(), "{name} ended with {status}: {}", self.said(name));
        }
    }

    /// Whether a container's livenessProbe passes.
    pub async fn is_alive(&self, name: &str) -> bool {
        self.answers(&self.container(name).spec["livenessProbe"]).await
    }

    /// Waits until one has ended by itself.
    pub async fn ended(&mut self, name: &str) -> i32 {
        let mut child = self.running.remove(name).unwrap();
        let mut status: Option<ExitStatus> = None;
        eventually(&format!("{name} ends"), async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code().unwrap()
    }

    fn container(&self, name: &str) -> Container<'a> {
        let all = self.manifest.every_container();
        all.into_iter().find(|it| it.name() == name).unwrap()
    }

    /// A native sidecar, started again as often as it ends, until its startup probe passes.
    async fn up(&mut self, container: Container<'a>) {
        self.spawn(container);
        let probe = &container.spec["startupProbe"];
        let seconds = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
        let deadline = Instant::now() + Duration::from_secs(seconds.min(60));
        while !self.answers(probe).await {
            assert!(Instant::now() < deadline, "not up: {}", self.said(container.name()));
            let child = self.running.get_mut(container.name()).unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                self.codes.push(status.code().unwrap());
                self.spawn(container);
            }
            sleep(LOOK).await;
        }
    }

    /// An init container, started again until it ends well.
    async fn run_until_it_ends_well(&mut self, container: Container<'a>) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            self.spawn(container);
            let code = self.ended(container.name()).await;
            if code == 0 {
                return;
            }
            self.codes.push(code);
            assert!(Instant::now() < deadline, "{}", self.said(container.name()));
        }
    }

    async fn answers(&self, probe: &serde_json::Value) -> bool {
        // The first client of a process decides who does its cryptography; another test's may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let get = &probe["httpGet"];
        let url = format!("http://{}:{}{}", self.ip, get["port"], get["path"].as_str().unwrap());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
        client.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }

    /// Where a volume is on this machine.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("bot.lock")
    }

    /// A path in a container, where it is on this machine.
    fn here(&self, container: Container<'_>, text: &str) -> String {
        let mounts = container.mounts().into_iter();
        let below = mounts.filter(|(mount, _)| Path::new(text).starts_with(mount));
        below
            .map(|(mount, volume)| text.replacen(mount, self.dir.join(volume).to_str().unwrap(), 1))
            .next()
            .unwrap_or_else(|| text.to_owned())
    }

    fn spawn(&mut self, container: Container<'a>) {
        let mut command = if container.is_ours() { self.ours(container) } else { self.bot(container) };
        let log = OpenOptions::new().create(true).append(true).open(self.log(container.name())).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let before = self.running.insert(container.name().to_owned(), command.spawn().unwrap());
        if let Some(mut before) = before {
            assert!(before.try_wait().unwrap().is_some(), "two of one container");
        }
    }

    /// The real command: of the manifest only paths, addresses and the project are others.
    fn ours(&self, container: Container<'_>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.args(container.args().iter().map(|arg| self.here(container, arg)));
        for (name, value) in container.env() {
            // The only field of the pod that manifests name is its uid.
            command.env(name, value.map_or_else(|| self.uid.clone(), |value| self.here(container, &value)));
        }
        command.envs(QUICK).envs(self.more.iter().copied());
        command.env("SUPABASE_URL", self.world.supabase.url());
        command.env("SIDECAR_LISTEN", format!("{}:3080", self.ip));
        command.env("SIDECAR_PROBE_LISTEN", format!("{}:3081", self.ip));
        command
    }

    /// The image of somebody's bot, which keeps its session in the volume.
    fn bot(&self, container: Container<'_>) -> Command {
        let (mount, _) = container.mounts().into_iter().find(|(_, volume)| *volume == "sessions").unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", BOT, &self.here(container, &format!("{mount}/{SESSION}"))]);
        command.arg(self.diary.path()).arg(self.lock());
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The end of what a container said.
    fn said(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
