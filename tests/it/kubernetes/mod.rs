//! The manifests of `k8s/`, and three foreign ones with the sidecar added: what they are checked for.

pub mod manifest;
mod rules;
mod schemas;
