//! Restore: what comes back, and what is left alone.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Result, ensure};
use ark_tests::job::ArkJob;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, cluster_with_widget, delete_namespace, exists, fill, get, names, wait};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore::a_deleted_namespace_comes_back_and_again_changes_nothing",
            deleted_namespace,
        ),
        scenario(
            "restore::namespaces_come_back_under_other_names",
            other_names,
        ),
        scenario(
            "restore::different_objects_are_left_alone_with_a_warning",
            left_alone,
        ),
        scenario(
            "restore::custom_resources_come_back_with_their_definition",
            custom_resources,
        ),
        scenario(
            "restore::what_the_cluster_does_not_serve_is_named",
            not_served,
        ),
        scenario(
            "restore::what_belongs_to_the_old_cluster_or_to_ark_does_not_come_back",
            never_restored,
        ),
    ]
}

async fn deleted_namespace() -> Result<()> {
    let world = World::new("deleted").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    let before: BTreeMap<&str, Vec<String>> = ["replicasets", "services", "secrets"]
        .into_iter()
        .map(|resource| Ok((resource, names(cluster, resource, &namespace)?)))
        .collect::<Result<_>>()?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    // Still terminating when the restore begins: it waits.
    delete_namespace(cluster, &namespace)?;
    let restored = place
        .run(&[
            "restore",
            "b",
            "--name",
            "r",
            "--requested",
            "2026-11-23T20:15:01Z",
        ])
        .await?;
    ensure!(restored.stderr.contains("0 failed"), "{restored:?}");
    for (resource, names_before) in before {
        ensure!(
            names(cluster, resource, &namespace)? == names_before,
            "{resource}"
        );
    }
    let config_map = get(cluster, &["configmap", "settings", "-n", &namespace])?;
    ensure!(
        config_map["data"]["colour"] == "green"
            && config_map["metadata"]["labels"]["ark-restore"] == "b-20261123201501",
        "{config_map:#}"
    );
    // The deployment has found its replica set and its pods again: nothing was rolled out.
    wait(|| {
        let sets = get(cluster, &["replicasets", "-n", &namespace])?;
        Ok(sets["items"][0]["metadata"]["ownerReferences"][0]["kind"] == "Deployment")
    })?;
    ensure!(names(cluster, "replicasets", &namespace)?.len() == 1);
    // The Job's pod was not restored: the Job has started its own.
    wait(|| Ok(names(cluster, "pods", &namespace)?.len() == 3))?;

    let versions = |resource: &str| -> Result<String> {
        cluster.kubectl(&[
            "get",
            resource,
            "-n",
            &namespace,
            "-o",
            "jsonpath={.items[*].metadata.resourceVersion}",
        ])
    };
    let untouched = "configmaps,secrets,services,serviceaccounts,rolebindings";
    let before = versions(untouched)?;
    let again = place.run(&["restore", "b", "--name", "again"]).await?;
    ensure!(
        again.stderr.contains(" 0 created") && !again.stderr.contains("warning"),
        "{again:?}"
    );
    ensure!(versions(untouched)? == before, "something was written");
    ensure!(
        place.results("again")? == json!({"warnings": {}, "errors": {}}),
        "{:#}",
        place.results("again")?
    );
    Ok(())
}

async fn other_names() -> Result<()> {
    let world = World::new("mapped").await?;
    let cluster = world.cluster;
    let (one, two) = (world.namespace("one").await?, world.namespace("two").await?);
    let (new_one, new_two) = (format!("{one}-new"), format!("{two}-new"));
    let place = Place::new(cluster)?;
    fill(cluster, &one)?;
    fill(cluster, &two)?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "both",
        "--from-literal=a=1",
        "-n",
        &one,
    ])?;
    cluster.kubectl(&[
        "create",
        "configmap",
        "both",
        "--from-literal=a=2",
        "-n",
        &two,
    ])?;
    let included = format!("{one},{two}");
    place
        .run(&["backup", "b", "--include-namespaces", &included])
        .await?;
    let mapping = format!("{one}:{new_one},{two}:{new_two}");
    place
        .run(&["restore", "b", "--namespace-mappings", &mapping])
        .await?;
    for (namespace, value) in [(&new_one, "1"), (&new_two, "2")] {
        let both = get(cluster, &["configmap", "both", "-n", namespace])?;
        ensure!(both["data"]["a"] == value, "{both:#}");
        let binding = get(cluster, &["rolebinding", "runners", "-n", namespace])?;
        ensure!(
            binding["subjects"][0]["namespace"] == **namespace,
            "{binding:#}"
        );
        let named = get(cluster, &["namespace", namespace])?;
        ensure!(
            named["metadata"]["labels"]["kubernetes.io/metadata.name"] == **namespace,
            "{named:#}"
        );
        ensure!(names(cluster, "services", namespace)? == ["web"]);
    }
    // Both onto one: their config maps differ, so nothing at all is done.
    let mapping = format!("{one}:{one}-onto,{two}:{one}-onto");
    let refused = place
        .job(&["restore", "b", "--namespace-mappings", &mapping])
        .expect(2)
        .await?;
    ensure!(refused.stderr.contains("configmaps both"), "{refused:?}");
    ensure!(!exists(cluster, &["namespace", &format!("{one}-onto")])?);
    for namespace in [new_one, new_two] {
        delete_namespace(cluster, &namespace)?;
    }
    Ok(())
}

async fn left_alone() -> Result<()> {
    let world = World::new("alone").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    fill(cluster, &namespace)?;
    let storage = world.storage();
    let run = async |arguments: &[&str]| {
        let arguments = [arguments, &["--storage", &storage]].concat();
        ArkJob::new(cluster.kubeconfig(), &arguments)
            .of("uid-of-a-job", "uid-of-a-pod")
            .expect(0)
            .await
    };
    run(&["backup", "b", "--include-namespaces", &namespace]).await?;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "settings",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        r#"{"data":{"colour":"red"}}"#,
    ])?;
    let restored = run(&["restore", "b", "--name", "r"]).await?;
    ensure!(
        restored
            .stderr
            .contains("ConfigMap settings exists and is different (at .data.colour)"),
        "{restored:?}"
    );
    let config_map = get(cluster, &["configmap", "settings", "-n", &namespace])?;
    ensure!(config_map["data"]["colour"] == "red", "{config_map:#}");
    let keys = world
        .bucket
        .keys(&format!("{}/restores/", world.prefix()))
        .await?;
    let expected: Vec<String> = ["logs.gz", "resource-list.json.gz", "results.gz"]
        .map(|file| format!("{}/restores/r/restore-r-{file}", world.prefix()))
        .into();
    ensure!(keys == expected, "{keys:?}");
    let results = world.bucket.get(&expected[2]).await?;
    let mut json = String::new();
    flate2::read::GzDecoder::new(&results[..]).read_to_string(&mut json)?;
    let results: Value = serde_json::from_str(&json)?;
    ensure!(
        results["warnings"]["namespaces"][&namespace]
            == json!([
                "ConfigMap settings exists and is different (at .data.colour); it is left as it is"
            ]),
        "{results:#}"
    );
    // Another run of that name keeps its hands off, and has a directory of its own.
    let arguments = ["restore", "b", "--name", "r", "--storage", &storage];
    ArkJob::new(cluster.kubeconfig(), &arguments)
        .of("uid-of-another-job", "uid-of-a-pod")
        .expect(0)
        .await?;
    let keys = world
        .bucket
        .keys(&format!("{}/restores/r-", world.prefix()))
        .await?;
    ensure!(keys.len() == 3, "{keys:?}");
    Ok(())
}

async fn custom_resources() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "crd", "widgets.restore.example.com"])?;
    // A selected namespace brings the definition that its objects need.
    place
        .run(&["restore", "b", "--name", "r", "--include-namespaces", "app"])
        .await?;
    let widget = get(&cluster, &["widget", "w", "-n", "app"])?;
    ensure!(
        widget["spec"] == json!({"size": 3, "big": 9007199254740993u64}),
        "{widget:#}"
    );
    let list = place.list("r")?;
    ensure!(
        list["apiextensions.k8s.io/v1/CustomResourceDefinition"]
            == json!(["widgets.restore.example.com(created)"])
            && list["restore.example.com/v1/Widget"] == json!(["app/w(created)"]),
        "{list:#}"
    );
    // The whole cluster on top of itself: nothing to do, and nothing to warn of.
    let again = place.run(&["restore", "b", "--name", "whole"]).await?;
    ensure!(
        again.stderr.contains(" 0 created") && !again.stderr.contains("level=warning"),
        "{again:?}"
    );
    Ok(())
}

async fn not_served() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "crd", "widgets.restore.example.com"])?;
    cluster.kubectl(&["create", "configmap", "gone", "-n", "app"])?;
    let partial = place
        .job(&[
            "restore",
            "b",
            "--name",
            "r",
            "--include-cluster-resources=false",
        ])
        .expect(3)
        .await?;
    ensure!(
        partial.stderr.contains(
            "1 widgets.restore.example.com are not restored: the cluster does not serve restore.example.com/v1"
        ),
        "{partial:?}"
    );
    // What is not wanted is not missed.
    place
        .run(&[
            "restore",
            "b",
            "--include-cluster-resources=false",
            "--exclude-resources",
            "widgets",
        ])
        .await?;
    let wrong = place
        .job(&["restore", "b", "--include-resources", "gadgets"])
        .expect(2)
        .await?;
    ensure!(wrong.stderr.contains("no resource type is called gadgets"));
    place.job(&["restore", "other"]).expect(10).await?;
    Ok(())
}

async fn never_restored() -> Result<()> {
    let world = World::new("never").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    let cron_job = |name: &str, label: &str| {
        format!(
            "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{label}}}}}\n\
             spec: {{schedule: \"0 0 1 1 *\", jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}}}}}}}}}\n"
        )
    };
    let manifest = format!(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: leader, namespace: {namespace}}}\n\
         ---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: by-hand, namespace: {namespace}}}\nsubsets: [{{addresses: [{{ip: 192.0.2.1}}]}}]\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: of-ark, namespace: {namespace}, labels: {{app.kubernetes.io/part-of: kubectl-ark}}}}\n\
         {}{}{}",
        cron_job("expiry", "app.kubernetes.io/part-of: kubectl-ark"),
        cron_job("daily", "ark.heptio.com/schedule: daily"),
        cron_job("mine", "a: b"),
    );
    cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    delete_namespace(cluster, &namespace)?;
    place.run(&["restore", "b", "--name", "r"]).await?;
    ensure!(names(cluster, "leases", &namespace)?.is_empty());
    ensure!(names(cluster, "cronjobs", &namespace)? == ["daily", "mine"]);
    ensure!(!names(cluster, "configmaps", &namespace)?.contains(&"of-ark".to_owned()));
    let suspended = |name: &str| get(cluster, &["cronjob", name, "-n", &namespace]);
    ensure!(suspended("daily")?["spec"]["suspend"] == true);
    ensure!(suspended("mine")?["spec"]["suspend"] == false);
    ensure!(exists(
        cluster,
        &["endpoints", "by-hand", "-n", &namespace]
    )?);
    let list = place.list("r")?;
    ensure!(
        list.get("v1/Event").is_none() && list.get("coordination.k8s.io/v1/Lease").is_none(),
        "{list:#}"
    );
    let refused = place
        .job(&["restore", "b", "--include-resources", "nodes"])
        .expect(2)
        .await?;
    ensure!(
        refused.stderr.contains("nodes are never restored"),
        "{refused:?}"
    );
    Ok(())
}
