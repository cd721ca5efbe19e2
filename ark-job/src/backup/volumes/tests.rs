use super::*;
use crate::volumes::{ClaimName, CsiSnapshot, EbsSnapshot};
use serde_json::{Value, json};

fn record(name: &str, data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: name.into(),
        claim: None,
        reclaim_policy: "Delete".into(),
        labels: BTreeMap::new(),
        data,
    }
}

fn ebs(id: &str) -> Data {
    Data::Ebs(EbsSnapshot {
        snapshot_id: id.into(),
        volume_type: "gp3".into(),
        size_gib: Some(2),
        ..EbsSnapshot::default()
    })
}

fn skipped() -> Data {
    Data::Skipped { reason: "r".into() }
}

fn missing() -> Data {
    Data::Missing { reason: "r".into() }
}

fn looked(names: &[&str], snapshot_volumes: Option<bool>) -> Looked {
    let records = names
        .iter()
        .map(|name| ((*name).to_owned(), record(name, skipped())));
    Looked {
        records: records.collect(),
        of_others: OfOthers {
            snapshot_volumes,
            why: "it came late".into(),
        },
    }
}

fn volume(name: &str, annotations: Value) -> PersistentVolume {
    let object = json!({
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "claimRef": { "namespace": "shop", "name": "data" } },
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_status_counts_all_volumes_and_names_the_first_snapshots() {
    assert_eq!(counts(&[]), None);
    let csi = Data::Csi(CsiSnapshot {
        handle: "h".into(),
        driver: "d".into(),
        restore_size: Some(5),
        ..CsiSnapshot::default()
    });
    let mut records = vec![
        record("a", ebs("snap-a")),
        record("b", csi),
        record("c", skipped()),
        record("d", missing()),
    ];
    assert_eq!(
        counts(&records),
        Some(VolumeCounts {
            snapshotted: 2,
            skipped: 1,
            missing: 1
        })
    );
    assert_eq!(
        serde_json::to_value(volume_backups(&records)).unwrap(),
        json!({
            "a": { "snapshotID": "snap-a", "driver": "ebs.csi.aws.com", "size": 2_147_483_648_u64, "type": "gp3" },
            "b": { "snapshotID": "h", "driver": "d", "size": 5 },
        })
    );
    records.extend((0..300).map(|n| record(&format!("e{n:03}"), ebs("snap"))));
    assert_eq!(volume_backups(&records).len(), SHOWN);
    assert_eq!(counts(&records).unwrap().snapshotted, 302);
}

#[test]
fn a_volume_that_comes_late_is_named_as_strongly_as_snapshots_are_asked_for() {
    for (asked, weight) in [(None, Weight::Warning), (Some(true), Weight::Error)] {
        let looked = looked(&["known"], asked);
        assert!(looked.late(&volume("known", json!({}))).is_none());
        let late = looked.late(&volume("new", json!({}))).unwrap();
        assert!(matches!(late.record.data, Data::Missing { .. }));
        assert_eq!(
            late.missing,
            Some((
                weight,
                "persistentvolumes new (claim shop/data) has no snapshot, so the data in it is not in the backup: it \
                 came late"
                    .into()
            ))
        );
        let opted_out = looked.late(&volume("new", json!({ SKIP_ANNOTATION: "true" })));
        assert!(opted_out.unwrap().missing.is_none());
    }
    let late = looked(&[], Some(false)).late(&volume("new", json!({})));
    assert!(late.unwrap().missing.is_none());
}

#[test]
fn records_are_in_the_order_of_names() {
    let looked = looked(&["a", "c"], None);
    let names: Vec<String> = looked
        .records(&[record("b", missing())])
        .into_iter()
        .map(|record| record.persistent_volume)
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn only_several_claims_of_one_namespace_and_driver_are_a_group() {
    let csi = |name: &str, namespace: &str, driver: &str| Wanted {
        record: record(name, Data::Unknown),
        way: Way::Csi {
            claim: ClaimName {
                namespace: namespace.into(),
                name: name.into(),
            },
            driver: driver.into(),
            class: "c".into(),
        },
    };
    let disk = Wanted {
        record: record("disk", Data::Unknown),
        way: Way::Disk {
            region: String::new(),
            zone: String::new(),
            volume_id: "vol-1".into(),
        },
    };
    let mut wanted = vec![
        csi("a", "x", "d"),
        disk,
        csi("b", "x", "e"),
        csi("c", "y", "d"),
        csi("d", "x", "d"),
    ];
    let names = |wanted: &[Wanted]| -> Vec<String> {
        let names = wanted
            .iter()
            .map(|one| one.record.persistent_volume.clone());
        names.collect()
    };
    let groups = of_one_driver(&mut wanted);
    let groups: Vec<Vec<String>> = groups.iter().map(|group| names(group)).collect();
    assert_eq!(groups, [["a", "d"]]);
    assert_eq!(names(&wanted), ["disk", "b", "c"]);
}
