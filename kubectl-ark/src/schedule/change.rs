//! `schedule pause`, `unpause` and `delete`.

use super::create::check_place;
use super::{api, chosen, name, of_cron_job, reference};
use crate::manifest::FIELD_MANAGER;
use crate::options::schedule::Chosen;
use crate::{client, mode, wait};
use ark_job::api::namespace_flag;
use ark_job::api::{OPERATION_LABEL, SCHEDULE_LABEL, SUSPENDED_BY_ANNOTATION};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the garbage collector may take to let go of a deleted CronJob's Jobs.
const LET_GO: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(200);

/// Makes no backups for now, also when restore-only mode ends.
pub async fn pause(client: &Client, which: &Chosen) -> Result<Exit, Failure> {
    suspend(client, which, true).await
}

/// Goes on making backups.
pub async fn unpause(client: &Client, which: &Chosen) -> Result<Exit, Failure> {
    mode::refuse_unless_writable(client, &which.namespace, None).await?;
    suspend(client, which, false).await
}

async fn suspend(client: &Client, which: &Chosen, suspend: bool) -> Result<Exit, Failure> {
    let (schedules, missing) = chosen(client, which).await?;
    none_found(which, &schedules, missing.is_some());
    let (word, doing) = match suspend {
        true => ("paused", "pausing"),
        false => ("unpaused", "unpausing"),
    };
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    if !suspend {
        for schedule in &schedules {
            check_place(client, &which.namespace, schedule).await?;
        }
    }
    for schedule in &schedules {
        // Whoever decides by hand is not overruled when the mode ends.
        let patch = json!({
            "metadata": {"annotations": {SUSPENDED_BY_ANNOTATION: null}},
            "spec": {"suspend": suspend},
        });
        let reference = reference(schedule);
        let patched = api(client, &which.namespace)
            .patch(name(schedule), &params, &Patch::Merge(&patch))
            .await
            .map_err(|error| client::failure(&error, &format!("{doing} {reference}")))?;
        let unchanged = patched.metadata.resource_version == schedule.metadata.resource_version;
        let note = if unchanged { " already" } else { "" };
        println!("{reference} {word}{note}");
    }
    missing.map_or(Ok(Exit::Done), Err)
}

/// Deletes schedules: their backups stay, and what is being made is finished.
pub async fn delete(client: &Client, which: &Chosen) -> Result<Exit, Failure> {
    let (schedules, missing) = chosen(client, which).await?;
    none_found(which, &schedules, missing.is_some());
    for schedule in &schedules {
        delete_one(client, &which.namespace, schedule).await?;
    }
    missing.map_or(Ok(Exit::Done), Err)
}

async fn delete_one(client: &Client, namespace: &str, schedule: &CronJob) -> Result<(), Failure> {
    let reference = reference(schedule);
    let doing = format!("deleting {reference}");
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: schedule.metadata.uid.clone(),
            resource_version: None,
        }),
        // Its Jobs are let go: one that is at work is not killed half-way.
        ..DeleteParams::orphan()
    };
    let cron_jobs = api(client, namespace);
    match cron_jobs.delete(name(schedule), &params).await {
        Ok(_) => {}
        // Somebody else was quicker.
        Err(error) if client::is_not_found(&error) => {}
        Err(error) => return Err(client::failure(&error, &doing)),
    }
    let asked = Instant::now();
    loop {
        let there = cron_jobs
            .get_opt(name(schedule))
            .await
            .map_err(|error| client::failure(&error, &doing))?;
        if there.is_none_or(|there| there.metadata.uid != schedule.metadata.uid) {
            println!("{reference} deleted");
            break;
        }
        if asked.elapsed() > LET_GO {
            println!("{reference} deleted");
            eprintln!(
                "warning: {reference} makes no more Jobs, but is still there: the garbage collector has not let go of its Jobs"
            );
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let flag = namespace_flag(namespace);
    for job in running(client, namespace, schedule).await {
        eprintln!("{job} goes on: `kubectl delete {job} -n {namespace}` stops it");
    }
    eprintln!("its backups stay: `kubectl ark backup get{flag}` lists them");
    Ok(())
}

/// The schedule's Jobs that have not ended. They are only told about: who may not list Jobs learns less.
async fn running(client: &Client, namespace: &str, schedule: &CronJob) -> Vec<String> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let label = of_cron_job(schedule).unwrap_or_default();
    let labels = format!("{OPERATION_LABEL}=backup,{SCHEDULE_LABEL}={label}");
    let jobs = jobs.list(&ListParams::default().labels(&labels)).await;
    let jobs = jobs.map(|jobs| jobs.items).unwrap_or_default();
    wait::at_work(client, namespace, jobs)
        .await
        .iter()
        .filter_map(|job| job.metadata.name.as_deref())
        .map(|name| format!("job.batch/{name}"))
        .collect()
}

fn none_found(which: &Chosen, schedules: &[CronJob], missing: bool) {
    if schedules.is_empty() && !missing {
        eprintln!("No resources found in {} namespace.", which.namespace);
    }
}
