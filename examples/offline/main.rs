//! The whole life of a session with no internet and no phone: `cargo run --release --example offline`.
//!
//! Real: the service (`serve`, in a process of its own), its API and page, whatsapp-rust, the history. Simulated: Supabase
//! (the embedded one), and WhatsApp with its phones. `--self-test` plays it through without an onlooker.
//!
//! | module | holds |
//! |---|---|
//! | `stage` | all of it, without terminal or page: what an onlooker can do, and what is seen |
//! | `service` | the process of the service, started and killed |
//! | `phone` | the page of the simulated phone |
//! | `play` | the self-test |

mod phone;
mod play;
mod service;
mod stage;
#[path = "../../tests/whatsapp/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod whatsapp;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use session_sidecar::commands::signals;
use tokio::task::spawn_blocking;

use stage::{ACTS, Act, Stage};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match args.get(1).and_then(|arg| arg.to_str()) {
        Some("serve") => ExitCode::from(runtime.block_on(service::serve(args))),
        mode => match runtime.block_on(run(mode)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    };
    runtime.shutdown_background();
    code
}

async fn run(mode: Option<&str>) -> Result<()> {
    let self_test = match mode {
        None => false,
        Some("--self-test") => true,
        Some(_) => bail!("usage: offline [--self-test]"),
    };
    let stop = signals::listen()?;
    let dir = tempfile::Builder::new().prefix("session-sidecar-offline-").tempdir()?;
    // A self-test leaves the usual port to whoever uses it.
    let stage = Stage::set(dir.path(), if self_test { 0 } else { 3000 }).await?;
    let played = if self_test {
        tokio::select! {
            played = play::play(&stage) => played,
            () = stop.orderly.cancelled() => Err(anyhow::anyhow!("interrupted")),
        }
    } else {
        watched(&stage, &stop).await
    };
    if played.is_err() {
        eprintln!("{}", stage.service.tail());
    }
    tokio::select! {
        stopped = stage.service.stop() => {
            // After a logout, for one: what is held waits for a person.
            if let Err(error) = stopped {
                stage.say(format!("the service: {error:#}"));
            }
        }
        () = stop.at_once.cancelled() => {}
    }
    played
}

/// Until the onlooker has seen enough.
async fn watched(stage: &Arc<Stage>, stop: &signals::Stop) -> Result<()> {
    let phone = stage::listener(3001)?;
    println!("\n  The service:  {}\n  The phone:    http://{}\n", stage.page(), phone.local_addr()?);
    println!(
        "  Open the service and press \"New session\": it shows a QR code. Then, on the phone or here with Enter:\n"
    );
    for (key, _, label) in ACTS {
        println!("    {key}  {label}");
    }
    println!("    q  Stop everything (as Ctrl-C)\n");
    stage.act(Act::Start).await;
    tokio::select! {
        () = typed(stage) => Ok(()),
        () = stop.orderly.cancelled() => Ok(()),
        served = phone::serve(phone, stage.clone()) => served,
    }
}

/// Does what is typed, until `q`.
async fn typed(stage: &Stage) {
    // A read of the terminal cannot be cancelled: nobody waits for this thread.
    while let Ok(Some(Ok(line))) = spawn_blocking(|| std::io::stdin().lines().next()).await {
        match (line.trim(), Act::of(line.trim())) {
            ("q", _) => return,
            (_, Some(act)) => stage.act(act).await,
            ("", _) => {}
            (key, None) => println!("no such key: {key}"),
        }
    }
    // There is no terminal; the page has the buttons.
    std::future::pending::<()>().await;
}
