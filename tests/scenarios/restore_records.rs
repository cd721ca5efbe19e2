//! The record of a restore, and the rights it gives up.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::job::{self, ArkJob};
use ark_tests::{FaultProxy, Rule, process};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, cluster_with_ark, exists, files, get};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_records::a_record_tells_what_happened_and_keeps_its_name",
            records,
        ),
        scenario(
            "restore_records::without_records_the_results_are_named",
            without_records,
        ),
        scenario(
            "restore_records::nothing_is_written_to_a_read_only_location",
            read_only,
        ),
        scenario(
            "restore_records::the_last_restore_out_gives_up_the_rights",
            rights,
        ),
    ]
}

async fn records() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    place.run(&["backup", "b"]).await?;
    let record = |name: &str| {
        get(
            &cluster,
            &["restores.ark.heptio.com", name, "-n", "heptio-ark"],
        )
    };
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let restore = ["restore", "b", "--name", "r", "--include-namespaces", "app"];
    place.run(&restore).await?;
    let status = &record("r")?["status"];
    ensure!(
        status["phase"] == "Completed"
            && status["created"] == 1
            && status["errors"] == 0
            && status["heartbeat"].is_null()
            && status["results"] == "restores/r/restore-r-results.gz",
        "{status:#}"
    );
    // The same again is done already; it is done once more only when told.
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let again = place.run(&restore).await?;
    ensure!(again.stderr.contains("complete already"), "{again:?}");
    ensure!(!exists(&cluster, &["configmap", "settings", "-n", "app"])?);
    place.run(&[&restore[..], &["--again"]].concat()).await?;
    ensure!(exists(&cluster, &["configmap", "settings", "-n", "app"])?);
    // Something else under that name is not.
    let other = place
        .job(&["restore", "b", "--name", "r"])
        .expect(11)
        .await?;
    ensure!(
        other.stderr.contains("something else was asked"),
        "{other:?}"
    );
    // Ark's own records were in the backup, and stay there.
    place.run(&["restore", "b", "--name", "whole"]).await?;
    let list = place.list("whole")?;
    ensure!(list.get("ark.heptio.com/v1/Backup").is_none(), "{list:#}");
    // A failure says why, also when it is the end of the process.
    place
        .job(&["restore", "none", "--name", "failed"])
        .expect(10)
        .await?;
    let status = &record("failed")?["status"];
    ensure!(
        status["phase"] == "Failed"
            && status["failureReason"]
                .as_str()
                .is_some_and(|why| why.contains("there is no backup")),
        "{status:#}"
    );
    let proxy = FaultProxy::start_before(&cluster).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    proxy.add(
        Rule::on(|request| request.is_write() && request.path.ends_with("/configmaps"))
            .before(move |_| sender.send(()).expect("the scenario waits for it"))
            .delay(Duration::from_secs(30)),
    );
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let arguments = [
        "restore",
        "b",
        "--name",
        "cut",
        "--include-namespaces",
        "app",
    ];
    let running = place.job_at(&kubeconfig, &arguments).start()?;
    receiver.recv().await.context("nothing was restored")?;
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(130), "{finished:?}");
    let status = &record("cut")?["status"];
    ensure!(
        status["phase"] == "Failed"
            && status["failureReason"]
                .as_str()
                .is_some_and(|why| why.contains("interrupted")),
        "{status:#}"
    );
    // Another attempt of the same goes on.
    place.run(&arguments).await?;
    ensure!(record("cut")?["status"]["phase"] == "Completed");
    Ok(())
}

/// There is no record to be described: the results are named instead, and only the first few messages shown.
async fn without_records() -> Result<()> {
    let world = World::new("recordless").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let maps = |value: &str| -> String {
        let map = |n: u32| {
            format!(
                "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{n}, namespace: {namespace}}}, data: {{k: {value}}}}}\n"
            )
        };
        (0..5).map(map).collect()
    };
    cluster.kubectl_with_input(&["apply", "-f", "-"], &maps("old"))?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    cluster.kubectl_with_input(&["apply", "-f", "-"], &maps("new"))?;
    let restore = [
        "restore",
        "b",
        "--name",
        "r",
        "--include-namespaces",
        &namespace,
    ];
    let finished = place.run(&restore).await?;
    let hint = finished
        .stderr
        .lines()
        .find(|line| line.starts_with("hint: "));
    let hint = hint.unwrap_or_default();
    ensure!(
        hint.contains("5 warnings: ")
            && hint.matches(" exists and is different ").count() == 3
            && hint.contains("; and 2 more; ")
            && hint.contains("is in restores/r/restore-r-results.gz")
            && !hint.contains("describe"),
        "{finished:?}"
    );
    Ok(())
}

async fn read_only() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "configmap", "settings", "-n", "app"])?;
    place.run(&["backup", "b"]).await?;
    let location = json!({
        "apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": "theirs", "namespace": "heptio-ark"},
        "spec": {"url": format!("file://{}", place.path().display()), "accessMode": "ReadOnly"},
    });
    cluster.kubectl_with_input(&["apply", "-f", "-"], &location.to_string())?;
    let stored = files(place.path())?;
    for name in ["r", "again"] {
        cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
        let arguments = ["restore", "b", "--name", name, "--location", "theirs"];
        let scope = ["--include-namespaces", "app"];
        ArkJob::new(cluster.kubeconfig(), &[&arguments[..], &scope].concat())
            .expect(0)
            .await?;
        let restore = get(
            &cluster,
            &["restores.ark.heptio.com", name, "-n", "heptio-ark"],
        )?;
        let map = format!("ark-results-{name}");
        ensure!(
            restore["status"]["results"] == format!("configmap/{map}"),
            "{restore:#}"
        );
        let kept = get(&cluster, &["configmap", &map, "-n", "heptio-ark"])?;
        let results: Value =
            serde_json::from_str(kept["data"]["results.json"].as_str().unwrap_or_default())?;
        ensure!(
            kept["metadata"]["labels"]["ark.heptio.com/restore"] == name
                && kept["metadata"]["labels"]["ark.heptio.com/exclude-from-backup"] == "true"
                && kept["data"]["log"]
                    .as_str()
                    .is_some_and(|log| log.contains("are to be restored from backup b"))
                && kept["binaryData"]["resource-list.json.gz"].is_string()
                && results["errors"] == json!({}),
            "{kept:#}"
        );
    }
    ensure!(files(place.path())? == stored, "something was written");
    let mut logs = Command::new(job::program("kubectl-ark")?);
    logs.args(["restore", "logs", "r"])
        .env("KUBECONFIG", cluster.kubeconfig());
    let printed = process::output(&mut logs)?;
    ensure!(
        printed.contains("are to be restored from backup b"),
        "{printed}"
    );
    // When they cannot be kept, it is restored all the same.
    let proxy = FaultProxy::start_before(&cluster).await?;
    proxy.add(
        Rule::on(|request| {
            request.is_write() && request.path.ends_with("/namespaces/heptio-ark/configmaps")
        })
        .answer(403, &[], "no"),
    );
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    cluster.kubectl(&["delete", "configmap", "settings", "-n", "app"])?;
    let arguments = [
        "restore",
        "b",
        "--name",
        "forbidden",
        "--location",
        "theirs",
    ];
    let scope = ["--include-namespaces", "app"];
    let finished = ArkJob::new(&kubeconfig, &[&arguments[..], &scope].concat())
        .expect(0)
        .await?;
    ensure!(
        finished.stderr.contains("cannot be kept in the cluster")
            && exists(&cluster, &["configmap", "settings", "-n", "app"])?,
        "{finished:?}"
    );
    ensure!(files(place.path())? == stored, "something was written");
    Ok(())
}

async fn rights() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    place
        .run(&["backup", "b", "--include-namespaces", "app"])
        .await?;
    let bind = |annotations: &str| {
        let manifest = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n\
             metadata: {{name: ark-restore, annotations: {{{annotations}}}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
             subjects: [{{kind: ServiceAccount, name: ark-restore, namespace: heptio-ark}}]\n"
        );
        cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest)
    };
    let bound = || exists(&cluster, &["clusterrolebinding", "ark-restore"]);
    // A service account that may nothing waits for its rights, and says so when they do not come.
    cluster.kubectl(&[
        "create",
        "serviceaccount",
        "ark-restore",
        "-n",
        "heptio-ark",
    ])?;
    let token = cluster.kubectl(&["create", "token", "ark-restore", "-n", "heptio-ark"])?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let own: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": own["clusters"][0]["cluster"]}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, config.to_string())?;
    let waiting = |name: &str, within: &str| {
        let arguments = ["restore", "b", "--name", name, "--wait-for-rights", within];
        place.job_at(&kubeconfig, &arguments)
    };
    let refused = waiting("refused", "1s").expect(1).await?;
    ensure!(
        refused.stderr.contains("has not been given the rights"),
        "{refused:?}"
    );
    let running = waiting("waited", "60s").start()?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    bind("ark.heptio.com/request: restore b")?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    ensure!(!bound()?, "the rights are still there");
    // A binding that no request has made is somebody's own.
    bind("mine: x")?;
    place.run(&["restore", "b", "--name", "standing"]).await?;
    ensure!(bound()?);
    cluster.kubectl(&["delete", "clusterrolebinding", "ark-restore"])?;
    // What can be tried again keeps them; a plan cannot, and gives them up whatever comes of it.
    let proxy = FaultProxy::start_before(&cluster).await?;
    proxy.add(Rule::on(|request| request.path == "/apis").answer(403, &[], "no"));
    let failing = cluster.kubeconfig_for(proxy.url())?;
    bind("ark.heptio.com/request: restore b")?;
    place
        .job_at(&failing, &["restore", "b", "--name", "tried"])
        .expect(1)
        .await?;
    ensure!(bound()?, "the next attempt has no rights");
    place
        .job_at(&failing, &["restore", "b", "--dry-run=server"])
        .expect(1)
        .await?;
    ensure!(!bound()?, "a plan that failed has kept the rights");
    // And so do those that another restore needs.
    bind("ark.heptio.com/request: restore b")?;
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: other, namespace: heptio-ark, labels: {ark.heptio.com/operation: restore}}\n\
        spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n";
    cluster.kubectl_with_input(&["apply", "-f", "-"], job)?;
    place.run(&["restore", "b", "--name", "first"]).await?;
    ensure!(bound()?);
    let uid = cluster.kubectl(&[
        "get",
        "job",
        "other",
        "-n",
        "heptio-ark",
        "-o",
        "jsonpath={.metadata.uid}",
    ])?;
    place
        .job(&["restore", "b", "--name", "last"])
        .of(&uid, "pod")
        .expect(0)
        .await?;
    ensure!(!bound()?, "the last one out has kept the rights");
    Ok(())
}
