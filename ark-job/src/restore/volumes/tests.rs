//! Velero's decisions about volumes (its checklist F and L), and our own.

use super::*;
use crate::restore::prepare::{Prepared, Rules, Skip, normalise, prepare};

fn ebs() -> EbsSnapshot {
    EbsSnapshot {
        snapshot_id: "snap-1".into(),
        volume_id: "vol-1".into(),
        region: "eu-central-1".into(),
        availability_zone: "eu-central-1a".into(),
        volume_type: "gp3".into(),
        size_gib: Some(10),
        ..EbsSnapshot::default()
    }
}

fn csi() -> CsiSnapshot {
    CsiSnapshot {
        handle: "h1".into(),
        driver: "d.example.com".into(),
        restore_size: Some(2 << 30),
        ..CsiSnapshot::default()
    }
}

fn record(name: &str, data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: name.into(),
        claim: Some(ClaimName {
            namespace: "a".into(),
            name: "c".into(),
        }),
        reclaim_policy: "Delete".into(),
        labels: BTreeMap::new(),
        data,
    }
}

fn skipped() -> Data {
    Data::Skipped {
        reason: "policy".into(),
    }
}

fn missing() -> Data {
    Data::Missing {
        reason: "no class".into(),
    }
}

fn volumes(records: Vec<VolumeRecord>, zones: &[(&str, &str)]) -> Volumes {
    let zones = zones.iter().map(|(a, b)| ((*a).into(), (*b).into()));
    Volumes::new(records, zones.collect())
}

fn rules(volumes: Volumes) -> Rules {
    Rules {
        volumes,
        ..Rules::default()
    }
}

fn mapped(volumes: Volumes) -> Rules {
    Rules {
        namespaces: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..rules(volumes)
    }
}

/// A volume of EBS as its driver makes it.
fn volume(name: &str, id: &str, zone: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "uid": "u", "labels": {"topology.kubernetes.io/zone": zone, "mine": "x"},
            "annotations": {"pv.kubernetes.io/provisioned-by": EBS_DRIVER, "pv.kubernetes.io/bound-by-controller": "yes"}},
        "spec": {"capacity": {"storage": "10Gi"}, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "s",
            "claimRef": {"namespace": "a", "name": "c", "uid": "u", "resourceVersion": "4"},
            "csi": {"driver": EBS_DRIVER, "volumeHandle": id, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": [zone]},
                {"key": "topology.k8s.aws/zone-id", "operator": "In", "values": ["euc1-az1"]}]}]}}},
        "status": {"phase": "Bound"}})
}

fn in_tree(id: &str) -> Value {
    json!({"metadata": {"name": "pv"}, "spec": {"awsElasticBlockStore": {"volumeID": id, "fsType": "ext4"}}})
}

fn prepared(resource: &str, rules: &Rules, object: &Value) -> (Value, Option<Source>) {
    let name = object["metadata"]["name"].as_str().unwrap();
    match prepare(resource, name, object.to_string().as_bytes(), rules).unwrap() {
        Prepared::Object { object, source, .. } => (object, source),
        Prepared::Skip(why) => panic!("skipped: {why}"),
    }
}

fn why_skipped(resource: &str, rules: &Rules, object: &Value) -> Option<Skip> {
    let name = object["metadata"]["name"].as_str().unwrap();
    match prepare(resource, name, object.to_string().as_bytes(), rules).unwrap() {
        Prepared::Object { .. } => None,
        Prepared::Skip(why) => Some(why),
    }
}

/// F1–F4, F13–F20, F36, F38, F39: what is not recorded goes by its policy, what is recorded by its snapshot.
#[test]
fn f1_to_f4_f13_to_f20_f36_f38_f39_the_record_decides_else_the_policy() {
    let (ebs, csi) = (ebs(), csi());
    let with_ebs = record("pv", Data::Ebs(ebs.clone()));
    let with_csi = record("pv", Data::Csi(csi.clone()));
    let (skipped, missing) = (record("pv", skipped()), record("pv", missing()));
    let unknown = record("pv", Data::Unknown);
    for (record, policy, expected) in [
        (None, "Delete", Way::Anew),
        (None, "Retain", Way::AsItIs),
        (Some(&with_ebs), "Delete", Way::FromDisk(&ebs)),
        (Some(&with_ebs), "Retain", Way::FromDisk(&ebs)),
        (Some(&with_csi), "Retain", Way::FromSnapshot(&csi)),
        (Some(&with_csi), "Delete", Way::FromSnapshot(&csi)),
        (Some(&skipped), "Delete", Way::Anew),
        (Some(&skipped), "Retain", Way::AsItIs),
        (Some(&missing), "Delete", Way::Anew),
        (Some(&missing), "Retain", Way::AsItIs),
        (Some(&unknown), "Delete", Way::NotKnown),
    ] {
        assert_eq!(way(record, policy), expected, "{record:?} {policy}");
    }
}

/// F3, F8, F29, F35, F40.
#[test]
fn f3_f8_f29_f35_f40_a_volume_from_a_disk_points_at_what_is_made_and_is_reserved_for_its_claim() {
    let rules = mapped(volumes(vec![record("pv", Data::Ebs(ebs()))], &[]));
    let (mut object, source) = prepared(VOLUMES, &rules, &volume("pv", "vol-1", "eu-central-1a"));
    let Some(Source::Disk(disk)) = source else {
        panic!("{source:?}");
    };
    assert_eq!(
        *disk,
        DiskSource {
            snapshot: ebs(),
            zone: "eu-central-1a".into()
        }
    );
    attach_disk(&mut object, "vol-2", "eu-central-1b");
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "pv", "labels": {"topology.kubernetes.io/zone": "eu-central-1b", "mine": "x"},
                "annotations": {"pv.kubernetes.io/provisioned-by": EBS_DRIVER}},
            "spec": {"capacity": {"storage": "10Gi"}, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "s",
                "claimRef": {"namespace": "b", "name": "c"},
                "csi": {"driver": EBS_DRIVER, "volumeHandle": "vol-2", "fsType": "ext4"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["eu-central-1b"]}]}]}}}})
    );
    assert_eq!(disk_of(&object), Some("vol-2"));
}

#[test]
fn a_volume_of_the_in_tree_plug_in_keeps_its_form() {
    let rules = rules(volumes(vec![record("pv", Data::Ebs(ebs()))], &[]));
    for (before, after) in [
        ("aws://eu-central-1a/vol-1", "aws://eu-central-1b/vol-2"),
        ("vol-1", "vol-2"),
    ] {
        let (mut object, _) = prepared(VOLUMES, &rules, &in_tree(before));
        attach_disk(&mut object, "vol-2", "eu-central-1b");
        assert_eq!(object["spec"]["awsElasticBlockStore"]["volumeID"], after);
        assert_eq!(disk_of(&object), Some("vol-2"));
    }
}

/// F5, F6: the disk and its zone are no difference, whatever else is one.
#[test]
fn f5_f6_a_volume_that_is_there_is_the_same_whichever_disk_it_has() {
    let rules = mapped(volumes(vec![record("pv", Data::Ebs(ebs()))], &[]));
    let (object, _) = prepared(VOLUMES, &rules, &volume("pv", "vol-1", "eu-central-1a"));
    let mut live = volume("pv", "vol-2", "eu-central-1b");
    live["spec"]["claimRef"]["namespace"] = "b".into();
    normalise(VOLUMES, &mut live, &rules.of_live());
    assert_eq!(object, live);
    let unrecorded = rules_without_records();
    let (object, source) = prepared(
        VOLUMES,
        &unrecorded,
        &volume("pv", "vol-1", "eu-central-1a"),
    );
    assert_eq!(source, None);
    let mut live = volume("pv", "vol-2", "eu-central-1a");
    normalise(VOLUMES, &mut live, &unrecorded.of_live());
    assert_ne!(object, live);
}

fn rules_without_records() -> Rules {
    rules(Volumes::default())
}

/// F7, F9, F10, F12: and a copy that is there is the same one again.
#[test]
fn f7_f9_f10_f12_a_copy_has_a_name_of_its_own_and_its_claim_follows() {
    let mut volumes = volumes(vec![record("pv", Data::Ebs(ebs()))], &[]);
    let clone = clone_name("l", "backup", "b", "pv");
    assert_ne!(clone, clone_name("l", "backup", "other", "pv"));
    volumes.set_clones(BTreeMap::from([("pv".to_owned(), clone.clone())]));
    let rules = mapped(volumes);
    let original = volume("pv", "vol-1", "eu-central-1a");
    let (object, source) = prepared(VOLUMES, &rules, &original);
    assert!(matches!(source, Some(Source::Disk(_))), "{source:?}");
    assert_eq!(object["metadata"]["name"], clone);
    assert_eq!(
        object["metadata"]["annotations"][ORIGINAL_NAME_ANNOTATION],
        "pv"
    );
    let claim = json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {"volumeName": "pv"}});
    let (claim, source) = prepared(CLAIMS, &rules, &claim);
    assert_eq!(
        (claim["spec"]["volumeName"].as_str(), source),
        (Some(&*clone), None)
    );
    // Again, with the one that is there.
    let mut live = object.clone();
    attach_disk(&mut live, "vol-3", "eu-central-1a");
    normalise(VOLUMES, &mut live, &rules.of_live());
    assert_eq!(live, object);
    let mut live = claim.clone();
    normalise(CLAIMS, &mut live, &rules.of_live());
    assert_eq!(live, claim);
}

/// F7, F8, F10: only where the original stays with a claim of another namespace.
#[test]
fn f7_f8_f10_a_copy_is_made_beside_an_original_that_stays() {
    let mut original = volume("pv", "vol-1", "eu-central-1a");
    assert!(!needs_clone("b", None, false));
    assert!(needs_clone("b", Some(&original), false));
    assert!(
        needs_clone("b", None, true),
        "an earlier one is found again"
    );
    assert!(!needs_clone("a", Some(&original), false), "it is the copy");
    original["status"]["phase"] = "Released".into();
    assert!(!needs_clone("b", Some(&original), false), "it is going");
    original["spec"]["persistentVolumeReclaimPolicy"] = "Retain".into();
    assert!(needs_clone("b", Some(&original), false));
}

/// F21–F23, without the claim, which is asked for.
#[test]
fn f21_f22_f23_a_volume_is_fine_going_or_kept_without_its_claim() {
    let with = |phase: &str, policy: &str| {
        let mut volume = volume("pv", "vol-1", "z");
        volume["status"]["phase"] = phase.into();
        volume["spec"]["persistentVolumeReclaimPolicy"] = policy.into();
        volume
    };
    for (phase, policy, expected) in [
        ("Bound", "Delete", Standing::Fine),
        ("Available", "Retain", Standing::Fine),
        ("Released", "Delete", Standing::Going),
        ("Failed", "Delete", Standing::Going),
        ("Released", "Retain", Standing::Released),
    ] {
        assert_eq!(standing(&with(phase, policy)), expected, "{phase} {policy}");
    }
    let mut deleted = with("Bound", "Retain");
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(standing(&deleted), Standing::Going);
}

#[test]
fn the_zone_is_the_recorded_one_or_the_volumes_and_is_mapped() {
    let zone_of_disk = |zone: &str, object: &Value, zones: &[(&str, &str)]| {
        let snapshot = EbsSnapshot {
            availability_zone: zone.into(),
            ..ebs()
        };
        let volumes = volumes(vec![record("pv", Data::Ebs(snapshot))], zones);
        match volumes.source(VOLUMES, object) {
            Some(Source::Disk(disk)) => Ok(disk.zone),
            Some(Source::Nowhere(why)) => Err(why),
            other => panic!("{other:?}"),
        }
    };
    let object = volume("pv", "vol-1", "eu-central-1c");
    let of = |zone: &str| Ok(zone.to_owned());
    assert_eq!(
        zone_of_disk("eu-central-1a", &object, &[]),
        of("eu-central-1a")
    );
    assert_eq!(zone_of_disk("", &object, &[]), of("eu-central-1c"));
    assert_eq!(
        zone_of_disk("", &in_tree("aws://eu-central-1b/vol-1"), &[]),
        of("eu-central-1b")
    );
    let mapping = [("eu-central-1c", "eu-central-1b")];
    assert_eq!(zone_of_disk("", &object, &mapping), of("eu-central-1b"));
    let error = zone_of_disk("", &in_tree("vol-1"), &[]).unwrap_err();
    assert!(error.contains("which zone"), "{error}");
    let error = zone_of_disk("", &object, &[("eu-central-1c", "us-east-1a")]).unwrap_err();
    assert!(error.contains("is in region eu-central-1"), "{error}");
    let other = json!({"metadata": {"name": "pv"}, "spec": {"nfs": {"server": "s"}}});
    let error = zone_of_disk("eu-central-1a", &other, &[]).unwrap_err();
    assert!(error.contains("no volume of EBS"), "{error}");
}

#[test]
fn what_a_later_version_has_kept_is_not_replaced_by_something_empty() {
    let rules = rules(volumes(vec![record("pv", Data::Unknown)], &[]));
    let (_, source) = prepared(VOLUMES, &rules, &volume("pv", "vol-1", "z"));
    assert!(
        matches!(&source, Some(Source::Nowhere(why)) if why.contains("later version")),
        "{source:?}"
    );
}

/// F13, F17, L1, L4, L13.
#[test]
fn f13_f17_l1_l4_l13_a_claim_is_made_from_the_snapshot_of_its_driver() {
    let rules = mapped(volumes(vec![record("pv", Data::Csi(csi()))], &[]));
    let object = volume("pv", "x", "z");
    assert_eq!(
        why_skipped(VOLUMES, &rules, &object),
        Some(Skip::FromSnapshot)
    );
    let other = json!({"kind": "VolumeSnapshot", "name": "old"});
    let claim = json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {"volumeName": "pv", "dataSource": other,
        "dataSourceRef": other, "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": "s",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let (mut object, source) = prepared(CLAIMS, &rules, &claim);
    let Some(Source::Snapshot(source)) = source else {
        panic!("{source:?}");
    };
    assert_eq!((source.snapshot, &*source.persistent_volume), (csi(), "pv"));
    // The live one, which its provisioner has bound to another volume, is the same.
    let mut live = object.clone();
    attach_snapshot(&mut live, "vs");
    live["spec"]["volumeName"] = "pvc-new".into();
    normalise(CLAIMS, &mut live, &rules.of_live());
    assert_eq!(live, object);
    attach_snapshot(&mut object, "vs");
    assert_eq!(
        object["spec"],
        json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "vs"},
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "storageClassName": "s",
            "resources": {"requests": {"storage": "2147483648"}}})
    );
    // Another claim, or one that asks for enough, stays as it is.
    let mut enough = claim.clone();
    enough["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    let (object, _) = prepared(CLAIMS, &rules, &enough);
    assert_eq!(object["spec"]["resources"]["requests"]["storage"], "2Gi");
    let mut other = claim;
    other["metadata"]["name"] = "d".into();
    other["spec"]["volumeName"] = "pv2".into();
    let (object, source) = prepared(CLAIMS, &rules, &other);
    assert_eq!(
        (object["spec"]["volumeName"].as_str(), source),
        (Some("pv2"), None)
    );
}

/// F1, F19, S03: and it is said when there should have been a snapshot.
#[test]
fn f1_f19_a_claim_provisioned_anew_has_no_source_and_compares_equal_when_bound() {
    let mut volumes = volumes(vec![record("pv", missing())], &[]);
    let claim = ClaimName {
        namespace: "a".into(),
        name: "c".into(),
    };
    assert_eq!(volumes.note("pv", "Delete", Some(claim)), Way::Anew);
    let rules = mapped(volumes);
    let source = json!({"kind": "VolumeSnapshot", "name": "old"});
    let claim = json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {"volumeName": "pv", "dataSource": source, "dataSourceRef": source}});
    let (object, source) = prepared(CLAIMS, &rules, &claim);
    assert_eq!((&object["spec"], source), (&json!({}), None));
    let remark = rules.volumes.remark(CLAIMS, &claim).unwrap();
    assert!(
        remark.contains("empty volume") && remark.contains("no class"),
        "{remark}"
    );
    let mut live = object.clone();
    live["spec"]["volumeName"] = "pvc-new".into();
    normalise(CLAIMS, &mut live, &rules.of_live());
    assert_eq!(live, object);
}

/// Of what cannot be snapshotted nobody has data, and every restore of it would warn.
#[test]
fn a_kept_volume_whose_data_others_have_is_named() {
    let elsewhere =
        "Velero has its files in a repository of kopia or restic, and ark does not restore those";
    for (reason, is_named) in [(elsewhere, true), ("no class", false)] {
        let data = Data::Missing {
            reason: reason.into(),
        };
        let volumes = volumes(vec![record("pv", data)], &[]);
        let remark = volumes.remark(VOLUMES, &volume("pv", "vol-1", "z"));
        assert_eq!(remark.is_some(), is_named, "{remark:?}");
        assert!(remark.is_none_or(|text| text.contains(reason)));
    }
}

/// F37, L2, L15, L19, L20: nothing comes from snapshots when volumes are not asked for, nor points at the old disks.
#[test]
fn f37_l2_l15_l19_l20_without_volumes_nothing_of_snapshots_comes_back() {
    let records = vec![
        record("ebs", Data::Ebs(ebs())),
        record("csi", Data::Csi(csi())),
    ];
    let rules = Rules {
        without_volumes: true,
        ..rules(volumes(records, &[]))
    };
    for name in ["ebs", "csi"] {
        let volume = volume(name, "vol-1", "z");
        assert_eq!(
            why_skipped(VOLUMES, &rules, &volume),
            Some(Skip::WithoutVolumes)
        );
    }
    for resource in [
        "volumesnapshots",
        "volumesnapshotcontents",
        "volumesnapshotclasses",
    ] {
        let object = json!({"metadata": {"name": "s"}, "spec": {"source": {"volumeSnapshotContentName": "x"}}});
        let resource = format!("{resource}.{SNAPSHOT_GROUP}");
        assert_eq!(
            why_skipped(&resource, &rules, &object),
            Some(Skip::WithoutVolumes)
        );
    }
    let claim = json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {"volumeName": "csi"}});
    let (object, source) = prepared(CLAIMS, &rules, &claim);
    assert_eq!((&object["spec"], source), (&json!({}), None));
}

/// L14, L15, L20: the user's own, mapped and not.
#[test]
fn l14_l15_l20_the_users_snapshots_come_back_for_the_handle_that_was_taken() {
    const SNAPSHOTS: &str = "volumesnapshots.snapshot.storage.k8s.io";
    const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
    let snapshot = json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"volumeSnapshotClassName": "k",
        "source": {"persistentVolumeClaimName": "c"}}, "status": {"boundVolumeSnapshotContentName": "content"}});
    let content = json!({"metadata": {"name": "content"}, "spec": {"driver": "d", "deletionPolicy": "Delete",
        "source": {"volumeHandle": "v"}, "volumeSnapshotClassName": "k",
        "volumeSnapshotRef": {"name": "s", "namespace": "a", "uid": "u", "resourceVersion": "1"}},
        "status": {"snapshotHandle": "h"}});
    let plain = rules_without_records();
    let (restored, _) = prepared(SNAPSHOTS, &plain, &snapshot);
    assert_eq!(
        restored["spec"],
        json!({"volumeSnapshotClassName": "k", "source": {"volumeSnapshotContentName": "content"}})
    );
    let (restored, _) = prepared(CONTENTS, &plain, &content);
    assert_eq!(
        restored["spec"],
        json!({"driver": "d", "deletionPolicy": "Retain", "source": {"snapshotHandle": "h"}, "volumeSnapshotClassName": "k",
            "volumeSnapshotRef": {"name": "s", "namespace": "a"}})
    );
    // The original in the cluster is the same.
    let mut live = content.clone();
    normalise(CONTENTS, &mut live, &plain.of_live());
    assert_eq!(live, restored);
    let mapped = mapped(Volumes::default());
    let (copy, _) = prepared(CONTENTS, &mapped, &content);
    let name = content_name("b", "content");
    assert_eq!(copy["metadata"]["name"], name);
    assert_eq!(copy["spec"]["volumeSnapshotRef"]["namespace"], "b");
    let (copy, _) = prepared(SNAPSHOTS, &mapped, &snapshot);
    assert_eq!(copy["spec"]["source"]["volumeSnapshotContentName"], name);
    // Not taken yet: it would take one of what is there now.
    for (resource, object) in [(SNAPSHOTS, snapshot), (CONTENTS, content)] {
        let mut object = object;
        object["status"] = Value::Null;
        assert_eq!(
            why_skipped(resource, &plain, &object),
            Some(Skip::NoSnapshot)
        );
    }
}

#[test]
fn a_plan_says_what_is_made_from_which_snapshot() {
    let disk = Source::Disk(Box::new(DiskSource {
        snapshot: ebs(),
        zone: "eu-central-1b".into(),
    }));
    assert_eq!(
        disk.in_words().unwrap(),
        "a volume from snapshot snap-1: 10 GiB, gp3, in eu-central-1b"
    );
    let Claim::FromSnapshot(source) = from_snapshot("pv", &csi()) else {
        panic!();
    };
    assert_eq!(
        Source::Snapshot(source).in_words().unwrap(),
        "a volume from snapshot h1 of d.example.com, 2 GiB"
    );
}

#[test]
fn zones_that_are_mapped_in_vain_are_known() {
    let of = |data: Data| vec![record("pv", data)];
    let zones = [
        ("eu-central-1a", "eu-central-1b"),
        ("eu-central-1x", "eu-central-1b"),
    ];
    let other = |zone: &str| {
        Data::Ebs(EbsSnapshot {
            availability_zone: zone.into(),
            ..ebs()
        })
    };
    assert_eq!(
        volumes(of(Data::Ebs(ebs())), &zones).idle_zones(),
        ["eu-central-1x"]
    );
    // A zone that is mapped to is none that is mapped.
    assert_eq!(
        volumes(of(other("eu-central-1b")), &zones).idle_zones(),
        ["eu-central-1a", "eu-central-1x"]
    );
    assert_eq!(
        volumes(of(skipped()), &zones[..1]).idle_zones(),
        ["eu-central-1a"]
    );
    // Who does not say it may be in any.
    for data in [other(""), Data::Unknown] {
        assert!(volumes(of(data), &zones).idle_zones().is_empty());
    }
}
