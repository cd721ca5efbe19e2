//! `logs`: what an operation's pod prints.

use crate::options::{LogsOptions, Noun};
use crate::pod_template::CONTAINER;
use crate::records;
use crate::wait::{State, judge};
use crate::{client, get, install, names};
use ark_job::api::{Backup, Restore};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::layout::{BackupKeys, RestoreKeys};
use futures::AsyncReadExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, LogParams};
use std::io::Write;
use std::time::Duration;

/// How often we look whether the pod has started.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints the log until its end, or `interrupt`.
pub async fn run(
    client: &Client,
    options: &LogsOptions,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    tokio::select! {
        result = print(client, options) => result,
        () = interrupt => Ok(Exit::Interrupted),
    }
}

async fn print(client: &Client, options: &LogsOptions) -> Result<Exit, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow,
    } = options;
    let doing = format!("reading the log of {} {name}", noun.word());
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = started(client, options).await?;
    let params = LogParams {
        container: Some(CONTAINER.into()),
        follow: *follow,
        ..LogParams::default()
    };
    let stream = pods
        .log_stream(&pod, &params)
        .await
        .map_err(|error| client::failure(&error, &doing))?;
    let mut stream = std::pin::pin!(stream);
    let mut buffer = vec![0; 16 * 1024];
    let mut stdout = std::io::stdout().lock();
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("{doing}: {error}"));
    loop {
        let count = stream.read(&mut buffer).await.map_err(failed)?;
        if count == 0 {
            return Ok(Exit::Done);
        }
        let written = stdout
            .write_all(&buffer[..count])
            .and_then(|()| stdout.flush());
        match written {
            // `| head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            other => other.map_err(failed)?,
        }
    }
}

/// The newest pod that has something to show; with `-f`, waits for one.
async fn started(client: &Client, options: &LogsOptions) -> Result<String, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow,
    } = options;
    let word = noun.word();
    let job_name = names::job(word, name);
    let doing = format!("reading the log of {word} {name}");
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job_name}"));
    loop {
        let (job, found) = futures::join!(jobs.get_opt(&job_name), pods.list(&params));
        let job = job.map_err(|error| client::failure(&error, &doing))?;
        let found = found
            .map_err(|error| client::failure(&error, &doing))?
            .items;
        let newest = found
            .iter()
            .filter(|pod| has_log(pod))
            .max_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        if let Some(pod) = newest {
            return Ok(pod.metadata.name.clone().unwrap_or_default());
        }
        let Some(job) = job else {
            return Err(no_pod(client, options).await);
        };
        let why = match judge(&job, &found, &[]) {
            State::Pending(note) => note.unwrap_or_else(|| "it has not started".into()),
            State::Stuck(stuck) => format!("{}: {}", stuck.object, stuck.cause),
            State::Running => "it is starting".into(),
            State::Finished { .. } => return Err(no_pod(client, options).await),
        };
        if !follow {
            return Err(
                Failure::new(Exit::Failed, format!("{word} {name} has no log yet: {why}")).hint(
                    format!(
                        "`kubectl ark {word} logs {name} -f{}` waits for it",
                        install::flag(namespace)
                    ),
                ),
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn has_log(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    statuses
        .iter()
        .filter(|status| status.name == CONTAINER)
        .any(|status| {
            status
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        })
}

/// Says where the log is when no pod has it any more.
async fn no_pod(client: &Client, options: &LogsOptions) -> Failure {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow: _,
    } = options;
    let (known, key, location) = match noun {
        Noun::Backup => {
            let found = get::find::<Backup>(client, namespace, name).await;
            let location = found
                .as_ref()
                .ok()
                .and_then(|one| one.spec.storage_location.clone());
            (
                found.map(|one| records::name(&one).to_owned()),
                BackupKeys::new(name).logs(),
                location,
            )
        }
        Noun::Restore => {
            let found = get::find::<Restore>(client, namespace, name).await;
            let location = found
                .as_ref()
                .ok()
                .and_then(|one| one.spec.storage_location.clone());
            (
                found.map(|one| records::name(&one).to_owned()),
                RestoreKeys::new(name).logs(),
                location,
            )
        }
    };
    let word = noun.word();
    match known {
        Err(failure) => failure,
        Ok(_) => Failure::new(
            Exit::NotFound,
            format!("the pod of {word} {name} is gone, and its log with it"),
        )
        .hint(format!(
            "a copy is in storage{}, at {key}",
            location
                .map(|location| format!(" (location {location})"))
                .unwrap_or_default()
        )),
    }
}
