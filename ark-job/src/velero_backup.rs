//! `velero-backup.json` of a backup of ours: what Velero needs to show and restore it. It follows from the footer alone, byte
//! for byte, so it can be made again at any time.

use crate::api::RUN_ANNOTATION;
use crate::archive::VELERO_FORMAT_VERSION;
use crate::archive::footer::Footer;
use crate::volumes::velero;
use serde_json::json;

/// The Backup resource that Velero reads and syncs into clusters.
///
/// Without `status.expiration`: Velero's garbage collection would delete it by that, whatever our keep rules say, and
/// leave our snapshots behind.
pub fn velero_backup(footer: &Footer) -> Vec<u8> {
    let head = &footer.head;
    let (spec, status) = (&head.spec, &head.status);
    let all = |names: &[String]| {
        if names.is_empty() {
            vec!["*".to_owned()]
        } else {
            names.to_vec()
        }
    };
    let location = spec.storage_location.as_deref().unwrap_or("default");
    let mut labels = head.labels.clone();
    labels.insert(
        "velero.io/storage-location".into(),
        crate::identity::label_value(location),
    );
    if let Some(schedule) = &head.schedule {
        labels.insert("velero.io/schedule-name".into(), schedule.clone());
    }
    let items: u64 = head.types.iter().map(|entry| entry.items).sum();
    let mut backup = json!({
        "kind": "Backup",
        "apiVersion": "velero.io/v1",
        "metadata": {
            "name": head.backup,
            "namespace": "velero",
            "creationTimestamp": status.start_timestamp,
            "labels": labels,
            "annotations": { RUN_ANNOTATION: head.run_id },
        },
        "spec": {
            "metadata": {},
            "includedNamespaces": all(&spec.included_namespaces),
            "excludedNamespaces": spec.excluded_namespaces,
            "includedResources": all(&spec.included_resources),
            "excludedResources": spec.excluded_resources,
            "ttl": spec.ttl.as_deref().unwrap_or("0s"),
            "storageLocation": location,
            "hooks": {},
            "csiSnapshotTimeout": "10m0s",
            "itemOperationTimeout": "4h0m0s",
            "snapshotMoveData": false,
            "defaultVolumesToFsBackup": false,
        },
        "status": {
            "version": 1,
            "formatVersion": VELERO_FORMAT_VERSION,
            "phase": status.phase,
            "startTimestamp": status.start_timestamp,
            "completionTimestamp": status.completion_timestamp,
            "progress": { "totalItems": items, "itemsBackedUp": items },
            "warnings": status.warnings,
            "errors": status.errors,
        },
    });
    let mut set = |key: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            backup["spec"][key] = value;
        }
    };
    set(
        "labelSelector",
        spec.label_selector.as_ref().map(|selector| json!(selector)),
    );
    set(
        "orLabelSelectors",
        (!spec.or_label_selectors.is_empty()).then(|| json!(spec.or_label_selectors)),
    );
    set(
        "includeClusterResources",
        spec.include_cluster_resources.map(|on| json!(on)),
    );
    set("snapshotVolumes", spec.snapshot_volumes.map(|on| json!(on)));
    let (native, csi) = velero::counts(&head.volumes);
    if native > 0 {
        set(
            "volumeSnapshotLocations",
            Some(json!([velero::snapshot_location(head)])),
        );
    }
    for (count, attempted, completed) in [
        (
            native,
            "volumeSnapshotsAttempted",
            "volumeSnapshotsCompleted",
        ),
        (
            csi,
            "csiVolumeSnapshotsAttempted",
            "csiVolumeSnapshotsCompleted",
        ),
    ] {
        if count > 0 {
            backup["status"][attempted] = json!(count);
            backup["status"][completed] = json!(count);
        }
    }
    if let Some(hooks) = &status.hook_status {
        backup["status"]["hookStatus"] =
            json!({ "hooksAttempted": hooks.attempted, "hooksFailed": hooks.failed });
    }
    serde_json::to_vec_pretty(&backup).expect("a backup's description holds only what JSON can say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::footer::Head;
    use crate::volumes::{CsiSnapshot, Data, EbsSnapshot, VolumeRecord};
    use serde_json::Value;

    fn described(volumes: Vec<Data>) -> Value {
        let record = |data| VolumeRecord {
            persistent_volume: "pv".into(),
            claim: None,
            reclaim_policy: String::new(),
            labels: std::collections::BTreeMap::new(),
            data,
        };
        let head = Head {
            backup: "b".into(),
            velero_snapshot_location: Some("aws".into()),
            volumes: volumes.into_iter().map(record).collect(),
            ..Head::default()
        };
        let footer = Footer {
            head,
            members: Vec::new(),
        };
        serde_json::from_slice(&velero_backup(&footer)).unwrap()
    }

    #[test]
    fn snapshots_are_counted_by_their_kind() {
        let ebs = Data::Ebs(EbsSnapshot {
            snapshot_id: "snap-1".into(),
            ..EbsSnapshot::default()
        });
        let csi = Data::Csi(CsiSnapshot::default());
        let backup = described(vec![ebs, csi.clone(), csi]);
        assert_eq!(backup["spec"]["volumeSnapshotLocations"], json!(["aws"]));
        let status = &backup["status"];
        let counts = |key: &str| {
            [
                &status[format!("{key}Attempted")],
                &status[format!("{key}Completed")],
            ]
        };
        assert_eq!(counts("volumeSnapshots"), [1, 1]);
        assert_eq!(counts("csiVolumeSnapshots"), [2, 2]);
    }

    #[test]
    fn without_snapshots_nothing_is_said_of_them() {
        let backup = described(Vec::new());
        let text = backup.to_string();
        assert!(!text.contains("olumeSnapshots"), "{text}");
    }
}
