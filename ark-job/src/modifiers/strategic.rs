//! Strategic merge patches, as `kubectl patch` makes them: like JSON merge patches, but that items of some lists are found
//! by a key. Which lists and keys is in the Go types of Kubernetes (`patchStrategy`, `patchMergeKey` of k8s.io/api); what
//! happens to them is as k8s.io/apimachinery's `strategicpatch` does it.

use crate::pod_spec;
use serde_json::{Map, Value};

/// The groups whose types have keys; a custom resource has none, and cannot be patched so.
const BUILT_IN: [&str; 22] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
/// Says in which order items are to be; they stay in the order they have, new ones last.
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// What happens to a list.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Strategy {
    /// It is replaced.
    Replace,
    /// Values that it lacks are added.
    Set,
    /// Items are found by this key and merged.
    By(&'static str),
}

/// Merges `patch` into an object of a built-in type.
///
/// # Errors
/// A sentence, when the type is not built in or the patch is not as it must be; `object` may be changed in part then.
pub(super) fn merge(resource: &str, object: &mut Value, patch: &Value) -> Result<(), String> {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    if !BUILT_IN.contains(&group) {
        return Err(format!(
            "{resource} is a custom resource, which has no strategic merge; use mergePatches or patches"
        ));
    }
    let (Some(object), Some(patch)) = (object.as_object_mut(), patch.as_object()) else {
        return Err("only objects can be merged".into());
    };
    merge_map(resource, &mut Vec::new(), object, patch)
}

fn merge_map<'a>(
    resource: &str,
    path: &mut Vec<&'a str>,
    original: &mut Map<String, Value>,
    patch: &'a Map<String, Value>,
) -> Result<(), String> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str()) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *original = new_map(patch);
            return Ok(());
        }
        Some(Some("delete")) => {
            original.clear();
            return Ok(());
        }
        Some(_) => {
            return Err(format!(
                "{DIRECTIVE} at {} is none of delete, merge and replace",
                shown(path)
            ));
        }
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        retain_keys(path, original, patch, retained)?;
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            let (Some(values), list) = (value.as_array(), original.get_mut(field)) else {
                return Err(format!("{key} at {} is no list", shown(path)));
            };
            if let Some(list) = list.and_then(Value::as_array_mut) {
                list.retain(|one| !values.contains(one));
            }
        } else if [DIRECTIVE, RETAIN_KEYS].contains(&key.as_str()) || key.starts_with(ORDER) {
            // Dealt with above, or not at all.
        } else if value.is_null() {
            original.remove(key);
        } else {
            path.push(key);
            match (original.get_mut(key), value) {
                (Some(Value::Object(original)), Value::Object(patch)) => {
                    merge_map(resource, path, original, patch)?;
                }
                (Some(Value::Array(original)), Value::Array(patch)) => {
                    merge_list(resource, path, original, patch)?;
                }
                _ => {
                    original.insert(key.clone(), new_value(value));
                }
            }
            path.pop();
        }
    }
    Ok(())
}

/// Takes away what is not to be retained: the other volume source, the other strategy.
fn retain_keys(
    path: &[&str],
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retained: &Value,
) -> Result<(), String> {
    let Some(retained) = retained.as_array() else {
        return Err(format!("{RETAIN_KEYS} at {} is no list", shown(path)));
    };
    let is_retained = |key: &String| retained.iter().any(|one| one.as_str() == Some(key));
    let lost = patch
        .iter()
        .find(|(key, value)| !key.starts_with('$') && !value.is_null() && !is_retained(key));
    if let Some((lost, _)) = lost {
        return Err(format!(
            "{RETAIN_KEYS} at {} does not name {lost}, which the patch has",
            shown(path)
        ));
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

fn merge_list<'a>(
    resource: &str,
    path: &mut Vec<&'a str>,
    original: &mut Vec<Value>,
    patch: &'a [Value],
) -> Result<(), String> {
    let key = match strategy(resource, path) {
        Strategy::Replace => {
            *original = new_list(patch);
            return Ok(());
        }
        Strategy::Set => {
            for value in patch {
                if !original.contains(value) {
                    original.push(value.clone());
                }
            }
            return Ok(());
        }
        Strategy::By(key) => key,
    };
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        *original = new_list(patch);
        return Ok(());
    }
    for item in patch {
        let (Some(map), Some(value)) = (item.as_object(), item.get(key)) else {
            return Err(format!("an item of {} has no {key}", shown(path)));
        };
        if item[DIRECTIVE] == "delete" {
            original.retain(|one| one.get(key) != Some(value));
            continue;
        }
        match position(original, key, value, item).map(|at| &mut original[at]) {
            Some(Value::Object(original)) => merge_map(resource, path, original, map)?,
            _ => original.push(new_map(map).into()),
        }
    }
    Ok(())
}

/// Which item is meant. A port may be there twice, with two protocols.
fn position(list: &[Value], key: &str, value: &Value, item: &Value) -> Option<usize> {
    let same = |one: &Value| one.get(key) == Some(value);
    let protocol = |one: &Value| one["protocol"].as_str().unwrap_or("TCP").to_owned();
    let exact = item.get("protocol").and_then(|_| {
        list.iter()
            .position(|one| same(one) && protocol(one) == protocol(item))
    });
    exact.or_else(|| list.iter().position(same))
}

/// What a patch brings where there was nothing: without directives and nulls.
fn new_value(value: &Value) -> Value {
    match value {
        Value::Object(map) => new_map(map).into(),
        Value::Array(list) => new_list(list).into(),
        plain => plain.clone(),
    }
}

fn new_map(map: &Map<String, Value>) -> Map<String, Value> {
    let is_directive = |key: &str| {
        [DIRECTIVE, RETAIN_KEYS].contains(&key)
            || key.starts_with(ORDER)
            || key.starts_with(DELETE_FROM)
    };
    map.iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), new_value(value)))
        .collect()
}

fn new_list(list: &[Value]) -> Vec<Value> {
    list.iter()
        .filter(|item| {
            !["delete", "replace"]
                .iter()
                .any(|word| item[DIRECTIVE] == *word)
        })
        .map(new_value)
        .collect()
}

fn shown(path: &[&str]) -> String {
    if path.is_empty() {
        "the top".to_owned()
    } else {
        path.join(".")
    }
}

/// What happens to the list at `path` (without the indices).
fn strategy(resource: &str, path: &[&str]) -> Strategy {
    let joined = path.join("/");
    if let Some(spec) = pod_spec::pointer(resource)
        && let Some(rest) = format!("/{joined}").strip_prefix(&format!("{spec}/"))
    {
        return in_pods(rest);
    }
    match (resource, joined.as_str()) {
        (_, at) if at.ends_with("metadata/finalizers") => Strategy::Set,
        (_, at) if at.ends_with("metadata/ownerReferences") => Strategy::By("uid"),
        ("services", "spec/ports") => Strategy::By("port"),
        ("serviceaccounts", "secrets" | "imagePullSecrets") => Strategy::By("name"),
        (
            "validatingwebhookconfigurations.admissionregistration.k8s.io"
            | "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            "webhooks" | "webhooks/matchConditions",
        )
        | (
            "validatingadmissionpolicies.admissionregistration.k8s.io"
            | "mutatingadmissionpolicies.admissionregistration.k8s.io",
            "spec/matchConditions" | "spec/variables",
        ) => Strategy::By("name"),
        _ => Strategy::Replace,
    }
}

fn in_pods(path: &str) -> Strategy {
    match path {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => return Strategy::By("name"),
        "hostAliases" => return Strategy::By("ip"),
        "topologySpreadConstraints" => return Strategy::By("topologyKey"),
        _ => {}
    }
    match path.split_once('/') {
        Some(("containers" | "initContainers" | "ephemeralContainers", list)) => match list {
            "env" => Strategy::By("name"),
            "ports" => Strategy::By("containerPort"),
            "volumeMounts" => Strategy::By("mountPath"),
            "volumeDevices" => Strategy::By("devicePath"),
            _ => Strategy::Replace,
        },
        _ => Strategy::Replace,
    }
}
