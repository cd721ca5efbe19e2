//! Namespaces are mapped wherever an object of a built-in type, or of the Gateway API and the snapshot API, names one.
//!
//! Custom resources of other groups are left alone, but for selectors of namespaces: nobody knows which of their fields
//! name a namespace. Modifiers are for those. So is text that only some program understands: commands, environment,
//! the data of config maps, CEL.

use super::Rules;
use serde_json::{Map, Value};

/// The label that the API server gives each namespace, with its name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Where objects of a type name namespaces: paths as [`each`] takes them.
const PLACES: [(&str, &[&str]); 18] = [
    (
        "rolebindings.rbac.authorization.k8s.io",
        &["subjects/*/namespace"],
    ),
    (
        "clusterrolebindings.rbac.authorization.k8s.io",
        &["subjects/*/namespace"],
    ),
    ("serviceaccounts", &["secrets/*/namespace"]),
    (
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        &["webhooks/*/clientConfig/service/namespace"],
    ),
    (
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        &["webhooks/*/clientConfig/service/namespace"],
    ),
    (
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        &["spec/paramRef/namespace"],
    ),
    (
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        &["spec/paramRef/namespace"],
    ),
    (
        "customresourcedefinitions.apiextensions.k8s.io",
        &["spec/conversion/webhook/clientConfig/service/namespace"],
    ),
    (
        "apiservices.apiregistration.k8s.io",
        &["spec/service/namespace"],
    ),
    (
        "persistentvolumes",
        &[
            "spec/claimRef/namespace",
            "spec/csi/controllerPublishSecretRef/namespace",
            "spec/csi/controllerExpandSecretRef/namespace",
            "spec/csi/nodeExpandSecretRef/namespace",
            "spec/csi/nodePublishSecretRef/namespace",
            "spec/csi/nodeStageSecretRef/namespace",
            "spec/azureFile/secretNamespace",
            "spec/cephfs/secretRef/namespace",
            "spec/flexVolume/secretRef/namespace",
            "spec/glusterfs/endpointsNamespace",
            "spec/iscsi/secretRef/namespace",
            "spec/rbd/secretRef/namespace",
            "spec/scaleIO/secretRef/namespace",
            "spec/storageos/secretRef/namespace",
        ],
    ),
    ("persistentvolumeclaims", &["spec/dataSourceRef/namespace"]),
    (
        "statefulsets.apps",
        &["spec/volumeClaimTemplates/*/spec/dataSourceRef/namespace"],
    ),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        &["spec/volumeSnapshotRef/namespace"],
    ),
    (
        "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
        &["spec/volumeGroupSnapshotRef/namespace"],
    ),
    (
        "ingressclasses.networking.k8s.io",
        &["spec/parameters/namespace"],
    ),
    (
        "endpoints",
        &[
            "subsets/*/addresses/*/targetRef/namespace",
            "subsets/*/notReadyAddresses/*/targetRef/namespace",
        ],
    ),
    (
        "endpointslices.discovery.k8s.io",
        &["endpoints/*/targetRef/namespace"],
    ),
    (
        "flowschemas.flowcontrol.apiserver.k8s.io",
        &[
            "spec/rules/*/subjects/*/serviceAccount/namespace",
            "spec/rules/*/resourceRules/*/namespaces/*",
        ],
    ),
];

/// The same in a pod's spec, wherever that is.
const PLACES_IN_PODS: [&str; 5] = [
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/*/namespaces/*",
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/*/podAffinityTerm/namespaces/*",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/*/namespaces/*",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/*/podAffinityTerm/namespaces/*",
    "volumes/*/ephemeral/volumeClaimTemplate/spec/dataSourceRef/namespace",
];

/// Annotations that name the namespace of a secret; the external provisioner and snapshotter write them.
const ANNOTATIONS: [&str; 3] = [
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
    "snapshot.storage.kubernetes.io/deletion-secret-namespace",
    "groupsnapshot.storage.kubernetes.io/deletion-secret-namespace",
];

/// Maps every namespace that an object names, but for the one that it is in.
pub(super) fn map_namespaces(resource: &str, object: &mut Value, rules: &Rules) {
    if rules.namespaces.is_empty() {
        return;
    }
    let mut map = |namespace: &mut Value| rules.map(Some(namespace));
    for path in PLACES
        .iter()
        .filter(|(its, _)| *its == resource)
        .flat_map(|(_, paths)| *paths)
    {
        each(object, path, &mut map);
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
        for key in ANNOTATIONS {
            rules.map(annotations.get_mut(key));
        }
    }
    if let Some(spec) = pod_spec(resource, object) {
        for path in PLACES_IN_PODS {
            each(spec, path, &mut map);
        }
    }
    match resource {
        "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => {
            each(object, "subjects/*/name", &mut |name| {
                map_account(name, rules)
            });
        }
        "flowschemas.flowcontrol.apiserver.k8s.io" => {
            for path in [
                "spec/rules/*/subjects/*/user/name",
                "spec/rules/*/subjects/*/group/name",
            ] {
                each(object, path, &mut |name| map_account(name, rules));
            }
        }
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => {
            map_rights(object, rules);
        }
        "services" => each(object, "spec/externalName", &mut |name| {
            map_host(name, rules)
        }),
        _ if resource.contains("classes.") && object.get("parameters").is_some() => {
            map_parameters(object, rules);
        }
        _ if resource.contains(".gateway.networking.") => {
            if let Some(spec) = object.get_mut("spec") {
                map_everywhere(spec, rules);
            }
        }
        _ => {}
    }
    let parts = object.as_object_mut().into_iter().flatten();
    for (_, part) in parts.filter(|(key, _)| *key != "metadata") {
        map_selectors(part, false, rules);
    }
}

/// Calls `change` with everything at `path`: keys with `/` between, `*` for each of a list.
pub(super) fn each(value: &mut Value, path: &str, change: &mut impl FnMut(&mut Value)) {
    let (key, rest) = path
        .split_once('/')
        .map_or((path, None), |(key, rest)| (key, Some(rest)));
    let mut go = |value: &mut Value| match rest {
        Some(rest) => each(value, rest, change),
        None => change(value),
    };
    if key == "*" {
        value.as_array_mut().into_iter().flatten().for_each(go);
    } else if let Some(value) = value.get_mut(key) {
        go(value);
    }
}

/// The spec of the pods that an object is or makes.
pub(super) fn pod_spec<'a>(resource: &str, object: &'a mut Value) -> Option<&'a mut Value> {
    object.pointer_mut(crate::pod_spec::pointer(resource)?)
}

/// Service accounts as users and groups: `system:serviceaccount:NAMESPACE:NAME`, `system:serviceaccounts:NAMESPACE`.
fn map_account(name: &mut Value, rules: &Rules) {
    let Some(text) = name.as_str() else { return };
    let mapped = if let Some(account) = text.strip_prefix("system:serviceaccount:") {
        account.split_once(':').and_then(|(namespace, name)| {
            let target = rules.namespaces.get(namespace)?;
            Some(format!("system:serviceaccount:{target}:{name}"))
        })
    } else {
        text.strip_prefix("system:serviceaccounts:")
            .and_then(|namespace| rules.namespaces.get(namespace))
            .map(|target| format!("system:serviceaccounts:{target}"))
    };
    if let Some(mapped) = mapped {
        *name = mapped.into();
    }
}

/// An external name that is a service of the cluster: `NAME.NAMESPACE.svc`, whatever follows.
fn map_host(name: &mut Value, rules: &Rules) {
    let Some(text) = name.as_str() else { return };
    let mut parts: Vec<&str> = text.split('.').collect();
    if let [_, namespace, "svc", ..] = &mut parts[..]
        && let Some(target) = rules.namespaces.get(*namespace)
    {
        *namespace = target;
        *name = parts.join(".").into();
    }
}

/// Rights on certain namespaces. A rule about namespaces and other types is parted: the names are the other types', too.
fn map_rights(role: &mut Value, rules: &Rules) {
    let Some(list) = role.get_mut("rules").and_then(Value::as_array_mut) else {
        return;
    };
    let mut mapped = Vec::with_capacity(list.len());
    for mut rule in std::mem::take(list) {
        let core = rule["apiGroups"]
            .as_array()
            .is_some_and(|groups| groups.iter().any(|group| group == "" || group == "*"));
        let named = rule["resourceNames"].as_array().is_some_and(|names| {
            let mut names = names.iter().filter_map(Value::as_str);
            names.any(|name| rules.namespaces.contains_key(name))
        });
        let is_namespaces = |resource: &Value| {
            resource
                .as_str()
                .is_some_and(|name| name.split('/').next() == Some("namespaces"))
        };
        let resources = rule["resources"].as_array().cloned().unwrap_or_default();
        let (namespaces, others): (Vec<Value>, Vec<Value>) =
            resources.into_iter().partition(is_namespaces);
        if !core || !named || namespaces.is_empty() {
            mapped.push(rule);
            continue;
        }
        if !others.is_empty() {
            let mut rest = rule.clone();
            rest["resources"] = others.into();
            mapped.push(rest);
        }
        rule["resources"] = namespaces.into();
        each(&mut rule, "resourceNames/*", &mut |name| {
            rules.map(Some(name))
        });
        mapped.push(rule);
    }
    *list = mapped;
}

/// Where the secrets of a class's driver are: `csi.storage.k8s.io/provisioner-secret-namespace` and its kin, and those of
/// drivers that were once in the tree, such as `adminSecretNamespace`.
fn map_parameters(class: &mut Value, rules: &Rules) {
    let parameters = class.get_mut("parameters").and_then(Value::as_object_mut);
    for (key, value) in parameters.into_iter().flatten() {
        if key
            .to_lowercase()
            .replace('-', "")
            .ends_with("secretnamespace")
        {
            rules.map(Some(value));
        }
    }
}

/// In the Gateway API, every field that is called `namespace` is the namespace of what is referred to.
fn map_everywhere(value: &mut Value, rules: &Rules) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "namespace" {
                    rules.map(Some(value));
                }
                map_everywhere(value, rules);
            }
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|value| map_everywhere(value, rules)),
        _ => {}
    }
}

/// Selectors of namespaces by name: of network policies, webhooks, admission policies, affinity, gateways, and of custom
/// resources that call them as all these do.
fn map_selectors(value: &mut Value, selects_namespaces: bool, rules: &Rules) {
    match value {
        Value::Object(map) => {
            if selects_namespaces {
                map_selector(map, rules);
            }
            for (key, value) in map {
                let lower = key.to_lowercase();
                let selects = lower.ends_with("namespaceselector")
                    // As in `allowedRoutes.namespaces.selector` of a Gateway.
                    || lower.ends_with("namespaces")
                    || selects_namespaces && lower == "selector";
                map_selectors(value, selects, rules);
            }
        }
        Value::Array(list) => {
            for value in list {
                map_selectors(value, selects_namespaces, rules);
            }
        }
        _ => {}
    }
}

fn map_selector(selector: &mut Map<String, Value>, rules: &Rules) {
    if let Some(labels) = selector.get_mut("matchLabels") {
        rules.map(labels.get_mut(METADATA_NAME));
    }
    let expressions = selector.get_mut("matchExpressions");
    for expression in expressions
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if expression["key"] == METADATA_NAME {
            each(expression, "values/*", &mut |name| rules.map(Some(name)));
        }
    }
}
