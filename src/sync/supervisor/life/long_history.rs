//! What is left of a history that was written for days, by the rules "Chain" and "Retention" of DESIGN.md: how much
//! it is, that all of it restores, and that no clock but the server's has a say.

mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep_until};

use crate::history::{self, Access, CommitName, Depth, Id, Keys, Name, Silent, Survey};
use crate::host::Host as _;
use crate::store::Op;
use pod::{Files, Pod, World, key};

/// A base and its deltas. The bases here are far below 8 MB.
const CHAIN: usize = 1 + 256;
/// A chain is given up once its deltas weigh so much.
const CHAIN_BYTES: u64 = 1 << 20;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A new base comes with the first commit after a day, and that after a night at the latest; retention runs after it,
/// unless it did within the hour. So this is how long ago it ran at most.
const RUN: SignedDuration = SignedDuration::from_hours(24 + 10 + 1);
/// Bases kept by time: 24 hours touch five slots of six hours, a week touches eight days.
const SPACED: usize = 5 + 8;

/// A commit of the test's own.
struct Written {
    id: Id,
    at: Timestamp,
    files: Files,
}

/// A session and all that was ever committed of it.
struct Diary {
    world: World,
    random: SmallRng,
    files: Files,
    written: Vec<Written>,
}

impl Diary {
    fn new(skew: SignedDuration) -> Self {
        Self {
            world: World::new(skew),
            random: SmallRng::seed_from_u64(1),
            files: Files::new(),
            written: Vec::new(),
        }
    }

    /// The server's.
    fn now(&self) -> Timestamp {
        self.world.server.now()
    }

    /// A pod with an empty disk, which restores what there is.
    async fn pod(&mut self, label: Option<&str>) -> Pod {
        let pod = self.world.pod(label).await;
        assert_eq!(pod::files(&pod.root), self.files);
        pod
    }

    async fn write(&mut self, pod: &mut Pod, path: &str, bytes: Vec<u8>) {
        let id = pod.write(path, &bytes).await;
        self.files.insert(path.to_owned(), bytes);
        self.written.push(Written { id, at: self.now(), files: self.files.clone() });
    }

    /// The commits of some hours, evenly, with so many bytes in each that do not compress.
    async fn hours(&mut self, pod: &mut Pod, hours: u64, commits: u32, noise: usize) {
        let began = Instant::now();
        for number in 0..commits {
            sleep_until(began + Duration::from_hours(hours) * number / commits).await;
            let path = ["app-state.json", "session-a.json", "session-b.json"][number as usize % 3];
            let mut bytes = vec![0; noise / 2];
            self.random.fill(bytes.as_mut_slice());
            let noise = hex::encode(bytes);
            self.write(pod, path, format!("{{\"n\":{number},\"noise\":\"{noise}\"}}").into_bytes()).await;
        }
        sleep_until(began + Duration::from_hours(hours)).await;
    }

    async fn survey(&self) -> Survey {
        history::survey(&self.world.memory, &key(), Depth::All, None).await.unwrap()
    }

    /// Every commit that was ever uploaded.
    fn names(&self) -> BTreeMap<Id, CommitName> {
        let prefix = key().history_prefix();
        let log = self.world.memory.log();
        let names =
            log.iter().filter_map(|upload| match upload.key.strip_prefix(&prefix).and_then(Name::parse) {
                Some(Name::Commit(name)) => Some((name.id, name)),
                _ => None,
            });
        names.collect()
    }

    /// What the rules keep, without what it needs.
    fn kept(&self) -> BTreeSet<Id> {
        let (now, names) = (self.now(), self.names());
        let age = |one: &Written| now.duration_since(one.at);
        let mut kept: BTreeSet<Id> =
            self.written.iter().filter(|one| age(one) <= HOUR).map(|one| one.id).collect();
        let bases = || self.written.iter().filter(|one| names[&one.id].base);
        for (slot, most) in [(6 * HOUR, DAY), (DAY, pod::HISTORY_KEEP)] {
            let slots = bases().filter(|one| age(one) <= most);
            let newest: BTreeMap<i64, Id> =
                slots.map(|one| (one.at.as_second() / slot.as_secs(), one.id)).collect();
            kept.extend(newest.into_values());
        }
        kept.extend(bases().rev().take(2).map(|one| one.id));
        kept
    }

    /// The most objects that the rules leave: what the last run left is the last hour's commits, a chain below them,
    /// and single bases; since then came the next hour's and a chain, and then there was a base and another run.
    fn most(&self) -> usize {
        let recent = |at: Timestamp| self.now().duration_since(at) <= RUN + HOUR;
        let times: Vec<Timestamp> = self.written.iter().map(|one| one.at).filter(|at| recent(*at)).collect();
        let within = |from: &Timestamp| {
            times
                .iter()
                .filter(|at| (SignedDuration::ZERO..=2 * HOUR).contains(&at.duration_since(*from)))
                .count()
        };
        let busiest = times.iter().map(within).max().unwrap_or(0);
        let (newest_bases, claims) = (2, 2);
        busiest + 2 * CHAIN + SPACED + newest_bases + claims
    }

    /// What is listed is what the rules keep, and not more than they leave.
    async fn check(&self) {
        let survey = self.survey().await;
        let objects = self.world.memory.keys(&key().history_prefix()).len();
        assert!(objects <= self.most(), "{objects} objects, {} at most", self.most());
        for id in self.kept() {
            survey.chain(id).unwrap_or_else(|error| panic!("{id} is gone: {error}"));
        }
        // Of what is older than a day only one base each day is left, and nothing of more than a week.
        let old = survey
            .commits
            .values()
            .filter(|one| self.now().duration_since(one.created_at().unwrap()) > DAY + RUN);
        let mut days = BTreeSet::new();
        for one in old {
            let at = one.created_at().unwrap();
            assert!(one.name.base, "{:?}", one.name);
            assert!(days.insert(at.as_second() / DAY.as_secs()), "two of one day: {:?}", one.name);
            assert!(self.now().duration_since(at) <= pod::HISTORY_KEEP + RUN, "{:?}", one.name);
        }
        weigh_chains(&survey);
    }

    /// Every kept point gives back what it was.
    async fn restore_all(&self) {
        let (survey, kept) = (self.survey().await, self.kept());
        let scratch = tempfile::tempdir().unwrap();
        let points = self.written.iter().filter(|one| kept.contains(&one.id));
        let mut restored = 0;
        // Of those of one chain some: each reads all below it.
        for one in points
            .enumerate()
            .filter(|(number, one)| survey.commits[&one.id].name.base || number % 16 == 0)
            .map(|(_, one)| one)
        {
            let chain = history::fetch(
                Access::new(&self.world.memory, &Keys::off()),
                &key(),
                &survey,
                one.id,
                scratch.path(),
                &Silent,
            )
            .await
            .unwrap();
            chain.verify().unwrap();
            let read = chain.read(&one.files.keys().cloned().collect()).unwrap();
            let read: Files =
                read.into_iter().map(|(path, content)| (path, content.bytes().unwrap().to_vec())).collect();
            assert!(read == one.files, "{}", one.id);
            restored += 1;
        }
        assert!(restored >= 7, "{restored} points");
    }

    /// A restore elsewhere, and how many requests it took.
    async fn restore(&mut self) {
        let ops = [Op::Bucket, Op::Put, Op::Get, Op::Info, Op::List, Op::Remove, Op::Rename];
        let calls = |diary: &Self| ops.map(|op| diary.world.memory.calls(op));
        let before = calls(self);
        assert_eq!(self.world.restore().await, self.files);
        let requests: u64 = calls(self).iter().zip(before).map(|(after, before)| after - before).sum();
        // The bucket, a list, a claim and its move, a list, the chain, the seal and its short list, one more of those.
        assert!(requests <= CHAIN as u64 + 8, "{requests} requests");
    }
}

/// No chain is longer or heavier than "Chain" allows.
fn weigh_chains(survey: &Survey) {
    for id in survey.commits.keys() {
        let chain = survey.chain(*id).unwrap();
        assert!(chain.len() <= CHAIN, "{} objects lead to {id}", chain.len());
        let sizes: Vec<u64> = chain.iter().map(|id| survey.commits[id].size()).collect();
        let but_the_last = sizes[1..].iter().rev().skip(1).sum::<u64>();
        assert!(but_the_last <= sizes[0].max(CHAIN_BYTES), "{sizes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_commits_leave_what_the_rules_keep_and_all_of_it_restores() {
    let mut diary = Diary::new(SignedDuration::ZERO);
    for day in 0..10 {
        let mut pod = diary.pod(None).await;
        sleep_until(Instant::now() + Duration::from_hours(8)).await;
        match day {
            // Deltas outweigh their base before there are 256.
            1 => diary.hours(&mut pod, 14, 350, 16_000).await,
            // An account that syncs its whole past.
            5 => {
                diary.hours(&mut pod, 1, 1_850, 0).await;
                diary.check().await;
                diary.hours(&mut pod, 13, 350, 0).await;
            }
            _ => diary.hours(&mut pod, 14, 350, 0).await,
        }
        diary.check().await;
        pod.finish().await;
        diary.restore().await;
        sleep_until(Instant::now() + Duration::from_hours(2)).await;
    }
    assert_eq!(diary.written.len(), 5_350);
    diary.restore_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_year_off_keeps_the_same_history() {
    let year = 365 * DAY;
    let mut left = Vec::new();
    for skew in [SignedDuration::ZERO, year, -year] {
        let mut diary = Diary::new(skew);
        for day in 0..9 {
            let mut pod = diary.pod(Some(&format!("v{day}"))).await;
            diary.hours(&mut pod, 24, 24, 0).await;
            pod.finish().await;
        }
        let survey = diary.survey().await;
        let commits = survey.commits.values().map(|one| (one.name.id.epoch, one.name.id.seq, one.name.base));
        let pins = survey.pins.iter().map(|pin| (pin.id.epoch, pin.id.seq));
        left.push((
            commits.collect::<Vec<_>>(),
            pins.collect::<Vec<_>>(),
            survey.claims.into_keys().collect::<Vec<_>>(),
        ));
    }
    assert_eq!(left[1], left[0], "a year ahead");
    assert_eq!(left[2], left[0], "a year behind");
}

#[tokio::test(start_paused = true)]
async fn what_lands_after_it_was_deleted_harms_nobody_and_goes_with_the_next_run() {
    let mut diary = Diary::new(SignedDuration::ZERO);
    let mut pod = diary.pod(None).await;
    diary.hours(&mut pod, 3, 900, 0).await;
    let there = diary.world.memory.objects();
    let log = diary.world.memory.log();
    let late: Vec<_> = log.iter().filter(|upload| !there.contains_key(&upload.key)).collect();
    assert!(late.iter().any(|upload| upload.key.ends_with(".base.tar.zst")));
    assert!(late.iter().any(|upload| upload.key.contains("/.claim-")));
    for upload in &late {
        diary.world.memory.plant(&upload.key, upload.body.clone(), diary.now());
    }
    diary.hours(&mut pod, 3, 900, 0).await;
    diary.check().await;
    for upload in late {
        assert!(diary.world.memory.content(&upload.key).is_none(), "{} is still there", upload.key);
    }
    pod.finish().await;
    diary.restore().await;
    diary.restore_all().await;
}

/// `creds.json` of an account that was linked anew.
fn creds(pairing: u32) -> Vec<u8> {
    let creds = serde_json::json!({
        "noiseKey": {"private": pairing}, "pairingEphemeralKeyPair": {"private": 2},
        "signedIdentityKey": {"private": 3}, "registrationId": 44, "advSecretKey": "c2VjcmV0",
        "nextPreKeyId": 1, "me": {"id": "5511900000001:12@s.whatsapp.net"}, "account": {"details": "x"},
    });
    creds.to_string().into_bytes()
}

#[tokio::test(start_paused = true)]
async fn the_newest_ten_identity_pins_stay_and_other_pins_end_after_their_time() {
    let mut diary = Diary::new(SignedDuration::ZERO);
    let mut replaced = Vec::new();
    for day in 0..10 {
        let mut pod = diary.pod(Some(&format!("v{day}"))).await;
        // Two accounts on each of the first seven days.
        for half in 0..2 {
            if day < 7 {
                let before = pod.head();
                diary.write(&mut pod, "creds.json", creds(2 * day + half)).await;
                replaced.push(before);
            }
            diary.hours(&mut pod, 12, 10, 0).await;
        }
        pod.finish().await;
    }
    let survey = diary.survey().await;
    let pins = |reason: &str| -> Vec<&crate::history::survey::Pin> {
        survey.pins.iter().filter(|pin| pin.reason == reason).collect()
    };
    // The first account replaced none.
    let identities: BTreeSet<Id> = pins("identity").iter().map(|pin| pin.id).collect();
    assert_eq!(identities, replaced[1..].iter().rev().take(10).copied().collect());
    let labels: Vec<SignedDuration> =
        pins("label").iter().map(|pin| diary.now().duration_since(pin.object.created_at.unwrap())).collect();
    // Each start takes a moment for its lease.
    let kept = pod::PIN_KEEP + SignedDuration::from_secs(1);
    assert_eq!(labels.iter().filter(|age| **age <= kept).count(), 3, "{labels:?}");
    assert!(labels.iter().all(|age| *age <= pod::PIN_KEEP + RUN), "{labels:?}");
    for pin in &survey.pins {
        let scratch = tempfile::tempdir().unwrap();
        let chain = history::fetch(
            Access::new(&diary.world.memory, &Keys::off()),
            &key(),
            &survey,
            pin.id,
            scratch.path(),
            &Silent,
        )
        .await
        .unwrap();
        chain.verify().unwrap();
    }
}

/// A bot that crashes at its start again and again: each start seals the chain and changes nothing.
#[tokio::test(start_paused = true)]
async fn a_session_that_only_starts_again_and_again_keeps_a_short_chain_and_few_claims() {
    let mut diary = Diary::new(SignedDuration::ZERO);
    let mut pod = diary.pod(None).await;
    diary.hours(&mut pod, 1, 240, 0).await;
    pod.finish().await;
    for _ in 0..30 {
        diary.restore().await;
        diary.pod(None).await.finish().await;
        sleep_until(Instant::now() + Duration::from_mins(10)).await;
    }
    let survey = diary.survey().await;
    weigh_chains(&survey);
    let chain = survey.chain(survey.head().unwrap()).unwrap();
    // Of each start since the last base, and the one before it.
    assert!(survey.claims.len() <= chain.len() + 1, "{} claims", survey.claims.len());
}
