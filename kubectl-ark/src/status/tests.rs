//! Every reason, alone: an installation that is well, with one thing broken.

use super::assess::{Health, Reason, assess};
use super::collect::Seen;
use super::print;
use ark_job::api::CONTRACT_VERSION;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn ago(minutes: i64) -> String {
    (now() - SignedDuration::from_mins(minutes)).to_string()
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn all<T: DeserializeOwned>(values: impl IntoIterator<Item = Value>) -> Vec<T> {
    values.into_iter().map(read).collect()
}

fn template(contract: &str) -> Value {
    json!({"metadata": {"name": "ark", "annotations": {"ark.heptio.com/contract": contract}},
        "template": {"spec": {"containers": [{"name": "ark-job", "image": "registry.local/ark:1"}]}}})
}

fn location(status: Value) -> Value {
    json!({"metadata": {"name": "default", "creationTimestamp": ago(90 * 24 * 60)},
        "spec": {"url": "s3://bucket/prefix", "accessMode": "ReadWrite"}, "status": status})
}

/// A CronJob of housekeeping that was done so many minutes ago.
fn hourly(operation: &str, done: i64) -> Value {
    json!({"metadata": {"name": format!("ark-{operation}-default"), "creationTimestamp": ago(90 * 24 * 60),
            "labels": {"app.kubernetes.io/part-of": "kubectl-ark", "ark.heptio.com/operation": operation}},
        "spec": {"schedule": "5 * * * *", "jobTemplate": {}}, "status": {"lastSuccessfulTime": ago(done)}})
}

fn schedule(name: &str, suspended: Option<Option<&str>>) -> Value {
    let annotations = suspended
        .flatten()
        .map(|by| json!({"ark.heptio.com/suspended-by": by}));
    json!({"metadata": {"name": name, "creationTimestamp": ago(30 * 24 * 60), "annotations": annotations,
            "labels": {"ark.heptio.com/schedule": name}},
        "spec": {"schedule": "0 3 * * *", "timeZone": "Etc/UTC", "suspend": suspended.is_some(), "jobTemplate": {}}})
}

/// A backup of schedule `nightly` that began so many hours ago.
fn backup(hours: i64, phase: &str) -> Value {
    json!({"apiVersion": "ark.heptio.com/v1", "kind": "Backup",
        "metadata": {"name": format!("nightly-{hours}"), "labels": {"ark.heptio.com/schedule": "nightly"}},
        "spec": {"storageLocation": "default"},
        "status": {"phase": phase, "startTimestamp": ago(hours * 60), "size": 1024,
            "failureReason": (phase == "Failed").then_some("the bucket is gone")}})
}

fn job(name: &str, operation: &str, minutes: i64, args: &[&str], condition: Option<&str>) -> Value {
    let conditions: Vec<Value> = condition
        .iter()
        .map(|one| json!({"type": one, "status": "True", "reason": "BackoffLimitExceeded", "message": "it says"}))
        .collect();
    json!({"metadata": {"name": name, "uid": name, "namespace": "heptio-ark", "creationTimestamp": ago(minutes),
            "labels": {"ark.heptio.com/operation": operation}},
        "spec": {"template": {"spec": {"containers": [{"name": "ark-job", "args": args}]}}},
        "status": {"conditions": conditions}})
}

fn pod(job: &str, state: Value) -> Value {
    json!({"metadata": {"name": format!("{job}-x"), "labels": {"batch.kubernetes.io/job-name": job}},
        "spec": {"containers": [{"name": "ark-job", "image": "registry.local/ark:1"}]},
        "status": {"containerStatuses": [{"name": "ark-job", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": state}]}})
}

/// All is well: last night's backup is good.
fn healthy() -> Seen {
    Seen {
        namespace: "heptio-ark".into(),
        now: now(),
        template: Some(read(template(CONTRACT_VERSION))),
        config: Some(read(
            json!({"metadata": {"name": "ark"}, "data": {"mode": "Normal"}}),
        )),
        locations: all([location(json!({"lastSyncTime": ago(12)}))]),
        backups: all([backup(9, "Completed"), backup(33, "Failed")]),
        cron_jobs: all([
            hourly("sync", 12),
            hourly("expire", 42),
            schedule("nightly", None),
        ]),
        pods: Some(Vec::new()),
        ..Seen::default()
    }
}

fn reasons(seen: &Seen) -> Vec<Reason> {
    let health = assess(seen);
    assert_eq!(health.healthy, health.attention.is_empty());
    for item in health.attention.iter().chain(&health.notes) {
        assert!(item.command.starts_with("kubectl "), "{item:?}");
    }
    health.attention.iter().map(|item| item.reason).collect()
}

fn notes(seen: &Seen) -> Vec<Reason> {
    assert_eq!(reasons(seen), []);
    assess(seen).notes.iter().map(|item| item.reason).collect()
}

/// Health of an installation with something broken.
fn broken(change: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = healthy();
    change(&mut seen);
    seen
}

#[test]
fn an_installation_that_is_well_is_healthy() {
    assert_eq!(notes(&healthy()), []);
    let health = assess(&healthy());
    let schedule = &health.schedules[0];
    assert_eq!(
        (
            schedule.failures_in_row,
            schedule.overdue,
            schedule.next_time.as_ref().map(|at| at.0)
        ),
        (0, false, Some("2026-11-25T03:00:00Z".parse().unwrap()))
    );
    assert_eq!(
        schedule
            .last_good_backup
            .as_ref()
            .and_then(|good| good.age_seconds),
        Some(9 * 3600)
    );
}

#[test]
fn installation_and_mode() {
    assert_eq!(
        reasons(&broken(|seen| seen.template = None)),
        [Reason::SettingsMissing]
    );
    let contract =
        |version: &'static str| broken(move |seen| seen.template = Some(read(template(version))));
    assert_eq!(reasons(&contract("1")), [Reason::ImageOutdated]);
    assert_eq!(reasons(&contract("what")), [Reason::ImageOutdated]);
    assert_eq!(notes(&contract("999")), [Reason::PluginOutdated]);
    let mode = |mode: &'static str| {
        broken(move |seen| {
            seen.config = Some(read(
                json!({"metadata": {"name": "ark"}, "data": {"mode": mode}}),
            ))
        })
    };
    assert_eq!(
        reasons(&mode("RestoreOnly")),
        [Reason::ScheduleNotSuspended]
    );
    assert_eq!(reasons(&mode("readonly")), [Reason::ModeUnknown]);
    assert_eq!(assess(&mode("readonly")).mode.mode, "RestoreOnly");
    let left = |minutes: i64, namespace: &'static str| {
        broken(move |seen| {
            seen.binding = Some(read(
                json!({"metadata": {"name": "ark-restore", "creationTimestamp": ago(minutes)},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "name": "ark-restore", "namespace": namespace}]}),
            ));
        })
    };
    assert_eq!(
        reasons(&left(60, "heptio-ark")),
        [Reason::RestoreRightsLeft]
    );
    // Another installation's, and one of a restore that begins right now.
    assert_eq!(reasons(&left(60, "elsewhere")), []);
    assert_eq!(reasons(&left(1, "heptio-ark")), []);
    let mut used = left(60, "heptio-ark");
    used.jobs = all([job(
        "restore-a",
        "restore",
        60,
        &["restore", "a", "--name", "a"],
        None,
    )]);
    used.pods = None;
    assert_eq!(reasons(&used), []);
}

#[test]
fn locations() {
    let status = |status: Value| broken(move |seen| seen.locations = all([location(status)]));
    assert_eq!(
        reasons(&broken(|seen| seen.locations.clear())),
        [Reason::NoLocation]
    );
    assert_eq!(
        reasons(&status(
            json!({"lastSyncTime": ago(12), "unreachable": "403"})
        )),
        [Reason::LocationUnreachable]
    );
    assert_eq!(reasons(&status(json!({"lastSyncTime": ago(179)}))), []);
    assert_eq!(
        reasons(&status(json!({"lastSyncTime": ago(181)}))),
        [Reason::LocationNotSynced]
    );
    assert_eq!(reasons(&status(json!({}))), [Reason::LocationNotSynced]);
    assert_eq!(assess(&status(json!({}))).locations[0].reachable, None);
}

#[test]
fn housekeeping() {
    let last = |operation: &'static str, conditions: [&'static str; 2]| {
        broken(move |seen| {
            let args = [operation, "--location", "default"];
            seen.jobs = all([
                job("earlier", operation, 70, &args, Some(conditions[0])),
                job("later", operation, 10, &args, Some(conditions[1])),
            ]);
            seen.pods = Some(all([pod(
                "later",
                json!({"terminated": {"exitCode": 1,
                "message": "x\nerror: access denied\n", "finishedAt": ago(9)}}),
            )]));
        })
    };
    assert_eq!(
        reasons(&last("expire", ["Complete", "Failed"])),
        [Reason::ExpiryFailing]
    );
    assert!(
        assess(&last("expire", ["Complete", "Failed"])).attention[0]
            .message
            .ends_with(": access denied")
    );
    assert_eq!(
        reasons(&last("sync", ["Complete", "Failed"])),
        [Reason::SyncFailing]
    );
    for operation in ["expire", "sync"] {
        assert_eq!(reasons(&last(operation, ["Failed", "Complete"])), []);
    }
    let crons = |expire: Value| {
        broken(move |seen| {
            seen.cron_jobs = all([hourly("sync", 12), expire, schedule("nightly", None)])
        })
    };
    assert_eq!(
        reasons(&crons(hourly("expire", 181))),
        [Reason::ExpiryFailing]
    );
    let mut suspended = hourly("expire", 181);
    suspended["spec"]["suspend"] = json!(true);
    assert_eq!(notes(&crons(suspended)), [Reason::ExpirySuspended]);
}

#[test]
fn schedules() {
    let backups = |backups: Vec<Value>| broken(move |seen| seen.backups = all(backups));
    // 3 o'clock: 9 and 33 hours ago; the first of them may be missing.
    assert_eq!(reasons(&backups(vec![backup(33, "Completed")])), []);
    let overdue = backups(vec![backup(57, "Completed")]);
    assert_eq!(reasons(&overdue), [Reason::BackupOverdue]);
    assert_eq!(
        assess(&overdue).attention[0].command,
        "kubectl ark schedule run nightly"
    );
    assert_eq!(reasons(&backups(Vec::new())), [Reason::BackupOverdue]);
    let failed = backups(vec![backup(9, "Failed"), backup(33, "Completed")]);
    assert_eq!(reasons(&failed), [Reason::BackupFailed]);
    let item = &assess(&failed).attention[0];
    // `schedule describe` says the same.
    let mut cron_job: k8s_openapi::api::batch::v1::CronJob = read(schedule("nightly", None));
    cron_job.metadata.namespace = Some("heptio-ark".into());
    let shown = crate::schedule::view::Shown::new(cron_job, &failed.backups, None);
    let text = shown.describe(now());
    for said in [&item.message, &format!("`{}`", item.command)] {
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
    assert_eq!(
        (item.object.as_str(), item.command.as_str()),
        ("schedule/nightly", "kubectl ark backup describe nightly-9")
    );
    assert!(
        item.message.contains("1 in a row") && item.message.ends_with(": the bucket is gone"),
        "{item:?}"
    );
    assert_eq!(
        reasons(&backups(vec![
            backup(9, "PartiallyFailed"),
            backup(33, "Completed")
        ])),
        [Reason::BackupPartiallyFailed]
    );
    // The worse of the two is said.
    assert_eq!(
        reasons(&backups(vec![
            backup(9, "Failed"),
            backup(33, "Failed"),
            backup(57, "Completed")
        ])),
        [Reason::BackupOverdue]
    );
    assert_eq!(
        assess(&backups(vec![
            backup(9, "Failed"),
            backup(33, "PartiallyFailed"),
            backup(57, "Completed")
        ]))
        .schedules[0]
            .failures_in_row,
        2
    );
    let only = |one: Option<Value>| {
        broken(move |seen| {
            seen.cron_jobs = all([hourly("sync", 12), hourly("expire", 42)]
                .into_iter()
                .chain(one));
            seen.backups.clear();
        })
    };
    assert_eq!(notes(&only(None)), [Reason::NoSchedule]);
    // However old its backups are: a person wants it so.
    assert_eq!(
        notes(&only(Some(schedule("nightly", Some(None))))),
        [Reason::SchedulePaused]
    );
    let by_mode = || Some(schedule("nightly", Some(Some("restore-only"))));
    assert_eq!(reasons(&only(by_mode())), [Reason::ScheduleSuspended]);
    let mut in_mode = only(by_mode());
    in_mode.config = Some(read(
        json!({"metadata": {"name": "ark"}, "data": {"mode": "RestoreOnly"}}),
    ));
    assert_eq!(notes(&in_mode), [Reason::RestoreOnlyMode]);
}

#[test]
fn operations() {
    let record = |status: Value| {
        let mut one = backup(0, "InProgress");
        one["metadata"] = json!({"name": "a"});
        for (key, value) in status.as_object().unwrap() {
            one["status"][key] = value.clone();
        }
        one
    };
    let running = |minutes: i64, state: Value, status: Value| {
        broken(|seen| {
            seen.jobs = all([job(
                "backup-a",
                "backup",
                minutes,
                &["backup", "a", "--location", "default"],
                None,
            )]);
            seen.pods = Some(all([pod("backup-a", state)]));
            if !status.is_null() {
                seen.backups.push(read(record(status)));
            }
        })
    };
    let at_work = || json!({"running": {"startedAt": ago(30)}});
    let beat = |minutes: i64| json!({"heartbeat": ago(minutes), "startTimestamp": ago(30), "progress": {"itemsBackedUp": 7}});
    let fresh = running(30, at_work(), beat(0));
    assert_eq!(reasons(&fresh), []);
    let shown = &assess(&fresh).operations[0];
    assert_eq!(
        (shown.operation.as_str(), shown.name.as_str(), shown.items),
        ("backup", "a", Some(7))
    );
    assert_eq!(
        reasons(&running(30, at_work(), beat(11))),
        [Reason::HeartbeatStale]
    );
    let pulling = || json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}});
    let stuck = running(1, pulling(), Value::Null);
    assert_eq!(reasons(&stuck), [Reason::OperationStuck]);
    let item = &assess(&stuck).attention[0];
    assert!(
        item.message
            .contains("registry.local/ark:1 cannot be pulled"),
        "{item:?}"
    );
    assert!(
        item.hint
            .as_ref()
            .unwrap()
            .contains("kubectl ark install --image")
    );
    let starting = || json!({"waiting": {"reason": "ContainerCreating"}});
    assert_eq!(reasons(&running(1, starting(), Value::Null)), []);
    assert_eq!(
        reasons(&running(6, starting(), Value::Null)),
        [Reason::OperationStuck]
    );
    // Over, though a container that is not ours runs on.
    let mut held = running(
        30,
        json!({"terminated": {"exitCode": 0, "finishedAt": ago(5)}}),
        json!({"phase": "Completed", "completionTimestamp": ago(5)}),
    );
    let statuses = held.pods.as_mut().unwrap()[0].status.as_mut().unwrap();
    let statuses = statuses.container_statuses.as_mut().unwrap();
    let mut sidecar = statuses[0].clone();
    sidecar.name = "istio-proxy".into();
    sidecar.state = Some(read(at_work()));
    statuses.push(sidecar);
    assert_eq!(reasons(&held), [Reason::JobHeldOpen]);
    assert_eq!(assess(&held).operations, []);
    let item = &assess(&held).attention[0];
    assert_eq!(item.command, "kubectl delete job backup-a -n heptio-ark");
    assert!(item.message.contains("istio-proxy"), "{item:?}");
    // Without a Job: of `--local`, or killed.
    let alone = |status: Value| broken(|seen| seen.backups.push(read(record(status))));
    assert_eq!(reasons(&alone(beat(1))), []);
    assert_eq!(assess(&alone(beat(1))).operations.len(), 1);
    assert_eq!(reasons(&alone(beat(11))), [Reason::RecordStale]);
    let frozen =
        json!({"phase": "Failed", "freeze": {"pods": [{"namespace": "shop", "name": "db-0"}]}});
    let frozen = alone(frozen);
    assert_eq!(reasons(&frozen), [Reason::PodsMayBeFrozen]);
    assert!(assess(&frozen).attention[0].message.ends_with("shop/db-0"));
    assert_eq!(
        notes(&alone(json!({"phase": "Deleting"}))),
        [Reason::DeletionUnfinished]
    );
}

#[test]
fn the_most_urgent_comes_first() {
    let seen = broken(|seen| {
        seen.template = Some(read(template("1")));
        seen.backups = all([backup(9, "Failed")]);
        seen.locations = all([location(
            json!({"lastSyncTime": ago(12), "unreachable": "403"}),
        )]);
    });
    assert_eq!(
        reasons(&seen),
        [
            Reason::LocationUnreachable,
            Reason::BackupOverdue,
            Reason::ImageOutdated
        ]
    );
}

/// Lines that are not commands, which are to be copied.
fn widest(text: &str) -> usize {
    let lines = text.lines().filter(|line| !line.starts_with("  kubectl "));
    lines.map(|line| line.chars().count()).max().unwrap()
}

#[test]
fn it_fits_a_screen() {
    let text = print::text(&assess(&healthy()), Some(80));
    assert_eq!(
        text,
        format!(
            "Healthy\n\n\
             Plugin:     v{}\n\
             Image:      registry.local/ark:1\n\
             Mode:       Normal\n\n\
             LOCATION   ACCESS      REACHABLE   SYNC      EXPIRY\n\
             default    ReadWrite   yes         12m ago   42m ago\n\n\
             SCHEDULE   STATUS    LAST-GOOD   FAILED   NEXT\n\
             nightly    Enabled   9h ago      0        in 15h\n\n\
             Running:    nothing\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    let troubled: Health = assess(&broken(|seen| {
        let long = "a-schedule-whose-name-has-forty-eight-characters";
        seen.cron_jobs.push(read(schedule(long, None)));
        seen.backups = all([backup(9, "Failed")]);
        seen.jobs = all([job("backup-a", "backup", 60, &["backup", "a"], None)]);
        seen.pods = Some(all([pod(
            "backup-a",
            json!({"waiting": {"reason": "ImagePullBackOff",
            "message": "Back-off pulling image \"registry.local/ark:1\": dial tcp: lookup registry.local: no such host"}}),
        )]));
    }));
    for width in [60, 80] {
        let text = print::text(&troubled, Some(width));
        assert!(
            text.starts_with("NOT HEALTHY: 3 things need attention\n"),
            "{text}"
        );
        assert!(widest(&text) <= width, "{width}: {text}");
    }
    assert!(print::text(&troubled, Some(80)).lines().count() <= 30);
    // In a pipe nothing is cut or wrapped.
    let piped = print::text(&troubled, None);
    for item in &troubled.attention {
        assert!(
            piped.contains(&format!("! {}\n  {}\n", item.message, item.command)),
            "{piped}"
        );
    }
}
