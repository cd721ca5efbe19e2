//! Cases of Velero's table tests (its checklist C, E, K), and our own.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const BINDINGS: [&str; 2] = [
    "rolebindings.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

fn mapped() -> Rules {
    Rules {
        namespaces: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        reprovisioned: BTreeSet::from(["gone".to_owned()]),
    }
}

fn with(resource: &str, rules: &Rules, object: Value) -> Prepared {
    let mut object = object;
    if object["metadata"].get("name").is_none() {
        object["metadata"]["name"] = json!("n");
    }
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    prepare(resource, &name, object.to_string().as_bytes(), rules).unwrap()
}

fn kept(resource: &str, object: Value) -> Value {
    match with(resource, &Rules::default(), object) {
        Prepared::Object { object, .. } => object,
        Prepared::Skip(why) => panic!("skipped: {why}"),
    }
}

fn skipped(resource: &str, object: Value) -> Option<Skip> {
    match with(resource, &Rules::default(), object) {
        Prepared::Object { .. } => None,
        Prepared::Skip(why) => Some(why),
    }
}

fn mapping(resource: &str, object: Value) -> Value {
    match with(resource, &mapped(), object) {
        Prepared::Object { object, .. } => object,
        Prepared::Skip(why) => panic!("skipped: {why}"),
    }
}

#[test]
fn metadata_of_the_server_goes_and_the_users_stays() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "n", "namespace": "a", "labels": {"l": "1"}, "annotations": {"a": "1"}, "finalizers": ["x.io/f", "orphan"],
        "uid": "u", "resourceVersion": "5", "generation": 3, "creationTimestamp": "t", "deletionTimestamp": "t",
        "deletionGracePeriodSeconds": 30, "selfLink": "/x", "generateName": "n-", "managedFields": [{"manager": "m"}],
        "ownerReferences": [{"kind": "X"}],
    }, "data": {"k": "v"}, "status": {"phase": "x"}});
    assert_eq!(
        kept("configmaps", object),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "n", "namespace": "a", "labels": {"l": "1"}, "annotations": {"a": "1"}, "finalizers": ["x.io/f"],
        }, "data": {"k": "v"}})
    );
}

#[test]
fn what_is_no_object_of_that_name_is_an_error() {
    let rules = Rules::default();
    for (json, expected) in [
        ("{", "not valid JSON"),
        ("{}", "no metadata"),
        (r#"{"metadata":3}"#, "no metadata"),
        (r#"{"metadata":{}}"#, "no metadata"),
        (r#"{"metadata":{"name":"other"}}"#, "other"),
        ("[]", "no metadata"),
    ] {
        let error = prepare("pods", "n", json.as_bytes(), &rules).unwrap_err();
        assert!(error.to_string().contains(expected), "{json}: {error}");
    }
}

#[test]
fn the_label_is_put_on_whatever_labels_there_are() {
    for metadata in [
        json!({}),
        json!({"labels": null}),
        json!({"labels": {"x": "y"}}),
    ] {
        let mut object = json!({"metadata": metadata});
        label(&mut object, "b-20261123201501");
        assert_eq!(
            object["metadata"]["labels"][RESTORE_LABEL],
            "b-20261123201501"
        );
    }
}

#[test]
fn namespaces_are_mapped_wherever_they_are_named() {
    let object = mapping("configmaps", json!({"metadata": {"namespace": "a"}}));
    assert_eq!(object["metadata"]["namespace"], "b");
    let object = mapping("configmaps", json!({"metadata": {"namespace": "c"}}));
    assert_eq!(object["metadata"]["namespace"], "c");
    for binding in BINDINGS {
        let object = mapping(
            binding,
            json!({"subjects": [{"name": "s", "namespace": "a"}, {"name": "s", "namespace": "c"}, {"name": "g"}]}),
        );
        assert_eq!(
            object["subjects"],
            json!([{"name": "s", "namespace": "b"}, {"name": "s", "namespace": "c"}, {"name": "g"}])
        );
    }
    let object = mapping(
        "persistentvolumes",
        json!({"spec": {"claimRef": {"namespace": "a", "name": "c", "uid": "u", "resourceVersion": "4"}}}),
    );
    assert_eq!(
        object["spec"]["claimRef"],
        json!({"namespace": "b", "name": "c"})
    );
    let object = mapping(
        "namespaces",
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a", "x": "y"}},
               "spec": {"finalizers": ["kubernetes"]}}),
    );
    assert_eq!(
        object,
        json!({"metadata": {"name": "b", "labels": {"x": "y"}}})
    );
    let hook = "validatingwebhookconfigurations.admissionregistration.k8s.io";
    let object = mapping(
        hook,
        json!({"webhooks": [{"clientConfig": {"service": {"namespace": "a"}}}]}),
    );
    assert_eq!(
        object["webhooks"][0]["clientConfig"]["service"]["namespace"],
        "b"
    );
}

#[test]
fn services_lose_their_addresses_unless_headless() {
    let object = kept(
        "services",
        json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"}}}),
    );
    assert_eq!(object["spec"], json!({"selector": {"a": "b"}}));
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
    let object = kept("services", json!({"spec": headless}));
    assert_eq!(object["spec"], headless);
}

#[test]
fn node_ports_stay_only_when_the_user_chose_them() {
    let applied = |ports: Value| json!({"metadata": {"annotations": {LAST_APPLIED: json!({"spec": {"ports": ports}}).to_string()}}});
    let managed = |fields: Value| json!({"metadata": {"managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": fields}}]}});
    let chosen = json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}, "f:port": {}}}});
    let unchosen = json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:port": {}}}});
    for (case, from, port, stays) in [
        ("nothing says", json!({}), json!({"port": 80}), false),
        (
            "unnamed, not applied",
            applied(json!([{"port": 80}])),
            json!({"port": 80}),
            false,
        ),
        (
            "unnamed, applied",
            applied(json!([{"port": 80, "nodePort": 31000}])),
            json!({"port": 80}),
            true,
        ),
        (
            "unnamed, another applied",
            applied(json!([{"port": 80, "nodePort": 32000}])),
            json!({"port": 80}),
            false,
        ),
        (
            "unnamed, a named one applied",
            applied(json!([{"name": "x", "nodePort": 31000}])),
            json!({"port": 80}),
            false,
        ),
        (
            "named, applied as a string",
            applied(json!([{"name": "x", "nodePort": "31000"}])),
            json!({"name": "x", "port": 80}),
            true,
        ),
        (
            "named, applied as null",
            applied(json!([{"name": "x", "nodePort": null}])),
            json!({"name": "x", "port": 80}),
            false,
        ),
        (
            "managed",
            managed(chosen.clone()),
            json!({"port": 80, "protocol": "TCP"}),
            true,
        ),
        (
            "managed by another port",
            managed(chosen),
            json!({"port": 81, "protocol": "TCP"}),
            false,
        ),
        (
            "not managed",
            managed(unchosen),
            json!({"port": 80, "protocol": "TCP"}),
            false,
        ),
        (
            "unreadable annotation",
            json!({"metadata": {"annotations": {LAST_APPLIED: "{"}}}),
            json!({"port": 80}),
            false,
        ),
    ] {
        let mut port = port;
        port["nodePort"] = json!(31000);
        let mut service = from;
        service["spec"] = json!({"type": "NodePort", "ports": [port]});
        let object = kept("services", service);
        assert_eq!(
            object["spec"]["ports"][0].get("nodePort").is_some(),
            stays,
            "{case}"
        );
    }
}

#[test]
fn health_check_ports_stay_only_when_the_user_chose_them() {
    let service = |policy: &str, metadata: Value| json!({"metadata": metadata, "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": 32100}});
    let applied = |port: Value| json!({"annotations": {LAST_APPLIED: json!({"spec": {"healthCheckNodePort": port}}).to_string()}});
    let managed =
        json!({"managedFields": [{"fieldsV1": {"f:spec": {"f:healthCheckNodePort": {}}}}]});
    for (policy, metadata, stays) in [
        ("Local", json!({}), false),
        ("Cluster", json!({}), true),
        ("Local", applied(json!(32100)), true),
        ("Local", applied(Value::Null), false),
        ("Local", managed, true),
    ] {
        let object = kept("services", service(policy, metadata.clone()));
        assert_eq!(
            object["spec"].get("healthCheckNodePort").is_some(),
            stays,
            "{policy} {metadata}"
        );
    }
}

#[test]
fn jobs_lose_the_uid_of_the_old_job_and_nothing_else() {
    let both = json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"});
    let labels =
        json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "job-name": "n"});
    let object = kept(
        "jobs.batch",
        json!({"spec": {"selector": {"matchLabels": both}, "template": {"metadata": {"labels": labels}}}}),
    );
    assert_eq!(
        object["spec"],
        json!({"template": {"metadata": {"labels": {"job-name": "n"}}}})
    );
    for spec in [
        json!({}),
        json!({"selector": {}}),
        json!({"template": {}}),
        json!({"template": {"metadata": {}}}),
    ] {
        kept("jobs.batch", json!({"spec": spec}));
    }
    let manual =
        json!({"manualSelector": true, "selector": {"matchLabels": {"controller-uid": "mine"}}});
    assert_eq!(kept("jobs.batch", json!({"spec": manual}))["spec"], manual);
}

#[test]
fn pods_lose_their_node_their_priority_and_their_token() {
    let object = kept(
        "pods",
        json!({"spec": {
            "nodeName": "node-1", "priority": 5, "priorityClassName": "high", "serviceAccountName": "sa", "nodeSelector": {"a": "b"},
            "ephemeralContainers": [{"name": "debug"}],
            "volumes": [{"name": "sa-token-x", "secret": {"secretName": "sa-token-x"}}, {"name": "data", "emptyDir": {}},
                        {"name": "sa-token-y", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "sa-token-x"}, {"name": "data"}, {"name": "sa-token-y"}]},
                           {"name": "plain"}],
            "initContainers": [{"name": "i", "volumeMounts": [{"name": "sa-token-x"}]}],
        }}),
    );
    assert_eq!(
        object["spec"],
        json!({
            "priorityClassName": "high", "serviceAccountName": "sa", "nodeSelector": {"a": "b"},
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "sa-token-y", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "data"}, {"name": "sa-token-y"}]}, {"name": "plain"}],
            "initContainers": [{"name": "i", "volumeMounts": []}],
        })
    );
}

#[test]
fn tokens_are_left_to_the_controller() {
    let secret = |name: &str| {
        json!({"type": "kubernetes.io/service-account-token", "metadata": {"name": name, "annotations": {
                "kubernetes.io/service-account.name": "sa", "kubernetes.io/service-account.uid": "u"}},
               "data": {"token": "t", "ca.crt": "c", "namespace": "n", "mine": "m"}})
    };
    assert_eq!(
        skipped("secrets", secret("sa-token-abcde")),
        Some(Skip::Controlled)
    );
    let object = kept("secrets", secret("by-hand"));
    assert_eq!(object["data"], json!({"mine": "m"}));
    assert_eq!(
        object["metadata"]["annotations"],
        json!({"kubernetes.io/service-account.name": "sa"})
    );
    let plain =
        json!({"type": "Opaque", "metadata": {"name": "sa-token-abcde"}, "data": {"token": "t"}});
    assert_eq!(kept("secrets", plain.clone()), plain);
    let account = |secrets: Value| json!({"metadata": {"name": "sa"}, "secrets": secrets});
    let object = kept(
        "serviceaccounts",
        account(json!([{"name": "a"}, {"name": "sa-token-x"}, {"name": "b"}])),
    );
    assert_eq!(object["secrets"], json!([{"name": "a"}, {"name": "b"}]));
    assert_eq!(
        kept("serviceaccounts", account(json!([{"name": "sa-token-x"}]))),
        json!({"metadata": {"name": "sa"}})
    );
}

#[test]
fn claims_forget_their_binding_and_volumes_their_annotations() {
    let annotations = json!({
        "pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.beta.kubernetes.io/storage-provisioner": "p", "volume.kubernetes.io/storage-provisioner": "p",
        "volume.kubernetes.io/selected-node": "node-1", "mine": "x",
    });
    let claim = |volume: &str| json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume, "storageClassName": "s"}});
    let object = mapping("persistentvolumeclaims", claim("kept"));
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "x"}));
    assert_eq!(object["spec"]["volumeName"], "kept");
    let object = mapping("persistentvolumeclaims", claim("gone"));
    assert_eq!(object["spec"], json!({"storageClassName": "s"}));
    let volume = |name: &str| json!({"metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "p", "mine": "x"}}});
    let object = mapping("persistentvolumes", volume("kept"));
    assert_eq!(
        object["metadata"]["annotations"],
        json!({"pv.kubernetes.io/provisioned-by": "p"})
    );
    assert_eq!(
        with("persistentvolumes", &mapped(), volume("gone")),
        Prepared::Skip(Skip::Reprovisioned)
    );
}

#[test]
fn definitions_and_webhooks_stored_since_beta_are_made_valid() {
    let object = kept(
        "customresourcedefinitions.apiextensions.k8s.io",
        json!({"apiVersion": "apiextensions.k8s.io/v1", "spec": {"group": "x.io", "preserveUnknownFields": true, "versions": [
            {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}, {"name": "v2"}]}}),
    );
    assert_eq!(object["spec"]["preserveUnknownFields"], false);
    assert_eq!(
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    );
    let hook = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
    let hooks = |version: &str| {
        json!({"apiVersion": format!("admissionregistration.k8s.io/{version}"), "webhooks": [
        {"sideEffects": "Unknown"}, {"sideEffects": "NoneOnDryRun"}, {"sideEffects": "Some"}]})
    };
    let object = kept(hook, hooks("v1"));
    assert_eq!(
        object["webhooks"],
        json!([{"sideEffects": "None"}, {"sideEffects": "NoneOnDryRun"}, {"sideEffects": "None"}])
    );
    assert_eq!(
        kept(hook, hooks("v1beta1"))["webhooks"],
        hooks("v1beta1")["webhooks"]
    );
}

#[test]
fn what_others_make_is_left_to_them() {
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    let owned =
        |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "controller": true}]}});
    let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let condition =
        |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    let named =
        |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace}});
    let managed_by = |manager: &str| json!({"metadata": {"managedFields": [{"manager": manager}]}});
    for (resource, object, expected) in [
        (
            "pods",
            annotated("kubernetes.io/config.mirror", "x"),
            Some(Skip::MirrorPod),
        ),
        ("pods", annotated("kubernetes.io/config.mirror", ""), None),
        ("pods", phase("Failed"), Some(Skip::Finished)),
        ("pods", phase("Succeeded"), Some(Skip::Finished)),
        ("pods", phase("Running"), None),
        ("pods", phase("Pending"), None),
        ("pods", owned("Job"), Some(Skip::PodOfJob)),
        ("pods", owned("ReplicaSet"), None),
        ("replicasets.apps", phase("Failed"), None),
        (
            "jobs.batch",
            json!({"status": {"completionTime": "t"}}),
            Some(Skip::Finished),
        ),
        ("jobs.batch", condition("Complete"), Some(Skip::Finished)),
        ("jobs.batch", condition("Failed"), Some(Skip::Finished)),
        ("jobs.batch", condition("Suspended"), None),
        ("jobs.batch", json!({}), None),
        (
            "endpoints",
            annotated("endpoints.kubernetes.io/last-change-trigger-time", "t"),
            Some(Skip::Controlled),
        ),
        (
            "endpoints",
            managed_by("kube-controller-manager"),
            Some(Skip::Controlled),
        ),
        ("endpoints", managed_by("kubectl"), None),
        ("endpoints", json!({}), None),
        (
            "endpointslices.discovery.k8s.io",
            labelled(
                "endpointslice.kubernetes.io/managed-by",
                "endpointslice-controller.k8s.io",
            ),
            Some(Skip::Controlled),
        ),
        (
            "endpointslices.discovery.k8s.io",
            labelled("endpointslice.kubernetes.io/managed-by", "me"),
            None,
        ),
        (
            "apiservices.apiregistration.k8s.io",
            json!({"spec": {"service": null}}),
            Some(Skip::ControlPlane),
        ),
        (
            "apiservices.apiregistration.k8s.io",
            json!({"spec": {"service": {"name": "s"}}}),
            None,
        ),
        (
            "configmaps",
            named("kube-root-ca.crt", "a"),
            Some(Skip::ControlPlane),
        ),
        (
            "services",
            named("kubernetes", "default"),
            Some(Skip::ControlPlane),
        ),
        ("services", named("kubernetes", "a"), None),
        (
            "flowschemas.flowcontrol.apiserver.k8s.io",
            annotated("apf.kubernetes.io/autoupdate-spec", "true"),
            Some(Skip::ControlPlane),
        ),
    ] {
        assert_eq!(
            skipped(resource, object.clone()),
            expected,
            "{resource} {object}"
        );
    }
}

#[test]
fn nothing_of_ark_comes_back_but_its_schedules_suspended() {
    let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
    for (resource, object) in [
        ("jobs.batch", labelled(OPERATION_LABEL, "restore")),
        ("jobs.batch", labelled(SCHEDULE_LABEL, "daily")),
        ("pods", labelled(OPERATION_LABEL, "backup")),
        ("podtemplates", labelled(PART_OF_LABEL, PART_OF)),
        ("cronjobs.batch", labelled(PART_OF_LABEL, PART_OF)),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            json!({"metadata": {"name": RESTORE_BINDING}}),
        ),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            json!({"spec": {"group": GROUP}}),
        ),
    ] {
        assert_eq!(
            skipped(resource, object.clone()),
            Some(Skip::Ark),
            "{resource} {object}"
        );
    }
    let mut cron_job = labelled(SCHEDULE_LABEL, "daily");
    cron_job["metadata"]["labels"][PART_OF_LABEL] = json!(PART_OF);
    cron_job["spec"] = json!({"schedule": "@daily"});
    assert_eq!(
        kept("cronjobs.batch", cron_job)["spec"],
        json!({"schedule": "@daily", "suspend": true})
    );
    let users = kept(
        "cronjobs.batch",
        json!({"spec": {"schedule": "@daily", "suspend": false}}),
    );
    assert_eq!(users["spec"]["suspend"], false);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z.-]{0,8}".prop_map(Value::from),
    ];
    // Keys that the rules look at, so that they meet values of every wrong shape.
    let key = prop::sample::select(vec![
        "metadata",
        "labels",
        "annotations",
        "finalizers",
        "spec",
        "template",
        "selector",
        "matchLabels",
        "controller-uid",
        "ports",
        "clusterIP",
        "volumes",
        "containers",
        "volumeMounts",
        "name",
        "namespace",
        "claimRef",
        "subjects",
        "webhooks",
        "versions",
        "schema",
        "data",
        "secrets",
        "service",
        "status",
        "ownerReferences",
        "managedFields",
        "conditions",
        "type",
        "x",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

const SPECIAL: [&str; 20] = [
    "services",
    "pods",
    "jobs.batch",
    "cronjobs.batch",
    "secrets",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "namespaces",
    "clusterroles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "apiservices.apiregistration.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "widgets.example.com",
];

proptest! {
    /// Whatever the shape of an object, preparing does not panic, and preparing twice is preparing once.
    #[test]
    fn preparing_is_idempotent(resource in prop::sample::select(SPECIAL.to_vec()), object in any_json()) {
        let mut object = object;
        if let Some(object) = object.as_object_mut() {
            let metadata = object.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("name".into(), "n".into());
            }
        }
        if let Ok(Prepared::Object { object: once, .. }) = prepare(resource, "n", object.to_string().as_bytes(), &mapped()) {
            let twice = prepare(resource, once["metadata"]["name"].as_str().unwrap(), once.to_string().as_bytes(), &mapped()).unwrap();
            prop_assert_eq!(&twice, &Prepared::Object { object: once.clone(), status: None });
        }
    }
}
