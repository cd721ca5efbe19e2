//! `logs`: what an operation's pod prints. When the pod is gone: what is in storage, or what was kept of a failure.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::held_pod::Purpose;
use crate::options::{LogsOptions, Noun, ReadFrom};
use crate::pod_template::CONTAINER;
use crate::progress::Display;
use crate::records::Record;
use crate::stored::{self, Mirror, Reading};
use crate::wait::{State, judge};
use crate::{client, get, install, jobs, lookup, names};
use ark_job::api::{
    Backup, FAILED_LOG_KEY, FAILED_REASON_KEY, KEPT_LOG_KEY, KEPT_REFERENCE, Restore,
    failed_log_name,
};
use ark_job::args::FetchFile;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::layout::RestoreKeys;
use flate2::read::GzDecoder;
use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, ListParams, LogParams};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::pin::Pin;
use std::time::Duration;

/// How often we look whether the pod has started.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints the log until its end, or `interrupt`.
pub async fn run(
    cluster: &ClusterFlags,
    options: &LogsOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let mut options = options.clone();
    if options.noun == Noun::Backup {
        let place = lookup::Place {
            cluster,
            storage: options.source.as_ref().map(|from| &from.storage),
            local: options.source.as_ref().is_some_and(|from| from.local),
        };
        options.name = tokio::select! {
            name = lookup::backup(&place, &options.name) => name?,
            () = &mut interrupt => return Ok(Exit::Interrupted),
        };
    }
    let options = &options;
    let from = match &options.source {
        Some(from) => Log::Stored(from.clone()),
        None => {
            let client = client::connect(cluster).await?.kube;
            tokio::select! {
                log = find(&client, options) => log?,
                () = &mut interrupt => return Ok(Exit::Interrupted),
            }
        }
    };
    match from {
        Log::Pod(client, pod) => tokio::select! {
            result = print(&client, options, &pod) => result,
            () = &mut interrupt => Ok(Exit::Interrupted),
        },
        Log::Kept(text) => write(options, &mut text.as_bytes()).map(|()| Exit::Done),
        Log::Stored(from) => stored(cluster, options, &from, surroundings, interrupt).await,
    }
}

/// Where a log is.
enum Log {
    /// With a pod.
    Pod(Client, String),
    /// This is what was kept in the cluster.
    Kept(String),
    /// In storage.
    Stored(ReadFrom),
}

fn doing(options: &LogsOptions) -> String {
    format!(
        "reading the log of {} {}",
        options.noun.word(),
        options.name
    )
}

async fn print(client: &Client, options: &LogsOptions, pod: &str) -> Result<Exit, Failure> {
    let doing = doing(options);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &options.namespace);
    let params = LogParams {
        container: Some(CONTAINER.into()),
        follow: options.follow,
        ..LogParams::default()
    };
    let stream = pods
        .log_stream(pod, &params)
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

/// Prints a log that is here.
fn write(options: &LogsOptions, log: &mut impl Read) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match std::io::copy(log, &mut stdout).and_then(|_| stdout.flush()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other
            .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", doing(options)))),
    }
}

/// Prints the log that is stored with a backup.
async fn stored(
    cluster: &ClusterFlags,
    options: &LogsOptions,
    from: &ReadFrom,
    surroundings: &Surroundings,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let name = &options.name;
    let display = Display::new("backup", name, surroundings.terminal);
    let mirror = Mirror::new(&surroundings.temporary, name).await?;
    let reading = Reading {
        cluster,
        surroundings,
        backup: name,
        from,
        purpose: Purpose::Read,
        display: &display,
    };
    let fetched = reading
        .run(interrupt, async |source| {
            mirror.fetch(source, FetchFile::Marker, |_| {}).await?;
            mirror.fetch(source, FetchFile::Logs, |_| {}).await
        })
        .await;
    display.end();
    if fetched?.is_none() {
        return Ok(Exit::Interrupted);
    }
    let file = File::open(mirror.path(FetchFile::Logs))
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", doing(options))))?;
    write(options, &mut GzDecoder::new(BufReader::new(file))).map(|()| Exit::Done)
}

/// The log of the newest pod that has something to show, or where it is when there is none; with `-f`, waits for one.
async fn find(client: &Client, options: &LogsOptions) -> Result<Log, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow,
        source: _,
    } = options;
    let word = noun.word();
    let doing = doing(options);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    loop {
        let job = jobs::find(client, namespace, *noun, name).await;
        let job = job.map_err(|error| client::failure(&error, &doing))?;
        // The pods of a Job that is gone may outlive it for a moment.
        let job_name = job
            .as_ref()
            .and_then(|job| job.metadata.name.clone())
            .unwrap_or_else(|| names::job(word, name));
        let params =
            ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job_name}"));
        let found = pods.list(&params).await;
        let found = found
            .map_err(|error| client::failure(&error, &doing))?
            .items;
        let newest = found
            .iter()
            .filter(|pod| has_log(pod))
            .max_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        if let Some(pod) = newest {
            let pod = pod.metadata.name.clone().unwrap_or_default();
            return Ok(Log::Pod(client.clone(), pod));
        }
        let Some(job) = job else {
            return no_pod(client, options).await;
        };
        let why = match judge(&job, &found, &[]) {
            State::Pending(note) => note.unwrap_or_else(|| "it has not started".into()),
            State::Stuck(stuck) => format!("{}: {}", stuck.object, stuck.cause),
            State::Running => "it is starting".into(),
            State::Finished { .. } => return no_pod(client, options).await,
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

/// What the ConfigMap of that name keeps, if there is one.
async fn kept(
    client: &Client,
    options: &LogsOptions,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &options.namespace);
    let found = maps.get_opt(name).await;
    let found = found.map_err(|error| client::failure(&error, &doing(options)))?;
    Ok(found.and_then(|map| map.data))
}

/// Where the log is when no pod has it any more.
async fn no_pod(client: &Client, options: &LogsOptions) -> Result<Log, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow: _,
        source: _,
    } = options;
    let gone = |word: &str| {
        Failure::new(
            Exit::NotFound,
            format!("the pod of {word} {name} is gone, and its log with it"),
        )
    };
    match noun {
        Noun::Backup => {
            let found = get::find::<Backup>(client, namespace, name).await;
            if let Ok(backup) = &found
                && matches!(backup.end(), Some(Exit::Done | Exit::PartiallyFailed))
            {
                return stored::place(backup, name).map(Log::Stored);
            }
            let kept = kept(client, options, &failed_log_name(name)).await?;
            let log = kept.map(|mut data| {
                let mut log = data.remove(FAILED_LOG_KEY).unwrap_or_default();
                // The last line of the pod's log, which is not in what was kept of it.
                if let Some(reason) = data.remove(FAILED_REASON_KEY) {
                    log.push_str(&format!("error: {reason}\n"));
                }
                log
            });
            match (log, found) {
                (Some(log), _) => Ok(Log::Kept(log)),
                (None, Err(failure)) => Err(failure),
                (None, Ok(_)) => Err(gone("backup").hint(format!(
                    "it was ended before it could keep its last lines; `kubectl ark backup describe {name}{}` shows what is known",
                    install::flag(namespace)
                ))),
            }
        }
        Noun::Restore => {
            let restore = get::find::<Restore>(client, namespace, name).await?;
            let results = restore.status.and_then(|status| status.results);
            // Nothing was to be written where the backup is.
            if let Some(map) = results
                .as_deref()
                .and_then(|results| results.strip_prefix(KEPT_REFERENCE))
                && let Some(log) = kept(client, options, map)
                    .await?
                    .and_then(|mut data| data.remove(KEPT_LOG_KEY))
            {
                return Ok(Log::Kept(log));
            }
            let location = restore.spec.storage_location;
            Err(gone("restore").hint(format!(
                "a copy is in storage{}, at {}",
                location
                    .map(|location| format!(" (location {location})"))
                    .unwrap_or_default(),
                RestoreKeys::new(name).logs()
            )))
        }
    }
}
