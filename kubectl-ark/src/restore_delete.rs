//! `restore delete`: what the cluster keeps of a restore. What was restored stays, and so does what is stored of it.
//!
//! The resource goes last: as long as something is left, it is found again.

use crate::manifest::reference;
use crate::options::Noun;
use crate::options::schedule::Chosen;
use crate::records::{self, restore_phase};
use crate::{client, get, install, jobs};
use ark_job::api::{KEPT_REFERENCE, Restore, RestorePhase, kept_results_name};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::records::is_alive;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::core::ApiResource;

/// Deletes restores: none, when one of them is at work.
pub async fn run(client: &Client, chosen: &Chosen, now: Timestamp) -> Result<Exit, Failure> {
    let Chosen {
        namespace,
        names,
        selector,
    } = chosen;
    let (mut restores, mut missing) = (Vec::new(), None);
    if names.is_empty() {
        restores = get::list::<Restore>(client, namespace, selector.as_deref()).await?;
        if restores.is_empty() {
            eprintln!("No resources found in {namespace} namespace.");
        }
    }
    for name in names {
        match get::find::<Restore>(client, namespace, name).await {
            Ok(restore) => restores.push(restore),
            Err(failure) if failure.exit() == Exit::NotFound => {
                missing = missing.or(Some(failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    let mut found = Vec::with_capacity(restores.len());
    for restore in restores {
        let name = records::name(&restore).to_owned();
        let job = jobs::find(client, namespace, Noun::Restore, &name)
            .await
            .map_err(|error| {
                client::failure(&error, &format!("reading the Job of restore {name}"))
            })?;
        refuse_at_work(&restore, job.as_ref(), namespace, now)?;
        found.push((name, restore, job));
    }
    for (name, restore, job) in found {
        delete(client, namespace, &name, &restore, job.as_ref()).await?;
    }
    missing.map_or(Ok(Exit::Done), Err)
}

/// Refuses while it may still write: its Job has not ended, or without one it has given a sign of life.
fn refuse_at_work(
    restore: &Restore,
    job: Option<&Job>,
    namespace: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let name = records::name(restore);
    let flag = install::flag(namespace);
    let status = restore.status.as_ref();
    let heartbeat = status.and_then(|status| {
        status
            .heartbeat
            .as_ref()
            .or(status.start_timestamp.as_ref())
    });
    let refused = |why: String, hint: String| Err(Failure::new(Exit::Conflict, why).hint(hint));
    match job {
        Some(job) if records::ended(job).is_none() => {
            let job = job.metadata.name.as_deref().unwrap_or_default();
            refused(
                format!("restore {name} is at work, and was not deleted"),
                format!(
                    "`kubectl ark restore logs {name} -f{flag}` follows it; `kubectl delete job {job} -n {namespace}` stops it"
                ),
            )
        }
        None if restore_phase(restore) == RestorePhase::InProgress
            && heartbeat.is_some_and(|heartbeat| is_alive(heartbeat.0, now)) =>
        {
            refused(
                format!(
                    "restore {name} has no Job, but was at work a moment ago, and was not deleted"
                ),
                format!(
                    "`kubectl ark restore describe {name}{flag}` shows its last sign of life; ten minutes after it, it can be deleted"
                ),
            )
        }
        _ => Ok(()),
    }
}

async fn delete(
    client: &Client,
    namespace: &str,
    name: &str,
    restore: &Restore,
    job: Option<&Job>,
) -> Result<(), Failure> {
    if let Some(job) = job {
        let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
        let (name, uid) = (job.metadata.name.clone(), job.metadata.uid.clone());
        let name = name.unwrap_or_default();
        // Its pods go with it.
        gone(
            jobs.delete(&name, &of_uid(DeleteParams::background(), uid))
                .await,
            &format!("job.batch/{name}"),
        )?;
    }
    let results = restore
        .status
        .as_ref()
        .and_then(|status| status.results.as_deref());
    if results.is_some_and(|results| results.starts_with(KEPT_REFERENCE)) {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let kept = kept_results_name(name);
        gone(
            maps.delete(&kept, &DeleteParams::default()).await,
            &format!("configmap/{kept}"),
        )?;
    }
    let resource = ApiResource::erase::<Restore>(&());
    // One that only its Job told of has no resource, and no UID.
    if let Some(uid) = restore.metadata.uid.clone() {
        let restores: Api<Restore> = Api::namespaced(client.clone(), namespace);
        let deleted = restores
            .delete(name, &of_uid(DeleteParams::default(), Some(uid)))
            .await;
        gone(deleted, &reference(&resource, name))?;
    }
    if let Some(results) = results.filter(|results| !results.starts_with(KEPT_REFERENCE)) {
        let place = restore.spec.storage_location.as_deref();
        let place = place.map_or("its storage".to_owned(), |place| {
            format!("location {place}")
        });
        let directory = results
            .rsplit_once('/')
            .map_or(results, |(directory, _)| directory);
        eprintln!("its log and results stay in {place}, under {directory}/");
    }
    Ok(())
}

fn of_uid(params: DeleteParams, uid: Option<String>) -> DeleteParams {
    params.preconditions(Preconditions {
        uid,
        resource_version: None,
    })
}

fn gone<T>(deleted: kube::Result<T>, reference: &str) -> Result<(), Failure> {
    match deleted {
        Ok(_) => println!("{reference} deleted"),
        // Somebody else was quicker.
        Err(error) if client::is_not_found(&error) => {}
        Err(error) => return Err(client::failure(&error, &format!("deleting {reference}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::api::{RestoreSpec, RestoreStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn restore(phase: RestorePhase, heartbeat: &str) -> Restore {
        let mut restore = Restore::new("r", RestoreSpec::default());
        restore.status = Some(RestoreStatus {
            phase: Some(phase),
            heartbeat: Some(Time(heartbeat.parse().unwrap())),
            ..RestoreStatus::default()
        });
        restore
    }

    #[test]
    fn what_is_at_work_stays() {
        let now = "2026-11-23T20:15:01Z".parse().unwrap();
        let job = |conditions| -> Job {
            let job =
                json!({"metadata": {"name": "restore-r"}, "status": {"conditions": conditions}});
            serde_json::from_value(job).unwrap()
        };
        let ended = job(json!([{"type": "Complete", "status": "True"}]));
        let refused = |restore: &Restore, job: Option<&Job>| {
            refuse_at_work(restore, job, "ark", now).is_err()
        };
        let (fresh, old) = ("2026-11-23T20:14:01Z", "2026-11-23T19:14:01Z");
        let running = restore(RestorePhase::InProgress, fresh);
        assert!(refused(&running, Some(&job(json!([])))));
        // By --local.
        assert!(refused(&running, None));
        // Killed.
        assert!(!refused(&running, Some(&ended)));
        assert!(!refused(&restore(RestorePhase::InProgress, old), None));
        assert!(!refused(&restore(RestorePhase::Completed, fresh), None));
        assert!(!refused(
            &restore(RestorePhase::Completed, fresh),
            Some(&ended)
        ));
    }
}
