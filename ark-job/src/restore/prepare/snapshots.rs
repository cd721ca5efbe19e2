//! The user's own volumeSnapshots: they come back for the snapshot that was taken, whoever has its volume now.
//!
//! As they are, they would take a new snapshot of a volume that is no longer what it was. As Velero does, and also where the
//! original is in the cluster: both sides are compared in this form.

use super::{Rules, map_mut};
use crate::restore::volumes::content_name;
use serde_json::{Value, json};

/// A volumeSnapshot of a content, in the place of one of a claim.
pub(super) fn snapshot(object: &mut Value, rules: &Rules) {
    let bound = object.pointer("/status/boundVolumeSnapshotContentName");
    let bound = bound.and_then(Value::as_str).map(str::to_owned);
    let source = namespace_of(object, "/metadata/namespace");
    let Some(spec) = map_mut(object, "/spec") else {
        return;
    };
    let named = spec
        .get("source")
        .and_then(|source| source["volumeSnapshotContentName"].as_str());
    let content = named.map(str::to_owned).or(bound);
    if let Some(content) = content {
        let name = mapped(&content, source.as_deref(), rules);
        spec.insert("source".into(), json!({"volumeSnapshotContentName": name}));
    }
}

/// A content of a handle, in the place of one of a volume. Deleted, it leaves the snapshot, which may be the original's, too.
pub(super) fn content(object: &mut Value, rules: &Rules) {
    let taken = object.pointer("/status/snapshotHandle").cloned();
    let source = namespace_of(object, "/spec/volumeSnapshotRef/namespace");
    if let Some(spec) = map_mut(object, "/spec") {
        let handle = spec
            .get("source")
            .and_then(|source| source.get("snapshotHandle"));
        if let Some(handle) = handle.cloned().or(taken) {
            spec.insert("source".into(), json!({"snapshotHandle": handle}));
        }
        spec.insert("deletionPolicy".into(), "Retain".into());
    }
    if let Some(reference) = map_mut(object, "/spec/volumeSnapshotRef") {
        reference.remove("uid");
        reference.remove("resourceVersion");
    }
    if let Some(name) = object.pointer_mut("/metadata/name")
        && let Some(text) = name.as_str()
    {
        *name = Value::from(mapped(text, source.as_deref(), rules));
    }
}

fn namespace_of(object: &Value, place: &str) -> Option<String> {
    object.pointer(place)?.as_str().map(str::to_owned)
}

/// The name of a content: another where its namespace is called otherwise, since the original may be in the cluster.
fn mapped(content: &str, source: Option<&str>, rules: &Rules) -> String {
    match source.and_then(|source| rules.namespaces.get(source)) {
        Some(target) => content_name(target, content),
        None => content.to_owned(),
    }
}
