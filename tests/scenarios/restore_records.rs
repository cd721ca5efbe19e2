//! The record of a restore, and the rights it gives up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{FaultProxy, Rule, process};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::place::{Place, cluster_with_ark, exists, get};
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_records::a_record_tells_what_happened_and_keeps_its_name",
            records,
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
