//! What can be chosen of a restore: other names, classes, ports, statuses, changes; and what is said of choices that are
//! wrong or do nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use ark_tests::{FaultProxy, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, delete_namespace, exists, get, names};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_choices::s2_b1_b2_several_namespaces_are_mapped_with_all_that_names_them",
            mapped,
        ),
        scenario(
            "restore_choices::s3_volumes_and_claims_get_another_storage_class",
            storage_class,
        ),
        scenario(
            "restore_choices::s1_g1_to_g6_node_ports_are_kept_when_asked_for",
            node_ports,
        ),
        scenario("restore_choices::status_comes_back_when_asked_for", status),
        scenario(
            "restore_choices::s9_modifiers_change_what_is_restored",
            modifiers,
        ),
        scenario(
            "restore_choices::o19_wrong_modifiers_are_refused_before_any_write",
            wrong_modifiers,
        ),
        scenario(
            "restore_choices::o2_to_o5_o11_s8_wrong_and_empty_choices_are_told",
            wrong_choices,
        ),
    ]
}

/// Two at once, each the other's old name: what names a namespace follows, everywhere.
async fn mapped() -> Result<()> {
    let world = World::new("refs").await?;
    let cluster = world.cluster;
    let (one, two) = (world.namespace("one").await?, world.namespace("two").await?);
    let (new_one, new_two) = (format!("{one}-x"), format!("{two}-x"));
    let place = Place::new(cluster)?;
    let manifest = format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: both, namespace: {one}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}, subjects: [{{kind: ServiceAccount, name: a, namespace: {one}}}, {{kind: ServiceAccount, name: a, namespace: {two}}}, {{kind: ServiceAccount, name: a, namespace: default}}]}}\n\
         ---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {one}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}, subjects: [{{kind: ServiceAccount, name: a, namespace: {two}}}]}}\n\
         ---\n{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {{name: {one}}}, webhooks: [{{name: h.example.com, clientConfig: {{service: {{name: h, namespace: {one}}}}}, rules: [{{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nothings]}}], failurePolicy: Ignore, sideEffects: None, admissionReviewVersions: [v1]}}]}}\n\
         ---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {one}}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: x, hostPath: {{path: /tmp/none}}, claimRef: {{namespace: {two}, name: c}}}}}}\n\
         ---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c, namespace: {two}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: x, resources: {{requests: {{storage: 1Gi}}}}}}}}\n"
    );
    cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)?;
    let phase = || -> Result<Value> { Ok(get(cluster, &["pv", &one])?["status"]["phase"].clone()) };
    wait_until(
        "the claim to be bound",
        Duration::from_secs(30),
        async || Ok((phase()? == "Bound").then_some(())),
    )
    .await?;
    let included = format!("{one},{two}");
    let arguments = [
        "backup",
        "b",
        "--include-namespaces",
        &included,
        "--include-cluster-resources",
    ];
    place.run(&arguments).await?;
    // The cluster-scoped ones are made again; the volume's data is there for whoever binds it.
    delete_namespace(cluster, &two)?;
    for (resource, name) in [
        ("clusterrolebinding", &one),
        ("validatingwebhookconfiguration", &one),
    ] {
        cluster.kubectl(&["delete", resource, name])?;
    }
    wait_until(
        "the namespace to be gone",
        Duration::from_secs(30),
        async || Ok((!exists(cluster, &["namespace", &two])?).then_some(())),
    )
    .await?;
    cluster.kubectl(&["delete", "pv", &one])?;
    let mapping = format!("{one}:{new_one},{two}:{new_two}");
    let arguments = [
        "restore",
        "b",
        "--include-namespaces",
        &included,
        "--include-cluster-resources",
        "--namespace-mappings",
        &mapping,
    ];
    place.run(&arguments).await?;
    let binding = get(cluster, &["rolebinding", "both", "-n", &new_one])?;
    let namespaces: Vec<&Value> = (0..3)
        .map(|n| &binding["subjects"][n]["namespace"])
        .collect();
    ensure!(
        namespaces == [&json!(new_one), &json!(new_two), &json!("default")],
        "{binding:#}"
    );
    let binding = get(cluster, &["clusterrolebinding", &one])?;
    ensure!(
        binding["subjects"][0]["namespace"] == *new_two,
        "{binding:#}"
    );
    let hook = get(cluster, &["validatingwebhookconfiguration", &one])?;
    ensure!(
        hook["webhooks"][0]["clientConfig"]["service"]["namespace"] == *new_one,
        "{hook:#}"
    );
    wait_until(
        "the claim to be bound",
        Duration::from_secs(30),
        async || Ok((phase()? == "Bound").then_some(())),
    )
    .await?;
    let volume = get(cluster, &["pv", &one])?;
    ensure!(
        volume["spec"]["claimRef"]["namespace"] == *new_two,
        "{volume:#}"
    );
    for (resource, name) in [
        ("clusterrolebinding", &one),
        ("validatingwebhookconfiguration", &one),
        ("namespace", &new_one),
        ("namespace", &new_two),
    ] {
        cluster.kubectl(&["delete", resource, name, "--wait=false"])?;
    }
    Ok(())
}

async fn storage_class() -> Result<()> {
    let world = World::new("classes").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let manifest = format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {namespace}}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: old, hostPath: {{path: /tmp/none}}, claimRef: {{namespace: {namespace}, name: bound}}}}}}\n\
         ---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: bound, namespace: {namespace}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: old, resources: {{requests: {{storage: 1Gi}}}}}}}}\n\
         ---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: other, namespace: {namespace}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: other, resources: {{requests: {{storage: 1Gi}}}}}}}}\n"
    );
    cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)?;
    let bound = async || {
        wait_until(
            "the claim to be bound",
            Duration::from_secs(30),
            async || {
                let claim = get(cluster, &["pvc", "bound", "-n", &namespace])?;
                Ok((claim["status"]["phase"] == "Bound").then_some(()))
            },
        )
        .await
    };
    bound().await?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl(&["delete", "pvc", "--all", "-n", &namespace])?;
    cluster.kubectl(&["delete", "pv", &namespace])?;
    let restore = [
        "restore",
        "b",
        "--include-namespaces",
        &namespace,
        "--storage-class-mappings",
        "old:classes-new,x:classes-y",
    ];
    // K20: a class that nobody has is told before anything is written.
    let refused = place.job(&restore).expect(2).await?.stderr;
    ensure!(
        refused.contains("there is no storage class classes-new"),
        "{refused}"
    );
    let class = |name: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "kubernetes.io/no-provisioner"})
        .to_string()
    };
    for name in ["classes-new", "classes-y"] {
        cluster.kubectl_with_input(&["create", "-f", "-"], &class(name))?;
    }
    place.run(&restore).await?;
    bound().await?;
    let class = |object: &[&str]| -> Result<Value> {
        Ok(get(cluster, object)?["spec"]["storageClassName"].clone())
    };
    ensure!(class(&["pvc", "bound", "-n", &namespace])? == "classes-new");
    ensure!(class(&["pvc", "other", "-n", &namespace])? == "other");
    ensure!(class(&["pv", &namespace])? == "classes-new");
    Ok(())
}

async fn node_ports() -> Result<()> {
    let world = World::new("ports").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let service = |name: &str, port: &str| {
        let manifest = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{type: NodePort, ports: [{{port: 80{port}}}]}}}}"
        );
        cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)
    };
    let port = |name: &str| -> Result<u64> {
        let service = get(cluster, &["service", name, "-n", &namespace])?;
        Ok(service["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .unwrap_or_default())
    };
    service("any", "")?;
    service("given", ", nodePort: 31999")?;
    let any = port("any")?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let restore = |preserve: bool| {
        let flag = format!("--preserve-nodeports={preserve}");
        place.job(&["restore", "b", "--include-namespaces", &namespace, &flag])
    };
    let delete = |name: &str| cluster.kubectl(&["delete", "service", name, "-n", &namespace]);
    // The port of nobody's choice is taken by another.
    delete("any")?;
    delete("given")?;
    service("thief", &format!(", nodePort: {any}"))?;
    let partial = restore(true).expect(3).await?;
    ensure!(
        partial.stderr.contains("Service any") && partial.stderr.contains("already allocated"),
        "{partial:?}"
    );
    ensure!(port("given")? == 31_999);
    ensure!(!exists(cluster, &["service", "any", "-n", &namespace])?);
    // Without being kept, there is another. The one that was asked for in its manifest is kept all the same.
    delete("given")?;
    restore(false).expect(0).await?;
    ensure!(port("any")? != any && port("given")? == 31_999);
    // Free again, and kept.
    delete("any")?;
    delete("thief")?;
    restore(true).expect(0).await?;
    ensure!(port("any")? == any);
    // G6: a service that is there with its port is no error.
    restore(true).expect(0).await?;
    Ok(())
}

async fn status() -> Result<()> {
    let world = World::new("statuses").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let definition = |plural: &str, kind: &str, subresources: &str| {
        format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.choices.example.com}}, spec: {{group: choices.example.com, scope: Namespaced, names: {{plural: {plural}, kind: {kind}}}, versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}{subresources}}}]}}}}"
        )
    };
    let definitions = [
        definition("stated", "Stated", ", subresources: {status: {}}"),
        definition("mixed", "Mixed", ", subresources: {status: {}}"),
    ];
    cluster.kubectl_with_input(&["create", "-f", "-"], &definitions.join("\n---\n"))?;
    for plural in ["stated", "mixed"] {
        let name = format!("crd/{plural}.choices.example.com");
        cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            &name,
            "--timeout=30s",
        ])?;
    }
    let object = |kind: &str, name: &str, annotation: &str| {
        format!(
            "---\n{{apiVersion: choices.example.com/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotation}}}}}, spec: {{a: 1}}}}\n"
        )
    };
    let objects = [
        object("Stated", "plain", ""),
        object("Stated", "not", "velero.io/restore-status: \"false\""),
        object("Mixed", "plain", ""),
        object("Mixed", "wanted", "velero.io/restore-status: \"true\""),
    ];
    cluster.kubectl_with_input(&["create", "-f", "-"], &objects.concat())?;
    let all = [
        ("stated", "plain"),
        ("stated", "not"),
        ("mixed", "plain"),
        ("mixed", "wanted"),
    ];
    for (plural, name) in all {
        let resource = format!("{plural}.choices.example.com/{name}");
        let patch = r#"{"status":{"ready":true}}"#;
        cluster.kubectl(&[
            "patch",
            &resource,
            "-n",
            &namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        ])?;
    }
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let restored = async |flags: &[&str]| -> Result<Vec<bool>> {
        cluster.kubectl(&[
            "delete",
            "stated.choices.example.com,mixed.choices.example.com",
            "--all",
            "-n",
            &namespace,
        ])?;
        let arguments = [&["restore", "b", "--include-namespaces", &namespace], flags].concat();
        place.run(&arguments).await?;
        all.iter()
            .map(|(plural, name)| {
                let resource = format!("{plural}.choices.example.com/{name}");
                Ok(get(cluster, &[&resource, "-n", &namespace])?["status"]["ready"] == true)
            })
            .collect()
    };
    // D1 to D11: the type is asked for or not, and the object has the last word.
    let one = restored(&["--status-include-resources", "stated.choices.example.com"]).await?;
    ensure!(one == [true, false, false, true], "{one:?}");
    let flags = [
        "--status-include-resources",
        "*",
        "--status-exclude-resources",
        "stated.choices.example.com",
    ];
    let others = restored(&flags).await?;
    ensure!(others == [false, false, true, true], "{others:?}");
    for plural in ["stated", "mixed"] {
        let name = format!("crd/{plural}.choices.example.com");
        cluster.kubectl(&["delete", &name, "--wait=false"])?;
    }
    Ok(())
}

/// A ConfigMap in Ark's namespace, which is the scenario's own here.
fn modifier(world: &World, namespace: &str, text: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rules", "namespace": namespace}, "data": {"rules.yaml": text}});
    world
        .cluster
        .kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
        .map(drop)
}

async fn modifiers() -> Result<()> {
    let world = World::new("modifiers").await?;
    let (cluster, namespace, ark) = (
        world.cluster,
        world.namespace("app").await?,
        world.namespace("ark").await?,
    );
    let place = Place::new(cluster)?;
    let manifest = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c, namespace: {namespace}, labels: {{a: b}}}}, data: {{k: v}}}}\n\
         ---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: other, namespace: {namespace}}}, data: {{k: v}}}}\n\
         ---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 0, selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: one, image: \"old:1\"}}, {{name: two, image: \"two:1\"}}]}}}}}}}}\n"
    );
    cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    modifier(
        &world,
        &ark,
        "version: v1\nresourceModifierRules:\n\
         - conditions: {groupResource: configmaps, resourceNameRegex: \"^c$\"}\n  patches:\n  - {operation: test, path: /data/k, value: v}\n  - {operation: replace, path: /data/k, value: patched}\n\
         - conditions: {groupResource: configmaps, labelSelector: {matchLabels: {a: b}}}\n  mergePatches:\n  - patchData: |\n      metadata: {labels: {a: null, c: d}}\n\
         - conditions: {groupResource: deployments.apps}\n  strategicPatches:\n  - patchData: |\n      {\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"one\", \"image\": \"new:2\"}]}}}}\n",
    )?;
    let target = format!("{namespace}-x");
    let mapping = format!("{namespace}:{target}");
    let arguments = [
        "restore",
        "b",
        "--namespace",
        &ark,
        "--namespace-mappings",
        &mapping,
        "--resource-modifier-configmap",
        "rules",
    ];
    place.run(&arguments).await?;
    let config_map = get(cluster, &["configmap", "c", "-n", &target])?;
    let labels = &config_map["metadata"]["labels"];
    ensure!(
        config_map["data"]["k"] == "patched" && labels["a"].is_null() && labels["c"] == "d",
        "{config_map:#}"
    );
    let other = get(cluster, &["configmap", "other", "-n", &target])?;
    ensure!(other["data"]["k"] == "v", "{other:#}");
    let web = get(cluster, &["deployment", "web", "-n", &target])?;
    let containers = &web["spec"]["template"]["spec"]["containers"];
    ensure!(
        containers[0]["image"] == "new:2" && containers[1]["image"] == "two:1",
        "{web:#}"
    );
    delete_namespace(cluster, &target)
}

async fn wrong_modifiers() -> Result<()> {
    let world = World::new("wrong-rules").await?;
    let (cluster, namespace, ark) = (
        world.cluster,
        world.namespace("app").await?,
        world.namespace("ark").await?,
    );
    let place = Place::new(cluster)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let target = format!("{namespace}-x");
    let mapping = format!("{namespace}:{target}");
    let rule = |patch: &str| {
        format!(
            "version: v1\nresourceModifierRules:\n- conditions: {{groupResource: configmaps}}\n  patches: [{patch}]\n"
        )
    };
    let wrong = [
        ("missing", None),
        ("not YAML", Some("version: [".to_owned())),
        (
            "another version",
            Some(rule("{operation: remove, path: /a}").replace("v1", "v2")),
        ),
        (
            "a bad operation",
            Some(rule("{operation: explode, path: /a}")),
        ),
        (
            "an unknown field",
            Some(rule("{operation: remove, path: /a, more: x}")),
        ),
        (
            "no rules",
            Some("version: v1\nresourceModifierRules: []\n".to_owned()),
        ),
    ];
    for (what, text) in wrong {
        if let Some(text) = text {
            modifier(&world, &ark, &text)?;
        }
        let arguments = [
            "restore",
            "b",
            "--namespace",
            &ark,
            "--namespace-mappings",
            &mapping,
            "--resource-modifier-configmap",
            "rules",
        ];
        let refused = place.job_at(&kubeconfig, &arguments).run().await?;
        // Wrong is usage; not there is not found, or usage too.
        let expected: &[i32] = if what == "missing" { &[2, 10] } else { &[2] };
        ensure!(
            refused.code.is_some_and(|code| expected.contains(&code))
                && refused.stderr.contains("rules"),
            "{what}: {refused:?}"
        );
    }
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} writes");
    ensure!(!exists(cluster, &["namespace", &target])?);
    Ok(())
}

async fn wrong_choices() -> Result<()> {
    let world = World::new("choices").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    cluster.kubectl(&["create", "configmap", "c", "-n", &namespace])?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl(&["delete", "configmap", "c", "-n", &namespace])?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let run = |flags: &[&str]| place.job_at(&kubeconfig, &[&["restore", "b"], flags].concat());
    // A glob that matches nothing restores nothing, and says so (S8).
    let nothing = run(&["--include-namespaces", "no-such-*"])
        .expect(0)
        .await?;
    ensure!(
        nothing.stderr.contains("nothing in backup b is selected"),
        "{nothing:?}"
    );
    let refused: [(&[&str], &str); 5] = [
        (&["--include-resources", "gadgets"], "gadgets"),
        (&["--include-resources", "nodes"], "never restored"),
        (&["--include-resources", "events"], "never restored"),
        (
            &["--include-namespaces", "a", "--exclude-namespaces", "a"],
            "a",
        ),
        (
            &[
                "--include-resources",
                "secrets",
                "--exclude-resources",
                "secrets",
            ],
            "secrets",
        ),
    ];
    for (flags, text) in refused {
        let refused = run(flags).expect(2).await?;
        ensure!(refused.stderr.contains(text), "{flags:?}: {refused:?}");
    }
    // O4, O7.
    place
        .job_at(&kubeconfig, &["restore", "none"])
        .expect(10)
        .await?;
    place.job_at(&kubeconfig, &["restore"]).expect(2).await?;
    // O5.
    run(&["-l", "a=b", "--or-selector", "c=d"])
        .expect(2)
        .await?;
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} writes");
    // A mapping of a namespace that is not in the backup does nothing, and says so.
    let idle = run(&[
        "--include-namespaces",
        &namespace,
        "--namespace-mappings",
        "no-such:other",
    ])
    .expect(0)
    .await?;
    ensure!(
        idle.stderr
            .lines()
            .any(|line| line.contains("level=warning") && line.contains("no-such")),
        "{idle:?}"
    );
    ensure!(names(cluster, "configmaps", &namespace)?.contains(&"c".to_owned()));
    Ok(())
}
