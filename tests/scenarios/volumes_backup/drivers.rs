//! Backups whose volumes CSI drivers snapshot, on the real controllers and a driver whose snapshots are directories.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::csi::{self, Behaviour, Csi, claim, volume_snapshot};
use ark_tests::job::ArkJob;
use ark_tests::{ControlPlane, FaultProxy, Gate, Rule, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{is_marker, says};
use crate::backup::read;
use crate::world::{self, World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "volumes_backup::a_driver_keeps_the_data_and_nothing_else_is_left_in_the_cluster",
            whole,
        ),
        scenario(
            "volumes_backup::a_driver_that_fails_or_is_slow_is_an_error_that_names_the_volume",
            failures,
        ),
        #[cfg(target_os = "linux")]
        world::node_scenario(
            "volumes_backup::volumes_of_a_frozen_pod_are_taken_as_a_group_or_one_after_the_other",
            groups,
        ),
    ]
}

const SNAPSHOTS: &str = "volumesnapshots.snapshot.storage.k8s.io";
const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
const CLASS_ANNOTATION: &str = "ark.heptio.com/csi-volumesnapshot-class";

fn create(cluster: &ControlPlane, object: &Value) -> Result<()> {
    let arguments = ["create", "-f", "-"];
    cluster.kubectl_with_input(&arguments, &object.to_string())?;
    Ok(())
}

/// The volume that a claim is bound to.
fn bound(cluster: &ControlPlane, csi: &Csi, namespace: &str, claim: &str) -> Result<csi::Volume> {
    let claim = format!("pvc/{claim}");
    let phase = "--for=jsonpath={.status.phase}=Bound";
    cluster.kubectl(&["wait", "-n", namespace, &claim, phase, "--timeout=60s"])?;
    let path = "jsonpath={.spec.volumeName}";
    let name = cluster.kubectl(&["get", "-n", namespace, &claim, "-o", path])?;
    csi.volume(&name)?
        .with_context(|| format!("{name} is bound and does not exist"))
}

/// A namespace of the cluster that has CSI, and a class whose behaviour has its name.
struct Place {
    world: World,
    csi: &'static Csi,
    namespace: String,
    proxy: FaultProxy,
}

impl Place {
    async fn new(hint: &str) -> Result<Place> {
        let world::WithCsi { csi, cluster } = world::csi().await?;
        let world = World::on(cluster, hint).await?;
        let namespace = world.namespace("app").await?;
        let class = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": { "name": namespace }, "driver": csi::DRIVER, "deletionPolicy": "Delete",
            "parameters": { "behaviour": namespace },
        });
        create(cluster, &class)?;
        Ok(Place {
            proxy: FaultProxy::start(world.s3.url()).await?,
            csi,
            namespace,
            world,
        })
    }

    /// A claim whose snapshots are of the class of this place or, if not, the driver's default; with a file in it.
    fn claim(&self, name: &str, of_this_class: bool) -> Result<csi::Volume> {
        let mut object = claim(name);
        object["metadata"]["namespace"] = (&*self.namespace).into();
        if of_this_class {
            object["metadata"]["annotations"] = json!({ CLASS_ANNOTATION: self.namespace });
        }
        create(self.world.cluster, &object)?;
        let volume = bound(self.world.cluster, self.csi, &self.namespace, name)?;
        fs::write(volume.data.join("file"), "old")?;
        Ok(volume)
    }

    fn job(&self, arguments: &[&str]) -> ArkJob {
        let storage = self.world.storage_at(self.proxy.url());
        let arguments = [arguments, &["--storage", &storage]].concat();
        ArkJob::new(self.world.cluster.kubeconfig(), &arguments)
    }

    fn backup(&self, name: &str, flags: &[&str]) -> ArkJob {
        let namespace = ["backup", name, "--include-namespaces", &self.namespace];
        self.job(&[&namespace, flags].concat())
            .of(&format!("job-of-{name}-{}", self.namespace), "pod-1")
    }

    async fn marker(&self, backup: &str) -> Result<Value> {
        let key = self.world.key(backup) + "ark-backup.json";
        Ok(serde_json::from_slice(&self.world.bucket.get(&key).await?)?)
    }

    /// The lines of what an archive holds.
    async fn names(&self, backup: &str) -> Result<BTreeSet<String>> {
        let key = format!("{}{backup}.tar.gz", self.world.key(backup));
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(format!("{backup}.tar.gz"));
        fs::write(&path, self.world.bucket.get(&key).await?)?;
        read(&path)
    }

    /// Names of volumeSnapshots in the namespace, and of the contents that are theirs.
    fn objects(&self) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let kubectl = |arguments: &[&str]| -> Result<Value> {
            let json = [&["get"], arguments, &["-o", "json"]].concat();
            Ok(serde_json::from_str(&self.world.cluster.kubectl(&json)?)?)
        };
        let (snapshots, contents) = (
            kubectl(&[SNAPSHOTS, "-n", &self.namespace])?,
            kubectl(&[CONTENTS])?,
        );
        let names = |list: &Value, of: &dyn Fn(&Value) -> bool| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let named = items.iter().filter(|item| of(item));
            named
                .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
                .collect()
        };
        let of_place =
            |content: &Value| content["spec"]["volumeSnapshotRef"]["namespace"] == *self.namespace;
        Ok((names(&snapshots, &|_| true), names(&contents, &of_place)))
    }
}

async fn whole() -> Result<()> {
    let place = Place::new("driver").await?;
    let (world, namespace) = (&place.world, &place.namespace);
    let volume = place.claim("data", true)?;
    // A snapshot of the user's is an object as any other.
    let mut mine = volume_snapshot("mine", "data", csi::SNAPSHOT_CLASS);
    mine["metadata"]["namespace"] = (&**namespace).into();
    create(world.cluster, &mine)?;
    let ready = "--for=jsonpath={.status.readyToUse}=true";
    world.cluster.kubectl(&[
        "wait",
        "-n",
        namespace,
        "volumesnapshot/mine",
        ready,
        "--timeout=60s",
    ])?;
    let of_user = place.objects()?;
    let users: BTreeSet<String> = place
        .csi
        .snapshots_of(&volume.id)?
        .into_iter()
        .map(|snapshot| snapshot.id)
        .collect();

    let gate = Gate::default();
    let held = place.proxy.add(Rule::on(is_marker).only(1).hold(&gate));
    let first = place.backup("first", &[]).start()?;
    wait_until("the marker", Duration::from_secs(60), async || {
        Ok((held.applied() == 1).then_some(()))
    })
    .await?;
    // What is there before the marker passes: no archive and no comparison has it.
    let (snapshots, contents) = place.objects()?;
    let ours: Vec<&String> = (snapshots.difference(&of_user.0))
        .chain(contents.difference(&of_user.1))
        .collect();
    ensure!(ours.len() == 2, "{ours:?}");
    let all = [
        "--include-cluster-resources=true",
        "--snapshot-volumes=false",
    ];
    place.backup("later", &all).expect(0).await?;
    ensure!(
        place.objects()? == (snapshots.clone(), contents.clone()),
        "they were to be there meanwhile"
    );
    world
        .cluster
        .kubectl(&["create", "configmap", "new", "-n", namespace])?;
    let diff = place.job(&["diff", "later"]).expect(1).await?;
    says(&diff, &["new"])?;
    for name in &ours {
        ensure!(!diff.stderr.contains(*name), "{name}: {}", diff.stderr);
    }
    gate.open();
    let first = first.wait().await?;
    ensure!(first.code == Some(0), "{first:?}");
    for backup in ["first", "later"] {
        let names = place.names(backup).await?;
        let mine = format!("{SNAPSHOTS} {namespace} mine");
        ensure!(names.contains(&mine), "{backup}: {names:?}");
        for ours in &ours {
            let has = names.iter().find(|line| line.ends_with(&**ours));
            ensure!(has.is_none(), "{backup} has {has:?}");
        }
    }
    let contents_of_user = place.names("later").await?;
    for content in &of_user.1 {
        let line = format!("{CONTENTS} - {content}");
        ensure!(contents_of_user.contains(&line), "{contents_of_user:?}");
    }

    // The handle is in marker and footer, and what it names is what was there.
    let marker = place.marker("first").await?;
    let record = &marker["commit"]["volumes"][0];
    let handle = record["data"]["handle"].as_str().unwrap_or_default();
    ensure!(
        record["persistentVolume"] == *volume.name
            && record["claim"] == json!({ "namespace": namespace, "name": "data" })
            && record["data"]["method"] == "csi"
            && record["data"]["driver"] == csi::DRIVER
            && record["data"]["snapshotClass"] == **namespace,
        "{record:#}"
    );
    ensure!(
        marker["status"]["volumeBackups"][&volume.name]["snapshotID"] == handle
            && marker["status"]["volumes"]["snapshotted"] == 1,
        "{marker:#}"
    );
    let key = format!("{}first.tar.gz", world.key("first"));
    let archive = world.bucket.get(&key).await?;
    let footer = super::footer(&archive)?;
    ensure!(
        serde_json::to_value(&footer.head.volumes)? == marker["commit"]["volumes"],
        "{:#?}",
        footer.head.volumes
    );
    ensure!(place.objects()? == of_user, "{:?}", place.objects()?);
    fs::write(volume.data.join("file"), "new")?;
    let taken = place.csi.snapshots_of(&volume.id)?;
    let taken: Vec<_> = taken
        .iter()
        .filter(|snapshot| !users.contains(&snapshot.id))
        .collect();
    ensure!(
        matches!(&taken[..], [one] if one.id == handle),
        "{taken:?}, not {handle}"
    );
    ensure!(fs::read_to_string(taken[0].data.join("file"))? == "old");
    // It outlives the namespace and the volume.
    let gone = ["delete", "namespace", namespace, "--timeout=60s"];
    world.cluster.kubectl(&gone)?;
    wait_until("the volume to go", Duration::from_secs(30), async || {
        Ok(place.csi.volume(&volume.name)?.is_none().then_some(()))
    })
    .await?;
    ensure!(fs::read_to_string(taken[0].data.join("file"))? == "old");
    Ok(())
}

async fn failures() -> Result<()> {
    let place = Place::new("driver-fails").await?;
    let (data, good) = (place.claim("data", true)?, place.claim("good", false)?);
    for (backup, behaviour, text) in [
        (
            "failing",
            Behaviour {
                fail_create_snapshot: Some("no space for snapshots".into()),
                ..Behaviour::default()
            },
            "no space for snapshots",
        ),
        (
            "slow",
            Behaviour {
                answer_create_snapshot_after: Duration::from_secs(3600),
                ..Behaviour::default()
            },
            "the driver has given it no handle after 3s",
        ),
    ] {
        place.csi.behave_as(&place.namespace, &behaviour)?;
        let finished = place
            .backup(backup, &["--csi-snapshot-timeout=3s"])
            .expect(3)
            .await?;
        let missing = format!(
            "persistentvolumes {} (claim {}/data) has no snapshot, so the data in it is not in the backup: volumesnapshots {}/",
            data.name, place.namespace, place.namespace
        );
        says(&finished, &[&missing, text])?;
        let marker = place.marker(backup).await?;
        ensure!(
            marker["status"]["phase"] == "PartiallyFailed"
                && marker["status"]["errors"] == 1
                && marker["status"]["volumes"]
                    == json!({ "snapshotted": 1, "skipped": 0, "missing": 1 }),
            "{marker:#}"
        );
        let messages = marker["status"]["messages"].to_string();
        ensure!(
            messages.contains(&data.name) && messages.contains(text),
            "{messages}"
        );
        let recorded = &marker["commit"]["volumes"];
        ensure!(
            recorded.as_array().map(Vec::len) == Some(1)
                && recorded[0]["persistentVolume"] == *good.name,
            "{recorded:#}"
        );
    }
    place.csi.behave_as(&place.namespace, &Behaviour::default())
}

/// Post hooks write what snapshots must not have.
#[cfg(target_os = "linux")]
async fn groups() -> Result<()> {
    let world::WithCsi { csi, cluster } = world::node_csi().await?;
    let namespace = "frozen-volumes";
    cluster.kubectl(&["create", "namespace", namespace])?;
    let claims = ["data", "log", "one", "two"];
    for name in claims {
        let mut object = claim(name);
        object["metadata"]["namespace"] = namespace.into();
        // No labels select the others alone.
        if ["data", "log"].contains(&name) {
            object["metadata"]["labels"] = json!({ "app": "database" });
        }
        create(cluster, &object)?;
    }
    let write = |word: &str| {
        let script = format!("for each in /volumes/*; do echo {word} > $each/state; done");
        json!(["sh", "-c", script]).to_string()
    };
    let template = json!({ "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": csi::STORAGE_CLASS,
        "resources": { "requests": { "storage": "1Gi" } },
    } });
    for (name, mounted, ephemeral) in [
        ("grouped", ["data", "log"], false),
        ("single", ["one", "two"], true),
    ] {
        let of_claim = |claim: &&str| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } });
        let mut volumes: Vec<Value> = mounted.iter().map(of_claim).collect();
        if ephemeral {
            volumes.push(
                json!({ "name": "scratch", "ephemeral": { "volumeClaimTemplate": template } }),
            );
        }
        let mounts = volumes.iter().map(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            json!({ "name": name, "mountPath": format!("/volumes/{name}") })
        });
        let mounts: Vec<Value> = mounts.collect();
        create(
            cluster,
            &json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": namespace, "annotations": {
                    "pre.hook.backup.velero.io/command": write("frozen"),
                    "post.hook.backup.velero.io/command": write("thawed"),
                } },
                "spec": {
                    "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "volumes": volumes,
                    "containers": [{
                        "name": "main", "image": ark_tests::images::BUSYBOX, "command": ["sleep", "3600"],
                        "volumeMounts": mounts,
                    }],
                },
            }),
        )?;
    }
    for pod in ["pod/grouped", "pod/single"] {
        let ready = "--for=condition=Ready";
        cluster.kubectl(&["wait", "-n", namespace, pod, ready, "--timeout=90s"])?;
    }
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let arguments = [
        "backup",
        "b",
        "--storage",
        &storage,
        "--include-namespaces",
        namespace,
    ];
    let finished = ArkJob::new(cluster.kubeconfig(), &arguments)
        .of("job-of-frozen-volumes", "pod-1")
        .variable("ARK_NAMESPACE", namespace)
        .expect(0)
        .await?;
    says(
        &finished,
        &[
            "claims one, single-scratch, two of namespace frozen-volumes are snapshotted one after the other",
        ],
    )?;
    let marker = directory.path().join("backups/b/ark-backup.json");
    let marker: Value = serde_json::from_slice(&fs::read(marker)?)?;
    let recorded = marker["commit"]["volumes"].as_array().cloned();
    let recorded = recorded.context("no volume is recorded")?;
    ensure!(recorded.len() == 5, "{recorded:#?}");
    let mut groups = BTreeSet::new();
    for claim in ["data", "log", "one", "two", "single-scratch"] {
        let volume = bound(cluster, csi, namespace, claim)?;
        let state = fs::read_to_string(volume.data.join("state"))?;
        ensure!(state == "thawed\n", "{claim} is {state}");
        let record = recorded
            .iter()
            .find(|record| record["claim"]["name"] == claim)
            .with_context(|| format!("{claim} is not recorded"))?;
        let taken = csi.snapshots_of(&volume.id)?;
        ensure!(
            matches!(&taken[..], [one] if record["data"]["handle"] == *one.id),
            "{taken:?}, not {record:#}"
        );
        let state = fs::read_to_string(taken[0].data.join("state"))?;
        ensure!(state == "frozen\n", "the snapshot of {claim} is {state}");
        let in_group = ["data", "log"].contains(&claim);
        ensure!(
            record["data"]["groupHandle"].as_str() == taken[0].group.as_deref()
                && taken[0].group.is_some() == in_group,
            "{taken:?} {record:#}"
        );
        groups.extend(taken[0].group.clone());
    }
    ensure!(groups.len() == 1, "{groups:?}");
    // Nothing but the data is left, which outlives its claims.
    let types =
        "volumesnapshots,volumesnapshotcontents,volumegroupsnapshots,volumegroupsnapshotcontents";
    let left = cluster.kubectl(&[
        "get",
        types,
        "-A",
        "-l",
        "ark.heptio.com/location",
        "-o",
        "name",
    ])?;
    ensure!(left.is_empty(), "{left}");
    cluster.kubectl(&["delete", "namespace", namespace, "--timeout=90s"])?;
    ensure!(csi.snapshots()?.len() >= 5);
    Ok(())
}
