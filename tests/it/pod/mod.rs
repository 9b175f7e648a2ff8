//! A pod's whole life, from the manifests as they are rendered: the real commands of its containers, in the order and with the
//! signals of Kubernetes. Whatever happens, the next bot begins with what the one before had fsynced.

mod diary;
mod kubelet;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::kubernetes::manifest::Manifest;
use crate::readme::block;
use crate::support::world::{SESSION, World, eventually, finished};
use diary::{Diary, hashed};
use kubelet::Pod;

const BOT: &str = "bot";
const SIDECAR: &str = "session-sidecar";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_beside_a_native_sidecar() {
    lives("k8s/overlays/native").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_beside_a_classic_sidecar() {
    lives("k8s/overlays/classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_shows_for_those_without_kustomize_keeps_a_session_over_a_deployment() {
    let world = World::new().await;
    let manifest = Manifest::parse(&format!("kind: Deployment\n{}", block("initContainers:")));
    let diary = Diary::new(world.dir.path());
    let mut first = Pod::new(&world, &manifest, &diary);
    first.start().await;
    diary.ups(1).await;
    diary.more().await;
    assert!(first.is_alive(BOT).await);
    first.terminate().await;
    assert!(hashed(&world.head_of(SESSION).await) == diary.tree());
    let mut second = Pod::new(&world, &manifest, &diary);
    second.start().await;
    diary.ups(2).await;
    diary.nothing_is_lost();
    second.terminate().await;
    assert_eq!((diary.count("new"), diary.count("end")), (1, 2), "one identity all along");
}

/// What the process that keeps a root has to say.
async fn alarms(world: &World, root: &Path) -> String {
    let mut status = world.bare("status", root);
    status.arg("--json");
    let status: Value = serde_json::from_slice(&finished(status).await.stdout).unwrap_or_default();
    status["sessions"][0]["alarms"].to_string()
}

/// Start, crashes, a deployment, one that overlaps against all advice, and the loss of a node.
async fn lives(overlay: &str) {
    let world = World::new().await;
    let manifest = Manifest::of(overlay);
    let diary = Diary::new(world.dir.path());
    let pod = || Pod::new(&world, &manifest, &diary);

    let mut first = pod();
    first.start().await;
    diary.ups(1).await;
    diary.more().await;
    eventually("its livenessProbe passes", async || first.is_alive(BOT).await).await;

    // The bot crashes: it alone starts again.
    first.kill(BOT);
    first.restart(BOT).await;
    diary.ups(2).await;
    diary.nothing_is_lost();

    // The sidecar crashes: its bot goes on, also while nobody keeps its session.
    first.kill(SIDECAR);
    diary.more().await;
    first.restart(SIDECAR).await;
    diary.more().await;
    eventually("the sidecar is there again", async || first.is_alive(BOT).await).await;
    let then = diary.tree();
    eventually("what was written meanwhile is kept", async || {
        diary.holds(&hashed(&world.head_of(SESSION).await), &then)
    })
    .await;
    assert_eq!(diary.count("up"), 2);

    // A deployment: the old pod ends, the new one begins with nothing.
    first.terminate().await;
    assert!(hashed(&world.head_of(SESSION).await) == diary.tree(), "the last flush has everything");
    let mut second = pod();
    second.start().await;
    diary.ups(3).await;
    diary.nothing_is_lost();
    diary.more().await;

    // The next one overlaps with it, as no manifest here does: it asks, nobody can give way, and it ends and starts again
    // until the old one is gone.
    let mut third = pod().with("SIDECAR_LEASE_WAIT", "1s");
    {
        let start = third.start();
        tokio::pin!(start);
        let meanwhile = async {
            diary.more().await;
            let asked =
                async || alarms(&world, &second.volume("sessions")).await.contains("another process asks");
            eventually("the old one is asked", asked).await;
            diary.more().await;
            assert!(second.is_alive(BOT).await && diary.count("start") == 3);
        };
        tokio::select! {
            () = &mut start => panic!("two bots on one session"),
            () = meanwhile => {}
        }
        let ((), ()) = tokio::join!(second.terminate(), start);
    }
    assert!(!third.codes.is_empty() && third.codes.iter().all(|code| *code == 7), "{:?}", third.codes);
    diary.ups(4).await;
    diary.nothing_is_lost();
    diary.more().await;

    // The node is lost: what was acknowledged is there, once the lease has run out.
    let acknowledged = hashed(&world.head_of(SESSION).await);
    third.lose_node();
    let mut fourth = pod();
    fourth.start().await;
    diary.ups(5).await;
    diary.nothing_acknowledged_is_lost(&acknowledged);
    diary.more().await;
    fourth.terminate().await;
    assert!(hashed(&world.head_of(SESSION).await) == diary.tree());
    assert_eq!((diary.count("new"), diary.count("end")), (1, 3), "one identity all along");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stood_still_while_another_took_over_has_its_bot_stopped() {
    let world = World::new().await;
    let manifest = Manifest::of("k8s/overlays/native");
    let (diary, elsewhere) = (Diary::new(world.dir.path()), tempfile::tempdir().unwrap());
    let other_diary = Diary::new(elsewhere.path());
    let mut asleep = Pod::new(&world, &manifest, &diary);
    asleep.start().await;
    diary.ups(1).await;
    eventually("its session is kept", async || world.head_of(SESSION).await.contains_key("creds.json")).await;
    asleep.signal(SIDECAR, Signal::STOP);
    let mut other = Pod::new(&world, &manifest, &other_diary);
    // It waits for the end of the lease that nobody renews.
    tokio::time::timeout(Duration::from_mins(1), other.start()).await.unwrap();
    other_diary.ups(1).await;
    other_diary.more().await;
    assert_eq!(other_diary.count("known"), 1);
    asleep.signal(SIDECAR, Signal::CONT);
    assert_eq!(asleep.ended(SIDECAR).await, 7);
    assert!(!asleep.is_alive(BOT).await, "Kubernetes stops it");
    assert!(other.is_alive(BOT).await);
    other.terminate().await;
    assert!(
        hashed(&world.head_of(SESSION).await) == other_diary.tree(),
        "the one that stood still took no part"
    );
}
