//! Cases of Velero's table tests (M of docs/restore-checklist.md), and our own.

use super::*;
use crate::error::chain;
use serde_json::json;

fn parse(text: &str) -> Result<Modifiers, ModifiersError> {
    Modifiers::parse(
        "changes",
        &BTreeMap::from([("rules.yaml".to_owned(), text.to_owned())]),
    )
}

/// One rule with these conditions and this list of patches.
fn rule(conditions: &str, kind: &str, patches: &str) -> String {
    format!("- conditions: {{{conditions}}}\n  {kind}: {patches}\n")
}

fn rules(rules: &[String]) -> Modifiers {
    parse(&document(rules)).unwrap()
}

fn document(rules: &[String]) -> String {
    format!("version: v1\nresourceModifierRules:\n{}", rules.concat())
}

fn applied(modifiers: &Modifiers, resource: &str, object: &Value) -> Value {
    let mut object = object.clone();
    let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
    modifiers
        .apply(resource, namespace.as_deref(), &mut object)
        .unwrap();
    object
}

fn claim(class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mysql-1", "namespace": "a",
           "labels": {"app": "db"}}, "spec": {"storageClassName": class}})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"}, "spec": {
        "replicas": 1, "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}}}})
}

fn class_rule(from: &str, to: &str) -> String {
    rule(
        &format!(
            "groupResource: persistentvolumeclaims, matches: [{{path: /spec/storageClassName, value: {from}}}]"
        ),
        "patches",
        &format!("[{{operation: replace, path: /spec/storageClassName, value: {to}}}]"),
    )
}

#[test]
fn m1_m4_m5_what_is_not_valid_is_refused_before_anything_runs() {
    let ok = "[{operation: remove, path: /x}]";
    let pods = "groupResource: pods";
    for (text, expected) in [
        ("{".to_owned(), "no resource modifiers"),
        ("version: v1\nrules: []".to_owned(), "rules"),
        (
            "version: v2\nresourceModifierRules: []".to_owned(),
            "\"v2\"",
        ),
        ("resourceModifierRules: []".to_owned(), "version \"\""),
        ("version: v1".to_owned(), "has no resource modifier rules"),
        (document(&[rule("", "patches", ok)]), "no groupResource"),
        (
            document(&[rule("groupResource: Pods", "patches", ok)]),
            "cannot match a type",
        ),
        (
            document(&[rule("groupResource: 'po[d'", "patches", ok)]),
            "cannot match a type",
        ),
        (
            document(&[rule(
                &format!("{pods}, resourceNameRegexp: x"),
                "patches",
                ok,
            )]),
            "resourceNameRegexp",
        ),
        (
            document(&[rule(
                &format!("{pods}, resourceNameRegex: '('"),
                "patches",
                ok,
            )]),
            "rule 1: resourceNameRegex",
        ),
        (
            document(&[rule(&format!("{pods}, namespaces: ['a[']"), "patches", ok)]),
            "unclosed",
        ),
        (
            document(&[rule(
                &format!("{pods}, labelSelector: {{matchExpressions: [{{key: a, operator: Is}}]}}"),
                "patches",
                ok,
            )]),
            "labelSelector",
        ),
        (
            document(&[rule(
                &format!("{pods}, labelSelector: {{matchLabel: {{}}}}"),
                "patches",
                ok,
            )]),
            "matchLabel",
        ),
        (
            document(&[rule(
                &format!("{pods}, matches: [{{path: spec, value: x}}]"),
                "patches",
                ok,
            )]),
            "no JSON pointer",
        ),
        (document(&[rule(pods, "patches", "[]")]), "none of patches"),
        (
            document(&[rule(
                pods,
                "patches",
                &format!("{ok}\n  mergePatches: [{{patchData: '{{}}'}}]"),
            )]),
            "more than one",
        ),
        (
            document(&[rule(pods, "patches", "[{path: /x}]")]),
            "no operation",
        ),
        (
            document(&[rule(pods, "patches", "[{operation: change, path: /x}]")]),
            "\"change\"",
        ),
        (
            document(&[rule(pods, "patches", "[{operation: add, value: x}]")]),
            "path is empty",
        ),
        (
            document(&[rule(
                pods,
                "patches",
                "[{operation: add, path: /x~2, value: x}]",
            )]),
            "no JSON pointer",
        ),
        (
            document(&[rule(pods, "patches", "[{operation: copy, path: /x}]")]),
            "from is empty",
        ),
        (
            document(&[rule(
                pods,
                "patches",
                "[{operation: add, path: /x, value: '{x'}]",
            )]),
            "no JSON",
        ),
        (
            document(&[rule(
                pods,
                "patches",
                "[{operation: add, path: /x, values: x}]",
            )]),
            "values",
        ),
    ] {
        let error = chain(&parse(&text).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("changes"), "{error}");
    }
    for keys in [&[][..], &["a", "b"]] {
        let data = keys
            .iter()
            .map(|key| ((*key).to_owned(), String::new()))
            .collect();
        let error = Modifiers::parse("changes", &data).unwrap_err().to_string();
        assert!(error.contains("exactly one"), "{error}");
    }
    assert!(parse(&document(&[rule(pods, "patches", ok)]).replace("v1", "V1")).is_ok());
}

#[test]
fn m2_m20_m24_merge_patches_are_json_or_yaml_text() {
    let object = json!({"metadata": {"name": "m", "labels": {"a": "1", "b": "1"}}});
    for text in [
        "'{\"metadata\": {\"labels\": {\"a\": \"2\", \"b\": null, \"c\": \"3\", \"d\": null}}}'",
        "|\n      metadata:\n        labels: {a: \"2\", b: null, c: \"3\", d: null}\n    ",
    ] {
        let patches = format!("\n  - patchData: {text}");
        let modifiers = rules(&[rule("groupResource: configmaps", "mergePatches", &patches)]);
        assert_eq!(
            applied(&modifiers, "configmaps", &object)["metadata"]["labels"],
            json!({"a": "2", "c": "3"})
        );
    }
    for kind in ["mergePatches", "strategicPatches"] {
        for text in ["'{\"a\": '", "'a: [b'", "'text'", "'[1]'"] {
            let patches = format!("[{{patchData: {text}}}]");
            let text = document(&[rule("groupResource: configmaps", kind, &patches)]);
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
    }
}

#[test]
fn m3_m6_m23_values_are_json_or_text_as_velero_reads_them() {
    for (yaml, expected) in [
        ("\"\\\"true\\\"\"", json!("true")),
        ("\"true\"", json!(true)),
        ("true", json!(true)),
        ("\"5\"", json!(5)),
        ("\"1.5\"", json!(1.5)),
        ("\"null\"", Value::Null),
        ("\"\"", json!("")),
        ("gold", json!("gold")),
        ("\"10Gi\"", json!("10Gi")),
        ("\"[1, 2]\"", json!([1, 2])),
        ("'{\"a\": {\"b\": 1}}'", json!({"a": {"b": 1}})),
        ("\"\\\"5\\\"\"", json!("5")),
    ] {
        let patches = format!("[{{operation: add, path: /data, value: {yaml}}}]");
        let modifiers = rules(&[rule("groupResource: configmaps", "patches", &patches)]);
        let object = applied(
            &modifiers,
            "configmaps",
            &json!({"metadata": {"name": "m"}}),
        );
        assert_eq!(object["data"], expected, "{yaml}");
    }
}

#[test]
fn m8_m9_m10_conditions_are_those_of_the_object_as_it_comes() {
    let (standard, premium) = (claim("standard"), claim("premium"));
    let resource = "persistentvolumeclaims";
    let one = rules(&[class_rule("standard", "premium")]);
    assert_eq!(applied(&one, resource, &standard), premium);
    let chain = rules(&[
        class_rule("standard", "premium"),
        class_rule("premium", "gold"),
    ]);
    assert_eq!(applied(&chain, resource, &standard), premium);
    let both = rules(&[
        class_rule("standard", "premium"),
        class_rule("standard", "gold"),
    ]);
    assert_eq!(applied(&both, resource, &standard), claim("gold"));
}

#[test]
fn m11_m12_a_test_that_fails_drops_its_rule_and_is_no_error() {
    let scale = |from: u32| {
        rule(
            "groupResource: deployments.apps",
            "patches",
            &format!(
                "[{{operation: add, path: /spec/paused, value: true}}, {{operation: test, path: /spec/replicas, value: {from}}}, \
                 {{operation: replace, path: /spec/replicas, value: \"2\"}}]"
            ),
        )
    };
    let object = applied(&rules(&[scale(1)]), "deployments.apps", &deployment());
    assert_eq!(
        (&object["spec"]["replicas"], &object["spec"]["paused"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(
        applied(&rules(&[scale(5)]), "deployments.apps", &deployment()),
        deployment()
    );
    let missing = rule(
        "groupResource: deployments.apps",
        "patches",
        "[{operation: test, path: /spec/nothing/here, value: x}]",
    );
    assert_eq!(
        applied(&rules(&[missing]), "deployments.apps", &deployment()),
        deployment()
    );
}

#[test]
fn m7_m13_m14_m16_m22_conditions_select_by_name_namespace_label_and_content() {
    let change = |conditions: &str| {
        rules(&[rule(
            &format!("groupResource: persistentvolumeclaims{conditions}"),
            "patches",
            "[{operation: add, path: /changed, value: true}]",
        )])
    };
    for (conditions, expected) in [
        ("", true),
        (", resourceNameRegex: \"\"", true),
        (", resourceNameRegex: \"^mysql.*$\"", true),
        (", resourceNameRegex: sql", true),
        (", resourceNameRegex: \"^sql\"", false),
        (", namespaces: [a]", true),
        (", namespaces: ['?', x]", true),
        (", namespaces: [b]", false),
        (", resourceNameRegex: mysql, namespaces: [b]", false),
        (", labelSelector: {matchLabels: {app: db}}", true),
        (", labelSelector: {matchLabels: {app: web}}", false),
        (
            ", labelSelector: {matchExpressions: [{key: app, operator: In, values: [db]}]}",
            true,
        ),
        (
            ", labelSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}",
            false,
        ),
        (
            ", matches: [{path: /spec/storageClassName, value: standard}]",
            true,
        ),
        (
            ", matches: [{path: /spec/storageClassName, value: gold}]",
            false,
        ),
        (
            ", matches: [{path: /spec/nothing/here, value: gold}]",
            false,
        ),
        (
            ", matches: [{path: /kind, value: PersistentVolumeClaim}, {path: /spec/storageClassName, value: gold}]",
            false,
        ),
    ] {
        let object = applied(
            &change(conditions),
            "persistentvolumeclaims",
            &claim("standard"),
        );
        assert_eq!(object.get("changed").is_some(), expected, "{conditions}");
    }
    // The namespace is that of the backup, whatever the object says; cluster-scoped objects have none.
    let (modifiers, mut object) = (change(", namespaces: [b]"), claim("standard"));
    assert!(
        modifiers
            .apply("persistentvolumeclaims", Some("b"), &mut object)
            .unwrap()
    );
    assert!(
        modifiers
            .apply("persistentvolumeclaims", None, &mut claim("x"))
            .unwrap()
    );
}

#[test]
fn m15_containers_are_added_copied_and_changed() {
    let patches = r#"
  - {operation: add, path: /spec/template/spec/containers/1, value: '{"name": "redis", "image": "redis:1"}'}
  - {operation: copy, from: /spec/template/spec/containers/0, path: /spec/template/spec/containers/-}
  - {operation: replace, path: /spec/template/spec/containers/2/name, value: copy}"#;
    let modifiers = rules(&[rule("groupResource: deployments.apps", "patches", patches)]);
    let object = applied(&modifiers, "deployments.apps", &deployment());
    assert_eq!(
        object["spec"]["template"]["spec"]["containers"],
        json!([{"name": "nginx", "image": "nginx:1"}, {"name": "redis", "image": "redis:1"}, {"name": "copy", "image": "nginx:1"}])
    );
}

#[test]
fn m21_types_are_matched_by_resource_and_group() {
    for (pattern, resource, expected) in [
        ("*", "pods", true),
        ("*", "deployments.apps", false),
        ("*.apps", "deployments.apps", true),
        ("*.apps", "pods", false),
        ("pods", "pods", true),
        ("pods", "pods.metrics.k8s.io", false),
        ("deploy*.apps", "deployments.apps", true),
        // As Velero's documentation says, not its code.
        ("*.*", "pods", true),
        ("*.*", "ingresses.networking.k8s.io", true),
        ("*.networking.k8s.io", "ingresses.networking.k8s.io", true),
        ("*.k8s.io", "deployments.apps", false),
    ] {
        let modifiers = rules(&[rule(
            &format!("groupResource: '{pattern}'"),
            "patches",
            "[{operation: add, path: /changed, value: true}]",
        )]);
        let object = applied(&modifiers, resource, &json!({"metadata": {"name": "n"}}));
        assert_eq!(
            object.get("changed").is_some(),
            expected,
            "{pattern} {resource}"
        );
    }
}

/// Velero restores the object without the change (defect 21).
#[test]
fn a_patch_that_does_not_fit_is_an_error_that_names_the_rule() {
    let fine = rule(
        "groupResource: configmaps",
        "patches",
        "[{operation: add, path: /x, value: y}]",
    );
    let bad = rule(
        "groupResource: configmaps",
        "patches",
        "[{operation: remove, path: /missing}]",
    );
    let modifiers = rules(&[fine, bad]);
    let mut object = json!({"metadata": {"name": "m"}});
    let error = modifiers
        .apply("configmaps", None, &mut object)
        .unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("rule 2 of the resource modifiers changes"),
        "{text}"
    );
    assert!(text.contains("/missing"), "{text}");
}

#[test]
fn no_rule_makes_another_object_of_one() {
    for (patch, field) in [
        (
            "[{operation: replace, path: /metadata/name, value: x}]",
            "/metadata/name",
        ),
        (
            "[{operation: replace, path: /metadata/namespace, value: x}]",
            "/metadata/namespace",
        ),
        ("[{operation: remove, path: /metadata}]", "/metadata/name"),
        ("[{operation: replace, path: /kind, value: x}]", "/kind"),
        (
            "[{operation: replace, path: /apiVersion, value: x}]",
            "/apiVersion",
        ),
    ] {
        let modifiers = rules(&[rule(
            "groupResource: persistentvolumeclaims",
            "patches",
            patch,
        )]);
        let mut object = claim("x");
        let error = modifiers
            .apply("persistentvolumeclaims", Some("a"), &mut object)
            .unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
        assert_eq!(object, claim("x"));
    }
}

fn strategic(resource: &str, object: Value, patch: Value) -> Result<Value, String> {
    let mut object = object;
    strategic::merge(resource, &mut object, &patch).map(|()| object)
}

fn in_pod(spec: Value, patch: Value) -> Value {
    let object = strategic("pods", json!({"spec": spec}), json!({"spec": patch})).unwrap();
    object["spec"].clone()
}

#[test]
fn m17_an_image_is_changed_by_the_containers_name() {
    let expected = json!([{"name": "nginx", "image": "nginx:2"}]);
    for text in [
        "'{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"nginx\", \"image\": \"nginx:2\"}]}}}}'",
        "'spec: {template: {spec: {containers: [{name: nginx, image: \"nginx:2\"}]}}}'",
    ] {
        let patches = format!("[{{patchData: {text}}}]");
        let modifiers = rules(&[rule(
            "groupResource: deployments.apps",
            "strategicPatches",
            &patches,
        )]);
        let object = applied(&modifiers, "deployments.apps", &deployment());
        assert_eq!(object["spec"]["template"]["spec"]["containers"], expected);
    }
}

#[test]
fn m18_a_volume_gets_another_source() {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
    let other = json!({"name": "w", "emptyDir": {}});
    assert_eq!(
        in_pod(
            json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}, other]}),
            json!({"volumes": [{"name": "v", "nfs": null, "persistentVolumeClaim": {"claimName": "c"}}]}),
        ),
        json!({"volumes": [volume, other]})
    );
    assert_eq!(
        in_pod(
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, other]}),
            json!({"volumes": [{"$retainKeys": ["name", "persistentVolumeClaim"], "name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
        ),
        json!({"volumes": [volume, other]})
    );
    let lost = strategic(
        "pods",
        json!({"spec": {"volumes": [{"name": "v"}]}}),
        json!({"spec": {"volumes": [{"$retainKeys": ["name"], "name": "v", "emptyDir": {}}]}}),
    );
    assert!(lost.unwrap_err().contains("emptyDir"));
}

#[test]
fn m19_a_port_of_a_service_is_changed_by_its_number() {
    let service = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 80}, {"name": "dns", "port": 53, "protocol": "UDP"},
                                            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}});
    let object = strategic(
        "services",
        service,
        json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 53, "protocol": "TCP", "targetPort": 5353}]}}),
    );
    assert_eq!(
        object.unwrap()["spec"]["ports"],
        json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"},
               {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 5353}])
    );
}

#[test]
fn lists_are_merged_by_the_keys_of_their_types() {
    for (field, original, patch, expected) in [
        (
            "hostAliases",
            json!([{"ip": "1", "hostnames": ["a"]}]),
            json!([{"ip": "1", "hostnames": ["b"]}]),
            json!([{"ip": "1", "hostnames": ["b"]}]),
        ),
        (
            "imagePullSecrets",
            json!([{"name": "a"}]),
            json!([{"name": "b"}]),
            json!([{"name": "a"}, {"name": "b"}]),
        ),
        (
            "tolerations",
            json!([{"key": "a"}]),
            json!([{"key": "b"}]),
            json!([{"key": "b"}]),
        ),
        (
            "topologySpreadConstraints",
            json!([{"topologyKey": "z", "maxSkew": 1}]),
            json!([{"topologyKey": "z", "maxSkew": 2}]),
            json!([{"topologyKey": "z", "maxSkew": 2}]),
        ),
        (
            "containers",
            json!([{"name": "c", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"], "volumeMounts": [{"mountPath": "/a", "name": "a"}],
                    "ports": [{"containerPort": 80}]}, {"name": "d"}]),
            json!([{"name": "c", "env": [{"name": "B", "value": "2"}, {"name": "A", "$patch": "delete"}], "args": ["z"],
                    "volumeMounts": [{"mountPath": "/a", "readOnly": true}], "ports": [{"containerPort": 80, "name": "http"}]}]),
            json!([{"name": "c", "env": [{"name": "B", "value": "2"}], "args": ["z"], "volumeMounts": [{"mountPath": "/a", "name": "a", "readOnly": true}],
                    "ports": [{"containerPort": 80, "name": "http"}]}, {"name": "d"}]),
        ),
        (
            "containers",
            json!([{"name": "c"}]),
            json!([{"$patch": "replace"}, {"name": "d"}]),
            json!([{"name": "d"}]),
        ),
        (
            "containers",
            json!([{"name": "c", "image": "x"}]),
            json!([{"name": "d", "image": "y", "args": null}]),
            json!([{"name": "c", "image": "x"}, {"name": "d", "image": "y"}]),
        ),
    ] {
        let spec = in_pod(json!({field: original}), json!({field: patch}));
        assert_eq!(spec[field], expected, "{field}");
    }
    let account = strategic(
        "serviceaccounts",
        json!({"secrets": [{"name": "a"}]}),
        json!({"secrets": [{"name": "b"}]}),
    );
    assert_eq!(
        account.unwrap()["secrets"],
        json!([{"name": "a"}, {"name": "b"}])
    );
    let binding = strategic(
        "rolebindings.rbac.authorization.k8s.io",
        json!({"subjects": [{"name": "a"}]}),
        json!({"subjects": [{"name": "b"}]}),
    );
    assert_eq!(binding.unwrap()["subjects"], json!([{"name": "b"}]));
}

#[test]
fn directives_are_followed() {
    let original = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}});
    for (patch, expected) in [
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["b", "c"], "labels": {"x": "1"}}, "spec": original["spec"]}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "replace", "y": "2"}}}),
            json!({"metadata": {"finalizers": ["a", "b"], "labels": {"y": "2"}}, "spec": original["spec"]}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "delete"}}, "spec": {"$patch": "merge", "strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"metadata": {"finalizers": ["a", "b"], "labels": {}}, "spec": {"strategy": {"type": "Recreate"}}}),
        ),
    ] {
        assert_eq!(
            strategic("deployments.apps", original.clone(), patch).unwrap(),
            expected
        );
    }
    for (patch, expected) in [
        (
            json!({"spec": {"$patch": "drop"}}),
            "none of delete, merge and replace",
        ),
        (json!({"spec": {"$retainKeys": "type"}}), "no list"),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "no list",
        ),
    ] {
        let error = strategic("deployments.apps", original.clone(), patch).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let unnamed = strategic(
        "pods",
        json!({"spec": {"containers": [{"name": "c"}]}}),
        json!({"spec": {"containers": [{"image": "x"}]}}),
    );
    assert_eq!(
        unnamed.unwrap_err(),
        "an item of spec.containers has no name"
    );
}

#[test]
fn m24_custom_resources_have_no_strategic_merge() {
    for resource in [
        "widgets.example.com",
        "volumesnapshots.snapshot.storage.k8s.io",
    ] {
        let patches = "[{patchData: '{\"spec\": {\"a\": 1}}'}]";
        let modifiers = rules(&[rule("groupResource: '*.*'", "strategicPatches", patches)]);
        let mut object = json!({"metadata": {"name": "n"}});
        let error = modifiers.apply(resource, None, &mut object).unwrap_err();
        assert!(error.to_string().contains("custom resource"), "{error}");
    }
}
