//! Volumes, by the plugin: Jobs take snapshots with the rights and the identity that `install` gives to them, and a pod that
//! is held for it says how they are now.
//!
//! A cluster of its own, with Ark, whose pods reach moto as EC2. Nobody mounts the volumes: what a backup needs of them is
//! in their PersistentVolumes, and in EC2.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::csi::{Csi, claim};
use ark_tests::ec2::client;
use ark_tests::{Bucket, MotoServer, images, s3, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{ARK, Ark, Said, apply, bucket, kubectl};
use crate::world::{Shared, node_scenario, shared};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin_volumes::snapshots_are_listed_with_their_state_and_those_of_no_backup_too",
            listed,
        ),
        node_scenario(
            "plugin_volumes::a_backup_is_described_with_its_snapshots_and_how_they_are_now",
            described,
        ),
        node_scenario("plugin_volumes::without_ec2_the_rest_is_told", without_ec2),
        node_scenario(
            "plugin_volumes::a_disk_comes_back_by_a_job_in_another_zone",
            disk_restored,
        ),
        node_scenario(
            "plugin_volumes::pods_read_what_they_wrote_after_a_restore_by_csi_with_jobs_and_locally",
            by_csi,
        ),
    ]
}

static ARK_CLUSTER: Shared<Ark> = Shared::const_new();
static EC2: Shared<MotoServer> = Shared::const_new();
/// Whether the pods know where EC2 is.
static INSTALLED: Shared<()> = Shared::const_new();

/// The prefix in the bucket.
const PREFIX: &str = "volumes";
/// Where the volumes are.
const ZONE: &str = "us-east-1a";

/// The cluster, whose pods take moto for EC2.
async fn ark() -> Result<&'static Ark> {
    let ark = Ark::shared(&ARK_CLUSTER, PREFIX).await?;
    let installing = async {
        let endpoint = ark.cluster.expose(ec2().await?.url())?;
        let flags = format!("--env AWS_ENDPOINT_URL_EC2={endpoint} --env AWS_REGION=us-east-1");
        ark.install(&flags).await.map(drop)
    };
    shared(&INSTALLED, Box::pin(installing)).await?;
    Ok(ark)
}

async fn ec2() -> Result<&'static MotoServer> {
    shared(&EC2, Box::pin(MotoServer::start())).await
}

/// A volume in EC2 and, in a namespace of this name, a claim that is bound to it; both objects have the name, too.
async fn volume(ark: &Ark, name: &str) -> Result<String> {
    let made = client(ec2().await?.url())
        .create_volume()
        .availability_zone(ZONE)
        .size(8)
        .volume_type(aws_sdk_ec2::types::VolumeType::Gp3)
        .send()
        .await?;
    let id = made.volume_id().context("it has an id")?.to_owned();
    kubectl(&ark.cluster, &format!("create namespace {name}"))?;
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": {
            "capacity": { "storage": "8Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": { "namespace": name, "name": name },
            "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": id },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": [ZONE] }] }] } },
        } },
        { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": name }, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name,
            "resources": { "requests": { "storage": "8Gi" } },
        } },
    ] });
    apply(&ark.cluster, &objects)?;
    let bound = "--for=jsonpath={.status.phase}=Bound --timeout=60s";
    kubectl(&ark.cluster, &format!("wait pvc/{name} -n {name} {bound}"))?;
    Ok(id)
}

/// Backs the namespace up under its name; gives the id of the snapshot.
async fn snapshotted(ark: &Ark, name: &str) -> Result<String> {
    let line =
        format!("backup create {name} --include-namespaces {name} --snapshot-volumes=true --wait");
    nothing_was_amiss(&ark.expect(0, &line).await?)?;
    let backup = ark.get(&format!("backups.ark.heptio.com {name}"))?;
    let status = &backup["status"];
    ensure!(
        status["volumes"] == json!({"snapshotted": 1, "skipped": 0, "missing": 0}),
        "{status}"
    );
    let id = status["volumeBackups"][name]["snapshotID"].as_str();
    Ok(id.context("it names no snapshot")?.to_owned())
}

/// It had every right that it needed.
fn nothing_was_amiss(said: &Said) -> Result<()> {
    for text in ["forbidden", "cannot", "warning", "error"] {
        ensure!(!said.stderr.contains(text), "{text}: {said:?}");
    }
    Ok(())
}

/// Nothing is left of the pods that were held, once the scenarios beside this one have let go of theirs.
async fn nothing_is_left(ark: &Ark) -> Result<()> {
    let jobs = format!("get jobs -l ark.heptio.com/operation=volumes -o name -n {ARK}");
    wait_until("the Jobs to go", Duration::from_secs(60), async || {
        Ok(kubectl(&ark.cluster, &jobs)?.is_empty().then_some(()))
    })
    .await
}

fn rows(said: &Said) -> Result<Vec<Value>> {
    let lines = said.stdout.lines();
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .filter_map(|row| row["snapshot"].as_str())
        .collect()
}

/// Loses all that is stored of a backup, and leaves its snapshot.
async fn lose(bucket: &Bucket, backup: &str) -> Result<()> {
    for key in bucket.keys(&format!("{PREFIX}/backups/{backup}/")).await? {
        bucket.delete(&key).await?;
    }
    Ok(())
}

async fn listed() -> Result<()> {
    let ark = ark().await?;
    for name in ["listed", "lost"] {
        volume(ark, name).await?;
    }
    let kept = snapshotted(ark, "listed").await?;
    let orphan = snapshotted(ark, "lost").await?;
    lose(&bucket().await?, "lost").await?;

    // For people: one line each.
    let table = ark.expect(0, "volumes").await?;
    nothing_was_amiss(&table)?;
    let line = |id: &str| {
        let found = table.stdout.lines().find(|line| line.contains(id));
        found.with_context(|| format!("{id} is not in: {table:?}"))
    };
    for text in ["listed", "completed"] {
        ensure!(line(&kept)?.contains(text), "{text}: {table:?}");
    }
    line(&orphan)?;

    // For programs; of one backup, and of none.
    let all = rows(&ark.expect(0, "volumes -o json").await?)?;
    let ids_of_all = ids(&all);
    ensure!(
        ids_of_all.contains(&&*kept) && ids_of_all.contains(&&*orphan),
        "{all:?}"
    );
    let one = rows(&ark.expect(0, "volumes listed -o json").await?)?;
    ensure!(ids(&one) == [&*kept], "{one:?}");
    ensure!(
        one[0]["backup"] == "listed" && one[0]["state"] == "completed",
        "{one:?}"
    );
    let mut orphans = rows(&ark.expect(0, "volumes --orphans -o json").await?)?;
    // A backup beside this one may be at work, whose snapshot no marker names yet.
    orphans.retain(|row| row["of"] == "lost");
    ensure!(ids(&orphans) == [&*orphan], "{orphans:?}");

    // It was lost outside of us: the snapshot, and not only what is recorded of it, is what is looked at.
    let cloud = client(ec2().await?.url());
    cloud.delete_snapshot().snapshot_id(&kept).send().await?;
    let gone = ark.expect(0, "volumes listed -o json").await?;
    let state = &rows(&gone)?[0]["state"];
    ensure!(*state != "completed", "{gone:?}");
    ark.expect(10, "volumes nothing")
        .await?
        .explains_error(&["nothing"])?;
    nothing_is_left(ark).await
}

async fn described() -> Result<()> {
    let ark = ark().await?;
    volume(ark, "described").await?;
    let id = snapshotted(ark, "described").await?;

    let short = ark.expect(0, "describe backup described").await?;
    for text in [
        "Volumes:            1 with a snapshot\n",
        &id,
        "8.00 GiB",
        "gp3",
        ZONE,
        "kubectl ark volumes described",
    ] {
        ensure!(short.stdout.contains(text), "{text:?}: {}", short.stdout);
    }
    ensure!(!short.stdout.contains("Snapshots now"), "{short:?}");

    for line in [
        "describe backup described --details",
        "describe backup described --details --location default",
    ] {
        let long = ark.expect(0, line).await?;
        nothing_was_amiss(&long)?;
        let states = long
            .stdout
            .split("Snapshots now (1 snapshot):\n")
            .nth(1)
            .with_context(|| format!("{long:?}"))?;
        let state = states.lines().find(|line| line.contains(&id));
        ensure!(
            state.is_some_and(|line| line.contains("completed")),
            "{long:?}"
        );
        ensure!(long.stdout.contains("Resource list:"), "{long:?}");
    }
    let wide = ark.expect(0, "get backups described -o wide").await?;
    ensure!(wide.stdout.contains("   1/1   "), "{wide:?}");
    nothing_is_left(ark).await
}

/// With `--local` nobody asks EC2: what is recorded is told, and that the state is not known.
async fn without_ec2() -> Result<()> {
    let ark = ark().await?;
    volume(ark, "recorded").await?;
    let id = snapshotted(ark, "recorded").await?;
    let endpoint = ark.cluster.expose(crate::world::s3().await?.url())?;
    let storage = crate::plugin::storage(PREFIX, &endpoint);
    let mut command = ark.command(&format!(
        "volumes recorded --local --storage {storage} -o json"
    ))?;
    command.envs(s3::environment());
    let said = crate::plugin::run(Ok(command)).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let rows = rows(&said)?;
    ensure!(
        ids(&rows) == [&*id] && rows[0]["state"] == "unknown",
        "{said:?}"
    );

    // Nor is a snapshot taken: that is a warning, unless it was asked for.
    let home = tempfile::tempdir()?;
    let create = "backup create unsaved --include-namespaces recorded";
    let said = locally(ark, home.path(), create).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let log = locally(ark, home.path(), "backup logs unsaved").await?;
    for text in [
        "persistentvolumes recorded (claim recorded/recorded) has no snapshot",
        "volumes of EBS cannot be reached with --local",
    ] {
        ensure!(log.stdout.contains(text), "{text}: {log:?}");
    }
    let described = locally(ark, home.path(), "backup describe unsaved").await?;
    ensure!(
        described.stdout.contains("1 without a snapshot"),
        "{described:?}"
    );
    let create = "backup create asked --include-namespaces recorded --snapshot-volumes";
    let said = locally(ark, home.path(), create).await?;
    ensure!(said.code == Some(3), "{said:?}");
    Ok(())
}

/// Runs the plugin in this process's place, into a directory under `home`.
async fn locally(ark: &Ark, home: &Path, line: &str) -> Result<Said> {
    let mut command = ark.command(line)?;
    command.env("HOME", home).arg("--local");
    crate::plugin::run(Ok(command)).await
}

async fn disk_restored() -> Result<()> {
    let ark = ark().await?;
    let name = "disk-restored";
    let old = volume(ark, name).await?;
    let snapshot = snapshotted(ark, name).await?;
    for object in [format!("namespace {name}"), format!("pv {name}")] {
        kubectl(&ark.cluster, &format!("delete {object} --timeout=90s"))?;
    }
    let cloud = client(ec2().await?.url());
    cloud.delete_volume().volume_id(&old).send().await?;

    let line = format!("restore create {name} --zone-mappings {ZONE}:us-east-1b --wait");
    nothing_was_amiss(&ark.expect(0, &line).await?)?;
    let bound = "--for=jsonpath={.status.phase}=Bound --timeout=60s";
    kubectl(&ark.cluster, &format!("wait pvc/{name} -n {name} {bound}"))?;
    let volume = ark.get(&format!("pv {name}"))?;
    let id = volume["spec"]["csi"]["volumeHandle"].as_str();
    let id = id.context("it has a handle")?;
    ensure!(id != old, "{volume}");
    let found = cloud.describe_volumes().volume_ids(id).send().await?;
    let made = found.volumes().first().context("it exists")?;
    assert_eq!(
        (made.snapshot_id(), made.availability_zone(), made.size()),
        (Some(&*snapshot), Some("us-east-1b"), Some(8))
    );
    Ok(())
}

/// What is in the file that the pod has on its volume.
fn file(ark: &Ark, namespace: &str) -> Result<String> {
    let ready = "wait pod/writer --for=condition=Ready --timeout=120s";
    kubectl(&ark.cluster, &format!("{ready} -n {namespace}"))?;
    let read = format!("exec -n {namespace} writer -- /bin/cat /data/file");
    kubectl(&ark.cluster, &read)
}

fn write(ark: &Ark, namespace: &str, text: &str) -> Result<()> {
    let command = format!("echo {text} > /data/file && sync");
    let exec = ["exec", "-n", namespace, "writer", "--", "/bin/sh", "-c"];
    ark.cluster
        .kubectl(&[&exec[..], &[command.as_str()]].concat())?;
    Ok(())
}

/// Two volumes of a pod with hooks, as a group, and one of nobody: all that `install` gives rights for.
async fn by_csi() -> Result<()> {
    let ark = ark().await?;
    let cluster = &ark.cluster;
    let storage = tempfile::tempdir()?;
    let csi = Csi::start(cluster, storage.path()).await?;
    ark.install("--hooks").await?;
    kubectl(cluster, "create namespace by-csi")?;
    let volume =
        |name: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
    let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
    let hook = |phase: &str| format!("{phase}.hook.backup.ark.heptio.com/command");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "writer", "annotations": { hook("pre"): "true", hook("post"): "true" } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "writer", "image": images::BUSYBOX, "command": ["/bin/sleep", "3600"],
                "volumeMounts": [mount("data"), mount("log")] }],
            "volumes": [volume("data"), volume("log")],
        },
    });
    // Groups are chosen by a label that nothing else has.
    let mut objects: Vec<Value> = ["data", "log", "spare"].map(claim).into();
    for claim in &mut objects[..2] {
        claim["metadata"]["labels"] = json!({ "app": "writer" });
    }
    objects.push(pod);
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    cluster.kubectl_with_input(&["apply", "-n", "by-csi", "-f", "-"], &list.to_string())?;
    let bound = "pvc --all --for=jsonpath={.status.phase}=Bound";
    let ready = "pod/writer --for=condition=Ready";
    for what in [bound, ready] {
        kubectl(cluster, &format!("wait -n by-csi {what} --timeout=90s"))?;
    }
    write(ark, "by-csi", "old")?;

    let line = "backup create by-csi --include-namespaces by-csi --snapshot-volumes=true --wait";
    // It is warned of what Velero would do with them.
    let made = ark.expect(0, line).await?;
    ensure!(!made.stderr.contains("forbidden"), "{made:?}");
    let snapshots = csi.snapshots()?;
    let grouped = snapshots.iter().filter(|one| one.group.is_some()).count();
    ensure!((snapshots.len(), grouped) == (3, 2), "{snapshots:?}");
    for types in [
        "volumesnapshots",
        "volumesnapshotcontents",
        "volumegroupsnapshotcontents",
    ] {
        let left = kubectl(cluster, &format!("get {types} -A -o name"))?;
        ensure!(left.is_empty(), "{left}");
    }
    let listed = rows(&ark.expect(0, "volumes by-csi -o json").await?)?;
    let mut handles = ids(&listed);
    handles.sort_unstable();
    let expected: Vec<&str> = snapshots.iter().map(|one| one.id.as_str()).collect();
    ensure!(handles == expected, "{listed:?}");

    // The data outlives the namespace,
    write(ark, "by-csi", "new")?;
    kubectl(cluster, "delete namespace by-csi --timeout=90s")?;
    let kept = csi.snapshots()?;
    ensure!(kept.len() == 3, "{kept:?}");
    // comes back with it,
    let line = "restore create by-csi --wait";
    let restored = ark.expect(0, line).await?;
    ensure!(!restored.stderr.contains("forbidden"), "{restored:?}");
    assert_eq!(file(ark, "by-csi")?.trim(), "old");
    ensure!(csi.snapshots()?.len() == 3);

    // also without Jobs, beside the original,
    let home = tempfile::tempdir()?;
    write(ark, "by-csi", "newer")?;
    for line in [
        "backup create locally --include-namespaces by-csi --snapshot-volumes=true",
        "restore create locally --namespace-mappings by-csi:by-csi-copy",
    ] {
        let said = locally(ark, home.path(), line).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
    }
    assert_eq!(file(ark, "by-csi-copy")?.trim(), "newer");
    ensure!(csi.snapshots()?.len() == 6);
    let deleted = locally(ark, home.path(), "backup delete locally --yes").await?;
    ensure!(deleted.code == Some(0), "{deleted:?}");
    ensure!(csi.snapshots()?.len() == 3);

    // and goes with the backup.
    nothing_was_amiss(&ark.expect(0, "backup delete by-csi --yes").await?)?;
    let left = csi.snapshots()?;
    ensure!(left.is_empty(), "{left:?}");
    csi.check()
}
