//! What runs, and whether it gets on, from Jobs, pods and records. Pure.

use super::assess::{Findings, Item, OperationHealth, Reason, command, is_before};
use super::collect::{Seen, subject};
use crate::age::age;
use crate::records::{self, Record, ended};
use crate::wait::{self, JOB_NAME_LABEL, State};
use ark_job::api::{Backup, BackupPhase, OPERATION_LABEL, Restore};
use ark_job::records::ALIVE_WITHIN;
use ark_job::report::plural;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;

/// A pod that has not started after this time, for whatever reason, is worth a look.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_mins(5);
/// What else is in a pod may take some time to see that its work is done.
const ENDS_WITHIN: SignedDuration = SignedDuration::from_secs(10);
/// Pods that are named; `describe` names all.
const NAMED: usize = 3;

/// What is known of a record.
struct Known {
    noun: &'static str,
    name: String,
    location: Option<String>,
    /// It has not ended.
    open: bool,
    deleting: bool,
    started: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    progress: Option<records::Progress>,
    frozen: Vec<String>,
}

/// What runs.
pub fn assess(seen: &Seen, findings: &mut Findings) -> Vec<OperationHealth> {
    let known: Vec<Known> = seen
        .backups
        .iter()
        .map(of_backup)
        .chain(seen.restores.iter().map(of_restore))
        .collect();
    let mut all = Vec::new();
    let mut at_work = BTreeSet::new();
    for job in seen.jobs.iter().filter(|job| ended(job).is_none()) {
        let Some(running) = running(job, seen, &known, findings) else {
            continue;
        };
        at_work.insert((running.operation.clone(), running.name.clone()));
        all.push(running);
    }
    let deletes = all
        .iter()
        .any(|one| ["delete", "undelete", "expire"].contains(&one.operation.as_str()));
    for record in &known {
        let has_job = at_work.contains(&(record.noun.to_owned(), record.name.clone()));
        if record.open && !has_job {
            all.extend(without_job(record, seen, findings));
        }
        if record.deleting && !deletes {
            findings.notes.push(Item::new(
                Reason::DeletionUnfinished,
                record.object(),
                format!(
                    "the deletion of backup {} has begun, and does not go on",
                    record.name
                ),
                command(seen, &format!("backup delete {}", record.name)),
            ));
        }
        if !record.frozen.is_empty() && !(record.open && (has_job || is_alive(record, seen))) {
            findings.attention.push(frozen(record, seen));
        }
    }
    all
}

impl Known {
    fn object(&self) -> String {
        format!("{}/{}", self.noun, self.name)
    }

    /// Its last sign of life.
    fn sign(&self) -> Option<Timestamp> {
        self.heartbeat.or(self.started)
    }
}

fn is_alive(record: &Known, seen: &Seen) -> bool {
    record
        .sign()
        .is_some_and(|at| !is_before(at, ALIVE_WITHIN, seen.now))
}

fn of_backup(backup: &Backup) -> Known {
    let status = backup.status.as_ref();
    let phase = records::phase(backup);
    let frozen = status.and_then(|status| status.freeze.as_ref());
    Known {
        noun: "backup",
        name: records::name(backup).to_owned(),
        location: backup.spec.storage_location.clone(),
        open: matches!(phase, BackupPhase::New | BackupPhase::InProgress),
        deleting: phase == BackupPhase::Deleting,
        started: records::created(
            backup,
            status.and_then(|status| status.start_timestamp.as_ref()),
        ),
        heartbeat: status.and_then(|status| Some(status.heartbeat.as_ref()?.0)),
        progress: backup.progress(),
        frozen: frozen
            .into_iter()
            .flat_map(|freeze| &freeze.pods)
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect(),
    }
}

fn of_restore(restore: &Restore) -> Known {
    let status = restore.status.as_ref();
    Known {
        noun: "restore",
        name: records::name(restore).to_owned(),
        location: restore.spec.storage_location.clone(),
        open: restore.end().is_none(),
        deleting: false,
        started: records::created(
            restore,
            status.and_then(|status| status.start_timestamp.as_ref()),
        ),
        heartbeat: status.and_then(|status| Some(status.heartbeat.as_ref()?.0)),
        progress: restore.progress(),
        frozen: Vec::new(),
    }
}

/// A Job that has not ended; none if its operation has.
fn running(
    job: &Job,
    seen: &Seen,
    known: &[Known],
    findings: &mut Findings,
) -> Option<OperationHealth> {
    let job_name = job.metadata.name.clone().unwrap_or_default();
    let labels = job.metadata.labels.as_ref();
    let operation = labels
        .and_then(|labels| labels.get(OPERATION_LABEL).cloned())
        .unwrap_or_default();
    let location = || records::command(job)?.storage().location.clone();
    let name = subject(job)
        .or_else(location)
        .unwrap_or_else(|| job_name.clone());
    let record = known
        .iter()
        .find(|record| record.noun == operation && record.name == name);
    let made = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let state = seen.pods.as_deref().map(|pods| {
        let own = wait::pods_of(job, pods);
        wait::judge(job, &own, &seen.events)
    });
    let object = match record {
        Some(record) => record.object(),
        None => format!("job/{job_name}"),
    };
    let look = match operation.as_str() {
        "backup" | "restore" => command(seen, &format!("{operation} describe {name}")),
        _ => format!("kubectl describe job {job_name} -n {}", seen.namespace),
    };
    let older = |than: SignedDuration| made.is_some_and(|made| is_before(made, than, seen.now));
    let (word, waiting_for) = match &state {
        None => ("Unknown", None),
        Some(State::Pending(note)) => {
            if older(STARTS_WITHIN) {
                findings.attention.push(Item::new(
                    Reason::OperationStuck,
                    object.clone(),
                    format!(
                        "{operation} {name} was asked for {} ago and is not running: {}",
                        made.map(|made| age(made, seen.now)).unwrap_or_default(),
                        note.as_deref().unwrap_or("its pod has not started")
                    ),
                    look.clone(),
                ));
            }
            ("Pending", note.clone())
        }
        Some(State::Stuck(stuck)) => {
            let patience = SignedDuration::try_from(stuck.patience).unwrap_or(STARTS_WITHIN);
            let waiting = format!("{}: {}", stuck.object, stuck.cause);
            if !older(patience) {
                ("Pending", Some(waiting))
            } else {
                findings.attention.push(Item {
                    reason: Reason::OperationStuck,
                    object: object.clone(),
                    message: format!("{operation} {name} does not start: {waiting}"),
                    command: look.clone(),
                    hint: Some(stuck.hint.clone()),
                });
                ("Stuck", Some(waiting))
            }
        }
        Some(State::HeldOpen(held)) => {
            if held
                .since
                .is_none_or(|at| is_before(at, ENDS_WITHIN, seen.now))
            {
                findings.attention.push(Item {
                    reason: Reason::JobHeldOpen,
                    object,
                    message: format!("{operation} {name} has ended, but {}", held.cause()),
                    command: format!("kubectl delete job {job_name} -n {}", seen.namespace),
                    hint: Some(held.prevention()),
                });
            }
            return None;
        }
        // Between the end of its pod and that of the Job.
        Some(State::Running | State::Finished { .. }) => ("Running", None),
    };
    let silent = record.and_then(|record| record.heartbeat);
    if ["Running", "Unknown"].contains(&word)
        && let Some(at) = silent.filter(|at| is_before(*at, ALIVE_WITHIN, seen.now))
    {
        findings.attention.push(Item {
                reason: Reason::HeartbeatStale,
                object,
                message: format!(
                    "{operation} {name} runs, and has given no sign of life for {}: its node may be lost",
                    age(at, seen.now)
                ),
                command: format!(
                    "kubectl get pods -n {} -l {JOB_NAME_LABEL}={job_name} -o wide",
                    seen.namespace
                ),
                hint: Some(format!(
                    "`kubectl delete job {job_name} -n {}` ends it; nothing half done stays in storage",
                    seen.namespace
                )),
            });
    }
    let progress = record.and_then(|record| record.progress);
    Some(OperationHealth {
        operation,
        name,
        job: Some(job_name),
        state: word.into(),
        waiting_for,
        start_time: made.map(Time),
        heartbeat: silent.map(Time),
        items: progress.map(|progress| progress.items),
        total_items: progress.and_then(|progress| progress.total),
    })
}

/// A record that has not ended, and no Job: somebody runs it with `--local`, or it was killed.
fn without_job(record: &Known, seen: &Seen, findings: &mut Findings) -> Option<OperationHealth> {
    if is_alive(record, seen) {
        return Some(OperationHealth {
            operation: record.noun.into(),
            name: record.name.clone(),
            job: None,
            state: "Running".into(),
            waiting_for: None,
            start_time: record.started.map(Time),
            heartbeat: record.heartbeat.map(Time),
            items: record.progress.map(|progress| progress.items),
            total_items: record.progress.and_then(|progress| progress.total),
        });
    }
    let since = record
        .sign()
        .map(|at| format!(" for {}", age(at, seen.now)));
    findings.attention.push(Item::new(
        Reason::RecordStale,
        record.object(),
        format!(
            "{} {} is not finished, has no Job, and has given no sign of life{}: it was killed, and sync will say so",
            record.noun,
            record.name,
            since.unwrap_or_default()
        ),
        match &record.location {
            Some(location) => command(seen, &format!("sync --location {location}")),
            None => command(seen, &format!("{} describe {}", record.noun, record.name)),
        },
    ));
    None
}

fn frozen(record: &Known, seen: &Seen) -> Item {
    let count = u64::try_from(record.frozen.len()).unwrap_or(u64::MAX);
    let named = &record.frozen[..record.frozen.len().min(NAMED)];
    let more = match record.frozen.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Item {
        reason: Reason::PodsMayBeFrozen,
        object: record.object(),
        message: format!(
            "backup {} has frozen {}, and may not have thawed: {}{more}",
            record.name,
            plural(count, "pod"),
            named.join(", ")
        ),
        command: command(seen, &format!("backup describe {}", record.name)),
        hint: Some("its reason has the commands that thaw them; so does a backup of the same name, by itself".into()),
    }
}
