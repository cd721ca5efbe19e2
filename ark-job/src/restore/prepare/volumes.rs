//! Persistent volumes, their claims, and the storage classes that they name.

use super::references::{each, pod_spec};
use super::{Rules, map_mut, remove_keys};
use crate::restore::order::{CLAIMS, VOLUMES};
use crate::restore::volumes::ORIGINAL_NAME_ANNOTATION;
use serde_json::Value;

/// What the volume binder, the provisioner and the scheduler have noted on a claim.
const CLAIM_ANNOTATIONS: [&str; 5] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
];
/// The only annotations that a persistent volume keeps: without the first its provisioner could not delete it later.
const VOLUME_ANNOTATIONS: [&str; 4] = [
    "pv.kubernetes.io/provisioned-by",
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
    // And what says of a copy how its original is called.
    ORIGINAL_NAME_ANNOTATION,
];
/// What made a claim take part in dynamic provisioning before classes were a field. It still wins over the field
/// (`GetPersistentVolumeClass` in k8s.io/component-helpers).
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn claim(object: &mut Value, rules: &Rules) {
    remove_keys(object, "/metadata", "annotations", &CLAIM_ANNOTATIONS);
    rules.volumes.detach_claim(object);
    rules.volumes.rename(CLAIMS, object);
    let Some(spec) = map_mut(object, "/spec") else {
        return;
    };
    let volume = spec.get("volumeName").and_then(Value::as_str);
    // A volume that comes back as it is has a claimRef, and binds all the same.
    if rules.without_volumes || volume.is_some_and(|volume| rules.reprovisioned.contains(volume)) {
        spec.remove("volumeName");
    }
    if rules.without_volumes {
        for source in ["dataSource", "dataSourceRef"] {
            let is_snapshot = spec
                .get(source)
                .is_some_and(|source| source["kind"] == "VolumeSnapshot");
            if is_snapshot {
                spec.remove(source);
            }
        }
    }
}

pub(super) fn volume(object: &mut Value, rules: &Rules) {
    let class = object["metadata"]["annotations"]
        .get(CLASS_ANNOTATION)
        .filter(|class| class.is_string())
        .cloned();
    if let (Some(class), Some(spec)) = (class, map_mut(object, "/spec")) {
        spec.insert("storageClassName".into(), class);
    }
    if let Some(metadata) = map_mut(object, "/metadata")
        && let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| VOLUME_ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    // Name and namespace stay: they reserve the volume for its claim.
    if let Some(claim) = map_mut(object, "/spec/claimRef") {
        claim.remove("uid");
        claim.remove("resourceVersion");
    }
    rules.volumes.detach_disk(object);
    rules.volumes.rename(VOLUMES, object);
}

/// Puts the cluster's storage classes in the place of the backup's, wherever one is asked for.
pub(super) fn map_storage_classes(resource: &str, object: &mut Value, rules: &Rules) {
    let classes = &rules.storage_classes;
    if classes.is_empty() {
        return;
    }
    let mut map = |class: &mut Value| {
        let target = class.as_str().and_then(|class| classes.get(class));
        if let Some(target) = target {
            *class = Value::from(target.as_str());
        }
    };
    match resource {
        "persistentvolumes" => each(object, "spec/storageClassName", &mut map),
        "persistentvolumeclaims" => {
            each(object, "spec/storageClassName", &mut map);
            let annotations = object.pointer_mut("/metadata/annotations");
            if let Some(class) = annotations.and_then(|all| all.get_mut(CLASS_ANNOTATION)) {
                map(class);
            }
        }
        "statefulsets.apps" => each(
            object,
            "spec/volumeClaimTemplates/*/spec/storageClassName",
            &mut map,
        ),
        _ => {}
    }
    if let Some(spec) = pod_spec(resource, object) {
        each(
            spec,
            "volumes/*/ephemeral/volumeClaimTemplate/spec/storageClassName",
            &mut map,
        );
    }
}
