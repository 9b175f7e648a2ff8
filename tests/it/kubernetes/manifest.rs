//! Manifests as `kubectl kustomize` renders them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize as _;
use serde_json::Value;

/// This project's image; its tag tells what is in it.
pub const IMAGE: &str = "ghcr.io/session-sidecar/session-sidecar:";

pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What `tests/run.sh` installs below `target/tools`.
pub fn tool(path: &str) -> Command {
    let program = here("target/tools").join(path);
    assert!(program.exists(), "no {path}: tests/run.sh installs it");
    Command::new(program)
}

/// The text of each of [`all`]. Rendered once: it takes its time.
pub fn rendered(dir: &str) -> &'static str {
    static RENDERED: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let render = |dir: String| {
            let output = tool("kubectl/kubectl").arg("kustomize").arg(here(&dir)).output().unwrap();
            assert!(output.status.success(), "{dir}: {}", String::from_utf8_lossy(&output.stderr));
            (dir, String::from_utf8(output.stdout).unwrap())
        };
        all().into_iter().map(render).collect()
    });
    &RENDERED[dir]
}

/// Every overlay, and every foreign manifest with the sidecar in it.
pub fn all() -> Vec<String> {
    let mut found = Vec::new();
    for parent in ["k8s/overlays", "tests/kubernetes"] {
        for entry in std::fs::read_dir(here(parent)).unwrap() {
            found.push(format!("{parent}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    found.sort();
    assert!(found.len() >= 13, "{found:?}");
    found
}

/// One of [`all`], taken apart.
pub struct Manifest {
    pub documents: Vec<Value>,
}

impl Manifest {
    pub fn of(dir: &str) -> Self {
        Self::parse(rendered(dir))
    }

    pub fn parse(text: &str) -> Self {
        let documents = serde_yaml_ng::Deserializer::from_str(text);
        Self { documents: documents.map(|document| Value::deserialize(document).unwrap()).collect() }
    }

    /// What makes the pod: one a manifest.
    pub fn workload(&self) -> &Value {
        let kinds = ["Deployment", "StatefulSet", "Job"];
        let mut found = self.documents.iter().filter(|it| kinds.contains(&it["kind"].as_str().unwrap()));
        let workload = found.next().unwrap();
        assert!(found.next().is_none(), "one workload a manifest");
        workload
    }

    pub fn pod(&self) -> &Value {
        &self.workload()["spec"]["template"]["spec"]
    }

    pub fn inits(&self) -> Vec<Container<'_>> {
        self.containers("initContainers")
    }

    pub fn mains(&self) -> Vec<Container<'_>> {
        self.containers("containers")
    }

    pub fn every_container(&self) -> Vec<Container<'_>> {
        self.inits().into_iter().chain(self.mains()).collect()
    }

    fn containers(&self, field: &str) -> Vec<Container<'_>> {
        let list = self.pod()[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(|spec| Container { manifest: self, spec }).collect()
    }

    /// From the first signal to the kill, in seconds.
    pub fn grace(&self) -> u64 {
        self.pod()["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)
    }
}

#[derive(Clone, Copy)]
pub struct Container<'a> {
    manifest: &'a Manifest,
    pub spec: &'a Value,
}

impl Container<'_> {
    pub fn name(&self) -> &str {
        self.spec["name"].as_str().unwrap()
    }

    /// A container of this project's image.
    pub fn is_ours(&self) -> bool {
        self.spec["image"].as_str().unwrap().starts_with(IMAGE)
    }

    pub fn is_native_sidecar(&self) -> bool {
        self.spec["restartPolicy"] == "Always"
    }

    pub fn args(&self) -> Vec<&str> {
        let args = self.spec["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        args.iter().map(|arg| arg.as_str().unwrap()).collect()
    }

    /// What it has as environment; fields of the pod as `None`.
    pub fn env(&self) -> BTreeMap<String, Option<String>> {
        let mut env = BTreeMap::new();
        for from in self.spec["envFrom"].as_array().into_iter().flatten() {
            let name = &from["configMapRef"]["name"];
            let is_it = |it: &&Value| it["kind"] == "ConfigMap" && it["metadata"]["name"] == *name;
            let map = self.manifest.documents.iter().find(is_it).unwrap();
            for (key, value) in map["data"].as_object().unwrap() {
                env.insert(key.clone(), Some(value.as_str().unwrap().to_owned()));
            }
        }
        for entry in self.spec["env"].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap().to_owned();
            let value = entry["value"].as_str().map(str::to_owned);
            assert!(value.is_some() || entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid");
            env.insert(name, value);
        }
        env
    }

    /// Volumes by the path where they are mounted.
    pub fn mounts(&self) -> BTreeMap<&str, &str> {
        let mounts = self.spec["volumeMounts"].as_array().into_iter().flatten();
        mounts.map(|it| (it["mountPath"].as_str().unwrap(), it["name"].as_str().unwrap())).collect()
    }
}
