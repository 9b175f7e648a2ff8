//! Requests that nobody thought of, made from the API's own document, to the real `serve`.
//!
//! Nothing may be the server's own fault, so no answer is a 5xx: WhatsApp and Supabase are on loopback and answer in time, and
//! none of theirs is an excuse. And whatever is answered is what the document says.

use std::path::Path;
use std::process::Command;

use crate::support::service::Service;
use crate::support::world::{World, finished};
use crate::whatsapp::Server;

/// One user: every session that is connected is a real one. Those that a query or a body names come on top, as many as a
/// user may have. Ids that are none are tried on every path by `serve_bad_input`.
const CONFIG: &str = r#"
[parameters]
"path.user" = "u1"
"path.session" = "s1"
"#;

const CHECKS: &str =
    "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance";

#[tokio::test]
async fn whatever_the_document_lets_one_ask_is_answered_as_it_says_and_never_by_a_5xx() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/schemathesis");
    assert!(program.exists(), "no schemathesis: tests/run.sh installs it");
    let (world, mock) = (World::new().await, Server::start().await.unwrap());
    let service = Service::start(&world, &mock, &world.root("r"), &["--auth", "none"]).await;
    let config = world.dir.path().join("schemathesis.toml");
    std::fs::write(&config, CONFIG).unwrap();

    let mut command = Command::new(program);
    // It keeps notes where it runs.
    command.current_dir(world.dir.path());
    command.arg("--config-file").arg(&config).args(["run", &format!("{}/openapi.json", service.url)]);
    command.args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "5"]);
    // A stream of events does not end.
    command.args(["--exclude-path-regex", "/events/"]);
    command.args(["--generation-deterministic", "--request-timeout", "90", "--no-color"]);
    let output = finished(command).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let log = service.log();
    let panics: Vec<_> = log.iter().filter(|line| line.to_string().contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
    assert_eq!(service.ok("GET", "/api/health", "", None).await["status"], "healthy");
    assert_eq!(service.stop().await, 0);
}
