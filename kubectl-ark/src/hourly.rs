//! The CronJobs that keep house: for each location one that expires backups, and one that syncs. Pure.
//!
//! Both run hourly. The minute follows from the cluster's UID, so that clusters that share a store do not all come at once;
//! expiry is half an hour away from sync.

use crate::cron_job::{Timing, cron_job};
use crate::names;
use crate::pod_template::Installation;
use crate::render::{self, JobOptions};
use ark_job::api::{
    AccessMode, BackupStorageLocationSpec, OPERATION_LABEL, PART_OF, PART_OF_LABEL,
    RESTORE_ONLY_SUSPENDED, SUSPENDED_BY_ANNOTATION,
};
use ark_job::args::{
    Args, Command, ExitFlags, ExpireArgs, ExpireFlags, PlanFormat, StorageFlags, SyncArgs,
};
use ark_job::error::Failure;
use k8s_openapi::api::batch::v1::CronJob;
use sha2::{Digest, Sha256};

/// The operation of the CronJobs that restore-only mode suspends.
pub const EXPIRE: &str = "expire";
/// The operation of those that go on.
pub const SYNC: &str = "sync";

/// Longest time that a Job takes, all retries included, seconds: as that of a backup.
const DEADLINE: i64 = 6 * 3600;
/// How late a Job may be made, seconds; the next is at most an hour away.
const STARTING_DEADLINE: i64 = 600;

/// What the CronJobs of a location depend on, beside the location.
pub struct Surroundings<'a> {
    /// Ark's namespace.
    pub namespace: &'a str,
    /// The pod settings.
    pub installation: &'a Installation,
    /// The CronJobs that are there: who suspended them is not overruled.
    pub existing: &'a [CronJob],
    /// The cluster's UID, if it is known.
    pub cluster_uid: Option<&'a str>,
    /// The mode of the installation.
    pub restore_only: bool,
    /// Whether it is switched on now: what is there is suspended as well.
    pub switching_on: bool,
}

/// The CronJobs of a location.
///
/// # Errors
/// When the pods could not work.
pub fn cron_jobs(
    location: &str,
    spec: &BackupStorageLocationSpec,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<CronJob>, Failure> {
    let storage = || StorageFlags {
        location: Some(location.to_owned()),
        storage: None,
    };
    let minute = minute(surroundings.cluster_uid.unwrap_or_default());
    let mut made = Vec::new();
    if spec.access_mode == AccessMode::ReadWrite {
        let expire = Command::Expire(ExpireArgs {
            storage: storage(),
            expire: ExpireFlags::default(),
            dry_run: false,
            output: PlanFormat::default(),
            exit: ExitFlags::default(),
        });
        made.push(made_of(
            expire,
            location,
            spec,
            (minute + 30) % 60,
            surroundings,
        )?);
    }
    let sync = Command::Sync(SyncArgs {
        storage: storage(),
        force: false,
        exit: ExitFlags::default(),
    });
    made.push(made_of(sync, location, spec, minute, surroundings)?);
    Ok(made)
}

fn made_of(
    command: Command,
    location: &str,
    spec: &BackupStorageLocationSpec,
    minute: u8,
    surroundings: &Surroundings<'_>,
) -> Result<CronJob, Failure> {
    let operation = render::operation(&command);
    let args = Args {
        namespace: surroundings.namespace.to_owned(),
        command,
    };
    let options = JobOptions {
        // The CronJob keeps the last few.
        ttl_after_finished: None,
        deadline: Some(DEADLINE),
    };
    let job = render::job(&args, surroundings.installation, Some(spec), None, &options)?;
    let name = names::cron_job(operation, location);
    let (suspend, marked) = suspension(&name, operation, surroundings);
    let timing = Timing {
        schedule: format!("{minute} * * * *"),
        time_zone: None,
        starting_deadline: STARTING_DEADLINE,
        suspend,
    };
    let mut cron_job = cron_job(&name, job, &timing);
    if marked {
        cron_job.metadata.annotations = Some(
            [(
                SUSPENDED_BY_ANNOTATION.to_owned(),
                RESTORE_ONLY_SUSPENDED.to_owned(),
            )]
            .into(),
        );
    }
    Ok(cron_job)
}

/// Whether the CronJob is suspended, and by restore-only mode.
fn suspension(name: &str, operation: &str, surroundings: &Surroundings<'_>) -> (bool, bool) {
    let existing = surroundings
        .existing
        .iter()
        .find(|one| one.metadata.name.as_deref() == Some(name));
    let stops = operation == EXPIRE
        && surroundings.restore_only
        && (existing.is_none() || surroundings.switching_on);
    match existing {
        Some(existing) if is_suspended(existing) => (true, is_marked(existing)),
        _ => (stops, stops),
    }
}

/// Whether no Jobs are made.
pub fn is_suspended(cron_job: &CronJob) -> bool {
    cron_job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

/// Whether restore-only mode has suspended it.
pub fn is_marked(cron_job: &CronJob) -> bool {
    let annotations = cron_job.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(SUSPENDED_BY_ANNOTATION))
        .is_some_and(|by| by == RESTORE_ONLY_SUSPENDED)
}

/// Which kind of housekeeping a CronJob of `install` does: [`EXPIRE`] or [`SYNC`].
pub fn operation(cron_job: &CronJob) -> Option<&str> {
    let labels = cron_job.metadata.labels.as_ref()?;
    (labels.get(PART_OF_LABEL)? == PART_OF).then_some(())?;
    let operation = labels.get(OPERATION_LABEL)?.as_str();
    [EXPIRE, SYNC].contains(&operation).then_some(operation)
}

/// The minute of the hour that is a cluster's.
fn minute(cluster_uid: &str) -> u8 {
    Sha256::digest(cluster_uid.as_bytes())[0] % 60
}
