//! What came of the hourly work on a location, from its CronJob and its Jobs. Pure.

use super::assess::Housekeeping;
use super::collect::Seen;
use crate::hourly::{is_suspended, operation};
use crate::names;
use crate::records::{self, End, ended};
use crate::wait::{self, State};
use ark_job::api::OPERATION_LABEL;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is known of an operation on a location.
pub fn seen(seen: &Seen, work: &str, location: &str) -> Housekeeping {
    let name = names::cron_job(work, location);
    let cron_job = seen
        .cron_jobs
        .iter()
        .find(|one| one.metadata.name.as_ref() == Some(&name) && operation(one) == Some(work));
    // Those by hand count as well: whoever has mended it sees so.
    let mut done: Vec<(&Job, End)> = seen
        .jobs
        .iter()
        .filter(|job| is_of(job, work, location))
        .filter_map(|job| Some((job, ended(job)?)))
        .collect();
    done.sort_by_key(|(job, _)| job.metadata.creation_timestamp.clone().map(|time| time.0));
    let last = done.last();
    let succeeded = done
        .iter()
        .filter(|(_, end)| *end == End::Complete)
        .filter_map(|(job, _)| job.status.as_ref()?.completion_time.clone());
    let known = cron_job.and_then(|one| one.status.as_ref()?.last_successful_time.clone());
    Housekeeping {
        suspended: cron_job.is_some_and(is_suspended),
        cron_job: cron_job.map(|_| name),
        last_success_time: latest(succeeded.chain(known)),
        last_job: last.and_then(|(job, _)| job.metadata.name.clone()),
        failed: last.is_some_and(|(_, end)| *end != End::Complete),
        message: last.and_then(|(job, _)| message(seen, job)),
    }
}

fn latest(times: impl Iterator<Item = Time>) -> Option<Time> {
    times.max_by_key(|time| time.0)
}

fn is_of(job: &Job, work: &str, location: &str) -> bool {
    let labels = job.metadata.labels.as_ref();
    let operation = labels.and_then(|labels| labels.get(OPERATION_LABEL));
    operation.is_some_and(|operation| operation == work)
        && records::command(job)
            .is_some_and(|command| command.storage().location.as_deref() == Some(location))
}

/// Why a Job failed.
fn message(seen: &Seen, job: &Job) -> Option<String> {
    let pods = wait::pods_of(job, seen.pods.as_deref().unwrap_or_default());
    match wait::judge(job, &pods, &[]) {
        State::Finished { message, .. } => message,
        State::Pending(_) | State::Running | State::Stuck(_) | State::HeldOpen(_) => None,
    }
}
