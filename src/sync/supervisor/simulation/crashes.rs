//! Rewinds and deletions that die at every step on the disk and every call to the store: each happened or did not, and
//! asked for again it happens.

use std::sync::Arc;
use std::time::Duration;

use super::bot::Files;
use super::machine::Death;
use super::script::{Act, Disk, Script};
use super::{World, idle, paused};
use crate::error::Error;
use crate::history::{Depth, Id, Survey, survey};
use crate::sync::deletion;
use crate::sync::env::Env;
use crate::sync::mark;
use crate::sync::points::Wanted;
use crate::sync::supervisor::testing::key;

/// An upload that dies late may have landed before anybody looks, or later, or never.
const DEATHS: [fn(u32) -> Death; 3] = [Death::Step, Death::Before, Death::Late];

/// A session with two points in its history, and nobody at work on it.
struct Stage {
    world: World,
    old: (Id, Files),
    new: (Id, Files),
}

impl Stage {
    async fn new(single: bool) -> Self {
        let mut world = World::new(&Script { seed: 1, single, mirror: true, acts: Vec::new() });
        world.act(0, &Act::Restart).await;
        let old = Self::write(&mut world, &[Act::Pair, Act::Write(1), Act::Write(5)]).await;
        let new = Self::write(&mut world, &[Act::Write(2), Act::Remove(5), Act::Creds]).await;
        world.act(0, &Act::Wait(Duration::from_mins(1))).await;
        world.act(0, &Act::Stop).await;
        Self { world, old, new }
    }

    async fn write(world: &mut World, acts: &[Act]) -> (Id, Files) {
        world.act(0, &Act::Wait(Duration::from_secs(10))).await;
        for act in acts.iter().chain(&[Act::Wait(Duration::from_secs(40)), Act::Sync]) {
            world.act(0, act).await;
        }
        let pod = &world.pods[0];
        let head = pod.running.as_ref().unwrap().status.borrow().head.clone().unwrap();
        (head.parse().unwrap(), pod.bot.as_ref().unwrap().files.clone())
    }

    /// What a person's command came to; none: it died.
    async fn command<T>(
        &mut self,
        death: Option<Death>,
        work: impl AsyncFnOnce(&Arc<Env>) -> Result<T, Error>,
    ) -> Option<T> {
        let life = self.world.next();
        let World { pods: [pod, _], site, ledger, .. } = &mut self.world;
        ledger.begin_anew(None);
        pod.machine = pod.machine.revived();
        if let Some(death) = death {
            pod.machine.doom(death);
        }
        let machine = Arc::clone(&pod.machine);
        let dead = async {
            while !machine.is_dead() {
                idle().await;
            }
        };
        let done = match pod.env(site, life) {
            Ok(env) => tokio::select! {
                done = work(&env) => Some(done),
                () = dead => None,
            },
            Err(error) => Some(Err(error)),
        };
        idle().await;
        match done {
            Some(Ok(done)) => Some(done),
            Some(Err(error)) => {
                assert!(machine.is_dead(), "{error}");
                None
            }
            None => None,
        }
    }

    async fn survey(&self) -> Survey {
        survey(&*self.world.site.memory, &key(), Depth::All, None).await.unwrap()
    }

    /// Whether the command's commit is there: nothing else was written since the last point.
    async fn is_stored(&self) -> bool {
        self.survey().await.head() > Some(self.new.0)
    }

    /// The tree that the next start gives its bot, on this disk, on what a power cut left of it, or on none.
    async fn restored(&mut self, number: u32) -> Files {
        match number % 3 {
            0 => self.world.act(0, &Act::Restart).await,
            1 => self.world.act(0, &Act::Move(Disk::Rebooted)).await,
            _ => self.world.act(0, &Act::Move(Disk::None)).await,
        }
        self.world.act(0, &Act::Wait(Duration::from_secs(30))).await;
        let files = self.world.pods[0].bot.as_ref().expect("it is ready").files.clone();
        self.world.act(0, &Act::Stop).await;
        files
    }
}

#[test]
fn a_rewind_that_dies_anywhere_is_restored_if_its_commit_was_stored() {
    let mut stored = [0, 0];
    for death in DEATHS {
        for number in 1.. {
            let died = paused(async {
                let mut stage = Stage::new(number % 2 == 0).await;
                let (target, old) = stage.old.clone();
                let rewind = async |env: &Arc<Env>| mark::rewind(env, &key(), Wanted::Id(target)).await;
                let died = stage.command(Some(death(number)), rewind).await.is_none();
                if number % 4 > 1 {
                    stage.world.act(0, &Act::Land).await;
                }
                let is_stored = stage.is_stored().await;
                let wanted = if is_stored { &old } else { &stage.new.1.clone() };
                assert!(stage.restored(number).await == *wanted, "{:?}, stored: {is_stored}", death(number));
                if let Death::Late(_) = death(number) {
                    // What lands now is cut off.
                    stage.world.act(0, &Act::Land).await;
                    assert!(stage.restored(number).await == *wanted, "{:?}, later", death(number));
                }
                assert!(died || is_stored);
                stored[usize::from(is_stored)] += 1;
                died
            });
            if !died {
                break;
            }
        }
    }
    assert!(stored.iter().all(|count| *count > 2), "deaths on both sides of the commit: {stored:?}");
}

#[test]
fn a_deletion_that_dies_anywhere_is_whole_when_it_is_asked_for_again_and_can_be_undone() {
    let delete = async |env: &Arc<Env>| deletion::delete(env, &key(), false).await;
    let undelete = async |env: &Arc<Env>| deletion::undelete(env, &key()).await;
    let mut stored = [0, 0];
    for death in DEATHS {
        for number in 1.. {
            let died = paused(async {
                let mut stage = Stage::new(number % 2 == 0).await;
                let died = stage.command(Some(death(number)), delete).await.is_none();
                let is_stored = stage.is_stored().await;
                let looks_between = number % 4 > 1;
                if looks_between {
                    let wanted = if is_stored { Files::new() } else { stage.new.1.clone() };
                    assert!(stage.restored(number).await == wanted, "{:?}: {is_stored}", death(number));
                }
                stage.world.act(0, &Act::Land).await;
                stage.command(None, delete).await.unwrap();
                let list = stage.survey().await;
                let head = list.head().unwrap();
                let mut kept: Vec<Id> =
                    list.pins.iter().flat_map(|pin| list.chain(pin.id).unwrap()).collect();
                kept.push(head);
                assert!(list.commits.keys().all(|id| kept.contains(id)), "{:?}: {list:?}", death(number));
                let mirror = key().mirror_prefix();
                let keys = stage.world.site.memory.objects();
                assert!(!keys.iter().any(|(key, _)| key.starts_with(&mirror)), "{:?}", death(number));
                assert!(looks_between || stage.restored(number).await.is_empty());
                stage.command(None, undelete).await.unwrap();
                assert!(stage.restored(number + 1).await == stage.new.1, "{:?}, undeleted", death(number));
                assert!(died || is_stored);
                stored[usize::from(is_stored)] += 1;
                died
            });
            if !died {
                break;
            }
        }
    }
    assert!(stored.iter().all(|count| *count > 2), "deaths on both sides of the tombstone: {stored:?}");
}
