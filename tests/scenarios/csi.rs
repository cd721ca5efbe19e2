//! The parts of CSI themselves, before anything of ours uses them: what is written is snapshotted, mounted, shared by
//! clusters and deleted, and the driver fails and delays as told.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::csi::{self, Behaviour, Csi, claim, claim_from, volume_snapshot};
use ark_tests::{ControlPlane, Options, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{self, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "csi::a_cluster_without_a_node_has_volumes_and_snapshots",
            a_cluster_without_a_node_has_volumes_and_snapshots,
        ),
        scenario(
            "csi::the_driver_fails_and_delays_as_told",
            the_driver_fails_and_delays_as_told,
        ),
        scenario(
            "csi::a_snapshot_made_with_a_secret_is_deleted_only_with_it",
            a_snapshot_made_with_a_secret_is_deleted_only_with_it,
        ),
        scenario(
            "csi::an_unbound_content_deletes_its_snapshot_only_with_the_finalizer",
            an_unbound_content_deletes_its_snapshot_only_with_the_finalizer,
        ),
        scenario(
            "csi::a_group_is_snapshotted_and_deleted_as_one",
            a_group_is_snapshotted_and_deleted_as_one,
        ),
        scenario(
            "csi::a_second_cluster_restores_a_snapshot_by_its_handle",
            a_second_cluster_restores_a_snapshot_by_its_handle,
        ),
        #[cfg(target_os = "linux")]
        crate::world::node_scenario(
            "csi::a_pod_reads_what_its_claim_held_when_the_snapshot_was_made",
            a_pod_reads_what_its_claim_held_when_the_snapshot_was_made,
        ),
    ]
}

/// How long anything may take here, in kubectl's words.
const TIMEOUT: &str = "--timeout=60s";

const READY: &str = "--for=jsonpath={.status.readyToUse}=true";

fn create(cluster: &ControlPlane, namespace: &str, objects: &[Value]) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster.kubectl_with_input(&["create", "-n", namespace, "-f", "-"], &list.to_string())?;
    Ok(())
}

fn wait(cluster: &ControlPlane, namespace: &str, what: &str, condition: &str) -> Result<()> {
    cluster.kubectl(&["wait", "-n", namespace, what, condition, TIMEOUT])?;
    Ok(())
}

fn get(cluster: &ControlPlane, namespace: &str, what: &str, path: &str) -> Result<String> {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["get", "-n", namespace, what, "-o", &path])
}

/// Waits until the claim is bound, and gives its volume.
fn bound(cluster: &ControlPlane, csi: &Csi, namespace: &str, name: &str) -> Result<csi::Volume> {
    let claim = format!("pvc/{name}");
    wait(
        cluster,
        namespace,
        &claim,
        "--for=jsonpath={.status.phase}=Bound",
    )?;
    let volume = get(cluster, namespace, &claim, ".spec.volumeName")?;
    let found = csi.volume(&volume)?;
    found.with_context(|| format!("{volume} is bound and does not exist"))
}

/// The handle that a VolumeSnapshot's content has, or nothing as long as it has none.
fn handle(cluster: &ControlPlane, namespace: &str, snapshot: &str) -> Result<String> {
    let snapshot = format!("volumesnapshot/{snapshot}");
    let path = ".status.boundVolumeSnapshotContentName";
    let content = get(cluster, namespace, &snapshot, path)?;
    if content.is_empty() {
        return Ok(content);
    }
    let content = format!("volumesnapshotcontent/{content}");
    get(cluster, namespace, &content, ".status.snapshotHandle")
}

async fn wait_for_snapshots(csi: &Csi, volume: &csi::Volume, number: usize) -> Result<()> {
    let what = format!("{} to have {number} snapshots", volume.id);
    wait_until(&what, Duration::from_secs(30), async || {
        Ok((csi.snapshots_of(&volume.id)?.len() == number).then_some(()))
    })
    .await
}

async fn a_cluster_without_a_node_has_volumes_and_snapshots() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-no-node";
    cluster.kubectl(&["create", "namespace", namespace])?;
    create(cluster, namespace, &[claim("data")])?;
    let volume = bound(cluster, csi, namespace, "data")?;
    ensure!(volume.capacity == 1 << 30, "{volume:?}");
    fs::write(volume.data.join("file"), "old")?;

    create(
        cluster,
        namespace,
        &[volume_snapshot("first", "data", csi::SNAPSHOT_CLASS)],
    )?;
    wait(cluster, namespace, "volumesnapshot/first", READY)?;
    let snapshots = csi.snapshots_of(&volume.id)?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    let handle = handle(cluster, namespace, "first")?;
    ensure!(handle == snapshots[0].id);
    fs::write(volume.data.join("file"), "new")?;
    ensure!(fs::read_to_string(snapshots[0].data.join("file"))? == "old");

    create(cluster, namespace, &[claim_from("restored", "first")])?;
    let restored = bound(cluster, csi, namespace, "restored")?;
    ensure!(restored.source.as_ref() == Some(&handle));
    ensure!(fs::read_to_string(restored.data.join("file"))? == "old");

    // Smaller than what it restores: refused.
    let mut small = claim_from("small", "first");
    small["spec"]["resources"]["requests"]["storage"] = "1Mi".into();
    create(cluster, namespace, &[small])?;
    wait_until("a refusal", Duration::from_secs(30), async || {
        let events = cluster.kubectl(&[
            "get",
            "events",
            "-n",
            namespace,
            "--field-selector=involvedObject.name=small,reason=ProvisioningFailed",
            "-o",
            "jsonpath={.items[*].message}",
        ])?;
        Ok(events.contains("is less than the size").then_some(()))
    })
    .await?;
    // While a claim waits for it, a snapshot is not deleted.
    cluster.kubectl(&["delete", "pvc", "-n", namespace, "small", TIMEOUT])?;

    let snapshot = "volumesnapshot/first";
    cluster.kubectl(&["delete", "-n", namespace, snapshot, TIMEOUT])?;
    wait_for_snapshots(csi, &volume, 0).await?;
    cluster.kubectl(&["delete", "pvc", "-n", namespace, "--all", TIMEOUT])?;
    wait_until("the volumes to go", Duration::from_secs(30), async || {
        let gone = csi.volume(&volume.name)?.is_none() && csi.volume(&restored.name)?.is_none();
        Ok(gone.then_some(()))
    })
    .await
}

async fn the_driver_fails_and_delays_as_told() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-behaviour";
    cluster.kubectl(&["create", "namespace", namespace])?;
    csi.behave_as(
        namespace,
        &Behaviour {
            fail_create_snapshot: Some("no space for snapshots".into()),
            ..Behaviour::default()
        },
    )?;
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": { "name": namespace }, "driver": csi::DRIVER, "deletionPolicy": "Delete",
        "parameters": { "behaviour": namespace },
    });
    create(cluster, namespace, &[class, claim("data")])?;
    let volume = bound(cluster, csi, namespace, "data")?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("snapshot", "data", namespace)],
    )?;
    let status = |path: &str| get(cluster, namespace, "volumesnapshot/snapshot", path);
    wait_until("the error", Duration::from_secs(30), async || {
        let message = status(".status.error.message")?;
        Ok(message.contains("no space for snapshots").then_some(()))
    })
    .await?;
    ensure!(csi.snapshots_of(&volume.id)?.is_empty());

    csi.behave_as(
        namespace,
        &Behaviour {
            snapshots_pending: true,
            fail_delete_snapshot: Some("in use elsewhere".into()),
            ..Behaviour::default()
        },
    )?;
    wait_until("the handle", Duration::from_secs(30), async || {
        Ok((!handle(cluster, namespace, "snapshot")?.is_empty()).then_some(()))
    })
    .await?;
    let pending = "--for=jsonpath={.status.readyToUse}=false";
    wait(cluster, namespace, "volumesnapshot/snapshot", pending)?;
    wait_for_snapshots(csi, &volume, 1).await?;

    cluster.kubectl(&[
        "delete",
        "-n",
        namespace,
        "volumesnapshot/snapshot",
        "--wait=false",
    ])?;
    wait_until(
        "the deletion to fail",
        Duration::from_secs(30),
        async || {
            let log = fs::read_to_string(csi.driver.log())?;
            Ok(log.contains("in use elsewhere").then_some(()))
        },
    )
    .await?;
    wait_for_snapshots(csi, &volume, 1).await?;
    csi.behave_as(namespace, &Behaviour::default())?;
    wait_for_snapshots(csi, &volume, 0).await?;

    // The handle comes late, though the snapshot is there.
    let behaviour = Behaviour {
        answer_create_snapshot_after: Duration::from_secs(3600),
        ..Behaviour::default()
    };
    csi.behave_as(namespace, &behaviour)?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("late", "data", namespace)],
    )?;
    wait_for_snapshots(csi, &volume, 1).await?;
    ensure!(handle(cluster, namespace, "late")?.is_empty());
    csi.behave_as(namespace, &Behaviour::default())?;
    wait(cluster, namespace, "volumesnapshot/late", READY)?;
    ensure!(handle(cluster, namespace, "late")? == csi.snapshots_of(&volume.id)?[0].id);
    Ok(())
}

async fn a_snapshot_made_with_a_secret_is_deleted_only_with_it() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-secret";
    cluster.kubectl(&["create", "namespace", namespace])?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "storage" }, "stringData": { "key": "k" },
    });
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": { "name": namespace }, "driver": csi::DRIVER, "deletionPolicy": "Delete",
        "parameters": {
            "csi.storage.k8s.io/snapshotter-secret-name": "storage",
            "csi.storage.k8s.io/snapshotter-secret-namespace": namespace,
        },
    });
    create(cluster, namespace, &[secret, class, claim("data")])?;
    let volume = bound(cluster, csi, namespace, "data")?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("snapshot", "data", namespace)],
    )?;
    wait(cluster, namespace, "volumesnapshot/snapshot", READY)?;
    let snapshots = csi.snapshots_of(&volume.id)?;

    // A content for the same handle that does not say the secret: the driver refuses.
    let content = existing(
        "no-secret",
        &snapshots[0].id,
        "Delete",
        namespace,
        "no-secret",
    );
    create(cluster, namespace, &[content])?;
    let content = "volumesnapshotcontent/no-secret";
    wait(cluster, namespace, content, READY)?;
    cluster.kubectl(&["delete", content, "--wait=false"])?;
    wait_until(
        "the driver to refuse",
        Duration::from_secs(30),
        async || {
            let log = fs::read_to_string(csi.driver.log())?;
            let refusal = format!("snapshot {} was made with other secrets", snapshots[0].id);
            Ok(log.contains(&refusal).then_some(()))
        },
    )
    .await?;
    ensure!(csi.snapshots_of(&volume.id)?.len() == 1);

    // The content that was made with it has it in annotations.
    let snapshot = "volumesnapshot/snapshot";
    cluster.kubectl(&["delete", "-n", namespace, snapshot, TIMEOUT])?;
    wait_for_snapshots(csi, &volume, 0).await?;
    // What is gone is as good as deleted.
    cluster.kubectl(&[
        "wait",
        "--for=delete",
        "volumesnapshotcontent/no-secret",
        TIMEOUT,
    ])?;
    Ok(())
}

/// A content for a snapshot that exists, for a VolumeSnapshot that may or may not come.
///
/// It has the finalizer from the start: the snapshot controller gives it to contents that are bound only, and one
/// without would go at once, and never be deleted by the sidecar.
fn existing(name: &str, handle: &str, policy: &str, namespace: &str, snapshot: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": name,
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
        },
        "spec": {
            "driver": csi::DRIVER, "deletionPolicy": policy, "source": { "snapshotHandle": handle },
            "volumeSnapshotRef": { "namespace": namespace, "name": snapshot },
        },
    })
}

async fn an_unbound_content_deletes_its_snapshot_only_with_the_finalizer() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-unbound";
    cluster.kubectl(&["create", "namespace", namespace])?;
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": { "name": namespace }, "driver": csi::DRIVER, "deletionPolicy": "Retain",
    });
    create(cluster, namespace, &[class, claim("data")])?;
    let volume = bound(cluster, csi, namespace, "data")?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("snapshot", "data", namespace)],
    )?;
    wait(cluster, namespace, "volumesnapshot/snapshot", READY)?;
    // Retained: nothing of it is left in the cluster, nor lost in the storage.
    let content = get(
        cluster,
        namespace,
        "volumesnapshot/snapshot",
        ".status.boundVolumeSnapshotContentName",
    )?;
    cluster.kubectl(&["delete", "namespace", namespace, TIMEOUT])?;
    cluster.kubectl(&["delete", "volumesnapshotcontent", &content, TIMEOUT])?;
    let handle = csi.snapshots_of(&volume.id)?[0].id.clone();

    let delete = |finalizers: bool| -> Result<()> {
        let mut content = existing(namespace, &handle, "Delete", namespace, "none");
        if !finalizers {
            content["metadata"]["finalizers"] = json!([]);
        }
        create(cluster, "default", &[content])?;
        let content = format!("volumesnapshotcontent/{namespace}");
        wait(cluster, "default", &content, READY)?;
        cluster.kubectl(&["delete", &content, TIMEOUT])?;
        Ok(())
    };
    delete(false)?;
    ensure!(csi.snapshots_of(&volume.id)?.len() == 1);
    delete(true)?;
    ensure!(csi.snapshots_of(&volume.id)?.is_empty());
    Ok(())
}

async fn a_group_is_snapshotted_and_deleted_as_one() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-group";
    cluster.kubectl(&["create", "namespace", namespace])?;
    let labelled = |name: &str| {
        let mut claim = claim(name);
        claim["metadata"]["labels"] = json!({ "app": "database" });
        claim
    };
    create(cluster, namespace, &[labelled("data"), labelled("log")])?;
    let data = bound(cluster, csi, namespace, "data")?;
    let log = bound(cluster, csi, namespace, "log")?;
    fs::write(data.data.join("file"), "data")?;
    fs::write(log.data.join("file"), "log")?;
    let snapshots = async |name: &str| -> Result<(csi::Snapshot, csi::Snapshot)> {
        let group = json!({
            "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot",
            "metadata": { "name": name },
            "spec": {
                "volumeGroupSnapshotClassName": csi::GROUP_SNAPSHOT_CLASS,
                "source": { "selector": { "matchLabels": { "app": "database" } } },
            },
        });
        create(cluster, namespace, &[group])?;
        let group = format!("volumegroupsnapshot/{name}");
        wait(cluster, namespace, &group, READY)?;
        let (of_data, of_log) = (csi.snapshots_of(&data.id)?, csi.snapshots_of(&log.id)?);
        ensure!(of_data.len() == 1 && of_log.len() == 1);
        ensure!(of_data[0].group.is_some() && of_data[0].group == of_log[0].group);
        Ok((of_data[0].clone(), of_log[0].clone()))
    };
    let (of_data, of_log) = snapshots("first").await?;
    ensure!(fs::read_to_string(of_data.data.join("file"))? == "data");
    ensure!(fs::read_to_string(of_log.data.join("file"))? == "log");
    let first = "volumegroupsnapshot/first";
    cluster.kubectl(&["delete", "-n", namespace, first, TIMEOUT])?;
    wait_for_snapshots(csi, &data, 0).await?;
    wait_for_snapshots(csi, &log, 0).await?;

    // Retained, and deleted by its handles.
    let (of_data, of_log) = snapshots("second").await?;
    let second = "volumegroupsnapshot/second";
    let path = ".status.boundVolumeGroupSnapshotContentName";
    let content = get(cluster, namespace, second, path)?;
    let content = format!("volumegroupsnapshotcontent/{content}");
    let retain = r#"{"spec":{"deletionPolicy":"Retain"}}"#;
    cluster.kubectl(&["patch", &content, "--type=merge", "-p", retain])?;
    cluster.kubectl(&["delete", "-n", namespace, second, TIMEOUT])?;
    cluster.kubectl(&["delete", &content, TIMEOUT])?;
    ensure!(csi.snapshots_of(&data.id)?.len() == 1 && csi.snapshots_of(&log.id)?.len() == 1);

    // One of them alone: the sidecar lets the content go, and leaves what is part of a group to the group.
    let alone = existing("csi-group", &of_log.id, "Delete", namespace, "alone");
    create(cluster, namespace, &[alone])?;
    let alone = "volumesnapshotcontent/csi-group";
    wait(cluster, namespace, alone, READY)?;
    cluster.kubectl(&["delete", alone, TIMEOUT])?;
    ensure!(csi.snapshots_of(&log.id)?.len() == 1);

    let group = json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshotContent",
        "metadata": {
            "name": "csi-group",
            "finalizers": ["groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"],
        },
        "spec": {
            "driver": csi::DRIVER, "deletionPolicy": "Delete",
            "source": { "groupSnapshotHandles": {
                "volumeGroupSnapshotHandle": of_log.group,
                "volumeSnapshotHandles": [of_data.id, of_log.id],
            } },
            "volumeGroupSnapshotRef": { "namespace": namespace, "name": "none" },
        },
    });
    create(cluster, namespace, &[group])?;
    let group = "volumegroupsnapshotcontent/csi-group";
    wait(cluster, namespace, group, READY)?;
    cluster.kubectl(&["delete", group, TIMEOUT])?;
    ensure!(csi.snapshots_of(&data.id)?.is_empty() && csi.snapshots_of(&log.id)?.is_empty());
    Ok(())
}

async fn a_second_cluster_restores_a_snapshot_by_its_handle() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::csi().await?;
    let namespace = "csi-shared";
    cluster.kubectl(&["create", "namespace", namespace])?;
    create(cluster, namespace, &[claim("data")])?;
    let volume = bound(cluster, csi, namespace, "data")?;
    fs::write(volume.data.join("file"), "moved")?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("snapshot", "data", csi::SNAPSHOT_CLASS)],
    )?;
    wait(cluster, namespace, "volumesnapshot/snapshot", READY)?;
    let handle = csi.snapshots_of(&volume.id)?[0].id.clone();

    let options = Options {
        controller_manager: true,
        ..Options::default()
    };
    let second = ControlPlane::start(options).await?;
    let only_single = csi::Options {
        group_snapshots: false,
        ..csi::Options::default()
    };
    let seen = Csi::start_without_node(&second, csi.storage(), &only_single).await?;
    let classes = second.kubectl(&["get", "volumegroupsnapshotclasses", "-o", "name"])?;
    ensure!(classes.is_empty(), "{classes}");
    second.kubectl(&["create", "namespace", "copy"])?;
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": "old" },
        "spec": { "source": { "volumeSnapshotContentName": "old" } },
    });
    create(
        &second,
        "copy",
        &[
            existing("old", &handle, "Retain", "copy", "old"),
            snapshot,
            claim_from("data", "old"),
        ],
    )?;
    let copy = bound(&second, &seen, "copy", "data")?;
    ensure!(copy.source == Some(handle));
    ensure!(fs::read_to_string(copy.data.join("file"))? == "moved");

    // Retained: the snapshot stays when the second cluster lets go of it.
    second.kubectl(&["delete", "-n", "copy", "volumesnapshot/old", TIMEOUT])?;
    second.kubectl(&["delete", "volumesnapshotcontent/old", TIMEOUT])?;
    wait_for_snapshots(csi, &volume, 1).await
}

#[cfg(target_os = "linux")]
async fn a_pod_reads_what_its_claim_held_when_the_snapshot_was_made() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::node_csi().await?;
    let namespace = "csi-pods";
    let pod = |name: &str, claim: &str, script: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }],
                "containers": [{
                    "name": "main", "image": ark_tests::images::BUSYBOX, "command": ["sh", "-c", script],
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
            },
        })
    };
    cluster.kubectl(&["create", "namespace", namespace])?;
    let writer = pod("writer", "data", "echo old > /data/file && sleep 600");
    create(cluster, namespace, &[claim("data"), writer])?;
    wait(cluster, namespace, "pod/writer", "--for=condition=Ready")?;
    let volume = bound(cluster, csi, namespace, "data")?;
    wait_until("the file", Duration::from_secs(10), async || {
        Ok((fs::read_to_string(volume.data.join("file"))? == "old\n").then_some(()))
    })
    .await?;
    create(
        cluster,
        namespace,
        &[volume_snapshot("snapshot", "data", csi::SNAPSHOT_CLASS)],
    )?;
    wait(cluster, namespace, "volumesnapshot/snapshot", READY)?;
    let change = "echo new > /data/file";
    cluster.kubectl(&["exec", "-n", namespace, "writer", "--", "sh", "-c", change])?;
    ensure!(fs::read_to_string(volume.data.join("file"))? == "new\n");

    let reader = pod("reader", "restored", "cat /data/file");
    create(
        cluster,
        namespace,
        &[claim_from("restored", "snapshot"), reader],
    )?;
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    wait(cluster, namespace, "pod/reader", ended)?;
    let read = cluster.kubectl(&["logs", "-n", namespace, "reader"])?;
    ensure!(read == "old\n", "{read}");

    // With the class's policy Delete, the snapshot goes with its VolumeSnapshot.
    ensure!(csi.snapshots_of(&volume.id)?.len() == 1);
    let snapshot = "volumesnapshot/snapshot";
    cluster.kubectl(&["delete", "-n", namespace, snapshot, TIMEOUT])?;
    wait_for_snapshots(csi, &volume, 0).await?;
    // And with the namespace everything else, once the pods' mounts are gone.
    let restored = bound(cluster, csi, namespace, "restored")?;
    cluster.kubectl(&["delete", "namespace", namespace, "--timeout=90s"])?;
    wait_until("the volumes to go", Duration::from_secs(30), async || {
        let gone = csi.volume(&volume.name)?.is_none() && csi.volume(&restored.name)?.is_none();
        Ok(gone.then_some(()))
    })
    .await
}
