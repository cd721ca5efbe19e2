//! Merging pod settings: what is missing in one description of a pod is filled in from another.
//!
//! Works on JSON, like kubectl's strategic merge patch, for the lists that a pod template has. It knows nothing of what
//! Ark needs.

use serde_json::{Map, Value};

/// How two lists under the same key are merged.
enum Lists {
    /// Elements with the same value under this key are merged field by field.
    Merge(&'static str),
    /// An element replaces the one with the same value under this key: its fields exclude each other.
    Replace(&'static str),
    /// Elements that are not there yet are appended.
    Append,
    /// The second list replaces the first.
    Whole,
}

fn strategy(key: &str) -> Lists {
    match key {
        "containers" | "initContainers" => Lists::Merge("name"),
        "env" | "volumes" | "imagePullSecrets" => Lists::Replace("name"),
        "volumeMounts" => Lists::Replace("mountPath"),
        "tolerations" | "envFrom" => Lists::Append,
        _ => Lists::Whole,
    }
}

/// Puts `overlay` over `base`: objects are merged, lists by their elements' names, `null` removes, all else replaces.
pub fn merge(base: &mut Value, overlay: Value) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => merge_objects(base, overlay),
        (base, overlay) => *base = overlay,
    }
}

fn merge_objects(base: &mut Map<String, Value>, overlay: Map<String, Value>) {
    for (key, value) in overlay {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => {
                base.shift_remove(&key);
            }
            (Some(Value::Array(old)), Value::Array(new)) => merge_lists(old, new, strategy(&key)),
            (Some(old), value) => merge(old, value),
            (None, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn merge_lists(old: &mut Vec<Value>, new: Vec<Value>, strategy: Lists) {
    match strategy {
        Lists::Whole => *old = new,
        Lists::Append => {
            for element in new {
                if !old.contains(&element) {
                    old.push(element);
                }
            }
        }
        Lists::Merge(key) | Lists::Replace(key) => {
            let deep = matches!(strategy, Lists::Merge(_));
            for element in new {
                let same = old
                    .iter_mut()
                    .find(|one| one.get(key).is_some() && one.get(key) == element.get(key));
                match same {
                    Some(one) if deep => merge(one, element),
                    Some(one) => *one = element,
                    None => old.push(element),
                }
            }
        }
    }
}

/// Removes from a pod template what the API server puts in by itself, so that what is left is what someone wrote.
pub fn without_server_defaults(template: &mut Value) {
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let defaults = [
        ("dnsPolicy", Value::from("ClusterFirst")),
        ("restartPolicy", Value::from("Always")),
        ("schedulerName", Value::from("default-scheduler")),
        ("terminationGracePeriodSeconds", Value::from(30)),
        ("securityContext", Value::Object(Map::new())),
    ];
    for (key, default) in defaults {
        if spec.get(key) == Some(&default) {
            spec.shift_remove(key);
        }
    }
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let defaults = [
                ("terminationMessagePath", "/dev/termination-log"),
                ("terminationMessagePolicy", "File"),
            ];
            for (key, default) in defaults {
                if container.get(key).and_then(Value::as_str) == Some(default) {
                    container.shift_remove(key);
                }
            }
            if container.get("resources") == Some(&Value::Object(Map::new())) {
                container.shift_remove("resources");
            }
            // Kept, the policy of the image that is there would become that of the next one.
            let image = container.get("image").and_then(Value::as_str);
            let default = image.map(default_pull_policy);
            if default.is_some()
                && container.get("imagePullPolicy").and_then(Value::as_str) == default
            {
                container.shift_remove("imagePullPolicy");
            }
        }
    }
}

/// When the API server lets an image be pulled if nobody says so: always, when its tag moves.
pub fn default_pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    match name.split_once(':').map(|(_, tag)| tag) {
        Some("latest") => "Always",
        None if digest.is_none() => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut base: Value, overlay: Value) -> Value {
        merge(&mut base, overlay);
        base
    }

    #[test]
    fn containers_are_merged_by_name() {
        assert_eq!(
            merged(
                json!({"containers": [{"name": "proxy", "image": "p"}, {"name": "ark-job", "image": "i", "args": ["a"]}]}),
                json!({"containers": [{"name": "ark-job", "args": ["b", "c"], "stdin": true}]}),
            ),
            json!({"containers": [
                {"name": "proxy", "image": "p"},
                {"name": "ark-job", "image": "i", "args": ["b", "c"], "stdin": true},
            ]}),
        );
    }

    #[test]
    fn a_variable_is_replaced_as_a_whole() {
        assert_eq!(
            merged(
                json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}),
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "C"}]}),
            ),
            json!({"env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "B", "value": "2"},
                {"name": "C"},
            ]}),
        );
    }

    #[test]
    fn tolerations_are_appended_once() {
        assert_eq!(
            merged(
                json!({"tolerations": [{"key": "a"}]}),
                json!({"tolerations": [{"key": "a"}, {"key": "b"}]})
            ),
            json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
        );
    }

    #[test]
    fn null_removes() {
        assert_eq!(
            merged(
                json!({"securityContext": {"runAsUser": 65532, "runAsNonRoot": true}}),
                json!({"securityContext": {"runAsUser": null}})
            ),
            json!({"securityContext": {"runAsNonRoot": true}}),
        );
    }

    #[test]
    fn the_servers_defaults_are_removed_and_nothing_else() {
        let mut template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "restartPolicy": "Always", "dnsPolicy": "Default", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {},
            "containers": [{"name": "ark-job", "image": "i", "resources": {}, "terminationMessagePolicy": "File",
                "terminationMessagePath": "/dev/termination-log"}],
        }});
        without_server_defaults(&mut template);
        assert_eq!(
            template,
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {
                "dnsPolicy": "Default", "containers": [{"name": "ark-job", "image": "i"}],
            }}),
        );
    }

    #[test]
    fn the_pull_policy_of_one_image_does_not_become_that_of_the_next() {
        let left = |image: &str, policy: &str| {
            let mut template =
                json!({"spec": {"containers": [{"image": image, "imagePullPolicy": policy}]}});
            without_server_defaults(&mut template);
            template["spec"]["containers"][0]
                .get("imagePullPolicy")
                .is_some()
        };
        for moving in [
            "ark-job",
            "host:5000/ark-job",
            "ark-job:latest",
            "a/ark-job:latest@sha256:0",
        ] {
            assert!(
                !left(moving, "Always") && left(moving, "IfNotPresent"),
                "{moving}"
            );
        }
        for fixed in ["ark-job:v1", "host:5000/ark-job:v1", "ark-job@sha256:0"] {
            assert!(
                !left(fixed, "IfNotPresent") && left(fixed, "Always"),
                "{fixed}"
            );
        }
        assert!(left("ark-job:v1", "Never"));
    }
}
