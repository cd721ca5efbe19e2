//! What controllers write into the metadata and specs of objects that people own. It comes back with the object, since
//! some of it is of use; but it is no difference between the object of a backup and the one in the cluster.

use super::{list_mut, map_mut, remove_keys, service_accounts};
use crate::api::RESTORE_LABEL;
use serde_json::Value;
use std::collections::BTreeSet;

/// Annotations, and where they come from.
const ANNOTATIONS: [&str; 17] = [
    // The deployment controller counts roll-outs, and tells its replica sets how many they may be
    // (pkg/controller/deployment/util).
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    // The API server, for daemon sets of v1beta1.
    "deprecated.daemonset.template.generation",
    // Leader election (client-go/tools/leaderelection), in config maps and endpoints.
    "control-plane.alpha.kubernetes.io/leader",
    // The endpoint and endpoint slice controllers.
    "endpoints.kubernetes.io/last-change-trigger-time",
    "endpoints.kubernetes.io/over-capacity",
    // The Job controller, before 1.27; and the CronJob controller on its Jobs.
    "batch.kubernetes.io/job-tracking",
    "batch.kubernetes.io/cronjob-scheduled-timestamp",
    // The API server, of autoscalers read as v1.
    "autoscaling.alpha.kubernetes.io/conditions",
    "autoscaling.alpha.kubernetes.io/current-metrics",
    "autoscaling.alpha.kubernetes.io/behavior",
    // The token controller, in secrets.
    "kubernetes.io/service-account.uid",
    // Network plug-ins, in pods: addresses of this life (Multus, Calico).
    "k8s.v1.cni.cncf.io/network-status",
    "cni.projectcalico.org/podIP",
    "cni.projectcalico.org/podIPs",
];
/// Annotations by the beginning of their keys: the volume binder, the provisioners, the resizer and the scheduler
/// (pkg/controller/volume, sig-storage-lib-external-provisioner).
const ANNOTATION_PREFIXES: [&str; 3] = [
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/storage-provisioner",
];
const LABELS: [&str; 3] = [
    // The API server, in namespaces.
    "kubernetes.io/metadata.name",
    // The cleaner of legacy tokens, in secrets.
    "kubernetes.io/legacy-token-last-used",
    RESTORE_LABEL,
];
/// Finalizers that controllers put on what they look after.
const FINALIZERS: [&str; 10] = [
    "kubernetes.io/pv-protection",
    "kubernetes.io/pvc-protection",
    // The external provisioner; the service controller of clouds; the Job controller, in pods; the API server, in
    // definitions; the snapshot controller.
    "external-provisioner.volume.kubernetes.io/finalizer",
    "service.kubernetes.io/load-balancer-cleanup",
    "batch.kubernetes.io/job-tracking",
    "customresourcecleanup.apiextensions.k8s.io",
    "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection",
    "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
    "snapshot.storage.kubernetes.io/pvc-as-source-protection",
];
/// Where the service account admission plug-in mounts the token of a pod (plugin/pkg/admission/serviceaccount).
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Removes what controllers wrote, of both sides before they are compared. Not for objects that are to be created: with
/// its revision a Deployment goes on counting, and with its token volume a pod is what it was.
pub fn strip_noise(resource: &str, object: &mut Value) {
    remove_keys(object, "/metadata", "annotations", &ANNOTATIONS);
    remove_keys(object, "/metadata", "labels", &LABELS);
    let Some(metadata) = map_mut(object, "/metadata") else {
        return;
    };
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| {
            !ANNOTATION_PREFIXES
                .iter()
                .any(|prefix| key.starts_with(prefix))
        });
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| {
            !finalizer
                .as_str()
                .is_some_and(|finalizer| FINALIZERS.contains(&finalizer))
        });
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        }
    }
    match resource {
        "pods" => strip_token_volumes(object),
        "serviceaccounts" => service_accounts::service_account(object),
        _ => {}
    }
}

/// The volume with the pod's token, whose name ends at random, and where it is mounted.
fn strip_token_volumes(pod: &mut Value) {
    let mut removed = BTreeSet::new();
    if let Some(volumes) = list_mut(pod, "/spec/volumes") {
        volumes.retain(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            let token = name.starts_with(TOKEN_VOLUME) && volume.get("projected").is_some();
            if token {
                removed.insert(name.to_owned());
            }
            !token
        });
    }
    for list in [
        "/spec/containers",
        "/spec/initContainers",
        "/spec/ephemeralContainers",
    ] {
        for container in list_mut(pod, list).into_iter().flatten() {
            if let Some(mounts) = list_mut(container, "/volumeMounts") {
                mounts.retain(|mount| {
                    let name = mount["name"].as_str().unwrap_or_default();
                    !(mount["mountPath"] == TOKEN_PATH && removed.contains(name))
                });
            }
        }
    }
}
