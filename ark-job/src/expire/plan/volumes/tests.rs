//! What is swept up of snapshots and volumes, without a cloud.

use super::super::{Schedules, State, plan as whole_plan};
use super::*;
use crate::holdings::{Kind, Recorded};
use crate::volumes::csi::Owned;
use crate::volumes::{CsiSnapshot, Data, EBS_DRIVER, EbsSnapshot, VolumeRecord};
use jiff::{SignedDuration, Timestamp};

const NOW: &str = "2026-06-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

fn clocks() -> Clocks {
    Clocks {
        pod: now(),
        store: now(),
    }
}

fn rules() -> Rules {
    Rules {
        clusters: BTreeSet::from(["own".to_owned()]),
        include_foreign: false,
        grace: SignedDuration::from_hours(24),
        force: false,
        schedules: Schedules::default(),
    }
}

fn record(data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: "pv".into(),
        claim: None,
        reclaim_policy: String::new(),
        labels: BTreeMap::new(),
        data,
    }
}

fn ebs(id: &str) -> VolumeRecord {
    record(Data::Ebs(EbsSnapshot {
        snapshot_id: id.into(),
        ..EbsSnapshot::default()
    }))
}

fn csi(handle: &str) -> VolumeRecord {
    record(Data::Csi(CsiSnapshot {
        handle: handle.into(),
        driver: "d".into(),
        ..CsiSnapshot::default()
    }))
}

/// A directory with a marker, or with an archive only.
fn backup(name: &str, committed: bool, snapshots: &[VolumeRecord]) -> Candidate {
    Candidate {
        name: name.into(),
        state: State::Other("of no interest here".into()),
        recorded: Recorded {
            snapshots: snapshots.to_vec(),
            committed,
            unknown: None,
        },
    }
}

fn loose(name: &str, what: What) -> Loose {
    Loose {
        name: name.into(),
        of: "b".into(),
        persistent_volume: "pv".into(),
        created: Some(hours_ago(30)),
        cloud: Some(now()),
        size: None,
        what,
    }
}

fn disk(name: &str) -> Loose {
    let what = What::Disk {
        region: "r".into(),
        state: "completed".into(),
    };
    loose(name, what)
}

fn objects(handle: Option<&str>) -> Loose {
    let what = What::Csi(Box::new(Owned {
        content: Some("content".into()),
        volume_snapshot: None,
        handle: handle.map(str::to_owned),
        group: None,
        group_content: None,
        driver: "d".into(),
        labels: BTreeMap::new(),
        created: None,
        ..Owned::default()
    }));
    loose("content", what)
}

fn volume(state: &str, named: Option<bool>) -> Loose {
    let what = What::Volume {
        region: "r".into(),
        state: state.into(),
        named,
    };
    loose("vol", what)
}

fn found(backups: Vec<Candidate>, loose: Vec<Loose>) -> Found {
    Found {
        backups,
        loose,
        ..Found::default()
    }
}

/// What becomes of the only one, in a word, and why; nothing when it has no entry.
fn fate(found: &Found, rules: &Rules, clocks: Clocks) -> Option<(&'static str, String)> {
    let entry = plan(found, rules, clocks).into_iter().next()?;
    let word = match &entry.fate {
        Fate::Keep => "keep",
        Fate::KeepInDoubt => "doubt",
        Fate::Delete(Step::Drop(_)) => "drop",
        Fate::Delete(Step::LetGo(_)) => "let go",
        Fate::Delete(_) => "other",
    };
    Some((word, entry.reason.to_string()))
}

fn word(found: &Found) -> &'static str {
    fate(found, &rules(), clocks()).map_or("-", |(word, _)| word)
}

#[test]
fn only_what_no_backup_records_goes() {
    let others = || backup("other", true, &[]);
    for (loose, snapshots, expected) in [
        (disk("snap-1"), vec![], "drop"),
        (disk("snap-1"), vec![ebs("snap-2")], "drop"),
        (disk("snap-1"), vec![ebs("snap-1")], "-"),
        (objects(Some("h")), vec![], "drop"),
        (objects(None), vec![csi("h")], "drop"),
        (objects(Some("h")), vec![csi("h")], "let go"),
    ] {
        let name = loose.name.clone();
        let backups = vec![others(), backup("b", true, &snapshots)];
        assert_eq!(
            word(&found(backups, vec![loose])),
            expected,
            "{name} {snapshots:?}"
        );
    }
}

#[test]
fn a_snapshot_of_ebs_may_be_recorded_as_that_of_its_driver() {
    let mut of_driver = csi("snap-1");
    if let Data::Csi(snapshot) = &mut of_driver.data {
        EBS_DRIVER.clone_into(&mut snapshot.driver);
    }
    let backups = vec![backup("b", true, &[of_driver])];
    assert_eq!(word(&found(backups, vec![disk("snap-1")])), "-");
}

#[test]
fn the_footer_of_an_archive_without_a_marker_counts() {
    let committed = || backup("other", true, &[]);
    for (loose, snapshot) in [
        (disk("snap-1"), ebs("snap-1")),
        (objects(Some("h")), csi("h")),
    ] {
        let backups = vec![committed(), backup("b", false, &[snapshot])];
        assert_eq!(word(&found(backups, vec![loose])), "-");
    }
}

#[test]
fn nothing_goes_when_not_all_backups_are_known() {
    let mut unknown = backup("broken", false, &[]);
    unknown.recorded.unknown = Some("why".into());
    let backups = vec![backup("b", true, &[]), unknown];
    for loose in [disk("snap-1"), objects(Some("h")), objects(None)] {
        let found = found(backups.clone(), vec![loose]);
        let mut forced = rules();
        for force in [false, true] {
            forced.force = force;
            let (word, why) = fate(&found, &forced, clocks()).unwrap();
            assert_eq!(word, "keep");
            assert!(
                why.contains("what backup broken records is not known"),
                "{why}"
            );
        }
    }
}

#[test]
fn nothing_goes_when_the_bucket_has_no_backup_unless_it_is_forced() {
    for backups in [vec![], vec![backup("unmarked", false, &[ebs("snap-2")])]] {
        let found = found(backups, vec![disk("snap-1")]);
        let (word, why) = fate(&found, &rules(), clocks()).unwrap();
        assert_eq!(word, "keep");
        assert!(why.contains("--force"), "{why}");
        let forced = Rules {
            force: true,
            ..rules()
        };
        assert_eq!(fate(&found, &forced, clocks()).unwrap().0, "drop");
    }
}

#[test]
fn the_youngest_of_all_clocks_counts() {
    let late = |hours| now() - SignedDuration::from_hours(hours);
    for (pod, store, cloud, expected) in [
        (0, 0, Some(0), "drop"),
        (7, 0, Some(0), "keep"),
        (0, 7, Some(0), "keep"),
        (0, 0, Some(7), "keep"),
        (0, 0, None, "drop"),
    ] {
        let mut loose = disk("snap-1");
        loose.cloud = cloud.map(late);
        let found = found(vec![backup("b", true, &[])], vec![loose]);
        let clocks = Clocks {
            pod: late(pod),
            store: late(store),
        };
        let decided = fate(&found, &rules(), clocks).unwrap();
        assert_eq!(decided.0, expected, "{pod} {store} {cloud:?}");
    }
    let mut young = disk("snap-1");
    young.created = Some(hours_ago(23));
    let mut undated = disk("snap-1");
    undated.created = None;
    for loose in [young, undated] {
        assert_eq!(
            word(&found(vec![backup("b", true, &[])], vec![loose])),
            "keep"
        );
    }
}

#[test]
fn a_run_in_progress_keeps_what_it_makes() {
    let long = "a".repeat(100);
    for (running, of, expected) in [
        ("b", "b".to_owned(), "keep"),
        ("other", "b".to_owned(), "drop"),
        (long.as_str(), label_value(&long), "keep"),
    ] {
        let mut one = disk("snap-1");
        one.of = of;
        let mut found = found(vec![backup("x", true, &[])], vec![one]);
        found.running.insert(running.to_owned());
        assert_eq!(word(&found), expected, "{running}");
    }
}

#[test]
fn a_volume_goes_when_nothing_uses_it() {
    for (state, named, expected) in [
        ("available", Some(false), "drop"),
        ("error", Some(false), "drop"),
        ("in-use", Some(false), "keep"),
        ("creating", Some(false), "keep"),
        ("available", Some(true), "-"),
        ("available", None, "keep"),
    ] {
        // What backups record says nothing of volumes.
        let found = found(vec![], vec![volume(state, named)]);
        assert_eq!(word(&found), expected, "{state} {named:?}");
    }
}

#[test]
fn two_backups_with_one_snapshot_both_stay() {
    let backups = [
        backup("a", true, &[ebs("snap-1"), ebs("snap-2")]),
        backup("b", false, &[ebs("snap-2")]),
        backup("c", true, &[ebs("snap-3")]),
    ];
    let shared = shared(&backups);
    assert_eq!(shared.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
    assert!(shared["a"].contains("snap-2"), "{}", shared["a"]);
    assert!(shared["a"].contains("backup b"), "{}", shared["a"]);
}

#[test]
fn a_line_says_what_and_why() {
    let found = found(vec![backup("b", true, &[])], vec![disk("snap-1")]);
    let lines: Vec<String> = whole_plan(&found, &rules(), clocks())
        .iter()
        .filter(|entry| entry.kind == Kind::Snapshot)
        .map(Entry::line)
        .collect();
    assert_eq!(
        lines,
        [
            "delete  snapshot   snap-1  nothing records or uses it: made 30h ago, on 2026-05-31T06:00:00Z, and the grace period is 24h"
        ]
    );
}

#[test]
fn a_snapshot_of_a_group_stays_with_another_that_is_recorded() {
    let of_group = |handle: &str| {
        let mut loose = objects(Some(handle));
        if let What::Csi(owned) = &mut loose.what {
            owned.group_content = Some("group".into());
        }
        loose
    };
    let backups = vec![backup("b", true, &[csi("h2")])];
    let both = found(backups, vec![of_group("h1"), of_group("h2")]);
    assert_eq!(fate(&both, &rules(), clocks()).unwrap().0, "keep");
    let free = found(
        vec![backup("b", true, &[])],
        vec![of_group("h1"), of_group("h2")],
    );
    assert_eq!(word(&free), "drop");
}
