//! The disaster drills of docs/operations.md, played.

use session_sidecar::store::{Page, Put, Store as _};

use crate::support::world::{SESSION, World, files, refused};

const HISTORY: &str = ".history/";

/// All keys of the history, as a tool that copies buckets finds them.
async fn keys(world: &World) -> Vec<String> {
    let page = Page { prefix: HISTORY.to_owned(), ..Page::default() };
    let listing = world.store().list(&page).await.unwrap();
    assert!(listing.next.is_none());
    listing.objects.into_iter().map(|object| object.key).collect()
}

/// The epoch of the head.
async fn epoch(world: &World, root: &std::path::Path) -> u32 {
    let history = world.json("history", root).await;
    history["head"].as_str().unwrap()[..8].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_bucket_is_the_history_of_another_project() {
    let (old, new) = (World::new().await, World::new().await);
    let root = old.tree("root");
    old.sync(&root).await;
    std::fs::write(root.join("later.json"), "{}").unwrap();
    old.sync(&root).await;
    for key in keys(&old).await {
        let bytes = std::fs::read(old.supabase.object_path("whatsapp-sessions", &key).unwrap()).unwrap();
        let how = Put { content_type: "application/json".to_owned(), ..Put::default() };
        new.store().put(&key, bytes.into(), &how).await.unwrap();
    }
    let there = new.root("there");
    new.ok("restore", &there, &["--mirror", "off"]).await;
    assert!(files(&there) == files(&root));
    assert!(epoch(&new, &there).await > epoch(&old, &root).await, "epochs go on");
    new.ok("verify", &there, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_project_is_gone_begins_the_history_of_the_next() {
    let (old, new) = (World::new().await, World::new().await);
    let root = old.tree("root");
    old.sync(&root).await;
    let tree = files(&root);
    new.ok("restore", &root, &["--mirror", "off"]).await;
    assert!(files(&root) == tree && new.head().await == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_bucket_is_not_believed_and_the_disk_goes_on_when_it_is_told_to() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let (tree, before) = (files(&root), epoch(&world, &root).await);
    world.store().remove(&keys(&world).await).await.unwrap();
    let why = refused(world.command("restore", &root), 6).await;
    assert!(why.contains("--on-conflict local"), "{why}");
    let why = refused(world.command("restore", &world.root("empty")), 6).await;
    assert!(why.contains("newer than everything in the bucket"), "{why}");
    assert!(
        keys(&world).await.iter().all(|key| key.contains(".claim")),
        "nothing was committed for {SESSION}"
    );
    world.ok("restore", &root, &["--on-conflict", "local", "--mirror", "off"]).await;
    assert!(files(&root) == tree && world.head().await == tree);
    assert!(epoch(&world, &root).await > before);
}
