//! Rows F05–F10 and Q01–Q09 are those of Velero's tables of native snapshots and of resource policies, as far as there is
//! something to decide here: there are no copies of files (fs-backup) and no snapshot locations.

use super::*;
use crate::volumes::csi::Class;
use crate::volumes::policy::VolumeFacts;
use std::collections::BTreeMap;

const SNAPSHOT: &str =
    "version: v1\nvolumePolicies: [{conditions: {storageClass: [fast]}, action: {type: snapshot}}]";
const SKIP: &str =
    "version: v1\nvolumePolicies: [{conditions: {storageClass: [fast]}, action: {type: skip}}]";

fn found(source: Source) -> Found {
    Found {
        facts: VolumeFacts {
            persistent_volume: "pv-1".into(),
            storage_class: "fast".into(),
            ..VolumeFacts::default()
        },
        reclaim_policy: "Delete".into(),
        labels: BTreeMap::new(),
        opted_out_by: None,
        source,
    }
}

fn other() -> Found {
    found(Source::Other("nfs".into()))
}

fn csi(driver: &str) -> CsiSource {
    CsiSource {
        driver: driver.into(),
        claim: Ok(claim()),
        class: None,
    }
}

fn claim() -> ClaimName {
    ClaimName {
        namespace: "shop".into(),
        name: "data".into(),
    }
}

fn ebs(zone: &str, csi: Option<CsiSource>) -> Found {
    found(Source::Ebs {
        volume_id: Some("vol-1".into()),
        zone: zone.into(),
        csi,
    })
}

fn classes(driver: &str) -> Classes {
    Classes(vec![Class {
        name: "snapshots".into(),
        driver: driver.into(),
        labelled: true,
        is_default: false,
        deletion_policy: "Delete".into(),
    }])
}

#[test]
fn annotation_then_policy_then_flag_say_whether_a_snapshot_is_wanted() {
    let mut opted_out = other();
    opted_out.opted_out_by = Some("persistentvolumeclaims shop/data".into());
    let mut slow = other();
    slow.facts.storage_class = "slow".into();
    for (row, volume, yaml, flag, expected) in [
        ("Q01", other(), Some(SNAPSHOT), None, Some(Wish::Asked)),
        (
            "Q02",
            other(),
            Some(SNAPSHOT),
            Some(false),
            Some(Wish::Asked),
        ),
        ("a policy skips", other(), Some(SKIP), Some(true), None),
        ("Q08", other(), None, Some(true), Some(Wish::Asked)),
        ("Q08, F06", other(), None, Some(false), None),
        ("no word", other(), None, None, Some(Wish::IfPossible)),
        (
            "no match",
            slow.clone(),
            Some(SKIP),
            None,
            Some(Wish::IfPossible),
        ),
        (
            "no match, flag",
            slow.clone(),
            Some(SKIP),
            Some(true),
            Some(Wish::Asked),
        ),
        ("no match, not", slow, Some(SNAPSHOT), Some(false), None),
        ("opted out", opted_out, Some(SNAPSHOT), Some(true), None),
    ] {
        let policies = yaml.map(|yaml| Policies::parse(yaml).unwrap());
        let rules = Rules {
            snapshot_volumes: flag,
            policies: policies.as_ref().map(|policies| ("rules", policies)),
        };
        let wish = wish(&volume, &rules);
        match expected {
            Some(expected) => assert_eq!(wish, expected, "{row}"),
            None => assert!(matches!(wish, Wish::Not(_)), "{row}: {wish:?}"),
        }
    }
}

#[test]
fn who_asked_for_none_is_named() {
    let mut opted_out = other();
    opted_out.opted_out_by = Some("persistentvolumes pv-1".into());
    let skip = Policies::parse(SKIP).unwrap();
    let why = |volume: &Found, policies, snapshot_volumes| {
        let rules = Rules {
            snapshot_volumes,
            policies,
        };
        match wish(volume, &rules) {
            Wish::Not(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        why(&opted_out, None, None),
        "annotation ark.heptio.com/skip-snapshot of persistentvolumes pv-1 asks for none"
    );
    assert_eq!(
        why(&other(), Some(("rules", &skip)), None),
        "the resource policies in ConfigMap rules skip it"
    );
    assert!(why(&other(), None, Some(false)).contains("--snapshot-volumes=false"));
}

#[test]
fn ebs_goes_by_the_cloud_and_what_has_a_class_by_its_driver() {
    let not_here = || Err(NoWay::none("not from here"));
    let (with, without) = (classes("ebs.csi.aws.com"), Classes::default());
    let disk = |zone: &str, region: &str| Way::Disk {
        region: region.into(),
        zone: zone.into(),
        volume_id: "vol-1".into(),
    };
    let by_driver = |driver: &str| Way::Csi {
        claim: claim(),
        driver: driver.into(),
        class: "snapshots".into(),
    };
    let ebs_csi = || Some(csi("ebs.csi.aws.com"));
    assert_eq!(
        way(&ebs("eu-central-1b", None), Ok(()), Ok(&without)),
        Ok(disk("eu-central-1b", "eu-central-1"))
    );
    // F01: without a zone it is tried all the same, in the configured region.
    assert_eq!(
        way(&ebs("", ebs_csi()), Ok(()), Ok(&with)),
        Ok(disk("", ""))
    );
    // F08, F09: nothing that snapshots it.
    assert_eq!(
        way(&ebs("", None), not_here(), Ok(&with)),
        Err(NoWay::none("not from here"))
    );
    // Without the cloud, its driver may do.
    assert_eq!(
        way(&ebs("", ebs_csi()), not_here(), Ok(&with)),
        Ok(by_driver("ebs.csi.aws.com"))
    );
    let refused = way(&ebs("", ebs_csi()), not_here(), Ok(&without)).unwrap_err();
    assert!(
        refused.why.starts_with("not from here; ") && !refused.is_failure,
        "{refused:?}"
    );
    assert_eq!(
        way(&found(Source::Csi(csi("d"))), Ok(()), Ok(&classes("d"))),
        Ok(by_driver("d"))
    );
    assert_eq!(
        way(&other(), Ok(()), Ok(&with)),
        Err(NoWay::none(
            "there is no way to snapshot volumes of type nfs"
        ))
    );
}

#[test]
fn what_keeps_from_a_way_that_there_is_is_a_failure() {
    let broken = || NoWay {
        why: "no credentials".into(),
        is_failure: true,
    };
    let none = Classes::default();
    assert_eq!(way(&ebs("", None), Err(broken()), Ok(&none)), Err(broken()));
    assert_eq!(
        way(&found(Source::Csi(csi("d"))), Ok(()), Err(broken())),
        Err(broken())
    );
    let nameless = found(Source::Ebs {
        volume_id: None,
        zone: String::new(),
        csi: None,
    });
    assert!(way(&nameless, Ok(()), Ok(&none)).unwrap_err().is_failure);
    // No class at all is no way; a class that the claim names and that is not there is a mistake.
    let unnamed = way(&found(Source::Csi(csi("d"))), Ok(()), Ok(&none));
    assert!(!unnamed.unwrap_err().is_failure);
    let named = CsiSource {
        class: Some("gone".into()),
        ..csi("d")
    };
    let named = way(&found(Source::Csi(named)), Ok(()), Ok(&none));
    assert!(named.unwrap_err().is_failure);
    // Whatever classes there are: without a claim there is nothing to snapshot.
    let unclaimed = CsiSource {
        claim: Err("it is bound to no claim".into()),
        ..csi("d")
    };
    assert_eq!(
        way(&found(Source::Csi(unclaimed)), Ok(()), Ok(&classes("d"))),
        Err(NoWay::none("it is bound to no claim"))
    );
}
