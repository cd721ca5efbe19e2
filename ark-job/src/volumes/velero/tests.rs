use super::*;
use crate::volumes::ClaimName;
use std::collections::BTreeMap;

fn record(persistent_volume: &str, data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: persistent_volume.into(),
        claim: Some(ClaimName {
            namespace: "ns".into(),
            name: format!("claim-{persistent_volume}"),
        }),
        reclaim_policy: "Delete".into(),
        labels: BTreeMap::new(),
        data,
    }
}

fn ebs(id: &str) -> Data {
    Data::Ebs(EbsSnapshot {
        snapshot_id: id.into(),
        volume_id: "vol-1".into(),
        region: "eu-central-1".into(),
        availability_zone: "eu-central-1b".into(),
        volume_type: "gp3".into(),
        iops: Some(3000),
        started: Some("2026-01-01T00:00:00.123Z".parse().unwrap()),
        ..EbsSnapshot::default()
    })
}

fn csi(handle: &str) -> Data {
    Data::Csi(CsiSnapshot {
        handle: handle.into(),
        driver: "d.csi".into(),
        restore_size: Some(5),
        content: "vsc".into(),
        ..CsiSnapshot::default()
    })
}

fn head(volumes: Vec<VolumeRecord>) -> Head {
    Head {
        backup: "b".into(),
        volumes,
        ..Head::default()
    }
}

fn skipped(reason: &str) -> Data {
    Data::Skipped {
        reason: reason.into(),
    }
}

#[test]
fn a_backup_without_volumes_has_no_volume_files() {
    assert_eq!(files(&head(Vec::new())), []);
    let unknown = head(vec![record("pv", Data::Unknown)]);
    assert_eq!(files(&unknown), []);
}

#[test]
fn snapshots_of_disks_are_written_as_velero_reads_them() {
    let mut labelled = record("pv-1", ebs("snap-1"));
    labelled.labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let mut head = head(vec![labelled]);
    let snapshots = |location: &str| {
        json!([{
            "spec": {"backupName": "b", "backupUID": "", "location": location, "persistentVolumeName": "pv-1",
                "providerVolumeID": "vol-1", "volumeType": "gp3", "volumeAZ": "eu-central-1b", "volumeIOPS": 3000},
            "status": {"providerSnapshotID": "snap-1", "phase": "Completed"},
        }])
    };
    let infos = json!([{
        "pvcName": "claim-pv-1", "pvcNamespace": "ns", "pvName": "pv-1", "backupMethod": "NativeSnapshot",
        "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": false,
        "startTimestamp": "2026-01-01T00:00:00Z", "result": "succeeded",
        "nativeSnapshotInfo": {"snapshotHandle": "snap-1", "volumeType": "gp3", "volumeAZ": "eu-central-1b", "iops": "3000",
            "Phase": "Completed"},
        "pvInfo": {"reclaimPolicy": "Delete", "labels": {"a": "b"}},
    }]);
    let expected = |location: &str| {
        [
            (
                "backups/b/b-volumesnapshots.json.gz".to_owned(),
                snapshots(location),
            ),
            ("backups/b/b-volumeinfo.json.gz".to_owned(), infos.clone()),
        ]
    };
    assert_eq!(files(&head), expected("default"));
    head.velero_snapshot_location = Some("aws-eu".into());
    assert_eq!(files(&head), expected("aws-eu"));
}

#[test]
fn r03_r05_what_is_not_known_of_a_disk_is_left_out() {
    let unknown = Data::Ebs(EbsSnapshot {
        snapshot_id: "snap-1".into(),
        ..EbsSnapshot::default()
    });
    let files = files(&head(vec![record("pv-1", unknown)]));
    let spec = files[0].1[0]["spec"].as_object().unwrap();
    assert!(!spec.contains_key("volumeAZ") && !spec.contains_key("volumeIOPS"));
    assert_eq!(files[1].1[0]["nativeSnapshotInfo"]["iops"], "0");
    assert_eq!(files[1].1[0]["startTimestamp"], json!(null));
}

#[test]
fn a_record_without_an_id_would_keep_velero_from_deleting_the_backup() {
    assert_eq!(files(&head(vec![record("pv-1", ebs(""))])), []);
    assert_eq!(counts(&[record("pv-1", ebs(""))]), (0, 0));
}

#[test]
fn r02_volumes_without_a_snapshot_say_why() {
    let missing = Data::Missing {
        reason: "no class".into(),
    };
    let mut unbound = record("pv-2", missing);
    unbound.claim = None;
    let files = files(&head(vec![record("pv-1", skipped("asked for")), unbound]));
    let infos = json!([
        {"pvcName": "claim-pv-1", "pvcNamespace": "ns", "pvName": "pv-1", "snapshotDataMoved": false,
            "preserveLocalSnapshot": false, "skipped": true, "skippedReason": "any: asked for;",
            "pvInfo": {"reclaimPolicy": "Delete", "labels": {}}},
        {"pvName": "pv-2", "snapshotDataMoved": false, "preserveLocalSnapshot": false, "skipped": true,
            "skippedReason": "any: no class;", "pvInfo": {"reclaimPolicy": "Delete", "labels": {}}},
    ]);
    let expected = [("backups/b/b-volumeinfo.json.gz".to_owned(), infos)];
    assert_eq!(files, expected);
}

#[test]
fn r07_snapshots_of_csi_drivers_are_named_and_make_velero_give_a_new_volume() {
    let mut retained = record("pv-1", csi("h-1"));
    retained.reclaim_policy = "Retain".into();
    let files = files(&head(vec![retained]));
    let infos = json!([{
        "pvcName": "claim-pv-1", "pvcNamespace": "ns", "pvName": "pv-1", "backupMethod": "CSISnapshot",
        "snapshotDataMoved": false, "preserveLocalSnapshot": true, "skipped": false, "result": "succeeded",
        "csiSnapshotInfo": {"snapshotHandle": "h-1", "size": 5, "driver": "d.csi", "vscName": "vsc", "ReadyToUse": null},
        "pvInfo": {"reclaimPolicy": "Retain", "labels": {}},
    }]);
    let expected = [("backups/b/b-volumeinfo.json.gz".to_owned(), infos)];
    assert_eq!(files, expected);
}

#[test]
fn the_order_is_veleros() {
    let volumes = vec![
        record("pv-1", csi("h")),
        record("pv-2", ebs("snap-1")),
        record("pv-3", skipped("so")),
    ];
    let files = files(&head(volumes));
    let infos = files[1].1.as_array().unwrap();
    let names: Vec<_> = infos.iter().map(|info| info["pvName"].as_str()).collect();
    assert_eq!(names, [Some("pv-3"), Some("pv-2"), Some("pv-1")]);
}

#[test]
fn volumes_that_velero_would_restore_empty_are_counted_once() {
    assert_eq!(warning(&[record("pv-2", ebs("snap-1"))]), None);
    let one = warning(&[record("pv-1", csi("h"))]).unwrap();
    assert!(one.contains("restore 1 volume of"), "{one}");
    let two = warning(&[
        record("pv-1", csi("h")),
        record("pv-2", csi("i")),
        record("pv-3", skipped("so")),
    ]);
    assert!(two.unwrap().contains("restore 2 volumes of"));
}
