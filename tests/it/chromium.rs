//! A Chromium that writes `IndexedDB` as whatsapp-web.js' does, and the sidecar beside it: what it commits opens in another
//! Chromium.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::fixtures;
use crate::support::world::{Files, Running, World, eventually, files};

/// Where whatsapp-web.js' `LocalAuth` has the browser write, below its own directory.
const PROFILE: &str = "session-shop";
const INDEXED_DB: &str = "session-shop/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb";

/// Small transactions one after the other, each with five records and its own number, and now and then a blob in place of
/// the one before. The rest fills logs, so that there are compactions.
const WRITE: &str = "<script>
    const opening = indexedDB.open('wawc', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('s');
    opening.onsuccess = () => {
        let n = 0;
        const step = () => {
            n++;
            const transaction = opening.result.transaction('s', 'readwrite');
            const store = transaction.objectStore('s');
            for (let i = 0; i < 5; i++) store.put(n, [n, i]);
            store.put('x'.repeat(40000), ['pad', n % 7]);
            store.put(n, 'last');
            if (n % 10 == 0) { store.put(new Blob([n + ' ' + 'b'.repeat(70000)]), 'blob'); store.put(n, 'blob of'); }
            transaction.oncomplete = () => {
                if (n % 10 == 0) fetch('/written', { method: 'POST', body: n });
                step();
            };
        };
        step();
    };
</script>";

/// Reads all of it.
const CHECK: &str = "<script>
    const tell = (found) => fetch('/found', {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(found) });
    const opening = indexedDB.open('wawc', 1);
    opening.onerror = () => tell({ error: String(opening.error) });
    opening.onupgradeneeded = () => { tell({ error: 'there is no database' }); };
    opening.onsuccess = async () => {
        const store = () => opening.result.transaction('s').objectStore('s');
        const get = (request) => new Promise((yes, no) => {
            request.onsuccess = () => yes(request.result); request.onerror = () => no(request.error); });
        try {
            const last = await get(store().get('last'));
            const keys = (await get(store().getAllKeys())).filter((key) => typeof key[0] == 'number');
            const blob = await get(store().get('blob'));
            const text = blob ? await blob.text() : '';
            await tell({ last, records: keys.length, newest: Math.max(...keys.map((key) => key[0])),
                blob: text.length > 70000 ? Number(text.split(' ')[0]) : 0, blobOf: await get(store().get('blob of')) });
        } catch (error) { tell({ error: String(error) }); }
    };
</script>";

#[derive(Default)]
struct Heard {
    written: u64,
    found: Option<Value>,
}

/// The pages, and what they tell.
struct Pages {
    url: String,
    heard: Arc<Mutex<Heard>>,
}

impl Pages {
    async fn start() -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let router = Router::new()
            .route("/write", get(async || Html(WRITE)))
            .route("/check", get(async || Html(CHECK)))
            .route(
                "/written",
                post(async |State(heard): State<Arc<Mutex<Heard>>>, body: String| {
                    heard.lock().unwrap().written = body.parse().unwrap();
                }),
            )
            .route(
                "/found",
                post(async |State(heard): State<Arc<Mutex<Heard>>>, Json(found): Json<Value>| {
                    heard.lock().unwrap().found.get_or_insert(found);
                }),
            )
            .with_state(Arc::clone(&heard));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, heard }
    }

    fn written(&self) -> u64 {
        self.heard.lock().unwrap().written
    }

    /// What a browser finds in a profile.
    async fn check(&self, profile: &Path) -> Value {
        self.heard.lock().unwrap().found = None;
        let _browser = Browser::start(profile, &format!("{}/check", self.url));
        eventually("a browser reads the database", async || self.heard.lock().unwrap().found.is_some()).await;
        self.heard.lock().unwrap().found.take().unwrap()
    }
}

/// A browser on a profile; killed at the end, as a container's end kills it.
struct Browser(Child);

impl Browser {
    fn start(profile: &Path, url: &str) -> Self {
        std::fs::create_dir_all(profile).unwrap();
        let mut command = Command::new("chromium");
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
        // Its sockets go where the test removes them.
        command.env("TMPDIR", profile.parent().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("no chromium: tests/run.sh installs it"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn put(tree: &Files, into: &Path) {
    for (path, (_, content)) in tree {
        let path = into.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// All records up to the last transaction, and none of a later one. It may have been the one that made the database.
fn is_whole(found: &Value) -> bool {
    let number = |name: &str| found[name].as_u64().unwrap_or(0);
    let last = number("last");
    let records = number("records") == 5 * last && number("newest") == last;
    records && number("blob") == last / 10 * 10 && number("blobOf") == number("blob")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_writes_is_committed_while_it_writes_and_opens_in_another_browser() {
    let (world, pages) = (World::new().await, Pages::start().await);
    let root = world.root("root");
    std::fs::create_dir(&root).unwrap();
    // Nothing tells yet that it will be a browser's.
    let pace = ["--mirror", "off", "--quiet-window", "50ms", "--max-wait", "200ms"];
    let running = Running::start(&world, &root, &pace).await;
    let browser = Browser::start(&root.join(PROFILE), &format!("{}/write", pages.url));
    let (mut last, mut taken) = (Files::new(), 0);
    eventually("a good many transactions, and commits of the database they go to", async || {
        let mut head = world.head().await;
        head.retain(|path, _| path.contains(".indexeddb.leveldb/"));
        if !head.is_empty() && head != last {
            (last, taken) = (head, taken + 1);
        }
        pages.written() >= 400 && world.history_uploads() >= 5 && taken >= 3
    })
    .await;
    drop(browser);
    let written = pages.written();
    let synced = world.run("sync", &root, &[]).await;
    let status = world.status(&root).await;
    assert!(synced.status.success(), "{synced:?}: {status}");
    assert_eq!(status["held"], json!([]), "{status}");
    let watch: Value = serde_json::from_slice(&world.run("status", &root, &["--json"]).await.stdout).unwrap();
    assert_eq!(watch["watch"]["mode"], "inotify", "every change came with an event: {watch}");
    assert_eq!(running.stop().await, 0);

    let head = world.head().await;
    let login = |path: &str| {
        path.starts_with("session-shop/Default/IndexedDB/")
            || path.starts_with("session-shop/Default/Local Storage/")
    };
    let beside: Vec<&String> = head.keys().filter(|path| !login(path)).collect();
    assert!(beside.is_empty(), "{beside:?}");
    let named = |name: &str| head.keys().filter(|path| path.ends_with(name)).count();
    assert_eq!((named("/LOCK"), named("/LOG")), (0, 0));
    assert!(named(".ldb") > 0, "there was a compaction: {:?}", head.keys());

    let history = world.json("history", &root).await;
    let points: Vec<&str> =
        history["points"].as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap()).collect();
    let mut taken = Vec::new();
    for id in points {
        let point = world.point(id).await;
        if point.keys().any(|path| path.ends_with(".indexeddb.leveldb/CURRENT")) {
            taken.push((id, point));
        }
    }
    assert!(taken.len() >= 3, "it is committed while it is written: {}", taken.len());
    let mut lasts = Vec::new();
    // The newest follows; each of all would be a minute's work on a slow machine.
    for (id, point) in [&taken[taken.len() - 1], &taken[taken.len() / 2]] {
        let there = world.root(id);
        put(point, &there);
        let found = pages.check(&there.join(PROFILE)).await;
        assert!(found["records"].is_u64() && is_whole(&found), "{id}: {found}");
        lasts.push(found["last"].as_u64().unwrap_or(0));
    }

    // Another browser had run there, on another machine.
    let there = world.root("there");
    std::fs::create_dir_all(there.join(PROFILE)).unwrap();
    let lock = there.join(PROFILE).join("SingletonLock");
    std::os::unix::fs::symlink("elsewhere-4711", &lock).unwrap();
    world.ok("restore", &there, &["--preset", "whatsapp-web.js"]).await;
    assert!(lock.symlink_metadata().is_err(), "the browser would not start");
    assert_eq!(files(&there), head);
    let found = pages.check(&there.join(PROFILE)).await;
    assert!(is_whole(&found), "{found}");
    assert!(found["last"].as_u64().unwrap() >= written, "{found}, {written} were written");
    assert!(lasts.iter().all(|last| *last <= found["last"].as_u64().unwrap()), "{lasts:?}, {found}");
}

/// A tree with a profile in it.
fn profile(world: &World) -> PathBuf {
    let root = world.root("root");
    std::fs::create_dir_all(root.join(PROFILE)).unwrap();
    fixtures::unpack("chromium-profile", &root.join(PROFILE));
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_browser_threw_away_never_replaces_the_one_in_history() {
    let world = World::new().await;
    let root = profile(&world);
    let running = Running::start(&world, &root, &["--mirror", "off", "--allow-mass-delete"]).await;
    world.ok("sync", &root, &[]).await;
    let status = world.status(&root).await;
    assert_eq!(status["identity"]["format"], "whatsapp-web.js", "{status}");
    assert_eq!(
        (&status["identity"]["paired"], &status["state"]),
        (&json!(true), &json!("ready")),
        "{status}"
    );
    let head = world.head().await;
    assert!(head.contains_key(&format!("{INDEXED_DB}/CURRENT")));

    let (db, away) = (root.join(INDEXED_DB), world.root("away"));
    let refused = async |what: &str| {
        assert_eq!(world.run("sync", &root, &[]).await.status.code(), Some(3), "{what}");
        assert!(world.head().await == head, "{what}");
    };
    // Half of a manifest: what it names is not what is there.
    let manifest = std::fs::read(db.join("MANIFEST-000001")).unwrap();
    std::fs::write(db.join("MANIFEST-000001"), &manifest[..100]).unwrap();
    refused("a torn manifest").await;
    let unfit = world.status(&root).await["held"].clone();
    let db_held = |held: &Value| held["path"] == INDEXED_DB && held["reason"] == "leveldb";
    assert!(unfit.as_array().unwrap().iter().any(db_held), "{unfit}");
    std::fs::write(db.join("MANIFEST-000001"), &manifest).unwrap();
    world.ok("sync", &root, &[]).await;

    std::fs::rename(&db, &away).unwrap();
    refused("no database").await;
    assert_eq!(world.status(&root).await["state"], "held");
    std::fs::create_dir(&db).unwrap();
    for (name, content) in
        [("CURRENT", &b"MANIFEST-000001\n"[..]), ("MANIFEST-000001", &manifest[..23]), ("000003.log", b"")]
    {
        std::fs::write(db.join(name), content).unwrap();
    }
    std::fs::copy(
        root.join(PROFILE).join("Default/Local Storage/leveldb/MANIFEST-000001"),
        db.join("MANIFEST-000001"),
    )
    .unwrap();
    refused("a database made anew").await;

    world.ok("accept-identity", &root, &[]).await;
    assert!(world.head().await[&format!("{INDEXED_DB}/000003.log")].1.is_empty());
    let pinned = world.pinned(&root, "identity").await.unwrap();
    assert!(world.point(&pinned).await == head, "what was there stays pinned");
    assert_eq!(running.stop().await, 0);
}
