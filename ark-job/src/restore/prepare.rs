//! What an object out of a backup becomes before it is created: what the API server and controllers own is removed, the
//! rest is kept. Pure; the rules are Velero's and original Ark's unless a comment says why not.

mod noise;
mod pods;
mod references;
mod service_accounts;
mod services;
mod skip;
mod snapshots;
mod status;
mod volumes;

pub use self::noise::strip_noise;
pub use self::service_accounts::merge_service_account;
pub use self::skip::{Skip, skip};
pub use self::status::StatusChoice;

use super::order::NAMESPACES;
use super::volumes::{Source, Volumes};
use crate::api::{RESTORE_LABEL, RestoreSpec, SCHEDULE_LABEL, SUSPENDED_BY_ANNOTATION};
use crate::filter::Filter;
use crate::hooks::restore::RestoreHooks;
use crate::lean;
use crate::modifiers::{ApplyError, Modifiers};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// What preparing depends on beside the object.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Source namespace → target namespace.
    pub namespaces: BTreeMap<String, String>,
    /// Persistent volumes whose data went with them: they are not restored, and their claims get new ones.
    pub reprovisioned: BTreeSet<String>,
    /// Which volumes come back from snapshots, and what becomes of claims whose volumes do not come back.
    pub volumes: Volumes,
    /// Storage class of the backup → storage class in the cluster.
    pub storage_classes: BTreeMap<String, String>,
    /// Claims get new, empty volumes, whatever they had.
    pub without_volumes: bool,
    /// Services keep node ports that nobody asked for.
    pub preserve_node_ports: bool,
    /// Whose status comes back, too.
    pub status: StatusChoice,
    /// What the user wants changed.
    pub modifiers: Option<Arc<Modifiers>>,
    /// Which pods get init containers: those are added last, and are no difference.
    pub hooks: Option<Arc<RestoreHooks>>,
}

impl Rules {
    /// The rules that were asked for. `status` is `spec.restore_status` with its types resolved to `resource.group`,
    /// `modifiers` what the ConfigMap `spec.resource_modifier` says. Which volumes are provisioned anew is only known
    /// when the backup has been looked at.
    pub fn from_spec(
        spec: &RestoreSpec,
        status: Option<Filter>,
        modifiers: Option<Arc<Modifiers>>,
        hooks: Option<Arc<RestoreHooks>>,
    ) -> Rules {
        Rules {
            namespaces: spec.namespace_mapping.clone(),
            reprovisioned: BTreeSet::new(),
            volumes: Volumes::default(),
            storage_classes: spec.storage_class_mapping.clone(),
            without_volumes: spec.restore_pvs == Some(false),
            preserve_node_ports: spec.preserve_node_ports == Some(true),
            status: StatusChoice::new(status),
            modifiers,
            hooks,
        }
    }

    /// The namespace that objects of `source` are restored to.
    pub fn target<'a>(&'a self, source: &'a str) -> &'a str {
        self.namespaces.get(source).map_or(source, String::as_str)
    }

    /// The rules for an object that is in the cluster already: it is in its target namespace.
    pub fn of_live(&self) -> Rules {
        Rules {
            namespaces: BTreeMap::new(),
            reprovisioned: self.reprovisioned.clone(),
            volumes: self
                .volumes
                .of_live(|source| self.target(source).to_owned()),
            storage_classes: BTreeMap::new(),
            without_volumes: self.without_volumes,
            preserve_node_ports: self.preserve_node_ports,
            status: StatusChoice::default(),
            modifiers: None,
            hooks: self.hooks.clone(),
        }
    }

    /// Takes the init containers of hooks out of a pod that has its target namespace.
    pub fn without_hooks(&self, resource: &str, object: &mut Value) {
        if let ("pods", Some(hooks)) = (resource, &self.hooks)
            && let Some(namespace) = object["metadata"]["namespace"].as_str()
        {
            let namespace = namespace.to_owned();
            hooks.remove_init_containers(object, &namespace);
        }
    }

    /// Storage classes that claims and volumes are moved to: each must be in the cluster or come back with the backup.
    pub fn storage_classes_needed(&self) -> BTreeSet<&str> {
        self.storage_classes.values().map(String::as_str).collect()
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

/// An object that was found ready or left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// Ready.
    Object {
        /// What is created, but for the label.
        object: Value,
        /// Its status in the backup, if that is to be restored.
        status: Option<Value>,
        /// Where its data comes from, if it is made from a snapshot: the object is not complete without.
        source: Option<Source>,
        /// What is odd about it, to be said once it has been created.
        remark: Option<String>,
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
    /// A rule of the user's cannot be applied to it; without it, it would not be what was asked for.
    #[error(transparent)]
    Modifier(#[from] ApplyError),
}

/// Prepares the object called `name` out of a backup's `json`.
///
/// # Errors
/// When it is not a Kubernetes object of that name, or a modifier cannot be applied to it.
pub fn prepare(
    resource: &str,
    name: &str,
    json: &[u8],
    rules: &Rules,
) -> Result<Prepared, PrepareError> {
    let mut object = lean::decode(resource, json).map_err(PrepareError::Json)?;
    match object.pointer("/metadata/name").and_then(Value::as_str) {
        None => return Err(PrepareError::NoMetadata),
        Some(inside) if inside != name => return Err(PrepareError::OtherName(inside.to_owned())),
        Some(_) => {}
    }
    if let Some(why) = skip(resource, &object, rules) {
        return Ok(Prepared::Skip(why));
    }
    let status = if rules.status.wants(resource, &object) {
        object.get("status").cloned()
    } else {
        None
    };
    let (mut source, mut remark) = (None, None);
    if !rules.without_volumes {
        source = rules.volumes.source(resource, &object);
        remark = rules.volumes.remark(resource, &object);
    }
    apply_rules_of_types(resource, &mut object, rules);
    // As Velero: modifiers see what the rules of its type have left, under its namespace in the backup, and never
    // namespaces.
    if let Some(modifiers) = &rules.modifiers
        && resource != NAMESPACES
    {
        let source = object.pointer("/metadata/namespace");
        let source = source.and_then(Value::as_str).map(str::to_owned);
        modifiers.apply(resource, source.as_deref(), &mut object)?;
    }
    rules.map(object.pointer_mut("/metadata/namespace"));
    rules.without_hooks(resource, &mut object);
    Ok(Prepared::Object {
        object,
        status: status.filter(Value::is_object),
        source,
        remark,
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

/// Removes what is not the user's, and maps namespaces. Both the object of a backup and the one in the cluster are
/// compared in this form.
pub fn normalise(resource: &str, object: &mut Value, rules: &Rules) {
    apply_rules_of_types(resource, object, rules);
    rules.map(object.pointer_mut("/metadata/namespace"));
    rules.without_hooks(resource, object);
}

/// All of [`normalise`] but that the object itself stays in its namespace.
fn apply_rules_of_types(resource: &str, object: &mut Value, rules: &Rules) {
    // First what needs the metadata that goes.
    match resource {
        "services" => services::service(object, rules),
        "pods" => pods::pod(object),
        "jobs.batch" => pods::job(object),
        "cronjobs.batch" => schedule(object),
        "secrets" => service_accounts::token_secret(object),
        "serviceaccounts" => service_accounts::service_account(object),
        "persistentvolumeclaims" => volumes::claim(object, rules),
        "persistentvolumes" => volumes::volume(object, rules),
        "volumesnapshots.snapshot.storage.k8s.io" => snapshots::snapshot(object, rules),
        "volumesnapshotcontents.snapshot.storage.k8s.io" => snapshots::content(object, rules),
        NAMESPACES => namespace(object, rules),
        "clusterroles.rbac.authorization.k8s.io" => cluster_role(object),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object),
        "validatingwebhookconfigurations.admissionregistration.k8s.io"
        | "mutatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(object),
        _ => {}
    }
    volumes::map_storage_classes(resource, object, rules);
    references::map_namespaces(resource, object, rules);
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
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

/// Ark's schedules come back suspended: a cluster that is a copy must not write backups by itself. It is for somebody to
/// resume them, not for this cluster's restore-only mode, which has not suspended them.
fn schedule(object: &mut Value) {
    if object["metadata"]["labels"].get(SCHEDULE_LABEL).is_some()
        && let Some(spec) = map_mut(object, "/spec")
    {
        spec.insert("suspend".into(), Value::Bool(true));
        remove_keys(
            object,
            "/metadata",
            "annotations",
            &[SUSPENDED_BY_ANNOTATION],
        );
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

fn definition(object: &mut Value) {
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

fn webhooks(object: &mut Value) {
    let v1 = object["apiVersion"] == "admissionregistration.k8s.io/v1";
    for webhook in list_mut(object, "/webhooks").into_iter().flatten() {
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
