//! Finding the Job of a backup or restore by the name of that: the plugin's Jobs are called after it; those that a schedule's
//! CronJob makes are called after their time, and found by the schedule's label.

use crate::names;
use crate::noun::Noun;
use crate::records;
use ark_job::api::{Backup, OPERATION_LABEL, SCHEDULE_LABEL};
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, ListParams};

/// The Job that performs, or performed, the operation on `name`, if it is still there.
pub async fn find(
    client: &Client,
    namespace: &str,
    noun: Noun,
    name: &str,
) -> kube::Result<Option<Job>> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let found = jobs.get_opt(&names::job(noun.word(), name)).await?;
    let schedule = match noun {
        Noun::Backup => records::stem(name),
        Noun::Restore => None,
    };
    let (None, Some(schedule)) = (&found, schedule) else {
        return Ok(found);
    };
    // A name that is too long for a schedule's is no label value either.
    if ark_job::schedule::check_name(schedule).is_err() {
        return Ok(None);
    }
    let labels = format!("{OPERATION_LABEL}=backup,{SCHEDULE_LABEL}={schedule}");
    let made = jobs.list(&ListParams::default().labels(&labels)).await?;
    Ok(made
        .items
        .into_iter()
        .filter(|job| records::subject::<Backup>(job).as_deref() == Some(name))
        // Of twins, the one that is made later is the one at work.
        .max_by_key(|job| job.metadata.creation_timestamp.clone().map(|time| time.0)))
}
