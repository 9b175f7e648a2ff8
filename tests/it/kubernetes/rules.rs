//! What the schemas do not know: Pod Security, and numbers and words that have to fit the program.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};
use session_sidecar::cli::{self, Cli, Command};

use super::manifest::{Container, IMAGE, Manifest, all};

/// How long Kubernetes lets a bot take by itself: what bots are made for.
const BOT: Duration = Duration::from_secs(30);
/// Between the last end and the kill.
const SPARE: Duration = Duration::from_secs(5);

fn every(check: impl Fn(&str, &Manifest)) {
    for name in all() {
        check(&name, &Manifest::of(&name));
    }
}

/// What Pod Security `restricted` forbids.
fn forbidden(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field] == true {
            found.push(field.to_owned());
        }
    }
    let volumes = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        if !volumes.contains(&kind.as_str()) {
            found.push(format!("volume {kind}"));
        }
    }
    let shared = &pod["securityContext"];
    for container in
        ["initContainers", "containers"].iter().filter_map(|field| pod[field].as_array()).flatten()
    {
        let own = &container["securityContext"];
        let either = |field: &str| if own[field].is_null() { &shared[field] } else { &own[field] };
        let mut wrong = |what: &str| found.push(format!("{}: {what}", container["name"]));
        if either("runAsNonRoot") != true {
            wrong("may run as root");
        }
        if either("runAsUser") == 0 {
            wrong("runs as root");
        }
        if !["RuntimeDefault", "Localhost"].iter().any(|kind| either("seccompProfile")["type"] == *kind) {
            wrong("no seccomp profile");
        }
        if own["allowPrivilegeEscalation"] != false || own["privileged"] == true {
            wrong("privileges");
        }
        let added = own["capabilities"]["add"].as_array().into_iter().flatten();
        if own["capabilities"]["drop"] != json!(["ALL"])
            || added.filter(|name| *name != "NET_BIND_SERVICE").count() > 0
        {
            wrong("capabilities");
        }
        let ports = container["ports"].as_array().into_iter().flatten();
        if ports.filter(|port| !port["hostPort"].is_null()).count() > 0 {
            wrong("hostPort");
        }
    }
    found
}

#[test]
fn every_pod_is_one_that_pod_security_restricted_lets_in() {
    every(|name, manifest| assert_eq!(forbidden(manifest.pod()), Vec::<String>::new(), "{name}"));
}

#[test]
fn a_pod_that_is_not_is_found() {
    let pod = Manifest::of("k8s/overlays/native").pod().clone();
    for (path, value) in [
        ("/hostNetwork", json!(true)),
        ("/volumes/0", json!({"name": "x", "hostPath": {"path": "/"}})),
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/seccompProfile", Value::Null),
        ("/initContainers/0/securityContext", Value::Null),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/containers/0/securityContext/capabilities/drop", json!([])),
        ("/initContainers/0/ports/0/hostPort", json!(3081)),
    ] {
        let mut wrong = pod.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        match wrong.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[field.parse::<usize>().unwrap()] = value,
            object => object[field] = value,
        }
        assert!(!forbidden(&wrong).is_empty(), "{path}");
    }
}

#[test]
fn all_containers_of_a_pod_have_one_uid_and_own_the_volume() {
    every(|name, manifest| {
        let shared = &manifest.pod()["securityContext"];
        let uids: BTreeSet<u64> = manifest
            .every_container()
            .iter()
            .map(|it| {
                it.spec["securityContext"]["runAsUser"].as_u64().or(shared["runAsUser"].as_u64()).unwrap()
            })
            .collect();
        assert_eq!(uids.into_iter().collect::<Vec<_>>(), [shared["fsGroup"].as_u64().unwrap()], "{name}");
    });
}

#[test]
fn there_is_one_pod_that_ends_before_the_next_one_starts() {
    every(|name, manifest| {
        let workload = manifest.workload();
        let spec = &workload["spec"];
        match workload["kind"].as_str().unwrap() {
            "Deployment" => {
                assert_eq!(
                    (&spec["replicas"], &spec["strategy"]),
                    (&json!(1), &json!({"type": "Recreate"})),
                    "{name}"
                );
            }
            "StatefulSet" => assert_eq!(spec["replicas"], 1, "{name}"),
            _ => assert!(spec["parallelism"].is_null(), "{name}"),
        }
    });
}

#[test]
fn every_image_has_a_tag_and_the_runner_is_in_the_one_that_needs_it() {
    every(|name, manifest| {
        for container in manifest.every_container() {
            let image = container.spec["image"].as_str().unwrap();
            let tag = image.rsplit('/').next().unwrap().split_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image}");
            if container.is_ours() {
                let full = container.args()[0] == "runner";
                let wanted = env!("CARGO_PKG_VERSION");
                assert_eq!(image, format!("{IMAGE}{wanted}{}", if full { "-full" } else { "" }), "{name}");
            }
        }
    });
}

/// Its arguments and variables as the program understands them.
fn understood(name: &str, container: Container<'_>) -> Option<Cli> {
    let args = container.args();
    let mut program = cli::command();
    program.build();
    let Some(command) = program.find_subcommand_mut(args[0]) else {
        // Not in every build of the program.
        assert_eq!(args[0], "migrate", "{name}");
        return None;
    };
    let help = command.render_long_help().to_string();
    let mut words: Vec<OsString> =
        ["session-sidecar"].into_iter().chain(args.iter().copied()).map(Into::into).collect();
    for (variable, value) in container.env() {
        let Some(value) = value else {
            assert_eq!(variable, "POD_UID", "{name}: no other field of the pod is understood");
            continue;
        };
        let named = variable.strip_suffix("_FILE").unwrap_or(&variable);
        let flag = command.get_arguments().find(|arg| arg.get_env().is_some_and(|env| *env == *variable));
        match flag.and_then(clap::Arg::get_long) {
            Some(long) => words.push(format!("--{long}={value}").into()),
            // Read apart from the flags; `migrate` needs less of a map that pods share.
            None => assert!(help.contains(named), "{name}: `{} --help` does not know {variable}", args[0]),
        }
    }
    Some(cli::parse(words.clone()).unwrap_or_else(|error| panic!("{name}: {words:?}: {error}")))
}

#[test]
fn every_argument_and_variable_of_ours_is_one_of_the_program() {
    every(|name, manifest| {
        let ours: Vec<_> = manifest.every_container().into_iter().filter(Container::is_ours).collect();
        assert!(!ours.is_empty(), "{name}");
        for container in ours {
            understood(name, container);
            let env = container.env();
            let given = if container.args()[0] == "runner" {
                "API_TOKEN_FILE"
            } else {
                "SUPABASE_SERVICE_ROLE_KEY_FILE"
            };
            let path = env[given].as_ref().unwrap();
            assert!(container.mounts().keys().any(|mount| path.starts_with(mount)), "{name}: {path}");
        }
    });
}

#[test]
fn probes_and_periods_fit_what_the_program_takes_its_time_for() {
    every(|name, manifest| {
        let ends = Duration::from_secs(manifest.grace());
        for container in manifest.every_container().into_iter().filter(Container::is_ours) {
            match understood(name, container).map(|cli| cli.command) {
                Some(Command::Run(run)) => {
                    assert!(container.is_native_sidecar(), "{name}");
                    assert!(ends >= BOT + run.watch.grace + SPARE, "{name}: {ends:?}");
                    assert!(container.spec["livenessProbe"].is_null(), "{name}");
                    let probe = &container.spec["startupProbe"];
                    assert_eq!(probe["httpGet"], json!({"path": "/readyz", "port": 3081}), "{name}");
                    let seconds = probe["periodSeconds"].as_u64().unwrap()
                        * probe["failureThreshold"].as_u64().unwrap();
                    let longest = run.hold.lease_wait + run.hold.outage_wait;
                    assert!(
                        Duration::from_secs(seconds) >= longest + Duration::from_mins(2),
                        "{name}: {seconds} s"
                    );
                    assert!(container.env().contains_key("POD_UID"), "{name}");
                }
                Some(Command::Watch(watch)) => {
                    assert!(ends >= watch.watch.grace + SPARE && watch.watch.grace > BOT, "{name}: {ends:?}");
                    assert!(container.spec["livenessProbe"].is_null(), "{name}");
                    assert!(container.env().contains_key("POD_UID"), "{name}");
                }
                _ => {}
            }
        }
    });
}

#[test]
fn the_bot_has_the_sidecars_volume_and_ends_when_another_pod_has_its_session() {
    every(|name, manifest| {
        if manifest.workload()["kind"] == "Job" {
            return;
        }
        let keeper = |it: &Container<'_>| it.is_ours() && ["run", "watch"].contains(&it.args()[0]);
        let has = |it: &Container<'_>| it.mounts().values().any(|volume| *volume == "sessions");
        let bots: Vec<_> = manifest.mains().into_iter().filter(|it| !keeper(it) && has(it)).collect();
        assert_eq!(bots.len(), 1, "{name}");
        assert_eq!(
            bots[0].spec["livenessProbe"]["httpGet"],
            json!({"path": "/leasez", "port": 3081}),
            "{name}"
        );
        let keepers: Vec<_> = manifest.every_container().into_iter().filter(keeper).collect();
        assert!(keepers.len() == 1 && has(&keepers[0]), "{name}");
        // On the disk, whose fsync counts.
        for volume in manifest.pod()["volumes"].as_array().into_iter().flatten() {
            if volume["name"] == "sessions" {
                assert!(
                    volume["emptyDir"]["medium"].is_null() && volume["emptyDir"]["sizeLimit"].is_string(),
                    "{name}"
                );
            }
        }
    });
}

#[test]
fn a_foreign_pod_keeps_all_that_it_had_but_what_endangers_its_session() {
    let foreign = Manifest::of("tests/kubernetes/statefulset");
    let gateway = &foreign.mains()[0];
    assert_eq!(gateway.mounts()["/var/lib/gateway/media"], "media");
    assert_eq!(gateway.mounts()["/sessions"], "sessions");
    assert!(foreign.inits().iter().any(|it| it.name() == "wait-for-database"));
    assert!(foreign.workload()["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "media");
    let proxy = Manifest::of("tests/kubernetes/two-containers");
    let proxy = proxy.mains().into_iter().find(|it| it.name() == "proxy").unwrap();
    assert_eq!(proxy.spec["livenessProbe"]["httpGet"]["port"], 9901);
    assert!(proxy.mounts().len() == 1);
}
