//! Whether schedules do what they are for. Pure.

use super::assess::{
    BackupSeen, Findings, Item, Mode, Reason, ScheduleHealth, command, command_in, is_before,
    is_restore_only,
};
use super::collect::Seen;
use crate::age::age;
use crate::records::{self, Record};
use crate::schedule::view::{Shown, State, begun};
use crate::schedule::{of_cron_job, times};
use ark_job::api::{AccessMode, Backup, BackupPhase, NORMAL};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How much later than due a backup may be there: Jobs start late, and take their time.
const LATE: SignedDuration = SignedDuration::from_mins(10);

/// All schedules, by name.
pub fn assess(seen: &Seen, mode: &Mode, findings: &mut Findings) -> Vec<ScheduleHealth> {
    let mut shown: Vec<Shown> = seen
        .cron_jobs
        .iter()
        .filter(|cron_job| of_cron_job(cron_job).is_some())
        .map(|cron_job| Shown::new(cron_job.clone(), &seen.backups, seen.cluster_uid.as_deref()))
        .collect();
    shown.sort_by(|one, other| {
        one.cron_job
            .metadata
            .name
            .cmp(&other.cron_job.metadata.name)
    });
    let writable = |mode: AccessMode| mode == AccessMode::ReadWrite;
    let may_write = seen
        .locations
        .iter()
        .any(|one| writable(one.spec.access_mode));
    if shown.is_empty() && may_write && mode.mode == NORMAL {
        findings.notes.push(Item::new(
            Reason::NoSchedule,
            "schedule".into(),
            "there is no schedule: backups are only made by hand".into(),
            command(seen, "schedule create nightly --schedule '0 3 * * *'"),
        ));
    }
    shown
        .iter()
        .map(|schedule| one(schedule, seen, mode, findings))
        .collect()
}

fn one(schedule: &Shown, seen: &Seen, mode: &Mode, findings: &mut Findings) -> ScheduleHealth {
    let Shown {
        cron_job,
        backups,
        // Why operations do not get on is found out for those that run.
        waiting: _,
    } = schedule;
    let name = cron_job.metadata.name.clone().unwrap_or_default();
    let state = State::of(cron_job);
    let (failures, _) = schedule.failures();
    let overdue = state == State::Enabled && is_overdue(schedule, seen.now);
    match state {
        State::Enabled if is_restore_only(seen) => findings.attention.push(Item::new(
            Reason::ScheduleNotSuspended,
            format!("schedule/{name}"),
            format!("schedule {name} is not suspended, though restore-only mode is on: each of its backups is refused"),
            command(seen, "restore-only on"),
        )),
        State::Enabled => findings.attention.extend(trouble(
            schedule,
            &name,
            overdue,
            &seen.namespace,
            seen.now,
        )),
        State::Paused => findings.notes.push(Item::new(
            Reason::SchedulePaused,
            format!("schedule/{name}"),
            format!("schedule {name} is paused: it makes no backups"),
            command(seen, &format!("schedule unpause {name}")),
        )),
        State::Suspended if mode.mode == NORMAL => findings.attention.push(Item::new(
            Reason::ScheduleSuspended,
            format!("schedule/{name}"),
            format!("schedule {name} is suspended by restore-only mode, which is off: it makes no backups"),
            command(seen, "restore-only off"),
        )),
        State::Suspended => {}
    }
    let spec = cron_job.spec.clone().unwrap_or_default();
    ScheduleHealth {
        name,
        status: state.word().into(),
        schedule: spec.schedule,
        time_zone: spec.time_zone,
        next_time: schedule
            .next(seen.now, 1)
            .first()
            .map(|at| Time(at.timestamp())),
        last_backup: backups.first().map(|backup| backup_seen(backup, seen.now)),
        last_good_backup: schedule
            .last_good()
            .map(|backup| backup_seen(backup, seen.now)),
        failures_in_row: failures,
        overdue,
    }
}

fn backup_seen(backup: &Backup, now: Timestamp) -> BackupSeen {
    let at = begun(backup);
    BackupSeen {
        name: records::name(backup).into(),
        phase: records::phase(backup).to_string(),
        start_time: at.map(Time),
        age_seconds: at.map(|at| now.as_second() - at.as_second()),
        size_bytes: backup.status.as_ref().and_then(|status| status.size),
    }
}

/// Whether two times for a backup have passed since the last complete one, and the second of them long enough ago.
fn is_overdue(schedule: &Shown, now: Timestamp) -> bool {
    let made = schedule.cron_job.metadata.creation_timestamp.as_ref();
    let since = schedule
        .last_good()
        .and_then(begun)
        .or(made.map(|made| made.0));
    since
        .and_then(|since| times::after(&schedule.cron_job, since, 2).pop())
        .is_some_and(|second| is_before(second.timestamp(), LATE, now))
}

/// What `status` says of a schedule that makes backups, and is not well.
pub fn attention(schedule: &Shown, now: Timestamp) -> Option<Item> {
    let metadata = &schedule.cron_job.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let overdue = is_overdue(schedule, now);
    (State::of(&schedule.cron_job) == State::Enabled)
        .then(|| trouble(schedule, name, overdue, namespace, now))
        .flatten()
}

/// The one thing to say of a schedule that is not well.
fn trouble(
    schedule: &Shown,
    name: &str,
    overdue: bool,
    namespace: &str,
    now: Timestamp,
) -> Option<Item> {
    let last = schedule
        .backups
        .iter()
        .find(|backup| backup.end().is_some());
    let failed = last.filter(|last| {
        let phase = records::phase(last);
        matches!(phase, BackupPhase::Failed | BackupPhase::PartiallyFailed)
    });
    let good = match schedule.last_good().and_then(begun) {
        Some(at) => format!("the last complete one is {} old", age(at, now)),
        None => "there is no complete one".into(),
    };
    let (count, _) = schedule.failures();
    let (reason, message) = match failed.map(records::phase) {
        Some(BackupPhase::PartiallyFailed) => (
            Reason::BackupPartiallyFailed,
            format!(
                "something is missing from the last backup of schedule {name} ({} in a row); {good}",
                count
            ),
        ),
        Some(_) => {
            let why = failed
                .and_then(Record::failure_reason)
                .map(|why| format!(": {why}"));
            (
                Reason::BackupFailed,
                format!(
                    "the last backup of schedule {name} failed ({count} in a row); {good}{}",
                    why.unwrap_or_default()
                ),
            )
        }
        None if overdue => (
            Reason::BackupOverdue,
            format!("schedule {name} has made no backup when it should have; {good}"),
        ),
        None => return None,
    };
    let next = match failed {
        Some(failed) => command_in(
            namespace,
            &format!("backup describe {}", records::name(failed)),
        ),
        None => command_in(namespace, &format!("schedule run {name}")),
    };
    let reason = if overdue {
        Reason::BackupOverdue
    } else {
        reason
    };
    Some(Item::new(reason, format!("schedule/{name}"), message, next))
}
