//! What an object out of a backup becomes before it is created: what the API server and controllers own is removed, the
//! rest is kept. Pure; the rules are Velero's and original Ark's unless a comment says why not.

use crate::api::{
    GROUP, OPERATION_LABEL, PART_OF, PART_OF_LABEL, RESTORE_BINDING, RESTORE_LABEL, SCHEDULE_LABEL,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What the API server or the garbage collector owns in every object's metadata. Without ownerReferences, since owners
/// get new UIDs: controllers find what is theirs by selector and adopt it.
const SERVER_METADATA: [&str; 10] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "generateName",
    "managedFields",
    "ownerReferences",
];
/// Finalizers that belong to a deletion under way when the backup was made: on a new object nobody waits for them.
const DELETION_FINALIZERS: [&str; 2] = ["foregroundDeletion", "orphan"];
/// What the volume binder, the provisioner and the scheduler have noted on a claim.
const CLAIM_ANNOTATIONS: [&str; 5] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
];
/// The only annotations that a persistent volume keeps: without them its provisioner could not delete it later.
const VOLUME_ANNOTATIONS: [&str; 3] = [
    "pv.kubernetes.io/provisioned-by",
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
];
/// Labels with a Job's UID: the Job that is created gets another.
const JOB_UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
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
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What preparing depends on beside the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Source namespace → target namespace.
    pub namespaces: BTreeMap<String, String>,
    /// Persistent volumes whose data went with them: they are not restored, and their claims get new ones.
    pub reprovisioned: BTreeSet<String>,
}

impl Rules {
    /// The namespace that objects of `source` are restored to.
    pub fn target<'a>(&'a self, source: &'a str) -> &'a str {
        self.namespaces.get(source).map_or(source, String::as_str)
    }

    /// The rules for an object that is in the cluster already: it is in its target namespace.
    pub fn of_live(&self) -> Rules {
        Rules {
            namespaces: BTreeMap::new(),
            reprovisioned: self.reprovisioned.clone(),
        }
    }

    fn map(&self, namespace: Option<&mut Value>) {
        if let Some(namespace) = namespace
            && let Some(target) = namespace
                .as_str()
                .and_then(|source| self.namespaces.get(source))
        {
            *namespace = Value::from(target.as_str());
        }
    }
}

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
        })
    }
}

/// An object that was found ready or left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// Ready.
    Object {
        /// What is created, but for the label.
        object: Value,
        /// Its status in the backup, if that is to be restored.
        status: Option<Value>,
    },
    /// Left out.
    Skip(Skip),
}

/// Why an entry of the archive cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is not JSON.
    #[error("it is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// It is not an object with a name.
    #[error("it has no metadata with a name")]
    NoMetadata,
    /// It is called something else than its place in the archive says.
    #[error("it is called {0:?} inside")]
    OtherName(String),
}

/// Prepares the object called `name` out of a backup's `json`.
///
/// # Errors
/// When it is not a Kubernetes object of that name.
pub fn prepare(
    resource: &str,
    name: &str,
    json: &[u8],
    rules: &Rules,
) -> Result<Prepared, PrepareError> {
    let mut object: Value = serde_json::from_slice(json).map_err(PrepareError::Json)?;
    match object.pointer("/metadata/name").and_then(Value::as_str) {
        None => return Err(PrepareError::NoMetadata),
        Some(inside) if inside != name => return Err(PrepareError::OtherName(inside.to_owned())),
        Some(_) => {}
    }
    if let Some(why) = skip(resource, &object, rules) {
        return Ok(Prepared::Skip(why));
    }
    normalise(resource, &mut object, rules);
    Ok(Prepared::Object {
        object,
        status: None,
    })
}

/// Puts the `ark-restore` label on a prepared object.
pub fn label(object: &mut Value, value: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let labels = metadata.entry("labels").or_insert(Value::Null);
        if !labels.is_object() {
            *labels = Value::Object(Map::new());
        }
        labels[RESTORE_LABEL] = Value::from(value);
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
        "persistentvolumes" => rules
            .reprovisioned
            .contains(name)
            .then_some(Skip::Reprovisioned),
        _ => None,
    }
}

/// Whether the object is part of Ark's installation or of a run; schedules are the user's.
fn is_arks(resource: &str, name: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let has = |key: &str| labels.get(key).is_some();
    match resource {
        "cronjobs.batch" if has(SCHEDULE_LABEL) => false,
        "clusterrolebindings.rbac.authorization.k8s.io" if name == RESTORE_BINDING => true,
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

/// Removes what is not the user's, and maps namespaces. Both the object of a backup and the one in the cluster are
/// compared in this form.
pub fn normalise(resource: &str, object: &mut Value, rules: &Rules) {
    // First what needs the metadata that goes.
    match resource {
        "services" => service(object),
        "pods" => pod(object),
        "jobs.batch" => job(object),
        "cronjobs.batch" => schedule(object),
        "secrets" => token_secret(object),
        "serviceaccounts" => service_account(object),
        "persistentvolumeclaims" => claim(object, rules),
        "persistentvolumes" => volume(object, rules),
        "namespaces" => namespace(object, rules),
        "clusterroles.rbac.authorization.k8s.io" => cluster_role(object),
        "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => binding(object, rules),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object, rules),
        "validatingwebhookconfigurations.admissionregistration.k8s.io"
        | "mutatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(object, rules),
        "apiservices.apiregistration.k8s.io" => {
            rules.map(object.pointer_mut("/spec/service/namespace"));
        }
        _ => {}
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    rules.map(object.pointer_mut("/metadata/namespace"));
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for key in SERVER_METADATA {
        metadata.remove(key);
    }
    if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| {
            !finalizer
                .as_str()
                .is_some_and(|finalizer| DELETION_FINALIZERS.contains(&finalizer))
        });
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// What an existing service account lacks of the backup's.
pub fn merge_service_account(_live: &Value, _wanted: &Value) -> Option<Value> {
    None
}

/// Takes from a normalised object what controllers note on it and no user owns: both sides are compared without it.
pub fn strip_noise(_resource: &str, object: &mut Value) {
    remove_keys(object, "/metadata", "labels", &[RESTORE_LABEL]);
}

fn map_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer)?.as_object_mut()
}

fn list_mut<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Vec<Value>> {
    object.pointer_mut(pointer)?.as_array_mut()
}

/// Removes `keys` from the map at `parent`/`child`, and the map itself when nothing is left in it.
pub(super) fn remove_keys(object: &mut Value, parent: &str, child: &str, keys: &[&str]) {
    let Some(parent) = map_mut(object, parent) else {
        return;
    };
    let Some(map) = parent.get_mut(child).and_then(Value::as_object_mut) else {
        return;
    };
    let before = map.len();
    for key in keys {
        map.remove(*key);
    }
    if map.is_empty() && before > 0 {
        parent.remove(child);
    }
}

/// Cluster IPs are the cluster's; node ports too, unless the user asked for a certain one.
fn service(object: &mut Value) {
    let explicit = ExplicitPorts::of(object);
    let Some(spec) = map_mut(object, "/spec") else {
        return;
    };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return;
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if !explicit.node_port(port)
            && let Some(port) = port.as_object_mut()
        {
            port.remove("nodePort");
        }
    }
    let checked = spec.get("type").and_then(Value::as_str) == Some("LoadBalancer")
        && spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local");
    if checked && !explicit.health_check {
        spec.remove("healthCheckNodePort");
    }
}

/// Which ports of a service the user chose: what was applied with kubectl says so, else the managed fields.
#[derive(Debug, Default)]
struct ExplicitPorts {
    applied: Option<Vec<Value>>,
    managed: BTreeSet<String>,
    health_check: bool,
}

impl ExplicitPorts {
    fn of(service: &Value) -> ExplicitPorts {
        let applied = service["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let mut explicit = ExplicitPorts {
            applied: applied.as_ref().map(|applied| {
                applied["spec"]["ports"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            }),
            health_check: applied
                .as_ref()
                .is_some_and(|applied| number(&applied["spec"]["healthCheckNodePort"]).is_some()),
            ..ExplicitPorts::default()
        };
        for entry in service["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let spec = &entry["fieldsV1"]["f:spec"];
            explicit.health_check |= spec.get("f:healthCheckNodePort").is_some();
            for (key, fields) in spec["f:ports"].as_object().into_iter().flatten() {
                if fields.get("f:nodePort").is_some() {
                    explicit.managed.insert(key.clone());
                }
            }
        }
        explicit
    }

    fn node_port(&self, port: &Value) -> bool {
        let Some(applied) = &self.applied else {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let key = format!(
                "k:{{\"port\":{},\"protocol\":\"{protocol}\"}}",
                port["port"]
            );
            return self.managed.contains(&key);
        };
        applied.iter().any(
            |candidate| match (port["name"].as_str(), candidate["name"].as_str()) {
                (Some(name), Some(other)) => {
                    name == other && number(&candidate["nodePort"]).is_some()
                }
                (None, None) => {
                    let chosen = number(&candidate["nodePort"]);
                    chosen.is_some() && chosen == number(&port["nodePort"])
                }
                _ => false,
            },
        )
    }
}

/// A port number that is set: not null, not 0; some write it as a string.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|&number| number != 0)
}

fn pod(object: &mut Value) {
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

fn job(object: &mut Value) {
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

/// Ark's schedules come back suspended: a cluster that is a copy must not write backups by itself.
fn schedule(object: &mut Value) {
    if object["metadata"]["labels"].get(SCHEDULE_LABEL).is_some()
        && let Some(spec) = map_mut(object, "/spec")
    {
        spec.insert("suspend".into(), Value::Bool(true));
    }
}

/// The token controller fills a token secret again, for the account's new UID.
fn token_secret(object: &mut Value) {
    if object["type"] != "kubernetes.io/service-account-token" {
        return;
    }
    remove_keys(
        object,
        "/metadata",
        "annotations",
        &["kubernetes.io/service-account.uid"],
    );
    remove_keys(
        object,
        "/metadata",
        "labels",
        &["kubernetes.io/legacy-token-last-used"],
    );
    remove_keys(object, "", "data", &["token", "ca.crt", "namespace"]);
}

fn service_account(object: &mut Value) {
    let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str) else {
        return;
    };
    let prefix = format!("{name}-token-");
    if let Some(secrets) = list_mut(object, "/secrets") {
        secrets.retain(|secret| {
            !secret["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&prefix))
        });
        if secrets.is_empty()
            && let Some(account) = object.as_object_mut()
        {
            account.remove("secrets");
        }
    }
}

fn claim(object: &mut Value, rules: &Rules) {
    remove_keys(object, "/metadata", "annotations", &CLAIM_ANNOTATIONS);
    if let Some(spec) = map_mut(object, "/spec")
        && spec
            .get("volumeName")
            .and_then(Value::as_str)
            .is_some_and(|volume| rules.reprovisioned.contains(volume))
    {
        spec.remove("volumeName");
    }
}

fn volume(object: &mut Value, rules: &Rules) {
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
        rules.map(claim.get_mut("namespace"));
    }
}

fn namespace(object: &mut Value, rules: &Rules) {
    rules.map(object.pointer_mut("/metadata/name"));
    // The API server sets it to the name, which may be another now.
    remove_keys(
        object,
        "/metadata",
        "labels",
        &["kubernetes.io/metadata.name"],
    );
    remove_keys(object, "", "spec", &["finalizers"]);
}

fn cluster_role(object: &mut Value) {
    // The rules of an aggregated role are gathered from other roles.
    if object
        .get("aggregationRule")
        .is_some_and(|rule| !rule.is_null())
        && let Some(role) = object.as_object_mut()
    {
        role.remove("rules");
    }
}

fn binding(object: &mut Value, rules: &Rules) {
    for subject in list_mut(object, "/subjects").into_iter().flatten() {
        rules.map(subject.get_mut("namespace"));
    }
}

fn definition(object: &mut Value, rules: &Rules) {
    rules.map(object.pointer_mut("/spec/conversion/webhook/clientConfig/service/namespace"));
    // Refused in v1, where it is said in each schema.
    if object["apiVersion"] == "apiextensions.k8s.io/v1"
        && object["spec"]["preserveUnknownFields"] == true
    {
        object["spec"]["preserveUnknownFields"] = Value::Bool(false);
        for version in list_mut(object, "/spec/versions").into_iter().flatten() {
            if let Some(schema) = map_mut(version, "/schema/openAPIV3Schema") {
                schema.insert(
                    "x-kubernetes-preserve-unknown-fields".into(),
                    Value::Bool(true),
                );
            }
        }
    }
}

fn webhooks(object: &mut Value, rules: &Rules) {
    let v1 = object["apiVersion"] == "admissionregistration.k8s.io/v1";
    for webhook in list_mut(object, "/webhooks").into_iter().flatten() {
        rules.map(webhook.pointer_mut("/clientConfig/service/namespace"));
        // Others are refused in v1; objects stored since v1beta1 may have them.
        if v1
            && !matches!(
                webhook["sideEffects"].as_str(),
                Some("None" | "NoneOnDryRun")
            )
            && let Some(webhook) = webhook.as_object_mut()
        {
            webhook.insert("sideEffects".into(), "None".into());
        }
    }
}

#[cfg(test)]
mod tests;
