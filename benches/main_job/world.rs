//! An emulator, the release binary against it, and what that costs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use session_sidecar::emulator::{self, Emulator, Faults, Options};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::report::Cost;

/// How often a process is looked at: what it uses after the last look is not seen.
const LOOK: Duration = Duration::from_millis(2);
/// The unit of processor time in `/proc`: the kernel's `USER_HZ` is 100 wherever Linux runs today.
const TICK: Duration = Duration::from_millis(10);
/// Longer than any job takes.
const STUCK: Duration = Duration::from_mins(10);

/// The root is this session.
const ONE: [&str; 2] = ["--session", "u1/s1"];

/// What is measured: another binary, such as that of an image, where `SIDECAR_BENCH_BINARY` names one.
pub fn binary() -> PathBuf {
    std::env::var_os("SIDECAR_BENCH_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_session-sidecar").into(), PathBuf::from)
}

/// A bucket on loopback, whose answers take a latency longer, and a directory for roots.
pub struct World {
    dir: PathBuf,
    pub supabase: Emulator,
}

/// Counters at the start of a job.
pub struct Since {
    requests: u64,
    traffic: (u64, u64),
    began: Instant,
}

impl World {
    pub async fn new(dir: &Path, latency: Duration) -> io::Result<Self> {
        let faults = Faults { latency, ..Faults::default() };
        let options = Options { dir: dir.join("supabase"), faults, ..Options::default() };
        Ok(Self { supabase: emulator::start(options).await?, dir: dir.to_path_buf() })
    }

    pub fn root(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn since(&self) -> Since {
        Since { requests: self.requests(), traffic: self.supabase.traffic(), began: Instant::now() }
    }

    fn requests(&self) -> u64 {
        self.supabase.requests().values().sum()
    }

    /// What storage saw since.
    pub fn cost(&self, since: &Since) -> Cost {
        let (up, down) = self.supabase.traffic();
        Cost {
            wall: since.began.elapsed(),
            requests: self.requests() - since.requests,
            up: up - since.traffic.0,
            down: down - since.traffic.1,
            ..Cost::default()
        }
    }

    /// A command to its end.
    pub async fn once(&self, command: &str, root: &Path, more: &[&str]) -> io::Result<Cost> {
        let since = self.since();
        let mut child = self.command(command, root, more).args(ONE).env("RUST_LOG", "error").spawn()?;
        let (mut ticks, mut usage) = (interval(LOOK), None);
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                _ = ticks.tick() => usage = child.id().and_then(Usage::of).or(usage),
            }
        };
        let cost = self.cost(&since);
        succeeded(command, status)?;
        Ok(Cost { cpu: usage.map(|usage| usage.cpu), peak: usage.map(|usage| usage.peak), ..cost })
    }

    /// `run`, until it is ready.
    pub async fn run(&self, root: &Path, more: &[&str]) -> io::Result<(Sidecar, Cost)> {
        let since = self.since();
        let mut sidecar = Self::start(self.command("run", root, more).args(ONE))?;
        sidecar.says("ready").await?;
        let cost = sidecar.cost(self, &since, Usage::default());
        Ok((sidecar, cost))
    }

    /// The same for a root of many: until this many sessions are ready.
    pub async fn run_many(&self, root: &Path, sessions: usize, more: &[&str]) -> io::Result<(Sidecar, Cost)> {
        let since = self.since();
        let mut sidecar = Self::start(&mut self.command("run", root, more))?;
        for _ in 0..sessions {
            sidecar.says("ready").await?;
        }
        let cost = sidecar.cost(self, &since, Usage::default());
        Ok((sidecar, cost))
    }

    fn start(command: &mut Command) -> io::Result<Sidecar> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Sidecar { child, log: BufReader::new(stderr).lines() })
    }

    /// Waits until storage has taken this many objects below a prefix.
    pub async fn has_taken(&self, objects: usize, prefix: &str) -> io::Result<()> {
        let count = || self.supabase.uploads().iter().filter(|upload| upload.key.starts_with(prefix)).count();
        let taken = async {
            while count() < objects {
                sleep(Duration::from_millis(20)).await;
            }
        };
        Ok(timeout(STUCK, taken).await?)
    }

    fn command(&self, command: &str, root: &Path, more: &[&str]) -> Command {
        let mut sidecar = Command::new(binary());
        sidecar.env_clear().env("SUPABASE_URL", self.supabase.url());
        sidecar.env("SUPABASE_SERVICE_ROLE_KEY", self.supabase.service_role_key());
        sidecar.env("SIDECAR_LOG_FORMAT", "json");
        sidecar.arg(command).arg("--root").arg(root).args(more);
        sidecar.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        sidecar
    }
}

/// A process that keeps a root.
pub struct Sidecar {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Sidecar {
    /// Waits for a line of its log.
    pub async fn says(&mut self, message: &str) -> io::Result<()> {
        let wanted = format!("\"message\":\"{message}\"");
        let found = async {
            while let Some(line) = self.log.next_line().await? {
                if line.contains(&wanted) {
                    return Ok(());
                }
            }
            Err(io::Error::other(format!("ended before it said `{message}`")))
        };
        timeout(STUCK, found).await?
    }

    pub fn usage(&self) -> Usage {
        self.child.id().and_then(Usage::of).unwrap_or_default()
    }

    /// What storage saw and the process used since.
    pub fn cost(&self, world: &World, since: &Since, before: Usage) -> Cost {
        let usage = self.usage();
        Cost { cpu: Some(usage.cpu.saturating_sub(before.cpu)), peak: Some(usage.peak), ..world.cost(since) }
    }

    /// The last flush, and the end.
    pub async fn stop(mut self) -> io::Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(pid.ok_or(io::ErrorKind::NotFound)?, Signal::TERM)?;
        succeeded("run", self.child.wait().await?)
    }
}

fn succeeded(command: &str, status: ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command}: {status}"))) }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    peak: u64,
    /// What is resident now, in KiB.
    pub resident: u64,
}

impl Usage {
    /// None when it has ended.
    fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_suffix("kB")?.trim().parse().ok()
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold blanks; `utime` and `stime` are the 12th and 13th field after it.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()? + ticks()?;
        Some(Self { cpu: TICK * u32::try_from(ticks).ok()?, peak: kib("VmHWM:")?, resident: kib("VmRSS:")? })
    }
}
