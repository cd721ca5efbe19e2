//! Which selected objects are not restored all the same: what controllers make, what has finished, and what is Ark's.

use super::Rules;
use crate::api::{
    GROUP, OPERATION_LABEL, PART_OF, PART_OF_LABEL, SCHEDULE_LABEL, is_restore_binding,
};
use crate::restore::volumes::{Way, way};
use serde_json::Value;
use std::fmt;

/// What the API server and the controller manager put into namespaces by themselves: resource, namespace (any if
/// absent), name.
const MADE_BY_CONTROL_PLANE: [(&str, Option<&str>, &str); 6] = [
    ("configmaps", None, "kube-root-ca.crt"),
    (
        "configmaps",
        Some("kube-system"),
        "extension-apiserver-authentication",
    ),
    (
        "configmaps",
        Some("kube-system"),
        "kube-apiserver-legacy-service-account-token-tracking",
    ),
    ("services", Some("default"), "kubernetes"),
    ("endpoints", Some("default"), "kubernetes"),
    (
        "endpointslices.discovery.k8s.io",
        Some("default"),
        "kubernetes",
    ),
];
/// Why an object is not restored though it was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It belongs to Ark's installation or to one of its operations.
    Ark,
    /// The kubelet mirrors it from a file.
    MirrorPod,
    /// It has run to its end.
    Finished,
    /// Its Job, which cannot adopt it, starts another.
    PodOfJob,
    /// A controller makes it.
    Controlled,
    /// The control plane makes it.
    ControlPlane,
    /// It was deleted with its claim; a new one is provisioned.
    Reprovisioned,
    /// Its claim gets a volume that the driver makes from the snapshot.
    FromSnapshot,
    /// Volumes and what snapshots are made of were not asked for.
    WithoutVolumes,
    /// It has no snapshot (yet), and would take one of what is there now.
    NoSnapshot,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skip::Ark => "it belongs to Ark",
            Skip::MirrorPod => "it mirrors a file on a node",
            Skip::Finished => "it has finished",
            Skip::PodOfJob => "its Job starts another",
            Skip::Controlled => "a controller makes it",
            Skip::ControlPlane => "the control plane makes it",
            Skip::Reprovisioned => "its data went with it; a new volume is provisioned",
            Skip::FromSnapshot => "its driver makes a new one from the snapshot, for its claim",
            Skip::WithoutVolumes => "--restore-volumes=false leaves it out",
            Skip::NoSnapshot => "it had no snapshot yet, and would take one of what is there now",
        })
    }
}

/// Why the object must not be restored, if so. Looks at it as backed up, with status and owners.
pub fn skip(resource: &str, object: &Value, rules: &Rules) -> Option<Skip> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let label = |key: &str| {
        object["metadata"]["labels"]
            .get(key)
            .and_then(Value::as_str)
    };
    let annotation = |key: &str| {
        object["metadata"]["annotations"]
            .get(key)
            .and_then(Value::as_str)
    };
    let (name, namespace) = (
        text("/metadata/name").unwrap_or_default(),
        text("/metadata/namespace"),
    );
    if is_arks(resource, name, object) {
        return Some(Skip::Ark);
    }
    if MADE_BY_CONTROL_PLANE
        .iter()
        .any(|&(r, ns, n)| r == resource && n == name && ns.is_none_or(|ns| namespace == Some(ns)))
    {
        return Some(Skip::ControlPlane);
    }
    match resource {
        "pods" => {
            let owner = controller(object);
            if annotation("kubernetes.io/config.mirror").is_some_and(|mirror| !mirror.is_empty()) {
                Some(Skip::MirrorPod)
            } else if matches!(text("/status/phase"), Some("Failed" | "Succeeded")) {
                Some(Skip::Finished)
            } else {
                // Restored, it would do the Job's work a second time: a Job finds its pods by a UID that is new.
                (owner == Some("Job")).then_some(Skip::PodOfJob)
            }
        }
        "jobs.batch" => {
            let condition = |wanted: &str| {
                let conditions = object.pointer("/status/conditions");
                conditions.and_then(Value::as_array).is_some_and(|all| {
                    all.iter()
                        .any(|one| one["type"] == wanted && one["status"] == "True")
                })
            };
            // Unlike Velero also failed ones, which have no completionTime: created again they would run again.
            let finished = text("/status/completionTime").is_some()
                || condition("Complete")
                || condition("Failed");
            finished.then_some(Skip::Finished)
        }
        "endpoints" => {
            let managed = label("endpoints.kubernetes.io/managed-by")
                == Some("endpoint-controller")
                || annotation("endpoints.kubernetes.io/last-change-trigger-time").is_some()
                || annotation("control-plane.alpha.kubernetes.io/leader").is_some()
                || has_manager(object, &["kube-controller-manager", "kube-apiserver"]);
            managed.then_some(Skip::Controlled)
        }
        "endpointslices.discovery.k8s.io" => {
            let managed = matches!(
                label("endpointslice.kubernetes.io/managed-by"),
                Some(
                    "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io"
                )
            ) || has_manager(object, &["kube-controller-manager"]);
            managed.then_some(Skip::Controlled)
        }
        "apiservices.apiregistration.k8s.io" => {
            let local = object.pointer("/spec/service").is_none_or(Value::is_null);
            let automanaged = label("kube-aggregator.kubernetes.io/automanaged").is_some();
            (local || automanaged).then_some(Skip::ControlPlane)
        }
        "flowschemas.flowcontrol.apiserver.k8s.io"
        | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => {
            (annotation("apf.kubernetes.io/autoupdate-spec") == Some("true"))
                .then_some(Skip::ControlPlane)
        }
        "secrets" if object["type"] == "kubernetes.io/service-account-token" => {
            // Made by controllers before Kubernetes 1.24; since then nobody needs it, and pods lose its mount.
            let account = annotation("kubernetes.io/service-account.name").unwrap_or_default();
            let made = name
                .strip_prefix(account)
                .is_some_and(|rest| !account.is_empty() && rest.starts_with("-token-"));
            made.then_some(Skip::Controlled)
        }
        "persistentvolumes" => volume(name, rules),
        _ if rules.without_volumes && SNAPSHOTS.contains(&resource) => Some(Skip::WithoutVolumes),
        // What stands for a snapshot that was taken needs its handle; what does not stand for one takes a new one.
        "volumesnapshots.snapshot.storage.k8s.io" => {
            let stands = text("/spec/source/volumeSnapshotContentName")
                .or(text("/status/boundVolumeSnapshotContentName"));
            stands.is_none().then_some(Skip::NoSnapshot)
        }
        "volumesnapshotcontents.snapshot.storage.k8s.io" => {
            let stands = text("/spec/source/snapshotHandle").or(text("/status/snapshotHandle"));
            stands.is_none().then_some(Skip::NoSnapshot)
        }
        "volumegroupsnapshots.groupsnapshot.storage.k8s.io"
        | "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io" => {
            let source = object.pointer("/spec/source");
            let takes = ["selector", "volumeHandles"];
            let takes_one =
                source.is_some_and(|source| takes.iter().any(|key| source.get(*key).is_some()));
            takes_one.then_some(Skip::NoSnapshot)
        }
        _ => None,
    }
}

/// Velero's list, and what is of groups.
const SNAPSHOTS: [&str; 6] = [
    "volumesnapshots.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumegroupsnapshots.groupsnapshot.storage.k8s.io",
    "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
    "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io",
];

fn volume(name: &str, rules: &Rules) -> Option<Skip> {
    if rules.reprovisioned.contains(name) {
        return Some(Skip::Reprovisioned);
    }
    match rules
        .volumes
        .record(name)
        .map(|record| way(Some(record), ""))
    {
        // It would point at the disk that the original has.
        Some(Way::FromDisk(_) | Way::FromSnapshot(_) | Way::NotKnown) if rules.without_volumes => {
            Some(Skip::WithoutVolumes)
        }
        Some(Way::FromSnapshot(_)) => Some(Skip::FromSnapshot),
        _ => None,
    }
}

/// Whether the object is part of Ark's installation or of a run; schedules are the user's.
fn is_arks(resource: &str, name: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let has = |key: &str| labels.get(key).is_some();
    match resource {
        "cronjobs.batch" if has(SCHEDULE_LABEL) => false,
        "clusterrolebindings.rbac.authorization.k8s.io" if is_restore_binding(name) => true,
        // Ours and original Ark's, which have the same names.
        "customresourcedefinitions.apiextensions.k8s.io" => object["spec"]["group"] == GROUP,
        "jobs.batch" | "pods" if has(SCHEDULE_LABEL) => true,
        _ => {
            has(OPERATION_LABEL)
                || labels.get(PART_OF_LABEL).and_then(Value::as_str) == Some(PART_OF)
        }
    }
}

/// The kind of the object's controller.
fn controller(object: &Value) -> Option<&str> {
    object["metadata"]["ownerReferences"]
        .as_array()?
        .iter()
        .find(|owner| owner["controller"] == true)?["kind"]
        .as_str()
}

fn has_manager(object: &Value, managers: &[&str]) -> bool {
    object["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|all| {
            all.iter().any(|entry| {
                entry["manager"]
                    .as_str()
                    .is_some_and(|manager| managers.contains(&manager))
            })
        })
}
