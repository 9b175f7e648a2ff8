use std::ffi::OsString;

use super::*;
use crate::config::{Config, Flags, Place, Probes, RemoteConfig};
use crate::error::Code;
use crate::history::testing::pair;

fn args<A: clap::Args>(line: &str) -> A {
    let group = A::augment_args(clap::Command::new("group").no_binary_name(true));
    A::from_arg_matches(&group.get_matches_from(line.split_whitespace())).unwrap()
}

fn given(line: &str, variable: Option<&str>) -> Result<Keys> {
    keys(&args(line), &|name| variable.filter(|_| name == IDENTITY).map(OsString::from))
}

#[test]
fn recipients_come_as_flags_or_as_a_list_and_identities_from_a_file_or_a_variable() {
    let ((one, secret), (two, _)) = (pair(), pair());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.txt");
    std::fs::write(&file, format!("# created: today\n# public key: {one}\n{secret}\n")).unwrap();
    let named = format!("--identity-file {}", file.display());
    let flags = given(&format!("--recipient {one} --recipient {two} {named}"), None).unwrap();
    let list = given(&format!("--recipient {one},,{two} "), Some(&secret)).unwrap();
    assert_eq!((flags.fingerprints().len(), flags.fingerprints()), (2, list.fingerprints()));
    for keys in [flags, list] {
        keys.check_for_writing().unwrap();
    }
    assert!(!given("", None).unwrap().is_on());
    let both = given(&named, Some(&secret)).unwrap_err();
    assert!(both.to_string().contains("both given"), "{both}");
    std::fs::write(&file, "# nothing\n").unwrap();
    assert!(given(&named, None).unwrap_err().to_string().contains("only comments"));
    assert!(given("--identity-file /does/not/exist", None).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn a_mirror_beside_an_encrypted_history_is_refused_where_it_is_asked_for_and_off_where_it_is_not() {
    let (recipient, secret) = pair();
    let config = |encryption: &str, hold: &str| {
        let line = format!("--supabase-url http://127.0.0.1 --service-role-key k {encryption}");
        let remote =
            RemoteConfig::new(&args(&line), &|name| (name == IDENTITY).then(|| secret.clone().into()))?;
        let flags = Flags { hold: args(hold), ..Flags::default() };
        Config::new(Place::new(&args(""))?, remote, &flags, Probes::OnRequest)
    };
    let on = format!("--recipient {recipient}");
    assert!(!config(&on, "").unwrap().mirror && !config(&on, "--mirror off").unwrap().mirror);
    let error = config(&on, "--mirror on").unwrap_err();
    assert!(error.code() == Code::Usage && error.to_string().contains("--mirror"), "{error}");
    assert_eq!(config("", "").unwrap_err().code(), Code::Usage, "an identity alone writes nothing");
    assert!(config("--accept-plaintext", "").unwrap().mirror, "the way back");
}
