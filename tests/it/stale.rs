//! What a cache in front of the bucket and uploads that land late do to the main job: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use session_sidecar::emulator::Faults;

use crate::support::world::{Running, World, eventually, files};

const PLAIN: &str = "lid-mapping-new.json";

/// Another `creds.json` of the same account.
fn count(root: &Path, number: u32) -> Vec<u8> {
    let path = root.join("creds.json");
    let mut creds: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    creds["accountSyncCounter"] = json!(number);
    std::fs::write(&path, creds.to_string()).unwrap();
    std::fs::read(&path).unwrap()
}

impl World {
    /// The mirrored object as the bucket has it.
    fn mirrored(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.supabase.object_path("whatsapp-sessions", &format!("u1/s1/{name}"))?;
        std::fs::read(path).ok()
    }

    /// Commits what lies there, and stays until the bucket has it as plain objects: a `sync` waits for those only
    /// so long.
    async fn sync_mirrored(&self, root: &Path, names: &[&str]) {
        let running = Running::start(self, root, &[]).await;
        eventually("the mirror is the tree", async || {
            names.iter().all(|name| self.mirrored(name) == std::fs::read(root.join(name)).ok())
        })
        .await;
        assert_eq!(running.stop().await, 0);
    }

    /// The mirrored object as it is served.
    async fn served(&self, name: &str) -> Vec<u8> {
        // The first client of a process decides who does its cryptography; another test's may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}/storage/v1/object/whatsapp-sessions/u1/s1/{name}", self.supabase.url());
        let key = self.supabase.service_role_key();
        let answer = reqwest::Client::new().get(url).bearer_auth(key).header("apikey", key).send().await;
        answer.unwrap().error_for_status().unwrap().bytes().await.unwrap().to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overwritten_mirror_objects_are_served_stale_and_the_newest_commit_is_restored() {
    let world = World::new().await;
    let root = world.tree("root");
    let first = std::fs::read(root.join("creds.json")).unwrap();
    std::fs::write(root.join(PLAIN), "\"1\"").unwrap();
    world.sync_mirrored(&root, &["creds.json", PLAIN]).await;
    world.supabase.set_faults("stale=60s".parse().unwrap());
    let second = count(&root, 2);
    std::fs::write(root.join(PLAIN), "\"2\"").unwrap();
    world.sync_mirrored(&root, &["creds.json", PLAIN]).await;
    assert!(world.mirrored("creds.json").unwrap() == second && world.served("creds.json").await == first);
    assert!(world.served(PLAIN).await == b"\"1\"");

    for name in ["elsewhere", "again"] {
        let elsewhere = world.root(name);
        world.ok("restore", &elsewhere, &[]).await;
        assert!(files(&elsewhere) == files(&root));
    }
    world.ok("verify", &root, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_behind_and_is_served_stale_neither_delays_a_start_nor_counts_as_somebodys_work() {
    let world = World::new().await;
    let root = world.tree("root");
    let first = std::fs::read(root.join("creds.json")).unwrap();
    world.sync_mirrored(&root, &["creds.json"]).await;
    world.supabase.set_faults("stale=60s".parse().unwrap());
    let second = count(&root, 2);
    world.sync_mirrored(&root, &["creds.json"]).await;
    count(&root, 3);
    world.ok("sync", &root, &["--mirror", "off"]).await;
    // The head has the third, the bucket the second, and whoever asks is given the first.
    assert!(world.mirrored("creds.json").unwrap() == second && world.served("creds.json").await == first);

    let elsewhere = world.root("elsewhere");
    world.ok("restore", &elsewhere, &["--outage-wait", "0s"]).await;
    assert!(files(&elsewhere) == files(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_all_land_late_do_no_harm() {
    let world = World::new().await;
    world.supabase.set_faults("late-uploads=1,late-by=50ms".parse().unwrap());
    let root = world.root("root");
    let running = Running::start(&world, &root, &["--quiet-window", "50ms"]).await;
    for number in 0..3 {
        std::fs::write(root.join(PLAIN), format!("\"{number}\"")).unwrap();
        eventually("it is in the head", async || world.head().await == files(&root)).await;
    }
    assert_eq!(running.stop().await, 0);
    let elsewhere = world.root("elsewhere");
    world.ok("restore", &elsewhere, &[]).await;
    assert!(files(&elsewhere) == files(&root));

    let mut contents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for upload in world.supabase.uploads() {
        contents.entry(upload.key).or_default().insert(upload.sha256);
    }
    let history: Vec<_> = contents.iter().filter(|(key, _)| key.starts_with(".history/")).collect();
    assert!(history.iter().any(|(key, _)| key.contains(".claim")));
    assert!(history.iter().all(|(_, contents)| contents.len() == 1), "one name, one content: {history:?}");

    // Whatever landed last in the mirror: the next start brings it up to date.
    world.supabase.set_faults(Faults::default());
    let running = Running::start(&world, &elsewhere, &[]).await;
    let newest = std::fs::read(root.join(PLAIN)).unwrap();
    eventually("the mirror is the tree", async || world.mirrored(PLAIN) == Some(newest.clone())).await;
    assert_eq!(running.stop().await, 0);
}
