//! What a backup with volumes stores for Velero: the shape, our own reading of it, and the same bytes from whoever writes it.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use ark_job::store::{Credentials, Store};
use ark_job::volumes::{Data, VolumeRecord, recorded};
use ark_tests::csi::{DRIVER, claim};
use ark_tests::ec2::{Ec2, NewVolume};
use ark_tests::job::ArkJob;
use ark_tests::proxy::Request;
use ark_tests::{Bucket, ControlPlane, Csi, FaultProxy, MotoServer, Rule, Victim, s3};
use bytes::Bytes;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::place::get;
use crate::world::{self, scenario};

pub fn trials() -> Vec<Trial> {
    vec![scenario(
        "volumes_formats::what_is_stored_for_velero_has_its_shape_and_follows_from_the_archive",
        formats,
    )]
}

const NAMESPACE: &str = "volumes-formats";
const BACKUP: &str = "formats";
const ZONE: &str = "us-east-1b";

/// A namespace with a disk, a volume of a CSI driver, one that is opted out, and one of which nobody can take a snapshot.
struct Volumes {
    cluster: &'static ControlPlane,
    csi: &'static Csi,
    ec2: Ec2,
    bucket: Bucket,
    proxy: FaultProxy,
    disk: String,
    _moto: MotoServer,
}

impl Volumes {
    async fn new() -> Result<Volumes> {
        let world::WithCsi { csi, cluster } = world::csi().await?;
        let moto = MotoServer::start().await?;
        let ec2 = Ec2::new(moto.url());
        let new = NewVolume {
            zone: ZONE,
            volume_type: "gp3",
            iops: Some(4000),
            ..NewVolume::default()
        };
        let disk = ec2.volume(new).await?;
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        let volumes = Volumes {
            cluster,
            csi,
            bucket: moto.bucket("formats").await?,
            proxy: FaultProxy::start(moto.url()).await?,
            ec2,
            disk,
            _moto: moto,
        };
        let ebs = json!({ "csi": { "driver": "ebs.csi.aws.com", "volumeHandle": volumes.disk } });
        let out = json!({ "ark.heptio.com/skip-snapshot": "true" });
        volumes.volume("disk", "Retain", &ebs, &json!({}))?;
        volumes.volume("out", "Delete", &ebs, &out)?;
        let path = json!({ "hostPath": { "path": "/x" } });
        volumes.volume("local", "Retain", &path, &json!({}))?;
        volumes.create(&mut claim("data"))?;
        let phase = "--for=jsonpath={.status.phase}=Bound";
        cluster.kubectl(&[
            "wait",
            "-n",
            NAMESPACE,
            "pvc",
            "--all",
            phase,
            "--timeout=60s",
        ])?;
        Ok(volumes)
    }

    fn create(&self, object: &mut Value) -> Result<()> {
        object["metadata"]["namespace"] = NAMESPACE.into();
        self.cluster
            .kubectl_with_input(&["create", "-f", "-"], &object.to_string())
            .map(drop)
    }

    fn volume(&self, name: &str, policy: &str, source: &Value, annotations: &Value) -> Result<()> {
        let pv = format!("{NAMESPACE}-{name}");
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": pv, "labels": { "topology.kubernetes.io/zone": ZONE } },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "10Gi" }, "storageClassName": "by-hand",
                "persistentVolumeReclaimPolicy": policy, "claimRef": { "namespace": NAMESPACE, "name": name },
            },
        });
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        self.cluster
            .kubectl_with_input(&["create", "-f", "-"], &volume.to_string())?;
        let mut its = claim(name);
        its["metadata"]["annotations"] = annotations.clone();
        its["spec"]["storageClassName"] = "by-hand".into();
        its["spec"]["volumeName"] = pv.into();
        self.create(&mut its)
    }

    fn job(&self, attempt: &str) -> ArkJob {
        let endpoint = self.proxy.url();
        let region = s3::REGION;
        let storage =
            format!("s3://formats/here?endpoint={endpoint}&path-style=true&region={region}");
        let arguments = ["backup", BACKUP, "--storage", &storage];
        let arguments = [&arguments[..], &["--include-namespaces", NAMESPACE]].concat();
        ArkJob::new(self.cluster.kubeconfig(), &arguments)
            .of("job-of-formats", attempt)
            .variable("AWS_ENDPOINT_URL_EC2", endpoint)
    }

    async fn stored(&self, file: &str) -> Result<Bytes> {
        self.bucket.get(&key(file)).await
    }

    async fn unpacked(&self, file: &str) -> Result<Value> {
        let mut json = String::new();
        let stored = self.stored(file).await?;
        flate2::read::GzDecoder::new(&stored[..]).read_to_string(&mut json)?;
        Ok(serde_json::from_str(&json)?)
    }
}

fn key(file: &str) -> String {
    format!("here/backups/{BACKUP}/{file}")
}

fn is_infos(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with("-volumeinfo.json.gz")
}

/// Takes a time as Velero writes it, whole seconds of UTC, out of an entry.
fn take_time(entry: &mut Value) -> Result<()> {
    let fields = entry.as_object_mut().context("an entry is an object")?;
    let time = fields.remove("startTimestamp").context("no time")?;
    let text = time.as_str().context("a time is text")?;
    let _: jiff::Timestamp = text.parse()?;
    ensure!(text.len() == "2026-01-01T00:00:00Z".len(), "{text}");
    Ok(())
}

/// Takes the reason why there is no snapshot out of an entry: an approach and a sentence each, as Velero has them.
fn take_reason(entry: &mut Value) -> Result<()> {
    let fields = entry.as_object_mut().context("an entry is an object")?;
    let reason = fields.remove("skippedReason").context("no reason")?;
    let text = reason.as_str().context("a reason is text")?;
    ensure!(
        text.starts_with("any: ") && text.ends_with(';') && text.len() > 10,
        "{text}"
    );
    Ok(())
}

async fn formats() -> Result<()> {
    let volumes = Volumes::new().await?;

    // Killed when the list is there; without it the next attempt has to make it again, of the archive.
    let victim = Victim::default();
    let rule = Rule::on(is_infos).only(1).kill_after(&victim);
    let added = volumes.proxy.add(rule);
    let running = volumes.job("pod-1").start()?;
    victim.is(running.id());
    let ended = running.wait().await?;
    ensure!(added.applied() == 1 && ended.code.is_none(), "{ended:?}");
    volumes.proxy.clear_rules();
    let files = ["volumesnapshots", "volumeinfo"].map(|file| format!("{BACKUP}-{file}.json.gz"));
    let mut first = BTreeMap::new();
    for file in &files {
        first.insert(file, volumes.stored(file).await?);
        volumes.bucket.delete(&key(file)).await?;
    }
    volumes.job("pod-2").expect(0).await?;
    let marker: Value = serde_json::from_slice(&volumes.stored("ark-backup.json").await?)?;
    ensure!(
        marker["commit"]["attempt"] == "pod-1",
        "it was not adopted: {marker:#}"
    );
    for (file, before) in &first {
        let now = volumes.stored(file).await?;
        ensure!(now == *before, "{file} is not the same");
        let digest = &marker["commit"]["files"][file.as_str()];
        ensure!(
            digest["sha256"] == hex::encode(Sha256::digest(&now)) && digest["length"] == now.len(),
            "{file}: {digest}"
        );
    }

    let snapshots = volumes.ec2.snapshots().await?;
    let snapshot = snapshots.keys().next().context("no snapshot")?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    let native = volumes.unpacked(&files[0]).await?;
    let pv = |name: &str| format!("{NAMESPACE}-{name}");
    ensure!(
        native
            == json!([{
                "spec": {"backupName": BACKUP, "backupUID": "", "location": "default", "persistentVolumeName": pv("disk"),
                    "providerVolumeID": volumes.disk, "volumeType": "gp3", "volumeAZ": ZONE, "volumeIOPS": 4000},
                "status": {"providerSnapshotID": snapshot, "phase": "Completed"},
            }]),
        "{native:#}"
    );

    let claim = get(volumes.cluster, &["pvc", "data", "-n", NAMESPACE])?;
    let provisioned = claim["spec"]["volumeName"].as_str().context("not bound")?;
    let source = volumes.csi.volume(provisioned)?.context("no volume")?;
    let taken = volumes.csi.snapshots_of(&source.id)?;
    ensure!(taken.len() == 1, "{taken:?}");
    let mut infos = volumes.unpacked(&files[1]).await?;
    let infos = infos.as_array_mut().context("no list")?;
    ensure!(infos.len() == 4, "{infos:#?}");
    for skipped in &mut infos[..2] {
        take_reason(skipped)?;
    }
    infos[..2].sort_by_key(|info| info["pvcName"].to_string());
    for taken in &mut infos[2..] {
        take_time(taken)?;
    }
    let content = infos[3]["csiSnapshotInfo"]["vscName"].take();
    ensure!(
        content.as_str().is_some_and(|name| !name.is_empty()),
        "{infos:#?}"
    );
    let labels = json!({"topology.kubernetes.io/zone": ZONE});
    let without = |name: &str, policy: &str| {
        json!({"pvcName": name, "pvcNamespace": NAMESPACE, "pvName": pv(name), "snapshotDataMoved": false,
            "preserveLocalSnapshot": false, "skipped": true, "pvInfo": {"reclaimPolicy": policy, "labels": labels}})
    };
    let expected = [
        without("local", "Retain"),
        without("out", "Delete"),
        json!({"pvcName": "disk", "pvcNamespace": NAMESPACE, "pvName": pv("disk"), "backupMethod": "NativeSnapshot",
            "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": false, "result": "succeeded",
            "nativeSnapshotInfo": {"snapshotHandle": snapshot, "volumeType": "gp3", "volumeAZ": ZONE, "iops": "4000",
                "Phase": "Completed"},
            "pvInfo": {"reclaimPolicy": "Retain", "labels": labels}}),
        json!({"pvcName": "data", "pvcNamespace": NAMESPACE, "pvName": provisioned, "backupMethod": "CSISnapshot",
            "snapshotDataMoved": false, "preserveLocalSnapshot": true, "skipped": false, "result": "succeeded",
            "csiSnapshotInfo": {"snapshotHandle": taken[0].id, "size": 1 << 30, "driver": DRIVER, "vscName": null,
                "ReadyToUse": null},
            "pvInfo": {"reclaimPolicy": "Delete", "labels": {}}}),
    ];
    for (info, expected) in infos.iter().zip(&expected) {
        ensure!(info == expected, "{info:#}\nis not\n{expected:#}");
    }

    let results = volumes.unpacked(&format!("{BACKUP}-results.gz")).await?;
    ensure!(
        results["warnings"]
            .to_string()
            .contains("Velero would restore 1 volume of this backup empty"),
        "{results:#}"
    );
    let velero: Value = serde_json::from_slice(&volumes.stored("velero-backup.json").await?)?;
    let status = &velero["status"];
    ensure!(
        status["volumeSnapshotsAttempted"] == 1 && status["volumeSnapshotsCompleted"] == 1,
        "{status:#}"
    );

    // Read as if Velero had written it.
    let copy = tempfile::tempdir()?;
    let directory = copy.path().join("backups").join(BACKUP);
    std::fs::create_dir_all(&directory)?;
    for (file, content) in &first {
        std::fs::write(directory.join(file), content)?;
    }
    let place = format!("file://{}", copy.path().display()).parse()?;
    let store = Store::open(&place, &Credentials::Chain).await?;
    let read = recorded::of_velero(&store, BACKUP).await?;
    let ids = |records: &[VolumeRecord]| -> BTreeMap<String, String> {
        let entry = |record: &VolumeRecord| {
            let id = record.snapshot_id()?.to_owned();
            Some((record.persistent_volume.clone(), id))
        };
        records.iter().filter_map(entry).collect()
    };
    let named: Vec<VolumeRecord> = serde_json::from_value(marker["commit"]["volumes"].clone())?;
    ensure!(
        ids(&read) == ids(&named) && ids(&read).len() == 2,
        "{read:?}\n{named:?}"
    );
    for record in &read {
        let same = named
            .iter()
            .find(|named| named.persistent_volume == record.persistent_volume);
        match (&record.data, same.map(|named| &named.data)) {
            (Data::Ebs(read), Some(Data::Ebs(named))) => ensure!(
                read.volume_id == named.volume_id
                    && read.region == named.region
                    && read.availability_zone == named.availability_zone
                    && read.volume_type == named.volume_type
                    && read.iops == named.iops,
                "{read:?}\n{named:?}"
            ),
            (Data::Csi(read), Some(Data::Csi(named))) => ensure!(
                read.driver == named.driver && read.restore_size == named.restore_size,
                "{read:?}\n{named:?}"
            ),
            (Data::Skipped { .. }, None) => {}
            other => anyhow::bail!("{}: {other:?}", record.persistent_volume),
        }
    }
    Ok(())
}
