//! Namespaces that objects name.

use super::*;

const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// Objects with `N` where a namespace is named: with the one of the backup they become the same with that of the target.
fn mapped_at(resource: &str, object: Value) {
    let named = |namespace: &str| -> Value {
        let text = object.to_string();
        serde_json::from_str(&text.replace("NAMESPACE", namespace)).unwrap()
    };
    let mut expected = named("b");
    expected["metadata"]["name"] = json!("n");
    assert_eq!(mapping(resource, named("a")), expected, "{resource}");
    // Others stay.
    let mut other = named("c");
    other["metadata"]["name"] = json!("n");
    assert_eq!(mapping(resource, other.clone()), other, "{resource}");
}

#[test]
fn b1_objects_move_to_the_target_and_unmapped_ones_stay() {
    mapped_at(
        "configmaps",
        json!({"metadata": {"namespace": "NAMESPACE"}}),
    );
}

#[test]
fn a_namespace_gets_its_new_name_and_loses_the_label_with_the_old() {
    let object = mapping(
        "namespaces",
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a", "x": "y"}},
               "spec": {"finalizers": ["kubernetes"]}}),
    );
    assert_eq!(
        object,
        json!({"metadata": {"name": "b", "labels": {"x": "y"}}})
    );
}

#[test]
fn k23_k24_k25_k26_subjects_of_bindings_are_mapped() {
    let subjects = json!([{"kind": "ServiceAccount", "name": "s", "namespace": "a"}, {"name": "s", "namespace": "c"}, {"name": "a"}]);
    for binding in [ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS] {
        let object = mapping(
            binding,
            json!({"subjects": subjects, "roleRef": {"name": "a"}}),
        );
        assert_eq!(
            object["subjects"],
            json!([{"kind": "ServiceAccount", "name": "s", "namespace": "b"}, {"name": "s", "namespace": "c"}, {"name": "a"}])
        );
        assert_eq!(object["roleRef"], json!({"name": "a"}));
        assert_eq!(
            kept(binding, json!({"subjects": subjects}))["subjects"],
            subjects
        );
        mapped_at(
            binding,
            json!({"subjects": [{"kind": "User", "name": "system:serviceaccount:NAMESPACE:s"},
                                {"kind": "Group", "name": "system:serviceaccounts:NAMESPACE"}]}),
        );
    }
    let other = json!({"metadata": {"name": "n"}, "subjects": subjects});
    assert_eq!(mapping("widgets.example.com", other.clone()), other);
}

#[test]
fn services_that_are_called_are_mapped() {
    let client = json!({"service": {"namespace": "NAMESPACE", "name": "s"}});
    for hooks in [
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    ] {
        mapped_at(
            hooks,
            json!({"webhooks": [{"clientConfig": client}, {"clientConfig": {"url": "https://a"}}]}),
        );
    }
    mapped_at(
        "customresourcedefinitions.apiextensions.k8s.io",
        json!({"spec": {"conversion": {"webhook": {"clientConfig": client}}}}),
    );
    mapped_at(
        "apiservices.apiregistration.k8s.io",
        json!({"spec": client}),
    );
    mapped_at(
        "services",
        json!({"spec": {"type": "ExternalName", "externalName": "db.NAMESPACE.svc.cluster.local"}}),
    );
    let elsewhere = json!({"metadata": {"name": "n"}, "spec": {"type": "ExternalName", "externalName": "db.a.example.com"}});
    assert_eq!(mapping("services", elsewhere.clone()), elsewhere);
}

#[test]
fn what_volumes_and_claims_refer_to_is_mapped() {
    let secret = json!({"name": "s", "namespace": "NAMESPACE"});
    mapped_at(
        "persistentvolumes",
        json!({
            "metadata": {"annotations": {"volume.kubernetes.io/provisioner-deletion-secret-namespace": "NAMESPACE"}},
            "spec": {
                "claimRef": {"namespace": "NAMESPACE", "name": "c"},
                "csi": {"controllerPublishSecretRef": secret, "controllerExpandSecretRef": secret, "nodeExpandSecretRef": secret,
                        "nodePublishSecretRef": secret, "nodeStageSecretRef": secret},
                "azureFile": {"secretNamespace": "NAMESPACE"}, "cephfs": {"secretRef": secret},
                "flexVolume": {"secretRef": secret}, "glusterfs": {"endpointsNamespace": "NAMESPACE"},
                "iscsi": {"secretRef": secret}, "rbd": {"secretRef": secret}, "scaleIO": {"secretRef": secret}}}),
    );
    mapped_at(
        "persistentvolumeclaims",
        json!({"spec": {"dataSourceRef": {"kind": "X", "namespace": "NAMESPACE"}}}),
    );
    mapped_at(
        "statefulsets.apps",
        json!({"spec": {"volumeClaimTemplates": [{"spec": {"dataSourceRef": {"namespace": "NAMESPACE"}}}]}}),
    );
    // What else becomes of it is in L14, L15, L20.
    let content = mapping(
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        json!({"metadata": {"annotations": {"snapshot.storage.kubernetes.io/deletion-secret-namespace": "a"}},
               "spec": {"volumeSnapshotRef": {"name": "s", "namespace": "a"}, "source": {"snapshotHandle": "h"}}}),
    );
    assert_eq!(content["spec"]["volumeSnapshotRef"]["namespace"], "b");
    let annotations = &content["metadata"]["annotations"];
    assert_eq!(
        annotations["snapshot.storage.kubernetes.io/deletion-secret-namespace"],
        "b"
    );
    let parameters = json!({"csi.storage.k8s.io/provisioner-secret-namespace": "NAMESPACE",
        "csi.storage.k8s.io/node-stage-secret-namespace": "NAMESPACE", "csi.storage.k8s.io/snapshotter-secret-namespace": "NAMESPACE",
        "adminSecretNamespace": "NAMESPACE", "csi.storage.k8s.io/provisioner-secret-name": "a", "pool": "a"});
    for class in [
        "storageclasses.storage.k8s.io",
        "volumesnapshotclasses.snapshot.storage.k8s.io",
    ] {
        mapped_at(class, json!({"parameters": parameters}));
    }
    mapped_at("serviceaccounts", json!({"secrets": [secret]}));
}

#[test]
fn selectors_of_namespaces_by_name_are_mapped() {
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "NAMESPACE", "other": "a"}, "matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["NAMESPACE", "x"]},
        {"key": "other", "operator": "In", "values": ["a"]}]});
    mapped_at(
        "networkpolicies.networking.k8s.io",
        json!({"spec": {"ingress": [{"from": [{"namespaceSelector": selector}]}], "egress": [{"to": [{"namespaceSelector": selector}]}]}}),
    );
    for hooks in [
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    ] {
        mapped_at(
            hooks,
            json!({"webhooks": [{"namespaceSelector": selector}]}),
        );
    }
    for policy in ["validating", "mutating"] {
        mapped_at(
            &format!("{policy}admissionpolicies.admissionregistration.k8s.io"),
            json!({"spec": {"matchConstraints": {"namespaceSelector": selector}}}),
        );
        mapped_at(
            &format!("{policy}admissionpolicybindings.admissionregistration.k8s.io"),
            json!({"spec": {"paramRef": {"namespace": "NAMESPACE"}, "matchResources": {"namespaceSelector": selector}}}),
        );
    }
    // Custom resources often have such selectors, too.
    mapped_at(
        "widgets.example.com",
        json!({"spec": {"ruleNamespaceSelector": selector}}),
    );
    // No selector of namespaces: the label is one of pods then.
    let pods = json!({"metadata": {"name": "n"}, "spec": {"selector": {"matchLabels": {"kubernetes.io/metadata.name": "a"}}}});
    assert_eq!(mapping("deployments.apps", pods.clone()), pods);
}

#[test]
fn affinity_names_namespaces_in_pods_and_in_all_that_makes_pods() {
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "NAMESPACE"}});
    let term = json!({"namespaces": ["NAMESPACE", "x"], "namespaceSelector": selector, "topologyKey": "zone"});
    let rules = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term],
                       "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]});
    let spec = json!({"affinity": {"podAffinity": rules, "podAntiAffinity": rules},
        "volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"dataSourceRef": {"namespace": "NAMESPACE"}}}}}]});
    mapped_at("pods", json!({"spec": spec}));
    mapped_at("podtemplates", json!({"template": {"spec": spec}}));
    for workload in [
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "replicationcontrollers",
    ] {
        mapped_at(workload, json!({"spec": {"template": {"spec": spec}}}));
    }
    mapped_at(
        "cronjobs.batch",
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
    );
}

#[test]
fn references_of_the_network_are_mapped() {
    mapped_at(
        "ingressclasses.networking.k8s.io",
        json!({"spec": {"parameters": {"namespace": "NAMESPACE", "scope": "Namespace"}}}),
    );
    let target = json!({"targetRef": {"kind": "Pod", "namespace": "NAMESPACE"}});
    mapped_at(
        "endpoints",
        json!({"subsets": [{"addresses": [target], "notReadyAddresses": [target]}]}),
    );
    mapped_at(
        "endpointslices.discovery.k8s.io",
        json!({"endpoints": [target]}),
    );
    let reference = json!({"name": "a", "namespace": "NAMESPACE"});
    mapped_at(
        "httproutes.gateway.networking.k8s.io",
        json!({"spec": {"parentRefs": [reference], "rules": [{"backendRefs": [reference],
            "filters": [{"requestMirror": {"backendRef": reference}}]}]}}),
    );
    mapped_at(
        "referencegrants.gateway.networking.k8s.io",
        json!({"spec": {"from": [{"kind": "HTTPRoute", "namespace": "NAMESPACE"}], "to": [{"kind": "Service", "name": "a"}]}}),
    );
    mapped_at(
        "gateways.gateway.networking.k8s.io",
        json!({"spec": {"listeners": [{"tls": {"certificateRefs": [reference]}, "allowedRoutes": {"namespaces": {
            "from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "NAMESPACE"}}}}}]}}),
    );
}

#[test]
fn flow_schemas_are_mapped() {
    mapped_at(
        "flowschemas.flowcontrol.apiserver.k8s.io",
        json!({"spec": {"rules": [{"subjects": [
            {"kind": "ServiceAccount", "serviceAccount": {"namespace": "NAMESPACE", "name": "s"}},
            {"kind": "Group", "group": {"name": "system:serviceaccounts:NAMESPACE"}},
            {"kind": "User", "user": {"name": "system:serviceaccount:NAMESPACE:s"}}],
            "resourceRules": [{"namespaces": ["NAMESPACE"]}]}]}}),
    );
}

#[test]
fn rights_on_certain_namespaces_are_mapped_and_on_other_things_of_that_name_are_not() {
    for role in [ROLES, CLUSTER_ROLES] {
        mapped_at(
            role,
            json!({"rules": [{"apiGroups": [""], "resources": ["namespaces", "namespaces/status"], "resourceNames": ["NAMESPACE"], "verbs": ["get"]}]}),
        );
        let others = json!({"metadata": {"name": "n"}, "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get"]},
            {"apiGroups": ["example.com"], "resources": ["namespaces"], "resourceNames": ["a"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
            {"nonResourceURLs": ["/a"], "verbs": ["get"]}]});
        assert_eq!(mapping(role, others.clone()), others);
        let mixed = json!({"rules": [{"apiGroups": [""], "resources": ["configmaps", "namespaces"], "resourceNames": ["a"], "verbs": ["get"]}]});
        assert_eq!(
            mapping(role, mixed)["rules"],
            json!([
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["b"], "verbs": ["get"]}])
        );
    }
}

/// What kubectl was given still names the old namespace; the ports that it names count all the same.
#[test]
fn k70_to_k78_the_namespace_in_the_last_applied_configuration_does_not_fool_node_ports() {
    let applied = json!({"metadata": {"name": "n", "namespace": "a"}, "spec": {"ports": [{"port": 80, "nodePort": 31000}]}}).to_string();
    let object = mapping(
        "services",
        json!({"metadata": {"namespace": "a", "annotations": {LAST_APPLIED: applied}},
               "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31000}]}}),
    );
    assert_eq!(object["metadata"]["namespace"], "b");
    assert_eq!(object["metadata"]["annotations"][LAST_APPLIED], applied);
    assert_eq!(object["spec"]["ports"][0]["nodePort"], 31000);
}
