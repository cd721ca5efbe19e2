//! Schedules: native CronJobs whose Jobs back up. What their backups are called, and which time a Job is for.

use crate::api::SCHEDULE_LABEL;
use crate::identity::{self, timestamp};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

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
