//! The time that a schedule's backup is for: told by the command line, or by the Job that the process runs in.

use super::options::Options;
use crate::args::TickFlags;
use crate::cluster::Cluster;
use crate::context::Environment;
use crate::error::Failure;
use crate::exit::Exit;
use crate::identity::Origin;
use crate::schedule::{DEFAULT_KEEP_LAST, backup_name, scheduled_time, whole_second};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

/// A schedule that asks for a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its name.
    pub schedule: String,
    /// The time that the backup is for, in whole seconds; `None` until it is known.
    pub scheduled: Option<Timestamp>,
    /// How many of the schedule's newest Completed backups never expire.
    pub keep_last: u32,
}

impl Tick {
    /// What was typed; `None` when no schedule asks.
    pub fn resolve(flags: &TickFlags) -> Option<Tick> {
        let TickFlags {
            schedule,
            scheduled,
            keep_last,
        } = flags;
        Some(Tick {
            schedule: schedule.clone()?,
            scheduled: scheduled.map(whole_second),
            keep_last: keep_last.unwrap_or(DEFAULT_KEEP_LAST),
        })
    }

    /// What its backup is called: of one whose time is not known, the schedule's name.
    pub fn backup_name(&self) -> String {
        match self.scheduled {
            Some(scheduled) => backup_name(&self.schedule, scheduled),
            None => self.schedule.clone(),
        }
    }
}

impl Options {
    /// Finds the time that a schedule's backup is for, and so its name, and says what asks for the run.
    ///
    /// A process outside of a Job that is told no time is no tick: its backup is one of the schedule's for `now`, but every
    /// start is a run of its own.
    ///
    /// # Errors
    /// When the Job that this process runs in cannot be read.
    pub async fn settle(
        &mut self,
        cluster: &Cluster,
        namespace: &str,
        environment: &Environment,
        now: Timestamp,
    ) -> Result<Origin, Failure> {
        let Some(tick) = &mut self.tick else {
            return Ok(environment.origin());
        };
        let (scheduled, is_tick) = match (tick.scheduled, &environment.job_uid) {
            (Some(told), _) => (told, true),
            (None, Some(uid)) => {
                let name = environment.job_name.as_deref();
                (time_of_job(cluster, namespace, name, uid).await?, true)
            }
            (None, None) => (whole_second(now), false),
        };
        tick.scheduled = Some(scheduled);
        self.name = tick.backup_name();
        Ok(match is_tick {
            true => Origin::Schedule {
                name: tick.schedule.clone(),
                scheduled,
            },
            false => environment.origin(),
        })
    }
}

/// The time that the Job of this process is for.
async fn time_of_job(
    cluster: &Cluster,
    namespace: &str,
    name: Option<&str>,
    uid: &str,
) -> Result<Timestamp, Failure> {
    const WAY_OUT: &str = "--scheduled TIME says which time the backup is for";
    let failed = |text: String| Failure::new(Exit::Failed, text).hint(WAY_OUT);
    let Some(name) = name else {
        return Err(failed(format!(
            "the time that this backup is scheduled for is unknown: {} is not set",
            crate::api::environment::JOB_NAME
        )));
    };
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
    let doing = format!("reading which time Job {name} in namespace {namespace} is scheduled for");
    let job: Job = cluster
        .get(&path, &doing)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error).hint(WAY_OUT))?;
    // One that has taken its place may be for another time.
    if job.metadata.uid.as_deref() != Some(uid) {
        return Err(failed(format!(
            "Job {name} in namespace {namespace} has been deleted and made again; this process belonged to the old one"
        )));
    }
    scheduled_time(&job).ok_or_else(|| failed(format!("{doing}: it has no time of creation")))
}
