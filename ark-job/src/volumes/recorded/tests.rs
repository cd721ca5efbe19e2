use super::*;
use crate::store::Credentials;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use std::io::Write;

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// What is read of a backup `b` with these files, each called by what its name has between `b-` and `.json.gz`.
async fn read(files: &[(&str, Vec<u8>)]) -> Result<Vec<VolumeRecord>, RecordedError> {
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backups/b");
    std::fs::create_dir_all(&backup).unwrap();
    for (file, content) in files {
        std::fs::write(backup.join(format!("b-{file}.json.gz")), content).unwrap();
    }
    let place = format!("file://{}", directory.path().display());
    let store = Store::open(&place.parse().unwrap(), &Credentials::Chain).await;
    of_velero(&store.unwrap(), "b").await
}

async fn read_json(files: &[(&str, Value)]) -> Vec<VolumeRecord> {
    let files: Vec<_> = files
        .iter()
        .map(|(file, content)| (*file, gzip(&content.to_string())))
        .collect();
    read(&files).await.unwrap()
}

fn claim_of(namespace: &str, name: &str) -> Option<ClaimName> {
    claim(namespace, name)
}

fn time(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn record(persistent_volume: &str, data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: persistent_volume.into(),
        ..of_claim(None, data)
    }
}

fn missing(reason: &str) -> Data {
    Data::Missing {
        reason: reason.into(),
    }
}

/// As Velero's `internal/volume/snapshot.go` writes it.
fn native(persistent_volume: &str, snapshot_id: &str, iops: Value) -> Value {
    json!({
        "spec": {
            "backupName": "b", "backupUID": "u", "location": "default", "persistentVolumeName": persistent_volume,
            "providerVolumeID": "vol-1", "volumeType": "io2", "volumeAZ": "eu-central-1b", "volumeIOPS": iops,
        },
        "status": {"providerSnapshotID": snapshot_id, "phase": "Completed"},
    })
}

fn disk_snapshot(id: &str, iops: Option<i32>) -> EbsSnapshot {
    EbsSnapshot {
        snapshot_id: id.into(),
        volume_id: "vol-1".into(),
        region: "eu-central-1".into(),
        availability_zone: "eu-central-1b".into(),
        volume_type: "io2".into(),
        iops,
        ..EbsSnapshot::default()
    }
}

#[tokio::test]
async fn a_backup_without_volume_files_records_nothing() {
    assert_eq!(read(&[]).await.unwrap(), []);
    let null = |file| (file, json!(null));
    let files = [
        null("volumesnapshots"),
        null("volumeinfo"),
        null("csi-volumesnapshots"),
        null("csi-volumesnapshotcontents"),
    ];
    assert_eq!(read_json(&files).await, []);
    let older = [null("podvolumebackups"), null("itemoperations")];
    assert_eq!(read_json(&older).await, []);
    assert_eq!(read(&[("volumesnapshots", Vec::new())]).await.unwrap(), []);
}

#[tokio::test]
async fn snapshots_of_disks_are_read() {
    let list = json!([
        native("pv-1", "snap-1", json!(3000)),
        // Of types without provisioned operations Velero writes a pointer to 0.
        native("pv-2", "snap-2", json!(0)),
        native("pv-3", "snap-3", json!(null)),
        native("pv-4", "", json!(null)),
        native("pv-5", "projects/p/global/snapshots/s", json!(null)),
    ]);
    let expected = [
        record("pv-1", Data::Ebs(disk_snapshot("snap-1", Some(3000)))),
        record("pv-2", Data::Ebs(disk_snapshot("snap-2", None))),
        record("pv-3", Data::Ebs(disk_snapshot("snap-3", None))),
        record("pv-4", missing("Velero's snapshot of it failed")),
        // There is one, and this program can neither restore nor delete it.
        record("pv-5", Data::Unknown),
    ];
    assert_eq!(read_json(&[("volumesnapshots", list)]).await, expected);
}

#[tokio::test]
async fn the_capital_of_ark_0_10_is_understood() {
    let mut entry = native("pv-1", "snap-1", json!(null));
    let spec = entry["spec"].as_object_mut().unwrap();
    let name = spec.remove("persistentVolumeName").unwrap();
    spec.insert("PersistentVolumeName".into(), name);
    let found = read_json(&[("volumesnapshots", json!([entry]))]).await;
    assert_eq!(found[0].persistent_volume, "pv-1");
}

#[tokio::test]
async fn volume_infos_complete_disks_and_tell_of_the_others() {
    let volume = json!({"reclaimPolicy": "Retain", "labels": {"a": "b"}});
    let common = |pv: &str, rest: Value| {
        let mut info = json!({
            "pvcName": format!("claim-{pv}"), "pvcNamespace": "ns", "pvName": pv, "snapshotDataMoved": false,
            "preserveLocalSnapshot": false, "skipped": false,
            "pvInfo": {"reclaimPolicy": "Delete", "labels": null},
        });
        for (key, value) in rest.as_object().unwrap() {
            info[key] = value.clone();
        }
        info
    };
    let infos = json!([
        common("pv-skipped", json!({"skipped": true, "skippedReason": "any: by policy;"})),
        common("pv-1", json!({
            "backupMethod": "NativeSnapshot", "result": "succeeded", "pvInfo": volume, "startTimestamp": "2026-01-01T00:00:00Z",
            "nativeSnapshotInfo": {"snapshotHandle": "snap-1", "volumeType": "io2", "volumeAZ": "eu-central-1b", "iops": "3000",
                "Phase": "Completed"},
        })),
        common("pv-only-info", json!({
            "backupMethod": "NativeSnapshot",
            "nativeSnapshotInfo": {"snapshotHandle": "snap-9", "volumeType": "gp3", "volumeAZ": "", "iops": "0", "Phase": "Completed"},
        })),
        common("pv-csi", json!({
            "backupMethod": "CSISnapshot", "preserveLocalSnapshot": true, "result": "succeeded",
            "startTimestamp": "2026-01-01T00:00:00Z",
            "csiSnapshotInfo": {"snapshotHandle": "h-1", "size": 1 << 30, "driver": "d.csi", "vscName": "vsc-1",
                "operationID": "o", "ReadyToUse": true},
        })),
        common("pv-csi-failed", json!({
            "backupMethod": "CSISnapshot", "result": "failed",
            "csiSnapshotInfo": {"snapshotHandle": "", "size": 0, "driver": "d.csi", "vscName": "vsc-2", "ReadyToUse": null},
        })),
        common("pv-moved", json!({
            "backupMethod": "CSISnapshot", "snapshotDataMoved": true, "result": "succeeded",
            "csiSnapshotInfo": {"snapshotHandle": "unknown", "size": 0, "driver": "unknown", "vscName": "unknown", "ReadyToUse": null},
            "snapshotDataMovementInfo": {"dataMover": "velero", "uploaderType": "kopia", "snapshotHandle": "k", "operationID": "o",
                "size": 5, "Phase": "Completed"},
        })),
        common("pv-files", json!({
            "backupMethod": "PodVolumeBackup", "result": "succeeded",
            "pvbInfo": {"snapshotHandle": "k", "size": 4, "uploaderType": "kopia", "volumeName": "data", "podName": "p",
                "podNamespace": "ns", "nodeName": "n", "Phase": "Completed"},
        })),
        {"backupMethod": "PodVolumeBackup", "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": false,
            "pvbInfo": {"snapshotHandle": "k", "uploaderType": "kopia", "volumeName": "cache", "podName": "p",
                "podNamespace": "ns", "Phase": "Completed"}},
        common("pv-none", json!({})),
        common("pv-later", json!({"backupMethod": "BlockCopy"})),
    ]);
    let files = [
        (
            "volumesnapshots",
            json!([native("pv-1", "snap-1", json!(3000))]),
        ),
        ("volumeinfo", infos),
    ];
    let of = |pv: &str, data: Data| VolumeRecord {
        claim: claim_of("ns", &format!("claim-{pv}")),
        reclaim_policy: "Delete".into(),
        ..record(pv, data)
    };
    let expected = [
        VolumeRecord {
            reclaim_policy: "Retain".into(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..of(
                "pv-1",
                Data::Ebs(EbsSnapshot {
                    started: time("2026-01-01T00:00:00Z"),
                    ..disk_snapshot("snap-1", Some(3000))
                }),
            )
        },
        of(
            "pv-skipped",
            Data::Skipped {
                reason: "Velero skipped it: any: by policy".into(),
            },
        ),
        of(
            "pv-only-info",
            Data::Ebs(EbsSnapshot {
                snapshot_id: "snap-9".into(),
                volume_type: "gp3".into(),
                ..EbsSnapshot::default()
            }),
        ),
        of(
            "pv-csi",
            Data::Csi(CsiSnapshot {
                handle: "h-1".into(),
                driver: "d.csi".into(),
                restore_size: Some(1 << 30),
                created: time("2026-01-01T00:00:00Z"),
                content: "vsc-1".into(),
                ..CsiSnapshot::default()
            }),
        ),
        of("pv-csi-failed", missing("Velero's snapshot of it failed")),
        of("pv-moved", missing(IN_A_REPOSITORY)),
        of("pv-files", missing(IN_A_REPOSITORY)),
        of_claim(
            None,
            missing(&format!("volume cache of pod ns/p: {IN_A_REPOSITORY}")),
        ),
        of("pv-none", missing("Velero took no snapshot of it")),
        of("pv-later", Data::Unknown),
    ];
    assert_eq!(read_json(&files).await, expected);
}

fn content(name: &str, snapshot: &str, status: Value) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "labels": {"velero.io/backup-name": "b"}, "annotations": {
            "snapshot.storage.kubernetes.io/deletion-secret-name": "s",
            "snapshot.storage.kubernetes.io/deletion-secret-namespace": "n",
            "snapshot.storage.kubernetes.io/volumesnapshot-being-created": "yes",
        }},
        "spec": {
            "deletionPolicy": "Retain", "driver": "d.csi", "source": {"volumeHandle": "v"}, "sourceVolumeMode": "Block",
            "volumeSnapshotClassName": "c", "volumeSnapshotRef": {"namespace": "ns", "name": snapshot, "uid": "u"},
        },
        "status": status,
    })
}

fn snapshot(name: &str, claim: Value) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"namespace": "ns", "name": name},
        "spec": {"source": {"persistentVolumeClaimName": claim}, "volumeSnapshotClassName": "c"},
        "status": {"readyToUse": true, "restoreSize": "1Gi"},
    })
}

fn described(handle: &str, content: &str, snapshot: &str) -> CsiSnapshot {
    let annotation = |key: &str, value: &str| {
        (
            format!("snapshot.storage.kubernetes.io/deletion-secret-{key}"),
            value.to_owned(),
        )
    };
    CsiSnapshot {
        handle: handle.into(),
        driver: "d.csi".into(),
        snapshot_class: Some("c".into()),
        restore_size: Some(1 << 30),
        source_volume_mode: Some("Block".into()),
        annotations: BTreeMap::from([annotation("name", "s"), annotation("namespace", "n")]),
        group_handle: None,
        group_members: Vec::new(),
        created: time("2026-01-01T00:00:00.000000001Z"),
        content: content.into(),
        volume_snapshot: claim_of("ns", snapshot),
    }
}

/// 2026-01-01T00:00:00.000000001Z, as external-snapshotter writes it.
const NANOSECONDS: i64 = 1_767_225_600_000_000_001;

#[tokio::test]
async fn older_files_of_csi_are_read() {
    let status = |handle: &str| json!({"snapshotHandle": handle, "restoreSize": 1 << 30, "readyToUse": true, "creationTime": NANOSECONDS});
    let files = [
        (
            "csi-volumesnapshotcontents",
            json!([
                content("vsc-1", "vs-1", status("h-1")),
                content("vsc-2", "vs-2", status("h-2")),
                content("vsc-3", "vs-3", json!({"readyToUse": false})),
                content("vsc-4", "vs-4", json!(null)),
            ]),
        ),
        (
            "csi-volumesnapshots",
            json!([
                snapshot("vs-1", json!("data")),
                snapshot("vs-2", json!(null))
            ]),
        ),
    ];
    let mut found = read_json(&files).await;
    let expected = [
        of_claim(
            claim_of("ns", "data"),
            Data::Csi(described("h-1", "vsc-1", "vs-1")),
        ),
        // Its claim is not known, but there it is, and must be deleted with the backup.
        of_claim(None, Data::Csi(described("h-2", "vsc-2", "vs-2"))),
    ];
    assert_eq!(found, expected);
    let claim =
        json!({"metadata": {"namespace": "ns", "name": "data"}, "spec": {"volumeName": "pv-1"}});
    let other =
        json!({"metadata": {"namespace": "other", "name": "data"}, "spec": {"volumeName": "pv-2"}});
    name_volumes(&mut found, &[other, claim]);
    let names: Vec<_> = found
        .iter()
        .map(|record| &record.persistent_volume[..])
        .collect();
    assert_eq!(names, ["pv-1", ""]);
}

#[tokio::test]
async fn objects_add_what_volume_infos_do_not_say() {
    let status =
        json!({"snapshotHandle": "h-1", "restoreSize": 1 << 30, "creationTime": NANOSECONDS});
    let info = json!({
        "pvcName": "data", "pvcNamespace": "ns", "pvName": "pv-1", "backupMethod": "CSISnapshot", "snapshotDataMoved": false,
        "csiSnapshotInfo": {"snapshotHandle": "h-1", "size": 1 << 30, "driver": "d.csi", "vscName": "vsc-1", "ReadyToUse": true},
    });
    let expected = VolumeRecord {
        claim: claim_of("ns", "data"),
        ..record("pv-1", Data::Csi(described("h-1", "vsc-1", "vs-1")))
    };
    let object = content("vsc-1", "vs-1", status);
    let files = [
        ("volumeinfo", json!([info])),
        ("csi-volumesnapshotcontents", json!([object])),
    ];
    assert_eq!(read_json(&files).await, std::slice::from_ref(&expected));
    let mut from_archive = read_json(&files[..1]).await;
    let other = content("vsc-2", "vs-2", json!({"snapshotHandle": "h-2"}));
    describe_snapshots(&mut from_archive, &[json!("no object"), other, object]);
    assert_eq!(from_archive, [expected]);
}

#[tokio::test]
async fn copies_of_files_are_named_by_older_files_too() {
    let pod = |volume: &str, annotations: Value| {
        json!({"metadata": {"namespace": "velero", "name": volume, "annotations": annotations},
            "spec": {"node": "n", "pod": {"kind": "Pod", "namespace": "ns", "name": "p"}, "volume": volume},
            "status": {"phase": "Completed", "snapshotID": "k"}})
    };
    let operation = |resource: &str, name: &str, items: Value| {
        json!({"spec": {"backupName": "b", "backupItemAction": "velero.io/csi-pvc-backupper", "operationID": "o",
            "resourceIdentifier": {"Group": "", "Resource": resource, "Namespace": "ns", "Name": name},
            "postOperationItems": items}, "status": {"phase": "Completed"}})
    };
    let upload = json!([{"Group": "velero.io", "Resource": "datauploads", "Namespace": "velero", "Name": "du"}]);
    let files = [
        (
            "podvolumebackups",
            json!([
                pod("data", json!({"velero.io/pvc-name": "data"})),
                pod("cache", json!(null))
            ]),
        ),
        (
            "itemoperations",
            json!([
                operation("persistentvolumeclaims", "moved", upload.clone()),
                operation("persistentvolumeclaims", "data", upload.clone()),
                operation("persistentvolumeclaims", "kept", json!(null)),
                operation("volumesnapshots", "vs", upload),
            ]),
        ),
    ];
    let expected = [
        of_claim(claim_of("ns", "data"), missing(IN_A_REPOSITORY)),
        of_claim(
            None,
            missing(&format!("volume cache of pod ns/p: {IN_A_REPOSITORY}")),
        ),
        of_claim(claim_of("ns", "moved"), missing(IN_A_REPOSITORY)),
    ];
    assert_eq!(read_json(&files).await, expected);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error() {
    let good = gzip("[]");
    let bomb = gzip(&" ".repeat(usize::try_from(LIST_MAX).unwrap() + 1));
    let long = vec![0; usize::try_from(LIST_MAX).unwrap() + 1];
    for (content, says) in [
        (b"no gzip".to_vec(), "no gzip"),
        (good[..good.len() - 4].to_vec(), "damaged"),
        (gzip("{}"), "not the list"),
        (gzip(r#"[{"spec":{"volumeIOPS":"x"}}]"#), "not the list"),
        (gzip(""), "not the list"),
        (bomb, "more than 16 MiB"),
        (long, "16777217 bytes"),
    ] {
        let error = read(&[("volumesnapshots", content)]).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RecordedError::Unreadable { .. }), "{text}");
        assert!(
            text.starts_with("backups/b/b-volumesnapshots.json.gz: ") && text.contains(says),
            "{text}"
        );
    }
}

#[test]
fn original_arks_snapshots_are_read() {
    let json = br#"{"kind":"Backup","apiVersion":"ark.heptio.com/v1","metadata":{"name":"b"},"spec":{},"status":{"version":1,
        "phase":"Completed","volumeBackups":{
            "pvc-1":{"snapshotID":"snap-1","type":"io1","iops":1000,"availabilityZone":"us-east-1a"},
            "pvc-2":{"snapshotID":"snap-2","type":"gp2"},
            "pvc-3":{"snapshotID":"snap-3","type":"gp2","availabilityZone":"","iops":null},
            "pvc-4":{"snapshotID":"gce-snapshot-uuid","type":"pd-ssd","availabilityZone":"us-central1-f"}}}}"#;
    let ebs = |id: &str, volume_type: &str| EbsSnapshot {
        snapshot_id: id.into(),
        volume_type: volume_type.into(),
        ..EbsSnapshot::default()
    };
    let expected = [
        record(
            "pvc-1",
            Data::Ebs(EbsSnapshot {
                region: "us-east-1".into(),
                availability_zone: "us-east-1a".into(),
                iops: Some(1000),
                ..ebs("snap-1", "io1")
            }),
        ),
        record("pvc-2", Data::Ebs(ebs("snap-2", "gp2"))),
        record("pvc-3", Data::Ebs(ebs("snap-3", "gp2"))),
        record("pvc-4", Data::Unknown),
    ];
    assert_eq!(of_original(json).unwrap(), expected);
    for none in [
        r#"{"status":{"volumeBackups":null}}"#,
        r#"{"status":{"volumeBackups":{}}}"#,
        r#"{"status":{}}"#,
        r#"{"status":null}"#,
        "{}",
    ] {
        assert_eq!(of_original(none.as_bytes()).unwrap(), [], "{none}");
    }
    for wrong in [
        "{",
        "1",
        r#"{"status":{"volumeBackups":[]}}"#,
        r#"{"status":{"volumeBackups":{"a":1}}}"#,
    ] {
        assert!(of_original(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
