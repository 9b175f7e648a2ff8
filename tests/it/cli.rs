//! The binary as a shell meets it: exit codes, what goes to which stream, and that no secret does.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const KEY: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.bm90LWEtc2lnbmF0dXJl";
const PHONE: &str = "5511999887766";

/// The binary with nothing of the developer's environment.
fn sidecar(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-sidecar"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn ended(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn root(dir: &Path) -> String {
    dir.join("sessions").to_str().unwrap().to_owned()
}

#[test]
fn help_goes_to_stdout_and_names_the_exit_codes() {
    let (code, out, err) = ended(&mut sidecar(&["--help"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("accept-identity") && out.contains("7  lease lost"), "{out}");
    let (code, out, _) = ended(&mut sidecar(&["run", "--help"]));
    assert_eq!(code, 0);
    assert!(out.contains("SIDECAR_QUIET_WINDOW") && out.contains("[default: 500ms]"), "{out}");
}

#[test]
fn help_never_shows_a_key_that_the_environment_holds() {
    let (_, out, err) = ended(sidecar(&["run", "--help"]).env("SUPABASE_SERVICE_ROLE_KEY", KEY));
    assert!(out.contains("SUPABASE_SERVICE_ROLE_KEY") && !out.contains(KEY) && !err.contains(KEY));
}

#[test]
fn a_wrong_flag_is_exit_2_and_with_json_a_document() {
    let (code, out, err) = ended(&mut sidecar(&["run", "--nonsense"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("error: unexpected argument '--nonsense'"), "{err}");
    let (code, out, _) = ended(&mut sidecar(&["run", "--json", "--nonsense"]));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["error"]["code"]), (2, &"usage".into()));
}

#[test]
fn a_malformed_id_has_a_code_of_its_own_wherever_it_stands() {
    for args in [
        &["status", "a b/c"][..],
        &["status", "--session", "one"],
        &["status", "--user", ".x"],
        &["run", "--select", "u/s,x"],
    ] {
        let (code, out, _) = ended(&mut sidecar(&[args, &["--json"]].concat()));
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &document["error"]["code"]), (2, &"bad_session_id".into()), "{args:?}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_not_repeated() {
    let (code, _, err) = ended(&mut sidecar(&["init", KEY]));
    assert_eq!(code, 2);
    assert!(!err.contains(KEY), "{err}");
    let database = "postgresql://postgres:hush-hush@db/postgres";
    let (code, out, err) = ended(&mut sidecar(&["init", "--json", database]));
    assert_eq!(code, 2);
    assert!(!out.contains("hush") && !err.contains("hush"), "{out} {err}");
}

#[test]
fn what_is_missing_is_named_in_one_line() {
    let (code, out, err) = ended(&mut sidecar(&["init"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.starts_with("error: SUPABASE_URL is not set") && err.lines().count() == 1, "{err}");
    let (code, _, err) = ended(sidecar(&["init"]).env("SUPABASE_URL", "http://127.0.0.1:9"));
    assert_eq!(code, 2);
    assert!(err.contains("SUPABASE_SERVICE_ROLE_KEY") && err.lines().count() == 1, "{err}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let empty = ["SIDECAR_ROOT", "SIDECAR_SESSION", "SIDECAR_USER", "SIDECAR_LOG_FORMAT", "SIDECAR_JSON"];
    let dir = tempfile::tempdir().unwrap();
    let mut command = sidecar(&["init"]);
    command.current_dir(dir.path()).envs(empty.map(|name| (name, "")));
    let (code, _, err) = ended(command.env("SUPABASE_URL", "").env("SUPABASE_SECRET_KEY", ""));
    assert_eq!(code, 2);
    assert!(err.starts_with("error: SUPABASE_URL is not set"), "{err}");
}

#[test]
fn a_malformed_value_is_refused_with_what_it_should_be() {
    for (args, says) in [
        (["--quiet-window", "500"], "500ms"),
        (["--session", "one"], "USER/SESSION"),
        (["--select", "../x"], "id"),
        (["--probe-listen", "localhost"], "ADDR:PORT"),
        (["--chown", "node"], "UID:GID"),
        (["--lease", "redis"], "storage"),
    ] {
        let (code, _, err) = ended(&mut sidecar(&["run", args[0], args[1]]));
        assert_eq!(code, 2, "{args:?}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
}

#[test]
fn logs_and_errors_mask_the_phone_but_the_json_result_does_not() {
    let dir = tempfile::tempdir().unwrap();
    // The state directory cannot be opened: the error names its path.
    let root = dir.path().join(PHONE);
    std::fs::write(&root, "a file").unwrap();
    let args = ["status", "--json", "--root", root.to_str().unwrap()];
    let (code, out, err) = ended(&mut sidecar(&args));
    assert_eq!(code, 2);
    assert!(err.contains("55…66") && !err.contains(PHONE), "{err}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["error"]["code"], "bad_root");
    assert!(document["error"]["message"].as_str().unwrap().contains(PHONE), "{out}");
}

#[test]
fn with_json_logs_every_line_on_stderr_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["logout", "u/s", "--log-format", "json", "--root", &root(dir.path())];
    let (code, out, err) = ended(sidecar(&args).env("RUST_LOG", "no=such=filter"));
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(err.lines().count(), 2, "{err}");
    for line in err.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let mut child = sidecar(&["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
