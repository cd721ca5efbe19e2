//! Rows F01–F04, F12 and F15–F17 are those of Velero's table of native snapshots (reading the zone), V01–V04 those of its
//! plugin for AWS (reading the id). Keys of other clouds (F13, F14, F18) never are on volumes of EBS.

use super::*;
use serde_json::{Value, json};

fn volume(spec: Value, labels: Value) -> PersistentVolume {
    let object = json!({ "metadata": { "name": "pv-1", "labels": labels }, "spec": spec });
    serde_json::from_value(object).unwrap()
}

/// A claim as it is kept; `changed` is merged into it.
fn claim_with(changed: &Value) -> Claims {
    let mut object = json!({
        "metadata": { "namespace": "shop", "name": "data", "labels": { "tier": "db" } },
        "spec": { "volumeName": "pv-1" },
        "status": { "phase": "Bound" },
    });
    for (field, values) in changed.as_object().unwrap() {
        for (key, value) in values.as_object().unwrap() {
            object[field][key] = value.clone();
        }
    }
    let name = ClaimName {
        namespace: "shop".into(),
        name: "data".into(),
    };
    BTreeMap::from([(name, serde_json::from_value(object).unwrap())])
}

fn csi(driver: &str, handle: &str) -> Value {
    json!({
        "csi": { "driver": driver, "volumeHandle": handle },
        "claimRef": { "namespace": "shop", "name": "data" },
        "persistentVolumeReclaimPolicy": "Delete",
    })
}

fn affinity(expressions: &Value) -> Value {
    let mut spec = csi(EBS_DRIVER, "vol-1");
    spec["nodeAffinity"] =
        json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": expressions }] } });
    spec
}

#[test]
fn the_zone_is_that_of_a_label_or_of_the_node_affinity() {
    const GA: &str = "topology.kubernetes.io/zone";
    const OLD: &str = "failure-domain.beta.kubernetes.io/zone";
    const EBS: &str = "topology.ebs.csi.aws.com/zone";
    let in_zones =
        |key: &str, zones: &[&str]| json!({ "key": key, "operator": "In", "values": zones });
    let plain = csi(EBS_DRIVER, "vol-1");
    for (row, spec, labels, expected) in [
        ("F01", plain.clone(), json!({}), ""),
        ("F02", plain.clone(), json!({ OLD: "eu-1a" }), "eu-1a"),
        ("F03", plain.clone(), json!({ GA: "eu-1b" }), "eu-1b"),
        ("F04", plain, json!({ OLD: "eu-1a", GA: "eu-1b" }), "eu-1b"),
        (
            "F12",
            affinity(&json!([in_zones(EBS, &["eu-1c"])])),
            json!({}),
            "eu-1c",
        ),
        (
            "F15",
            affinity(&json!([in_zones(EBS, &["eu-1c", "eu-1a"])])),
            json!({}),
            "eu-1c",
        ),
        (
            "F16",
            affinity(&json!([in_zones("rack", &["1"])])),
            json!({}),
            "",
        ),
        (
            "F17",
            affinity(&json!([
                in_zones(GA, &["eu-1a"]),
                in_zones(OLD, &["eu-1b"]),
                in_zones(EBS, &["eu-1c"]),
            ])),
            json!({}),
            "eu-1c",
        ),
        (
            "a label wins",
            affinity(&json!([in_zones(EBS, &["eu-1c"])])),
            json!({ GA: "eu-1b" }),
            "eu-1b",
        ),
        (
            "not in",
            affinity(&json!([{ "key": EBS, "operator": "NotIn", "values": ["eu-1c"] }])),
            json!({}),
            "",
        ),
    ] {
        assert_eq!(zone(&volume(spec, labels)), expected, "{row}");
    }
}

#[test]
fn what_a_volume_is_decides_how_it_is_snapshotted() {
    let claims = claim_with(&json!({}));
    let in_tree = |id: &str| json!({ "awsElasticBlockStore": { "volumeID": id } });
    let ebs = |id: Option<&str>, csi| Source::Ebs {
        volume_id: id.map(str::to_owned),
        zone: String::new(),
        csi,
    };
    let name = ClaimName {
        namespace: "shop".into(),
        name: "data".into(),
    };
    let by = |driver: &str| CsiSource {
        driver: driver.into(),
        claim: Ok(name.clone()),
        class: None,
    };
    for (row, spec, expected) in [
        (
            "V01",
            in_tree("aws://eu-1a/vol-0ab"),
            ebs(Some("vol-0ab"), None),
        ),
        ("V01", in_tree("vol-0ab"), ebs(Some("vol-0ab"), None)),
        ("V02", in_tree(""), ebs(None, None)),
        (
            "V03",
            csi(EBS_DRIVER, "vol-0ab"),
            ebs(Some("vol-0ab"), Some(by(EBS_DRIVER))),
        ),
        (
            "V04",
            csi("efs.csi.aws.com", "fs-1"),
            Source::Csi(by("efs.csi.aws.com")),
        ),
        (
            "nfs",
            json!({ "nfs": { "server": "s", "path": "/" } }),
            Source::Other("nfs".into()),
        ),
    ] {
        let found = Found::of(&volume(spec, json!({})), &claims);
        assert_eq!(found.source, expected, "{row}");
    }
}

#[test]
fn annotations_of_claim_and_volume_are_read() {
    let found = |claims: &Claims| Found::of(&volume(csi("d", "h"), json!({})), claims);
    let with =
        |annotations: Value| claim_with(&json!({ "metadata": { "annotations": annotations } }));
    let class = |claims: &Claims| match found(claims).source {
        Source::Csi(csi) => csi.class,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(&claim_with(&json!({}))).opted_out_by, None);
    assert_eq!(
        found(&with(json!({ SKIP_ANNOTATION: "yes" }))).opted_out_by,
        None
    );
    assert_eq!(
        found(&with(json!({ SKIP_ANNOTATION: "true" }))).opted_out_by,
        Some("persistentvolumeclaims shop/data".into())
    );
    let mut annotated = volume(csi("d", "h"), json!({}));
    annotated.metadata.annotations =
        Some(BTreeMap::from([(SKIP_ANNOTATION.into(), "true".into())]));
    assert_eq!(
        Found::of(&annotated, &Claims::new()).opted_out_by,
        Some("persistentvolumes pv-1".into())
    );
    let both = json!({ VELERO_CLASS_ANNOTATION: "velero", CLASS_ANNOTATION: "ark" });
    assert_eq!(class(&with(both)), Some("ark".into()));
    let velero = json!({ VELERO_CLASS_ANNOTATION: "velero" });
    assert_eq!(class(&with(velero)), Some("velero".into()));
}

#[test]
fn a_csi_snapshot_needs_a_claim_that_is_bound_and_stays() {
    let claim =
        |claims: &Claims, spec: Value| match Found::of(&volume(spec, json!({})), claims).source {
            Source::Csi(csi) => csi.claim.map(|name| name.to_string()),
            other => panic!("{other:?}"),
        };
    let bound = claim_with(&json!({}));
    assert_eq!(claim(&bound, csi("d", "h")), Ok("shop/data".into()));
    let unclaimed = json!({ "csi": { "driver": "d", "volumeHandle": "h" } });
    for (claims, spec, why) in [
        (&bound, unclaimed, "bound to no claim"),
        (&Claims::new(), csi("d", "h"), "does not exist"),
        (
            &claim_with(&json!({ "spec": { "volumeName": "another" } })),
            csi("d", "h"),
            "is bound to another volume",
        ),
        (
            &claim_with(&json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            csi("d", "h"),
            "is being deleted",
        ),
    ] {
        let refused = claim(claims, spec).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_record_says_whose_the_volume_is() {
    // F20: with and without a claim.
    for (spec, claim) in [
        (csi("d", "h"), Some("shop/data")),
        (
            json!({ "csi": { "driver": "d", "volumeHandle": "h" } }),
            None,
        ),
    ] {
        let found = Found::of(&volume(spec, json!({ "a": "b" })), &claim_with(&json!({})));
        let record = found.into_record(Data::Unknown);
        assert_eq!(record.persistent_volume, "pv-1");
        assert_eq!(
            record.claim.map(|claim| claim.to_string()).as_deref(),
            claim
        );
        assert_eq!(record.labels["a"], "b");
    }
}
