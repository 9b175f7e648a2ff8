//! A bucket on loopback, roots beside it, and the real binary at work on them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use session_sidecar::emulator::{self, BUCKET, Emulator, Options};
use session_sidecar::history::{self, Access, Depth, Id, Keys, Silent, Survey};
use session_sidecar::host::Real;
use session_sidecar::supabase::{Credential, CredentialSource, Endpoint, Settings, Supabase, Timeouts};
use session_sidecar::tree::Content;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::fixtures;

pub const SESSION: &str = "u1/s1";

/// Files by path, with mode and content.
pub type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// A bucket on loopback, and a directory for roots.
pub struct World {
    pub dir: tempfile::TempDir,
    pub supabase: Emulator,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().join("supabase"), ..Options::default() };
        Self { supabase: emulator::start(options).await.unwrap(), dir }
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root with the small tree in it.
    pub fn tree(&self, name: &str) -> PathBuf {
        let root = self.root(name);
        std::fs::create_dir_all(&root).unwrap();
        fixtures::unpack(fixtures::SMALL, &root);
        root
    }

    /// Of a root of many.
    pub fn bare(&self, command: &str, root: &Path) -> Command {
        let mut sidecar = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
        sidecar.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        sidecar.env("SUPABASE_URL", self.supabase.url());
        sidecar.env("SUPABASE_SERVICE_ROLE_KEY", self.supabase.service_role_key());
        sidecar.arg(command).arg("--root").arg(root).stdin(Stdio::null());
        sidecar
    }

    /// The same for a root that is the session.
    pub fn command(&self, command: &str, root: &Path) -> Command {
        let mut sidecar = self.bare(command, root);
        sidecar.args(["--session", SESSION]);
        sidecar
    }

    pub async fn run(&self, command: &str, root: &Path, more: &[&str]) -> Output {
        let mut command = self.command(command, root);
        command.args(more);
        finished(command).await
    }

    pub async fn ok(&self, command: &str, root: &Path, more: &[&str]) -> String {
        let output = self.run(command, root, more).await;
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commits what lies there, without the mirror: it would be waited for.
    pub async fn sync(&self, root: &Path) {
        self.ok("sync", root, &["--mirror", "off"]).await;
    }

    pub async fn json(&self, command: &str, root: &Path) -> Value {
        serde_json::from_str(&self.ok(command, root, &["--json"]).await).unwrap()
    }

    /// What a fresh restore would give, without taking the session over.
    pub async fn head(&self) -> Files {
        self.head_of(SESSION).await
    }

    /// Of any session; nothing before its first commit.
    pub async fn head_of(&self, session: &str) -> Files {
        self.history(session, Survey::head).await
    }

    /// A point of the past.
    pub async fn point(&self, id: &str) -> Files {
        self.history(SESSION, |_| Some(id.parse().unwrap())).await
    }

    /// The bucket, as a client with all rights sees it.
    pub fn store(&self) -> Supabase {
        let now = jiff::Timestamp::now();
        let settings = Settings {
            endpoint: Endpoint::parse(&self.supabase.url()).unwrap(),
            credential: CredentialSource::fixed(
                Credential::parse(self.supabase.service_role_key(), now).unwrap(),
            ),
            bucket: BUCKET.to_owned(),
            ca_file: None,
            timeouts: Timeouts::default(),
            host: Arc::new(Real),
        };
        Supabase::new(settings).unwrap()
    }

    /// Read in memory: thousands of files a look would be made and removed again, which file systems take amiss.
    async fn history(&self, session: &str, which: impl FnOnce(&Survey) -> Option<Id>) -> Files {
        let (store, key) = (self.store(), session.parse().unwrap());
        let survey = history::survey(&store, &key, Depth::All, None).await.unwrap();
        let Some(id) = which(&survey) else { return Files::new() };
        let scratch = tempfile::tempdir_in(self.dir.path()).unwrap();
        let chain =
            history::fetch(Access::new(&store, &Keys::off()), &key, &survey, id, scratch.path(), &Silent)
                .await
                .unwrap();
        let paths = chain.table().files.keys().cloned().collect();
        let contents = chain.read(&paths).unwrap().into_iter();
        let with_mode = |(path, content): (String, Content)| {
            let mode = chain.meta(&path).unwrap().mode;
            (path, (mode, content.bytes().unwrap().to_vec()))
        };
        contents.map(with_mode).collect()
    }

    /// The newest point that is pinned for a reason.
    pub async fn pinned(&self, root: &Path, reason: &str) -> Option<String> {
        let history = self.json("history", root).await;
        let pinned = history["points"].as_array().unwrap().iter().find(|point| point["pins"][0] == reason)?;
        Some(pinned["id"].as_str().unwrap().to_owned())
    }

    /// The session as the bucket shows it to people and other services.
    pub fn mirror(&self) -> BTreeMap<String, Vec<u8>> {
        let creds = self.supabase.object_path(BUCKET, &format!("{SESSION}/creds.json"));
        creds.map(|path| contents(path.parent().unwrap())).unwrap_or_default()
    }

    /// A request as another service would send it.
    pub async fn post(&self, path: &str, body: Vec<u8>) {
        // The first client of a process decides who does its cryptography; another test's may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = self.supabase.service_role_key();
        let request = reqwest::Client::new().post(format!("{}/storage/v1{path}", self.supabase.url()));
        let request = request.bearer_auth(key).header("apikey", key).header("x-upsert", "true");
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
    }

    pub async fn status(&self, root: &Path) -> Value {
        let output = self.run("status", root, &["--json"]).await;
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["sessions"][0].clone()
    }

    pub fn history_uploads(&self) -> usize {
        self.supabase.uploads().iter().filter(|upload| upload.key.ends_with(".tar.zst")).count()
    }
}

/// Runs to the end.
pub async fn finished(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What lies in a root, without the state directory.
pub fn files(root: &Path) -> Files {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".session-sidecar" {
            } else if path.is_dir() {
                dirs.push(path);
            } else {
                match (path.metadata(), std::fs::read(&path)) {
                    (Ok(stat), Ok(bytes)) => {
                        found.insert(name, (stat.permissions().mode() & 0o777, bytes));
                    }
                    // Removed meanwhile: somebody is at work here.
                    (Err(error), _) | (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::NotFound),
                }
            }
        }
    }
    found
}

/// Asks again until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A process that keeps a root; killed when the test ends early.
pub struct Running(pub Child);

impl Running {
    pub async fn start(world: &World, root: &Path, more: &[&str]) -> Self {
        let mut command = world.command("run", root);
        command.args(["--probe-listen", "off"]).args(more);
        let running = Self::spawn(command);
        eventually("the session is ready", async || world.status(root).await["ready"] == true).await;
        running
    }

    pub fn spawn(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub async fn stop(self) -> i32 {
        self.terminate();
        self.ended().await
    }

    pub async fn ended(mut self) -> i32 {
        spawn_blocking(move || self.0.wait().unwrap().code().unwrap()).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Files by path, without modes: what a bucket can hold.
pub fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    files(root).into_iter().map(|(name, (_, bytes))| (name, bytes)).collect()
}

/// The exit code, and one line that says why, which is returned.
pub async fn refused(mut command: Command, wanted: i32) -> String {
    command.env("RUST_LOG", "off");
    let called = format!("{command:?}");
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(wanted), "{called}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.trim().lines().count() == 1, "{stderr}");
    assert!(!stderr.contains("eyJ"), "a key in an error: {stderr}");
    stderr
}
