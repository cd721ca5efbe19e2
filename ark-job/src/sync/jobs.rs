//! The Jobs in Ark's namespace: whether the run that a record speaks of can still be at work.

use crate::api::OPERATION_LABEL;
use crate::args::{Args, Command};
use crate::cluster::{Cluster, ClusterError};
use crate::identity::{Origin, RunId};
use crate::schedule;
use clap::Parser;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;

/// Jobs read at once.
const PAGE: usize = 100;

/// A Job, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// The runs that its pods may be, of a schedule's tick or by themselves: which depends on what they were told.
    runs: Vec<RunId>,
}

/// Where a Job stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum JobState {
    /// It has pods, or will have.
    #[default]
    Active,
    /// It is complete.
    Complete,
    /// It is failing, and some pod of it has not ended: with a lost node, none ever does.
    Failing(String),
    /// It has failed.
    Failed(String),
}

impl Job {
    /// Whether its pods are this run.
    pub fn is_of(&self, run: &str) -> bool {
        self.runs.iter().any(|own| own.as_str() == run)
    }

    fn new(job: &batch::Job, cluster_uid: &str, namespace: &str) -> Job {
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let mut origins = vec![Origin::Job { uid }];
        if let Some(schedule) = schedule::of_job(job) {
            // What it was told counts more than when it was made; it may have been told nothing.
            let times = [told_time(job), schedule::scheduled_time(job)];
            origins.extend(
                times
                    .into_iter()
                    .flatten()
                    .map(|scheduled| Origin::Schedule {
                        name: schedule.to_owned(),
                        scheduled,
                    }),
            );
        }
        Job {
            name: job.metadata.name.clone().unwrap_or_default(),
            state: state(job),
            runs: origins
                .iter()
                .map(|origin| RunId::new(cluster_uid, namespace, origin))
                .collect(),
        }
    }
}

/// The time that a Job's arguments name, as those of a schedule's first backup do.
fn told_time(job: &batch::Job) -> Option<Timestamp> {
    let containers = &job.spec.as_ref()?.template.spec.as_ref()?.containers;
    containers.iter().find_map(|container| {
        let words = container.args.iter().flatten().map(String::as_str);
        let args = Args::try_parse_from(std::iter::once("ark-job").chain(words)).ok()?;
        match args.command {
            Command::Backup(backup) => backup.tick.scheduled.map(schedule::whole_second),
            _ => None,
        }
    })
}

fn state(job: &batch::Job) -> JobState {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .flatten();
    let holds = |kind: &str| {
        conditions
            .clone()
            .find(|condition| condition.type_ == kind && condition.status == "True")
    };
    let why = |condition: &batch::JobCondition| {
        let texts = [&condition.reason, &condition.message];
        let texts: Vec<&str> = texts.into_iter().flatten().map(String::as_str).collect();
        texts.join(": ")
    };
    if holds("Complete").is_some() {
        return JobState::Complete;
    }
    if let Some(condition) = holds("Failed") {
        return JobState::Failed(why(condition));
    }
    if let Some(condition) = holds("FailureTarget") {
        return JobState::Failing(why(condition));
    }
    JobState::Active
}

/// Lists the Jobs of operations.
///
/// # Errors
/// When the API server refuses, or cannot be asked.
pub async fn list(
    cluster: &Cluster,
    namespace: &str,
    cluster_uid: &str,
) -> Result<Vec<Job>, ClusterError> {
    #[derive(serde::Deserialize)]
    struct Page {
        metadata: ListMeta,
        items: Vec<batch::Job>,
    }
    let (mut jobs, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "/apis/batch/v1/namespaces/{namespace}/jobs?labelSelector={OPERATION_LABEL}&limit={PAGE}{next}"
        );
        let page: Page = cluster.get(&path, "listing Jobs").await?;
        let items = page.items.iter();
        jobs.extend(items.map(|job| Job::new(job, cluster_uid, namespace)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={token}"),
            None => return Ok(jobs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SCHEDULED_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

    fn job(conditions: serde_json::Value) -> batch::Job {
        serde_json::from_value(json!({
            "metadata": {"name": "daily-29000000", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"ark.heptio.com/schedule": "daily"},
                "annotations": {SCHEDULED_ANNOTATION: "2026-01-02T04:04:00+01:00"}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn a_job_that_is_told_its_time_is_that_run_whatever_it_is_called() {
        let at: Timestamp = "2026-11-26T03:00:00Z".parse().unwrap();
        let first: batch::Job = serde_json::from_value(json!({
            "metadata": {"name": "backup-daily-20261126030000", "uid": "u", "creationTimestamp": "2026-11-26T03:00:01Z",
                "labels": {"ark.heptio.com/schedule": "daily"}},
            "spec": {"template": {"spec": {"containers": [{"name": "ark-job",
                "args": ["backup", "--schedule=daily", "--scheduled=2026-11-26T03:00:00Z", "--location=default"]}]}}},
        }))
        .unwrap();
        let job = Job::new(&first, "c", "n");
        let tick = Origin::Schedule {
            name: "daily".into(),
            scheduled: at,
        };
        assert!(job.is_of(RunId::new("c", "n", &tick).as_str()));
    }

    #[test]
    fn what_a_job_says_of_itself() {
        let failed = json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "late"},
            {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "late"}]);
        let failing =
            json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]);
        assert_eq!(
            state(&job(failed)),
            JobState::Failed("DeadlineExceeded: late".into())
        );
        assert_eq!(
            state(&job(failing)),
            JobState::Failing("DeadlineExceeded".into())
        );
        assert_eq!(
            state(&job(json!([{"type": "Complete", "status": "True"}]))),
            JobState::Complete
        );
        assert_eq!(
            state(&job(json!([{"type": "Failed", "status": "False"}]))),
            JobState::Active
        );
    }

    #[test]
    fn a_jobs_pods_are_the_run_of_its_tick_or_of_itself() {
        let job = Job::new(&job(json!([])), "c", "heptio-ark");
        let run = |origin: Origin| RunId::new("c", "heptio-ark", &origin);
        let tick = |at: &str| Origin::Schedule {
            name: "daily".into(),
            scheduled: at.parse().unwrap(),
        };
        for own in [
            Origin::Job { uid: "u".into() },
            tick("2026-01-02T03:04:00Z"),
        ] {
            assert!(job.is_of(run(own.clone()).as_str()), "{own:?}");
        }
        // Neither another Job's, nor that of a time which the name or the creation tells: another tick's Job may be at work.
        for other in [
            Origin::Job { uid: "v".into() },
            tick("2026-01-02T03:04:05Z"),
            tick("2025-02-19T21:20:00Z"),
        ] {
            assert!(!job.is_of(run(other.clone()).as_str()), "{other:?}");
        }
    }
}
