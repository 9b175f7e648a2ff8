//! Every manifest against the schemas of Kubernetes, strictly.

use std::path::Path;

use super::manifest::{all, here, rendered, tool};

/// The oldest with native sidecars, and the newest whose schemas are at hand.
const VERSIONS: [&str; 2] = ["1.29", "1.36"];
/// Kinds that others define: nobody here knows their schemas.
const FOREIGN: [&str; 1] = ["PodMonitor"];

fn validated(version: &str, files: &[&Path]) -> (bool, String) {
    let mut command = tool("kubernetes-validate/bin/kubernetes-validate");
    let output = command.args(["-k", version, "--strict"]).args(files).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn every_overlay_and_every_foreign_manifest_is_what_kubernetes_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut files, mut documents) = (Vec::new(), 0);
    for (number, name) in all().into_iter().enumerate() {
        let known: Vec<String> = rendered(&name)
            .split("\n---\n")
            .filter(|text| !FOREIGN.iter().any(|kind| text.contains(&format!("\nkind: {kind}\n"))))
            .map(str::to_owned)
            .collect();
        documents += known.len();
        let file = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&file, known.join("\n---\n")).unwrap();
        files.push(file);
    }
    files.extend(["secret", "configmap"].map(|name| here(&format!("k8s/examples/{name}.yaml"))));
    documents += 3;
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    for version in VERSIONS {
        let (well, said) = validated(version, &files);
        let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
        assert!(well && !said.contains("WARN") && passed == documents, "{version}, of {documents}: {said}");
    }
}

#[test]
fn a_manifest_with_a_typing_error_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.yaml");
    for (right, wrong) in
        [("startupProbe:", "startUpProbe:"), ("failureThreshold: 300", "failureThreshold: \"300\"")]
    {
        let text = rendered("k8s/overlays/native");
        assert!(text.contains(right));
        std::fs::write(&file, text.replace(right, wrong)).unwrap();
        let (well, said) = validated(VERSIONS[0], &[&file]);
        assert!(!well && said.contains("ERROR"), "{said}");
    }
}
