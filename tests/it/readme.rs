//! What the README tells a newcomer to type, typed.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::world::{World, files, finished};

/// What the README says once, before the commands.
const SETTINGS: &str = "export SUPABASE_URL=https://abcdefgh.supabase.co
export SUPABASE_SERVICE_ROLE_KEY_FILE=/run/secrets/supabase-key
";

/// The block of code that holds these words.
pub fn block(holding: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("\n```").skip(1).step_by(2);
    let mut codes = blocks.filter_map(|block| block.split_once('\n')).map(|(_, code)| code);
    codes.find(|code| code.contains(holding)).unwrap_or_else(|| panic!("no block has {holding}"))
}

/// Types lines into a shell that finds the binary, and a bot for `node`.
async fn typed(world: &World, lines: &str) -> Output {
    let bin = world.root("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_session-sidecar"), bin.join("session-sidecar")).unwrap();
        write_bot(&bin.join("node"));
        std::fs::write(world.root("key"), world.supabase.service_role_key()).unwrap();
    }
    let lines = lines.replace("https://abcdefgh.supabase.co", &world.supabase.url());
    let lines = lines.replace("/run/secrets/supabase-key", world.root("key").to_str().unwrap());
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    shell.args(["-euc", &lines]).env_clear().env("PATH", path).env("RUST_LOG", "off");
    shell.current_dir(world.dir.path()).stdin(Stdio::null());
    finished(shell).await
}

/// Writes a session as a bot does, and ends well.
fn write_bot(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let script =
        "#!/bin/sh\n: ${TREE:=sessions/ada/shop}; mkdir -p $TREE && echo '{\"n\":1}' > $TREE/notes.json\n";
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_five_minutes_of_the_readme_keep_what_a_bot_wrote() {
    let world = World::new().await;
    let code = block("session-sidecar exec --root ./sessions");
    let (_, real) = code.split_once("# For real").unwrap();
    let (_, real) = real.split_once('\n').unwrap();
    text(&typed(&world, real).await);
    let there = world.head_of("ada/shop").await;
    assert_eq!(there.keys().collect::<Vec<_>>(), ["notes.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_the_first_recipe_keeps_what_its_bot_writes() {
    let world = World::new().await;
    let code = block("COPY --from=");
    let list = |word: &str| -> Vec<String> {
        let list = code.lines().find_map(|line| line.strip_prefix(word)).unwrap();
        serde_json::from_str(list).unwrap()
    };
    let line = [list("ENTRYPOINT "), list("CMD ")].concat().join(" ");
    let root = world.root("volume");
    let variables = code.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let variables = variables.replace("/sessions", root.to_str().unwrap());
    text(&typed(&world, &format!("{SETTINGS}export TREE={} {variables}\n{line}", root.display())).await);
    assert_eq!(world.head_of("demo/bot").await.keys().collect::<Vec<_>>(), ["notes.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_at_the_terminal_in_the_readme_is_what_happens() {
    let world = World::new().await;
    let (a, b) = (world.tree("a"), world.root("b"));
    world.sync(&a).await;
    let code = block("$ diff -r a b");
    let said = code.lines().filter_map(|line| line.strip_prefix("$ "));
    for line in said {
        let line = line.replace("u1/s1", crate::support::world::SESSION);
        let shown = text(&typed(&world, &format!("{SETTINGS}{line}")).await);
        // The first words of what the README shows for it.
        let (_, after) = code.split_once(&format!("$ {line}\n")).unwrap();
        let wanted = after.lines().next().filter(|next| !next.starts_with("$ ")).unwrap_or_default();
        let words = |text: &str| text.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
        if line.contains("history") {
            assert!(
                shown.lines().count() >= 2 && shown.contains("head") && shown.contains("base"),
                "{shown}"
            );
        } else {
            assert_eq!(words(&shown), words(wanted), "{line}: {shown}");
        }
    }
    assert!(files(&a) == files(&b));
}
