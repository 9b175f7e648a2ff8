//! P1 to P7 through random lives of a session: bots that write, crashes at every step and call, power cuts,
//! disks that are kept, copied or lost, a second pod, and encryption that is turned on in the middle.
//!
//! All on the store in memory and on paused time: the real start, engine and mirror, below the supervisor. A failure
//! prints its script, made as small as it can be, and its seed. The scripts are always the same ones, so that a change
//! is judged by itself; `SIDECAR_SIMULATION_SEED=NUMBER PROPTEST_CASES=1000 cargo test simulation` plays others, or
//! those of a failure again.

mod bot;
mod crashes;
mod ledger;
mod machine;
mod person;
mod pod;
mod script;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error};
use crate::history::Keys;
use crate::history::testing::pair;
use crate::session::Layout;
use crate::store::Memory;
use crate::sync::engine::{Ended, Order, Parting};
use crate::sync::report::SessionState;
use crate::sync::supervisor::testing::{Clock, Running, key};
use crate::testing::memory_backed;
use bot::{Bot, Scribe, read};
use ledger::{Ledger, tree_at};
use machine::copy;
use pod::{Pod, Site};
use script::{Act, Disk, Script, script};

/// Scripts that are played, unless `PROPTEST_CASES` says another number: some ten seconds.
const CASES: u32 = 96;

/// All there is.
struct World {
    clock: Clock,
    site: Site,
    disks: tempfile::TempDir,
    random: SmallRng,
    /// Of whatever was made so far: disks, pods, boots, lives.
    made: u64,
    pods: [Pod; 2],
    /// Of all recipients so far.
    identities: Vec<String>,
    older: Option<PathBuf>,
    scribe: Scribe,
    ledger: Ledger,
}

impl World {
    fn new(script: &Script) -> Self {
        let clock = Clock::new(SignedDuration::ZERO);
        let disks = memory_backed();
        let pod = |number: u64| {
            let root = disks.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            Pod::new(clock, root, number, 0)
        };
        Self {
            clock,
            site: Site {
                memory: Arc::new(Memory::new(Arc::new(clock))),
                layout: if script.single { Layout::Single(key()) } else { Layout::Many },
                mirror: script.mirror,
                keys: Keys::off(),
            },
            random: SmallRng::seed_from_u64(script.seed),
            made: 2,
            pods: [pod(0), pod(1)],
            disks,
            identities: Vec::new(),
            older: None,
            scribe: Scribe::default(),
            ledger: Ledger::default(),
        }
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    async fn act(&mut self, at: usize, act: &Act) {
        match act {
            Act::Wait(time) => self.pass(*time).await,
            Act::Faults(rate) => self.pods[at].weather.set(*rate),
            Act::Land => {
                for network in self.pods.iter().flat_map(|pod| &pod.networks) {
                    network.land().await.unwrap();
                }
            }
            Act::Kill => self.pods[at].machine.kill(),
            Act::Die(death) => self.pods[at].machine.doom(*death),
            Act::Sync => self.sync(at).await,
            Act::Logout => self.log_out(at).await,
            Act::Stop => self.stop(at).await,
            Act::Encrypt => self.encrypt().await,
            Act::Rewind(back) => self.rewind(at, *back).await,
            Act::Delete => self.delete(at).await,
            Act::Undelete => self.undelete(at).await,
            Act::Restart => self.restart(at),
            Act::Move(disk) => self.replace(at, *disk).await,
            write => self.write(at, write).await,
        }
        self.look().await;
    }

    /// The bot's own doing.
    async fn write(&mut self, at: usize, act: &Act) {
        let scribe = &mut self.scribe;
        let Some(bot) = &mut self.pods[at].bot else { return };
        let name = |n: u8| if n < 4 { format!("session-{n}.json") } else { format!("keys/{n}.json") };
        let touched: Vec<String> = match act {
            Act::Write(n) => vec![bot.write(scribe, &name(*n), json!({}))],
            Act::Remove(n) => bot.remove(scribe, &name(*n)).into_iter().collect(),
            Act::RemoveMost => {
                let paths: Vec<String> = bot.files.keys().filter(|path| !is_member(path)).cloned().collect();
                paths.iter().filter_map(|path| bot.remove(scribe, path)).collect()
            }
            Act::UsePreKey => bot.use_pre_key(scribe).into_iter().collect(),
            Act::Creds => vec![bot.creds(scribe)],
            Act::Pair => bot.pair(scribe),
            Act::Ruin(ruin) => bot.ruin(scribe, *ruin).into_iter().collect(),
            Act::TopUp { announced_first, pause_ms } => {
                let ids = bot.reserve(2);
                let first = if *announced_first {
                    vec![bot.creds(scribe)]
                } else {
                    bot.pre_keys(scribe, ids.clone())
                };
                self.pods[at].touched(first);
                self.pass(Duration::from_millis((*pause_ms).into())).await;
                let scribe = &mut self.scribe;
                // Its sidecar may have died meanwhile; the bot goes on.
                let bot = self.pods[at].bot.as_mut().expect("a bot ends only with its pod");
                if *announced_first { bot.pre_keys(scribe, ids) } else { vec![bot.creds(scribe)] }
            }
            _ => unreachable!("not the bot's"),
        };
        self.pods[at].touched(touched);
    }

    /// Time passes, a little at once: what is acknowledged in between is seen.
    async fn pass(&mut self, time: Duration) {
        let (from, until) = (Instant::now(), Instant::now() + time);
        while Instant::now() < until {
            let step = Duration::from_millis(200).max(from.elapsed() / 4);
            sleep(step.min(until - Instant::now())).await;
            self.look().await;
        }
    }

    /// What can be seen from outside, compared with what was promised.
    async fn look(&mut self) {
        for at in 0..self.pods.len() {
            self.reap(at).await;
            let pod = &mut self.pods[at];
            let Some(running) = &pod.running else { continue };
            let status = running.status.borrow().clone();
            if status.ready && pod.bot.is_none() {
                let bot = Bot::start(pod.dir(&self.site));
                self.ledger.starts(status.epoch.unwrap_or_default(), &self.scribe, &bot);
                pod.bot = Some(bot);
            }
            if let Some(head) = status.head.filter(|_| status.state != SessionState::Taken) {
                self.ledger.acknowledge(&self.site, &self.scribe, head.parse().unwrap()).await;
            }
            self.unmoved(at);
        }
    }

    /// P7: what lies there is what its bot wrote.
    fn unmoved(&self, at: usize) {
        let Some(bot) = &self.pods[at].bot else { return };
        let there = read(&self.pods[at].dir(&self.site));
        for path in there.keys().chain(bot.files.keys()) {
            assert!(there.get(path) == bot.files.get(path), "P7: {path} was changed under a living bot");
        }
    }

    /// A life that ended or died.
    async fn reap(&mut self, at: usize) {
        let Some(running) = &self.pods[at].running else { return };
        let dead = self.pods[at].machine.is_dead();
        if !dead && !running.task.is_finished() {
            return;
        }
        let running = self.pods[at].running.take().expect("checked above");
        let ended = end(running).await;
        if dead {
            return;
        }
        match ended.expect("a life panicked") {
            Ok(Ended::Taken { .. } | Ended::Flushed { .. }) => {}
            Ok(Ended::Abandoned | Ended::GaveWay) => panic!("nobody left it, or asked for it"),
            Err(error) => {
                let codes = [Code::LeaseLost, Code::Conflict, Code::Held, Code::NotFlushed];
                assert!(codes.contains(&error.code()), "{:?}: {error}", error.code());
            }
        }
    }

    async fn sync(&mut self, at: usize) {
        let report = self.ask(at, Order::Sync).await;
        let (Some(report), Some(bot)) = (report, &self.pods[at].bot) else { return };
        if let (Some(commit), true) = (report.commit, report.held.is_empty()) {
            self.ledger.keep(&self.site, commit.parse().unwrap(), bot).await;
        }
    }

    async fn log_out(&mut self, at: usize) {
        if let Some(running) = &self.pods[at].running {
            // It may be stored although no answer ever comes.
            self.ledger.begin_anew(running.status.borrow().epoch);
        }
        self.ask(at, Order::Logout).await;
    }

    /// The answer to an order; none when it failed, or the life ended first.
    async fn ask<T>(
        &self,
        at: usize,
        order: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Order,
    ) -> Option<T> {
        let (reply, mut answer) = oneshot::channel();
        self.pods[at].running.as_ref()?.orders.try_send(order(reply)).ok()?;
        loop {
            match answer.try_recv() {
                Ok(answer) => return answer.ok(),
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) if self.pods[at].machine.is_dead() => return None,
                Err(TryRecvError::Empty) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The pod ends in order: its bot first. Whatever starts on this disk after that is another one.
    async fn stop(&mut self, at: usize) {
        let next = self.next();
        let pod = &mut self.pods[at];
        let bot = pod.bot.take();
        pod.uid = next;
        let Some(running) = &pod.running else { return };
        let deadline = Instant::now() + Duration::from_secs(25);
        if running.orders.try_send(Order::Finish { deadline, parting: Parting::Alone }).is_err() {
            return;
        }
        while Instant::now() < deadline && !running.task.is_finished() && !pod.machine.is_dead() {
            sleep(Duration::from_millis(20)).await;
        }
        let dead = pod.machine.is_dead();
        let head = running.status.borrow().head.clone();
        let running = self.pods[at].running.take().expect("nobody else takes it");
        let flushed = running.task.is_finished();
        let ended = end(running).await;
        if let (true, false, Ok(Ok(Ended::Flushed { held: 0, .. })), Some(head), Some(bot)) =
            (flushed, dead, ended, head, bot)
        {
            let head = head.parse().unwrap();
            self.ledger.acknowledge(&self.site, &self.scribe, head).await;
            self.ledger.keep(&self.site, head, &bot).await;
        }
    }

    /// The sidecar's container starts again.
    fn restart(&mut self, at: usize) {
        let life = self.next();
        let pod = &mut self.pods[at];
        if pod.running.is_some() {
            return;
        }
        pod.machine = pod.machine.revived();
        match pod.start(&self.site, life) {
            Ok(()) => {}
            Err(error) => assert!(pod.machine.is_dead(), "{error}"),
        }
    }

    /// The sidecars die, and come back with another recipient; what was encrypted before opens with the identities of then.
    async fn encrypt(&mut self) {
        let (recipient, identity) = pair();
        self.identities.push(identity);
        self.site.keys = Keys::new([&*recipient], &self.identities.join("\n"), false).unwrap();
        for at in 0..self.pods.len() {
            if self.pods[at].running.is_some() {
                self.pods[at].machine.kill();
                self.reap(at).await;
                self.restart(at);
            }
        }
    }

    /// The pod ends with its bot, at once; a new one starts.
    async fn replace(&mut self, at: usize, disk: Disk) {
        self.pods[at].machine.kill();
        self.reap(at).await;
        self.pods[at].bot = None;
        let number = self.next();
        let root = self.disks.path().join(number.to_string());
        let pod = &mut self.pods[at];
        let old = pod.root.clone();
        match disk {
            Disk::Same => {}
            Disk::None => fs::create_dir(&root).unwrap(),
            Disk::Rebooted => {
                fs::create_dir(&root).unwrap();
                pod.machine.cut_power(&mut self.random, &root);
                self.ledger.torn = true;
            }
            Disk::Older => {
                fs::create_dir(&root).unwrap();
                copy(self.older.as_ref().unwrap_or(&old), &root);
                let kept = self.disks.path().join(format!("{number}-older"));
                fs::create_dir(&kept).unwrap();
                copy(&old, &kept);
                self.older = Some(kept);
            }
        }
        let root = if disk == Disk::Same { old } else { root };
        let boot = if disk == Disk::Rebooted { number } else { pod.boot };
        let networks = std::mem::take(&mut pod.networks);
        let new = Pod { networks, ..Pod::new(self.clock, root, number, boot) };
        self.pods[at] = new;
        self.restart(at);
    }

    /// After all that, a new pod without a disk has what was kept, and can be used.
    async fn end(&mut self) {
        for at in 0..self.pods.len() {
            self.pods[at].machine.kill();
            self.reap(at).await;
        }
        self.act(0, &Act::Land).await;
        self.replace(0, Disk::None).await;
        let deadline = Instant::now() + Duration::from_mins(10);
        while self.pods[0].bot.is_none() {
            assert!(Instant::now() < deadline && self.pods[0].running.is_some(), "the last pod is not ready");
            self.pass(Duration::from_secs(1)).await;
        }
        self.ledger.settle(&self.site).await;
        let bot = self.pods[0].bot.as_mut().expect("waited for");
        let touched = vec![bot.write(&mut self.scribe, "last.json", json!({}))];
        let files = bot.files.clone();
        self.pods[0].touched(touched);
        // What is repaired or removed only by the hour has been by then.
        self.pass(Duration::from_secs(if self.site.mirror || self.site.keys.is_on() { 7300 } else { 60 }))
            .await;
        let status = self.pods[0].running.as_ref().expect("no fault is left").status.borrow().clone();
        let head = tree_at(&self.site, status.head.as_ref().expect("it is ready").parse().unwrap()).await;
        assert!(head == files, "P2: the head is not what lies on the last disk: {status:?}");
        let mirror = self.beside(&key().mirror_prefix());
        if self.site.keys.is_on() {
            assert!(mirror.is_empty(), "a mirror is left beside an encrypted history: {:?}", mirror.keys());
            let names = self.beside(&key().history_prefix());
            let plain: Vec<&String> = names.keys().filter(|name| name.ends_with(".tar.zst")).collect();
            assert!(plain.is_empty(), "plaintext is left in an encrypted history: {plain:?}");
        } else if self.site.mirror {
            for path in mirror.keys().chain(files.keys()) {
                assert!(mirror.get(path) == files.get(path), "the mirror has another {path} than the head");
            }
        }
        self.stop(0).await;
    }

    /// The objects below a prefix.
    fn beside(&self, prefix: &str) -> bot::Files {
        let objects = self.site.memory.objects().into_iter();
        objects
            .filter_map(|(name, body)| Some((name.strip_prefix(prefix)?.to_owned(), body.to_vec())))
            .collect()
    }
}

/// Ends a life, if it has not ended.
async fn end(running: Running) -> Result<Result<Ended, Error>, JoinError> {
    running.task.abort();
    let ended = running.task.await;
    idle().await;
    ended
}

/// Until no worker thread is at it: paused time stands still as long as one is.
async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

fn is_member(path: &str) -> bool {
    path == "creds.json" || path.starts_with("pre-key-")
}

async fn run(script: &Script) {
    let mut world = World::new(script);
    world.restart(0);
    for (other, act) in &script.acts {
        world.act(usize::from(*other), act).await;
    }
    world.end().await;
}

fn play(script: &Script) {
    paused(run(script));
}

/// Runs to the end, on paused time.
fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // One worker: what it does is done in order.
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(future)
}

#[test]
fn the_promises_hold_through_random_lives() {
    let seed = std::env::var("SIDECAR_SIMULATION_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed: u64 = seed.unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { CASES };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..config };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let result = TestRunner::new_with_rng(config, rng).run(&script(), |script| {
        play(&script);
        Ok(())
    });
    if let Err(error) = result {
        panic!("SIDECAR_SIMULATION_SEED={seed}: {error}");
    }
}
