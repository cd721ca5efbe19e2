//! Cases of Velero's table tests (C, D, F, H and K of docs/restore-checklist.md), and our own.

mod merge;
mod references;
mod volumes;

use super::services::LAST_APPLIED;
use super::*;
use crate::api::{
    GROUP, OPERATION_LABEL, PART_OF, PART_OF_LABEL, RestoreStatusSpec, restore_binding,
};
use proptest::prelude::*;
use serde_json::json;

fn mapped() -> Rules {
    Rules {
        namespaces: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        reprovisioned: BTreeSet::from(["gone".to_owned()]),
        storage_classes: BTreeMap::from([("slow".to_owned(), "fast".to_owned())]),
        ..Rules::default()
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
fn c1_c2_c18_c19_c21_metadata_of_the_server_goes_and_the_users_stays() {
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
fn c17_what_is_no_object_of_that_name_is_an_error() {
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
fn k67_k68_services_lose_their_addresses_unless_headless() {
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
fn k69_to_k74_k78_node_ports_stay_only_when_the_user_chose_them() {
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
fn k75_to_k78_health_check_ports_stay_only_when_the_user_chose_them() {
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
fn k34_to_k38_jobs_lose_the_uid_of_the_old_job_and_nothing_else() {
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
        json!({"selector": null, "template": null}),
    ] {
        kept("jobs.batch", json!({"spec": spec}));
    }
    let manual =
        json!({"manualSelector": true, "selector": {"matchLabels": {"controller-uid": "mine"}}});
    assert_eq!(kept("jobs.batch", json!({"spec": manual}))["spec"], manual);
}

#[test]
fn k39_to_k43_pods_lose_their_node_their_priority_and_their_token() {
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
fn k63_to_k66_tokens_are_left_to_the_controller() {
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
    let (a, b, token) = (
        json!({"name": "a"}),
        json!({"name": "b"}),
        json!({"name": "sa-token-x"}),
    );
    for secrets in [[&token, &a, &b], [&a, &token, &b], [&a, &b, &token]] {
        let object = kept("serviceaccounts", account(json!(secrets)));
        assert_eq!(object["secrets"], json!([a, b]));
    }
    for without in [json!({"metadata": {"name": "sa"}}), account(json!([a]))] {
        assert_eq!(kept("serviceaccounts", without.clone()), without);
    }
    assert_eq!(
        kept("serviceaccounts", account(json!([{"name": "sa-token-x"}]))),
        json!({"metadata": {"name": "sa"}})
    );
}

#[test]
fn k3_to_k6_k27_definitions_and_webhooks_stored_since_beta_are_made_valid() {
    let object = kept(
        "customresourcedefinitions.apiextensions.k8s.io",
        json!({"apiVersion": "apiextensions.k8s.io/v1", "spec": {"group": "x.io", "preserveUnknownFields": true, "versions": [
            {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "maximum": 10}}}, {"name": "v2"}]}}),
    );
    assert_eq!(object["spec"]["preserveUnknownFields"], false);
    assert_eq!(
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({"type": "object", "maximum": 10, "x-kubernetes-preserve-unknown-fields": true})
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
fn a18_c22_c23_c24_k7_what_others_make_is_left_to_them() {
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
            json!({"metadata": {"name": restore_binding("elsewhere")}}),
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
    cron_job["metadata"]["annotations"] = json!({SUSPENDED_BY_ANNOTATION: "restore-only"});
    cron_job["spec"] = json!({"schedule": "@daily"});
    let schedule = kept("cronjobs.batch", cron_job);
    assert_eq!(
        schedule["spec"],
        json!({"schedule": "@daily", "suspend": true})
    );
    // The mode of the cluster that it comes to has not suspended it, so it does not resume it either.
    assert_eq!(schedule["metadata"].get("annotations"), None);
    let users = kept(
        "cronjobs.batch",
        json!({"spec": {"schedule": "@daily", "suspend": false}}),
    );
    assert_eq!(users["spec"]["suspend"], false);
}

#[test]
fn k73_k75_ports_are_kept_when_told_and_addresses_still_go() {
    let rules = Rules {
        preserve_node_ports: true,
        ..Rules::default()
    };
    let service = json!({"spec": {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100,
        "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 31000}]}});
    let Prepared::Object { object, .. } = with("services", &rules, service.clone()) else {
        panic!("skipped");
    };
    assert_eq!(
        object["spec"],
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100,
               "ports": [{"port": 80, "nodePort": 31000}]})
    );
    // The one in the cluster is looked at in the same way.
    assert!(rules.of_live().preserve_node_ports);
}

/// D1–D11, with Velero's annotation and ours.
#[test]
fn d1_to_d11_the_status_comes_back_when_its_type_or_its_annotation_says_so() {
    let (included, excluded) = (Some("pods"), Some("jobs.batch"));
    for (annotation, spec, expected) in [
        (None, included, true),
        (None, excluded, false),
        (Some("true"), excluded, true),
        (Some("false"), included, false),
        (Some("foo"), included, true),
        (Some("foo"), excluded, false),
        (Some(""), included, true),
        (Some(""), excluded, false),
        (Some("True"), excluded, true),
        (Some("FALSE"), included, false),
        (Some(" true "), None, true),
        (Some("true"), None, true),
        (Some("false"), None, false),
        (None, None, false),
    ] {
        let filter = spec.map(|resource| Filter::resolved_resources(&[resource.to_owned()], &[]));
        let rules = Rules {
            status: StatusChoice::new(filter),
            ..Rules::default()
        };
        for key in ["ark.heptio.com/restore-status", "velero.io/restore-status"] {
            let mut pod = json!({"metadata": {"name": "n"}, "status": {"phase": "Running"}});
            if let Some(annotation) = annotation {
                pod["metadata"]["annotations"] = json!({key: annotation});
            }
            let Prepared::Object { object, status, .. } = with("pods", &rules, pod) else {
                panic!("skipped");
            };
            assert_eq!(status.is_some(), expected, "{annotation:?} {spec:?}");
            assert_eq!(object.get("status"), None);
        }
    }
    let both = json!({"metadata": {"annotations": {
        "velero.io/restore-status": "true", "ark.heptio.com/restore-status": "false"}}});
    assert!(!StatusChoice::default().wants("pods", &both));
}

#[test]
fn a_status_that_is_not_there_is_not_restored() {
    let rules = Rules {
        status: StatusChoice::new(Some(Filter::default())),
        ..Rules::default()
    };
    for object in [json!({}), json!({"status": null})] {
        let Prepared::Object { status, .. } = with("pods", &rules, object) else {
            panic!("skipped");
        };
        assert_eq!(status, None);
    }
}

#[test]
fn rules_are_what_was_asked_for() {
    let spec = RestoreSpec {
        namespace_mapping: BTreeMap::from([("a".into(), "b".into())]),
        storage_class_mapping: BTreeMap::from([
            ("slow".into(), "fast".into()),
            ("old".into(), "fast".into()),
        ]),
        restore_pvs: Some(false),
        preserve_node_ports: Some(true),
        restore_status: Some(RestoreStatusSpec::default()),
        ..RestoreSpec::default()
    };
    let rules = Rules::from_spec(&spec, Some(Filter::default()), None, None);
    assert!(rules.without_volumes && rules.preserve_node_ports && rules.modifiers.is_none());
    assert!(rules.status.wants("pods", &json!({})));
    assert_eq!(rules.target("a"), "b");
    assert_eq!(rules.storage_classes_needed(), BTreeSet::from(["fast"]));
    let plain = Rules::from_spec(&RestoreSpec::default(), None, None, None);
    assert!(!plain.without_volumes && !plain.preserve_node_ports);
    assert!(!plain.status.wants("pods", &json!({})));
}

#[test]
fn modifiers_come_after_the_rules_of_types_and_see_the_namespace_of_the_backup() {
    let modifiers = Modifiers::parse(
        "changes",
        &BTreeMap::from([(
            "rules".to_owned(),
            r#"
version: v1
resourceModifierRules:
- conditions: {groupResource: services, namespaces: [a], matches: [{path: /spec/clusterIP, value: "10.0.0.1"}]}
  mergePatches: [{patchData: '{"metadata": {"labels": {"seen": "too-early"}}}'}]
- conditions: {groupResource: "*", namespaces: [a]}
  mergePatches: [{patchData: '{"metadata": {"labels": {"changed": "yes"}}}'}]
- conditions: {groupResource: configmaps}
  patches: [{operation: remove, path: /data/missing}]
"#
            .to_owned(),
        )]),
    );
    let rules = Rules {
        modifiers: Some(Arc::new(modifiers.unwrap())),
        ..mapped()
    };
    let service =
        json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"clusterIP": "10.0.0.1"}});
    let Prepared::Object { object, .. } = with("services", &rules, service) else {
        panic!("skipped");
    };
    assert_eq!(
        object,
        json!({"metadata": {"name": "s", "namespace": "b", "labels": {"changed": "yes"}}, "spec": {}})
    );
    let namespace = json!({"metadata": {"name": "x"}});
    let Prepared::Object { object, .. } = with(NAMESPACES, &rules, namespace.clone()) else {
        panic!("skipped");
    };
    assert_eq!(object, namespace);
    let map = json!({"metadata": {"name": "m", "namespace": "c"}}).to_string();
    let error = prepare("configmaps", "m", map.as_bytes(), &rules).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rule 3 of the resource modifiers changes cannot be applied"
    );
    assert!(rules.of_live().modifiers.is_none());
}

#[test]
fn the_revision_by_which_a_deployment_finds_its_replica_sets_stays() {
    let set = json!({"metadata": {"name": "web-5d", "namespace": "a",
        "annotations": {"deployment.kubernetes.io/revision": "3"}, "labels": {"pod-template-hash": "5d"},
        "ownerReferences": [{"kind": "Deployment", "controller": true}]},
        "spec": {"selector": {"matchLabels": {"pod-template-hash": "5d"}}}});
    let mut expected = set.clone();
    expected["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("ownerReferences");
    assert_eq!(kept("replicasets.apps", set), expected);
}

#[test]
fn what_controllers_wrote_is_noise_and_what_people_wrote_is_not() {
    let mut object = json!({"metadata": {
        "annotations": {
            "deployment.kubernetes.io/revision": "3", "pv.kubernetes.io/bind-completed": "yes",
            "volume.kubernetes.io/selected-node": "n", "volume.beta.kubernetes.io/storage-class": "mine",
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"},
        "labels": {"kubernetes.io/metadata.name": "a", RESTORE_LABEL: "b-1", "app": "x"},
        "finalizers": ["kubernetes.io/pvc-protection", "mine.io/f"]}});
    strip_noise("persistentvolumeclaims", &mut object);
    assert_eq!(
        object,
        json!({"metadata": {
            "annotations": {"volume.beta.kubernetes.io/storage-class": "mine",
                "kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"},
            "labels": {"app": "x"},
            "finalizers": ["mine.io/f"]}})
    );
    let mut pod = json!({"metadata": {"name": "p", "finalizers": ["batch.kubernetes.io/job-tracking"],
            "annotations": {"cni.projectcalico.org/podIP": "10.1.1.1"}}, "spec": {
        "volumes": [{"name": "kube-api-access-x7k", "projected": {}}, {"name": "kube-api-access-mine", "emptyDir": {}}],
        "containers": [{"name": "c", "volumeMounts": [
            {"name": "kube-api-access-x7k", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            {"name": "kube-api-access-mine", "mountPath": "/x"}]}]}});
    strip_noise("pods", &mut pod);
    assert_eq!(
        pod,
        json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "kube-api-access-mine", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "kube-api-access-mine", "mountPath": "/x"}]}]}})
    );
    for odd in [
        json!(null),
        json!({}),
        json!({"metadata": {"finalizers": 3, "annotations": []}}),
    ] {
        let mut same = odd.clone();
        strip_noise("pods", &mut same);
        assert_eq!(same, odd);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z.-]{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "a",
            "b",
            "",
            "namespaces",
            "slow",
            "x.a.svc",
            "system:serviceaccounts:a",
            "kubernetes.io/metadata.name"
        ])
        .prop_map(Value::from),
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
        "affinity",
        "podAffinity",
        "namespaces",
        "namespaceSelector",
        "matchExpressions",
        "key",
        "values",
        "kubernetes.io/metadata.name",
        "parameters",
        "csi.storage.k8s.io/node-stage-secret-namespace",
        "rules",
        "resources",
        "resourceNames",
        "apiGroups",
        "parentRefs",
        "externalName",
        "volumeClaimTemplates",
        "storageClassName",
        "dataSource",
        "dataSourceRef",
        "volume.beta.kubernetes.io/storage-class",
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

const SPECIAL: [&str; 27] = [
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
    "roles.rbac.authorization.k8s.io",
    "storageclasses.storage.k8s.io",
    "statefulsets.apps",
    "deployments.apps",
    "networkpolicies.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "widgets.example.com",
];

proptest! {
    /// Whatever the shape of an object, preparing does not panic, and preparing twice is preparing once.
    #[test]
    fn preparing_is_idempotent(
        resource in prop::sample::select(SPECIAL.to_vec()), object in any_json(), without_volumes in any::<bool>()
    ) {
        let mut object = object;
        if let Some(object) = object.as_object_mut() {
            let metadata = object.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("name".into(), "n".into());
            }
        }
        let rules = Rules { without_volumes, ..mapped() };
        if let Ok(Prepared::Object { object: once, .. }) = prepare(resource, "n", object.to_string().as_bytes(), &rules) {
            let twice = prepare(resource, once["metadata"]["name"].as_str().unwrap(), once.to_string().as_bytes(), &rules).unwrap();
            prop_assert_eq!(&twice, &Prepared::Object { object: once.clone(), status: None, source: None, remark: None });
            let mut quiet = once;
            strip_noise(resource, &mut quiet);
            let mut again = quiet.clone();
            strip_noise(resource, &mut again);
            prop_assert_eq!(quiet, again);
        }
    }
}
