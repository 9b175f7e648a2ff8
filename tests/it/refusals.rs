//! What ends in one line, the right exit code and an unchanged tree.

use session_sidecar::emulator::{BucketOptions, Faults};

use crate::support::world::{World, files, refused};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_is_never_a_new_session() {
    let world = World::new().await;
    let (root, empty) = (world.tree("root"), world.root("empty"));
    world.sync(&root).await;
    let tree = files(&root);
    let public = BucketOptions { id: "open".into(), public: true, ..BucketOptions::default() };
    world.supabase.put_bucket(public).unwrap();
    let forged = format!("{}.AAAA", world.supabase.service_role_key().rsplit_once('.').unwrap().0);
    let cases = [
        (5, "SUPABASE_SERVICE_ROLE_KEY", forged.as_str()),
        (5, "SUPABASE_SERVICE_ROLE_KEY", world.supabase.anon_key()),
        (2, "SUPABASE_BUCKET", "whatsapp-session"),
        (2, "SUPABASE_BUCKET", "open"),
    ];
    for root in [&root, &empty] {
        for (wanted, name, value) in cases {
            let mut command = world.command("restore", root);
            command.env(name, value).args(["--outage-wait", "0s"]);
            refused(command, wanted).await;
        }
        for id in ["../s", "u", "u/.s", "u/s/t", "u/a b"] {
            let mut command = world.bare("restore", root);
            command.args(["--session", id]);
            refused(command, 2).await;
        }
    }
    // A key that lost its right to read: the server answers as if nothing were there.
    world.supabase.set_faults(Faults { empty_lists: true, ..Faults::default() });
    for root in [&root, &empty] {
        refused(world.command("restore", root), 5).await;
    }
    world.supabase.set_faults(Faults::default());
    assert!(files(&root) == tree && (!empty.exists() || files(&empty).is_empty()));
    assert!(world.head().await == tree);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_bucket_behind_a_known_head_is_no_new_session() {
    let world = World::new().await;
    let root = world.tree("root");
    world.sync(&root).await;
    let tree = files(&root);
    world.post("/bucket/whatsapp-sessions/empty", Vec::new()).await;
    refused(world.command("restore", &root), 6).await;
    assert!(files(&root) == tree);
    // Also with the tree gone: the state alone knows that there was one.
    for name in tree.keys() {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    refused(world.command("restore", &root), 6).await;
    assert!(files(&root).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_url_or_key_is_one_line_the_right_exit_code_and_an_unchanged_tree() {
    let world = World::new().await;
    let root = world.tree("root");
    let tree = files(&root);
    let cases = [
        (5, "SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_x"),
        (4, "SUPABASE_URL", "http://127.0.0.1:9"),
        (2, "SUPABASE_URL", "postgres://x"),
    ];
    for (wanted, name, value) in cases {
        let mut command = world.command("restore", &root);
        command.env(name, value).args(["--outage-wait", "0s"]);
        refused(command, wanted).await;
    }
    assert!(files(&root) == tree);
}
