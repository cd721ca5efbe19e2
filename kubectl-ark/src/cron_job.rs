//! CronJobs: a Job, and when it is made. Pure.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Finished Jobs that are kept, of either kind, to be looked at.
const HISTORY: i32 = 3;

/// When Jobs are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A cron expression.
    pub schedule: String,
    /// Its time zone; absent: the controller manager's.
    pub time_zone: Option<String>,
    /// Seconds that a Job may start late; later, it is left out.
    pub starting_deadline: i64,
    /// Whether none are made for now.
    pub suspend: bool,
}

/// The CronJob called `name` that makes `job` again and again, never a second one beside a first.
pub fn cron_job(name: &str, job: Job, timing: &Timing) -> CronJob {
    let labels = job.metadata.labels;
    CronJob {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: job.metadata.namespace,
            labels: labels.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(CronJobSpec {
            schedule: timing.schedule.clone(),
            time_zone: timing.time_zone.clone(),
            starting_deadline_seconds: Some(timing.starting_deadline),
            suspend: timing.suspend.then_some(true),
            concurrency_policy: Some("Forbid".into()),
            successful_jobs_history_limit: Some(HISTORY),
            failed_jobs_history_limit: Some(HISTORY),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels,
                    annotations: job.metadata.annotations,
                    ..ObjectMeta::default()
                }),
                spec: job.spec,
            },
        }),
        status: None,
    }
}
