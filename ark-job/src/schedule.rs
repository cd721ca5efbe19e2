//! Schedules: native CronJobs whose Jobs back up. What their backups are called, and which time a Job is for.

use crate::api::SCHEDULE_LABEL;
use crate::identity::{self, timestamp};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

/// The CronJob controller notes here which time a Job is for, in the CronJob's zone.
const SCHEDULED_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// `kubectl create job --from` says so with the value `manual`.
const INSTANTIATE_ANNOTATION: &str = "cronjob.kubernetes.io/instantiate";

/// Longest name of a schedule: with `-` and fourteen digits it is a label value.
pub const NAME_MAX: usize = 48;
/// A schedule's newest Completed backups that never expire, unless it says otherwise.
pub const DEFAULT_KEEP_LAST: u32 = 1;

/// Checks that a schedule can be called `name`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    identity::check_name(name)?;
    if name.len() > NAME_MAX {
        return Err(format!(
            "{name:?} has {} characters; a schedule's name has at most {NAME_MAX}, since its backups are called \
             <SCHEDULE>-<YYYYMMDDhhmmss>",
            name.len()
        ));
    }
    Ok(())
}

/// What the backup of a schedule for a time is called: `<SCHEDULE>-<YYYYMMDDhhmmss>`, the time in UTC.
pub fn backup_name(schedule: &str, scheduled: Timestamp) -> String {
    format!("{schedule}-{}", timestamp(scheduled))
}

/// The schedule that a Job was made by, by its label.
pub fn of_job(job: &Job) -> Option<&str> {
    let labels = job.metadata.labels.as_ref()?;
    labels.get(SCHEDULE_LABEL).map(String::as_str)
}

/// The time that a CronJob's Job is for, in whole seconds: the one that the CronJob controller noted; else that in the
/// Job's name, `<CRONJOB>-<minutes since 1970>`; else, as of one that somebody made by hand, the Job's creation.
///
/// Every Job that is made for one tick gives the same time. `None` for a Job that has not been created.
pub fn scheduled_time(job: &Job) -> Option<Timestamp> {
    let metadata = &job.metadata;
    let annotation = |key: &str| Some(metadata.annotations.as_ref()?.get(key)?.as_str());
    let noted = || annotation(SCHEDULED_ANNOTATION)?.parse().ok();
    let tick = match annotation(INSTANTIATE_ANNOTATION) {
        Some(_) => None,
        None => noted().or_else(|| time_in_name(job)),
    };
    let created = || metadata.creation_timestamp.as_ref().map(|time| time.0);
    tick.or_else(created).map(whole_second)
}

/// The time that the CronJob controller puts into the names of Jobs.
fn time_in_name(job: &Job) -> Option<Timestamp> {
    let owners = job.metadata.owner_references.as_deref().unwrap_or_default();
    let cron_job = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == "CronJob")?;
    let suffix = job
        .metadata
        .name
        .as_deref()?
        .strip_prefix(cron_job.name.as_str())?
        .strip_prefix('-')?;
    if !suffix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let minutes: i64 = suffix.parse().ok()?;
    Timestamp::from_second(minutes.checked_mul(60)?).ok()
}

/// The second that a time is in: names and ticks have no fractions.
pub fn whole_second(at: Timestamp) -> Timestamp {
    at.round(
        jiff::TimestampRound::new()
            .smallest(jiff::Unit::Second)
            .mode(jiff::RoundMode::Floor),
    )
    .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A Job of the CronJob `daily`, created at 07:00:03.
    fn job(name: &str, annotations: Value) -> Job {
        let job = json!({"metadata": {
            "name": name,
            "creationTimestamp": "2026-11-26T07:00:03Z",
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": "daily", "uid": "u", "controller": true,
            }],
        }});
        serde_json::from_value(job).unwrap()
    }

    fn time(job: &Job) -> String {
        scheduled_time(job).unwrap().to_string()
    }

    #[test]
    fn the_time_is_the_one_that_the_controller_noted() {
        let noted = json!({SCHEDULED_ANNOTATION: "2026-11-26T12:30:00+05:30"});
        // 07:05 in its name.
        let job = job("daily-29927945", noted);
        assert_eq!(time(&job), "2026-11-26T07:00:00Z");
    }

    #[test]
    fn else_it_is_the_one_in_the_name() {
        assert_eq!(
            time(&job("daily-29927940", json!({}))),
            "2026-11-26T07:00:00Z"
        );
        let unreadable = json!({SCHEDULED_ANNOTATION: "soon"});
        assert_eq!(
            time(&job("daily-29927940", unreadable)),
            "2026-11-26T07:00:00Z"
        );
    }

    #[test]
    fn else_it_is_the_jobs_creation() {
        const CREATED: &str = "2026-11-26T07:00:03Z";
        for name in [
            "daily-now",
            "daily-",
            "daily-+5",
            "daily29927940",
            "other-29927940",
            "daily-99999999999999999999",
        ] {
            assert_eq!(time(&job(name, json!({}))), CREATED, "{name}");
        }
        let manual = json!({INSTANTIATE_ANNOTATION: "manual"});
        assert_eq!(time(&job("daily-29927940", manual)), CREATED);
        let mut unowned = job("daily-29927940", json!({}));
        unowned.metadata.owner_references = None;
        assert_eq!(time(&unowned), CREATED);
        unowned.metadata.creation_timestamp = None;
        assert_eq!(scheduled_time(&unowned), None);
    }

    #[test]
    fn a_backup_of_the_longest_name_is_a_label_value() {
        let at = "2026-11-26T12:30:00.9+05:30".parse().unwrap();
        assert_eq!(whole_second(at).to_string(), "2026-11-26T07:00:00Z");
        let name = backup_name(&"x".repeat(NAME_MAX), at);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("x-20261126070000"), "{name}");
        assert_eq!(check_name(&"x".repeat(NAME_MAX)), Ok(()));
        assert!(check_name(&"x".repeat(NAME_MAX + 1)).is_err());
    }
}
