//! What is decided, without a store and a cluster.

use super::*;
use crate::holdings::Recorded;

const NOW: &str = "2026-06-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
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
        grace: hours(24),
        force: false,
        schedules: Schedules {
            cluster_uid: "own".into(),
            namespace: "heptio-ark".into(),
            ..Schedules::default()
        },
    }
}

/// A backup of a day's time to live, begun so many hours ago.
fn whole(hours_ago: i64) -> Whole {
    let start = now() - hours(hours_ago);
    Whole {
        origin: Origin::Ark,
        cluster_uid: "own".into(),
        namespace: "heptio-ark".into(),
        schedule: None,
        keep_last: None,
        completed: true,
        start: Some(start),
        expiration: Some(start + hours(24)),
        ttl: Some(hours(24)),
        written: start,
        etag: format!("etag-{hours_ago}"),
    }
}

fn candidates(wholes: &[Whole]) -> Vec<Candidate> {
    let named = wholes.iter().enumerate();
    named
        .map(|(n, whole)| Candidate {
            name: format!("b{n}"),
            state: State::Whole(whole.clone()),
            recorded: Recorded::default(),
        })
        .collect()
}

/// What becomes of each: its name, `!` before one that is in doubt, `-` before one that goes.
fn fates(found: &Found, rules: &Rules, clocks: Clocks) -> Vec<String> {
    let entries = plan(found, rules, clocks);
    let marked = entries.iter().map(|entry| {
        let mark = match entry.fate {
            Fate::Keep => "",
            Fate::KeepInDoubt => "!",
            Fate::Delete(_) => "-",
        };
        format!("{mark}{}", entry.name)
    });
    marked.collect()
}

fn of(wholes: &[Whole], rules: &Rules) -> Vec<String> {
    let found = Found {
        backups: candidates(wholes),
        ..Found::default()
    };
    fates(&found, rules, clocks())
}

fn reason(whole: Whole, clocks: Clocks) -> String {
    let found = Found {
        backups: candidates(&[whole]),
        ..Found::default()
    };
    plan(&found, &rules(), clocks)[0].reason.to_string()
}

fn scheduled(hours_ago: i64, keep_last: Option<u32>, completed: bool) -> Whole {
    Whole {
        schedule: Some("nightly".into()),
        keep_last,
        completed,
        ..whole(hours_ago)
    }
}

#[test]
fn an_age_counts_when_both_clocks_confirm_it() {
    let hour = hours(1);
    // Half an hour to go.
    let mut young = whole(23);
    young.expiration = young
        .expiration
        .map(|at| at - SignedDuration::from_mins(30));
    let young = Whole {
        written: now() - SignedDuration::from_mins(23 * 60 + 30),
        start: Some(now() - SignedDuration::from_mins(23 * 60 + 30)),
        expiration: Some(now() + SignedDuration::from_mins(30)),
        ..young
    };
    let old = whole(26);
    // By a pod whose clock was an hour behind: it says that it has expired half an hour ago.
    let behind = Whole {
        start: young.start.map(|at| at - hour),
        expiration: young.expiration.map(|at| at - hour),
        ..young.clone()
    };
    let ahead = Whole {
        start: young.start.map(|at| at + hour),
        expiration: young.expiration.map(|at| at + hour),
        ..young.clone()
    };
    for (pod, store) in [
        (0, 0),
        (1, 0),
        (0, 1),
        (-1, 0),
        (0, -1),
        (-1, -1),
        (1, -1),
        (-1, 1),
    ] {
        let clocks = Clocks {
            pod: now() + hours(pod),
            store: now() + hours(store),
        };
        let found = Found {
            backups: candidates(&[
                young.clone(),
                // Only where the store's clock is right or behind: else both the pod's and the store's were wrong.
                if store > 0 {
                    young.clone()
                } else {
                    behind.clone()
                },
                ahead.clone(),
                old.clone(),
            ]),
            ..Found::default()
        };
        assert_eq!(
            fates(&found, &rules(), clocks),
            ["b0", "b1", "b2", "-b3"],
            "pod {pod}, store {store}"
        );
    }
}

#[test]
fn reasons_are_sentences_with_numbers() {
    assert_eq!(
        reason(whole(27), clocks()),
        "expired 3h ago, on 2026-06-01T09:00:00Z"
    );
    assert_eq!(
        reason(whole(-24 * 5), clocks()),
        "expires in 6d, on 2026-06-07T12:00:00Z"
    );
    let never = Whole {
        expiration: None,
        ..whole(1000)
    };
    assert_eq!(reason(never, clocks()), "never expires (ttl 0)");
    let early = Clocks {
        store: now() - hours(4),
        ..clocks()
    };
    assert_eq!(
        reason(whole(27), early),
        "expired on 2026-06-01T09:00:00Z as it says, but by the store's clock it has 60m left"
    );
}

#[test]
fn a_ttl_that_is_not_known_is_replaced_by_both_clocks_on_the_expiration() {
    let unknown = Whole {
        ttl: None,
        ..whole(25)
    };
    let found = Found {
        backups: candidates(&[unknown]),
        ..Found::default()
    };
    assert_eq!(fates(&found, &rules(), clocks()), ["-b0"]);
    for (pod, store) in [(-2, 0), (0, -2)] {
        let clocks = Clocks {
            pod: now() + hours(pod),
            store: now() + hours(store),
        };
        assert_eq!(fates(&found, &rules(), clocks), ["b0"]);
    }
}

#[test]
fn the_newest_completed_backups_of_a_schedule_stay() {
    let group = [
        scheduled(90, Some(2), true),
        scheduled(80, Some(2), true),
        scheduled(70, Some(2), true),
        scheduled(60, Some(2), false),
    ];
    assert_eq!(of(&group, &rules()), ["-b0", "b1", "b2", "-b3"]);
    // Nothing said: one.
    let silent = group.clone().map(|whole| Whole {
        keep_last: None,
        ..whole
    });
    assert_eq!(of(&silent, &rules()), ["-b0", "-b1", "b2", "-b3"]);
    // The newest marker's word counts, also that of one with errors.
    let mut changed = group.clone();
    changed[3].keep_last = Some(3);
    assert_eq!(of(&changed, &rules()), ["b0", "b1", "b2", "-b3"]);
    // The live CronJob's more.
    for (live, expected) in [
        (0, ["-b0", "-b1", "-b2", "-b3"]),
        (1, ["-b0", "-b1", "b2", "-b3"]),
        (9, ["b0", "b1", "b2", "-b3"]),
    ] {
        let mut rules = rules();
        rules.schedules.live.insert("nightly".into(), Ok(live));
        assert_eq!(of(&group, &rules), expected, "{live}");
    }
}

#[test]
fn a_rule_that_is_not_known_keeps_everything_that_it_may_be_about() {
    let group = [
        scheduled(90, Some(1), true),
        scheduled(80, Some(1), true),
        whole(70),
    ];
    let mut one = rules();
    one.schedules.live.insert("nightly".into(), Err("x".into()));
    assert_eq!(of(&group, &one), ["!b0", "!b1", "-b2"]);
    let mut all = rules();
    all.schedules.unknown = Some("forbidden".into());
    assert_eq!(of(&group, &all), ["!b0", "!b1", "-b2"]);
}

#[test]
fn a_rule_is_that_of_one_cluster_and_namespace() {
    let elsewhere = |cluster: &str, namespace: &str, whole: Whole| Whole {
        cluster_uid: cluster.into(),
        namespace: namespace.into(),
        ..whole
    };
    let group = [
        scheduled(90, None, true),
        elsewhere("other", "heptio-ark", scheduled(80, None, true)),
        elsewhere("own", "second", scheduled(70, None, true)),
        elsewhere("own", "second", scheduled(60, None, true)),
    ];
    let mut rules = rules();
    // It is not the CronJob of the others.
    rules.schedules.live.insert("nightly".into(), Ok(0));
    assert_eq!(of(&group, &rules), ["-b0", "b1", "-b2", "b3"]);
    rules.clusters.insert("other".into());
    assert_eq!(of(&group, &rules), ["-b0", "b1", "-b2", "b3"]);
}

#[test]
fn only_ours_goes_unless_more_is_asked_for() {
    let foreign = |origin| Whole {
        origin,
        cluster_uid: String::new(),
        ..whole(100)
    };
    let group = [
        whole(100),
        Whole {
            cluster_uid: "other".into(),
            ..whole(100)
        },
        foreign(Origin::Velero),
        foreign(Origin::OriginalArk),
    ];
    assert_eq!(of(&group, &rules()), ["-b0", "b1", "b2", "b3"]);
    let mut more = rules();
    more.clusters.insert("other".into());
    assert_eq!(of(&group, &more), ["-b0", "-b1", "b2", "b3"]);
    let mut all = rules();
    all.include_foreign = true;
    assert_eq!(of(&group, &all), ["-b0", "b1", "-b2", "-b3"]);
}

fn deletion(cause: Cause, minutes_ago: i64) -> Deletion {
    let at = now() - SignedDuration::from_mins(minutes_ago);
    Deletion {
        cause,
        cluster_uid: "own".into(),
        at,
        written: at,
        tombstone: "t".into(),
        archive: None,
    }
}

#[test]
fn a_deletion_that_was_cut_off_is_finished_after_an_hour_by_whose_it_is() {
    let states = [
        deletion(Cause::Delete, 61),
        deletion(Cause::Expire, 59),
        Deletion {
            cluster_uid: "other".into(),
            ..deletion(Cause::Expire, 600)
        },
        // Begun by a pod whose clock is right, on a store that was an hour behind.
        Deletion {
            at: now() - SignedDuration::from_mins(1),
            ..deletion(Cause::Delete, 61)
        },
    ];
    let candidates = states.into_iter().enumerate().map(|(n, state)| Candidate {
        name: format!("b{n}"),
        state: State::BeingDeleted(state),
        recorded: Recorded::default(),
    });
    let found = Found {
        backups: candidates.collect(),
        ..Found::default()
    };
    assert_eq!(fates(&found, &rules(), clocks()), ["-b0", "b1", "b2", "b3"]);
    let entries = plan(&found, &rules(), clocks());
    assert_eq!(
        entries[0].reason.to_string(),
        "being deleted since 2026-06-01T10:59:00Z, 61m ago: finished"
    );
    for (pod, store) in [(1, 0), (0, 1)] {
        let clocks = Clocks {
            pod: now() + hours(pod),
            store: now() + hours(store),
        };
        assert_eq!(fates(&found, &rules(), clocks), ["-b0", "b1", "b2", "b3"]);
    }
}

#[test]
fn a_sweeps_tombstone_over_a_backup_goes_and_the_backup_is_as_any_other() {
    let found = Found {
        backups: vec![Candidate {
            name: "b".into(),
            state: State::WholeUnderSweep(whole(1), "t".into()),
            recorded: Recorded::default(),
        }],
        ..Found::default()
    };
    let entries = plan(&found, &rules(), clocks());
    assert_eq!(entries.len(), 2);
    let void = Step::Void {
        tombstone: "t".into(),
    };
    assert_eq!(entries[0].fate, Fate::Delete(void));
    assert_eq!(entries[1].fate, Fate::Keep);
}

#[test]
fn what_was_never_committed_is_swept_up_after_the_grace_period_by_both_clocks() {
    let uncommitted = |name: &str, cluster: &str, hours_ago| Candidate {
        name: name.into(),
        state: State::Uncommitted(Uncommitted {
            cluster_uid: cluster.into(),
            written: now() - hours(hours_ago),
            etag: "a".into(),
        }),
        recorded: Recorded::default(),
    };
    let upload = |key: &str, hours_ago| Upload {
        key: key.into(),
        id: "u".into(),
        initiated: now() - hours(hours_ago),
    };
    let found = Found {
        backups: vec![
            uncommitted("old", "own", 24),
            uncommitted("young", "own", 23),
            uncommitted("strange", "other", 1000),
        ],
        uploads: vec![
            upload("backups/o/o.tar.gz", 24),
            upload("backups/y/y.tar.gz", 23),
        ],
        ..Found::default()
    };
    let expected = [
        "-old",
        "young",
        "strange",
        "-backups/o/o.tar.gz",
        "backups/y/y.tar.gz",
    ];
    assert_eq!(fates(&found, &rules(), clocks()), expected);
    for (pod, store) in [(2, 0), (0, 2)] {
        let clocks = Clocks {
            pod: now() + hours(pod),
            store: now() + hours(store),
        };
        assert_eq!(fates(&found, &rules(), clocks), expected);
    }
}

#[test]
fn a_failed_resource_goes_when_all_clocks_agree() {
    let record = |hours_ago, expiration: Option<i64>, ttl| FailedRecord {
        name: "f".into(),
        uid: "u".into(),
        resource_version: "1".into(),
        created: now() - hours(hours_ago),
        expiration: expiration.map(|ago| now() - hours(ago)),
        ttl: hours(ttl),
    };
    for (record, gone) in [
        (record(25, Some(1), 24), true),
        (record(25, None, 24), true),
        (record(23, None, 24), false),
        // Its pod's clock was behind.
        (record(23, Some(1), 24), false),
        (record(25, Some(-1), 24), false),
        (record(9999, None, 0), false),
    ] {
        let found = Found {
            failed: vec![record.clone()],
            ..Found::default()
        };
        let expected = if gone { "-f" } else { "f" };
        assert_eq!(fates(&found, &rules(), clocks()), [expected], "{record:?}");
        let slow = Clocks {
            store: now() - hours(2),
            ..clocks()
        };
        assert_eq!(fates(&found, &rules(), slow), ["f"], "{record:?}");
    }
}

#[test]
fn a_line_is_the_same_for_people_and_programs() {
    let found = Found {
        backups: candidates(&[whole(27)]),
        ..Found::default()
    };
    let entry = &plan(&found, &rules(), clocks())[0];
    assert_eq!(
        entry.line(),
        "delete  backup     b0  expired 3h ago, on 2026-06-01T09:00:00Z"
    );
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&entry.json()).unwrap(),
        serde_json::json!({"action": "delete", "kind": "backup", "name": "b0", "error": false,
            "reason": "expired 3h ago, on 2026-06-01T09:00:00Z"})
    );
}

#[test]
fn what_is_left_is_never_nothing() {
    let span = |millis| span(SignedDuration::from_millis(millis));
    assert_eq!(span(1), "less than 1s");
    assert_eq!(span(999), "less than 1s");
    assert_eq!(span(1000), "1s");
    // A grace period of none is none.
    assert_eq!(span(0), "0s");
    assert_eq!(span(-1), "0s");
}
