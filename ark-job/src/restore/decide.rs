//! What becomes of an object that is in the cluster already. Pure.

use super::compare::{Difference, comparable, differences, merge_patch};
use super::order::{CLAIMS, DEFINITIONS, NAMESPACES, VOLUMES};
use super::prepare::{Rules, normalise};
use crate::api::RESTORE_LABEL;
use crate::args::ExistingPolicy;
use serde_json::{Value, json};

/// Deleted, these take with them what they hold: objects, disks, a whole API.
const NEVER_RECREATED: [&str; 8] = [
    NAMESPACES,
    DEFINITIONS,
    VOLUMES,
    CLAIMS,
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    "apiservices.apiregistration.k8s.io",
];
/// What the control plane of most clusters runs in: nobody deletes anything there who does not say so.
pub const SYSTEM: &str = "kube-system";

/// What is done with an object that exists and is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Leave,
    /// It is patched.
    Update,
    /// It is deleted and created again.
    Recreate,
}

/// What was asked for objects that exist and are different.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// The policy.
    pub existing: ExistingPolicy,
    /// Whether `kube-system` was named among the included namespaces.
    pub system_named: bool,
    /// Whether namespaces are mapped: a copy is made beside an original, which goes on using what is the cluster's.
    pub mapped: bool,
}

impl Policy {
    /// What is done with an object of `resource` in the target's `namespace`.
    pub fn way(self, resource: &str, namespace: Option<&str>) -> Way {
        let shared = namespace.is_none() && ![NAMESPACES, DEFINITIONS].contains(&resource);
        match self.existing {
            _ if self.mapped && shared => Way::Leave,
            ExistingPolicy::None => Way::Leave,
            ExistingPolicy::Update => Way::Update,
            ExistingPolicy::Recreate => {
                let unnamed = namespace == Some(SYSTEM) && !self.system_named;
                if unnamed || NEVER_RECREATED.contains(&resource) {
                    Way::Update
                } else {
                    Way::Recreate
                }
            }
        }
    }
}

/// An object in the cluster beside the one of the backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The cluster's, as it is compared.
    pub live: Value,
    /// What is different.
    pub differences: Vec<Difference>,
    /// The JSON merge patch that would make the cluster's that of the backup; it does nothing to a newer version.
    pub patch: Value,
}

impl Comparison {
    /// Compares a prepared object of the backup with one that was read from the cluster.
    pub fn new(resource: &str, backup: Value, live: Value, of_live: &Rules) -> Comparison {
        let version = live.pointer("/metadata/resourceVersion").cloned();
        let live = as_compared(resource, live, of_live);
        let mut backup = backup;
        of_live.without_hooks(resource, &mut backup);
        let backup = comparable(resource, backup);
        let mut patch = merge_patch(&backup, &live);
        if let Some(version) = version {
            put(&mut patch, "metadata", "resourceVersion", version);
        }
        Comparison {
            differences: differences(&backup, &live),
            live,
            patch,
        }
    }

    /// Compares an object of the cluster with what a JSON merge patch makes of it.
    pub fn of_patch(resource: &str, patch: Value, live: Value, of_live: &Rules) -> Comparison {
        let mut patched = live.clone();
        json_patch::merge(&mut patched, &patch);
        normalise(resource, &mut patched, of_live);
        let mut comparison = Comparison::new(resource, patched, live, of_live);
        let version = comparison.patch["metadata"]["resourceVersion"].take();
        comparison.patch = patch;
        if !version.is_null() {
            put(
                &mut comparison.patch,
                "metadata",
                "resourceVersion",
                version,
            );
        }
        comparison
    }

    /// What the patch changes, by the answer to its dry run; what the API server's defaulting undoes is no difference.
    pub fn confirmed(&self, resource: &str, answer: Value, of_live: &Rules) -> Vec<Difference> {
        differences(&as_compared(resource, answer, of_live), &self.live)
    }

    /// The patch, with the restore's label.
    pub fn labelled_patch(&self, label: &str) -> Value {
        let mut patch = self.patch.clone();
        if patch["metadata"].get("labels").is_some_and(Value::is_null) {
            // All labels of the cluster's go: each by name, since ours is to come.
            let names = self.live["metadata"]["labels"].as_object();
            let gone = names.into_iter().flatten().map(|(name, _)| name.clone());
            patch["metadata"]["labels"] = gone.map(|name| (name, Value::Null)).collect();
        }
        put(&mut patch, "metadata", "labels", json!({}));
        patch["metadata"]["labels"][RESTORE_LABEL] = Value::from(label);
        patch
    }
}

/// An object of the cluster, as it is compared.
pub fn as_compared(resource: &str, mut live: Value, of_live: &Rules) -> Value {
    normalise(resource, &mut live, of_live);
    comparable(resource, live)
}

/// Sets `map[outer][key]`, unless it is a map already.
fn put(map: &mut Value, outer: &str, key: &str, value: Value) {
    if !map[outer].is_object() {
        map[outer] = json!({});
    }
    if !map[outer][key].is_object() {
        map[outer][key] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(existing: ExistingPolicy) -> Policy {
        Policy {
            existing,
            system_named: false,
            mapped: false,
        }
    }

    #[test]
    fn what_holds_others_is_updated_where_the_rest_is_recreated() {
        let recreate = policy(ExistingPolicy::Recreate);
        assert_eq!(recreate.way("configmaps", Some("a")), Way::Recreate);
        for resource in NEVER_RECREATED {
            assert_eq!(recreate.way(resource, None), Way::Update, "{resource}");
        }
    }

    #[test]
    fn kube_system_must_be_named_to_be_recreated() {
        let mut recreate = policy(ExistingPolicy::Recreate);
        assert_eq!(recreate.way("configmaps", Some("kube-system")), Way::Update);
        recreate.system_named = true;
        assert_eq!(
            recreate.way("configmaps", Some("kube-system")),
            Way::Recreate
        );
    }

    #[test]
    fn a_copy_beside_the_original_changes_nothing_that_both_use() {
        let mut update = policy(ExistingPolicy::Update);
        update.mapped = true;
        assert_eq!(update.way(VOLUMES, None), Way::Leave);
        assert_eq!(update.way("configmaps", Some("copy")), Way::Update);
        assert_eq!(update.way(DEFINITIONS, None), Way::Update);
    }

    #[test]
    fn o9_none_leaves_and_update_updates() {
        assert_eq!(policy(ExistingPolicy::None).way("pods", None), Way::Leave);
        assert_eq!(
            policy(ExistingPolicy::Update).way("pods", Some("kube-system")),
            Way::Update
        );
    }

    #[test]
    fn the_patch_is_for_the_version_that_was_read() {
        let live = json!({"metadata": {"name": "n", "resourceVersion": "7", "uid": "u", "labels": {"x": "y"}}, "data": {"a": "1"}});
        let backup = json!({"metadata": {"name": "n", "labels": {RESTORE_LABEL: "b-1"}}, "data": {"a": "2"}});
        let comparison = Comparison::new("configmaps", backup, live, &Rules::default());
        assert_eq!(comparison.differences.len(), 2);
        assert_eq!(
            comparison.patch,
            json!({"data": {"a": "2"}, "metadata": {"labels": null, "resourceVersion": "7"}})
        );
        assert_eq!(
            comparison.labelled_patch("b-2")["metadata"]["labels"],
            json!({"x": null, RESTORE_LABEL: "b-2"})
        );
    }

    #[test]
    fn what_the_server_defaults_again_is_no_difference() {
        let live = json!({"metadata": {"name": "n"}, "spec": {"defaulted": 1}});
        let backup = json!({"metadata": {"name": "n"}, "spec": {}});
        let rules = Rules::default();
        let comparison = Comparison::new("things.example.org", backup, live.clone(), &rules);
        assert_eq!(comparison.differences.len(), 1);
        assert_eq!(comparison.confirmed("things.example.org", live, &rules), []);
    }
}
