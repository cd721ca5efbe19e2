//! Rows Q17–Q32 of Velero's behaviour, as far as they are about policies.

use super::*;
use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use serde_json::json;

const GIB: u128 = 1 << 30;

/// One policy with these conditions (YAML in flow style).
fn policy(conditions: &str) -> Policies {
    let yaml = format!(
        "version: v1\nvolumePolicies:\n- conditions: {conditions}\n  action: {{type: skip}}\n"
    );
    Policies::parse(&yaml).unwrap_or_else(|why| panic!("{conditions}: {why}"))
}

fn matches(conditions: &str, volume: &VolumeFacts) -> bool {
    policy(conditions).action(volume).is_some()
}

fn refused(conditions: &str) -> String {
    let yaml = format!(
        "version: v1\nvolumePolicies:\n- conditions: {conditions}\n  action: {{type: skip}}\n"
    );
    match Policies::parse(&yaml) {
        Ok(_) => panic!("{conditions} was accepted"),
        Err(why) => why,
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn csi(driver: &str, attributes: &[(&str, &str)]) -> VolumeFacts {
    VolumeFacts {
        volume_type: "csi".into(),
        csi: Some((driver.into(), map(attributes))),
        ..VolumeFacts::default()
    }
}

fn nfs(server: &str, path: &str) -> VolumeFacts {
    VolumeFacts {
        volume_type: "nfs".into(),
        nfs: Some((server.into(), path.into())),
        ..VolumeFacts::default()
    }
}

fn config_map(data: serde_json::Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "data": data})).unwrap()
}

#[test]
fn q17_policies_are_in_exactly_one_key() {
    let found = of_config_map(&config_map(json!({"any": "version: v1\n"})), "p").unwrap();
    assert_eq!(found, Policies::default());
    for data in [json!({}), json!(null), json!({"a": "version: v1", "b": ""})] {
        let error = of_config_map(&config_map(data), "p").unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(
            error.message().contains("exactly one"),
            "{}",
            error.message()
        );
    }
    let error = of_config_map(&config_map(json!({"k": "version: v2"})), "p").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("--resource-policies-configmap: ConfigMap p, k: "),
        "{}",
        error.message()
    );
}

#[test]
fn q18_what_is_not_in_the_format_is_an_error_with_its_place() {
    let unknown = refused("\n    unknown: {}\n");
    assert!(
        unknown.contains("unknown") && unknown.contains("line 4"),
        "{unknown}"
    );
    let twice = refused("\n    csi: {}\n    csi: {}\n");
    assert!(
        twice.contains("duplicate") && twice.contains("line 5"),
        "{twice}"
    );
    for conditions in [
        "{storageClass: ebs-sc}",
        "{storageClass: {a: b}}",
        "{csi: x}",
        "{csi: [a]}",
        "{csi: {drivers: x}}",
        "{csi: {driver: x, volumeAttributes: [a]}}",
        "{nfs: x}",
        "{nfs: {host: x}}",
        "{nfs: {server: a, server: b}}",
        "{pvcLabels: [a]}",
        "{pvcLabels: a}",
        "{pvcPhase: Bound}",
        "{volumeTypes: nfs}",
    ] {
        refused(conditions);
    }
    for yaml in [
        "version: v1\nvolumePolicy: []\n",
        "version: v1\nversion: v1\n",
        "version: v1\nvolumePolicies:\n- conditions: {}\n",
        "version: v1\nvolumePolicies:\n- {conditions: {}, action: {type: skip, kind: x}}\n",
        "- a\n",
        "",
        "version: v1\n---\nversion: v1\n",
    ] {
        assert!(Policies::parse(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn q19_what_velero_accepts_is_accepted() {
    let yaml = r#"version: v1
volumePolicies:
- conditions:
    capacity: "0,100Gi"
    csi:
      driver: aws.ebs.csi.driver
    nfs: {}
    storageClass:
    - gp2
    - ebs-sc
    pvcLabels:
      environment: production
      app: database
      numeric: 1
  action:
    type: skip
- conditions:
    csi:
      driver: files.csi.driver
      volumeAttributes: {protocol: nfs}
    volumeTypes: [emptyDir, csi]
    pvcPhase: [Pending, Lost]
  action:
    type: snapshot
    parameters: {volumeSnapshotClass: fast}
"#;
    assert_eq!(Policies::parse(yaml).unwrap().0.len(), 2);
}

#[test]
fn q20_q21_the_first_policy_that_matches_decides() {
    let policies = Policies::parse(
        "version: v1
volumePolicies:
- {conditions: {storageClass: [a]}, action: {type: snapshot}}
- {conditions: {volumeTypes: [csi]}, action: {type: skip}}
",
    )
    .unwrap();
    let mut volume = csi("d", &[]);
    assert_eq!(policies.action(&volume), Some(Action::Skip));
    volume.storage_class = "a".into();
    assert_eq!(policies.action(&volume), Some(Action::Snapshot));
    assert_eq!(policies.action(&nfs("s", "/")), None);
    assert_eq!(Policies::default().action(&volume), None);
}

#[test]
fn q22_without_conditions_every_volume_matches() {
    assert!(matches("{}", &VolumeFacts::default()));
    assert!(matches("{}", &csi("d", &[])));
    let none = "version: v1\nvolumePolicies:\n- action: {type: skip}\n";
    let none = Policies::parse(none).unwrap();
    assert_eq!(none.action(&VolumeFacts::default()), Some(Action::Skip));
}

#[test]
fn every_condition_of_a_policy_must_hold() {
    let both = "{storageClass: [a], csi: {driver: d}}";
    let mut volume = csi("d", &[]);
    assert!(!matches(both, &volume));
    volume.storage_class = "a".into();
    assert!(matches(both, &volume));
    volume.csi = Some(("e".into(), BTreeMap::new()));
    assert!(!matches(both, &volume));
    assert!(!matches("{storageClass: [a]}", &VolumeFacts::default()));
}

#[test]
fn q23_q24_csi_is_matched_by_driver_and_attributes() {
    let volume = csi("d", &[("a", "1"), ("b", "2")]);
    assert!(matches("{csi: {}}", &volume));
    assert!(!matches("{csi: {}}", &nfs("s", "/")));
    assert!(matches("{csi: {driver: d}}", &volume));
    assert!(!matches("{csi: {driver: e}}", &volume));
    assert!(matches(
        "{csi: {driver: d, volumeAttributes: {a: '1'}}}",
        &volume
    ));
    assert!(matches(
        "{csi: {driver: d, volumeAttributes: {a: '1', b: '2'}}}",
        &volume
    ));
    assert!(!matches(
        "{csi: {driver: d, volumeAttributes: {a: '2'}}}",
        &volume
    ));
    assert!(!matches(
        "{csi: {driver: d, volumeAttributes: {c: '1'}}}",
        &volume
    ));
    assert!(!matches(
        "{csi: {driver: d, volumeAttributes: {c: ''}}}",
        &volume
    ));
    assert!(!matches("{csi: {driver: d}}", &VolumeFacts::default()));
    // Without a value Velero takes it for no condition at all, so it would match every volume.
    assert!(refused("{csi: }").contains("`csi: {}`"));
}

#[test]
fn q25_nfs_is_matched_by_server_and_path() {
    let volume = nfs("s", "/p");
    assert!(matches("{nfs: {}}", &volume));
    assert!(!matches("{nfs: {}}", &csi("d", &[])));
    assert!(matches("{nfs: {server: s}}", &volume));
    assert!(!matches("{nfs: {server: t}}", &volume));
    assert!(matches("{nfs: {path: /p}}", &volume));
    assert!(!matches("{nfs: {path: /}}", &volume));
    assert!(matches("{nfs: {server: s, path: /p}}", &volume));
    assert!(!matches("{nfs: {server: s, path: /q}}", &volume));
    assert!(refused("{nfs: ~}").contains("`nfs: {}`"));
}

#[test]
fn q26_bounds_of_capacity_belong_to_it() {
    let of = |bytes: u128| VolumeFacts {
        capacity: Some(bytes),
        ..VolumeFacts::default()
    };
    for (range, bytes, expected) in [
        ("10Gi,20Gi", 10 * GIB, true),
        ("10Gi,20Gi", 20 * GIB, true),
        ("10Gi,20Gi", 10 * GIB - 1, false),
        ("10Gi,20Gi", 20 * GIB + 1, false),
        (" 10Gi , 20Gi ", 15 * GIB, true),
        ("10Gi,10Gi", 10 * GIB, true),
        (",20Gi", 0, true),
        ("0,20Gi", 20 * GIB, true),
        (",20Gi", 20 * GIB + 1, false),
        ("10Gi,", u128::from(u64::MAX), true),
        ("10Gi,0", 10 * GIB, true),
        ("10Gi,", 10 * GIB - 1, false),
        ("0,0", 7, true),
        (",", 7, true),
        ("", 7, true),
        ("1.5,2.5", 1, false),
        ("1.5,2.5", 2, true),
        ("1.5,2.5", 3, false),
        ("10G,10Gi", 10 * GIB, true),
    ] {
        let conditions = format!("{{capacity: \"{range}\"}}");
        assert_eq!(
            matches(&conditions, &of(bytes)),
            expected,
            "{range} {bytes}"
        );
    }
    assert!(!matches("{capacity: '1,'}", &VolumeFacts::default()));
    assert!(matches(
        "{capacity: 10Gi}".replace("10Gi", "'10Gi,'").as_str(),
        &of(10 * GIB)
    ));
}

#[test]
fn q27_what_a_volume_is_follows_from_its_spec() {
    for name in [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "glusterfs",
        "hostPath",
        "iscsi",
        "local",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ] {
        // Whatever the source needs to be one.
        let source = json!({
            "volumeID": "v", "diskName": "d", "diskURI": "u", "secretName": "s", "shareName": "s", "monitors": [],
            "driver": "d", "volumeHandle": "h", "pdName": "p", "endpoints": "e", "path": "/p", "iqn": "i", "lun": 0,
            "targetPortal": "t", "server": "s", "pdID": "p", "registry": "r", "volume": "v", "image": "i",
            "gateway": "g", "system": "s", "volumePath": "/v", "secretRef": {}, "datasetName": "d",
        });
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "pv"}, "spec": {"storageClassName": "c", name: source},
        }))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        let facts = VolumeFacts::of(&volume, None);
        assert_eq!(facts.volume_type, name);
        assert!(matches(
            &format!("{{volumeTypes: [secret, {name}]}}"),
            &facts
        ));
    }
    let old = VolumeFacts {
        volume_type: "storageos".into(),
        ..VolumeFacts::default()
    };
    assert!(matches("{volumeTypes: [storageOS]}", &old));
    let unknown = PersistentVolume {
        spec: Some(PersistentVolumeSpec::default()),
        ..PersistentVolume::default()
    };
    let facts = VolumeFacts::of(&unknown, None);
    assert_eq!(facts.volume_type, "");
    assert!(!matches("{volumeTypes: [csi, nfs]}", &facts));
    assert!(refused("{volumeTypes: [NFS]}").contains("\"NFS\" is not known"));
}

#[test]
fn the_facts_are_those_of_volume_and_claim() {
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": "pv-1"},
        "spec": {
            "capacity": {"storage": "1.5Gi"},
            "storageClassName": "fast",
            "claimRef": {"namespace": "a", "name": "data"},
            "csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"k": "v"}},
        },
    }))
    .unwrap();
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "data", "labels": {"app": "db"}}, "status": {"phase": "Bound"},
    }))
    .unwrap();
    let expected = VolumeFacts {
        persistent_volume: "pv-1".into(),
        claim: Some(ClaimName {
            namespace: "a".into(),
            name: "data".into(),
        }),
        claim_labels: map(&[("app", "db")]),
        claim_phase: "Bound".into(),
        storage_class: "fast".into(),
        capacity: Some(3 << 29),
        volume_type: "csi".into(),
        csi: Some(("d".into(), map(&[("k", "v")]))),
        nfs: None,
    };
    assert_eq!(VolumeFacts::of(&volume, Some(&claim)), expected);
}

#[test]
fn q28_labels_of_the_claim_are_a_superset() {
    let of = |labels: &[(&str, &str)]| VolumeFacts {
        claim_labels: map(labels),
        ..VolumeFacts::default()
    };
    let wanted = "{pvcLabels: {environment: production, app: db}}";
    assert!(matches(
        wanted,
        &of(&[("environment", "production"), ("app", "db"), ("x", "y")])
    ));
    assert!(!matches(
        wanted,
        &of(&[("environment", "staging"), ("app", "db")])
    ));
    assert!(!matches(wanted, &of(&[("environment", "production")])));
    assert!(matches("{pvcLabels: {}}", &of(&[])));
    assert!(!matches(wanted, &of(&[])));
}

#[test]
fn q29_the_phase_of_the_claim_is_one_of_them() {
    let of = |phase: &str| VolumeFacts {
        claim_phase: phase.into(),
        ..VolumeFacts::default()
    };
    assert!(matches("{pvcPhase: [Pending]}", &of("Pending")));
    assert!(matches("{pvcPhase: [Pending, Lost]}", &of("Lost")));
    assert!(!matches("{pvcPhase: [Pending, Lost]}", &of("Bound")));
    assert!(!matches("{pvcPhase: [Pending]}", &of("")));
    assert!(matches("{pvcPhase: []}", &of("Bound")));
    assert!(refused("{pvcPhase: [bound]}").contains("Bound, Pending, Lost"));
}

#[test]
fn q30_what_makes_no_sense_is_refused() {
    for (conditions, says) in [
        (
            "{capacity: '20Gi,10Gi'}",
            "volumePolicies[0].conditions.capacity: ",
        ),
        ("{capacity: 10Gi}", "two quantities"),
        ("{capacity: '1,2,3'}", "two quantities"),
        ("{capacity: 'a,b'}", "\"a\" is not a quantity"),
        ("{capacity: '-1,'}", "negative"),
        ("{csi: {volumeAttributes: {a: b}}}", "driver must be said"),
    ] {
        let why = refused(conditions);
        assert!(why.contains(says), "{conditions}: {why}");
    }
    for (yaml, says) in [
        ("version: v2\n", "version \"v2\""),
        ("volumePolicies: []\n", "version \"\""),
        ("version: 1\n", "version \"1\""),
        (
            "version: v1\nvolumePolicies: [{action: {type: fs-backup}}]\n",
            "takes snapshots only",
        ),
        (
            "version: v1\nvolumePolicies: [{action: {type: custom}}]\n",
            "takes snapshots only",
        ),
        (
            "version: v1\nvolumePolicies: [{action: {type: Skip}}]\n",
            "volumePolicies[0].action.type: \"Skip\"",
        ),
        (
            "version: v1\nincludeExcludePolicy: {includedClusterScopedResources: [crd]}\n",
            "--include-cluster-resources",
        ),
    ] {
        let why = Policies::parse(yaml).unwrap_err();
        assert!(why.contains(says), "{yaml}: {why}");
    }
}

#[test]
fn q31_the_four_shapes_of_capacity_are_valid() {
    for range in ["1,10", "0,10", "10,0", "0,0"] {
        policy(&format!("{{capacity: \"{range}\"}}"));
    }
}
