//! `logs`: what an operation's pod prints. When the pod is gone: what is in storage, or what was kept of a failure.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::held_pod::Purpose;
use crate::noun::Noun;
use crate::options::{LogsOptions, ReadFrom};
use crate::pod_template::CONTAINER;
use crate::progress::Display;
use crate::recorded;
use crate::records::Record;
use crate::stored::{self, Mirror, Reading};
use crate::wait::{HELD_PATIENCE, Look, State, judge, look_at_job};
use crate::{client, jobs, lookup, names, output};
use ark_job::api::namespace_flag;
use ark_job::api::{
    Backup, FAILED_LOG_KEY, FAILED_REASON_KEY, KEPT_LOG_KEY, KEPT_REFERENCE, Restore,
    failed_log_name,
};
use ark_job::args::FetchFile;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::layout::RestoreKeys;
use flate2::read::GzDecoder;
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, LogParams};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::pin::Pin;
use std::time::{Duration, Instant};

/// How often we look whether the pod has started.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a log may be silent before we look whether its pod is still there.
const LOG_SILENT: Duration = Duration::from_secs(20);
/// How many looks in a row may fail before the cluster is taken to be away.
const MAX_FAILURES: u32 = 30;

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
            name = lookup::recorded(&place, &options.name), if options.source.is_none() => name?,
            name = lookup::backup(&place, &options.name), if options.source.is_some() => name?,
            () = &mut interrupt => return Ok(Exit::Interrupted),
        };
    }
    let options = &options;
    let from = match &options.source {
        Some(from) => Log::Stored(from.clone()),
        None if options.follow => {
            let client = client::connect(cluster).await?.kube;
            let ended = tokio::select! {
                ended = follow(&client, options) => ended?,
                () = &mut interrupt => return Ok(Exit::Interrupted),
            };
            match ended {
                Some(log) => log,
                None => return Ok(Exit::Done),
            }
        }
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

/// The log of the newest pod that has something to show, or where it is when there is none.
async fn find(client: &Client, options: &LogsOptions) -> Result<Log, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow: _,
        source: _,
    } = options;
    let word = noun.word();
    let look = look(client, options).await?;
    if let Some(pod) = newest(&look.pods) {
        return Ok(Log::Pod(client.clone(), pod_name(pod)));
    }
    let Some(job) = look.job else {
        return no_pod(client, options).await;
    };
    let why = match judge(&job, &look.pods, &look.events) {
        State::Pending(note) => note.unwrap_or_else(|| "it has not started".into()),
        State::Stuck(stuck) => format!("{}: {}", stuck.object, stuck.cause),
        State::Running => "it is starting".into(),
        State::HeldOpen(_) | State::Finished { .. } => return no_pod(client, options).await,
    };
    Err(
        Failure::new(Exit::Failed, format!("{word} {name} has no log yet: {why}")).hint(format!(
            "`kubectl ark {word} logs {name} -f{}` waits for it",
            namespace_flag(namespace)
        )),
    )
}

/// The Job of the operation, and its pods.
async fn look(client: &Client, options: &LogsOptions) -> Result<Look, Failure> {
    let LogsOptions {
        noun,
        namespace,
        name,
        follow: _,
        source: _,
    } = options;
    let failed = |error: kube::Error| client::failure(&error, &doing(options));
    let job = jobs::find(client, namespace, *noun, name)
        .await
        .map_err(failed)?;
    // The pods of a Job that is gone may outlive it for a moment.
    let job_name = job
        .as_ref()
        .and_then(|job| job.metadata.name.clone())
        .unwrap_or_else(|| names::job(noun.word(), name));
    let look = look_at_job(client, namespace, &job_name).await;
    Ok(Look {
        job,
        ..look.map_err(failed)?
    })
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter()
        .filter(|pod| has_log(pod))
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0))
}

fn pod_name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Prints the log as it is written, of each attempt that the Job makes from now on, until the operation has ended. Says meanwhile
/// why there is none. Where the log is instead, when no pod has it any more.
async fn follow(client: &Client, options: &LogsOptions) -> Result<Option<Log>, Failure> {
    let what = format!("{} {}", options.noun.word(), options.name);
    let mut reader = Reader::default();
    let mut told = String::new();
    let mut tell = |text: String| {
        if told != text {
            eprintln!("{what}: {text}");
            told = text;
        }
    };
    let mut failures = 0;
    let mut held_since = None;
    loop {
        let look = match look(client, options).await {
            Ok(look) => look,
            // What has been read shows that it may be; a connection may be lost for a while.
            Err(_) if !reader.pod.is_empty() && failures < MAX_FAILURES => {
                failures += 1;
                tell("the cluster does not answer; trying again".into());
                tokio::time::sleep(INTERVAL).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        failures = 0;
        if let Some(pod) = newest(&look.pods) {
            let another = !reader.pod.is_empty() && reader.pod != pod_name(pod);
            if another {
                tell(format!("another attempt, in pod/{}", pod_name(pod)));
            }
            if !reader.read(client, options, pod).await? {
                return Ok(None);
            }
        }
        let seen = !reader.pod.is_empty();
        let state = match &look.job {
            Some(job) => judge(job, &look.pods, &look.events),
            None if seen => return Ok(None),
            None => return no_pod(client, options).await.map(Some),
        };
        match state {
            // Its last lines may have come after we looked, if it is still there.
            State::Finished { .. } if !reader.complete && reader.is_of(&look.pods) => {}
            State::Finished { .. } if seen => return Ok(None),
            State::Finished { .. } => return no_pod(client, options).await.map(Some),
            State::HeldOpen(held) => {
                let since: &Instant = held_since.get_or_insert_with(Instant::now);
                if reader.complete && since.elapsed() >= HELD_PATIENCE {
                    held.tell(&what);
                    return Ok(None);
                }
            }
            State::Pending(Some(note)) => tell(format!("waiting: {note}")),
            State::Stuck(stuck) => {
                tell(format!("waiting: {}: {}", stuck.object, stuck.cause));
            }
            State::Pending(None) | State::Running => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How far the log of a Job's newest pod has been printed.
#[derive(Default)]
struct Reader {
    pod: String,
    /// Time of the last line that was printed, as the node wrote it.
    until: Option<Timestamp>,
    /// All of it has been printed, or the rest of it is lost.
    complete: bool,
}

impl Reader {
    /// Prints what `pod` says from where it was printed before, until its end or until the connection is lost; says whether
    /// anybody still reads.
    async fn read(
        &mut self,
        client: &Client,
        options: &LogsOptions,
        pod: &Pod,
    ) -> Result<bool, Failure> {
        let name = pod_name(pod);
        if self.pod != name {
            *self = Reader {
                pod: name,
                ..Reader::default()
            };
        }
        if self.complete {
            return Ok(true);
        }
        // All is there only if it had ended before it is read.
        let ended = !is_running(pod);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &options.namespace);
        let params = LogParams {
            container: Some(CONTAINER.into()),
            follow: true,
            timestamps: true,
            since_time: self.until,
            ..LogParams::default()
        };
        let stream = match pods.log_stream(&self.pod, &params).await {
            Ok(stream) => stream,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Err(client::failure(&kube::Error::Api(status), &doing(options)));
            }
            // Its pod is gone, or its node; the next look tells.
            Err(_) => {
                self.complete = ended;
                return Ok(true);
            }
        };
        let mut lines = std::pin::pin!(stream.lines());
        // A connection that is lost is not always told: after some silence we look whether the pod is still there.
        while let Ok(Some(line)) = tokio::time::timeout(LOG_SILENT, lines.next()).await {
            let Ok(line) = line else {
                // The connection was lost: the next look goes on from here.
                return Ok(true);
            };
            if let Some(text) = self.take(&line)
                && !output::write(&format!("{text}\n"))
            {
                return Ok(false);
            }
        }
        self.complete = ended;
        Ok(true)
    }

    /// Whether one of these is the pod that it reads.
    fn is_of(&self, pods: &[Pod]) -> bool {
        pods.iter().any(|pod| pod_name(pod) == self.pod)
    }

    /// A line without its time, if it has not been printed before.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(at) = at.parse::<Timestamp>() else {
            return Some(line);
        };
        if self.until.is_some_and(|until| at <= until) {
            return None;
        }
        self.until = Some(at);
        Some(text)
    }
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    statuses
        .iter()
        .filter(|status| status.name == CONTAINER)
        .filter_map(|status| status.state.as_ref())
        .any(|state| state.running.is_some())
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
            let found = recorded::find::<Backup>(client, namespace, name).await;
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
                    namespace_flag(namespace)
                ))),
            }
        }
        Noun::Restore => {
            let restore = recorded::find::<Restore>(client, namespace, name).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_printed_once_though_it_is_read_again() {
        let mut reader = Reader::default();
        let first = "2026-11-26T12:00:00.000000001Z one";
        assert_eq!(reader.take(first), Some("one"));
        assert_eq!(reader.take("2026-11-26T12:00:00.000000002Z"), Some(""));
        assert_eq!(reader.take(first), None);
        assert_eq!(
            reader.take("2026-11-26T12:00:01Z two words"),
            Some("two words")
        );
        // What is not of the node's making is printed as it is.
        assert_eq!(reader.take("no time"), Some("no time"));
    }
}
