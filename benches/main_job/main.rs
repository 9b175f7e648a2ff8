//! What the main job costs: the release binary against the emulator, and a plain script for comparison.
//!
//! At the end, what a small change of a large file costs, and what a process costs that has nothing to do. `cargo bench` runs
//! all of it, `cargo bench -- --quick` the small tree in less than a minute, `cargo bench -- --standing` the last part alone.

#[path = "../../tests/it/fixtures.rs"]
#[allow(clippy::unwrap_used, reason = "shared with the tests; a tree that cannot be unpacked ends the bench")]
mod fixtures;
mod large;
mod plain;
mod report;
mod standing;
mod world;

use std::path::Path;
use std::time::Duration;

use plain::Script;
use report::{Cost, row};
use world::{Usage, World};

type Failure = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Failure>;

/// One after another, with latency, all files of the large tree would take minutes: so many are measured.
const SLICE: usize = 500;
/// Files that change together, where a tree has so many that may.
const BURST: usize = 500;

#[tokio::main]
async fn main() -> Result<()> {
    let asked = |name: &str| std::env::args().any(|arg| arg == name);
    let quick = asked("--quick");
    if asked("--standing") {
        return standing::measure(&[1, 100]).await;
    }
    let trees: &[&str] = if quick { &[fixtures::SMALL] } else { &[fixtures::SMALL, fixtures::LARGE] };
    // Nothing is removed before the end: some file systems are slow to reuse what was just freed.
    let dir = tempfile::tempdir()?;
    report::head();
    for tree in trees {
        for latency in [0, 50].map(Duration::from_millis) {
            let world = async |name: &str| {
                World::new(&dir.path().join(format!("{tree}-{}-{name}", latency.as_millis())), latency).await
            };
            let print = |job: &str, cost| row(tree, latency, job, cost);
            sidecar(&world("sidecar").await?, tree, &print).await?;
            let slice = match (latency.is_zero(), quick) {
                (true, _) => usize::MAX,
                (false, true) => SLICE / 5,
                (false, false) => SLICE,
            };
            script(&world("script").await?, tree, slice, &print).await?;
        }
    }
    for file in [large::NOISE, large::SQLITE] {
        let world = World::new(&dir.path().join(file), Duration::ZERO).await?;
        large::changed(&world, file, &|job, cost| row(file, Duration::ZERO, job, cost)).await?;
    }
    standing::measure(if quick { &[1] } else { &[1, 100] }).await
}

/// What the sidecar takes.
async fn sidecar(world: &World, tree: &str, print: &dyn Fn(&str, Cost)) -> Result<()> {
    let root = world.root("first");
    fixtures::unpack(tree, &root);
    print("first commit", world.once("sync", &root, &["--mirror", "off"]).await?);

    let root = world.root("second");
    print("restore", world.once("restore", &root, &[]).await?);
    let files = names(&root)?;
    // The credentials and what they name wait for each other; the rest is what a chatty bot writes.
    let chatter = files.iter().filter(|name| !name.starts_with("creds") && !name.starts_with("pre-key-"));
    let chatter: Vec<&String> = chatter.take(BURST).collect();

    let probe_off = ["--probe-listen", "off"];
    let (mut run, start) = world.run(&root, &[&probe_off[..], &["--mirror", "off"]].concat()).await?;
    print("start, nothing changed", start);
    for changed in [&chatter[..1], &chatter[..]] {
        let (since, before) = (world.since(), run.usage());
        changed.iter().try_for_each(|name| change(&root.join(name)))?;
        run.says("committed").await?;
        print(&format!("commit of {} changed", changed.len()), run.cost(world, &since, before));
    }
    run.stop().await?;

    let since = world.since();
    let (run, _) = world.run(&root, &probe_off).await?;
    world.has_taken(files.len(), "u1/s1/").await?;
    print("start, and the first mirror", run.cost(world, &since, Usage::default()));
    run.stop().await?;
    Ok(())
}

/// What a script takes; of what it does one after another, some `slice` files are measured.
async fn script(world: &World, tree: &str, slice: usize, print: &dyn Fn(&str, Cost)) -> Result<()> {
    let script = Script::new(world)?;
    let root = world.root("root");
    fixtures::unpack(tree, &root);
    let all = names(&root)?;
    for at_once in [1, 16] {
        // Spread over the tree: names tell what is large.
        let every = if at_once == 1 { all.len().div_ceil(slice) } else { 1 };
        let measured: Vec<&str> = all.iter().step_by(every).map(String::as_str).collect();
        let print = |what: &str, cost: Cost| {
            let mut notes = format!("{at_once} at a time");
            if measured.len() < all.len() {
                notes = format!("{notes}, extrapolated from {} files", measured.len());
            }
            print(&format!("script: {what} ({notes})"), cost.extrapolated(measured.len(), all.len()));
        };
        let prefix = format!("by-{at_once}");
        let since = world.since();
        script.upload(&measured, &root, &prefix, at_once).await?;
        print("upload", world.cost(&since));
        let since = world.since();
        script.download(&measured, &prefix, &world.root(&prefix), at_once).await?;
        print("download", world.cost(&since));
    }
    Ok(())
}

/// The files of a flat tree.
fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(
                entry.file_name().into_string().map_err(|name| format!("{} is no UTF-8", name.display()))?,
            );
        }
    }
    names.sort();
    Ok(names)
}

/// Another content, still JSON, written as Baileys does: over the old one.
fn change(file: &Path) -> Result<()> {
    let mut content = std::fs::read(file)?;
    content.push(b'\n');
    Ok(std::fs::write(file, content)?)
}
