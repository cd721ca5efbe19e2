//! The objects through which a claim is made from a snapshot.

use super::objects::{GROUP, RETAIN, hashed_name};
use crate::api::VELERO_EXCLUDE_LABEL;
use crate::identity::label_value;
use crate::volumes::{CsiSnapshot, identity};
use serde_json::{Map, Value, json};

/// The volumeSnapshotContent and volumeSnapshot through which a claim in namespace `target` is made from a snapshot. Their
/// names (both the same) follow from location, backup, target, volume and snapshot, so that a repeat finds them, and a backup
/// that was deleted and made again under its name does not find those of the old data. Pure.
///
/// The data stays when they are deleted: it is the backup's. They carry the label of the location, so that later backups
/// leave them out, and not that of the cluster: a sweep looks for what was taken, not for what is being restored.
///
/// They name no volumeSnapshotClass: the cluster may not have it, and it is not needed to make a volume. Only a driver
/// that wants a Secret for listing snapshots would learn it from there.
pub fn to_restore(
    location: &str,
    backup: &str,
    target: &str,
    persistent_volume: &str,
    snapshot: &CsiSnapshot,
) -> (Value, Value) {
    let name = hashed_name(&[
        "restore",
        location,
        backup,
        target,
        persistent_volume,
        &snapshot.handle,
    ]);
    let labels = json!({
        identity::LOCATION: location,
        identity::BACKUP: label_value(backup),
        identity::PERSISTENT_VOLUME: label_value(persistent_volume),
        VELERO_EXCLUDE_LABEL: "true",
    });
    let mut content = content(&name, labels.clone(), RETAIN, snapshot);
    content["spec"]["volumeSnapshotRef"]["namespace"] = target.into();
    let volume_snapshot = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": target, "labels": labels},
        "spec": {"source": {"volumeSnapshotContentName": name}},
    });
    (content, volume_snapshot)
}

/// The volumeGroupSnapshotContent of the group of a snapshot, as `api_version` (of a version that is served); `None` of one
/// without a group. All members of a group have the same, in all namespaces. Pure.
///
/// The snapshot controller binds no volumeSnapshot whose driver says that it is of a group, unless the cluster has a content
/// of that group (updateSnapshotStatus). The data stays when it is deleted.
pub fn group_to_restore(
    location: &str,
    backup: &str,
    snapshot: &CsiSnapshot,
    api_version: &str,
) -> Option<Value> {
    let handle = snapshot.group_handle.as_deref()?;
    let members = match &snapshot.group_members[..] {
        [] => std::slice::from_ref(&snapshot.handle),
        members => members,
    };
    let mut parts = vec!["restore-group", location, backup, &snapshot.driver, handle];
    parts.extend(members.iter().map(String::as_str));
    let name = hashed_name(&parts);
    Some(json!({
        "apiVersion": api_version,
        "kind": "VolumeGroupSnapshotContent",
        "metadata": {
            "name": name,
            "labels": {
                identity::LOCATION: location,
                identity::BACKUP: label_value(backup),
                VELERO_EXCLUDE_LABEL: "true",
            },
            "annotations": snapshot.annotations,
        },
        "spec": {
            "deletionPolicy": RETAIN,
            "driver": snapshot.driver,
            "source": {"groupSnapshotHandles": {
                "volumeGroupSnapshotHandle": handle,
                "volumeSnapshotHandles": members,
            }},
            "volumeGroupSnapshotRef": {
                "apiVersion": api_version,
                "kind": "VolumeGroupSnapshot",
                "namespace": "default",
                "name": name,
            },
        },
    }))
}

/// A content for a snapshot that exists, reserved for a volumeSnapshot of the same name in namespace `default`.
pub(super) fn content(
    name: &str,
    labels: Value,
    deletion_policy: &str,
    snapshot: &CsiSnapshot,
) -> Value {
    let mut metadata = json!({"name": name, "labels": labels});
    if !snapshot.annotations.is_empty() {
        metadata["annotations"] = json!(snapshot.annotations);
    }
    let mut spec = Map::new();
    spec.insert("deletionPolicy".into(), deletion_policy.into());
    spec.insert("driver".into(), snapshot.driver.as_str().into());
    spec.insert("source".into(), json!({"snapshotHandle": snapshot.handle}));
    // Without it, a driver of file systems would restore a block volume as one.
    if let Some(mode) = &snapshot.source_volume_mode {
        spec.insert("sourceVolumeMode".into(), mode.as_str().into());
    }
    spec.insert(
        "volumeSnapshotRef".into(),
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "VolumeSnapshot", "namespace": "default", "name": name}),
    );
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "VolumeSnapshotContent",
        "metadata": metadata,
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> CsiSnapshot {
        let key = "snapshot.storage.kubernetes.io/deletion-secret-name";
        CsiSnapshot {
            handle: "snap-1".into(),
            driver: "disk".into(),
            source_volume_mode: Some("Block".into()),
            annotations: [(key.to_owned(), "storage".to_owned())].into(),
            ..CsiSnapshot::default()
        }
    }

    #[test]
    fn what_restores_a_snapshot_keeps_its_data_its_mode_and_its_secrets() {
        let (content, volume_snapshot) =
            to_restore("location", "daily", "shop", "pv-1", &snapshot());
        let name = content["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("ark-") && name.len() <= 63, "{name}");
        let labels = json!({
            "ark.heptio.com/location": "location",
            "ark.heptio.com/backup": "daily",
            "ark.heptio.com/pv": "pv-1",
            "velero.io/exclude-from-backup": "true",
        });
        assert_eq!(
            content,
            json!({
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotContent",
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {"snapshot.storage.kubernetes.io/deletion-secret-name": "storage"},
                },
                "spec": {
                    "deletionPolicy": "Retain",
                    "driver": "disk",
                    "source": {"snapshotHandle": "snap-1"},
                    "sourceVolumeMode": "Block",
                    "volumeSnapshotRef": {
                        "apiVersion": "snapshot.storage.k8s.io/v1",
                        "kind": "VolumeSnapshot",
                        "namespace": "shop",
                        "name": name,
                    },
                },
            })
        );
        assert_eq!(
            volume_snapshot,
            json!({
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "metadata": {"name": name, "namespace": "shop", "labels": labels},
                "spec": {"source": {"volumeSnapshotContentName": name}},
            })
        );
    }

    #[test]
    fn all_members_of_a_group_are_restored_with_the_same_content_of_it() {
        let api = "groupsnapshot.storage.k8s.io/v1";
        let of = |snapshot: &CsiSnapshot| group_to_restore("location", "daily", snapshot, api);
        assert_eq!(of(&snapshot()), None);
        let member = |handle: &str| CsiSnapshot {
            handle: handle.into(),
            group_handle: Some("group".into()),
            group_members: vec!["snap-1".into(), "snap-2".into()],
            ..snapshot()
        };
        let content = of(&member("snap-1")).unwrap();
        assert_eq!(of(&member("snap-2")).unwrap(), content);
        assert_eq!(content["spec"]["deletionPolicy"], "Retain");
        assert_eq!(
            content["spec"]["source"],
            json!({"groupSnapshotHandles": {
                "volumeGroupSnapshotHandle": "group",
                "volumeSnapshotHandles": ["snap-1", "snap-2"],
            }})
        );
        // A sweep must not take it for what was taken.
        assert_eq!(content["metadata"]["labels"].get(identity::CLUSTER), None);
    }

    #[test]
    fn every_place_backup_target_volume_and_snapshot_has_names_of_its_own() {
        let name = |location: &str, backup: &str, target: &str, volume: &str| {
            to_restore(location, backup, target, volume, &snapshot()).0["metadata"]["name"].clone()
        };
        let name_of_one = name("l", "b", "t", "v");
        assert_eq!(name_of_one, name("l", "b", "t", "v"));
        for other in [
            name("l2", "b", "t", "v"),
            name("l", "b2", "t", "v"),
            name("l", "b", "t2", "v"),
            name("l", "b", "t", "v2"),
            name("lb", "", "t", "v"),
        ] {
            assert_ne!(name_of_one, other);
        }
        // The backup was deleted and made again.
        let anew = CsiSnapshot {
            handle: "snap-2".into(),
            ..snapshot()
        };
        let (content, _) = to_restore("l", "b", "t", "v", &anew);
        assert_ne!(name_of_one, content["metadata"]["name"]);
    }
}
