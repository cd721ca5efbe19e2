//! The volume files as Velero has them, made from our records. They follow from the footer alone, byte for byte. Pure.
//!
//! Velero restores snapshots of EBS from them. Of CSI drivers' it needs annotations of claims and objects in the archive that
//! we do not put there, since objects are stored byte for byte: it makes those volumes anew, empty, and [`warning`] says so.

use super::{CsiSnapshot, Data, EbsSnapshot, VolumeRecord};
use crate::archive::footer::Head;
use crate::layout::BackupKeys;
use crate::report::plural;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Name of Velero's volumeSnapshotLocation for our snapshots of EBS, if the storage location does not say.
pub const SNAPSHOT_LOCATION: &str = "default";

/// The files for the records of a footer, each with its key and what its gzip holds: none when it has no volumes.
pub fn files(head: &Head) -> Vec<(String, Value)> {
    let keys = BackupKeys::new(&head.backup);
    let native = native_snapshots(head);
    let infos = infos(&head.volumes);
    [
        (keys.volume_snapshots(), native),
        (keys.volume_info(), infos),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(key, list)| (key, Value::Array(list)))
    .collect()
}

/// The name of Velero's volumeSnapshotLocation for the snapshots of a footer.
pub fn snapshot_location(head: &Head) -> &str {
    let location = head.velero_snapshot_location.as_deref();
    location.unwrap_or(SNAPSHOT_LOCATION)
}

/// Numbers of snapshots that Velero counts: its own kind, and those of CSI drivers.
pub fn counts(records: &[VolumeRecord]) -> (usize, usize) {
    let native = records.iter().filter(|record| disk(record).is_some());
    let csi = records
        .iter()
        .filter(|record| matches!(record.data, Data::Csi(_)));
    (native.count(), csi.count())
}

/// What a backup says of the volumes that Velero would restore without their data; nothing if there is none.
pub fn warning(records: &[VolumeRecord]) -> Option<String> {
    let (_, csi) = counts(records);
    (csi > 0).then(|| {
        format!(
            "Velero would restore {} of this backup empty: it cannot use snapshots of CSI drivers that ark took; restore with \
             ark",
            plural(csi as u64, "volume")
        )
    })
}

/// The snapshot of EBS of a record. Velero cannot delete a backup with an entry that names none.
fn disk(record: &VolumeRecord) -> Option<&EbsSnapshot> {
    match &record.data {
        Data::Ebs(snapshot) if !snapshot.snapshot_id.is_empty() => Some(snapshot),
        _ => None,
    }
}

/// Entries as Velero's `internal/volume/snapshot.go` has them.
fn native_snapshots(head: &Head) -> Vec<Value> {
    let entry = |record: &VolumeRecord| {
        let snapshot = disk(record)?;
        let mut spec = json!({
            "backupName": head.backup,
            // Velero's Backup has none before it is synced.
            "backupUID": "",
            "location": snapshot_location(head),
            "persistentVolumeName": record.persistent_volume,
            "providerVolumeID": snapshot.volume_id,
            "volumeType": snapshot.volume_type,
        });
        if !snapshot.availability_zone.is_empty() {
            spec["volumeAZ"] = json!(snapshot.availability_zone);
        }
        if let Some(iops) = snapshot.iops {
            spec["volumeIOPS"] = json!(iops);
        }
        let status = json!({ "providerSnapshotID": snapshot.snapshot_id, "phase": "Completed" });
        Some(json!({ "spec": spec, "status": status }))
    };
    head.volumes.iter().filter_map(entry).collect()
}

/// Entries as Velero's `BackupVolumeInfo`, in its order: volumes without a snapshot, of its own kind, of CSI drivers.
fn infos(records: &[VolumeRecord]) -> Vec<Value> {
    let (mut skipped, mut native, mut csi) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        match &record.data {
            // An entry with a method and no snapshot would bring back the volume as it was, on a disk that may be gone.
            Data::Skipped { reason } | Data::Missing { reason } => {
                skipped.push(without_snapshot(record, reason));
            }
            Data::Ebs(snapshot) if disk(record).is_some() => {
                native.push(native_info(record, snapshot));
            }
            Data::Csi(snapshot) => csi.push(csi_info(record, snapshot)),
            Data::Ebs(_) | Data::Unknown => {}
        }
    }
    [skipped, native, csi].concat()
}

/// What is in every entry.
fn info(record: &VolumeRecord, method: Option<&str>, started: Option<Timestamp>) -> Value {
    let mut info = json!({});
    if let Some(claim) = &record.claim {
        info["pvcName"] = json!(claim.name);
        info["pvcNamespace"] = json!(claim.namespace);
    }
    info["pvName"] = json!(record.persistent_volume);
    if let Some(method) = method {
        info["backupMethod"] = json!(method);
    }
    info["snapshotDataMoved"] = json!(false);
    info["preserveLocalSnapshot"] = json!(method == Some("CSISnapshot"));
    info["skipped"] = json!(method.is_none());
    // Velero has whole seconds.
    if let Some(started) = started.and_then(|at| Timestamp::from_second(at.as_second()).ok()) {
        info["startTimestamp"] = json!(started.to_string());
    }
    if method.is_some() {
        info["result"] = json!("succeeded");
    }
    info["pvInfo"] = json!({ "reclaimPolicy": record.reclaim_policy, "labels": record.labels });
    info
}

/// Velero goes by the reclaim policy, as we do: `Delete` gets a new volume, others come back as they are.
fn without_snapshot(record: &VolumeRecord, reason: &str) -> Value {
    let mut info = info(record, None, None);
    // Velero's form: approaches and why each was not taken.
    info["skippedReason"] = json!(format!("any: {reason};"));
    info
}

fn native_info(record: &VolumeRecord, snapshot: &EbsSnapshot) -> Value {
    let mut info = info(record, Some("NativeSnapshot"), snapshot.started);
    info["nativeSnapshotInfo"] = json!({
        "snapshotHandle": snapshot.snapshot_id,
        "volumeType": snapshot.volume_type,
        "volumeAZ": snapshot.availability_zone,
        "iops": snapshot.iops.unwrap_or_default().to_string(),
        "Phase": "Completed",
    });
    info
}

/// `CSISnapshot` makes Velero leave out the volume and give the claim a new one, whatever the reclaim policy. Any other entry,
/// or none, would bring back a volume with `Retain` as it is: on the disk that the backup was made of, with what was written
/// to it since, and in another cluster on the disk that the first one is still writing to. An empty volume harms neither, and
/// the entry tells people the handle.
fn csi_info(record: &VolumeRecord, snapshot: &CsiSnapshot) -> Value {
    let mut info = info(record, Some("CSISnapshot"), snapshot.created);
    let mut csi = json!({
        "snapshotHandle": snapshot.handle,
        "size": snapshot.restore_size.unwrap_or_default(),
        "driver": snapshot.driver,
        "vscName": snapshot.content,
        // Not waited for.
        "ReadyToUse": null,
    });
    if let Some(group) = &snapshot.group_handle {
        csi["volumeGroupSnapshotHandle"] = json!(group);
    }
    info["csiSnapshotInfo"] = csi;
    info
}

#[cfg(test)]
mod tests;
