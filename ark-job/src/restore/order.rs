//! Types in the order in which they are restored, and those that never are. Pure.

use crate::api::GROUP;

/// CustomResourceDefinitions.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Namespaces.
pub const NAMESPACES: &str = "namespaces";
pub(super) const DRIVERS: &str = "csidrivers.storage.k8s.io";
pub(super) const CLASSES: &str = "storageclasses.storage.k8s.io";
pub(crate) const VOLUMES: &str = "persistentvolumes";
pub(super) const CLAIMS: &str = "persistentvolumeclaims";
pub(super) const SERVICE_ACCOUNTS: &str = "serviceaccounts";
pub(super) const SERVICES: &str = "services";
pub(super) const PODS: &str = "pods";
pub(crate) const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";
pub(crate) const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
pub(crate) const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// Types restored before all others, in this order: each before those that refer to it or wait for it. Pods before
/// replica sets and these before deployments, so that controllers adopt what comes back and make nothing new; endpoints
/// before services for the same reason.
const FIRST: [&str; 25] = [
    DEFINITIONS,
    NAMESPACES,
    CLASSES,
    DRIVERS,
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    VOLUMES,
    CLAIMS,
    ROLES,
    "roles.rbac.authorization.k8s.io",
    SERVICE_ACCOUNTS,
    BINDINGS,
    "rolebindings.rbac.authorization.k8s.io",
    "secrets",
    "configmaps",
    "limitranges",
    PRIORITIES,
    "runtimeclasses.node.k8s.io",
    PODS,
    "replicasets.apps",
    "clusterclasses.cluster.x-k8s.io",
    "endpoints",
    "services",
    "ingressclasses.networking.k8s.io",
];

/// Types restored after all others, in this order: quotas that would refuse what was there before them, and what is
/// asked about every write, and must find its servers running.
const LAST: [&str; 13] = [
    "clusterbootstraps.run.tanzu.vmware.com",
    "clusters.cluster.x-k8s.io",
    "clusterresourcesets.addons.cluster.x-k8s.io",
    "apps.kappctrl.k14s.io",
    "packageinstalls.packaging.carvel.dev",
    "resourcequotas",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "apiservices.apiregistration.k8s.io",
];

/// Types that describe the cluster that was backed up, and mean nothing in another or later one. The IP addresses are
/// those of services, which get new ones.
const NEVER: [&str; 13] = [
    "events",
    "events.events.k8s.io",
    "nodes",
    "componentstatuses",
    "leases.coordination.k8s.io",
    "leasecandidates.coordination.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "resourceslices.resource.k8s.io",
    "ipaddresses.networking.k8s.io",
    "storageversions.internal.apiserver.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
];

/// Whether a type is never restored: Ark's and Velero's own records, and what describes the old cluster.
pub fn is_never_restored(resource: &str) -> bool {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    NEVER.contains(&resource) || [GROUP, "velero.io"].contains(&group)
}

/// Where a type stands in the order: smaller is earlier.
pub(crate) fn rank(resource: &str) -> (usize, usize, &str) {
    if let Some(at) = FIRST.iter().position(|first| *first == resource) {
        (0, at, resource)
    } else if let Some(at) = LAST.iter().position(|last| *last == resource) {
        (2, at, resource)
    } else {
        (1, 0, resource)
    }
}
