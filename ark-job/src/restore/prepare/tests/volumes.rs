//! Claims, volumes and storage classes.

use super::*;

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const STATEFUL_SETS: &str = "statefulsets.apps";

/// F1, F2, F30, K58–K60, K62.
#[test]
fn f1_f2_f30_k58_to_k62_claims_forget_their_binding_and_those_of_lost_volumes_their_volume() {
    let annotations = json!({
        "pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.beta.kubernetes.io/storage-provisioner": "p", "volume.kubernetes.io/storage-provisioner": "p",
        "volume.kubernetes.io/selected-node": "node-1", "mine": "x",
    });
    let claim = |volume: &str| json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume, "storageClassName": "s"}});
    let object = mapping(CLAIMS, claim("kept"));
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "x"}));
    assert_eq!(object["spec"]["volumeName"], "kept");
    let object = mapping(CLAIMS, claim("gone"));
    assert_eq!(object["spec"], json!({"storageClassName": "s"}));
    let plain = json!({"metadata": {"name": "c"}, "spec": {}});
    assert_eq!(kept(CLAIMS, plain.clone()), plain);
    let only = json!({"metadata": {"name": "c", "annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    assert_eq!(kept(CLAIMS, only), json!({"metadata": {"name": "c"}}));
}

/// F1, F2, F8, F10, F19, F20, F29, F35, F36.
#[test]
fn f1_f2_f8_f10_f29_f35_volumes_that_stay_are_reserved_for_their_claim_and_lost_ones_are_left_out()
{
    let volume = |name: &str| {
        json!({
            "metadata": {"name": name, "annotations": {
                "pv.kubernetes.io/provisioned-by": "p", "pv.kubernetes.io/bound-by-controller": "yes", "mine": "x"}},
            "spec": {"storageClassName": "s", "persistentVolumeReclaimPolicy": "Retain",
                     "claimRef": {"namespace": "a", "name": "c", "uid": "u", "resourceVersion": "4"}}})
    };
    assert_eq!(
        mapping(VOLUMES, volume("kept")),
        json!({
            "metadata": {"name": "kept", "annotations": {"pv.kubernetes.io/provisioned-by": "p"}},
            "spec": {"storageClassName": "s", "persistentVolumeReclaimPolicy": "Retain",
                     "claimRef": {"namespace": "b", "name": "c"}}})
    );
    assert_eq!(
        with(VOLUMES, &mapped(), volume("gone")),
        Prepared::Skip(Skip::Reprovisioned)
    );
}

/// F37, and L2 without the driver.
#[test]
fn f37_without_volumes_claims_get_new_ones_and_kept_volumes_come_back_as_they_are() {
    let rules = Rules {
        without_volumes: true,
        ..mapped()
    };
    let prepared = |resource: &str, object: Value| match with(resource, &rules, object) {
        Prepared::Object { object, .. } => object,
        Prepared::Skip(why) => panic!("skipped: {why}"),
    };
    let snapshot =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let object = prepared(
        CLAIMS,
        json!({"spec": {"volumeName": "kept", "dataSource": snapshot, "dataSourceRef": snapshot, "storageClassName": "s"}}),
    );
    assert_eq!(object["spec"], json!({"storageClassName": "s"}));
    let clone = json!({"kind": "PersistentVolumeClaim", "name": "other"});
    let object = prepared(
        CLAIMS,
        json!({"spec": {"dataSource": clone, "dataSourceRef": clone}}),
    );
    assert_eq!(
        object["spec"],
        json!({"dataSource": clone, "dataSourceRef": clone})
    );
    let volume = json!({"metadata": {"name": "v"}, "spec": {"csi": {"volumeHandle": "h"}}});
    assert_eq!(prepared(VOLUMES, volume.clone()), volume);
}

#[test]
fn k14_k15_k18_k19_classes_of_volumes_and_claims_are_mapped() {
    for resource in [VOLUMES, CLAIMS] {
        for (class, expected) in [
            (json!("slow"), json!("fast")),
            (json!("other"), json!("other")),
            (json!(""), json!("")),
            (Value::Null, Value::Null),
        ] {
            let object = mapping(resource, json!({"spec": {"storageClassName": class}}));
            assert_eq!(object["spec"]["storageClassName"], expected);
        }
        let plain = json!({"metadata": {"name": "n"}, "spec": {}});
        assert_eq!(mapping(resource, plain.clone()), plain);
    }
}

#[test]
fn k16_k17_without_a_mapping_nothing_changes() {
    let template = json!([{"spec": {"storageClassName": "slow"}}]);
    for (resource, spec) in [
        (CLAIMS, json!({"storageClassName": "slow"})),
        (VOLUMES, json!({"storageClassName": "slow"})),
        (STATEFUL_SETS, json!({"volumeClaimTemplates": template})),
    ] {
        assert_eq!(kept(resource, json!({"spec": spec}))["spec"], spec);
    }
}

#[test]
fn k21_k22_classes_of_claim_templates_are_mapped_each_for_itself() {
    let rules = Rules {
        storage_classes: BTreeMap::from([
            ("slow".to_owned(), "fast".to_owned()),
            ("old".to_owned(), "new".to_owned()),
        ]),
        ..Rules::default()
    };
    let class = |name: &str| json!({"metadata": {"name": "t"}, "spec": {"storageClassName": name}});
    let without = json!({"metadata": {"name": "t"}, "spec": {}});
    for (templates, expected) in [
        (json!([class("slow")]), json!([class("fast")])),
        (
            json!([class("slow"), class("slow")]),
            json!([class("fast"), class("fast")]),
        ),
        (
            json!([class("slow"), class("old")]),
            json!([class("fast"), class("new")]),
        ),
        (
            json!([without, class("other")]),
            json!([without, class("other")]),
        ),
    ] {
        let set = json!({"spec": {"volumeClaimTemplates": templates}});
        let Prepared::Object { object, .. } = with(STATEFUL_SETS, &rules, set) else {
            panic!("skipped");
        };
        assert_eq!(object["spec"]["volumeClaimTemplates"], expected);
    }
}

/// K20: that they are there is checked by who knows the cluster and the backup, before anything is written.
#[test]
fn k20_the_classes_that_are_mapped_to_are_listed() {
    assert_eq!(mapped().storage_classes_needed(), BTreeSet::from(["fast"]));
    assert!(mapped().of_live().storage_classes_needed().is_empty());
}

#[test]
fn classes_are_mapped_in_old_annotations_and_in_the_volumes_of_pods() {
    const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    let object = mapping(
        CLAIMS,
        json!({"metadata": {"annotations": {ANNOTATION: "slow"}}, "spec": {}}),
    );
    assert_eq!(object["metadata"]["annotations"][ANNOTATION], "fast");
    // A volume's annotations go: what it says there is said in the field instead, where it is the same.
    let object = mapping(
        VOLUMES,
        json!({"metadata": {"annotations": {ANNOTATION: "slow"}}, "spec": {"storageClassName": "x"}}),
    );
    assert_eq!(
        object,
        json!({"metadata": {"name": "n"}, "spec": {"storageClassName": "fast"}})
    );
    let volumes = |class: &str| json!({"volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": class}}}}]});
    let object = mapping("pods", json!({"spec": volumes("slow")}));
    assert_eq!(object["spec"], volumes("fast"));
    let object = mapping(
        "deployments.apps",
        json!({"spec": {"template": {"spec": volumes("slow")}}}),
    );
    assert_eq!(object["spec"]["template"]["spec"], volumes("fast"));
}
