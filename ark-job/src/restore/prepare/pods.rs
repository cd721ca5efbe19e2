//! Pods and Jobs: what the scheduler, admission and the Job controller wrote into them.

use super::{map_mut, remove_keys};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Labels with a Job's UID: the Job that is created gets another.
const JOB_UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
pub(super) fn pod(object: &mut Value) {
    let Some(spec) = map_mut(object, "/spec") else {
        return;
    };
    spec.remove("nodeName");
    // Computed from the priority class, and refused when it differs.
    spec.remove("priority");
    // Can only be added to a running pod.
    spec.remove("ephemeralContainers");
    let account = spec
        .get("serviceAccountName")
        .and_then(Value::as_str)
        .unwrap_or("default");
    let prefix = format!("{account}-token-");
    let is_token = |entry: &Value| {
        entry["name"]
            .as_str()
            .is_some_and(|name| name.starts_with(&prefix))
    };
    // A volume of any other kind may have such a name by chance.
    let mut removed = BTreeSet::new();
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| {
            let token = is_token(volume) && volume.get("secret").is_some();
            if token && let Some(name) = volume["name"].as_str() {
                removed.insert(name.to_owned());
            }
            !token
        });
    }
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            {
                mounts.retain(|mount| {
                    !mount["name"]
                        .as_str()
                        .is_some_and(|name| removed.contains(name))
                });
            }
        }
    }
}

pub(super) fn job(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    // A Job without labels of its own is given those of its pods.
    remove_keys(object, "/metadata", "labels", &JOB_UID_LABELS);
    remove_keys(object, "/spec/selector", "matchLabels", &JOB_UID_LABELS);
    remove_keys(object, "/spec/template/metadata", "labels", &JOB_UID_LABELS);
    if let Some(spec) = map_mut(object, "/spec")
        && spec
            .get("selector")
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
    {
        spec.remove("selector");
    }
}
