//! A whole cluster, with one of every built-in type, into an empty one: equal, by a script that shares no code with us.
//!
//! The objects are in `round_trip/*.yaml`. What may differ is listed, with reasons, in `scripts/compare_clusters.py`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ark_job::api::{Backup, BackupStorageLocation, Restore};
use ark_tests::{ControlPlane, Options, wait_until};
use kube::CustomResourceExt;
use libtest_mimic::Trial;
#[cfg(target_os = "linux")]
use serde_json::json;

use crate::place::{Place, become_equal, differences, exists, files, filled_types, get, names};
#[cfg(target_os = "linux")]
use crate::world::node_scenario;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "round_trip::a_whole_cluster_comes_back_equal_in_an_empty_one",
            whole_cluster,
        ),
        #[cfg(target_os = "linux")]
        node_scenario(
            "round_trip::running_workloads_run_again_in_another_cluster",
            running_workloads,
        ),
    ]
}

const DEFINITIONS: &str = include_str!("round_trip/definitions.yaml");
const OBJECTS: &str = include_str!("round_trip/objects.yaml");

async fn empty_cluster() -> Result<ControlPlane> {
    ControlPlane::start(Options {
        controller_manager: true,
        // Mutating policies are on by default only in later versions.
        api_server_flags: vec![
            "--feature-gates=MutatingAdmissionPolicy=true".into(),
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true".into(),
        ],
        ..Options::default()
    })
    .await
}

/// A cluster with everything, whose controllers have caught up.
async fn full_cluster() -> Result<ControlPlane> {
    let cluster = empty_cluster().await?;
    for definition in [Backup::crd(), Restore::crd(), BackupStorageLocation::crd()] {
        let json = serde_json::to_string(&definition)?;
        cluster.kubectl_with_input(&["create", "-f", "-"], &json)?;
    }
    cluster.kubectl_with_input(&["create", "-f", "-"], DEFINITIONS)?;
    let all = ["wait", "--for=condition=Established", "crd", "--all"];
    cluster.kubectl(&[&all[..], &["--timeout=30s"]].concat())?;
    // The default service account of a namespace comes a moment after it, and pods need it: what is there stays.
    wait_until("all to be created", Duration::from_secs(30), async || {
        let applied = cluster.kubectl_with_input(
            &[
                "apply",
                "--server-side",
                "--field-manager=people",
                "-f",
                "-",
            ],
            OBJECTS,
        );
        applied.map(Some)
    })
    .await?;
    wait_until("the controllers", Duration::from_secs(30), async || {
        let pods = names(&cluster, "pods", "a")?;
        let count = |start: &str| pods.iter().filter(|name| name.starts_with(start)).count();
        let expected = [
            ("web-", 2),
            ("database-", 1),
            ("lone-", 1),
            ("old-", 1),
            ("running-", 2),
        ];
        let there = expected
            .iter()
            .all(|&(start, number)| count(start) == number);
        let job = get(&cluster, &["job", "finished", "-n", "a"])?;
        let secret = get(&cluster, &["secret", "long-lived", "-n", "a"])?;
        let whole = get(&cluster, &["clusterrole", "trip-whole"])?;
        let claim = get(&cluster, &["pvc", "data-database-0", "-n", "a"])?;
        let ready = there
            && job["status"]["conditions"].to_string().contains("Complete")
            && !secret["data"]["token"].is_null()
            && whole["rules"]
                .as_array()
                .is_some_and(|rules| rules.len() == 1)
            && claim["status"]["phase"] == "Bound";
        Ok(ready.then_some(()))
    })
    .await?;
    Ok(cluster)
}

/// Also A1, A18, A19, B3, O10, S4, S6, S14 of the list of behaviours.
async fn whole_cluster() -> Result<()> {
    let (old, new) = futures::try_join!(full_cluster(), empty_cluster())?;
    let types = filled_types(old.kubeconfig())
        .context("a type has no object in round_trip/objects.yaml")?;
    ensure!(types.len() >= 52, "{types:?}");
    let place = Place::new(&old)?;
    place
        .run(&["backup", "b", "--ignore-undiscoverable", "down.example.com"])
        .await?;
    let before = files(&place.path().join("backups"))?;

    let started = Instant::now();
    let restored = place
        .job_at(new.kubeconfig(), &["restore", "b", "--name", "r"])
        .expect(0)
        .await?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(45), "it took {took:?}");
    ensure!(!restored.stderr.contains("level=warning"), "{restored:?}");
    become_equal(old.kubeconfig(), new.kubeconfig(), &[])
        .await
        .with_context(|| restored.stderr.clone())?;

    // The script would see it if something were missing or different.
    new.kubectl(&["delete", "configmap", "frozen", "-n", "a"])?;
    new.kubectl(&["label", "service", "web", "-n", "a", "more=x"])?;
    let seen = differences(old.kubeconfig(), new.kubeconfig(), &[])?;
    ensure!(
        seen.contains("configmaps a frozen: not in the second")
            && seen.contains("services a web: "),
        "{seen}"
    );

    // Nothing of ours runs in the copy, or is written to its backups.
    ensure!(names(&new, "jobs", "heptio-ark")?.is_empty());
    ensure!(names(&new, "pods", "heptio-ark")?.is_empty());
    ensure!(names(&new, "cronjobs", "heptio-ark")? == ["daily"]);
    let schedule = get(&new, &["cronjob", "daily", "-n", "heptio-ark"])?;
    ensure!(schedule["spec"]["suspend"] == true, "{schedule:#}");
    ensure!(!exists(&new, &["crd", "backups.ark.heptio.com"])?);
    ensure!(
        files(&place.path().join("backups"))? == before,
        "backups/ is not as it was"
    );
    Ok(())
}

/// What runs for long, with a service and a volume; the deployment is rolled out a second time.
#[cfg(target_os = "linux")]
fn run_workloads(cluster: &ControlPlane, directory: &std::path::Path) -> Result<()> {
    let container = |script: &str| json!([{"name": "main", "image": ark_tests::images::BUSYBOX, "command": ["sh", "-c", script]}]);
    let pod = |app: &str, script: &str| {
        json!({
            "metadata": {"labels": {"app": app}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": container(script)},
        })
    };
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let mut database = pod("database", "echo started >> /data/starts; sleep 3600");
    database["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    let mut work = pod("work", "sleep 3600");
    work["spec"]["restartPolicy"] = json!("Never");
    let metadata = |name: &str| json!({"name": name, "namespace": "trip"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "trip"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "trip",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": directory}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("web"),
            "spec": {"replicas": 2, "selector": selector("web"), "template": pod("web", "sleep 3600")}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata("agent"),
            "spec": {"selector": selector("agent"), "template": pod("agent", "sleep 3600")}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata("database"), "spec": {
            "serviceName": "database", "selector": selector("database"), "template": database,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "storageClassName": "trip", "resources": {"requests": {"storage": "1Gi"}}}}]}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata("work"), "spec": {"template": work}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
    ]});
    cluster.kubectl(&["create", "namespace", "trip"])?;
    cluster.kubectl_with_input(&["create", "-f", "-"], &objects.to_string())?;
    cluster.kubectl(&["set", "env", "deployment/web", "VERSION=2", "-n", "trip"])?;
    Ok(())
}

/// What a cluster runs: replica sets by name, pods with their owners, the deployment's revision, claims.
#[cfg(target_os = "linux")]
fn running(cluster: &ControlPlane) -> Result<serde_json::Value> {
    let items = |resource: &str| -> Result<Vec<serde_json::Value>> {
        let list = get(cluster, &[resource, "-n", "trip"])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let owner = |object: &serde_json::Value| {
        let owner = &object["metadata"]["ownerReferences"][0];
        json!([owner["kind"], owner["name"], owner["controller"]])
    };
    let pods: Vec<_> = items("pods")?
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            // A Job has made another pod; the others have kept their names.
            let of_job = owner(pod)[0] == "Job";
            let name = if of_job {
                &serde_json::Value::Null
            } else {
                &pod["metadata"]["name"]
            };
            json!([name, owner(pod), pod["status"]["phase"]])
        })
        .collect();
    let replica_sets: Vec<_> = items("replicasets")?
        .iter()
        .map(|set| {
            let revision = &set["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
            json!([
                set["metadata"]["name"],
                owner(set),
                set["spec"]["replicas"],
                set["status"]["readyReplicas"],
                revision
            ])
        })
        .collect();
    let revisions: Vec<_> = items("controllerrevisions")?
        .iter()
        .map(|revision| {
            json!([
                revision["metadata"]["name"],
                owner(revision),
                revision["revision"]
            ])
        })
        .collect();
    let web = get(cluster, &["deployment", "web", "-n", "trip"])?;
    let slices = items("endpointslices")?;
    let ready = slices
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .count();
    let claim = get(cluster, &["pvc", "data-database-0", "-n", "trip"])?;
    Ok(json!({
        "pods": pods,
        "replicaSets": replica_sets,
        "controllerRevisions": revisions,
        "revision": web["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "ready": web["status"]["readyReplicas"],
        "endpoints": ready,
        "claim": [claim["status"]["phase"], claim["spec"]["volumeName"]],
    }))
}

/// Also K (pods before their sets, sets before deployments; revisions are adopted though a command has a `>`), S13 without the file-system copy, S14.
#[cfg(target_os = "linux")]
async fn running_workloads() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (old, new) = (
        crate::world::node().await?,
        ark_tests::NodeCluster::start(Options::default()).await?,
    );
    run_workloads(old, data.path())?;
    let before = wait_until("all to run", Duration::from_secs(60), async || {
        let now = running(old)?;
        let pods = now["pods"].as_array().map_or(0, Vec::len);
        let sets = now["replicaSets"].as_array().cloned().unwrap_or_default();
        // Not in the middle of the roll-out.
        let rolled_out = sets.len() == 2
            && sets.iter().any(|set| set[2] == 0)
            && sets.iter().any(|set| set[2] == 2 && set[3] == 2);
        let well = pods == 5
            && rolled_out
            && now["endpoints"] == 2
            && now["revision"] == "2"
            && now["claim"][0] == "Bound"
            && !now["pods"].to_string().contains("Pending");
        ensure!(well, "{now:#}");
        Ok(Some(now))
    })
    .await?;
    let place = Place::new(old)?;
    place
        .run(&["backup", "b", "--include-namespaces", "trip"])
        .await?;
    let restored = place
        .job_at(new.kubeconfig(), &["restore", "b", "--name", "r"])
        .expect(0)
        .await?;
    ensure!(!restored.stderr.contains("level=warning"), "{restored:?}");
    wait_until("all to run again", Duration::from_secs(60), async || {
        let now = running(&new)?;
        ensure!(now == before, "{now:#}\nbefore:\n{before:#}");
        Ok(Some(()))
    })
    .await?;
    // Nothing was rolled out: that would have been a change of the deployment.
    let web = get(&new, &["deployment", "web", "-n", "trip"])?;
    ensure!(
        web["metadata"]["generation"] == 1 && web["status"]["observedGeneration"] == 1,
        "{web:#}"
    );
    // The volume is the one that was: both have written to it.
    let starts = std::fs::read_to_string(data.path().join("starts"))?;
    ensure!(starts.lines().count() == 2, "{starts}");
    old.kubectl(&["delete", "namespace", "trip", "--wait=false"])?;
    old.kubectl(&["delete", "pv", "trip", "--wait=false"])?;
    Ok(())
}
