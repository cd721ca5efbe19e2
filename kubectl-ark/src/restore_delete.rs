//! `restore delete`: the log and results of a restore in storage, by a Job, and what the cluster keeps of it. What was
//! restored stays.
//!
//! The resource goes last: as long as something is left, it is found again.

use crate::cli::ClusterFlags;
use crate::consent::{self, Answer};
use crate::manifest::reference;
use crate::noun::Noun;
use crate::options::housekeeping::DeleteRestoresOptions;
use crate::options::schedule::Chosen;
use crate::recorded;
use crate::records::{self, Record, restore_phase};
use crate::table::Table;
use crate::{Surroundings, client, create, housekeeping, jobs, mode, stored, wait};
use ark_job::api::namespace_flag;
use ark_job::api::{
    BackupStorageLocation, KEPT_REFERENCE, RUN_ANNOTATION, Restore, RestorePhase, kept_results_name,
};
use ark_job::args::{Args, Command, DeleteRestoreArgs, StorageFlags};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::records::is_alive;
use ark_job::report::plural;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::core::ApiResource;
use std::pin::Pin;

/// A restore that goes.
struct Going {
    name: String,
    restore: Restore,
    /// The Job that made it, if it is still there.
    job: Option<Job>,
    place: Place,
}

/// Where what is kept of a restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the cluster alone.
    Cluster,
    /// Also in storage.
    Storage(StorageFlags),
    /// Also in a location that is not known here any more.
    Gone(String),
    /// Also at a URL, which its resource does not say.
    Unknown,
}

/// Deletes restores: none, when one of them is at work, or nothing may be deleted where one of them is.
pub async fn run(
    cluster: &ClusterFlags,
    options: DeleteRestoresOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let connection = client::connect(cluster).await?;
    let client = &connection.kube;
    let DeleteRestoresOptions {
        chosen,
        storage,
        ask,
        how,
    } = options;
    let namespace = chosen.namespace.as_str();
    let (going, missing) = going(client, &chosen, storage.as_ref(), surroundings.now).await?;
    let operations = operations(namespace, &going);
    if !how.dry_run {
        refuse(client, &operations, how.local).await?;
    }
    if going.is_empty() {
        return missing.map_or(Ok(Exit::Done), Err);
    }
    if ask && let Some(exit) = consented(&going, surroundings, interrupt.as_mut()).await {
        return Ok(exit);
    }
    for one in &going {
        if how.dry_run {
            if !matches!(one.place, Place::Storage(_)) {
                eprintln!(
                    "restore {} needs no Job: nothing of it can be deleted in storage",
                    one.name
                );
            }
            continue;
        }
        delete(client, namespace, one).await?;
    }
    if operations.is_empty() {
        return missing.map_or(Ok(Exit::Done), Err);
    }
    let ended =
        housekeeping::run_all(&connection, operations, &how, surroundings, interrupt).await?;
    missing.map_or(Ok(ended), Err)
}

/// Those that are meant, and that one of them is not there.
async fn going(
    client: &Client,
    chosen: &Chosen,
    storage: Option<&StorageFlags>,
    now: Timestamp,
) -> Result<(Vec<Going>, Option<Failure>), Failure> {
    let Chosen {
        namespace,
        names,
        selector,
    } = chosen;
    let (mut restores, mut missing) = (Vec::new(), None);
    if names.is_empty() {
        restores = recorded::list::<Restore>(client, namespace, selector.as_deref()).await?;
        if let Some(storage) = storage {
            restores.retain(|restore| restore.spec.storage_location == storage.location);
        }
        if restores.is_empty() {
            eprintln!("No resources found in {namespace} namespace.");
        }
    }
    for name in names {
        match recorded::find::<Restore>(client, namespace, name).await {
            Ok(restore) => restores.push(restore),
            Err(failure) if failure.exit() == Exit::NotFound => {
                missing = missing.or(Some(failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), namespace);
    // Who may not list them learns from the Job.
    let locations: Option<Vec<String>> =
        locations
            .list(&ListParams::default())
            .await
            .ok()
            .map(|list| {
                list.items
                    .into_iter()
                    .filter_map(|one| one.metadata.name)
                    .collect()
            });
    let mut going: Vec<Going> = Vec::with_capacity(restores.len());
    let mut left = 0;
    for restore in restores {
        let name = records::name(&restore).to_owned();
        if going.iter().any(|other| other.name == name) {
            continue;
        }
        let place = place(&restore, storage, locations.as_deref());
        if place == Place::Unknown {
            if names.is_empty() {
                left += 1;
                continue;
            }
            let text = format!(
                "the backup of restore {name} was at a URL, which its resource does not say"
            );
            return Err(Failure::new(Exit::Usage, text).hint(format!(
                "say where it is: --storage URL, or --local for one that was made with it; {}",
                resource_alone(namespace)
            )));
        }
        let job = jobs::find(client, namespace, Noun::Restore, &name)
            .await
            .map_err(|error| {
                client::failure(&error, &format!("reading the Job of restore {name}"))
            })?;
        let over = match &job {
            Some(job) => wait::at_work(client, namespace, vec![job.clone()])
                .await
                .is_empty(),
            None => false,
        };
        if !over {
            refuse_at_work(&restore, job.as_ref(), namespace, now)?;
        }
        going.push(Going {
            name,
            restore,
            job,
            place,
        });
    }
    if left > 0 {
        eprintln!(
            "left: {} whose backups are in no location of this cluster; --local on the machine that made them, or --storage URL, \
             says where they are",
            plural(left, "restore")
        );
    }
    Ok((going, missing))
}

/// Where there is something of a restore.
fn place(restore: &Restore, given: Option<&StorageFlags>, locations: Option<&[String]>) -> Place {
    let status = restore.status.as_ref();
    let results = status.and_then(|status| status.results.as_deref());
    let annotations = restore.metadata.annotations.as_ref();
    let has_run = annotations.is_some_and(|all| all.contains_key(RUN_ANNOTATION));
    let stored = match results {
        Some(results) => !results.starts_with(KEPT_REFERENCE),
        // One that failed has stored nothing; one that was killed may have, and bears the run that did.
        None => has_run && restore_phase(restore) != RestorePhase::Failed,
    };
    // One that only its Job told of has no resource.
    if !stored || restore.metadata.uid.is_none() {
        return Place::Cluster;
    }
    match (given, &restore.spec.storage_location) {
        (Some(given), _) => Place::Storage(given.clone()),
        (None, None) => Place::Unknown,
        (None, Some(location)) => match locations {
            Some(known) if !known.contains(location) => Place::Gone(location.clone()),
            _ => Place::Storage(stored::at(location).storage),
        },
    }
}

/// One operation for each place, in the order in which the places were met.
fn operations(namespace: &str, going: &[Going]) -> Vec<Args> {
    let mut places: Vec<(StorageFlags, Vec<String>)> = Vec::new();
    for Going { name, place, .. } in going {
        let Place::Storage(storage) = place else {
            continue;
        };
        match places.iter_mut().find(|(place, _)| place == storage) {
            Some((_, names)) => names.push(name.clone()),
            None => places.push((storage.clone(), vec![name.clone()])),
        }
    }
    let operation = |(storage, names)| Args {
        namespace: namespace.to_owned(),
        command: Command::DeleteRestore(DeleteRestoreArgs { names, storage }),
    };
    places.into_iter().map(operation).collect()
}

/// Refuses what the Jobs would refuse, before anything goes.
async fn refuse(client: &Client, operations: &[Args], local: bool) -> Result<(), Failure> {
    for Args { namespace, command } in operations {
        let storage = command.storage();
        if let Err(failure) = mode::refuse_unless_writable(client, namespace, Some(storage)).await {
            let alone = resource_alone(namespace);
            let hint = match failure.next_step() {
                Some(hint) => format!("{hint}; {alone}"),
                None => alone,
            };
            return Err(failure.hint(hint));
        }
        if !local {
            create::read(client, namespace, storage).await?;
        }
    }
    Ok(())
}

/// How only the resource is deleted.
fn resource_alone(namespace: &str) -> String {
    format!(
        "`kubectl delete restores.ark.heptio.com NAME -n {namespace}` deletes the resource alone, and leaves its files"
    )
}

/// Shows what goes, and asks; how it ends when that is not wanted.
async fn consented(
    going: &[Going],
    surroundings: &Surroundings,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Option<Exit> {
    let mut table = Table::new(Restore::header(false)).fit(Restore::FIT);
    for one in going {
        table.push(one.restore.row(false, surroundings.now));
    }
    eprint!("{}", table.render_within(true, surroundings.width));
    let question = match going {
        [one] => format!(
            "Delete restore {} for good? What it restored stays.",
            one.name
        ),
        more => format!(
            "Delete these {} restores for good? What they restored stays.",
            more.len()
        ),
    };
    let exit = match consent::answer(&question, interrupt).await {
        Answer::Yes => return None,
        Answer::No => Exit::Failed,
        Answer::Interrupted => Exit::Interrupted,
    };
    eprintln!("nothing was deleted");
    Some(exit)
}

/// Refuses while it may still write: its Job has not ended, or without one it has given a sign of life.
fn refuse_at_work(
    restore: &Restore,
    job: Option<&Job>,
    namespace: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let name = records::name(restore);
    let flag = namespace_flag(namespace);
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

/// Deletes the Job of a restore, and if there is nothing of it in storage, the rest; else a Job of its own does.
async fn delete(client: &Client, namespace: &str, going: &Going) -> Result<(), Failure> {
    let Going {
        name,
        restore,
        job,
        place,
    } = going;
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
    if matches!(place, Place::Storage(_)) {
        return Ok(());
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
    if let Place::Gone(location) = place {
        eprintln!(
            "there is no location {location} any more: where it was, the log and results of restore {name} stay, under {}",
            results
                .and_then(|results| results.rsplit_once('/'))
                .map_or("restores/".to_owned(), |(directory, _)| format!(
                    "{directory}/"
                ))
        );
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

    #[test]
    fn a_job_is_needed_only_for_what_is_in_storage() {
        let made = |location: Option<&str>, phase, results: Option<&str>| {
            let mut restore = restore(phase, "2026-11-23T20:14:01Z");
            restore.metadata.uid = Some("u".into());
            restore.metadata.annotations =
                Some([(RUN_ANNOTATION.to_owned(), "0123456789".to_owned())].into());
            restore.spec.storage_location = location.map(str::to_owned);
            restore.status.as_mut().unwrap().results = results.map(str::to_owned);
            restore
        };
        let stored = Some("restores/r/restore-r-results.gz");
        let kept = Some("configmap/ark-results-r");
        let known = ["default".to_owned()];
        let of = |restore: &Restore| place(restore, None, Some(&known));
        let storage = |location: &str| Place::Storage(stored::at(location).storage);
        let done = RestorePhase::Completed;
        assert_eq!(of(&made(Some("default"), done, stored)), storage("default"));
        assert_eq!(of(&made(Some("default"), done, kept)), Place::Cluster);
        assert_eq!(of(&made(None, done, kept)), Place::Cluster);
        assert_eq!(of(&made(None, done, stored)), Place::Unknown);
        let gone = made(Some("old"), done, stored);
        assert_eq!(of(&gone), Place::Gone("old".into()));
        // Who may not list locations leaves it to the Job.
        assert_eq!(place(&gone, None, None), storage("old"));
        let failed = made(Some("default"), RestorePhase::Failed, None);
        assert_eq!(of(&failed), Place::Cluster);
        let killed = made(Some("default"), RestorePhase::InProgress, None);
        assert_eq!(of(&killed), storage("default"));
        let given = StorageFlags {
            location: None,
            storage: Some("file:///ark".into()),
        };
        assert_eq!(
            place(&made(None, done, stored), Some(&given), Some(&known)),
            Place::Storage(given)
        );
        let mut only_a_job = made(Some("default"), done, stored);
        only_a_job.metadata.uid = None;
        assert_eq!(of(&only_a_job), Place::Cluster);
    }
}
