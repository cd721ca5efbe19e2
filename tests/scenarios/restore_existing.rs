//! Objects that exist and are different: left, changed, or made again; and what may not be lost by it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, Options, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, cluster_with_widget, exists, get, wait, writes, written};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_existing::o9_all_namespaces_are_not_changed_unasked",
            not_unasked,
        ),
        scenario(
            "restore_existing::c6_to_c16_each_policy_does_what_it_says",
            policies,
        ),
        scenario(
            "restore_existing::immutable_fields_are_an_error_under_update_and_go_under_recreate",
            immutable,
        ),
        scenario(
            "restore_existing::recreate_loses_neither_custom_resources_nor_a_bound_volume",
            nothing_lost,
        ),
        scenario(
            "restore_existing::what_owns_nothing_is_made_again_without_a_garbage_collector",
            no_collector,
        ),
        scenario(
            "restore_existing::a_pod_whose_hooks_may_have_been_lost_is_named",
            hooks_lost,
        ),
        scenario(
            "restore_existing::h1_to_h7_service_accounts_are_merged",
            service_accounts,
        ),
        scenario("restore_existing::restoring_again_writes_nothing", again),
        scenario(
            "restore_existing::a_copy_takes_nothing_from_its_original",
            copy,
        ),
        scenario(
            "restore_existing::a_service_that_holds_the_port_it_wants_is_changed",
            held_port,
        ),
        scenario(
            "restore_existing::a_job_made_again_leaves_a_live_edit_alone",
            made_again,
        ),
    ]
}

fn apply(cluster: &ControlPlane, manifest: &str) -> Result<()> {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    cluster.kubectl_with_input(&arguments, manifest).map(drop)
}

/// What both use is the original's: a bound volume, and rights.
async fn copy() -> Result<()> {
    let world = World::new("beside").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let copy = format!("{namespace}-copy");
    apply(
        cluster,
        &format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {namespace}}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: none, hostPath: {{path: /tmp/none}}, claimRef: {{namespace: {namespace}, name: data}}}}}}\n\
             ---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: {namespace}}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: none, resources: {{requests: {{storage: 1Gi}}}}}}}}\n\
             ---\n{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: a, namespace: {namespace}}}}}\n\
             ---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: {namespace}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}, subjects: [{{kind: ServiceAccount, name: a, namespace: {namespace}}}]}}\n"
        ),
    )?;
    let bound = || -> Result<bool> {
        let claim = get(cluster, &["pvc", "data", "-n", &namespace])?;
        Ok(claim["status"]["phase"] == "Bound")
    };
    wait(bound)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let shared = || -> Result<Value> {
        let volume = get(cluster, &["pv", &namespace])?;
        let binding = get(cluster, &["clusterrolebinding", &namespace])?;
        Ok(json!([volume["spec"], binding["subjects"]]))
    };
    let before = shared()?;
    let finished = place
        .run(&[
            "restore",
            "b",
            "--name=copy",
            "--include-namespaces",
            &namespace,
            "--namespace-mappings",
            &format!("{namespace}:{copy}"),
            "--existing-resource-policy=update",
        ])
        .await?;
    ensure!(shared()? == before, "{:#}\n{before:#}", shared()?);
    ensure!(bound()?);
    ensure!(exists(cluster, &["serviceaccount", "a", "-n", &copy])?);
    ensure!(
        finished.stderr.contains("stays Pending") && finished.stderr.contains("ClusterRoleBinding"),
        "{finished:?}"
    );
    Ok(())
}

/// Created beside itself it would be refused; deleted first, another might take its port.
async fn held_port() -> Result<()> {
    let world = World::new("port").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let service = |affinity: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: {namespace}}}, spec: {{type: NodePort, sessionAffinity: {affinity}, ports: [{{port: 80, nodePort: 31789}}]}}}}"
        )
    };
    apply(cluster, &service("None"))?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    apply(cluster, &service("ClientIP"))?;
    let uid = get(cluster, &["service", "s", "-n", &namespace])?["metadata"]["uid"].clone();
    place
        .run(&[
            "restore",
            "b",
            "--name=r",
            "--include-namespaces",
            &namespace,
            "--existing-resource-policy=recreate",
        ])
        .await?;
    let after = get(cluster, &["service", "s", "-n", &namespace])?;
    ensure!(
        after["spec"]["sessionAffinity"] == "None"
            && after["spec"]["ports"][0]["nodePort"] == 31789
            && after["metadata"]["uid"] == uid,
        "{after:#}"
    );
    cluster.kubectl(&["delete", "service", "s", "-n", &namespace])?;
    Ok(())
}

/// Only what may own something waits for the collector to let go of it: elsewhere every object would cost seconds.
async fn no_collector() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    let objects = |value: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c, namespace: app}}, data: {{k: {value}}}}}\n\
             ---\n{{apiVersion: v1, kind: Secret, metadata: {{name: a, namespace: app, labels: {{l: {value}}}}}}}\n\
             ---\n{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: app, labels: {{l: {value}}}}}, spec: {{ports: [{{port: 80}}]}}}}\n\
             ---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: r, namespace: app, labels: {{l: {value}}}}}}}\n\
             ---\n{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: p, namespace: app, labels: {{l: {value}}}}}}}\n"
        )
    };
    apply(&cluster, &objects("old"))?;
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    apply(&cluster, &objects("new"))?;
    let began = Instant::now();
    let finished = place
        .run(&[
            "restore",
            "b",
            "--name",
            "r",
            "--include-namespaces=app",
            "--existing-resource-policy=recreate",
        ])
        .await?;
    ensure!(
        finished.stderr.contains("5 updated") && finished.stderr.contains(" 0 failed"),
        "{finished:?}"
    );
    ensure!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for somebody"
    );
    Ok(())
}

/// An attempt that was killed has created a pod, and nobody runs its hooks any more.
async fn hooks_lost() -> Result<()> {
    let world = World::new("lost").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    wait(|| exists(cluster, &["serviceaccount", "default", "-n", &namespace]))?;
    let pod = |name: &str, annotations: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}\n"
        )
    };
    let hook =
        "post.hook.restore.velero.io/command: 'true', post.hook.restore.velero.io/wait-timeout: 1s";
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        &(pod("plain", "") + &pod("hooked", hook)),
    )?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl(&["delete", "pods", "--all", "-n", &namespace])?;
    let restore = |name: &'static str, requested: &'static str| {
        place.job(&[
            "restore",
            "b",
            "--name",
            name,
            "--include-namespaces",
            &namespace,
            "--requested",
            requested,
        ])
    };
    // Nothing runs here, so the hook fails; for the next attempt it is as if it had not come to it.
    let first = restore("first", "2026-01-02T03:04:05Z").expect(3).await?;
    ensure!(!first.stderr.contains("earlier attempt"), "{first:?}");
    let second = restore("second", "2026-01-02T03:04:05Z").expect(0).await?;
    ensure!(
        second.stderr.contains("Pod hooked in namespace")
            && second
                .stderr
                .contains("hooks are not run again, and may not have run")
            && second.stderr.contains("1 warnings: "),
        "{second:?}"
    );
    // Another restore has nothing to do with it.
    let other = restore("other", "2026-02-02T03:04:05Z").expect(0).await?;
    ensure!(!other.stderr.contains("earlier attempt"), "{other:?}");
    Ok(())
}

/// Without a namespace filter and without --yes: exit 2, and not one write.
async fn not_unasked() -> Result<()> {
    let world = World::new("unasked").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=a=1",
        "-n",
        &namespace,
    ])?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let change = r#"{"data":{"a":"2"}}"#;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "c",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        change,
    ])?;
    let proxy = ark_tests::FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    for policy in ["update", "recreate"] {
        let flag = format!("--existing-resource-policy={policy}");
        let refused = place
            .job_at(&kubeconfig, &["restore", "b", &flag])
            .expect(2)
            .await?;
        ensure!(
            refused.stderr.contains("all namespaces") && refused.stderr.contains("--yes"),
            "{refused:?}"
        );
    }
    // O9: any other word is refused.
    let arguments = ["restore", "b", "--existing-resource-policy=maybe", "--yes"];
    place.job_at(&kubeconfig, &arguments).expect(2).await?;
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} writes");
    Ok(())
}

/// C6 to C12, C15, C16: what each policy does with an object that is the same, and with one that is different.
async fn policies() -> Result<()> {
    let world = World::new("policies").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let objects = |value: &str, image: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: s, namespace: {namespace}, labels: {{l: {value}}}}}, stringData: {{k: {value}}}}}\n\
             ---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: same, namespace: {namespace}}}, data: {{k: v}}}}\n\
             ---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 0, selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}}}}}\n"
        )
    };
    apply(cluster, &objects("old", "i:1"))?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let uid = |resource: &str, name: &str| -> Result<Value> {
        Ok(get(cluster, &[resource, name, "-n", &namespace])?["metadata"]["uid"].clone())
    };
    let restore = |name: &str, policy: &str| {
        let flag = format!("--existing-resource-policy={policy}");
        let arguments = [
            "restore",
            "b",
            "--name",
            name,
            "--include-namespaces",
            &namespace,
            &flag,
        ];
        place.job(&arguments)
    };
    let version = |resource: &str, name: &str| -> Result<Value> {
        Ok(
            get(cluster, &[resource, name, "-n", &namespace])?["metadata"]["resourceVersion"]
                .clone(),
        )
    };
    for (policy, word) in [
        ("none", "skipped"),
        ("update", "updated"),
        ("recreate", "updated"),
    ] {
        apply(cluster, &objects("new", "i:2"))?;
        let name = format!("r-{policy}");
        let (secret, web, same) = (
            uid("secret", "s")?,
            uid("deployment", "web")?,
            version("configmap", "same")?,
        );
        let finished = restore(&name, policy).expect(0).await?;
        let list = place.list(&name)?;
        ensure!(
            list["v1/Secret"] == json!([format!("{namespace}/s({word})")]),
            "{policy}: {list:#}"
        );
        ensure!(
            list["apps/v1/Deployment"] == json!([format!("{namespace}/web({word})")]),
            "{policy}: {list:#}"
        );
        // What is the same is not touched by any of them: unlike Velero, not even its labels (C9, C10).
        ensure!(
            list["v1/ConfigMap"].to_string().contains("same(unchanged)"),
            "{policy}: {list:#}"
        );
        ensure!(
            version("configmap", "same")? == same,
            "{policy}: the same one was written"
        );
        let live = get(cluster, &["secret", "s", "-n", &namespace])?;
        let (value, label) = if policy == "none" {
            ("bmV3", "new")
        } else {
            ("b2xk", "old")
        };
        ensure!(
            live["data"]["k"] == value && live["metadata"]["labels"]["l"] == label,
            "{policy}: {live:#}"
        );
        let warned = finished.stderr.contains("exists and is different");
        ensure!(warned == (policy == "none"), "{policy}: {finished:?}");
        let kept = (
            uid("secret", "s")? == secret,
            uid("deployment", "web")? == web,
        );
        let recreated = policy == "recreate";
        ensure!(kept == (!recreated, !recreated), "{policy}: {kept:?}");
        // Once more: there is nothing left to do, but under none.
        let name = format!("again-{policy}");
        restore(&name, policy).expect(0).await?;
        let list = place.list(&name)?;
        let expected = if policy == "none" {
            "skipped"
        } else {
            "unchanged"
        };
        ensure!(
            list["v1/Secret"] == json!([format!("{namespace}/s({expected})")]),
            "{policy}: {list:#}"
        );
    }
    Ok(())
}

/// A Deployment's selector cannot be changed, nor the data of an immutable ConfigMap.
async fn immutable() -> Result<()> {
    let world = World::new("immutable").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let objects = |value: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c, namespace: {namespace}}}, data: {{k: {value}}}, immutable: true}}\n\
             ---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 0, selector: {{matchLabels: {{app: {value}}}}}, template: {{metadata: {{labels: {{app: {value}}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}\n"
        )
    };
    apply(cluster, &objects("old"))?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl(&["delete", "configmap/c", "deployment/web", "-n", &namespace])?;
    apply(cluster, &objects("new"))?;
    let restore = |policy: &str| {
        let flag = format!("--existing-resource-policy={policy}");
        place.job(&["restore", "b", "--include-namespaces", &namespace, &flag])
    };
    let selector = || -> Result<Value> {
        Ok(get(cluster, &["deployment", "web", "-n", &namespace])?["spec"]["selector"]["matchLabels"]["app"].clone())
    };
    let partial = restore("update").expect(3).await?;
    ensure!(
        partial.stderr.contains("Deployment web")
            && partial.stderr.contains("immutable")
            && partial.stderr.contains("ConfigMap c"),
        "{partial:?}"
    );
    ensure!(selector()? == "new");
    restore("recreate").expect(0).await?;
    ensure!(selector()? == "old");
    ensure!(get(cluster, &["configmap", "c", "-n", &namespace])?["data"]["k"] == "old");
    Ok(())
}

/// Deleting a definition deletes its objects; deleting a claim frees its volume. Both are changed instead.
async fn nothing_lost() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    let volume = "{apiVersion: v1, kind: PersistentVolume, metadata: {name: disk, labels: {l: old}}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, storageClassName: x, hostPath: {path: /tmp/none}}}\n\
        ---\n{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: disk, namespace: app, labels: {l: old}}, spec: {accessModes: [ReadWriteOnce], storageClassName: x, resources: {requests: {storage: 1Gi}}}}\n";
    cluster.kubectl_with_input(&["create", "-f", "-"], volume)?;
    let bound = async || {
        wait_until(
            "the claim to be bound",
            Duration::from_secs(30),
            async || {
                let claim = get(&cluster, &["pvc", "disk", "-n", "app"])?;
                Ok((claim["status"]["phase"] == "Bound").then_some(()))
            },
        )
        .await
    };
    bound().await?;
    place.run(&["backup", "b"]).await?;
    let definition = "crd/widgets.restore.example.com";
    cluster.kubectl(&["label", definition, "l=new"])?;
    cluster.kubectl(&["label", "pv/disk", "l=new", "--overwrite"])?;
    cluster.kubectl(&["label", "pvc/disk", "l=new", "--overwrite", "-n", "app"])?;
    cluster.kubectl(&["label", "namespace/app", "l=new"])?;
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        "apiVersion: restore.example.com/v1\nkind: Widget\nmetadata: {name: later, namespace: app}\n",
    )?;
    let uids = || -> Result<Vec<Value>> {
        let objects: [&[&str]; 5] = [
            &[definition],
            &["pv/disk"],
            &["pvc/disk", "-n", "app"],
            &["namespace/app"],
            &["widget/later", "-n", "app"],
        ];
        objects
            .iter()
            .map(|object| Ok(get(&cluster, object)?["metadata"]["uid"].clone()))
            .collect()
    };
    let before = uids()?;
    place
        .run(&[
            "restore",
            "b",
            "--name",
            "r",
            "--existing-resource-policy=recreate",
            "--yes",
        ])
        .await?;
    ensure!(uids()? == before, "something was deleted");
    bound().await?;
    for object in ["pv/disk", "pvc/disk"] {
        let live = get(&cluster, &[object, "-n", "app"])?;
        ensure!(live["metadata"]["labels"]["l"] == "old", "{live:#}");
    }
    let live = get(&cluster, &[definition])?;
    ensure!(live["metadata"]["labels"]["l"].is_null(), "{live:#}");
    Ok(())
}

/// H: a service account that exists gets what it lacks, and loses nothing, whatever the policy.
async fn service_accounts() -> Result<()> {
    let world = World::new("accounts").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let account = |text: &str| {
        format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: runner, namespace: {namespace}, {text}}}\n"
        )
    };
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        &account("labels: {both: old, old: x}, annotations: {old: x}}, secrets: [{name: one}, {name: two}], imagePullSecrets: [{name: p1}]"),
    )
    .context("before")?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl_with_input(
        &["replace", "-f", "-"],
        &account("labels: {both: new, new: x}}, secrets: [{name: three}, {name: two}], imagePullSecrets: [{name: p2}]"),
    )?;
    place
        .run(&[
            "restore",
            "b",
            "--name",
            "r",
            "--include-namespaces",
            &namespace,
        ])
        .await?;
    let live = get(cluster, &["serviceaccount", "runner", "-n", &namespace])?;
    ensure!(
        live["secrets"] == json!([{"name": "three"}, {"name": "two"}, {"name": "one"}])
            && live["imagePullSecrets"] == json!([{"name": "p2"}, {"name": "p1"}]),
        "{live:#}"
    );
    let metadata = &live["metadata"];
    ensure!(
        metadata["labels"]["both"] == "new"
            && metadata["labels"]["new"] == "x"
            && metadata["labels"]["old"] == "x"
            && metadata["annotations"]["old"] == "x",
        "{live:#}"
    );
    // H1, H7: there is nothing to patch.
    place
        .run(&[
            "restore",
            "b",
            "--name",
            "again",
            "--include-namespaces",
            &namespace,
        ])
        .await?;
    let same = get(cluster, &["serviceaccount", "runner", "-n", &namespace])?;
    ensure!(same == live, "{same:#}");
    Ok(())
}

/// Also the promise that restoring again changes nothing, by the API server's own count.
async fn again() -> Result<()> {
    // Nobody else is at work there: no controllers.
    let cluster = ControlPlane::start(Options::default()).await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    apply(
        &cluster,
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: app}, data: {k: v}}\n\
         ---\n{apiVersion: v1, kind: Service, metadata: {name: s, namespace: app}, spec: {type: NodePort, ports: [{port: 80}]}}\n\
         ---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: app}}\n\
         ---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: app}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}\n\
         ---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: app}, spec: {containers: [{name: c, image: i}]}}\n",
    )?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "configmap", "c", "-n", "app"])?;
    let start = writes(&cluster).await?;
    place.run(&["restore", "b", "--name", "first"]).await?;
    let first = writes(&cluster).await?;
    ensure!(
        written(&start, &first) == ["POST configmaps.: 1"],
        "{:?}",
        written(&start, &first)
    );
    place.run(&["restore", "b", "--name", "second"]).await?;
    let second = writes(&cluster).await?;
    ensure!(first == second, "{:?}", written(&first, &second));
    Ok(())
}

/// A Job that GitOps makes again asks for the same restore by the same name: it is done already.
async fn made_again() -> Result<()> {
    let cluster = crate::place::cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=a=1",
        "-n",
        "app",
    ])?;
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    let arguments = [
        "restore",
        "b",
        "--name",
        "r",
        "--include-namespaces",
        "app",
        "--existing-resource-policy=update",
    ];
    place.job(&arguments).of("job-1", "pod-1").expect(0).await?;
    let edit = r#"{"data":{"a":"edited"}}"#;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "c",
        "-n",
        "app",
        "--type=merge",
        "-p",
        edit,
    ])?;
    let again = place.job(&arguments).of("job-2", "pod-2").expect(0).await?;
    ensure!(again.stderr.contains("complete already"), "{again:?}");
    let live = get(&cluster, &["configmap", "c", "-n", "app"])?;
    ensure!(live["data"]["a"] == "edited", "{live:#}");
    ensure!(exists(
        &cluster,
        &["restores.ark.heptio.com", "r", "-n", "heptio-ark"]
    )?);
    Ok(())
}
